//! R23: the status tells the truth, says what to do, and recovers when it is mended.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{ResourceQuota, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher,
};
use libtest_mimic::Failed;
use mcp_fleet::api::{conditions::types, v1alpha1::McpFleet};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    look::{self, History, Revision, SERVER, check},
    support::{Namespace, Suite, TestResult, wait},
};

/// Two watches show one moment within this time of each other, on a busy machine too.
const SKEW: Duration = Duration::from_secs(2);
/// Longest message of a condition, in bytes.
const MAX_MESSAGE: usize = 1024;

pub async fn every_revision_tells_the_truth(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("truth").await?;
    let fleets: History<McpFleet> = History::of(ns.api(), watcher::Config::default()).await?;
    let headless =
        watcher::Config::default().labels("mcpfleet.io/fleet=weather,service.kubernetes.io/headless");
    let slices: History<EndpointSlice> = History::of(ns.api(), headless).await?;

    ns.fleet("weather", &format!("{{replicas: 3, {SERVER}}}")).await?;
    look::scale(&ns, "weather", 3).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    fleets.with(came_up_once)?;
    ns.respec("weather", &format!("{{replicas: 5, {SERVER}}}")).await?;
    look::scale(&ns, "weather", 5).await?;
    ns.respec("weather", "{replicas: 5, server: {image: registry.example/weather:2}}").await?;
    ns.condition("weather", "Progressing", "True", "RolloutComplete").await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    ready_goes_and_comes_with_the_endpoints(&ns).await?;
    ns.respec("weather", &format!("{{replicas: 2, {SERVER}}}")).await?;
    look::scale(&ns, "weather", 2).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    tokio::time::sleep(SKEW).await;

    let timeline = slices.with(endpoints_over_time);
    fleets.with(|all| {
        let n_ready = all.iter().filter(|r| is_ready(&r.object)).count();
        check(n_ready >= 4, || format!("Ready was seen {n_ready} times only"))?;
        all.iter().try_for_each(|revision| honest(revision, &timeline))?;
        let observed: Vec<i64> =
            all.iter().filter_map(|r| r.object.status.as_ref()?.observed_generation).collect();
        check(observed.is_sorted(), || format!("observedGeneration went back: {observed:?}"))
    })
}

/// A fleet that comes up becomes Ready once, and does not flap on the way.
fn came_up_once(all: &[Revision<McpFleet>]) -> Result<(), Failed> {
    let written = all.iter().filter(|r| r.object.status.is_some());
    let mut steps: Vec<String> = written.map(|r| look::condition(&r.object, "Ready").0).collect();
    steps.dedup();
    check(steps == ["False", "True"], || format!("Ready went {steps:?}"))
}

async fn ready_goes_and_comes_with_the_endpoints(ns: &Namespace) -> Result<(), Failed> {
    let pods = look::pods(ns, "weather").await?;
    let victim = pods.first().ok_or("no pod")?.name_any();
    look::set_ready(ns, &victim, false).await?;
    ns.condition("weather", "Ready", "False", "ReplicasUnavailable").await?;
    look::set_ready(ns, &victim, true).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    for pod in &pods {
        look::set_ready(ns, &pod.name_any(), false).await?;
    }
    ns.condition("weather", "Available", "False", "NoReadyEndpoints").await?;
    for pod in &pods {
        look::set_ready(ns, &pod.name_any(), true).await?;
    }
    ns.condition("weather", "Ready", "True", "Ready").await?;
    Ok(())
}

fn is_ready(fleet: &McpFleet) -> bool {
    look::condition(fleet, "Ready").0 == "True"
}

/// Number of endpoints that serve after each change of a slice.
fn endpoints_over_time(slices: &[Revision<EndpointSlice>]) -> Vec<(Instant, usize)> {
    let mut live = std::collections::BTreeMap::new();
    let count = |revision: &Revision<EndpointSlice>| {
        let n = if revision.gone { 0 } else { look::ready_in(&revision.object) };
        live.insert(revision.object.name_any(), n);
        (revision.at, live.values().sum())
    };
    slices.iter().map(count).collect()
}

/// Most endpoints at any moment around `at`.
fn endpoints_around(at: Instant, timeline: &[(Instant, usize)]) -> usize {
    let before = timeline.iter().rfind(|(t, _)| *t + SKEW <= at);
    let around = timeline.iter().filter(|(t, _)| *t + SKEW > at && *t <= at + SKEW);
    before.into_iter().chain(around).map(|(_, n)| *n).max().unwrap_or_default()
}

