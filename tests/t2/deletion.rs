//! R21, R22: a fleet that goes leaves nothing, and its name can be used again at once.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Namespace as CoreNamespace, ServiceAccount},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;

use crate::{
    look::{self, SERVER, check},
    support::{Suite, TestResult, wait},
};

/// Every kind of object that a namespace can hold, but the records of what happened.
fn kinds(suite: &Suite) -> Result<String, Failed> {
    let all = suite.kubectl(&["api-resources", "--verbs=list", "--namespaced", "-o", "name"])?;
    let kept = |kind: &&str| !kind.starts_with("events") && !kind.ends_with("metrics.k8s.io");
    Ok(all.lines().filter(kept).collect::<Vec<_>>().join(","))
}

fn objects(suite: &Suite, ns: &str, kinds: &str) -> Result<Vec<String>, Failed> {
    let out = suite.kubectl(&["-n", ns, "get", kinds, "-o", "name"])?;
    Ok(out.lines().map(str::to_owned).collect())
}

pub async fn nothing_is_left(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("leave").await?;
    look::exists(&ns.api::<ServiceAccount>(), "default").await?;
    let kinds = kinds(&suite)?;
    let before = wait::until("the namespace's own objects", wait::LIMIT, async || {
        let there =
            objects(&suite, &ns.name, &kinds).map_err(|e| e.message().unwrap_or_default().to_owned())?;
        if there.len() >= 2 { Ok(there) } else { Err(format!("{there:?}")) }
    })
    .await?;
    ns.fleet("weather", &format!("{{{SERVER}, autoscaling: {{}}}}")).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    look::exists(&ns.api::<HorizontalPodAutoscaler>(), "weather").await?;
    ns.respec("weather", "{server: {image: registry.example/weather:2}, autoscaling: {}}").await?;
    ns.condition("weather", "Progressing", "True", "RolloutComplete").await?;
    let during = objects(&suite, &ns.name, &kinds)?;
    // Two Services, their slices, two ReplicaSets, two pods, and one of each of the others.
    check(during.len() >= before.len() + 12, || format!("{during:?}"))?;

    ns.api::<McpFleet>().delete("weather", &DeleteParams::default()).await?;
    wait::until("an empty namespace", wait::LIMIT, async || {
        let left =
            objects(&suite, &ns.name, &kinds).map_err(|e| e.message().unwrap_or_default().to_owned())?;
        if left == before { Ok(()) } else { Err(format!("left: {left:?}")) }
    })
    .await?;
    // Nobody makes anything again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let left = objects(&suite, &ns.name, &kinds)?;
    check(left == before, || format!("came back: {left:?}"))
}

pub async fn a_namespace_with_fleets_ends(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("ending").await?;
    for i in 0..20 {
        ns.fleet(
            &format!("weather-{i}"),
            &format!("{{replicas: 1, {SERVER}, autoscaling: {{minReplicas: 1}}}}"),
        )
        .await?;
    }
    wait::until("20 Deployments", wait::LIMIT, async || {
        let n =
            ns.api::<Deployment>().list(&ListParams::default()).await.map_err(|e| e.to_string())?.items.len();
        if n == 20 { Ok(()) } else { Err(format!("{n}")) }
    })
    .await?;
    let namespaces: Api<CoreNamespace> = Api::all(suite.client.clone());
    namespaces.delete(&ns.name, &DeleteParams::default()).await?;
    look::gone(&namespaces, &ns.name).await
}

pub async fn the_name_can_be_used_again_at_once(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("reborn").await?;
    let spec = format!("{{replicas: 2, {SERVER}, autoscaling: {{}}}}");
    let first = ns.fleet("weather", &spec).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    let old = look::uids(&look::pods(&ns, "weather").await?);
    ns.api::<McpFleet>().delete("weather", &DeleteParams::default()).await?;
    let second = ns.fleet("weather", &spec).await?;
    check(first.uid() != second.uid(), || "the same object".into())?;
    wait::until("children of the second fleet alone", wait::LIMIT, async || {
        let deployment = ns.api::<Deployment>().get("weather").await.map_err(|e| e.to_string())?;
        let hpa = ns.api::<HorizontalPodAutoscaler>().get("weather").await.map_err(|e| e.to_string())?;
        let owners = [deployment.owner_references(), hpa.owner_references()].concat();
        let ours = owners.iter().all(|o| Some(&o.uid) == second.uid().as_ref());
        if ours && owners.len() == 2 { Ok(()) } else { Err(format!("{owners:?}")) }
    })
    .await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    look::scale(&ns, "weather", 2).await?;
    let new = look::uids(&look::pods(&ns, "weather").await?);
    check(new.iter().all(|uid| !old.contains(uid)), || format!("pods of the first fleet: {old:?}, {new:?}"))?;
    // The first fleet's autoscaler, which is still there for a moment, is nobody else's.
    let events = look::events(&ns, "weather").await?;
    check(events.iter().all(|(reason, _)| reason != "ForeignAutoscaler"), || format!("{events:?}"))
}

pub async fn what_is_no_longer_asked_for_goes(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let ns = suite.namespace("less").await?;
    ns.fleet("weather", &format!("{{{SERVER}, autoscaling: {{minReplicas: 3}}}}")).await?;
    look::scale(&ns, "weather", 3).await?;
    look::exists(&ns.api::<ServiceAccount>(), "mcp-weather").await?;
    look::exists(&ns.api::<NetworkPolicy>(), "weather").await?;
    look::exists(&ns.api::<HorizontalPodAutoscaler>(), "weather").await?;
    ns.respec(
        "weather",
        "{server: {image: registry.example/weather:1, serviceAccountName: default}, networkPolicy: {enabled: false}}",
    )
    .await?;
    look::gone(&ns.api::<ServiceAccount>(), "mcp-weather").await?;
    look::gone(&ns.api::<NetworkPolicy>(), "weather").await?;
    look::gone(&ns.api::<HorizontalPodAutoscaler>(), "weather").await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    look::scale(&ns, "weather", 3).await?;
    ns.respec("weather", &format!("{{{SERVER}}}")).await?;
    look::exists(&ns.api::<ServiceAccount>(), "mcp-weather").await?;
    look::exists(&ns.api::<NetworkPolicy>(), "weather").await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    Ok(())
}
