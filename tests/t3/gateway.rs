//! The gateways as the chart installs them: what clients notice when the fleets, the nodes and the gateways
//! themselves change (nothing), and what becomes of a session whose pod dies.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{Api, api::LogParams};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    images, lab,
    load::{self, Connections, Load},
    support::{Namespace, Suite, TestResult, wait},
};

/// Name of the gateways' Deployment and Service.
const GATEWAY: &str = "mcp-fleet-gateway";
/// What a pod may take to end of which gateways still hold sessions and connections. As
/// [`crate::drain`] says for clients without a gateway; sessions are moved within a second or two.
const EMPTY: Duration = Duration::from_secs(18);
/// Calls of the client that counts, and the time between them.
const COUNTS: usize = 120;
const EVERY: &str = "500ms";

/// Where the status of a fleet sends clients.
async fn status_url(ns: &Namespace, fleet: &str) -> Result<String, Failed> {
    ns.get(fleet).await?.status.and_then(|s| s.url).ok_or_else(|| format!("{fleet} has no status.url").into())
}

/// Waits until a pod gets answers at the URL: each kube-proxy and each gateway learns in its own time.
async fn answers(ns: &Namespace, url: &str) -> Result<String, Failed> {
    let mut n_tries = 0;
    wait::until(&format!("an answer of {url}"), lab::PODS, async || {
        n_tries += 1;
        let client = format!("first-{n_tries}");
        lab::call(ns, &client, &["--url", url, "call", "whoami"]).await.map_err(|e| format!("{e:?}"))
    })
    .await
}

pub async fn planned_changes_fail_no_call(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("planned").await?;
    let spec = lab::sample(4);
    futures::future::try_join(
        lab::ready_fleet(&ns, "planned-a", &spec),
        lab::ready_fleet(&ns, "planned-b", &lab::sample(2)),
    )
    .await?;
    let (a, b) = (status_url(&ns, "planned-a").await?, status_url(&ns, "planned-b").await?);
    for url in [&a, &b] {
        answers(&ns, url).await?;
    }
    let start = Instant::now();
    let loads = futures::future::try_join_all(vec![
        Load::start_at(&suite, &ns, "a-modern", &a, "modern", Connections::PerCall),
        Load::start_at(&suite, &ns, "a-legacy", &a, "legacy", Connections::Pool),
        Load::start_at(&suite, &ns, "b-modern", &b, "modern", Connections::Pool),
        Load::start_at(&suite, &ns, "b-legacy", &b, "legacy", Connections::PerCall),
    ])
    .await?;

    // When what began, for the reader of a failure.
    let mut done = Vec::new();
    let changes = async {
        done.push(("rollout", start.elapsed()));
        rollout(&suite, &ns, &spec).await?;
        done.push(("scale-down", start.elapsed()));
        suite.kubectl(&["-n", &ns.name, "scale", "mcpfleet", "planned-a", "--replicas=2"])?;
        lab::settled(&ns, "planned-a", 2, |p| lab::server_state(p).1).await?;
        done.push(("node drain", start.elapsed()));
        node_drain(&suite, &ns).await?;
        done.push(("gateways", start.elapsed()));
        restart_gateways(&suite).await?;
        done.push(("end", start.elapsed()));
        Ok::<_, Failed>(())
    }
    .await;
    let mut failures: Vec<String> = changes.err().map(|e| format!("{e:?}")).into_iter().collect();
    let mut told = Vec::new();
    for load in loads {
        match load.stop(&ns).await {
            Ok(report) => told.push(report),
            Err(error) => failures.push(format!("{error:?}")),
        }
    }
    // Each session of the beginning is the one of the end.
    let sessions: Vec<_> = told.iter().map(|r| r["sessionsOpened"].as_u64().unwrap_or(u64::MAX)).collect();
    if sessions.iter().any(|n| ![0, load::CONCURRENCY].contains(n)) {
        failures.push(format!("sessions opened: {sessions:?}"));
    }
    // The load was where the changes were: 4 pods at first, all of them replaced later.
    if told.first().is_some_and(|r| r["pods"].as_object().is_none_or(|pods| pods.len() < 6)) {
        failures.push(format!("too few pods have answered: {}", told[0]));
    }
    eprintln!(
        "gateway: planned changes {done:.1?}, calls {:?}",
        told.iter().map(|r| &r["calls"]).collect::<Vec<_>>()
    );
    if !failures.is_empty() {
        return Err(format!("{done:.1?}\n{}", failures.join("\n")).into());
    }
    for fleet in ["planned-a", "planned-b"] {
        lab::delete_fleet(&ns, fleet).await?;
    }
    Ok(())
}

