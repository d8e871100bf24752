//! What this process knows of its own writes on fleets, so that a watch that lags behind never makes it
//! act on the past, or write the same again.

use std::{collections::HashMap, time::Duration};

use kube::{ResourceExt, api::ObjectMeta, core::DeserializeGuard};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    api::{
        names,
        v1alpha1::{McpFleet, McpFleetStatus},
    },
    domain::FleetKey,
};

/// A fleet as it is watched: one that cannot be read must not stop the watch of the others.
pub type WatchedFleet = DeserializeGuard<McpFleet>;

/// Own writes by fleet. As many entries as there are fleets.
#[derive(Default)]
pub struct States {
    by_fleet: Mutex<HashMap<FleetKey, State>>,
}

struct State {
    uid: String,
    generation: i64,
    resource_version: u64,
    status: McpFleetStatus,
    status_at: Option<Instant>,
}

impl States {
    /// Remembers the reply of a write; `status_at` where it was a write of the status.
    pub fn wrote(&self, key: &FleetKey, fleet: &McpFleet, status_at: Option<Instant>) {
        let mut states = self.by_fleet.lock();
        let before = states.remove(key).filter(|s| fleet.uid().as_deref() == Some(&s.uid));
        let state = State {
            uid: fleet.uid().unwrap_or_default(),
            generation: fleet.metadata.generation.unwrap_or_default(),
            resource_version: version(&fleet.metadata),
            status: fleet.status.clone().unwrap_or_default(),
            status_at: status_at.or_else(|| before.and_then(|s| s.status_at)),
        };
        states.insert(key.clone(), state);
    }

    /// Whether a watched object is not older, in its specification, than what we wrote or saw ourselves.
    pub fn is_current(&self, key: &FleetKey, meta: &ObjectMeta) -> bool {
        let states = self.by_fleet.lock();
        let same = states.get(key).filter(|s| meta.uid.as_deref() == Some(&s.uid));
        same.is_none_or(|s| meta.generation.unwrap_or_default() >= s.generation)
    }

    /// The newest status that we know of.
    pub fn status(&self, key: &FleetKey, fleet: &WatchedFleet) -> McpFleetStatus {
        use kube::Resource;
        let states = self.by_fleet.lock();
        let own = states.get(key).filter(|s| fleet.meta().uid.as_deref() == Some(&s.uid));
        match own.filter(|s| s.resource_version > version(fleet.meta())) {
            Some(own) => own.status.clone(),
            None => fleet.0.as_ref().ok().and_then(|f| f.status.clone()).unwrap_or_default(),
        }
    }

    /// Time since our last write of the status.
    pub fn since_status(&self, key: &FleetKey, now: Instant) -> Option<Duration> {
        let at = self.by_fleet.lock().get(key)?.status_at?;
        Some(now.saturating_duration_since(at))
    }

    /// Forgets a fleet that is gone.
    pub fn forget(&self, key: &FleetKey) {
        self.by_fleet.lock().remove(key);
    }
}

fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}

/// Who holds `spec.replicas`, other than through the scale subresource and our own seed: such a holder
/// resets the scale each time it applies its file.
pub fn replicas_holder(fleet: &McpFleet) -> Option<String> {
    let holds = |f: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        f.subresource.is_none()
            && f.manager.as_deref() != Some(names::MANAGER_SCALE)
            && f.fields_v1.as_ref().is_some_and(|v| v.0.pointer("/f:spec/f:replicas").is_some())
    };
    fleet
        .managed_fields()
        .iter()
        .find(holds)
        .map(|f| f.manager.clone().unwrap_or_else(|| "an unnamed client".into()))
}

/// Leaves of the managed fields what [`replicas_holder`] reads; the rest is half of an object's memory.
pub fn prune(fleet: &mut WatchedFleet) {
    use kube::Resource;
    let meta = fleet.meta_mut();
    if let Some(fields) = &mut meta.managed_fields {
        fields.retain(|f| f.fields_v1.as_ref().is_some_and(|v| v.0.pointer("/f:spec/f:replicas").is_some()));
        for entry in fields.iter_mut() {
            let only = serde_json::json!({"f:spec": {"f:replicas": {}}});
            entry.fields_v1 = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1(only));
        }
    }
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::test_support::fleet;

    fn held_by(manager: &str, subresource: Option<&str>) -> Option<String> {
        let mut fleet = fleet("{replicas: 2, server: {image: a}}");
        let entry = json!({"manager": manager, "operation": "Update", "subresource": subresource,
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}});
        fleet.metadata.managed_fields = Some(vec![serde_json::from_value(entry).expect("an entry")]);
        replicas_holder(&fleet)
    }

    #[test]
    fn only_who_writes_past_the_scale_subresource_holds_it() {
        assert_eq!(held_by("kube-controller-manager", Some("scale")), None);
        assert_eq!(held_by("kubectl", Some("scale")), None);
        assert_eq!(held_by("mcp-fleet-scale", None), None);
        assert_eq!(held_by("kubectl-client-side-apply", None).as_deref(), Some("kubectl-client-side-apply"));
    }

    #[test]
    fn an_older_object_is_told_from_a_new_one_of_the_same_name() {
        let (states, key) = (States::default(), FleetKey::new("tools", "weather"));
        let mut written = fleet("server: {image: a}");
        written.metadata.generation = Some(5);
        states.wrote(&key, &written, None);
        let mut meta = written.metadata.clone();
        assert!(states.is_current(&key, &meta));
        meta.generation = Some(4);
        assert!(!states.is_current(&key, &meta));
        meta.uid = Some("another".into());
        assert!(states.is_current(&key, &meta));
    }
}
