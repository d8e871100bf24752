//! The scale: who sets it, who follows, and that nobody fights.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::watcher,
};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;

use crate::{
    look::{self, HPA_USER, History, SERVER, check},
    support::{Namespace, Suite, TestResult, wait},
};

const FLEET: (&str, &str, &str) = ("mcpfleet.io/v1alpha1", "McpFleet", "weather");
const DEPLOYMENT: (&str, &str, &str) = ("apps/v1", "Deployment", "weather");
/// Several syncs of the autoscaler, which is at 2 s here.
const STABLE: Duration = Duration::from_secs(15);

fn scaled(min: i32, max: i32) -> String {
    format!("{{{SERVER}, autoscaling: {{minReplicas: {min}, maxReplicas: {max}}}}}")
}

fn hpas(ns: &Namespace) -> Api<HorizontalPodAutoscaler> {
    ns.api()
}

pub async fn our_autoscaler_scales_through_the_fleet(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("hpa").await?;
    let start = suite.cluster.audit_log().mark()?;
    ns.fleet("weather", &scaled(2, 10)).await?;
    look::scale(&ns, "weather", 2).await?;
    look::exists(&hpas(&ns), "weather").await?;
    created_after_the_selector(&suite, start, &ns.name)?;

    ns.respec("weather", &scaled(5, 10)).await?;
    look::scale(&ns, "weather", 5).await?;
    let scales = suite.cluster.audit_log().since(start)?.by(HPA_USER).of("mcpfleets.mcpfleet.io/scale");
    let raised = scales.writes().filter(|e| e.object.as_ref().is_some_and(|o| o.namespace == ns.name)).len();
    check(raised == 1, || format!("the autoscaler wrote the scale {raised} times, not once"))?;
    stays(&suite, &ns, 5).await?;

    ns.respec("weather", &scaled(2, 3)).await?;
    look::scale(&ns, "weather", 3).await?;
    let events = look::events(&ns, "weather").await?;
    check(events.iter().all(|(reason, _)| reason != "InvalidSelector"), || format!("{events:?}"))
}

/// An autoscaler that starts before `status.selector` is there warns in an event.
fn created_after_the_selector(
    suite: &Suite,
    start: mcp_fleet_cluster::audit::Mark,
    ns: &str,
) -> Result<(), Failed> {
    let writes = look::writes(suite, start, ns)?.filter(mcp_fleet_cluster::audit::Entry::is_ok);
    let of = |kind: &str| writes.0.iter().filter(|e| e.kind() == kind).collect::<Vec<_>>();
    let status = of("mcpfleets.mcpfleet.io/status").iter().map(|e| e.done).min();
    let hpa = of("horizontalpodautoscalers.autoscaling").iter().map(|e| e.received).min();
    check(status.is_some() && hpa.is_some() && status <= hpa, || {
        format!("first status at {status:?}, autoscaler at {hpa:?}: {:?}", writes.summary())
    })
}

/// The scale stands, and nobody writes it or the Deployment.
async fn stays(suite: &Suite, ns: &Namespace, n: i32) -> Result<(), Failed> {
    look::quiet(suite, &ns.name, 2).await?;
    let mark = suite.cluster.audit_log().mark()?;
    wait::holds(&format!("{n} replicas"), STABLE, async || {
        let live: McpFleet = ns.api().get("weather").await.map_err(|e| e.to_string())?;
        if live.spec.replicas == Some(n) { Ok(()) } else { Err(format!("{:?}", live.spec.replicas)) }
    })
    .await?;
    let deeds = look::deeds(suite, mark, &ns.name)?;
    check(deeds.is_empty(), || format!("the operator fights: {:?}", deeds.summary()))?;
    let on_scale =
        |o: &mcp_fleet_cluster::audit::ObjectRef| o.namespace == ns.name && o.subresource == "scale";
    let all = suite.cluster.audit_log().since(mark)?.writes();
    let others = all.filter(|e| e.object.as_ref().is_some_and(on_scale));
    check(others.is_empty(), || format!("somebody fights: {:?}", others.summary()))
}

