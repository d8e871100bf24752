//! A cluster with the operator as it is installed, in the cluster's own network: the API server reaches its metrics
//! API, and a gateway of the test reports load to it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kube::Client;
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use mcp_fleet_cluster::{Cluster, Forward, Tier, audit};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::OnceCell, task::JoinHandle};

use super::gateway::{CA_CONFIG_MAP, Flow, Gateway, LOAD_SERVICE};
use crate::{
    look::{self, HPA_USER, SERVER},
    support::{
        self, Namespace, client,
        operator::{self, NAMESPACE, SERVICE_ACCOUNT},
        wait,
    },
};

/// As the chart calls it.
pub const API_SERVICE: &str = "mcp-fleet-operator-api";
const GATEWAY_ACCOUNT: &str = "mcp-fleet-gateway";
/// A load-driven step: reports each second, windows of 5 s, the controller-manager's look every 2 s; the rest is for a
/// busy machine.
pub const STEP: Duration = Duration::from_secs(90);

/// A cluster, operators in it, and the gateway.
pub struct World {
    pub cluster: Cluster,
    pub client: Client,
    pub gateway: Gateway,
    kubeconfig: PathBuf,
    /// Ports that lead to the operators' own.
    forwards: Mutex<Vec<Forward>>,
    reports: Mutex<Vec<JoinHandle<()>>>,
}

/// One replica of the operator.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Its name, and its pod's.
    pub name: String,
    /// Of its TLS port.
    pub api_port: u16,
    /// Of its admin endpoints.
    pub admin_port: u16,
    /// It has a metrics API.
    pub metrics_api: bool,
    /// The ConfigMap of its certificates.
    pub ca_config_map: String,
    /// More arguments.
    pub args: Vec<String>,
}

impl World {
    /// The one that undisturbing tests share. It ends with the process.
    pub async fn shared() -> Result<Arc<Self>, Failed> {
        static SHARED: OnceCell<Arc<World>> = OnceCell::const_new();
        let start = || async {
            let world = Self::start("t2-mcp").await?;
            world.replica(&Replica::new("operator-a", 0)).await?;
            world.begins(&world.gateway, "gateway-0", &[8443])?;
            Ok::<_, Failed>(Arc::new(world))
        };
        Ok(Arc::clone(SHARED.get_or_try_init(start).await?))
    }

    /// A cluster without an operator.
    pub async fn start(name: &str) -> Result<Self, Failed> {
        let cluster = Cluster::builder(Tier::T2)
            .name(name)
            .kwok_nodes(3)
            .kcm_args(["--horizontal-pod-autoscaler-sync-period=2s"])
            .start()?;
        support::install_crd(&cluster)?;
        operator::install_rights(&cluster)?;
        let client = client(&cluster.kubeconfig()).await?;
        let token = cluster.service_account_token(NAMESPACE, SERVICE_ACCOUNT)?;
        let kubeconfig = cluster.token_kubeconfig_inside("operator", &token)?;
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": GATEWAY_ACCOUNT, "namespace": NAMESPACE}});
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": API_SERVICE, "namespace": NAMESPACE},
            "spec": {"ports": [{"name": "https", "port": 443, "targetPort": "https"}]}});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [account, service]});
        cluster.apply(&list.to_string())?;
        let (forwards, reports) = (Mutex::default(), Mutex::default());
        Ok(Self { cluster, client, gateway: Gateway::new(), kubeconfig, forwards, reports })
    }

    /// Starts a replica, lets the API server find it, and waits until it is ready.
    pub async fn replica(&self, replica: &Replica) -> Result<(), Failed> {
        let listen = format!("{}:{}", self.cluster.node_ip(), replica.api_port);
        let admin = format!("127.0.0.1:{}", replica.admin_port);
        let mut args: Vec<String> =
            ["operator", "--log-format", "text", "--agent-image", "localhost/agent:1"]
                .map(String::from)
                .to_vec();
        for (flag, value) in [
            ("--admin-listen", admin.as_str()),
            ("--api-listen", &listen),
            ("--load-service", LOAD_SERVICE),
            ("--ca-config-map", &replica.ca_config_map),
            ("--gateway-service-account", GATEWAY_ACCOUNT),
            ("--gateway-url", "http://gate.example.com"),
        ] {
            args.extend([flag.to_owned(), value.to_owned()]);
        }
        if replica.metrics_api {
            args.extend(["--metrics-api-service", API_SERVICE].map(String::from));
        }
        args.extend(replica.args.iter().cloned());
        let kubeconfig = self.kubeconfig.to_string_lossy();
        let env =
            [("KUBECONFIG", &*kubeconfig), ("POD_NAME", replica.name.as_str()), ("POD_NAMESPACE", NAMESPACE)];
        self.cluster.start_program(&replica.name, env!("CARGO_BIN_EXE_mcp-fleet"), args, &env)?;
        if !replica.metrics_api {
            return self.ready(replica).await;
        }
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("{API_SERVICE}-{}", replica.name), "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": API_SERVICE}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": replica.api_port}],
            "endpoints": [{"addresses": [self.cluster.node_ip()], "conditions": {"ready": true}}]});
        self.cluster.apply(&slice.to_string())?;
        self.ready(replica).await
    }

    /// Waits until a replica is ready.
    pub async fn ready(&self, replica: &Replica) -> Result<(), Failed> {
        let admin = self.cluster.forward(&format!("127.0.0.1:{}", replica.admin_port))?;
        wait::until(&format!("{} to be ready", replica.name), wait::LIMIT, async || {
            get(admin.port(), "/readyz").await.map(drop).map_err(|e| {
                let log = std::fs::read_to_string(self.cluster.log(&replica.name)).unwrap_or_default();
                let from = log.len().saturating_sub(2000);
                format!("{e}; log: {}", log.get(from..).unwrap_or(&log))
            })
        })
        .await
    }

    /// A gateway begins to report, to the replicas with these TLS ports.
    pub fn begins(&self, gateway: &Gateway, pod: &str, replicas: &[u16]) -> Result<(), Failed> {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE},
            "spec": {"serviceAccountName": GATEWAY_ACCOUNT, "containers": [{"name": "gateway", "image": "registry.example/gateway:1",
                "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"}}}]}});
        self.cluster.apply(&object.to_string())?;
        // Bound to its pod, as the token in a pod is.
        let bound = format!("--bound-object-name={pod}");
        let mut create = vec!["create", "token", GATEWAY_ACCOUNT, "--namespace", NAMESPACE];
        create.extend(["--audience=mcp-fleet-operator", "--duration=1h", "--bound-object-kind=Pod", &bound]);
        let token = self.cluster.kubectl_ok(create)?;
        let mut ports = Vec::new();
        for port in replicas {
            let forward = self.cluster.forward(&format!("{}:{port}", self.cluster.node_ip()))?;
            ports.push(forward.port());
            self.forwards.lock().push(forward);
        }
        self.reports.lock().push(gateway.report(self.client.clone(), ports, pod, token.trim()));
        Ok(())
    }

    /// A namespace of a test's own.
    pub fn namespace(&self, name: &str) -> Result<Namespace, Failed> {
        self.cluster.kubectl_ok(["create", "namespace", name])?;
        Ok(Namespace::existing(name, self.client.clone()))
    }

    /// A fleet that is called from its start on. `scaling` are fields of `spec.autoscaling`.
    pub async fn fleet(&self, ns: &Namespace, name: &str, scaling: &str, flow: Flow) -> Result<(), Failed> {
        ns.fleet(name, &format!("{{{SERVER}, autoscaling: {{{scaling}}}}}")).await?;
        self.call(ns, name, flow).await
    }

    /// From now on this runs at the fleet.
    pub async fn call(&self, ns: &Namespace, name: &str, flow: Flow) -> Result<(), Failed> {
        at(&self.gateway, ns, name, flow).await
    }

    /// Who wrote a fleet's scale since then, by user, with how many writes.
    pub fn scale_writers(&self, since: audit::Mark, ns: &Namespace) -> Result<Vec<(String, usize)>, Failed> {
        let writes = self.cluster.audit_log().since(since)?.writes().of("mcpfleets.mcpfleet.io/scale");
        let here = writes.filter(|e| e.is_ok() && e.object.as_ref().is_some_and(|o| o.namespace == ns.name));
        Ok(here.count_by(|e| e.user.clone()).into_iter().collect())
    }
}

