//! What the tests of this suite share: the product as its chart installs it, fleets of the sample server, and
//! MCP clients in pods. Clients that make load are in [`crate::load`].

use std::{sync::OnceLock, time::Duration};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    images,
    support::{Namespace, Suite, TestResult, wait},
};

/// Namespace of the product.
pub const SYSTEM: &str = "mcp-fleet-system";
/// The node that only pods with [`spare_toleration`] may use: what happens to it disturbs no other test.
pub const SPARE: &str = "n3";
/// Longest start or end of pods on a busy machine.
pub const PODS: Duration = Duration::from_secs(120);

/// Installs the chart once for all tests, as a user does.
pub fn install(suite: &Suite) -> TestResult {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| helm_install(suite)).clone().map_err(Failed::from)
}

fn helm_install(suite: &Suite) -> Result<(), String> {
    let (repository, tag) = images::PRODUCT.rsplit_once(':').ok_or("no tag")?;
    suite
        .kubectl(&["taint", "node", SPARE, "mcpfleet.test/spare=true:NoSchedule"])
        .map_err(|e| format!("{e:?}"))?;
    // The product itself must live under the strictest Pod Security.
    suite.cluster.apply(&restricted_namespace(SYSTEM).to_string()).map_err(|e| e.to_string())?;
    let mut helm = suite.cluster.helm();
    helm.args(["install", "mcp-fleet", concat!(env!("CARGO_MANIFEST_DIR"), "/charts/mcp-fleet")])
        .args(["--namespace", SYSTEM, "--wait", "--timeout", "2m"])
        .args(["--set", &format!("image.repository={repository},image.tag={tag},image.pullPolicy=Never")]);
    let output = helm.output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let pods = suite.kubectl(&["-n", SYSTEM, "get", "events,pods"]).unwrap_or_default();
    Err(format!("helm install: {}\n{pods}", String::from_utf8_lossy(&output.stderr)))
}

/// A namespace that takes nothing but `restricted` pods.
pub fn restricted_namespace(name: &str) -> Value {
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// The spec of a fleet of the sample server that is small and quick to become ready.
pub fn sample(replicas: i32) -> Value {
    json!({
        "replicas": replicas,
        "server": {
            "image": images::SAMPLE,
            "imagePullPolicy": "Never",
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {
                "requests": {"cpu": "20m", "memory": "32Mi"},
                "limits": {"cpu": "500m", "memory": "128Mi"},
            },
            "probes": {
                "startup": {"periodSeconds": 1},
                "readiness": {"type": "HTTP", "path": "/health/ready", "initialDelaySeconds": 0, "periodSeconds": 2},
            },
        },
    })
}

/// Lets a pod onto [`SPARE`].
pub fn spare_toleration() -> Value {
    json!({"key": "mcpfleet.test/spare", "operator": "Exists", "effect": "NoSchedule"})
}

/// The node that a pod is bound to.
pub fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// As [`sample`], with another value at a path such as `/server/image`; what is missing on the way is made.
pub fn with(mut spec: Value, path: &str, value: Value) -> Value {
    let mut at = &mut spec;
    for key in path.trim_start_matches('/').split('/') {
        at = &mut at[key];
    }
    *at = value;
    spec
}

/// Held by a test that makes the node n2 unschedulable: the end of one would let pods onto it again in the
/// middle of another.
pub static N2: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Where clients in pods reach a fleet's own Service.
pub fn url(ns: &Namespace, fleet: &str) -> String {
    format!("http://{fleet}.{}.svc/mcp", ns.name)
}

/// Creates a fleet and waits until it is Ready.
pub async fn ready_fleet(ns: &Namespace, name: &str, spec: &Value) -> TestResult {
    ns.fleet(name, &spec.to_string()).await?;
    ns.condition(name, "Ready", "True", "Ready").await?;
    Ok(())
}

/// The pods of a fleet, those that end included.
pub async fn pods(ns: &Namespace, fleet: &str) -> Result<Vec<Pod>, Failed> {
    let params = ListParams::default().labels(&format!("mcpfleet.io/fleet={fleet}"));
    Ok(ns.api::<Pod>().list(&params).await?.items)
}

/// Waits until exactly `n` pods are left and all of them pass `is`.
pub async fn settled(ns: &Namespace, fleet: &str, n: usize, is: impl Fn(&Pod) -> bool) -> TestResult {
    wait::until(&format!("{n} settled pods of {fleet}"), PODS, async || {
        let pods = pods(ns, fleet).await.map_err(|e| format!("{e:?}"))?;
        let fine = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none() && is(p)).count();
        if pods.len() == n && fine == n {
            Ok(())
        } else {
            Err(format!("{} pods, {fine} as they should be", pods.len()))
        }
    })
    .await
}

/// Deletes a pod without waiting; the time.
pub async fn delete(ns: &Namespace, pod: &str) -> Result<Instant, Failed> {
    ns.api::<Pod>().delete(pod, &DeleteParams::default()).await?;
    Ok(Instant::now())
}

/// Waits until a pod is gone; how long that took.
pub async fn gone(ns: &Namespace, pod: &str, since: Instant) -> Result<Duration, Failed> {
    wait::until(&format!("the end of pod {pod}"), PODS, async || {
        match ns.api::<Pod>().get_opt(pod).await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(pod) => Err(format!("it is {:?}", pod.status.and_then(|s| s.phase))),
        }
    })
    .await?;
    Ok(since.elapsed())
}

/// Restarts of the server in a pod, and whether it is ready.
pub fn server_state(pod: &Pod) -> (i32, bool) {
    let status = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let server = status.into_iter().flatten().find(|c| c.name == "server");
    server.map_or((0, false), |s| (s.restart_count, s.ready))
}

