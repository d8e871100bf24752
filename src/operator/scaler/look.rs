//! One look at one fleet: what the caches, the ledger and `metrics.k8s.io` know → `decide` → what follows from it.
//! It neither waits nor writes.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::Value as Json;

use super::{
    Scaler,
    effective::{actuator, ahead, effective, write},
    entry::{Entry, Made},
    snapshot::{self, Parts},
    usage::UsageByFleet,
};
use crate::{
    autoscale::{
        board::{Published, Value},
        decide::decide,
        decision::{Decision, Reason},
        head_start::{HeadStart, beyond_tolerance, exported},
        metrics_api::ApiState,
        policy::Policy,
        snapshot::Snapshot,
        state::State,
        time::Now,
    },
    domain::FleetKey,
    operator::{
        cache::Cache,
        children::ChildKind,
        gateway::Install,
        observe::{Caches, LiveChild},
        scaling::EffectiveActuator,
        state::WatchedFleet,
    },
};

/// What is the same for all fleets of one tick.
pub struct Tick<'a> {
    /// What the watches have seen.
    pub caches: &'a Caches,
    /// The gateway of this cluster.
    pub gateway: Option<&'a Install>,
    /// How it stands with the metrics API.
    pub api: ApiState,
    /// What pods use.
    pub usage: Arc<UsageByFleet>,
    /// Gateways that should report.
    pub gateways: Option<usize>,
    /// This replica writes.
    pub leads: bool,
    /// When.
    pub now: Now,
}

/// What follows from a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follows {
    /// A pass is to be asked for.
    pub pass: bool,
    /// The scale is to be written.
    pub write: Option<Write>,
}

/// A write of the scale that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// UID of the fleet.
    pub uid: String,
    /// N as it was decided on.
    pub from: i32,
    /// What is written.
    pub to: i32,
    /// Version of the fleet that has N.
    pub version: u64,
}

impl Scaler {
    /// Looks at a fleet.
    pub fn look(&self, key: &FleetKey, object: &Arc<WatchedFleet>, tick: &Tick<'_>) -> Follows {
        let mut entries = self.entries.lock();
        let entry = match entries.get_mut(key) {
            Some(entry) => {
                entry.refresh(object, tick.gateway, tick.now);
                entry
            }
            None => {
                entries.entry(key.clone()).or_insert(Entry::new(Arc::clone(object), tick.gateway, tick.now))
            }
        };
        let follows = self.decide(key, entry, tick);
        match entry.made.as_ref().zip(entry.policy()) {
            Some((made, policy)) => self.board.set(key.clone(), published(made, policy)),
            None => self.board.remove(key),
        }
        follows
    }

    fn decide(&self, key: &FleetKey, entry: &mut Entry, tick: &Tick<'_>) -> Follows {
        let Some(((spec, version), uid)) = entry.replicas().zip(uid(entry)) else {
            return Follows::default();
        };
        let autoscalers = tick.caches.children(ChildKind::HorizontalPodAutoscaler);
        let others =
            autoscalers.with(key, |all| Autoscalers::of(all.into_iter().flat_map(|a| a.values()), key, &uid));
        let Some(scaling) = &entry.scaling else { return Follows::default() };
        let effective = effective(scaling, others.foreign, &tick.api);
        let replicas = HeadStart::replicas(entry.ahead(), spec);
        let failure = creation_failure(entry, key, replicas, tick.caches);
        if entry.policy().is_none() {
            entry.leaves_ahead();
        }
        let Some(policy) = entry.policy() else { return Follows::default() };
        let load = self.ledger.lock().load(&uid, &policy.windows, tick.gateways, tick.now);
        let age = load.as_ref().map(|load| load.age);
        let snapshot = tick.caches.pods.with(key, |pods| {
            let parts = Parts {
                replicas,
                pods,
                usage: tick.usage.get(key),
                load,
                actuator: actuator(effective),
                pause: entry.pause,
                failure: failure.as_ref().map(|(message, since)| (message.as_str(), *since)),
            };
            snapshot::build(parts, tick.now)
        });
        let Some((decision, mut state)) = contained(key, policy, &snapshot, entry, tick.now) else {
            return Follows::default();
        };
        let now = tick.now.mono;
        let serves = tick.api == ApiState::Serving && others.ours_stands;
        let follows = serves && !entry.is_unfollowed(now) && decision.reason != Reason::Paused;
        let ahead = ahead(effective, follows, spec, (replicas, decision.desired), policy.max);
        let exported = match effective {
            EffectiveActuator::Hpa => others.reads(policy, &decision, (spec, replicas), ahead),
            _ => decision.recommended,
        };
        if effective == EffectiveActuator::Hpa && others.coarse {
            // Where it is not what was decided, the HPA's write would be taken for somebody else's.
            state.wanted = exported.or(state.wanted);
        }
        let to = write(effective, others.ours_stands, spec, decision.desired);
        let write = to.filter(|_| tick.leads && entry.may_write(tick.now.mono));
        let write = write.map(|to| Write { uid, from: spec, to, version });
        entry.goes_ahead(ahead, spec, tick.leads, (serves && exported.is_some(), now));
        let ahead = HeadStart::standing(Some(ahead), spec);
        let made = Made { decision, effective, replicas, ahead, exported, at: tick.now, age };
        Follows { pass: entry.decided(made, state, tick.leads), write }
    }
}

