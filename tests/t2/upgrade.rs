//! R24: another version of the operator restarts nobody. On a cluster of its own, because here the operator
//! itself is what changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use mcp_fleet_cluster::{Cluster, Tier, audit};
use serde_json::json;

use crate::{
    look::{self, check},
    support::{
        self, Namespace, Suite, TestResult, client,
        operator::{self, Operator, USER},
        wait,
    },
};

const N_FLEETS: usize = 20;
/// One full resync at the shortest period, and a fifth of jitter.
const WATCHED: Duration = Duration::from_secs(15);

/// Shapes of fleets, so that every branch of the rendering is under test.
const SHAPES: [&str; 5] = [
    "{replicas: 1, server: {image: registry.example/weather:1}}",
    "{server: {image: registry.example/weather:1}, autoscaling: {minReplicas: 1}}",
    "{replicas: 1, server: {image: registry.example/weather:1, env: [{name: A, value: b}]}, rollout: {drain: Sleep}}",
    "{replicas: 1, server: {image: registry.example/weather:1, resources: {limits: {cpu: 2}}}, rollout: {drain: None}}",
    "{replicas: 2, server: {image: registry.example/weather:1, imagePullPolicy: Always, probes: {readiness: {type: HTTP, path: /health}}}}",
];

/// An operator of some version: they differ in what they would render.
fn version(cluster: &Cluster, version: u32, policy: &str) -> anyhow::Result<Operator> {
    let image = format!("registry.example/agent:{version}");
    let builder = Operator::builder("version").arg("--agent-image").arg(&image);
    builder.arg("--agent-image-pull-policy").arg(policy).arg("--resync-seconds").arg("10").start(cluster)
}

