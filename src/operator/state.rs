//! What this process knows of its own writes on fleets, so that a watch that lags behind never makes it
//! act on the past, or write the same again.

use std::{collections::HashMap, time::Duration};

use kube::{ResourceExt, api::ObjectMeta, core::DeserializeGuard};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::status::{Change, timeless};
use crate::{
    api::{
        names,
        v1alpha1::{McpFleet, McpFleetStatus},
    },
    domain::FleetKey,
};

/// A fleet as it is watched: one that cannot be read must not stop the watch of the others.
pub type WatchedFleet = DeserializeGuard<McpFleet>;

/// A change of the status that is not urgent is written once it rests, so that several that follow each other
/// make one write: how long it rests, and how long it waits at most where it never does.
fn rest(change: Change) -> Option<(Duration, Duration)> {
    let seconds = |rest, longest| Some((Duration::from_secs(rest), Duration::from_secs(longest)));
    match change {
        Change::None | Change::Urgent => None,
        // Longer than the moments between two conditions of an autoscaler, or a pod and its endpoint.
        Change::Condition | Change::Decision => seconds(1, 15),
        // It never rests, and a person who looks at it wants no finer picture.
        Change::Load => seconds(15, 15),
        // Pods come and go at this pace, and the old pods of most servers are gone by then.
        Change::Wording => seconds(5, 30),
        // The whole of most rollouts, also where hundreds of fleets get a new image at once and each waits for its
        // pods. One in which nothing has moved for a minute tells how far it is.
        Change::Rolling => seconds(60, 120),
    }
}

/// A decision may change each second for long; so far apart are the writes that it makes.
const DECISIONS_APART: Duration = Duration::from_secs(15);

/// Own writes by fleet. As many entries as there are fleets.
#[derive(Default)]
pub struct States {
    by_fleet: Mutex<HashMap<FleetKey, State>>,
    deferred: Mutex<HashMap<FleetKey, Deferred>>,
}

/// A status that is not written yet.
struct Deferred {
    status: McpFleetStatus,
    /// The most urgent of the changes, and since when it waits.
    change: Change,
    first_at: Instant,
    changed_at: Instant,
}

struct State {
    uid: String,
    generation: i64,
    resource_version: u64,
    status: McpFleetStatus,
    written_at: Instant,
}