pub async fn kubectl_scale_works_without_autoscaling(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("scale").await?;
    ns.fleet("weather", SERVER).await?;
    look::scale(&ns, "weather", 2).await?;
    for n in [4, 1] {
        suite.kubectl(&["-n", &ns.name, "scale", "mcpfleet", "weather", &format!("--replicas={n}")])?;
        look::scale(&ns, "weather", n).await?;
        ns.condition("weather", "Ready", "True", "Ready").await?;
    }
    suite.kubectl(&["-n", &ns.name, "scale", "mcpfleet", "weather", "--replicas=0"])?;
    look::scale(&ns, "weather", 0).await?;
    ns.condition("weather", "Ready", "True", "ScaledToZero").await?;
    ns.condition("weather", "Available", "False", "ScaledToZero").await?;
    suite.kubectl(&[
        "-n",
        &ns.name,
        "scale",
        "mcpfleet",
        "weather",
        "--current-replicas=0",
        "--replicas=2",
    ])?;
    look::scale(&ns, "weather", 2).await?;
    Ok(())
}

pub async fn kubectl_autoscale_works_where_ours_is_off(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("autoscale").await?;
    ns.fleet("plain", SERVER).await?;
    ns.fleet("off", &format!("{{{SERVER}, autoscaling: {{actuator: 'Off'}}}}")).await?;
    for fleet in ["plain", "off"] {
        look::scale(&ns, fleet, 2).await?;
        suite.kubectl(&["-n", &ns.name, "autoscale", "mcpfleet", fleet, "--min=3", "--max=6"])?;
    }
    for (fleet, reason) in [("plain", "AutoscalingDisabled"), ("off", "ActuatorOff")] {
        look::scale(&ns, fleet, 3).await?;
        ns.condition(fleet, "ScalingActive", "False", reason).await?;
    }
    let theirs = look::uids(&hpas(&ns).list(&ListParams::default()).await?.items);
    look::quiet(&suite, &ns.name, 2).await?;
    let mark = suite.cluster.audit_log().mark()?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let writes = look::deeds(&suite, mark, &ns.name)?;
    check(writes.is_empty(), || format!("{:?}", writes.summary()))?;
    let now = look::uids(&hpas(&ns).list(&ListParams::default()).await?.items);
    check(theirs == now && now.len() == 2, || format!("autoscalers {theirs:?} became {now:?}"))
}

pub async fn a_users_autoscaler_makes_ours_step_aside(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("foreign").await?;
    ns.fleet("weather", &scaled(2, 10)).await?;
    look::scale(&ns, "weather", 2).await?;
    let first = look::exists(&hpas(&ns), "weather").await?;

    look::autoscaler(&ns, "theirs", FLEET, (4, 6)).await?;
    look::gone(&hpas(&ns), "weather").await?;
    let fleet = ns.condition("weather", "ScalingActive", "False", "ForeignAutoscaler").await?;
    let (_, _, message) = look::condition(&fleet, "ScalingActive");
    check(message.contains("theirs") && message.contains("actuator: Off"), || message)?;
    look::event(&ns, "weather", "ForeignAutoscaler").await?;
    look::scale(&ns, "weather", 4).await?;
    stays(&suite, &ns, 4).await?;

    hpas(&ns).delete("theirs", &DeleteParams::default()).await?;
    let again = look::exists(&hpas(&ns), "weather").await?;
    check(again.uid() != first.uid(), || "the autoscaler was never deleted".into())?;
    look::scale(&ns, "weather", 4).await?;
    wait::until("ScalingActive is ours again", wait::LIMIT, async || {
        let fleet = ns.get("weather").await.map_err(|e| e.message().unwrap_or_default().to_owned())?;
        let (_, reason, _) = look::condition(&fleet, "ScalingActive");
        if reason == "ForeignAutoscaler" { Err(reason) } else { Ok(()) }
    })
    .await
}

