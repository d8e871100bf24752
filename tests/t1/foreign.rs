//! R14: somebody else's object in the place of a child is neither adopted nor overwritten, and the status says so.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, PostParams},
};
use libtest_mimic::Failed;
use mcp_fleet::operator::children::ChildKind;
use serde_json::{Value, json};

use crate::{
    common,
    support::{Namespace, Suite, TestResult, wait},
};

/// A stranger is not watched, but looked for again.
const RECOVERY: Duration = Duration::from_secs(30);

/// A child's kind and name, and an object of somebody else's that has both.
fn strangers() -> Vec<(ChildKind, &'static str, Value)> {
    let other = json!({"app": "other"});
    vec![
        (ChildKind::ServiceAccount, "mcp-weather", json!({"automountServiceAccountToken": true})),
        (ChildKind::Service, "weather", json!({"spec": {"selector": other, "ports": [{"port": 1}]}})),
        (
            ChildKind::Service,
            "weather-headless",
            json!({"spec": {"selector": other, "ports": [{"port": 1}]}}),
        ),
        (ChildKind::NetworkPolicy, "weather", json!({"spec": {"podSelector": {"matchLabels": other}}})),
        (
            ChildKind::PodDisruptionBudget,
            "weather",
            json!({"spec": {"selector": {"matchLabels": other}, "minAvailable": 1}}),
        ),
        (
            ChildKind::Deployment,
            "weather",
            json!({"spec": {"selector": {"matchLabels": other}, "template": {"metadata": {"labels": other}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        ),
        (
            ChildKind::HorizontalPodAutoscaler,
            "weather",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}}}),
        ),
    ]
}

/// Two objects are one and the same, in all that a write could change.
fn same(a: &DynamicObject, b: &DynamicObject) -> Result<(), String> {
    if a.uid() == b.uid() && a.resource_version() == b.resource_version() && a == b {
        return Ok(());
    }
    Err(format!("it was touched: {a:?} became {b:?}"))
}

async fn create(
    api: &Api<DynamicObject>,
    kind: ChildKind,
    name: &str,
    body: &Value,
    meta: &Value,
) -> Result<DynamicObject, Failed> {
    let resource = kind.api_resource();
    let mut object = body.clone();
    object["apiVersion"] = json!(resource.api_version);
    object["kind"] = json!(resource.kind);
    object["metadata"] = meta.clone();
    object["metadata"]["name"] = json!(name);
    Ok(api.create(&PostParams::default(), &serde_json::from_value(object)?).await?)
}

/// What the fleet says of the stranger, and what it does when it is gone.
async fn is_left_alone(
    suite: &Suite,
    ns: &Namespace,
    kind: ChildKind,
    name: &str,
    stranger: DynamicObject,
) -> TestResult {
    let api = common::api(&suite.client, &ns.name, kind);
    for condition in ["Accepted", "Ready"] {
        let fleet = ns.condition("weather", condition, "False", "ChildConflict").await?;
        let conditions = fleet.status.map(|s| s.conditions).unwrap_or_default();
        let message =
            conditions.into_iter().find(|c| c.type_ == condition).map(|c| c.message).unwrap_or_default();
        assert!(message.contains(&format!("{kind} {name} exists")), "{message}");
    }
    // The others are not held up.
    common::wait_children_besides(ns, &suite.client, "weather", (kind, name.to_owned()), 6).await?;
    wait::holds(&format!("{kind} {name}"), Duration::from_secs(2), async || {
        same(&stranger, &api.get(name).await.map_err(|e| e.to_string())?)
    })
    .await?;
    api.delete(name, &DeleteParams::default()).await?;
    wait::until(&format!("{kind} {name} of the fleet"), RECOVERY, async || {
        let live = api.get(name).await.map_err(|e| e.to_string())?;
        if live.uid() != stranger.uid() && live.owner_references().len() == 1 {
            Ok(())
        } else {
            Err(format!("{:?}", live.uid()))
        }
    })
    .await?;
    ns.condition("weather", "Accepted", "True", "Accepted").await.map(drop)
}

async fn each(suite: &Arc<Suite>, test: &str, meta: Value) -> TestResult {
    suite.operator();
    let one = async |(kind, name, body): (ChildKind, &'static str, Value)| {
        let ns = suite.namespace(test).await?;
        let stranger = create(&common::api(&suite.client, &ns.name, kind), kind, name, &body, &meta).await?;
        ns.fleet("weather", "{server: {image: a}, autoscaling: {}}").await?;
        is_left_alone(suite, &ns, kind, name, stranger)
            .await
            .map_err(|e| Failed::from(format!("{kind} {name}: {}", e.message().unwrap_or_default())))
    };
    futures::future::try_join_all(strangers().into_iter().map(one)).await.map(drop)
}