fn honest(revision: &Revision<McpFleet>, timeline: &[(Instant, usize)]) -> Result<(), Failed> {
    let fleet = &revision.object;
    let Some(status) = &fleet.status else { return Ok(()) };
    let types: Vec<&str> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
    check(types::ALL.iter().all(|t| types.contains(t)), || format!("only {types:?} in {status:?}"))?;
    for c in &status.conditions {
        check(c.message.len() <= MAX_MESSAGE, || format!("a message of {} bytes", c.message.len()))?;
        check(!c.message.is_empty() && !c.reason.is_empty(), || format!("{} says nothing", c.type_))?;
        check(c.observed_generation == status.observed_generation, || format!("{c:?}"))?;
    }
    let generation = fleet.metadata.generation.unwrap_or_default();
    check(status.observed_generation.is_some_and(|observed| observed <= generation), || {
        format!("{status:?}")
    })?;
    let serving = endpoints_around(revision.at, timeline);
    check(status.ready_replicas as usize <= serving, || {
        format!("status says {} ready, {serving} endpoints serve", status.ready_replicas)
    })?;
    if is_ready(fleet) && status.observed_generation == Some(generation) {
        let wanted = fleet.spec.replicas.unwrap_or_default() as usize;
        check(serving >= wanted, || format!("Ready of {wanted}, but {serving} endpoints serve: {status:?}"))?;
    }
    Ok(())
}

/// The message of the condition, once it has this state; it must say this.
async fn told(ns: &Namespace, type_: &str, reason: &str, says: &str) -> Result<(), Failed> {
    let fleet = ns.condition("weather", type_, "False", reason).await?;
    let (_, _, message) = look::condition(&fleet, type_);
    check(message.contains(says), || format!("{type_}/{reason} does not say '{says}': {message}"))
}

pub async fn a_used_up_quota_is_told_and_recovers(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("quota").await?;
    let quota = json!({"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}});
    let quotas = ns.api::<ResourceQuota>();
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    ns.fleet("weather", &format!("{{replicas: 2, {SERVER}}}")).await?;
    told(&ns, "Ready", "QuotaExceeded", "raise the ResourceQuota").await?;
    look::event(&ns, "weather", "QuotaExceeded").await?;
    let more = Patch::Merge(json!({"spec": {"hard": {"pods": "10"}}}));
    quotas.patch("small", &PatchParams::default(), &more).await?;
    look::scale(&ns, "weather", 2).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    Ok(())
}

pub async fn a_missing_service_account_is_told_and_recovers(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("account").await?;
    ns.fleet(
        "weather",
        "{replicas: 2, server: {image: registry.example/weather:1, serviceAccountName: robot}}",
    )
    .await?;
    told(&ns, "Ready", "ServiceAccountMissing", "create it").await?;
    let account = serde_json::from_value(json!({"metadata": {"name": "robot"}}))?;
    ns.api::<ServiceAccount>().create(&PostParams::default(), &account).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    Ok(())
}

pub async fn an_unschedulable_pod_is_told_and_recovers(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("nowhere").await?;
    ns.fleet(
        "weather",
        "{replicas: 2, server: {image: registry.example/weather:1, nodeSelector: {disk: none}}}",
    )
    .await?;
    told(&ns, "Ready", "Unschedulable", "nodeSelector").await?;
    told(&ns, "Available", "Unschedulable", "nodeSelector").await?;
    ns.respec("weather", &format!("{{replicas: 2, {SERVER}}}")).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    ns.condition("weather", "Available", "True", "EndpointsReady").await?;
    Ok(())
}

pub async fn a_rollout_that_cannot_finish_keeps_the_old_pods(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("stuck").await?;
    let old = format!("{{replicas: 3, {SERVER}, rollout: {{progressDeadlineSeconds: 30}}}}");
    ns.fleet("weather", &old).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    let served = look::uids(&look::pods(&ns, "weather").await?);
    let headless =
        watcher::Config::default().labels("mcpfleet.io/fleet=weather,service.kubernetes.io/headless");
    let slices: History<EndpointSlice> = History::of(ns.api(), headless).await?;

    ns.respec(
        "weather",
        "{replicas: 3, server: {image: registry.example/weather:2, nodeSelector: {disk: none}}, rollout: {progressDeadlineSeconds: 30}}",
    )
    .await?;
    told(&ns, "Ready", "Unschedulable", "nodeSelector").await?;
    told(&ns, "Progressing", "RolloutStuck", "the old ones serve on").await?;
    ns.condition("weather", "Available", "True", "EndpointsReady").await?;
    look::event(&ns, "weather", "RolloutStuck").await?;
    let now = look::uids(&look::pods(&ns, "weather").await?);
    check(served.iter().all(|uid| now.contains(uid)), || format!("old pods {served:?} became {now:?}"))?;

    ns.respec("weather", &old).await?;
    ns.condition("weather", "Progressing", "True", "RolloutComplete").await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    wait::until("the old pods alone", wait::LIMIT, async || {
        let pods =
            look::pods(&ns, "weather").await.map_err(|e| e.message().unwrap_or_default().to_owned())?;
        let now = look::uids(&pods);
        if now == served { Ok(()) } else { Err(format!("{served:?} became {now:?}")) }
    })
    .await?;
    let least = slices.with(endpoints_over_time).into_iter().map(|(_, n)| n).min();
    check(least == Some(3), || format!("at some moment {least:?} endpoints served"))
}
