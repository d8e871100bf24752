//! The first step of a reconcile: everything that the watches know of one fleet, as one value.
//! Reads caches only; a read from the API server is never part of it.

use std::{collections::HashMap, sync::Arc};

use kube::{ResourceExt, core::DynamicObject};
use serde_json::Value;

use super::{
    cache::{Cache, Entry, Meeting, ObjectKey},
    children::ChildKind,
    desired::{Facts, KeptTemplate},
    pods::PodFacts,
    scaling::EffectiveActuator,
};
use crate::{
    api::names,
    autoscale::behavior,
    domain::{FleetKey, FleetName},
};

/// A generated object, or one in its place, as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveChild {
    /// Kind.
    pub kind: ChildKind,
    /// Name.
    pub name: String,
    /// UID: names are not unique over time.
    pub uid: String,
    /// Version; comparable within a kind (KEP-5504).
    pub resource_version: u64,
    /// UID of the controlling owner.
    pub owner_uid: Option<String>,
    /// That owner is an `McpFleet`.
    pub owned_by_fleet: bool,
    /// Nothing controls it, and it is our own work: our labels, a name that we give, and our manager's entry in
    /// its managedFields. Somebody took the owner reference away, or deleted the fleet and kept its children.
    pub ownerless: bool,
    /// Its fields are ours by the POST that created it, and not yet by an apply (`apply.rs`).
    pub posted: bool,
    /// For autoscalers: kind and name of what they scale.
    pub scale_target: Option<(String, String)>,
    /// For autoscalers: the server has dropped `tolerance`, so that a step of a tenth or less is taken for noise.
    pub coarse: bool,
    /// For autoscalers: it paces nothing on the way down.
    pub open: bool,
    /// Somebody else than we owns `spec.replicas`.
    pub replicas_owned_by_other: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// The object without managedFields and resourceVersion, and without the status where it means nothing to
    /// us. Text, because it takes a fraction of the memory of a tree.
    pub json: Arc<str>,
}

impl LiveChild {
    /// From a watched or returned object. `None` where it is nothing of ours.
    pub fn entry(kind: ChildKind, mut object: DynamicObject) -> Option<Entry<Self>> {
        let namespace = object.namespace()?;
        let name = object.name_any();
        let scale_target =
            (kind == ChildKind::HorizontalPodAutoscaler).then(|| scale_target(&object.data)).flatten();
        let labels = object.labels();
        let ours = labels.get(names::LABEL_MANAGED_BY).is_some_and(|v| v == names::MANAGED_BY);
        let fleet = match (labels.get(names::LABEL_FLEET), &scale_target) {
            (Some(fleet), _) if ours => fleet.clone(),
            (_, Some((target, name))) if target == names::KIND || target == "Deployment" => name.clone(),
            _ => return None,
        };
        let replicas_owned_by_other = object.managed_fields().iter().any(|f| {
            f.manager.as_deref() != Some(names::MANAGER)
                && f.fields_v1.as_ref().is_some_and(|v| v.0.pointer("/f:spec/f:replicas").is_some())
        });
        let (applied, posted) =
            (own_entry(&object, "Apply").is_some(), own_entry(&object, "Update").is_some());
        object.metadata.managed_fields = None;
        let resource_version = object.metadata.resource_version.take().and_then(|v| v.parse().ok());
        if !kind.keeps_status()
            && let Value::Object(data) = &mut object.data
        {
            data.remove("status");
        }
        let owner = object.owner_references().iter().find(|o| o.controller == Some(true)).cloned();
        let child = Self {
            kind,
            name: name.clone(),
            uid: object.uid().unwrap_or_default(),
            resource_version: resource_version.unwrap_or_default(),
            owned_by_fleet: owner.as_ref().is_some_and(|o| o.kind == names::KIND),
            ownerless: owner.is_none()
                && ours
                && (applied || posted)
                && FleetName::parse(&fleet).is_ok_and(|fleet| kind.is_name_of(&fleet, &name)),
            posted: posted && !applied,
            owner_uid: owner.map(|o| o.uid),
            coarse: kind == ChildKind::HorizontalPodAutoscaler && is_coarse(&object.data),
            open: kind == ChildKind::HorizontalPodAutoscaler && is_open(&object.data),
            scale_target,
            replicas_owned_by_other,
            terminating: object.metadata.deletion_timestamp.is_some(),
            json: serde_json::to_string(&object).unwrap_or_default().into(),
        };
        Some(Entry { key: (namespace.clone(), name), fleet: FleetKey::new(namespace, fleet), value: child })
    }