pub async fn a_stranger_is_never_touched(suite: Arc<Suite>) -> TestResult {
    each(&suite, "stranger", json!({})).await
}

/// As after a fleet was deleted and made again before its children were collected.
pub async fn a_child_of_an_earlier_fleet_is_never_touched(suite: Arc<Suite>) -> TestResult {
    let meta = json!({
        "labels": {
            "app.kubernetes.io/managed-by": "mcp-fleet", "app.kubernetes.io/name": "weather",
            "app.kubernetes.io/component": "mcp-server", "mcpfleet.io/fleet": "weather",
        },
        "ownerReferences": [{
            "apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "name": "weather", "controller": true,
            "uid": "01234567-89ab-cdef-0123-456789abcdef",
        }],
    });
    each(&suite, "earlier", meta).await
}

/// Our labels alone make an object nobody's child: somebody copied a manifest.
pub async fn a_stranger_with_our_labels_is_never_touched(suite: Arc<Suite>) -> TestResult {
    let labels = json!({"app.kubernetes.io/managed-by": "mcp-fleet", "mcpfleet.io/fleet": "weather"});
    each(&suite, "labelled", json!({"labels": labels})).await
}

/// `kubectl delete mcpfleet --cascade=orphan`, and the fleet made again: what it left is taken up, as Deployments
/// take up ReplicaSets. As long as the deletion is under way, nobody gives the children their owner back.
pub async fn orphans_are_taken_up(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("orphans").await?;
    let spec = "{server: {image: a}, autoscaling: {}}";
    ns.fleet("weather", spec).await?;
    let first = common::wait_children(&ns, &suite.client, "weather", 7).await?;
    let fleets: Api<mcp_fleet::api::v1alpha1::McpFleet> = ns.api();
    let orphan = DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    fleets.delete("weather", &orphan).await?;
    // What the garbage collector does elsewhere: first the children, then the finalizer.
    let released = json!([{"op": "remove", "path": "/metadata/ownerReferences"}]);
    for (kind, name) in first.keys() {
        let api = common::api(&suite.client, &ns.name, *kind);
        common::json_patch(&api, name, released.clone(), false).await?;
    }
    let owners = async || {
        let mut owners = BTreeSet::new();
        for (kind, name) in first.keys() {
            let live = common::api(&suite.client, &ns.name, *kind).get(name).await;
            let live = live.map_err(|e| e.to_string())?;
            owners.extend(live.owner_references().iter().map(|o| o.uid.clone()));
        }
        Ok::<_, String>(owners)
    };
    wait::holds("children without an owner", Duration::from_secs(2), async || match owners().await? {
        owners if owners.is_empty() => Ok(()),
        owners => Err(format!("{owners:?}")),
    })
    .await?;
    let free = json!({"metadata": {"finalizers": null}});
    fleets.patch("weather", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&free)).await?;
    let fleet = ns.fleet("weather", spec).await?;
    ns.condition("weather", "Accepted", "True", "Accepted").await?;
    wait::until("owners of the children", common::CHILDREN, async || match owners().await? {
        owners if owners.iter().eq(fleet.uid().iter()) => Ok(()),
        owners => Err(format!("{owners:?}")),
    })
    .await?;
    let second = common::wait_children(&ns, &suite.client, "weather", 7).await?;
    let uids = |all: &std::collections::BTreeMap<common::Child, DynamicObject>| {
        all.values().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>()
    };
    assert_eq!(uids(&first), uids(&second), "they were made anew");
    Ok(())
}

/// A fleet that comes back under its name gets children of its own, and none of the old ones' identity.
pub async fn a_fleet_made_again_gets_new_children(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("again").await?;
    let spec = "{server: {image: a}, autoscaling: {}}";
    ns.fleet("weather", spec).await?;
    let first = common::wait_children(&ns, &suite.client, "weather", 7).await?;
    let fleets: Api<mcp_fleet::api::v1alpha1::McpFleet> = ns.api();
    fleets.delete("weather", &DeleteParams::default()).await?;
    ns.fleet("weather", spec).await?;
    ns.condition("weather", "Accepted", "False", "ChildConflict").await?;
    // What the garbage collector does elsewhere.
    for (kind, name) in first.keys() {
        common::api(&suite.client, &ns.name, *kind).delete(name, &DeleteParams::default()).await?;
    }
    ns.condition("weather", "Accepted", "True", "Accepted").await?;
    let second = common::wait_children(&ns, &suite.client, "weather", 7).await?;
    let uids = |all: &std::collections::BTreeMap<common::Child, DynamicObject>| {
        all.values().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>()
    };
    assert!(uids(&first).is_disjoint(&uids(&second)), "old children are still there");
    Ok(())
}