/// Another image for one fleet, `restartedAt` for the other, at the same time.
async fn rollout(suite: &Suite, ns: &Namespace, spec: &Value) -> TestResult {
    let old = lab::names(&lab::pods(ns, "planned-b").await?);
    suite.kubectl(&["-n", &ns.name, "annotate", "mcpfleet", "planned-b", "mcpfleet.io/restartedAt=now"])?;
    let next = lab::with(spec.clone(), "/server/image", json!(images::SAMPLE_NEXT));
    ns.respec("planned-a", &next.to_string()).await?;
    futures::future::try_join(
        lab::settled(ns, "planned-a", 4, |p| {
            lab::image(p) == Some(images::SAMPLE_NEXT) && lab::server_state(p).1
        }),
        lab::settled(ns, "planned-b", 2, |p| {
            lab::server_state(p).1 && p.metadata.name.as_ref().is_some_and(|name| !old.contains(name))
        }),
    )
    .await?;
    Ok(())
}

/// Takes both fleets' pods off the node n2.
async fn node_drain(suite: &Suite, ns: &Namespace) -> TestResult {
    let on_n2 = async || -> Result<usize, Failed> {
        let both = [lab::pods(ns, "planned-a").await?, lab::pods(ns, "planned-b").await?];
        Ok(both.iter().flatten().filter(|p| lab::node(p) == Some("n2")).count())
    };
    let _alone = lab::N2.lock().await;
    if on_n2().await? == 0 {
        return Err("no pod on n2: the fleets are not spread over the nodes".into());
    }
    let mut kubectl = suite.cluster.kubectl();
    // Only these pods: other tests run on the same node.
    kubectl.args(["drain", "n2", "--pod-selector=mcpfleet.io/fleet in (planned-a,planned-b)"]);
    kubectl.args(["--delete-emptydir-data", "--ignore-daemonsets", "--timeout=120s"]);
    let output = tokio::task::spawn_blocking(move || kubectl.output()).await;
    let settled = async {
        for fleet in ["planned-a", "planned-b"] {
            lab::settled(ns, fleet, 2, |p| lab::server_state(p).1).await?;
        }
        if on_n2().await? == 0 { Ok(()) } else { Err(Failed::from("pods are left on n2")) }
    }
    .await;
    suite.kubectl(&["uncordon", "n2"])?;
    let output = output??;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    settled
}

/// `kubectl rollout restart` of the gateways, and the end of the old ones.
async fn restart_gateways(suite: &Suite) -> TestResult {
    let system = Namespace::existing(lab::SYSTEM, suite.client.clone());
    let gateways = async || -> Result<Vec<String>, String> {
        let pods: Api<Pod> = system.api();
        let params = kube::api::ListParams::default().labels("app.kubernetes.io/component=gateway");
        Ok(lab::names(&pods.list(&params).await.map_err(|e| e.to_string())?.items))
    };
    let old = gateways().await?;
    if old.len() < 2 {
        return Err(format!("not two gateways: {old:?}").into());
    }
    suite.kubectl(&["-n", lab::SYSTEM, "rollout", "restart", "deployment", GATEWAY])?;
    wait::until("the end of the old gateways", lab::PODS, async || {
        let now = gateways().await?;
        let deployment = system.api::<Deployment>().get(GATEWAY).await.map_err(|e| e.to_string())?;
        let ready = deployment.status.and_then(|s| s.ready_replicas).unwrap_or_default();
        let left = now.iter().filter(|name| old.contains(name)).count();
        if left == 0 && ready >= 2 { Ok(()) } else { Err(format!("{left} left, {ready} ready")) }
    })
    .await
}

