//! Desired + observed → an ordered list of effects. Pure: the plan is a value that can be counted,
//! printed, and cut at any point; the next reconcile goes on from whatever state that leaves.

use serde_json::Value;

use super::{
    children::ChildKind,
    compare::first_difference,
    desired::Desired,
    hash::digest,
    observe::{LiveChild, Observed},
    validate::ValidatedFleet,
};
use crate::api::{conditions::reasons, names};

/// One step: a write, or a place to stop.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Let other new fleets come first: what follows keeps the API server busy. Not a write.
    MakeWay,
    /// Give `spec.replicas` of the fleet its first value, for the scale subresource to work.
    SeedReplicas(i32),
    /// Create a child that must not exist yet.
    Create(Desired),
    /// Apply a child over the object with this UID.
    Apply {
        /// What it should be.
        desired: Desired,
        /// The object that is meant.
        uid: String,
        /// Which field made it necessary.
        because: Because,
    },
    /// Delete an object, if it still is this very one.
    Delete {
        /// Its kind.
        kind: ChildKind,
        /// Its name.
        name: String,
        /// The object that is meant.
        uid: String,
        /// The version on which the decision was taken.
        resource_version: u64,
        /// Why.
        because: Because,
    },
    /// Write the status, if it changed.
    WriteStatus,
}

/// Why a child is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// The specification asks for something else than before.
    SpecChanged,
    /// Somebody changed this field of the live object.
    Drift(String),
    /// The specification no longer asks for it.
    NoLongerWanted,
    /// This field cannot be changed in place, and nothing is lost by a new object.
    Immutable(String),
}

/// Something that stops a child from being written; it becomes a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// What a reconcile will do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Steps, in order.
    pub effects: Vec<Effect>,
    /// Children that cannot be written.
    pub blocked: Vec<Blocked>,
}

/// Computes the effects. `status_written`: the fleet's status carries the selector already.
pub fn plan(
    fleet: &ValidatedFleet,
    desired: Vec<Desired>,
    observed: &Observed,
    status_written: bool,
) -> Plan {
    let mut plan = Plan::default();
    for orphan in observed.children.iter().filter(|c| !c.terminating && !wants(&desired, c)) {
        plan.effects.push(delete(orphan, Because::NoLongerWanted));
    }
    let mut status_planned = false;
    for desired in desired {
        if desired.kind == ChildKind::Deployment {
            plan.before_workload(fleet, observed);
        }
        // An HPA that starts before status.selector is there says so in an event: InvalidSelector.
        if desired.kind == ChildKind::HorizontalPodAutoscaler && !status_written && !status_planned {
            plan.effects.push(Effect::WriteStatus);
            status_planned = true;
        }
        plan.child(desired, observed);
    }
    if !status_planned {
        plan.effects.push(Effect::WriteStatus);
    }
    plan
}

impl Plan {
    /// Writes other than the status.
    pub fn n_writes(&self) -> usize {
        self.effects.iter().filter(|e| !matches!(e, Effect::WriteStatus | Effect::MakeWay)).count()
    }

    fn before_workload(&mut self, fleet: &ValidatedFleet, observed: &Observed) {
        if fleet.replicas.is_none() {
            let deployment = observed.facts(&fleet.name).deployment_replicas;
            self.effects.push(Effect::SeedReplicas(fleet.seed(deployment)));
        }
        if observed.child(ChildKind::Deployment, fleet.name.as_str()).is_none() {
            self.effects.push(Effect::MakeWay);
        }
    }

    fn child(&mut self, desired: Desired, observed: &Observed) {
        let Desired { kind, name, object } = &desired;
        let Some(live) = observed.child(*kind, name) else {
            match observed.owned_by_other.iter().find(|c| c.kind == *kind && c.name == *name) {
                // What an earlier fleet of this name left is about to be collected.
                Some(other) => {
                    self.blocked.push(in_the_way(*kind, name, other.terminating || other.owned_by_fleet));
                }
                None => self.effects.push(Effect::Create(desired)),
            }
            return;
        };
        if live.terminating {
            // Its end is an event, and that brings the next reconcile.
            return;
        }
        let value = live.value();
        match classify(*kind, object, &value) {
            Change::Blocked(message) => {
                self.blocked.push(Blocked { reason: reasons::IMMUTABLE_FIELD, message });
            }
            Change::Recreate(field) => self.effects.push(delete(live, Because::Immutable(field))),
            Change::InPlace => {
                if let Some(because) = reason_to_apply(object, &value) {
                    self.effects.push(Effect::Apply { uid: live.uid.clone(), desired, because });
                }
            }
        }
    }
}

/// An object of that name that is not ours: it is never touched.
pub fn in_the_way(kind: ChildKind, name: &str, terminating: bool) -> Blocked {
    let advice = if terminating {
        "it is being deleted, and is replaced when it is gone"
    } else {
        "delete or rename it, or give the fleet another name"
    };
    Blocked {
        reason: reasons::CHILD_CONFLICT,
        message: format!("{kind} {name} exists and is not this fleet's: {advice}"),
    }
}

/// The hash that goes with an object as an annotation.
pub fn applied_hash(object: &Value) -> String {
    digest(object.to_string().as_bytes())
}

fn reason_to_apply(wanted: &Value, live: &Value) -> Option<Because> {
    let hash = live.pointer("/metadata/annotations").and_then(|a| a.get(names::ANNOTATION_APPLIED_HASH));
    if hash.and_then(Value::as_str) != Some(&applied_hash(wanted)) {
        return Some(Because::SpecChanged);
    }
    first_difference(wanted, live).map(Because::Drift)
}

enum Change {
    InPlace,
    Recreate(String),
    Blocked(String),
}

/// Decides before writing: nothing destructive is ever inferred from an error of the API server. Only a
/// Service that lost its kind of cluster IP is made anew, since its endpoints come back with it.
fn classify(kind: ChildKind, wanted: &Value, live: &Value) -> Change {
    let at = |value: &Value, path: &str| value.pointer(path).cloned().unwrap_or_default();
    match kind {
        ChildKind::Service => {
            let headless = |value: &Value| at(value, "/spec/clusterIP") == "None";
            if headless(wanted) != headless(live) {
                return Change::Recreate("spec.clusterIP".into());
            }
            let (class, live_class) =
                (at(wanted, "/spec/loadBalancerClass"), at(live, "/spec/loadBalancerClass"));
            if at(wanted, "/spec/type") == "LoadBalancer"
                && at(live, "/spec/type") == "LoadBalancer"
                && class != live_class
            {
                return Change::Blocked(
                    "service.loadBalancerClass cannot be changed in place, and a new Service would lose its address: \
                     set it back, or delete the Service yourself and it is made anew"
                        .into(),
                );
            }
        }
        ChildKind::Deployment => {
            let labels = "/spec/selector/matchLabels";
            if at(wanted, labels) != at(live, labels)
                || live.pointer("/spec/selector/matchExpressions").is_some()
            {
                return Change::Blocked(
                    "the Deployment has another selector than its fleet, which cannot be changed in place: \
                     delete it with kubectl delete deployment --cascade=orphan, and it is made anew"
                        .into(),
                );
            }
        }
        _ => {}
    }
    Change::InPlace
}

fn wants(desired: &[Desired], child: &LiveChild) -> bool {
    desired.iter().any(|d| d.kind == child.kind && d.name == child.name)
}

fn delete(child: &LiveChild, because: Because) -> Effect {
    Effect::Delete {
        kind: child.kind,
        name: child.name.clone(),
        uid: child.uid.clone(),
        resource_version: child.resource_version,
        because,
    }
}

#[cfg(test)]
mod tests;
