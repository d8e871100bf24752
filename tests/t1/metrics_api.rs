//! The aggregated metrics API before a real API server: registered, reached, handed over, mended, removed. The operator
//! runs in the API server's network, with the deployed rights, behind a Service without selector.

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, OnceLock},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ConfigMap, kube_aggregator::pkg::apis::apiregistration::v1::APIService};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use libtest_mimic::Failed;
use mcp_fleet_cluster::{Cluster, Tier};
use serde_json::{Value, json};

use crate::support::{
    Suite, TestResult,
    operator::{NAMESPACE, SERVICE_ACCOUNT},
    wait,
};

const SERVICE: &str = "mcp-fleet-operator-api";
const LOAD: &str = "mcp-fleet-operator-load";
const AUDIENCE: &str = "--audience=mcp-fleet-operator";
const MAP: &str = "mcp-fleet-operator-ca";
const OURS: &str = "v1beta2.custom.metrics.k8s.io";
const THEIRS: &str = "v1beta1.custom.metrics.k8s.io";
const GROUP: &str = "/apis/custom.metrics.k8s.io/v1beta2";
/// Removal and registration each take seconds, the grace of a hand-over ten, a new leader fifteen.
const LIMIT: Duration = Duration::from_secs(90);

/// A cluster with operators inside its network.
struct Stage {
    suite: Arc<Suite>,
    kubeconfig: PathBuf,
}

/// It ends with the process.
fn cluster() -> Arc<Suite> {
    static CLUSTER: OnceLock<Arc<Suite>> = OnceLock::new();
    let start = || Suite::another(Cluster::builder(Tier::T1).name("t1-metrics"), true);
    Arc::clone(CLUSTER.get_or_init(|| start().expect("the cluster starts")))
}

/// From the first start to the removal, on a cluster of its own: an APIService is everybody's.
pub async fn from_registration_to_removal(_: Arc<Suite>) -> TestResult {
    let suite = cluster();
    let token = suite.cluster.service_account_token(NAMESPACE, SERVICE_ACCOUNT)?;
    let kubeconfig = suite.cluster.token_kubeconfig_inside("operator", &token)?;
    let stage = Stage { suite, kubeconfig };
    stage.service("mcp-fleet-operator-api", 443)?;
    stage.start("op-0", 8443)?;
    stage.is_served().await?;
    stage.a_fleet_has_a_value().await?;
    stage.discovery_is_whole().await?;
    stage.answers_are_kubernetes_own().await?;
    stage.reports_need_a_gateways_token().await?;
    stage.drift_is_mended().await?;
    stage.a_stranger_makes_it_leave_and_come_back().await?;
    stage.another_replica_takes_over().await?;
    stage.cleanup_removes_it_under_a_running_operator().await
}

impl Stage {
    fn client(&self) -> Client {
        self.suite.client.clone()
    }

