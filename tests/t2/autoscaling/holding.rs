//! When the scale stays: at a rollout, without metrics, paused, where somebody else scales, at rest.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{Api, api::DeleteParams, runtime::watcher};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use mcp_fleet_cluster::audit;
use tokio::time::Instant;

use super::{
    gateway::{Flow, Gateway},
    world::{FREE, STEP, World, at, autoscaling, scaled, scaling},
};
use crate::{
    look::{self, HPA_USER, History, SERVER, check},
    support::{Namespace, Suite, TestResult, operator::USER, wait},
};

/// Several looks of the autoscaler and several windows.
const STAYS: Duration = Duration::from_secs(12);

/// The scale of a fleet stays for a while.
async fn stays(ns: &Namespace, fleet: &str, n: i32) -> Result<(), Failed> {
    wait::holds(&format!("{fleet} at {n}"), STAYS, async || {
        let live = ns.get(fleet).await.map_err(|e| format!("{e:?}"))?;
        if live.spec.replicas == Some(n) {
            Ok(())
        } else {
            Err(format!("{:?}, {}", live.spec.replicas, autoscaling(&live)))
        }
    })
    .await
}

pub async fn a_rollout_with_surge_moves_no_scale(_suite: Arc<Suite>) -> TestResult {
    let world = World::shared().await?;
    let ns = world.namespace("roll")?;
    let spec = |image: &str| {
        let scaling = scaling("HPA", FREE);
        format!(
            "{{server: {{image: {image}}}, rollout: {{maxSurge: 100%, maxUnavailable: 0}}, autoscaling: {{{scaling}}}}}"
        )
    };
    ns.fleet("weather", &spec("registry.example/weather:1")).await?;
    world.call(&ns, "weather", Flow::calls(35.0)).await?;
    scaled(&ns, "weather", 4).await?;
    let history: History<McpFleet> = History::of(ns.api(), watcher::Config::default()).await?;
    let pods: History<k8s_openapi::api::apps::v1::Deployment> =
        History::of(ns.api(), watcher::Config::default()).await?;
    ns.respec("weather", &spec("registry.example/weather:2")).await?;
    ns.condition("weather", "Progressing", "True", "RolloutComplete").await?;
    stays(&ns, "weather", 4).await?;
    let most = pods.with(|all| all.iter().filter_map(|r| r.object.status.as_ref()?.replicas).max());
    check(most > Some(4), || format!("there was no surge: at most {most:?} pods"))?;
    let scales = history.with(|all| all.iter().map(|r| r.object.spec.replicas).collect::<Vec<_>>());
    check(scales.iter().all(|n| *n == Some(4)), || format!("the scale went {scales:?}"))
}

