//! What the modules of this suite share: further clusters, a fleet's children as plain JSON, leases.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use libtest_mimic::Failed;
use mcp_fleet::{
    api::{
        conditions::{reasons, types},
        names,
    },
    operator::children::ChildKind,
};
use mcp_fleet_cluster::{Cluster, Tier};
use serde_json::{Value, json};

use crate::support::{
    Namespace, Suite,
    operator::{self, Operator},
    wait,
};

/// How long the children of a fleet may take on a busy machine.
pub const CHILDREN: Duration = Duration::from_secs(30);

/// A cluster without the shared operator: there an operator can be killed, and nobody mends after it.
pub fn quiet() -> Arc<Suite> {
    static QUIET: OnceLock<Arc<Suite>> = OnceLock::new();
    let start = || Suite::another(Cluster::builder(Tier::T1).name("t1-quiet"), true);
    Arc::clone(QUIET.get_or_init(|| start().expect("the quiet cluster starts")))
}

/// A cluster without CRD.
pub fn bare() -> Arc<Suite> {
    static BARE: OnceLock<Arc<Suite>> = OnceLock::new();
    let start = || Suite::another(Cluster::builder(Tier::T1).name("t1-bare"), false);
    Arc::clone(BARE.get_or_init(|| start().expect("the bare cluster starts")))
}

/// Settings of an operator for one namespace, with a lease of its own and the right to it.
pub fn own(suite: &Suite, namespace: &str) -> Result<operator::Builder, Failed> {
    allow_lease(suite, namespace)?;
    Ok(Operator::builder(namespace).namespace(namespace).lease(namespace))
}

/// The deployed rights name one lease; a test that must not meet others gets a lease of its own.
fn allow_lease(suite: &Suite, lease: &str) -> Result<(), Failed> {
    let meta = json!({"name": format!("lease-{lease}"), "namespace": operator::NAMESPACE});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta,
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [lease], "verbs": ["get", "update", "patch"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": meta["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": operator::SERVICE_ACCOUNT, "namespace": operator::NAMESPACE}],
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [role, binding]});
    Ok(suite.cluster.apply(&list.to_string())?)
}

/// Objects of a generated kind in a namespace.
pub fn api(client: &Client, namespace: &str, kind: ChildKind) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &kind.api_resource())
}

/// Kind and name: what tells a fleet's children apart.
pub type Child = (ChildKind, String);

/// All generated objects of a namespace by fleet, from one list for each kind.
pub async fn children(
    client: &Client,
    namespace: &str,
) -> Result<BTreeMap<String, BTreeMap<Child, DynamicObject>>, Failed> {
    let mut all: BTreeMap<String, BTreeMap<Child, DynamicObject>> = BTreeMap::new();
    let ours = ListParams::default().labels(&format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY));
    for kind in ChildKind::ALL {
        for object in api(client, namespace, kind).list(&ours).await? {
            let fleet = object.labels().get(names::LABEL_FLEET).cloned().unwrap_or_default();
            all.entry(fleet).or_default().insert((kind, object.name_any()), object);
        }
    }
    Ok(all)
}

/// Waits until a fleet has this many children.
pub async fn wait_children(
    ns: &Namespace,
    client: &Client,
    fleet: &str,
    n: usize,
) -> Result<BTreeMap<Child, DynamicObject>, Failed> {
    wait::until(&format!("{n} children of {fleet}"), CHILDREN, async || {
        let mut all = children(client, &ns.name).await.map_err(|e| format!("{e:?}"))?;
        let found = all.remove(fleet).unwrap_or_default();
        if found.len() == n { Ok(found) } else { Err(format!("{:?}", found.keys())) }
    })
    .await
}

/// Waits until the status speaks of the present generation, and of a Deployment.
pub async fn wait_observed(ns: &Namespace, fleet: &str) -> Result<(), Failed> {
    wait::until(&format!("the status of {fleet}"), CHILDREN, async || {
        let fleet = ns.get(fleet).await.map_err(|e| format!("{e:?}"))?;
        let seen = fleet.status.as_ref().and_then(|s| s.observed_generation);
        // A new fleet may wait for others that are new, and says so.
        let conditions = fleet.status.iter().flat_map(|s| &s.conditions);
        let waits = conditions.filter(|c| c.type_ == types::READY).any(|c| c.reason == reasons::PENDING);
        if seen == fleet.metadata.generation && !waits {
            Ok(())
        } else {
            Err(format!("{seen:?} of {:?}, waits: {waits}", fleet.metadata.generation))
        }
    })
    .await
}