/// Process id and `/proc/PID/status` of a program in a pod: the nodes run on this machine.
pub fn process(pod: &Pod, program: &str) -> Result<(String, String), Failed> {
    let uid = pod.uid().ok_or("no uid")?;
    let found = std::fs::read_dir("/proc")?.flatten().find_map(|entry| {
        let cgroup = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let is_it = cgroup.contains(&uid) && status.lines().next() == Some(&format!("Name:\t{program}"));
        is_it.then(|| (entry.file_name().to_string_lossy().into_owned(), status))
    });
    found.ok_or_else(|| format!("no process {program} of pod {}", pod.name_any()).into())
}

/// A pod of the sample image that runs `mcp-call`.
fn client_pod(name: &str, args: &[&str]) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": "client"}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "client",
                "image": images::SAMPLE,
                "imagePullPolicy": "Never",
                "command": ["/usr/local/bin/mcp-call"],
                "args": args,
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

/// Starts `mcp-call` in a pod and waits until it runs.
pub async fn start_client(ns: &Namespace, name: &str, args: &[&str]) -> TestResult {
    let pod: Pod = serde_json::from_value(client_pod(name, args))?;
    ns.api().create(&PostParams::default(), &pod).await?;
    phase(ns, name, &["Running", "Succeeded", "Failed"]).await?;
    Ok(())
}

async fn phase(ns: &Namespace, pod: &str, wanted: &[&str]) -> Result<String, Failed> {
    wait::until(&format!("pod {pod} to be {wanted:?}"), PODS, async || {
        let pod = ns.api::<Pod>().get(pod).await.map_err(|e| e.to_string())?;
        let phase = pod.status.and_then(|s| s.phase).unwrap_or_default();
        if wanted.contains(&phase.as_str()) { Ok(phase) } else { Err(phase) }
    })
    .await
}

/// Waits until a client that was started is done; what it printed, or an error if its exit code is not 0.
pub async fn finish_client(ns: &Namespace, name: &str) -> Result<String, Failed> {
    let phase = phase(ns, name, &["Succeeded", "Failed"]).await?;
    let log = ns.api::<Pod>().logs(name, &LogParams::default()).await?;
    if phase == "Succeeded" { Ok(log) } else { Err(format!("{name} failed: {log}").into()) }
}

/// Runs `mcp-call` in a pod to its end.
pub async fn call(ns: &Namespace, name: &str, args: &[&str]) -> Result<String, Failed> {
    start_client(ns, name, args).await?;
    finish_client(ns, name).await
}

/// Waits until a fleet answers through its Service again. For the time after a failure: kube-proxy needs a
/// moment to learn of an endpoint that is back.
pub async fn answers(ns: &Namespace, fleet: &str) -> TestResult {
    let url = url(ns, fleet);
    let mut n_tries = 0;
    wait::until(&format!("an answer of {fleet}"), PODS, async || {
        n_tries += 1;
        let client = format!("after-{fleet}-{n_tries}");
        call(ns, &client, &["--url", &url, "call", "whoami"]).await.map(drop).map_err(|e| format!("{e:?}"))
    })
    .await
}

/// Waits until every node but [`SPARE`] leads to a fleet's Service: each kube-proxy learns of its endpoints in
/// its own time after the fleet is Ready, and refuses connections until then.
pub async fn reachable(suite: &Suite, ns: &Namespace, fleet: &str) -> TestResult {
    let url = node_url(ns, fleet).await?;
    for node in 1..=2 {
        wait::until(&format!("{fleet} from node {node}"), PODS, async || {
            call_from_node(suite, node, &url).map(drop)
        })
        .await?;
    }
    Ok(())
}

/// Waits until the one sample server of a fleet runs a call besides the one that asks. Asked by a client that
/// ends at once: a connection through the API server's proxy would stay, and hold the pod.
pub async fn under_way(suite: &Suite, ns: &Namespace, fleet: &str) -> TestResult {
    let url = node_url(ns, fleet).await?;
    wait::until(&format!("a call on {fleet}"), PODS, async || {
        let told = call_from_node(suite, 1, &url)?;
        let told: serde_json::Value = serde_json::from_str(&told).map_err(|e| e.to_string())?;
        if told["runningCalls"].as_u64() > Some(1) { Ok(()) } else { Err(told.to_string()) }
    })
    .await
}

/// The URL of a fleet's Service by its address: nodes do not know the cluster's names.
async fn node_url(ns: &Namespace, fleet: &str) -> Result<String, Failed> {
    let service: Service = ns.api().get(fleet).await?;
    let address = service.spec.and_then(|s| s.cluster_ip).ok_or("no cluster IP")?;
    Ok(format!("http://{address}/mcp"))
}

/// What `whoami` says to a client on a node.
fn call_from_node(suite: &Suite, node: usize, url: &str) -> Result<String, String> {
    let client = concat!(env!("CARGO_TARGET_TMPDIR"), "/../images/mcp-call");
    let mut command = suite.cluster.command_on_node(node, client);
    let output = command.args(["--url", url, "call", "whoami"]).output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Names of the pods.
pub fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

/// The image of a pod's server, as its spec says.
pub fn image(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers.iter().find(|c| c.name == "server")?.image.as_deref()
}

/// Deletes a fleet, so that its pods leave the nodes to others.
pub async fn delete_fleet(ns: &Namespace, fleet: &str) -> TestResult {
    let api: Api<mcp_fleet::api::v1alpha1::McpFleet> = ns.api();
    api.delete(fleet, &DeleteParams::default()).await?;
    Ok(())
}