/// `decide` must not panic. If it does, that fleet holds, and no other.
fn contained(
    key: &FleetKey,
    policy: &Policy,
    snapshot: &Snapshot,
    entry: &Entry,
    now: Now,
) -> Option<(Decision, State)> {
    let decided = catch_unwind(AssertUnwindSafe(|| decide(policy, snapshot, &entry.state, now)));
    if decided.is_err() {
        tracing::error!(fleet = %key, ?snapshot, "a decision panicked, and the fleet holds; this is a defect, please report it");
    }
    decided.ok()
}

fn uid(entry: &Entry) -> Option<String> {
    use kube::ResourceExt;
    entry.object.0.as_ref().ok()?.uid()
}

/// Autoscalers that stand beside us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Autoscalers {
    /// Somebody else's.
    foreign: bool,
    /// One that we generated, for this fleet or an earlier one of its name.
    ours_stands: bool,
    /// It takes small steps for noise.
    coarse: bool,
    /// It paces nothing on the way down.
    open: bool,
}

impl Autoscalers {
    /// The same as `observe` says.
    fn of<'a>(all: impl Iterator<Item = &'a LiveChild>, key: &FleetKey, uid: &str) -> Self {
        let mut found = Self::default();
        for child in all {
            let ours = child.owner_uid.as_deref() == Some(uid) || child.ownerless || child.owned_by_fleet;
            let targets = child.scale_target.as_ref().is_some_and(|(_, name)| *name == key.name);
            found.ours_stands |= ours;
            found.coarse |= ours && child.coarse;
            found.open |= ours && child.open;
            found.foreign |= !ours && targets;
        }
        found
    }

    /// What our HPA is to read.
    fn reads(
        self,
        policy: &Policy,
        decision: &Decision,
        (spec, n): (i32, i32),
        ahead: HeadStart,
    ) -> Option<i32> {
        let number = exported(policy.paces(self.open), decision, spec, ahead)?;
        let recommended = decision.recommended.filter(|_| self.coarse);
        Some(recommended.map_or(number, |recommended| beyond_tolerance(number, n, recommended)))
    }
}

/// What the Deployment says where it cannot make pods. Read only where pods are missing, and once for each version.
fn creation_failure(
    entry: &mut Entry,
    key: &FleetKey,
    replicas: i32,
    caches: &Caches,
) -> Option<(String, i64)> {
    let live =
        caches.pods.with(key, |pods| pods.into_iter().flatten().filter(|(_, p)| !p.terminating).count());
    if live as i32 >= replicas {
        return None;
    }
    let deployments: &Cache<LiveChild> = caches.children(ChildKind::Deployment);
    let newer = deployments.with(key, |all| {
        let deployment = all?.get(&key.name)?;
        let known =
            entry.failure.as_ref().is_some_and(|(version, _)| *version == deployment.resource_version);
        (!known).then(|| (deployment.resource_version, Arc::clone(&deployment.json)))
    });
    if let Some((version, json)) = newer {
        entry.failure = Some((version, replica_failure(&json)));
    }
    entry.failure.as_ref()?.1.clone()
}

/// The Deployment's condition `ReplicaFailure`: its message, and since when, in ms since the Unix epoch.
fn replica_failure(deployment: &str) -> Option<(String, i64)> {
    let deployment: Json = serde_json::from_str(deployment).ok()?;
    let conditions = deployment.pointer("/status/conditions")?.as_array()?;
    let failure = conditions.iter().find(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")?;
    let since: Timestamp = failure["lastTransitionTime"].as_str()?.parse().ok()?;
    Some((failure["message"].as_str().unwrap_or_default().to_owned(), since.as_millisecond()))
}

/// What the metrics API answers.
fn published(made: &Made, policy: &Policy) -> Published {
    let Some(desired) = made.exported.filter(|n| *n >= 0) else {
        let why = match made.decision.reason {
            Reason::MetricsUnavailable => "no gateway has reported on this fleet for too long",
            _ => "not enough has been seen yet",
        };
        return Published::Unknown(why.into());
    };
    let utilization = made.decision.utilization.filter(|u| u.is_finite()).unwrap_or_default();
    Published::Value(Value {
        desired,
        utilization,
        // What holds without samples, a pause or the fallback, is as old as the decision.
        sampled_at: made.at.wall.saturating_sub(made.age.unwrap_or_default()),
        window_seconds: u32::try_from(policy.windows.stable / 1000).unwrap_or_default(),
        max_age_seconds: u32::try_from(policy.windows.max_sample_age / 1000).unwrap_or_default(),
    })
}