pub async fn without_metrics_it_holds_and_then_falls_back(_suite: Arc<Suite>) -> TestResult {
    let world = World::shared().await?;
    let ns = world.namespace("blind")?;
    // A gateway of its own, which alone knows the fleet.
    let gateway = Gateway::new();
    world.begins(&gateway, "gateway-1", &[8443])?;
    let more = format!("{FREE}, fallback: {{failureDurationSeconds: 25, replicas: 6}}");
    ns.fleet("weather", &format!("{{{SERVER}, autoscaling: {{{}}}}}", scaling("HPA", &more))).await?;
    at(&gateway, &ns, "weather", Flow::calls(25.0)).await?;
    scaled(&ns, "weather", 3).await?;
    ns.condition("weather", "ScalingActive", "True", "ValidMetricFound").await?;

    gateway.silence(true);
    let mark = world.cluster.audit_log().mark()?;
    let path = format!(
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}/mcpfleets.mcpfleet.io/weather/mcp_desired_replicas",
        ns.name
    );
    wait::until("503", STEP, async || match world.cluster.kubectl_ok(["get", "--raw", &path]) {
        Ok(value) => Err(value),
        Err(error) if error.to_string().contains("ServiceUnavailable") => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await?;
    let blind = Instant::now();
    ns.condition("weather", "ScalingActive", "False", "MetricsUnavailable").await?;
    wait::until("the HPA's word", STEP, async || {
        let hpa = ns.api::<HorizontalPodAutoscaler>().get("weather").await.map_err(|e| e.to_string())?;
        let said = hpa.status.and_then(|s| s.conditions).unwrap_or_default();
        let active = said.into_iter().find(|c| c.type_ == "ScalingActive");
        active.filter(|c| c.status == "False").map(drop).ok_or_else(|| "it is active".to_owned())
    })
    .await?;
    let live = ns.get("weather").await?;
    check(live.spec.replicas == Some(3), || format!("{:?} without metrics", live.spec.replicas))?;
    asked_once_a_look(&world, mark, &ns, blind.elapsed())?;

    scaled(&ns, "weather", 6).await?;
    ns.condition("weather", "ScalingActive", "False", "Fallback").await?;
    look::event(&ns, "weather", "FallbackActive").await?;
    gateway.silence(false);
    scaled(&ns, "weather", 3).await?;
    ns.condition("weather", "ScalingActive", "True", "ValidMetricFound").await?;
    Ok(())
}

/// The answer has no `Retry-After`, by which the controller-manager's client would ask again and again within one look
/// and keep others waiting.
fn asked_once_a_look(
    world: &World,
    since: audit::Mark,
    ns: &Namespace,
    period: Duration,
) -> Result<(), Failed> {
    let asked = world.cluster.audit_log().since(since)?.by(HPA_USER);
    let about = format!("namespaces/{}/", ns.name);
    let refused = asked.filter(|e| e.code == 503 && e.uri.contains(&about));
    let looks = period.as_secs() / 2 + 3;
    check((1..=looks).contains(&(refused.len() as u64)), || {
        format!("{} questions in {period:?} that were answered with 503", refused.len())
    })
}

/// `kubectl annotate` of a fleet.
fn annotate(world: &World, ns: &Namespace, fleet: &str, annotation: &str) -> Result<(), Failed> {
    world.cluster.kubectl_ok(["-n", &ns.name, "annotate", "--overwrite", "mcpfleet", fleet, annotation])?;
    Ok(())
}

pub async fn a_person_pauses_and_goes_on(_suite: Arc<Suite>) -> TestResult {
    let world = World::shared().await?;
    let ns = world.namespace("pause")?;
    let fleets = [("direct", "Direct"), ("hpa", "HPA")];
    for (fleet, actuator) in fleets {
        world.fleet(&ns, fleet, &scaling(actuator, FREE), Flow::calls(25.0)).await?;
    }
    let all = async |n: i32| futures::future::try_join_all(fleets.map(|(f, _)| scaled(&ns, f, n))).await;
    let stand = async |n: i32| futures::future::try_join_all(fleets.map(|(f, _)| stays(&ns, f, n))).await;
    let say = |annotation: &str| fleets.iter().try_for_each(|(f, _)| annotate(&world, &ns, f, annotation));
    let load = async |calls: f64| -> Result<(), Failed> {
        for (fleet, _) in fleets {
            world.call(&ns, fleet, Flow::calls(calls)).await?;
        }
        Ok(())
    };
    all(3).await?;
    say("mcpfleet.io/paused=true")?;
    for (fleet, _) in fleets {
        ns.condition(fleet, "ScalingActive", "False", "Paused").await?;
    }
    load(63.0).await?;
    stand(3).await?;
    say("mcpfleet.io/paused-replicas=5")?;
    all(5).await?;
    say("mcpfleet.io/paused-replicas-")?;
    say("mcpfleet.io/paused-")?;
    all(7).await?;
    say("mcpfleet.io/paused-scale-in=true")?;
    load(25.0).await?;
    stand(7).await?;
    say("mcpfleet.io/paused-scale-in-")?;
    all(3).await?;
    say("mcpfleet.io/paused-scale-out=true")?;
    load(63.0).await?;
    stand(3).await?;
    say("mcpfleet.io/paused-scale-out-")?;
    all(7).await.map(drop)
}

pub async fn a_users_autoscaler_is_not_fought(_suite: Arc<Suite>) -> TestResult {
    let world = World::shared().await?;
    let ns = world.namespace("theirs")?;
    let hpas: Api<HorizontalPodAutoscaler> = ns.api();
    world.fleet(&ns, "weather", &scaling("HPA", FREE), Flow::calls(25.0)).await?;
    scaled(&ns, "weather", 3).await?;
    look::exists(&hpas, "weather").await?;

    look::autoscaler(&ns, "theirs", ("mcpfleet.io/v1alpha1", "McpFleet", "weather"), (4, 6)).await?;
    look::gone(&hpas, "weather").await?;
    ns.condition("weather", "ScalingActive", "False", "ForeignAutoscaler").await?;
    scaled(&ns, "weather", 4).await?;
    let mark = world.cluster.audit_log().mark()?;
    world.call(&ns, "weather", Flow::calls(63.0)).await?;
    stays(&ns, "weather", 4).await?;
    let writers = world.scale_writers(mark, &ns)?;
    check(writers.is_empty(), || format!("somebody fights: {writers:?}"))?;
    // What we would do is still told.
    wait::until("the dry run", STEP, async || {
        let told = autoscaling(&ns.get("weather").await.map_err(|e| format!("{e:?}"))?);
        let fits = told["effectiveActuator"] == "Off" && told["desiredReplicas"] == 7;
        if fits { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;

    hpas.delete("theirs", &DeleteParams::default()).await?;
    look::exists(&hpas, "weather").await?;
    scaled(&ns, "weather", 7).await?;
    Ok(())
}

pub async fn at_steady_load_nothing_is_written(_suite: Arc<Suite>) -> TestResult {
    let world = World::shared().await?;
    let ns = world.namespace("steady")?;
    for (fleet, actuator) in [("direct", "Direct"), ("hpa", "HPA")] {
        world.fleet(&ns, fleet, &scaling(actuator, ""), Flow::calls(25.0)).await?;
        scaled(&ns, fleet, 3).await?;
        ns.condition(fleet, "ScalingActive", "True", "ValidMetricFound").await?;
    }
    let writes = |since| -> Result<audit::Entries, Failed> {
        let all = world.cluster.audit_log().since(since)?.by(USER).writes();
        Ok(all.filter(|e| e.object.as_ref().is_some_and(|o| o.namespace == ns.name)))
    };
    wait::until("16 s without a write", Duration::from_secs(120), async || {
        let mark = world.cluster.audit_log().mark().map_err(|e| e.to_string())?;
        tokio::time::sleep(Duration::from_secs(16)).await;
        let new = writes(mark).map_err(|e| format!("{e:?}"))?;
        if new.is_empty() { Ok(()) } else { Err(format!("{:?}", new.summary())) }
    })
    .await?;
    let reports = || world.gateway.answers.lock().get("202").copied().unwrap_or_default();
    let history: History<McpFleet> = History::of(ns.api(), watcher::Config::default()).await?;
    let rest = async || -> Result<bool, Failed> {
        let (mark, before) = (world.cluster.audit_log().mark()?, reports());
        tokio::time::sleep(Duration::from_secs(45)).await;
        let told = reports() - before;
        check(told >= 15, || format!("{told} reports arrived: {:?}", world.gateway.answers.lock()))?;
        let writes = writes(mark)?;
        if !writes.is_empty() {
            let seen = history.with(|all| all.iter().map(|r| status_of(&r.object)).collect::<Vec<_>>());
            eprintln!(
                "written at rest: {:?}; the statuses since then:\n{}",
                writes.summary(),
                seen.join("\n")
            );
        }
        Ok(writes.is_empty())
    };
    // On a machine that is too busy to report in time a load may seem to move, which is news. It moves once, not always.
    let rested = rest().await? || rest().await?;
    check(rested, || "written at rest, twice".to_owned())
}

fn status_of(fleet: &McpFleet) -> String {
    let status = serde_json::to_string(&fleet.status).unwrap_or_default();
    format!("{} {status}", fleet.metadata.name.as_deref().unwrap_or_default())
}
