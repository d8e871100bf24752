//! R13: what somebody else does to our objects. Every field that we own comes back, every other one stays.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use libtest_mimic::Failed;
use mcp_fleet::{
    api::names,
    operator::{children::ChildKind, compare::first_difference},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    common::{self, CHILDREN, json_patch},
    samples::{FULL, NATIVE, parse},
    support::{Namespace, Suite, TestResult, wait},
};

/// What reliability.md promises (R13).
const REPAIR: Duration = Duration::from_secs(5);

/// Owned fields that nobody can change on the API server, or that decide whether the object is ours at all.
/// Each with its reason; a field that can be changed after all, or is missing here, fails the test.
const FIXED: &[(&str, &str)] = &[
    ("Deployment /spec/selector", "immutable"),
    ("Deployment /spec/template/metadata/labels/mcpfleet.io/fleet", "the immutable selector needs it"),
    (
        "Deployment /spec/template/spec/containers/{name}",
        "a pod needs a container; its name is changed instead",
    ),
    (
        "Deployment /spec/template/spec/containers/{name}/env/{name}/valueFrom/*",
        "one source is needed; its fields are changed instead",
    ),
    ("Deployment /spec/template/spec/volumes/{name}", "it is mounted; its source is changed instead"),
    ("Deployment /spec/template/spec/volumes/{name}/name", "the same"),
    (
        "Deployment /spec/template/spec/volumes/{name}/emptyDir",
        "it says nothing; what others add within it is theirs",
    ),
    ("Service /spec/clusterIP", "immutable, other than by a change of the type"),
    ("Service /spec/ports/{port,protocol}", "a Service needs a port; its number is changed instead"),
    ("*/metadata/ownerReferences/{uid}/uid", "whose owner is another is not ours and never touched (R14)"),
];

fn fixed(kind: ChildKind, field: &str) -> bool {
    let whole = format!("{kind} {field}");
    FIXED.iter().any(|(fixed, _)| match (fixed.strip_prefix('*'), fixed.strip_suffix("/*")) {
        (Some(end), _) => field == end,
        (_, Some(parent)) => whole.strip_prefix(parent).is_some_and(|rest| rest.rfind('/') == Some(0)),
        _ => *fixed == whole || (whole.starts_with(fixed) && fixed.ends_with("/selector")),
    })
}

/// An owned field: its name with keys in braces, and where it lies in the live object.
#[derive(Clone, Debug)]
struct Owned {
    field: String,
    place: String,
}

impl Owned {
    /// Whether it is a field by which its item is told from others.
    fn is_key(&self) -> bool {
        let Some((item, field)) = self.field.rsplit_once('/') else { return false };
        item.ends_with('}')
            && item
                .rsplit_once('{')
                .is_some_and(|(_, keys)| keys.trim_end_matches('}').split(',').any(|key| key == field))
    }
}

/// The fields that our manager owns by an apply, leaves only. The entry of a POST has defaults too, of which we
/// say nothing.
fn owned(object: &DynamicObject) -> Vec<Owned> {
    let live = serde_json::to_value(object).expect("JSON");
    let mut all = Vec::new();
    for entry in object.managed_fields() {
        if entry.manager.as_deref() == Some(names::MANAGER) && entry.operation.as_deref() == Some("Apply") {
            let fields = entry.fields_v1.as_ref().map(|f| f.0.clone()).unwrap_or_default();
            collect(&fields, &live, "", "", &mut all);
        }
    }
    all
}