    /// The object as a tree.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.json).unwrap_or_default()
    }

    /// A cached copy gives way only to one that is not older: a watch may lag behind our own write. Where only
    /// the version differs (a status that we do not keep, another manager's bookkeeping) nothing is new.
    pub fn meet(&self, new: &Self) -> Meeting {
        if self.uid != new.uid {
            return Meeting::News;
        }
        if new.resource_version < self.resource_version {
            return Meeting::Older;
        }
        let same = Self { resource_version: self.resource_version, ..new.clone() };
        if same == *self { Meeting::Same } else { Meeting::News }
    }
}

/// The index of our manager's entry for an operation in the managedFields: an object that has one was written
/// by us, whoever may own it now.
pub fn own_entry(object: &DynamicObject, operation: &str) -> Option<usize> {
    object.managed_fields().iter().position(|f| {
        f.manager.as_deref() == Some(names::MANAGER)
            && f.operation.as_deref() == Some(operation)
            && f.subresource.as_deref().unwrap_or_default().is_empty()
    })
}

/// Whether a direction of an autoscaler is without a tolerance of its own.
fn is_coarse(data: &Value) -> bool {
    ["scaleUp", "scaleDown"].iter().any(|d| data["spec"]["behavior"][d]["tolerance"].is_null())
}

/// As [`Rules::is_open`], of the live object.
///
/// [`Rules::is_open`]: crate::autoscale::behavior::Rules::is_open
fn is_open(data: &Value) -> bool {
    let down = &data["spec"]["behavior"]["scaleDown"];
    let window = down["stabilizationWindowSeconds"].as_i64();
    let all =
        |p: &Value| p["type"] == "Pods" && p["value"].as_i64().is_some_and(|n| n >= i64::from(behavior::ALL));
    window.is_some_and(|seconds| seconds * 1000 <= behavior::COARSE_WINDOW)
        && down["selectPolicy"] == "Max"
        && down["policies"].as_array().is_some_and(|policies| policies.iter().any(all))
}

fn scale_target(data: &Value) -> Option<(String, String)> {
    let target = data.pointer("/spec/scaleTargetRef")?;
    Some((target.get("kind")?.as_str()?.to_owned(), target.get("name")?.as_str()?.to_owned()))
}

/// A volume that could not be mounted shows in an event alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFailure {
    /// Name of the pod.
    pub pod: String,
    /// What the kubelet said.
    pub message: String,
}

/// Everything that the watches have seen, by fleet.
pub struct Caches {
    children: HashMap<ChildKind, Cache<LiveChild>>,
    /// Pods of fleets.
    pub pods: Cache<PodFacts>,
    /// Ready endpoints by slice of the headless Services.
    pub endpoints: Cache<i32>,
    /// Volumes that could not be mounted.
    pub mount_failures: Cache<MountFailure>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            children: ChildKind::ALL
                .into_iter()
                .map(|kind| (kind, Cache::guarded(LiveChild::meet, |child| child.resource_version)))
                .collect(),
            pods: Cache::guarded(PodFacts::meet, |_| 0),
            endpoints: Cache::default(),
            mount_failures: Cache::default(),
        }
    }
}

impl Caches {
    /// The cache of a generated kind.
    ///
    /// # Panics
    /// Never: each kind has one from the start.
    pub fn children(&self, kind: ChildKind) -> &Cache<LiveChild> {
        self.children.get(&kind).expect("every kind has a cache")
    }

