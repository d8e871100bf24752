//! The voluntary end of pods: nothing that runs is cut, and nothing waits longer than it must.

use std::{sync::Arc, time::Duration};

use kube::ResourceExt;
use libtest_mimic::Failed;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    images, lab,
    load::{Connections, Load},
    support::{Namespace, Suite, TestResult},
};

/// At least 5 s for endpoints to spread (2 s of them quiet), 1 to 2 s for the server and the kubelet; the rest
/// is for a busy machine. Far below what a pod takes that waits for something: 30 s and more.
const EMPTY: Duration = Duration::from_secs(18);
/// Seconds between the longest drain and SIGKILL.
const STOP_SECONDS: u64 = 30;

/// Runs `change` under calls with connections of their own and from a pool; none of them may fail.
async fn under_load(
    suite: &Arc<Suite>,
    ns: &Namespace,
    fleet: &str,
    change: impl AsyncFnOnce() -> TestResult,
) -> Result<[serde_json::Value; 2], Failed> {
    lab::reachable(suite, ns, fleet).await?;
    let (per_call, pool) = futures::future::try_join(
        Load::start(suite, ns, fleet, Connections::PerCall),
        Load::start(suite, ns, fleet, Connections::Pool),
    )
    .await?;
    change().await?;
    Ok([per_call.stop(ns).await?, pool.stop(ns).await?])
}