pub async fn an_autoscaler_on_the_deployment_is_left_alone(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("taken").await?;
    ns.fleet("weather", &scaled(2, 10)).await?;
    look::scale(&ns, "weather", 2).await?;
    look::exists(&hpas(&ns), "weather").await?;
    let history: History<Deployment> = History::of(ns.api(), watcher::Config::default()).await?;

    look::autoscaler(&ns, "theirs", DEPLOYMENT, (5, 6)).await?;
    look::gone(&hpas(&ns), "weather").await?;
    let fleet = ns.condition("weather", "ScalingActive", "False", "ForeignAutoscaler").await?;
    let (_, _, message) = look::condition(&fleet, "ScalingActive");
    check(message.contains("Deployment"), || message)?;
    let deployment_has = async |n: i32| {
        wait::until(&format!("{n} on the Deployment"), wait::LIMIT, async || {
            let live = ns.api::<Deployment>().get("weather").await.map_err(|e| e.to_string())?;
            let spec = live.spec.as_ref().and_then(|s| s.replicas);
            let ready = live.status.as_ref().and_then(|s| s.ready_replicas);
            if (spec, ready) == (Some(n), Some(n)) {
                Ok(())
            } else {
                Err(format!("{spec:?}, ready {ready:?}"))
            }
        })
        .await
    };
    deployment_has(5).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    stays(&suite, &ns, 2).await?;
    deployment_has(5).await?;

    hpas(&ns).delete("theirs", &DeleteParams::default()).await?;
    look::exists(&hpas(&ns), "weather").await?;
    look::scale(&ns, "weather", 2).await?;
    let seen = history.with(|all| {
        all.iter().filter_map(|r| r.object.spec.as_ref()?.replicas).collect::<std::collections::BTreeSet<_>>()
    });
    check(seen.iter().all(|n| [2, 5].contains(n)), || format!("the Deployment went over {seen:?} replicas"))
}

pub async fn an_autoscaler_on_the_deployment_is_told_without_autoscaling_too(
    suite: Arc<Suite>,
) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("taken").await?;
    ns.fleet("weather", &format!("{{replicas: 3, {SERVER}}}")).await?;
    look::scale(&ns, "weather", 3).await?;
    look::autoscaler(&ns, "theirs", DEPLOYMENT, (4, 6)).await?;
    // spec.replicas means nothing any more, and a user who sets it must learn why.
    let fleet = ns.condition("weather", "AbleToScale", "False", "ForeignAutoscaler").await?;
    let (_, _, message) = look::condition(&fleet, "AbleToScale");
    check(message.contains("theirs") && message.contains("Deployment"), || message)?;
    hpas(&ns).delete("theirs", &DeleteParams::default()).await?;
    ns.condition("weather", "AbleToScale", "True", "ScaleSubresource").await?;
    look::scale(&ns, "weather", 3).await?;
    Ok(())
}

/// `kubectl apply` of a fleet as a file; its output.
fn apply(suite: &Suite, ns: &str, spec: &str, mode: &[&str]) -> Result<String, Failed> {
    let file = suite.cluster.scratch().join(format!("{ns}.yaml"));
    let text = format!(
        "{{apiVersion: mcpfleet.io/v1alpha1, kind: McpFleet, metadata: {{name: weather}}, spec: {spec}}}\n"
    );
    std::fs::write(&file, text)?;
    let path = file.display().to_string();
    suite.kubectl(&[&["-n", ns, "apply", "-f", &path], mode].concat())
}

pub async fn applying_the_same_file_again_changes_nothing(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    for mode in [&[][..], &["--server-side"]] {
        let ns = suite.namespace("again").await?;
        apply(&suite, &ns.name, &scaled(2, 10), mode)?;
        look::scale(&ns, "weather", 2).await?;
        suite.kubectl(&["-n", &ns.name, "scale", "mcpfleet", "weather", "--replicas=7"])?;
        look::scale(&ns, "weather", 7).await?;
        look::quiet(&suite, &ns.name, 2).await?;
        let (before, pods) = (ns.get("weather").await?, look::uids(&look::pods(&ns, "weather").await?));
        let mark = suite.cluster.audit_log().mark()?;
        apply(&suite, &ns.name, &scaled(2, 10), mode)?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = ns.get("weather").await?;
        check(after.spec == before.spec && after.metadata.generation == before.metadata.generation, || {
            format!("{mode:?}: the second apply changed the fleet: {:?}", after.spec.replicas)
        })?;
        let writes = look::deeds(&suite, mark, &ns.name)?;
        check(writes.is_empty(), || format!("{mode:?}: {:?}", writes.summary()))?;
        check(look::uids(&look::pods(&ns, "weather").await?) == pods, || format!("{mode:?}: other pods"))?;
    }
    Ok(())
}