fn collect(fields: &Value, live: &Value, field: &str, place: &str, all: &mut Vec<Owned>) {
    let Value::Object(map) = fields else { return };
    let inner: Vec<_> = map.iter().filter(|(key, _)| *key != ".").collect();
    // `.` beside other keys is the item itself: to own it means that it must be there.
    if (inner.is_empty() || map.contains_key(".")) && !place.is_empty() {
        all.push(Owned { field: field.to_owned(), place: place.to_owned() });
    }
    for (key, rest) in inner {
        if let Some(name) = key.strip_prefix("f:") {
            let step = name.replace('~', "~0").replace('/', "~1");
            let Some(next) = live.get(name) else { continue };
            collect(rest, next, &format!("{field}/{name}"), &format!("{place}/{step}"), all);
        } else if let Some(wanted) = key.strip_prefix("k:") {
            let wanted: Value = serde_json::from_str(wanted).expect("a key is JSON");
            let wanted = wanted.as_object().expect("an object");
            let items = live.as_array().map(Vec::as_slice).unwrap_or_default();
            let found = items.iter().position(|item| wanted.iter().all(|(k, v)| item.get(k) == Some(v)));
            let Some(index) = found else { continue };
            let label = wanted.keys().cloned().collect::<Vec<_>>().join(",");
            collect(rest, &items[index], &format!("{field}/{{{label}}}"), &format!("{place}/{index}"), all);
        } else if let Some(wanted) = key.strip_prefix("v:") {
            let wanted: Value = serde_json::from_str(wanted).expect("a value is JSON");
            let found = live.as_array().and_then(|items| items.iter().position(|item| *item == wanted));
            let Some(index) = found else { continue };
            all.push(Owned { field: format!("{field}/{wanted}"), place: format!("{place}/{index}") });
        }
    }
}

/// What may be done to a field: taken away, or changed into something else that could be valid.
fn mutations(place: &str, value: &Value) -> Vec<Value> {
    let mut all = vec![json!([{"op": "remove", "path": place}])];
    // These make sense together with others only.
    match (place, value.as_str()) {
        ("/spec/type", Some("LoadBalancer")) => all.push(json!([
            {"op": "replace", "path": place, "value": "NodePort"},
            {"op": "remove", "path": "/spec/loadBalancerSourceRanges"},
        ])),
        ("/spec/type", _) => all.push(json!([{"op": "replace", "path": place, "value": "ExternalName"}, {"op": "add", "path": "/spec/externalName", "value": "example.com"}])),
        ("/spec/strategy/type", _) => all.push(json!([
            {"op": "replace", "path": place, "value": "Recreate"}, {"op": "remove", "path": "/spec/strategy/rollingUpdate"},
        ])),
        _ => {}
    }
    let others = match value {
        Value::Bool(is) => vec![json!(!is)],
        Value::Number(n) => {
            vec![json!(n.as_i64().unwrap_or_default() + 1), json!(n.as_i64().unwrap_or_default() - 1)]
        }
        Value::String(text) => {
            let words = [
                "mutated",
                "/mutated",
                "20m",
                "30Mi",
                "7%",
                "10.9.0.0/16",
                "Percent",
                "Pods",
                "Max",
                "Disabled",
                "UDP",
                "SCTP",
                "ClientIP",
                "None",
                "Cluster",
                "Local",
                "NodePort",
                "IfNotPresent",
                "Never",
                "Exists",
                "NoSchedule",
                "Recreate",
                "Always",
                "HTTPS",
                "ScheduleAnyway",
                "Memory",
                "metadata.namespace",
                "limits.cpu",
                "v1",
                "Deployment",
                "data",
                "scratch",
                "Unconfined",
            ];
            words.iter().filter(|word| *word != text).map(|word| json!(word)).collect()
        }
        Value::Array(items) => {
            let others = [&items[..items.len().saturating_sub(1)], &[&items[..], &items[..]].concat()];
            others.iter().map(|other| json!(other)).collect()
        }
        _ => vec![json!({"matchLabels": {"app": "mutated"}})],
    };
    all.extend(others.into_iter().map(|other| json!([{"op": "replace", "path": place, "value": other}])));
    all
}

/// What became of a field.
enum Fate {
    /// It was changed, and came back.
    Repaired(Duration),
    /// Nothing could be done to it.
    Fixed,
    /// It stayed changed.
    Stuck(String),
}