pub async fn another_version_restarts_nobody(_suite: Arc<Suite>) -> TestResult {
    let cluster = Cluster::builder(Tier::T2)
        .name("t2-upgrade")
        .kwok_nodes(2)
        .kcm_args(["--horizontal-pod-autoscaler-sync-period=2s"])
        .start()?;
    support::install_crd(&cluster)?;
    operator::install_rights(&cluster)?;
    let client = client(&cluster.kubeconfig()).await?;
    let ns = Namespace::existing("default", client);

    let mut first = version(&cluster, 1, "IfNotPresent")?;
    for i in 0..N_FLEETS {
        ns.fleet(&name(i), SHAPES[i % SHAPES.len()]).await?;
    }
    for i in 0..N_FLEETS {
        ns.condition(&name(i), "Ready", "True", "Ready").await?;
        look::autoscaler_has_spoken(&ns, &name(i)).await?;
    }
    quiet(&cluster).await?;
    let before = pods(&ns).await?;
    check(first.terminate() == Some(0), || "the first version did not end in order".into())?;

    let mark = cluster.audit_log().mark()?;
    let mut second = version(&cluster, 2, "Always")?;
    watched(&second, "the second version").await?;
    unchanged(&cluster, mark, &ns, &before, "an upgrade").await?;

    // A person changes one fleet and restarts another: they, and they alone, get today's rendering.
    let image = json!({"spec": {"server": {"image": "registry.example/weather:2"}}});
    let restart = json!({"metadata": {"annotations": {"mcpfleet.io/restartedAt": "2026-01-01T00:00:00Z"}}});
    for (fleet, patch) in [(name(3), image), (name(9), restart)] {
        ns.api::<McpFleet>().patch(&fleet, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        replaced(&ns, &fleet, &before).await?;
        ns.condition(&fleet, "Ready", "True", "Ready").await?;
    }
    quiet(&cluster).await?;
    let after = pods(&ns).await?;
    for (fleet, old) in &before {
        let (new, touched) = (&after[fleet], [name(3), name(9)].contains(fleet));
        check((old == new) != touched, || format!("{fleet}: pods {old:?} became {new:?}"))?;
    }
    check(agent(&ns, &name(9)).await?.as_deref() == Some("registry.example/agent:2"), || {
        "an old agent".into()
    })?;

    // And back again.
    check(second.terminate() == Some(0), || "the second version did not end in order".into())?;
    let mark = cluster.audit_log().mark()?;
    let third = version(&cluster, 1, "IfNotPresent")?;
    watched(&third, "the first version again").await?;
    unchanged(&cluster, mark, &ns, &after, "a downgrade").await
}

fn name(i: usize) -> String {
    format!("weather-{i}")
}

/// UIDs of the pods that are not ending, by fleet.
async fn pods(ns: &Namespace) -> Result<BTreeMap<String, Vec<String>>, Failed> {
    let mut by_fleet = BTreeMap::<_, Vec<_>>::new();
    for pod in ns.api::<Pod>().list(&ListParams::default().labels("mcpfleet.io/fleet")).await? {
        if pod.metadata.deletion_timestamp.is_none() {
            by_fleet.entry(pod.labels()["mcpfleet.io/fleet"].clone()).or_default().push(pod.uid().unwrap());
        }
    }
    for uids in by_fleet.values_mut() {
        uids.sort();
    }
    Ok(by_fleet)
}

/// Writes of the operator on anything but its lease.
fn writes(cluster: &Cluster, since: audit::Mark) -> Result<audit::Entries, Failed> {
    let all = cluster.audit_log().since(since)?.by(USER).writes();
    Ok(all.filter(|e| e.object.as_ref().is_none_or(|o| o.resource != "leases")))
}

async fn quiet(cluster: &Cluster) -> Result<(), Failed> {
    // Words of a status wait for 5 s.
    wait::until("6 s without a write", wait::LIMIT, async || {
        let mark = cluster.audit_log().mark().map_err(|e| e.to_string())?;
        tokio::time::sleep(Duration::from_secs(6)).await;
        let new = writes(cluster, mark).map_err(|e| e.message().unwrap_or_default().to_owned())?;
        if new.is_empty() { Ok(()) } else { Err(format!("{:?}", new.summary())) }
    })
    .await
}

/// Waits until it leads and has looked at every fleet, and through a resync.
async fn watched(operator: &Operator, who: &str) -> Result<(), Failed> {
    let passes = || operator.metric("mcp_fleet_operator_reconciles_total");
    wait::until(&format!("{who} has looked at all"), wait::LIMIT, async || {
        let n = passes();
        if operator.is_leader() && n >= N_FLEETS as f64 { Ok(()) } else { Err(format!("{n} passes")) }
    })
    .await?;
    let n = passes();
    tokio::time::sleep(WATCHED).await;
    check(passes() >= n + N_FLEETS as f64, || format!("{who}: no resync in {WATCHED:?}"))
}

async fn unchanged(
    cluster: &Cluster,
    since: audit::Mark,
    ns: &Namespace,
    before: &BTreeMap<String, Vec<String>>,
    what: &str,
) -> Result<(), Failed> {
    let writes = writes(cluster, since)?;
    check(writes.is_empty(), || format!("{what} wrote: {:?}", writes.summary()))?;
    let now = pods(ns).await?;
    check(now == *before, || format!("{what} changed pods: {before:?} became {now:?}"))
}

async fn replaced(ns: &Namespace, fleet: &str, before: &BTreeMap<String, Vec<String>>) -> Result<(), Failed> {
    wait::until(&format!("new pods of {fleet}"), wait::LIMIT, async || {
        let now = pods(ns).await.map_err(|e| e.message().unwrap_or_default().to_owned())?;
        let uids = now.get(fleet).cloned().unwrap_or_default();
        let all_new =
            uids.len() == before[fleet].len() && uids.iter().all(|uid| !before[fleet].contains(uid));
        if all_new { Ok(()) } else { Err(format!("{:?} became {uids:?}", before[fleet])) }
    })
    .await
}

/// Image of the agent in a fleet's pods.
async fn agent(ns: &Namespace, fleet: &str) -> Result<Option<String>, Failed> {
    let pods: Api<Pod> = ns.api();
    let list = pods.list(&ListParams::default().labels(&format!("mcpfleet.io/fleet={fleet}"))).await?;
    let live = list.into_iter().find(|p| p.metadata.deletion_timestamp.is_none());
    Ok(live.and_then(|p| p.spec?.init_containers?.first()?.image.clone()))
}