pub async fn replicas_in_the_file_are_told(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    for mode in [&[][..], &["--server-side"]] {
        let ns = suite.namespace("overridden").await?;
        let with = format!("{{replicas: 3, {SERVER}, autoscaling: {{minReplicas: 2, maxReplicas: 10}}}}");
        apply(&suite, &ns.name, &with, mode)?;
        look::scale(&ns, "weather", 3).await?;
        let fleet = ns.condition("weather", "AbleToScale", "False", "ReplicasOverridden").await?;
        let (_, _, message) = look::condition(&fleet, "AbleToScale");
        check(message.contains("remove replicas"), || message)?;
        look::event(&ns, "weather", "ReplicasOverridden").await?;

        apply(&suite, &ns.name, &scaled(2, 10), mode)?;
        look::scale(&ns, "weather", 3).await?;
        wait::until(&format!("{mode:?}: ReplicasOverridden goes"), wait::LIMIT, async || {
            let fleet = ns.get("weather").await.map_err(|e| e.message().unwrap_or_default().to_owned())?;
            let (status, reason, _) = look::condition(&fleet, "AbleToScale");
            if reason == "ReplicasOverridden" { Err(format!("{status}/{reason}")) } else { Ok(()) }
        })
        .await?;
    }
    Ok(())
}

pub async fn a_removed_line_is_seeded_again(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("seed").await?;
    ns.fleet("weather", &format!("{{replicas: 4, {SERVER}}}")).await?;
    look::scale(&ns, "weather", 4).await?;
    let history: History<Deployment> = History::of(ns.api(), watcher::Config::default()).await?;
    let remove = r#"[{"op": "remove", "path": "/spec/replicas"}]"#;
    suite.kubectl(&["-n", &ns.name, "patch", "mcpfleet", "weather", "--type=json", "-p", remove])?;
    look::scale(&ns, "weather", 4).await?;
    let path = format!("/apis/mcpfleet.io/v1alpha1/namespaces/{}/mcpfleets/weather/scale", ns.name);
    let scale: serde_json::Value = serde_json::from_str(&suite.kubectl(&["get", "--raw", &path])?)?;
    check(
        scale["spec"]["replicas"] == 4 && scale["status"]["selector"] == "mcpfleet.io/fleet=weather",
        || scale.to_string(),
    )?;
    let others =
        history.with(|all| all.iter().any(|r| r.object.spec.as_ref().and_then(|s| s.replicas) != Some(4)));
    check(!others, || "the Deployment left 4 replicas in between".into())
}

pub async fn surge_pods_are_not_counted(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("surge").await?;
    let spec = |image: &str| {
        format!("{{replicas: 4, server: {{image: {image}}}, rollout: {{maxSurge: 100%, maxUnavailable: 0}}}}")
    };
    ns.fleet("weather", &spec("registry.example/weather:1")).await?;
    look::scale(&ns, "weather", 4).await?;
    let fleets: History<McpFleet> = History::of(ns.api(), watcher::Config::default()).await?;
    let deployments: History<Deployment> = History::of(ns.api(), watcher::Config::default()).await?;
    ns.respec("weather", &spec("registry.example/weather:2")).await?;
    ns.condition("weather", "Progressing", "True", "RolloutComplete").await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    let most = deployments
        .with(|all| all.iter().filter_map(|r| r.object.status.as_ref()?.replicas).max().unwrap_or_default());
    check(most > 4, || format!("there was no surge: at most {most} pods"))?;
    let told = fleets.with(|all| {
        all.iter().filter_map(|r| Some(r.object.status.as_ref()?.replicas)).max().unwrap_or_default()
    });
    check(told == 4, || format!("status.replicas went up to {told}"))
}