/// What the counting client has printed: count and pod of each call.
async fn counts(ns: &Namespace) -> Result<Vec<(u64, String)>, String> {
    let log = ns.api::<Pod>().logs("counter", &LogParams::default()).await.map_err(|e| e.to_string())?;
    let line = |line: &str| -> Option<(u64, String)> {
        let told: Value = serde_json::from_str(line).ok()?;
        Some((told["count"].as_u64()?, told["pod"].as_str()?.to_owned()))
    };
    log.lines().map(|l| line(l).ok_or_else(|| format!("{l}\nof\n{log}"))).collect()
}

/// Waits for three answers of a pod that is not among `before`; its name.
async fn counts_elsewhere(ns: &Namespace, before: &[&str]) -> Result<String, Failed> {
    wait::until(&format!("three counts of another pod than {before:?}"), lab::PODS, async || {
        let told = counts(ns).await?;
        match told.last() {
            Some((count, pod)) if *count >= 3 && !before.contains(&pod.as_str()) => Ok(pod.clone()),
            _ => Err(format!("{told:?}")),
        }
    })
    .await
}

/// The server keeps the counter of a session in its memory, so a pod that takes a session over counts from 1.
/// The client sees one session: no answer is lost, none is an error, and no two pods count at the same time.
pub async fn a_session_outlives_its_pods(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("outlives").await?;
    lab::ready_fleet(&ns, "memory", &lab::sample(2)).await?;
    let url = status_url(&ns, "memory").await?;
    let table = suite.kubectl(&["-n", &ns.name, "get", "mcpfleet", "-o", "wide"])?;
    if url != format!("http://{GATEWAY}.{}/{}/memory/mcp", lab::SYSTEM, ns.name) || !table.contains(&url) {
        return Err(format!("{url} in\n{table}").into());
    }
    answers(&ns, &url).await?;

    let n = COUNTS.to_string();
    let args = ["--url", &url, "--lifecycle", "legacy", "call", "counter", "--count", &n, "--every", EVERY];
    lab::start_client(&ns, "counter", &args).await?;
    let first = counts_elsewhere(&ns, &[]).await?;
    suite.kubectl(&[
        "-n",
        &ns.name,
        "delete",
        "pod",
        &first,
        "--force",
        "--grace-period=0",
        "--wait=false",
    ])?;
    let second = counts_elsewhere(&ns, &[&first]).await?;
    // In good order, and although the client holds a stream to it: its drain time would be ten minutes.
    lab::settled(&ns, "memory", 2, |p| lab::server_state(p).1).await?;
    let ended = lab::gone(&ns, &second, lab::delete(&ns, &second).await?).await?;
    counts_elsewhere(&ns, &[&first, &second]).await?;
    lab::finish_client(&ns, "counter").await?;

    let told = counts(&ns).await?;
    let mut expected = 0;
    let mut at = "";
    for (count, pod) in &told {
        expected = if pod == at { expected + 1 } else { 1 };
        at = pod;
        if *count != expected {
            return Err(format!("{pod} counts {count} and not {expected}: {told:?}").into());
        }
    }
    if told.len() != COUNTS || ended > EMPTY {
        return Err(format!("{} answers; {second} was gone after {ended:?}", told.len()).into());
    }
    // The operator has heard from the gateways by now what the servers speak.
    wait::until("status.protocol", wait::LIMIT, async || {
        let fleet = ns.get("memory").await.map_err(|e| format!("{e:?}"))?;
        let versions = fleet.status.and_then(|s| s.protocol).map(|p| p.versions).unwrap_or_default();
        let both = ["2025-11-25", "2026-07-28"].iter().all(|v| versions.iter().any(|seen| seen == v));
        if both { Ok(()) } else { Err(format!("{versions:?}")) }
    })
    .await?;
    eprintln!("gateway: a session on three pods, the second gone after {ended:.1?}");
    lab::delete_fleet(&ns, "memory").await
}