    /// Names of the caches whose first list is not complete.
    pub fn unsynced(&self) -> Vec<&'static str> {
        let others = [
            ("Pod", self.pods.is_synced()),
            ("EndpointSlice", self.endpoints.is_synced()),
            ("Event", self.mount_failures.is_synced()),
        ];
        let children =
            ChildKind::ALL.into_iter().map(|kind| (kind.as_str(), self.children(kind).is_synced()));
        children.chain(others).filter(|(_, synced)| !synced).map(|(name, _)| name).collect()
    }
}

/// Somebody else's autoscaler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignAutoscaler {
    /// Its name.
    pub name: String,
    /// It targets our Deployment, not the fleet.
    pub on_deployment: bool,
}

/// All that is known of one fleet.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Objects that this very fleet owns, and those of ours that nobody owns: the next apply gives them an owner.
    pub children: Vec<LiveChild>,
    /// Objects with our labels that something else owns, such as an earlier fleet of the same name: its
    /// autoscaler, too, is in the way until it is collected, and no user's.
    pub owned_by_other: Vec<LiveChild>,
    /// Somebody else's autoscaler.
    pub foreign_autoscaler: Option<ForeignAutoscaler>,
    /// Its pods.
    pub pods: Vec<PodFacts>,
    /// Endpoints that serve.
    pub ready_endpoints: i32,
    /// Volumes that could not be mounted.
    pub mount_failures: Vec<MountFailure>,
}

impl Observed {
    /// The owned child of a kind and name.
    pub fn child(&self, kind: ChildKind, name: &str) -> Option<&LiveChild> {
        self.children.iter().find(|c| c.kind == kind && c.name == name)
    }

    /// The facts that decide what is wanted.
    pub fn facts(&self, name: &FleetName) -> Facts {
        let deployment = self.child(ChildKind::Deployment, name.as_str());
        let value = deployment.map(LiveChild::value).unwrap_or_default();
        let annotation =
            |key: &str| value.pointer("/metadata/annotations")?.get(key)?.as_str().map(str::to_owned);
        let kept_template = annotation(names::ANNOTATION_POD_TEMPLATE)
            .zip(annotation(names::ANNOTATION_POD_TEMPLATE_INPUTS))
            .map(|(template, inputs)| KeptTemplate { template, inputs });
        let replicas = value.pointer("/spec/replicas").and_then(Value::as_i64).map(|n| n as i32);
        let foreign = self.foreign_autoscaler.as_ref();
        Facts {
            kept_template,
            deployment_replicas: replicas,
            foreign_autoscaler: foreign.is_some_and(|f| !f.on_deployment),
            deployment_taken: foreign.is_some_and(|f| f.on_deployment),
            deployment_replicas_handed_over: deployment.is_some_and(|d| d.replicas_owned_by_other),
            // Who acts, and what on, is not seen on children; the pass fills it in.
            effective: EffectiveActuator::default(),
            ahead: None,
            coarse_hpa: self
                .child(ChildKind::HorizontalPodAutoscaler, name.as_str())
                .is_some_and(|h| h.coarse),
        }
    }
}

/// Gathers what is known of a fleet.
pub fn observe(caches: &Caches, fleet: &FleetKey, uid: &str) -> Observed {
    let mut observed = Observed {
        pods: caches.pods.of(fleet).into_values().collect(),
        ready_endpoints: caches.endpoints.of(fleet).into_values().sum(),
        mount_failures: caches.mount_failures.of(fleet).into_values().collect(),
        ..Observed::default()
    };
    for kind in ChildKind::ALL {
        for child in caches.children(kind).of(fleet).into_values() {
            if child.owner_uid.as_deref() == Some(uid) || child.ownerless {
                observed.children.push(child);
            } else if let Some((target, _)) =
                child.scale_target.as_ref().filter(|(_, name)| *name == fleet.name && !child.owned_by_fleet)
            {
                // The first by name, so that the message does not change from pass to pass.
                let on_deployment = target == "Deployment";
                let found = ForeignAutoscaler { name: child.name.clone(), on_deployment };
                observed.foreign_autoscaler.get_or_insert(found);
            } else {
                observed.owned_by_other.push(child);
            }
        }
    }
    observed
}

