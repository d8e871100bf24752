//! A fleet's ordinary life: from `kubectl apply` to answered calls, and back after a pod has died.

use std::{process::Stdio, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use libtest_mimic::Failed;
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
    let url = lab::url(&ns, "weather");
    let list = lab::call(&ns, "list", &["--url", &url, "list"]).await?;
    let whoami = lab::call(&ns, "whoami", &["--url", &url, "call", "whoami"]).await?;
    let pods = lab::names(&lab::pods(&ns, "weather").await?);
    if !list.contains("burn_cpu") || !pods.iter().any(|pod| whoami.contains(pod)) {
        return Err(format!("list: {list}\nwhoami: {whoami}\npods: {pods:?}").into());
    }
    let table = suite.kubectl(&["-n", &ns.name, "get", "mcpfleet", "-o", "wide"])?;
    let (head, row) = table.split_once('\n').ok_or("a table")?;
    let head: Vec<&str> = head.split_whitespace().collect();
    let row: Vec<&str> = row.split_whitespace().collect();
    let wanted = ["NAME", "READY", "DESIRED", "MIN", "MAX", "STATUS", "AGE", "URL", "IMAGE"];
    if head != wanted || row[..6] != ["weather", "2", "2", "2", "10", "Ready"] || row[7] != url {
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
    let url = lab::url(&ns, "weather");
    lab::call(&ns, "after", &["--url", &url, "call", "whoami"]).await?;
    lab::delete_fleet(&ns, "weather").await
}

/// The operator's own death is a matter of its lease; the fleet does not notice.
pub async fn the_leader_dies_and_the_other_replica_goes_on(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("leader").await?;
    let holder = || -> Result<String, Failed> {
        let args = [
            "-n",
            lab::SYSTEM,
            "get",
            "lease",
            "mcp-fleet-operator",
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ];
        suite.kubectl(&args)
    };
    let old = holder()?;
    let (pod, _) = old.rsplit_once('_').ok_or_else(|| format!("holder {old:?}"))?;
    let mut command = suite.cluster.kubectl();
    let args = ["-n", lab::SYSTEM, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"];
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status()?;
    lab::ready_fleet(&ns, "weather", &lab::sample(1)).await?;
    let new = holder()?;
    if new == old {
        return Err(format!("{old} still holds the lease").into());
    }
    lab::delete_fleet(&ns, "weather").await
}