impl States {
    /// Remembers the reply of a write.
    pub fn wrote(&self, key: &FleetKey, fleet: &McpFleet) {
        let state = State {
            uid: fleet.uid().unwrap_or_default(),
            generation: fleet.metadata.generation.unwrap_or_default(),
            resource_version: version(&fleet.metadata),
            status: fleet.status.clone().unwrap_or_default(),
            written_at: Instant::now(),
        };
        self.by_fleet.lock().insert(key.clone(), state);
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

    /// How long a status that differs by `change` from what is written has to wait for more; `None`: write it
    /// now, or there is nothing to write.
    pub fn defer(
        &self,
        key: &FleetKey,
        change: Change,
        new: &McpFleetStatus,
        now: Instant,
    ) -> Option<Duration> {
        let mut all = self.deferred.lock();
        let Some((rest, _)) = rest(change) else {
            all.remove(key);
            return None;
        };
        let status = timeless(new);
        let deferred = all.entry(key.clone()).or_insert_with(|| Deferred {
            status: status.clone(),
            change,
            first_at: now,
            changed_at: now,
        });
        if deferred.status != status {
            deferred.status = status;
            deferred.changed_at = now;
        }
        if deferred.change < change {
            deferred.change = change;
            deferred.first_at = now;
        }
        let longest = self::rest(deferred.change).map_or(rest, |(_, longest)| longest);
        let mut due = (deferred.changed_at + rest).min(deferred.first_at + longest);
        if deferred.change == Change::Decision {
            let written = self.by_fleet.lock().get(key).map(|s| s.written_at + DECISIONS_APART);
            due = written.map_or(due, |apart| due.max(apart));
        }
        let wait = due.checked_duration_since(now).filter(|wait| !wait.is_zero());
        if wait.is_none() {
            all.remove(key);
        }
        wait
    }

    /// Forgets a fleet that is gone.
    pub fn forget(&self, key: &FleetKey) {
        self.by_fleet.lock().remove(key);
        self.deferred.lock().remove(key);
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
        states.wrote(&key, &written);
        let mut meta = written.metadata.clone();
        assert!(states.is_current(&key, &meta));
        meta.generation = Some(4);
        assert!(!states.is_current(&key, &meta));
        meta.uid = Some("another".into());
        assert!(states.is_current(&key, &meta));
    }

    #[test]
    fn what_is_not_urgent_waits_until_it_rests_or_for_so_long_at_most() {
        let (states, key, start) = (States::default(), FleetKey::new("tools", "weather"), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let with = |updated_replicas| McpFleetStatus { updated_replicas, ..McpFleetStatus::default() };
        let wait = |change, updated, seconds| {
            states.defer(&key, change, &with(updated), at(seconds)).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(Change::Urgent, 0, 0), None);
        assert_eq!(wait(Change::Wording, 1, 0), Some(5));
        assert_eq!(wait(Change::Wording, 1, 3), Some(2), "the same again does not prolong it");
        assert_eq!(wait(Change::Wording, 2, 4), Some(5));
        assert_eq!(wait(Change::Condition, 3, 5), Some(1), "the state of a condition waits less");
        assert_eq!(wait(Change::Condition, 3, 6), None);
        for seconds in 10..40 {
            assert!(wait(Change::Wording, seconds as i32, seconds).is_some(), "{seconds}");
        }
        assert_eq!(wait(Change::Wording, 40, 40), None, "never longer than 30 s");
        assert_eq!(wait(Change::Wording, 1, 45), Some(5), "the next starts anew");
    }

    #[test]
    fn a_rollout_waits_for_its_end_and_the_end_for_the_last_old_pods() {
        let (states, key, start) = (States::default(), FleetKey::new("tools", "weather"), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let with = |updated_replicas| McpFleetStatus { updated_replicas, ..McpFleetStatus::default() };
        let wait = |change, updated, seconds| {
            states.defer(&key, change, &with(updated), at(seconds)).map(|wait| wait.as_secs())
        };
        for seconds in 0..119 {
            assert!(wait(Change::Rolling, seconds as i32, seconds).is_some(), "{seconds}");
        }
        assert_eq!(wait(Change::Wording, 119, 119), Some(5), "its wait does not count that of the rollout");
        assert_eq!(wait(Change::Urgent, 120, 121), None, "the last one ended");
        for seconds in 130..250 {
            assert!(wait(Change::Rolling, seconds as i32, seconds).is_some(), "{seconds}");
        }
        assert_eq!(wait(Change::Rolling, 250, 250), None, "progress every two minutes");
        for seconds in 260..290 {
            assert!(wait(Change::Wording, seconds as i32, seconds).is_some(), "{seconds}");
        }
        assert_eq!(wait(Change::Wording, 290, 290), None, "never longer than 30 s");
    }

    #[tokio::test(start_paused = true)]
    async fn decisions_that_follow_each_other_are_written_at_most_every_15_seconds() {
        let (states, key) = (States::default(), FleetKey::new("tools", "weather"));
        let with = |updated_replicas| McpFleetStatus { updated_replicas, ..McpFleetStatus::default() };
        let fleet = fleet("server: {image: a}");
        let (start, mut written) = (Instant::now(), Vec::new());
        for second in 0..100_u64 {
            // A decision that goes to and fro each three seconds.
            let due = states.defer(&key, Change::Decision, &with((second / 3) as i32), Instant::now());
            if due.is_none() {
                states.wrote(&key, &fleet);
                written.push(start.elapsed().as_secs());
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(written.first(), Some(&1), "the first is told at once");
        assert!(written.windows(2).all(|w| w[1] - w[0] >= 15) && written.len() >= 5, "{written:?}");
        let wait = |change| states.defer(&key, change, &with(1), Instant::now()).map(|wait| wait.as_secs());
        assert_eq!(wait(Change::Urgent), None);
        assert_eq!(wait(Change::Load), Some(15), "load never rests");
    }
}
