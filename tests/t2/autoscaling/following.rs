//! A real autoscaler of the controller-manager follows what gateways report, through the operator's metrics API.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler};
use kube::{ResourceExt, runtime::watcher};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use serde_json::json;

use super::{
    gateway::Flow,
    world::{FREE, Replica, STEP, World, autoscaling, only_the_hpa, scaled, scaling},
};
use crate::{
    look::{self, History, check},
    support::{Namespace, Suite, TestResult, wait},
};

const CONTROLLERS: &str = "kube-controller-manager";
/// Several looks of the autoscaler, which is at 2 s here.
const LOOKS: Duration = Duration::from_secs(12);

pub async fn an_hpa_follows_the_load_up_and_down(_suite: Arc<Suite>) -> TestResult {
    let world = World::shared().await?;
    let ns = world.namespace("follow")?;
    let mark = world.cluster.audit_log().mark()?;
    world.fleet(&ns, "weather", &scaling("HPA", FREE), Flow::calls(15.0)).await?;
    scaled(&ns, "weather", 2).await?;
    ns.condition("weather", "MetricsAPIAvailable", "True", "Serving").await?;
    ns.condition("weather", "ScalingActive", "True", "ValidMetricFound").await?;
    world.call(&ns, "weather", Flow::calls(63.0)).await?;
    scaled(&ns, "weather", 7).await?;
    world.call(&ns, "weather", Flow::calls(25.0)).await?;
    let fleet = scaled(&ns, "weather", 3).await?;

    let writers = world.scale_writers(mark, &ns)?;
    check(only_the_hpa(&writers), || format!("the scale was written by {writers:?}"))?;
    let told = autoscaling(&fleet);
    check(told["effectiveActuator"] == "HPA", || told.to_string())?;
    events_say_why(&look::events(&ns, "weather").await?)?;
    let table = world.cluster.kubectl_ok(["-n", &ns.name, "get", "mcpfleet"])?;
    let mut lines = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let (head, row) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let column = |name: &str| head.iter().position(|h| *h == name).and_then(|i| row.get(i).copied());
    let utilization: f64 = column("UTIL").and_then(|u| u.parse().ok()).unwrap_or_default();
    // 25 calls where 30 would be at target.
    check((0.7..1.0).contains(&utilization) && column("DESIRED") == Some("3"), || table)
}

/// Each change has one line that says from where, to where, and because of what.
fn events_say_why(events: &[(String, String)]) -> Result<(), Failed> {
    let rescales: Vec<&str> = events
        .iter()
        .filter(|(reason, _)| reason == "SuccessfulRescale")
        .map(|(_, note)| note.as_str())
        .collect();
    let says =
        |from_to: &str, why: &str| rescales.iter().any(|note| note.contains(from_to) && note.contains(why));
    check(says("→7", "concurrency 6") && says("→3", "concurrency 2"), || format!("{events:?}"))
}