/// A child without what two fleets, or two lives of one, never have in common: identity, time, and what the
/// API server hands out. Names of the fleet become `FLEET`.
pub fn comparable(object: &DynamicObject, fleet: &str) -> Value {
    let mut value = serde_json::to_value(object).expect("an object is JSON");
    let meta = value["metadata"].as_object_mut().expect("metadata");
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "namespace"] {
        meta.remove(field);
    }
    if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
        // Hashes of what also stands there in full.
        annotations.remove(names::ANNOTATION_APPLIED_HASH);
        annotations.remove(names::ANNOTATION_POD_TEMPLATE_INPUTS);
        if let Some(text) = annotations.get(names::ANNOTATION_POD_TEMPLATE).and_then(Value::as_str) {
            let template: Value = serde_json::from_str(text).expect("the kept template is JSON");
            annotations.insert(names::ANNOTATION_POD_TEMPLATE.into(), template);
        }
    }
    for owner in meta.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten() {
        owner.as_object_mut().expect("an owner").remove("uid");
    }
    let whole = value.as_object_mut().expect("an object");
    whole.remove("status");
    if let Some(spec) = whole.get_mut("spec").and_then(Value::as_object_mut)
        && spec.get("clusterIP").is_some_and(|ip| ip != "None")
    {
        for field in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            spec.remove(field);
        }
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.as_object_mut().expect("a port").remove("nodePort");
        }
    }
    rename(&mut value, fleet);
    value
}

fn rename(value: &mut Value, fleet: &str) {
    match value {
        Value::String(text) => {
            for suffix in ["", "-headless"] {
                for prefix in ["", "mcp-"] {
                    if *text == format!("{prefix}{fleet}{suffix}") {
                        *text = format!("{prefix}FLEET{suffix}");
                    }
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, fleet)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, fleet)),
        _ => {}
    }
}

/// All children of a fleet in comparable form, by name with the fleet's replaced.
pub fn comparable_children(
    children: &BTreeMap<Child, DynamicObject>,
    fleet: &str,
) -> BTreeMap<String, Value> {
    children
        .iter()
        .map(|((kind, name), object)| {
            (format!("{kind} {}", name.replace(fleet, "FLEET")), comparable(object, fleet))
        })
        .collect()
}

/// The first place in which two values differ.
pub fn difference(a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => x.keys().chain(y.keys()).find_map(|key| {
            let null = Value::Null;
            difference(x.get(key).unwrap_or(&null), y.get(key).unwrap_or(&null))
                .map(|rest| format!(".{key}{rest}"))
        }),
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => x
            .iter()
            .zip(y)
            .enumerate()
            .find_map(|(i, (x, y))| difference(x, y).map(|rest| format!("[{i}]{rest}"))),
        _ => (a != b).then(|| format!(": {a} is not {b}")),
    }
}

/// A JSON patch as somebody else.
pub async fn json_patch(
    api: &Api<DynamicObject>,
    name: &str,
    ops: Value,
    dry_run: bool,
) -> Result<DynamicObject, kube::Error> {
    let ops = serde_json::from_value(ops).expect("a JSON patch");
    let params =
        PatchParams { dry_run, field_manager: Some("somebody-else".into()), ..PatchParams::default() };
    api.patch(name, &params, &Patch::<()>::Json(ops)).await
}

/// Waits until a fleet has this many children, not counting one place.
pub async fn wait_children_besides(
    ns: &Namespace,
    client: &Client,
    fleet: &str,
    besides: Child,
    n: usize,
) -> Result<(), Failed> {
    wait::until(&format!("{n} other children of {fleet}"), CHILDREN, async || {
        let mut all = children(client, &ns.name).await.map_err(|e| format!("{e:?}"))?;
        let mut found = all.remove(fleet).unwrap_or_default();
        found.remove(&besides);
        if found.len() == n { Ok(()) } else { Err(format!("{:?}", found.keys())) }
    })
    .await
}

/// How many writes of the operator's account the audit log has since a mark, on objects of a namespace.
pub fn writes_since(
    suite: &Suite,
    mark: mcp_fleet_cluster::audit::Mark,
    namespace: &str,
) -> Result<mcp_fleet_cluster::audit::Entries, Failed> {
    let entries = suite.cluster.audit_log().since(mark)?.by(operator::USER).writes();
    Ok(entries
        .filter(|e| e.object.as_ref().is_some_and(|o| o.namespace == namespace && o.resource != "events")))
}

/// The generated objects of one fleet.
pub async fn children_of(
    client: &Client,
    namespace: &str,
    fleet: &str,
) -> Result<BTreeMap<Child, DynamicObject>, String> {
    let mut found = BTreeMap::new();
    let its = ListParams::default().labels(&format!("{}={fleet}", names::LABEL_FLEET));
    for kind in ChildKind::ALL {
        for object in api(client, namespace, kind).list(&its).await.map_err(|e| e.to_string())? {
            found.insert((kind, object.name_any()), object);
        }
    }
    Ok(found)
}