/// A call that takes 20 s, through the Service, in a pod of its own. It has begun when this returns.
async fn hold_a_call(suite: &Suite, ns: &Namespace, fleet: &str) -> TestResult {
    let url = lab::url(ns, fleet);
    let args =
        ["--url", &url, "--timeout", "60s", "call", "sleep", "--arguments", r#"{"milliseconds":20000}"#];
    lab::start_client(ns, "holder", &args).await?;
    lab::under_way(suite, ns, fleet).await
}

pub async fn an_image_update_fails_no_call(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("update").await?;
    let spec = lab::sample(2);
    lab::ready_fleet(&ns, "weather", &spec).await?;
    let old = lab::names(&lab::pods(&ns, "weather").await?);
    let reports = under_load(&suite, &ns, "weather", async || {
        let next = lab::with(spec.clone(), "/server/image", json!(images::SAMPLE_NEXT));
        ns.respec("weather", &next.to_string()).await?;
        ns.condition("weather", "Ready", "True", "Ready").await?;
        lab::settled(&ns, "weather", 2, |p| lab::image(p) == Some(images::SAMPLE_NEXT)).await
    })
    .await?;
    // The load has really been at the pods before and after.
    let new = lab::names(&lab::pods(&ns, "weather").await?);
    for report in &reports {
        let served = |pods: &[String]| pods.iter().any(|pod| report["pods"].get(pod).is_some());
        if !served(&old) || !served(&new) {
            return Err(format!("old {old:?}, new {new:?}: {report}").into());
        }
    }
    lab::delete_fleet(&ns, "weather").await
}

pub async fn a_scale_down_fails_no_call(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("down").await?;
    lab::ready_fleet(&ns, "weather", &lab::sample(4)).await?;
    under_load(&suite, &ns, "weather", async || {
        suite.kubectl(&["-n", &ns.name, "scale", "mcpfleet", "weather", "--replicas=2"])?;
        lab::settled(&ns, "weather", 2, |p| lab::server_state(p).1).await
    })
    .await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    lab::delete_fleet(&ns, "weather").await
}

pub async fn a_node_drain_fails_no_call(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("node").await?;
    lab::ready_fleet(&ns, "drained", &lab::sample(3)).await?;
    let on_n2 = async || -> Result<usize, Failed> {
        let pods = lab::pods(&ns, "drained").await?;
        Ok(pods.iter().filter(|p| lab::node(p) == Some("n2")).count())
    };
    if on_n2().await? == 0 {
        return Err("no pod on n2: the fleet is not spread over the nodes".into());
    }
    let alone = lab::N2.lock().await;
    let drained = under_load(&suite, &ns, "drained", async || {
        // Only this fleet's pods: other tests run on the same node. The selector knows no namespace, hence
        // the fleet's name.
        let mut kubectl = suite.cluster.kubectl();
        kubectl.args(["drain", "n2", "--pod-selector=mcpfleet.io/fleet=drained", "--delete-emptydir-data"]);
        kubectl.args(["--ignore-daemonsets", "--timeout=120s"]);
        let output = tokio::task::spawn_blocking(move || kubectl.output()).await??;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        lab::settled(&ns, "drained", 3, |p| lab::server_state(p).1).await?;
        if on_n2().await? == 0 { Ok(()) } else { Err("pods are left on n2".into()) }
    })
    .await;
    suite.kubectl(&["uncordon", "n2"])?;
    drop(alone);
    drained?;
    lab::delete_fleet(&ns, "drained").await
}

pub async fn a_busy_pod_ends_after_its_call_and_an_empty_one_at_once(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("busy").await?;
    futures::future::try_join(
        lab::ready_fleet(&ns, "busy", &lab::sample(1)),
        lab::ready_fleet(&ns, "empty", &lab::sample(1)),
    )
    .await?;
    let name = async |fleet: &str| Ok::<_, Failed>(lab::pods(&ns, fleet).await?.remove(0).name_any());
    let (busy, empty) = (name("busy").await?, name("empty").await?);
    lab::reachable(&suite, &ns, "busy").await?;
    let begun = Instant::now();
    hold_a_call(&suite, &ns, "busy").await?;
    let deleted = lab::delete(&ns, &busy).await?;
    let empty_took = lab::gone(&ns, &empty, lab::delete(&ns, &empty).await?).await?;
    if empty_took > EMPTY {
        return Err(format!("the empty pod was gone only after {empty_took:?}").into());
    }
    let answer = lab::finish_client(&ns, "holder").await?;
    let held = begun.elapsed();
    lab::gone(&ns, &busy, deleted).await?;
    let (total, after) = (deleted.elapsed(), begun.elapsed().saturating_sub(held));
    // The call had at least 15 s to go when the pod was deleted; its end is followed by 2 s of quiet.
    if total < Duration::from_secs(15) || after > EMPTY {
        return Err(
            format!("the busy pod was gone {total:?} after its deletion, {after:?} after its call").into()
        );
    }
    eprintln!("drain: empty {empty_took:.1?}, busy {after:.1?} after its 20 s call: {}", answer.trim());
    for fleet in ["busy", "empty"] {
        lab::delete_fleet(&ns, fleet).await?;
    }
    Ok(())
}

/// The server of [`images::DEAF`] has no handler for SIGTERM: as process 1 of its container it would not
/// notice one. The shared process namespace makes it an ordinary process, which ends.
pub async fn a_server_that_ignores_sigterm_ends_at_once(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("deaf").await?;
    let deaf = lab::with(lab::sample(1), "/server/image", json!(images::DEAF));
    let deaf = lab::with(deaf, "/server/probes", json!({"readiness": {"initialDelaySeconds": 0}}));
    // The kubelet knows one grace period for drain and stop together: the shorter the drain, the sooner these
    // two are killed. One is process 1, as without us; the other has a handler that does nothing.
    let short = json!({"drainTimeoutSeconds": 5});
    let alone = lab::with(deaf.clone(), "/server/shareProcessNamespace", json!(false));
    let alone = lab::with(alone, "/rollout", short.clone());
    let stubborn = lab::with(lab::sample(1), "/server/args", json!(["--ignore-sigterm"]));
    let stubborn = lab::with(stubborn, "/rollout", short);
    let fleets = [("deaf", deaf), ("alone", alone), ("stubborn", stubborn)];
    futures::future::try_join_all(fleets.iter().map(|(name, spec)| lab::ready_fleet(&ns, name, spec)))
        .await?;
    let ends = fleets.iter().map(async |(name, _)| {
        let pod = lab::pods(&ns, name).await?.remove(0).name_any();
        let since = lab::delete(&ns, &pod).await?;
        let took = lab::gone(&ns, &pod, since).await?;
        lab::delete_fleet(&ns, name).await?;
        Ok::<_, Failed>(took)
    });
    let took = futures::future::try_join_all(ends).await?;
    eprintln!(
        "drain: without a handler {:.1?}, as process 1 {:.1?}, stubborn {:.1?}",
        took[0], took[1], took[2]
    );
    let killed = Duration::from_secs(STOP_SECONDS)..Duration::from_secs(5 + STOP_SECONDS) + EMPTY;
    if took[0] > EMPTY || !took[1..].iter().all(|t| killed.contains(t)) {
        return Err(format!("gone after {took:?}").into());
    }
    Ok(())
}

pub async fn the_other_ways_to_drain(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("ways").await?;
    let sleep = lab::with(lab::sample(1), "/rollout", json!({"drain": "Sleep", "drainTimeoutSeconds": 15}));
    let none = lab::with(lab::sample(1), "/rollout", json!({"drain": "None"}));
    let fleets = [("sleep", sleep), ("none", none)];
    futures::future::try_join_all(fleets.iter().map(|(name, spec)| lab::ready_fleet(&ns, name, spec)))
        .await?;
    let ends = fleets.iter().map(async |(name, _)| {
        let pod = lab::pods(&ns, name).await?.remove(0);
        if pod.spec.as_ref().is_some_and(|s| s.init_containers.is_some()) {
            return Err(Failed::from(format!("{name}: a helper that nothing uses")));
        }
        let since = lab::delete(&ns, &pod.name_any()).await?;
        lab::gone(&ns, &pod.name_any(), since).await
    });
    let took = futures::future::try_join_all(ends).await?;
    let (sleep, none) = (took[0], took[1]);
    eprintln!("drain: Sleep of 15 s {sleep:.1?}, None {none:.1?}");
    // Whole seconds on the kubelet's side; the machine may be busy on ours.
    if sleep < Duration::from_secs(14)
        || sleep > Duration::from_secs(15) + EMPTY
        || none > Duration::from_secs(8)
    {
        return Err(format!("Sleep of 15 s: {sleep:?}, None: {none:?}").into());
    }
    for (fleet, _) in &fleets {
        lab::delete_fleet(&ns, fleet).await?;
    }
    Ok(())
}

/// A client that never lets go of its connection is cut at the end of the drain time, and not later.
pub async fn a_held_connection_is_cut_at_the_drain_time(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("held").await?;
    let spec = lab::with(lab::sample(1), "/rollout", json!({"drainTimeoutSeconds": 10}));
    lab::ready_fleet(&ns, "weather", &spec).await?;
    let pod = lab::pods(&ns, "weather").await?.remove(0).name_any();
    let url = lab::url(&ns, "weather");
    let args =
        ["--url", &url, "--timeout", "120s", "call", "sleep", "--arguments", r#"{"milliseconds":90000}"#];
    lab::reachable(&suite, &ns, "weather").await?;
    lab::start_client(&ns, "holder", &args).await?;
    lab::under_way(&suite, &ns, "weather").await?;
    let took = lab::gone(&ns, &pod, lab::delete(&ns, &pod).await?).await?;
    // The server then has its 30 s for what still runs.
    let range = Duration::from_secs(10)..Duration::from_secs(10 + STOP_SECONDS) + EMPTY;
    if !range.contains(&took) {
        return Err(format!("gone after {took:?}").into());
    }
    lab::delete_fleet(&ns, "weather").await
}