/// Changes a field in the first way that the API server lets through, and waits until it is back.
async fn disturb(
    api: &Api<DynamicObject>,
    kind: ChildKind,
    name: &str,
    owned: &Owned,
) -> Result<Fate, Failed> {
    if owned.field.contains("/ownerReferences/") && fixed(kind, &owned.field) {
        return Ok(Fate::Fixed);
    }
    let before = serde_json::to_value(api.get(name).await?)?;
    let right = before.pointer(&owned.place).cloned().unwrap_or_default();
    for ops in mutations(&owned.place, &right) {
        let Ok(tried) = json_patch(api, name, ops.clone(), true).await else { continue };
        if spec_of(&serde_json::to_value(tried)?) == spec_of(&before) {
            continue;
        }
        let start = Instant::now();
        json_patch(api, name, ops.clone(), false).await?;
        loop {
            let live =
                api.get_opt(name).await?.map(serde_json::to_value).transpose()?.unwrap_or(before.clone());
            // Under another key an item is another item, and that one is not ours.
            let back = if owned.is_key() {
                first_difference(&spec_of(&before), &live).is_none()
            } else {
                has(&live, &before)
            };
            if back {
                let after = start.elapsed();
                if owned.is_key() {
                    start_afresh(api, name).await?;
                }
                return Ok(Fate::Repaired(after));
            }
            if start.elapsed() > REPAIR {
                let rest = common::difference(&spec_of(&before), &spec_of(&live)).unwrap_or_default();
                start_afresh(api, name).await?;
                return Ok(Fate::Stuck(format!("{kind} {name} {}: {ops}; still{rest:.300}", owned.field)));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(Fate::Fixed)
}

/// So that one field that stays changed does not spoil the others' turn.
async fn start_afresh(api: &Api<DynamicObject>, name: &str) -> TestResult {
    let first = api.get(name).await?.uid();
    api.delete(name, &DeleteParams::default()).await?;
    wait::until(&format!("{name} again"), CHILDREN, async || match api.get(name).await {
        Ok(again) if again.uid() != first => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// What a repair must restore: everything but bookkeeping of the API server and the status.
fn spec_of(object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["managedFields", "resourceVersion", "generation"] {
        object["metadata"].as_object_mut().expect("metadata").remove(field);
    }
    object.as_object_mut().expect("an object").remove("status");
    object
}

/// Whether an object is what it was. Another type of Service hands out ports that then stay.
fn has(live: &Value, before: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = spec_of(object);
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("healthCheckNodePort");
            for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                port.as_object_mut().expect("a port").remove("nodePort");
            }
        }
        object
    };
    plain(live) == plain(before)
}

/// Entries of our manager in the managedFields, by operation.
fn operations(object: &DynamicObject) -> Vec<&str> {
    let ours = object.managed_fields().iter().filter(|f| f.manager.as_deref() == Some(names::MANAGER));
    ours.filter_map(|f| f.operation.as_deref()).collect()
}

/// A child is made by POST, and with its first change its fields become those of an apply.
async fn once_applied(api: &Api<DynamicObject>, name: &str) -> Result<DynamicObject, Failed> {
    let label = json!([{"op": "remove", "path": "/metadata/labels/app.kubernetes.io~1component"}]);
    json_patch(api, name, label, false).await?;
    wait::until(&format!("{name} with its label and one entry of ours"), REPAIR, async || {
        let live = api.get(name).await.map_err(|e| e.to_string())?;
        if live.labels().contains_key(names::LABEL_COMPONENT) && operations(&live) == ["Apply"] {
            Ok(live)
        } else {
            Err(format!("{:?}", live.metadata))
        }
    })
    .await
}

async fn disturb_all(
    suite: &Suite,
    ns: &Namespace,
    (kind, name): common::Child,
    object: DynamicObject,
) -> Result<Vec<(String, Fate)>, Failed> {
    let api = common::api(&suite.client, &ns.name, kind);
    let mut all = Vec::new();
    let made_by = if kind == ChildKind::Deployment { "Apply" } else { "Update" };
    assert_eq!(operations(&object), [made_by], "{kind} {name}");
    let object = once_applied(&api, &name).await?;
    for owned in owned(&object) {
        let fate = disturb(&api, kind, &name, &owned).await?;
        let expected = fixed(kind, &owned.field);
        let fate = match fate {
            Fate::Fixed if !expected => {
                Fate::Stuck(format!("{kind} {name} {}: no way to change it was found", owned.field))
            }
            fate => fate,
        };
        all.push((format!("{kind} {}", owned.field), fate));
    }
    Ok(all)
}

pub async fn every_owned_field_comes_back(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("drift").await?;
    let mut spec: Value = serde_saphyr::from_str(FULL)?;
    // With the helper and the generated account, there is more to own.
    spec["rollout"]["drain"] = json!("Await");
    spec["server"].as_object_mut().expect("server").remove("serviceAccountName");
    spec["autoscaling"] = parse(NATIVE)["autoscaling"].clone();
    ns.fleet("weather", &spec.to_string()).await?;
    let children = common::wait_children(&ns, &suite.client, "weather", 7).await?;
    common::wait_observed(&ns, "weather").await?;
    let all = children.into_iter().map(|(child, object)| disturb_all(&suite, &ns, child, object));
    let fates: Vec<(String, Fate)> = try_join_all(all).await?.into_iter().flatten().collect();
    let stuck: Vec<&String> =
        fates.iter().filter_map(|(_, f)| if let Fate::Stuck(how) = f { Some(how) } else { None }).collect();
    let fixed: BTreeSet<&String> =
        fates.iter().filter_map(|(field, f)| matches!(f, Fate::Fixed).then_some(field)).collect();
    let mut times: Vec<Duration> = fates
        .iter()
        .filter_map(|(_, f)| if let Fate::Repaired(after) = f { Some(*after) } else { None })
        .collect();
    times.sort();
    let (n, median, longest) = (times.len(), times.get(times.len() / 2), times.last());
    eprintln!(
        "drift: {n} owned fields repaired, median {median:?}, longest {longest:?}; not to be changed: {fixed:?}"
    );
    assert!(stuck.is_empty(), "{} fields did not come back within {REPAIR:?}: {stuck:#?}", stuck.len());
    assert!(n > 150, "only {n} owned fields");
    Ok(())
}

/// Somebody took the owner away from every child. They are still our work, and nobody else's.
pub async fn stripped_owner_references_come_back(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("stripped").await?;
    let fleet = ns.fleet("weather", "{server: {image: a}, autoscaling: {}}").await?;
    let children = common::wait_children(&ns, &suite.client, "weather", 7).await?;
    common::wait_observed(&ns, "weather").await?;
    // Twice: as the POST left them, and after an apply.
    for round in 0..2 {
        for ((kind, name), first) in &children {
            let api = common::api(&suite.client, &ns.name, *kind);
            let strip = json!([{"op": "remove", "path": "/metadata/ownerReferences"}]);
            json_patch(&api, name, strip, false).await?;
            wait::until(&format!("the owner of {kind} {name}, round {round}"), REPAIR, async || {
                let live = api.get(name).await.map_err(|e| e.to_string())?;
                let owner = live.owner_references().first().map(|o| o.uid.clone());
                if live.uid() == first.uid() && owner == fleet.uid() {
                    Ok(())
                } else {
                    Err(format!("{:?}", live.metadata))
                }
            })
            .await?;
        }
    }
    ns.condition("weather", "Accepted", "True", "Accepted").await.map(drop)
}

pub async fn what_we_do_not_own_stays(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("unowned").await?;
    ns.fleet("weather", "{replicas: 2, server: {image: a}}").await?;
    let children = common::wait_children(&ns, &suite.client, "weather", 6).await?;
    common::wait_observed(&ns, "weather").await?;
    for (kind, name) in children.keys() {
        let api = common::api(&suite.client, &ns.name, *kind);
        let patch = json!({"metadata": {"annotations": {"example.com/note": "mine"}, "labels": {"example.com/team": "mine"}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    let deployments = common::api(&suite.client, &ns.name, ChildKind::Deployment);
    let injected = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {
        "containers": [{"name": "mesh", "image": "mesh"}, {"name": "server", "env": [{"name": "INJECTED", "value": "yes"}]}],
        "volumes": [{"name": "injected", "emptyDir": {}}],
    }}}});
    deployments.patch("weather", &PatchParams::apply("mesh").force(), &Patch::Apply(&injected)).await?;
    // A repair of something beside it must not take it along either.
    let api = common::api(&suite.client, &ns.name, ChildKind::Deployment);
    json_patch(
        &api,
        "weather",
        json!([{"op": "replace", "path": "/spec/template/spec/enableServiceLinks", "value": true}]),
        false,
    )
    .await?;
    wait::until("the repair", REPAIR, async || {
        let live = api.get("weather").await.map_err(|e| e.to_string())?;
        if live.data["spec"]["template"]["spec"]["enableServiceLinks"] == false {
            Ok(())
        } else {
            Err("not yet".into())
        }
    })
    .await?;
    wait::holds("what others added", Duration::from_secs(2), async || {
        for (kind, name) in children.keys() {
            let live =
                common::api(&suite.client, &ns.name, *kind).get(name).await.map_err(|e| e.to_string())?;
            if live.annotations().get("example.com/note").is_none()
                || live.labels().get("example.com/team").is_none()
            {
                return Err(format!("{kind} {name} lost its annotation or label"));
            }
        }
        let pod =
            deployments.get("weather").await.map_err(|e| e.to_string())?.data["spec"]["template"]["spec"]
                .clone();
        let text = pod.to_string();
        for part in ["\"mesh\"", "INJECTED", "\"injected\""] {
            if !text.contains(part) {
                return Err(format!("{part} is gone: {text}"));
            }
        }
        Ok(())
    })
    .await
}

/// As the HPA does it: through `/scale` of the fleet. Neither an edit of something else nor a repair resets it.
pub async fn a_scale_set_by_an_autoscaler_stays(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("scaled").await?;
    ns.fleet("weather", "{server: {image: a}, autoscaling: {}}").await?;
    common::wait_children(&ns, &suite.client, "weather", 7).await?;
    common::wait_observed(&ns, "weather").await?;
    let fleets: Api<mcp_fleet::api::v1alpha1::McpFleet> = ns.api();
    fleets
        .patch_scale("weather", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 6}})))
        .await?;
    let deployments = common::api(&suite.client, &ns.name, ChildKind::Deployment);
    let replicas = async || {
        Ok::<_, String>(
            deployments.get("weather").await.map_err(|e| e.to_string())?.data["spec"]["replicas"].clone(),
        )
    };
    let six = async || match replicas().await? {
        n if n == 6 => Ok(()),
        n => Err(n.to_string()),
    };
    wait::until("6 replicas", CHILDREN, six).await?;
    fleets
        .patch("weather", &PatchParams::default(), &Patch::Merge(json!({"spec": {"server": {"image": "b"}}})))
        .await?;
    common::wait_observed(&ns, "weather").await?;
    json_patch(
        &deployments,
        "weather",
        json!([{"op": "replace", "path": "/spec/replicas", "value": 1}]),
        false,
    )
    .await?;
    wait::until("6 replicas again", REPAIR, six).await?;
    wait::holds("6 replicas", Duration::from_secs(2), six).await
}

pub async fn a_deleted_child_returns(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("deleted").await?;
    ns.fleet("weather", "{server: {image: a}, autoscaling: {}}").await?;
    let children = common::wait_children(&ns, &suite.client, "weather", 7).await?;
    for ((kind, name), first) in children {
        let api = common::api(&suite.client, &ns.name, kind);
        api.delete(&name, &DeleteParams::default()).await?;
        wait::until(&format!("{kind} {name} again"), REPAIR, async || {
            let again = api.get(&name).await.map_err(|e| e.to_string())?;
            if again.uid() == first.uid() { Err("it is still the old one".into()) } else { Ok(()) }
        })
        .await?;
    }
    let services: Api<Service> = ns.api();
    assert_eq!(services.get("weather").await?.spec.and_then(|s| s.selector).map(|s| s.len()), Some(1));
    Ok(())
}
