//! One decision (autoscaling.md section 4.1).

use super::{
    decision::{Decision, Reason},
    policy::Policy,
    snapshot::Snapshot,
    state::State,
    time::Now,
};

/// Decides about one fleet, and what to remember. Pure: the same values give the same answer.
pub fn decide(policy: &Policy, snapshot: &Snapshot, state: &State, now: Now) -> (Decision, State) {
    let _ = (policy, now);
    let decision = Decision {
        recommended: None,
        desired: snapshot.replicas,
        demand: None,
        utilization: None,
        reason: Reason::MetricsUnavailable,
        limited_by: None,
        terms: Vec::new(),
        guards: Vec::new(),
        hold_until: None,
    };
    (decision, state.clone())
}