    fn services(&self) -> Api<APIService> {
        Api::all(self.client())
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client(), NAMESPACE)
    }

    fn node_ip(&self) -> &'static str {
        self.suite.cluster.node_ip()
    }

    fn log(&self, component: &str) -> String {
        std::fs::read_to_string(self.suite.cluster.log(component)).unwrap_or_default()
    }

    fn service(&self, name: &str, port: u16) -> TestResult {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"ports": [{"name": "https", "port": port, "targetPort": 8443}]},
        });
        Ok(self.suite.cluster.apply(&service.to_string())?)
    }

    /// Starts a replica in the API server's network, and leads the Service to it.
    fn start(&self, pod: &str, port: u16) -> TestResult {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": pod, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": SERVICE}},
            "endpoints": [{"addresses": [self.node_ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        self.suite.cluster.apply(&slice.to_string())?;
        let listen = |port: u16| format!("{}:{port}", self.node_ip());
        let args = [
            ("--admin-listen", listen(port + 1000)),
            ("--api-listen", listen(port)),
            ("--metrics-api-service", SERVICE.to_owned()),
            ("--load-service", LOAD.to_owned()),
            ("--ca-config-map", MAP.to_owned()),
            ("--gateway-service-account", "mcp-fleet-gateway".to_owned()),
            ("--gateway-url", "http://gateway.invalid".to_owned()),
            ("--log-format", "text".to_owned()),
            ("--agent-image", "localhost/mcp-fleet:dev".to_owned()),
        ];
        let args = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
        let env = [
            ("KUBECONFIG", self.kubeconfig.to_str().unwrap_or_default()),
            ("POD_NAME", pod),
            ("POD_NAMESPACE", NAMESPACE),
        ];
        let args = std::iter::once("operator".to_owned()).chain(args);
        Ok(self.suite.cluster.start_program(pod, env!("CARGO_BIN_EXE_mcp-fleet"), args, &env)?)
    }

    /// Ours, once the API server reaches it.
    async fn is_served(&self) -> Result<APIService, Failed> {
        wait::until("the APIService to be available", LIMIT, async || {
            let found = self.services().get_opt(OURS).await.map_err(|e| e.to_string())?;
            let found = found.ok_or("there is none")?;
            let conditions = found.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
            match conditions.iter().find(|c| c.type_ == "Available") {
                Some(c) if c.status == "True" => Ok(found),
                other => Err(format!("{other:?}; op-0: {}", tail(&self.log("op-0")))),
            }
        })
        .await
    }

    /// kubectl as administrator; output and complaints.
    fn kubectl(&self, args: &[&str]) -> Result<(bool, String, String), Failed> {
        Ok(texts(&self.suite.cluster.kubectl().args(args).output()?))
    }

    async fn discovery_is_whole(&self) -> TestResult {
        let (_, list, _) = self.kubectl(&["get", "--raw", GROUP])?;
        let list: Value = serde_json::from_str(&list)?;
        assert_eq!(list["resources"][0]["name"], "mcpfleets.mcpfleet.io/mcp_desired_replicas");
        let mark = self.log("kube-apiserver").len();
        // kubectl leaves resources out whose name has a slash; what counts is that nothing is wrong with the group.
        wait::until("api-resources without a complaint", LIMIT, async || {
            match self.kubectl(&["api-resources"]).map_err(|e| format!("{e:?}"))? {
                (true, _, err) if err.is_empty() => Ok(()),
                (_, _, err) => Err(err),
            }
        })
        .await?;
        let (_, groups, _) = self.kubectl(&["api-versions"])?;
        assert!(groups.lines().any(|line| line == "custom.metrics.k8s.io/v1beta2"), "{groups}");
        for document in ["/openapi/v2", "/openapi/v3"] {
            assert!(self.kubectl(&["get", "--raw", document])?.0, "{document}");
        }
        let changed = PatchParams::default();
        let touch = json!({"metadata": {"annotations": {"touched": "1"}}});
        // A change makes the OpenAPI controllers ask again.
        self.services().patch(OURS, &changed, &Patch::Merge(touch)).await?;
        wait::holds("a quiet API server", Duration::from_secs(12), async || {
            let log = self.log("kube-apiserver");
            let complaint = log[mark.min(log.len())..].lines().find(|line| {
                line.contains("custom.metrics.k8s.io")
                    && (line.starts_with('E') || line.contains("Rate Limited") || line.contains("failed"))
            });
            complaint.map_or(Ok(()), |line| Err(line.to_owned()))
        })
        .await
    }

    async fn answers_are_kubernetes_own(&self) -> TestResult {
        let namespace = self.suite.namespace("metrics").await?;
        let path = |fleet: &str, metric: &str| {
            format!("{GROUP}/namespaces/{}/mcpfleets.mcpfleet.io/{fleet}/{metric}", namespace.name)
        };
        let (ok, _, err) = self.kubectl(&["get", "--raw", &path("absent", "mcp_desired_replicas")])?;
        assert!(!ok && err.contains("NotFound"), "{err}");
        let (ok, _, err) = self.kubectl(&["get", "--raw", &path("absent", "cpu")])?;
        assert!(!ok && err.contains("there are mcp_desired_replicas and mcp_utilization"), "{err}");
        // Impersonated, so reviewed by the API server and by us: nobody has given her the right.
        let jane = ["get", "--raw", &path("absent", "mcp_utilization"), "--as", "jane"];
        let (ok, _, err) = self.kubectl(&jane)?;
        assert!(!ok && err.contains("Forbidden"), "{err}");
        self.suite.cluster.apply(&reader("jane").to_string())?;
        wait::until("the right to count", LIMIT, async || {
            let (_, _, err) = self.kubectl(&jane).map_err(|e| format!("{e:?}"))?;
            if err.contains("NotFound") { Ok(()) } else { Err(err) }
        })
        .await?;
        // Without the aggregation layer nobody is anybody, whatever the headers say.
        let forged = ["-H", "X-Remote-User: admin", "-H", "X-Remote-Group: system:masters"];
        let (_, body, err) = self.curl(SERVICE, &path("absent", "mcp_utilization"), &forged).await?;
        assert!(body.ends_with("401") && body.contains("\"kind\":\"Status\""), "{body} {err}");
        let (_, body, err) = self.curl(SERVICE, "/healthz", &[]).await?;
        assert!(body.ends_with("200"), "{body} {err}");
        Ok(())
    }

    /// A request from inside the network, by the Service's name and with the published certificates.
    async fn curl(&self, host: &str, path: &str, more: &[&str]) -> Result<(bool, String, String), Failed> {
        let map = self.maps().get(MAP).await?;
        let file = self.suite.cluster.scratch().join("published.crt");
        std::fs::write(&file, map.data.unwrap_or_default().get("ca.crt").cloned().unwrap_or_default())?;
        let host = format!("{host}.{NAMESPACE}.svc");
        let mut command: Command = self.suite.cluster.command_inside("curl");
        command.args(["-s", "-S", "--max-time", "10", "-w", "%{http_code}", "--cacert"]).arg(file);
        command.args(["--resolve", &format!("{host}:8443:{}", self.node_ip())]).args(more);
        Ok(texts(&command.arg(format!("https://{host}:8443{path}")).output()?))
    }

    /// A token of a ServiceAccount of the product's namespace.
    fn token(&self, account: &str, more: &[&str]) -> Result<String, Failed> {
        let create = ["create", "token", account, "--namespace", NAMESPACE];
        Ok(self.kubectl(&[&create[..], more].concat())?.1.trim().to_owned())
    }

    /// Reports arrive on one side, and the number that an HPA reads comes out of the API server.
    async fn a_fleet_has_a_value(&self) -> TestResult {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "mcp-fleet-gateway", "namespace": NAMESPACE}});
        self.suite.cluster.apply(&account.to_string())?;
        let header = format!("Authorization: Bearer {}", self.token("mcp-fleet-gateway", &[AUDIENCE])?);
        let namespace = self.suite.namespace("metrics").await?;
        let spec = "{server: {image: a}, autoscaling: {minReplicas: 3, maxReplicas: 8}}";
        let uid = namespace.fleet("github", spec).await?.metadata.uid;
        let path = format!(
            "{GROUP}/namespaces/{}/mcpfleets.mcpfleet.io/github/mcp_desired_replicas",
            namespace.name
        );
        let mut sequence = 0;
        let list = wait::until("a value", LIMIT, async || {
            sequence += 1;
            let fleet = json!({"namespace": namespace.name, "name": "github", "uid": uid, "ready": 3, "arrivals": sequence,
                "admitted": sequence, "completions": {"ok": sequence}, "inFlightSeconds": 0.1 * f64::from(sequence)});
            let report = json!({"version": 1, "gateway": "gw-0", "epoch": 1, "sequence": sequence,
                "time": jiff::Timestamp::now().to_string(), "fleets": [fleet]});
            let report = report.to_string();
            let (_, sent, _) = self.curl(LOAD, "/v1/load", &["-H", &header, "-d", &report]).await.map_err(|e| format!("{e:?}"))?;
            match self.kubectl(&["get", "--raw", &path]).map_err(|e| format!("{e:?}"))? {
                (true, list, _) => Ok(list),
                (_, _, err) => Err(format!("{sent}: {err}")),
            }
        })
        .await?;
        let list: Value = serde_json::from_str(&list)?;
        assert_eq!(list["kind"], "MetricValueList");
        let item = &list["items"][0];
        assert_eq!(
            (&item["value"], &item["describedObject"]["name"]),
            (&json!("3"), &json!("github")),
            "{list}"
        );
        Ok(())
    }

    async fn reports_need_a_gateways_token(&self) -> TestResult {
        let now = jiff::Timestamp::now();
        let report = json!({"version": 1, "gateway": "gw-0", "epoch": 2, "sequence": 1, "time": now.to_string(), "fleets": []});
        let report = report.to_string();
        for (token, code) in [
            ("nonsense".to_owned(), "401"),
            (self.token("mcp-fleet-gateway", &[])?, "401"),
            (self.token(SERVICE_ACCOUNT, &[AUDIENCE])?, "403"),
            (self.token("mcp-fleet-gateway", &[AUDIENCE])?, "202"),
        ] {
            let header = format!("Authorization: Bearer {token}");
            let (_, body, err) = self.curl(LOAD, "/v1/load", &["-H", &header, "-d", &report]).await?;
            assert!(body.ends_with(code), "{code}: {body} {err}");
        }
        Ok(())
    }

    async fn drift_is_mended(&self) -> TestResult {
        let union = self.maps().get(MAP).await?.data.unwrap_or_default().get("ca.crt").cloned();
        let bundle = self.services().get(OURS).await?.spec.and_then(|s| s.ca_bundle).map(|b| b.0);
        assert_eq!(bundle.as_deref(), union.as_deref().map(str::as_bytes), "one union in both places");
        let drift = json!({"spec": {"versionPriority": 5, "caBundle": null, "insecureSkipTLSVerify": true}});
        self.services().patch(OURS, &PatchParams::default(), &Patch::Merge(drift)).await?;
        wait::until("the APIService as it was", LIMIT, async || {
            let spec = self.services().get(OURS).await.map_err(|e| e.to_string())?.spec.unwrap_or_default();
            let is_mended = spec.version_priority == 200
                && spec.insecure_skip_tls_verify != Some(true)
                && spec.ca_bundle.as_ref().map(|b| &b.0) == bundle.as_ref();
            if is_mended { Ok(()) } else { Err(format!("{spec:?}")) }
        })
        .await?;
        self.maps()
            .patch(
                MAP,
                &PatchParams::default(),
                &Patch::Merge(json!({"data": {"ca.crt": "", "op-0.crt": null}})),
            )
            .await?;
        wait::until("the ConfigMap as it was", LIMIT, async || {
            let data = self.maps().get(MAP).await.map_err(|e| e.to_string())?.data.unwrap_or_default();
            if data.get("ca.crt") == union.as_ref() && data.contains_key("op-0.crt") {
                Ok(())
            } else {
                Err(format!("{data:?}"))
            }
        })
        .await?;
        self.is_served().await.map(drop)
    }

    async fn a_stranger_makes_it_leave_and_come_back(&self) -> TestResult {
        let theirs: APIService = serde_json::from_value(json!({
            "metadata": {"name": THEIRS},
            "spec": {"group": "custom.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true, "service": {"namespace": "monitoring", "name": "adapter", "port": 443}},
        }))?;
        self.services().create(&PostParams::default(), &theirs).await?;
        wait::until("the operator to say whose it is", LIMIT, async || {
            let is_told = self.log("op-0").contains(r#"OwnedByOther(["monitoring/adapter"])"#);
            if is_told { Ok(()) } else { Err(tail(&self.log("op-0"))) }
        })
        .await?;
        let is_there = async || {
            let found = self.services().get_opt(OURS).await.map_err(|e| e.to_string())?;
            found.map(drop).ok_or_else(|| "it is gone".to_owned())
        };
        wait::holds("ours, while fleets leave it", Duration::from_secs(5), is_there).await?;
        wait::until("ours to go", LIMIT, async || match is_there().await {
            Ok(()) => Err("it is still there".to_owned()),
            Err(_) => Ok(()),
        })
        .await?;
        let live = self.services().get(THEIRS).await?;
        assert_eq!(
            live.spec.and_then(|s| s.service),
            theirs.spec.and_then(|s| s.service),
            "theirs is theirs"
        );
        self.services().delete(THEIRS, &DeleteParams::default()).await?;
        self.is_served().await.map(drop)
    }

    async fn another_replica_takes_over(&self) -> TestResult {
        self.start("op-1", 8444)?;
        wait::until("both replicas to be known", LIMIT, async || {
            let spec = self.services().get(OURS).await.map_err(|e| e.to_string())?.spec.unwrap_or_default();
            let bundle = String::from_utf8_lossy(&spec.ca_bundle.unwrap_or_default().0).into_owned();
            match bundle.matches("BEGIN CERTIFICATE").count() {
                2 => Ok(()),
                n => Err(format!("{n} certificates; op-1: {}", tail(&self.log("op-1")))),
            }
        })
        .await?;
        self.suite.cluster.kill_component("op-0")?;
        self.kubectl(&["delete", "endpointslice", "op-0", "--namespace", NAMESPACE])?;
        wait::until("the other replica to answer", LIMIT, async || {
            match self.kubectl(&["get", "--raw", GROUP]).map_err(|e| format!("{e:?}"))? {
                (true, ..) => Ok(()),
                (_, _, err) => Err(err),
            }
        })
        .await?;
        // The new leader keeps what is there as it is.
        let uid = self.services().get(OURS).await?.metadata.uid;
        wait::until("a new leader", LIMIT, async || {
            let log = self.log("op-1");
            if log.contains("became the leader") { Ok(()) } else { Err(tail(&log)) }
        })
        .await?;
        assert_eq!(self.services().get(OURS).await?.metadata.uid, uid);
        Ok(())
    }

    fn cleanup(&self) -> Result<(bool, String, String), Failed> {
        let mut command = self.suite.cluster.command_inside(env!("CARGO_BIN_EXE_mcp-fleet"));
        command.args(["cleanup", "--metrics-api-service", SERVICE, "--ca-config-map", MAP]);
        command.env("KUBECONFIG", &self.kubeconfig).env("POD_NAMESPACE", NAMESPACE);
        Ok(texts(&command.output()?))
    }

    async fn cleanup_removes_it_under_a_running_operator(&self) -> TestResult {
        let (ok, said, err) = self.cleanup()?;
        assert!(ok, "{said} {err}");
        assert!(said.contains(&format!("APIService {OURS}: deleted")), "{said}");
        assert!(said.contains(&format!("ConfigMap {NAMESPACE}/{MAP}: deleted")), "{said}");
        wait::holds("nothing coming back", Duration::from_secs(8), async || {
            let service = self.services().get_opt(OURS).await.map_err(|e| e.to_string())?;
            let map = self.maps().get_opt(MAP).await.map_err(|e| e.to_string())?;
            if service.is_none() && map.is_none() { Ok(()) } else { Err(format!("{service:?} {map:?}")) }
        })
        .await?;
        let (ok, said, err) = self.cleanup()?;
        assert!(ok && said.matches("is not there").count() == 2, "{said} {err}");
        let (ok, _, err) = self.kubectl(&["api-resources"])?;
        assert!(ok && err.is_empty(), "{err}");
        Ok(())
    }
}

/// The right to read metrics of fleets.
fn reader(user: &str) -> Value {
    let meta = json!({"name": "metrics-reader"});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta, "rules": [
        {"apiGroups": ["custom.metrics.k8s.io"], "resources": ["mcpfleets.mcpfleet.io/mcp_utilization"], "verbs": ["get"]}]});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics-reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [role, binding]})
}

fn texts(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
