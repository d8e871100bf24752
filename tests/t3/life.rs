//! A fleet's ordinary life: from `kubectl apply` to answered calls, and back after a pod has died.

use std::{process::Command, sync::Arc, time::Duration};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{Api, ResourceExt, api::DeleteParams};
use libtest_mimic::Failed;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    images, lab,
    support::{Suite, TestResult, wait},
};

/// Every default of the product stands, the probes' included.
const MANIFEST: &str = "
apiVersion: mcpfleet.io/v1alpha1
kind: McpFleet
metadata: {name: weather}
spec:
  server:
    image: IMAGE
    env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    resources: {requests: {cpu: 20m, memory: 32Mi}, limits: {cpu: 500m, memory: 128Mi}}
  autoscaling: {}
";

/// `kubectl apply -f` of a text.
pub fn kubectl_apply(suite: &Suite, namespace: &str, name: &str, text: &str) -> TestResult {
    let file = suite.cluster.scratch().join(format!("{namespace}-{name}.yaml"));
    std::fs::write(&file, text)?;
    let path = file.to_str().ok_or("a path in UTF-8")?;
    suite.kubectl(&["-n", namespace, "apply", "-f", path])?;
    Ok(())
}

pub async fn from_apply_to_answered_calls(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("life").await?;
    let start = Instant::now();
    kubectl_apply(&suite, &ns.name, "weather", &MANIFEST.replace("IMAGE", images::SAMPLE))?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    let took = start.elapsed();
    // Startup probe at once, readiness after 5 s; the rest is scheduling and a busy machine.
    if took > Duration::from_secs(45) {
        return Err(format!("Ready only after {took:?}").into());
    }
    lab::reachable(&suite, &ns, "weather").await?;
    let url = lab::url(&ns, "weather");
    let list = lab::call(&ns, "list", &["--url", &url, "list"]).await?;
    let whoami = lab::call(&ns, "whoami", &["--url", &url, "call", "whoami"]).await?;
    let pods = lab::names(&lab::pods(&ns, "weather").await?);
    if !list.contains("burn_cpu") || !pods.iter().any(|pod| whoami.contains(pod)) {
        return Err(format!("list: {list}\nwhoami: {whoami}\npods: {pods:?}").into());
    }
    let table = wait::until("a utilization", wait::LIMIT, async || {
        let table = suite.kubectl(&["-n", &ns.name, "get", "mcpfleet", "-o", "wide"]);
        let table = table.map_err(|e| format!("{e:?}"))?;
        // Nothing is shown before the gateways have reported.
        if table.lines().nth(1).is_some_and(|row| row.split_whitespace().count() == 10) {
            Ok(table)
        } else {
            Err(table)
        }
    })
    .await?;
    let (head, row) = table.split_once('\n').ok_or("a table")?;
    let head: Vec<&str> = head.split_whitespace().collect();
    let row: Vec<&str> = row.split_whitespace().collect();
    let through_gateways = format!("http://mcp-fleet-gateway.{}/{}/weather/mcp", lab::SYSTEM, ns.name);
    let wanted = ["NAME", "READY", "DESIRED", "MIN", "MAX", "UTIL", "STATUS", "AGE", "URL", "IMAGE"];
    if head != wanted
        || row[..5] != ["weather", "2", "2", "2", "10"]
        || row[6] != "Ready"
        || row[8] != through_gateways
    {
        return Err(format!("kubectl get mcpfleet says\n{table}").into());
    }
    lab::delete_fleet(&ns, "weather").await
}