/// The HPA controller is not there at all: the Deployment gets the step at once, keeps it while the operator is killed, and
/// nobody but the HPA writes the scale in the end. The fleet names no `behavior`, so its way down is paced by the operator.
pub async fn a_step_up_does_not_wait_for_the_hpa(_suite: Arc<Suite>) -> TestResult {
    let world = World::start("t2-ahead").await?;
    let operator = Replica::new("operator-a", 0);
    world.replica(&operator).await?;
    world.begins(&world.gateway, "gateway-0", &[8443])?;
    let ns = world.namespace("ahead")?;
    let mark = world.cluster.audit_log().mark()?;
    world.fleet(&ns, "weather", &scaling("HPA", ""), Flow::calls(15.0)).await?;
    scaled(&ns, "weather", 2).await?;
    ns.condition("weather", "MetricsAPIAvailable", "True", "Serving").await?;
    let history: History<Deployment> = History::of(ns.api(), watcher::Config::default()).await?;
    let fleets: History<McpFleet> = History::of(ns.api(), watcher::Config::default()).await?;

    world.cluster.kill_component(CONTROLLERS)?;
    world.call(&ns, "weather", Flow::calls(63.0)).await?;
    deployed(&ns, 7).await?;
    let live = ns.get("weather").await?;
    let told = autoscaling(&live);
    check(live.spec.replicas == Some(2), || format!("the HPA's field is {:?}", live.spec.replicas))?;
    check(told["headStart"] == json!({"specReplicas": 2, "replicas": 7}), || told.to_string())?;
    wait::until("an event that says why", STEP, async || {
        let events = look::events(&ns, "weather").await.map_err(|e| format!("{e:?}"))?;
        let says = |(reason, note): &(String, String)| {
            reason == "SuccessfulRescale" && note.contains("→7") && note.contains("concurrency 6")
        };
        if events.iter().any(says) { Ok(()) } else { Err(format!("{events:?}")) }
    })
    .await?;

    told_before_done(&fleets, &history)?;

    let not_following = async || {
        let live = ns.get("weather").await.map_err(|e| format!("{e:?}"))?;
        let (status, reason, message) = look::condition(&live, "AbleToScale");
        if reason == "HPANotFollowing" { Ok(()) } else { Err(format!("{status} {reason}: {message}")) }
    };
    wait::until("the HPA to be missed", STEP, not_following).await?;
    world.cluster.kill_component(&operator.name)?;
    world.cluster.start_component(&operator.name)?;
    world.ready(&operator).await?;
    wait::holds("what was said before", LOOKS, not_following).await?;
    let after = |n: i32| {
        let all: Vec<i32> = history
            .with(|all| all.iter().filter_map(|r| r.object.spec.as_ref()?.replicas).collect::<Vec<_>>());
        (all.iter().position(|seen| *seen == n).map(|i| all[i..].iter().all(|seen| *seen == n)), all)
    };
    let (stood, seen) = after(7);
    check(stood == Some(true), || format!("the Deployment went over {seen:?}"))?;

    world.cluster.start_component(CONTROLLERS)?;
    let fleet = scaled(&ns, "weather", 7).await?;
    wait::until("nothing to be ahead", STEP, async || {
        let told = autoscaling(&ns.get("weather").await.map_err(|e| format!("{e:?}"))?);
        if told["headStart"].is_null() { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    check(fleet.spec.replicas == Some(7), || format!("{:?}", fleet.spec.replicas))?;
    let hpa = ns.api::<HorizontalPodAutoscaler>().get("weather").await?;
    let down = hpa.spec.behavior.and_then(|b| b.scale_down?.stabilization_window_seconds);
    check(down == Some(0), || format!("two windows would add up: {down:?}"))?;
    world.call(&ns, "weather", Flow::calls(15.0)).await?;
    ns.condition("weather", "AbleToScale", "True", "ScaleDownStabilized").await?;
    wait::holds("seven replicas for the preset's window", LOOKS, async || {
        let live = ns.get("weather").await.map_err(|e| format!("{e:?}"))?;
        if live.spec.replicas == Some(7) { Ok(()) } else { Err(autoscaling(&live).to_string()) }
    })
    .await?;
    let writers = world.scale_writers(mark, &ns)?;
    check(only_the_hpa(&writers), || format!("the scale was written by {writers:?}"))
}

/// Each step ahead stood in the fleet's status before it stood in the Deployment: a process that takes over in between has
/// to know of it. Both are in one etcd, which counts its revisions.
fn told_before_done(fleets: &History<McpFleet>, deployments: &History<Deployment>) -> TestResult {
    let version = |of: Option<String>| of.and_then(|v| v.parse::<u64>().ok()).unwrap_or_default();
    let told: Vec<(u64, i64)> = fleets.with(|all| {
        let ahead = |f: &McpFleet| autoscaling(f)["headStart"]["replicas"].as_i64();
        all.iter().filter_map(|r| Some((version(r.object.resource_version()), ahead(&r.object)?))).collect()
    });
    let done: Vec<(u64, i64)> = deployments.with(|all| {
        let replicas = |d: &Deployment| d.spec.as_ref()?.replicas.map(i64::from);
        all.iter()
            .filter_map(|r| Some((version(r.object.resource_version()), replicas(&r.object)?)))
            .collect()
    });
    let steps: Vec<(u64, i64)> = done.windows(2).filter(|w| w[1].1 > w[0].1).map(|w| w[1]).collect();
    let before = |(at, n): &(u64, i64)| told.iter().any(|(said, ahead)| said < at && ahead == n);
    check(!steps.is_empty() && steps.iter().all(before), || format!("done {steps:?}, told {told:?}"))
}

/// The Deployment asks for so many.
async fn deployed(ns: &Namespace, n: i32) -> TestResult {
    wait::until(&format!("{n} on the Deployment"), STEP, async || {
        let live = ns.api::<Deployment>().get("weather").await.map_err(|e| e.to_string())?;
        match live.spec.and_then(|s| s.replicas) {
            Some(seen) if seen == n => Ok(()),
            seen => Err(format!(
                "{seen:?}, {}",
                autoscaling(&ns.get("weather").await.map_err(|e| format!("{e:?}"))?)
            )),
        }
    })
    .await
}