/// From now on this runs at the fleet, through this gateway.
pub async fn at(gateway: &Gateway, ns: &Namespace, name: &str, flow: Flow) -> Result<(), Failed> {
    let fleet = ns.get(name).await?;
    gateway.flow((&ns.name, name, fleet.metadata.uid.as_deref().unwrap_or_default()), flow);
    Ok(())
}

impl Replica {
    /// The `number`-th of an operator.
    pub fn new(name: &str, number: u16) -> Self {
        Self {
            name: name.to_owned(),
            api_port: 8443 + number,
            admin_port: 9090 + number,
            metrics_api: true,
            ca_config_map: CA_CONFIG_MAP.to_owned(),
            args: Vec::new(),
        }
    }
}

/// Body of an admin endpoint of a replica.
pub async fn get(port: u16, path: &str) -> Result<String, String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), exchange);
    let answer = answer.await.map_err(|_| "no answer in time")?.map_err(|e| e.to_string())?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200") => Ok(body.to_owned()),
        _ => Err(answer),
    }
}

/// A fleet that follows its calls: one replica for ten at the same time, seen over a few seconds.
pub fn scaling(actuator: &str, more: &str) -> String {
    format!(
        "actuator: '{actuator}', minReplicas: 1, maxReplicas: 10, \
         metrics: {{concurrency: {{target: {{averageValue: '10'}}}}}}, \
         windows: {{stableSeconds: 5, panicSeconds: 2, maxSampleAgeSeconds: 5}}{more}"
    )
}

/// `behavior` without any hold.
pub const FREE: &str = ", behavior: {scaleUp: {stabilizationWindowSeconds: 0, policies: [{type: Pods, value: 100, periodSeconds: 1}]}, \
    scaleDown: {stabilizationWindowSeconds: 0, policies: [{type: Pods, value: 100, periodSeconds: 1}]}}";

/// Waits until a fleet has this scale.
pub async fn scaled(ns: &Namespace, fleet: &str, n: i32) -> Result<McpFleet, Failed> {
    wait::until(&format!("{fleet} at {n}"), STEP, async || {
        let live = ns.get(fleet).await.map_err(|e| format!("{e:?}"))?;
        match live.spec.replicas {
            Some(seen) if seen == n => Ok(live),
            other => Err(format!("{other:?}, {}", autoscaling(&live))),
        }
    })
    .await?;
    look::scale(ns, fleet, n).await
}

/// `status.autoscaling`, for reading.
pub fn autoscaling(fleet: &McpFleet) -> Value {
    let status = fleet.status.as_ref().and_then(|s| serde_json::to_value(s).ok()).unwrap_or_default();
    status["autoscaling"].clone()
}

/// The HPA controller alone.
pub fn only_the_hpa(writers: &[(String, usize)]) -> bool {
    !writers.is_empty() && writers.iter().all(|(user, _)| user == HPA_USER)
}