pub async fn killed_pods_and_processes_come_back(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("killed").await?;
    lab::ready_fleet(&ns, "weather", &lab::sample(2)).await?;
    let before = lab::pods(&ns, "weather").await?;
    // A pod that vanishes without a drain.
    let victim = before[0].name_any();
    ns.api::<Pod>().delete(&victim, &DeleteParams::default().grace_period(0)).await?;
    // The process of the other one ends by itself.
    let survivor = before[1].name_any();
    let address = before[1].status.as_ref().and_then(|s| s.pod_ip.clone()).ok_or("no pod address")?;
    let url = format!("http://{address}:8080/mcp");
    lab::call(&ns, "exit", &["--url", &url, "call", "exit", "--arguments", r#"{"delay_milliseconds":300}"#])
        .await?;
    wait::until("two ready pods", lab::PODS, async || {
        let pods = lab::pods(&ns, "weather").await.map_err(|e| format!("{e:?}"))?;
        let restarts = pods.iter().find(|p| p.name_any() == survivor).map_or(0, |p| lab::server_state(p).0);
        let ready = pods.iter().filter(|p| p.name_any() != victim && lab::server_state(p).1).count();
        if ready == 2 && restarts == 1 { Ok(()) } else { Err(format!("{ready} ready, {restarts} restarts")) }
    })
    .await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    lab::answers(&ns, "weather").await?;
    lab::delete_fleet(&ns, "weather").await
}

/// A node that dies with a pod on it: the fleet says so, and the pod is replaced on another node.
pub async fn a_dead_node_is_told_and_left(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("node-death").await?;
    let prefers = json!([{"weight": 100, "preference": {"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [lab::SPARE]}]}}]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": prefers}});
    // By default Kubernetes waits five minutes for a node that may come back.
    let soon =
        |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1});
    let tolerations = json!([
        lab::spare_toleration(),
        soon("node.kubernetes.io/not-ready"),
        soon("node.kubernetes.io/unreachable"),
    ]);
    let spec = lab::with(lab::sample(1), "/server/affinity", affinity);
    let spec = lab::with(spec, "/server/tolerations", tolerations);
    lab::ready_fleet(&ns, "weather", &spec).await?;
    let pod = lab::pods(&ns, "weather").await?.remove(0);
    if lab::node(&pod) != Some(lab::SPARE) {
        return Err(format!("the pod is on {:?}", lab::node(&pod)).into());
    }
    suite.cluster.kill_node(3)?;
    let killed = Instant::now();
    wait::until("the fleet to say that it does not serve", lab::PODS, async || {
        let fleet = ns.get("weather").await.map_err(|e| format!("{e:?}"))?;
        let conditions = fleet.status.map(|s| s.conditions).unwrap_or_default();
        match conditions.iter().find(|c| c.type_ == "Available") {
            Some(c) if c.status == "False" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let told = killed.elapsed();
    ns.condition("weather", "Ready", "True", "Ready").await?;
    eprintln!("life: node dead, told after {told:.1?}, replaced after {:.1?}", killed.elapsed());
    lab::answers(&ns, "weather").await?;
    suite.cluster.start_node(3)?;
    lab::settled(&ns, "weather", 1, |p| lab::node(p) != Some(lab::SPARE)).await?;
    lab::delete_fleet(&ns, "weather").await
}

/// SIGKILL, so that nothing is handed over: the other replica goes on once the lease has run out.
pub async fn the_leader_is_killed_and_the_other_replica_goes_on(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("leader").await?;
    let leases: Api<Lease> = Api::namespaced(suite.client.clone(), lab::SYSTEM);
    let holder = async || -> Result<String, Failed> {
        let lease = leases.get("mcp-fleet-operator").await?;
        Ok(lease.spec.and_then(|s| s.holder_identity).unwrap_or_default())
    };
    let old = holder().await?;
    let (pod, _) = old.rsplit_once('_').ok_or_else(|| format!("holder {old:?}"))?;
    let pods: Api<Pod> = Api::namespaced(suite.client.clone(), lab::SYSTEM);
    let (pid, _) = lab::process(&pods.get(pod).await?, "mcp-fleet")?;
    if !Command::new("kill").args(["-KILL", &pid]).status()?.success() {
        return Err(format!("kill -KILL {pid}").into());
    }
    let killed = Instant::now();
    lab::ready_fleet(&ns, "weather", &lab::sample(1)).await?;
    let new = holder().await?;
    eprintln!("life: leader killed, a new fleet Ready after {:.1?}", killed.elapsed());
    if new == old {
        return Err(format!("{old} still holds the lease").into());
    }
    lab::delete_fleet(&ns, "weather").await
}