/// Key and resourceVersion of a watched object.
pub fn object_id<K: kube::Resource>(object: &K) -> (ObjectKey, u64) {
    let version = object.meta().resource_version.as_deref().and_then(|v| v.parse().ok());
    (object_key(object), version.unwrap_or_default())
}

/// Key of a watched object.
pub fn object_key<K: kube::Resource>(object: &K) -> ObjectKey {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn autoscaler(owner_kind: &str) -> DynamicObject {
        let object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "weather", "namespace": "tools", "uid": "u", "resourceVersion": "7",
                "labels": {names::LABEL_MANAGED_BY: names::MANAGED_BY, names::LABEL_FLEET: "weather"},
                "ownerReferences": [{"apiVersion": "v1", "kind": owner_kind, "name": "weather", "uid": "of-another",
                    "controller": true}]},
            "spec": {"scaleTargetRef": {"kind": "McpFleet", "name": "weather"}},
        });
        serde_json::from_value(object).expect("an autoscaler")
    }

    #[test]
    fn the_autoscaler_of_an_earlier_fleet_is_no_users() {
        for (owner, is_foreign) in [("McpFleet", false), ("ScaledObject", true)] {
            let caches = Caches::default();
            let kind = ChildKind::HorizontalPodAutoscaler;
            caches.children(kind).wrote(LiveChild::entry(kind, autoscaler(owner)).expect("an entry"));
            let observed = observe(&caches, &FleetKey::new("tools", "weather"), "of-this");
            assert_eq!(observed.foreign_autoscaler.is_some(), is_foreign, "{owner}");
            assert_eq!(observed.owned_by_other.len(), usize::from(!is_foreign), "{owner}");
        }
    }

    fn service(change: impl Fn(&mut Value)) -> LiveChild {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "weather-headless", "namespace": "tools", "uid": "u", "resourceVersion": "7",
                "labels": {names::LABEL_MANAGED_BY: names::MANAGED_BY, names::LABEL_FLEET: "weather"},
                "managedFields": [{"manager": names::MANAGER, "operation": "Update"}]},
        });
        change(&mut object);
        let object = serde_json::from_value(object).expect("a Service");
        LiveChild::entry(ChildKind::Service, object).expect("an entry").value
    }

    #[test]
    fn what_we_made_and_nobody_owns_is_ours() {
        assert!(service(|_| {}).ownerless);
        let cases: [fn(&mut Value); 5] = [
            |o| o["metadata"]["managedFields"][0]["manager"] = json!("kubectl"),
            |o| o["metadata"]["managedFields"][0]["subresource"] = json!("status"),
            |o| o["metadata"]["managedFields"] = json!(null),
            |o| o["metadata"]["name"] = json!("another"),
            |o| {
                o["metadata"]["ownerReferences"] =
                    json!([{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "a", "controller": true}]);
            },
        ];
        for (i, change) in cases.into_iter().enumerate() {
            assert!(!service(change).ownerless, "case {i}");
        }
        let caches = Caches::default();
        let entry = |value: LiveChild| Entry {
            key: ("tools".into(), value.name.clone()),
            fleet: FleetKey::new("tools", "weather"),
            value,
        };
        caches.children(ChildKind::Service).wrote(entry(service(|_| {})));
        let observed = observe(&caches, &FleetKey::new("tools", "weather"), "of-this");
        assert_eq!((observed.children.len(), observed.owned_by_other.len()), (1, 0));
    }

    #[test]
    fn a_post_is_told_from_an_apply() {
        assert!(service(|_| {}).posted);
        assert!(!service(|o| o["metadata"]["managedFields"][0]["operation"] = json!("Apply")).posted);
    }
}
