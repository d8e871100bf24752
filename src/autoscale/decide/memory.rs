//! What is remembered of N: every change that is seen, whoever made it.

use crate::autoscale::{behavior, policy::Policy, snapshot::Snapshot, state::State, time::Millis};

/// The state with what the snapshot says of N. A change that happened while no process looked counts as made now: no
/// restart and no fail-over shortens a rest.
pub(super) fn observe(policy: &Policy, snapshot: &Snapshot, state: &State, now: Millis) -> State {
    let mut next = state.clone();
    let n = snapshot.replicas.max(0);
    if state.since.is_none() {
        next.since = Some(now);
        // What was restored may be long ago: at rest nothing is written down.
        behavior::begin(&mut next.recommendations, &policy.behavior, n, now);
    }
    if let Some(before) = state.replicas.filter(|before| *before != n) {
        changed(policy, &mut next, before, n, now);
    }
    next.replicas = Some(n);
    next
}

fn changed(policy: &Policy, next: &mut State, before: i32, n: i32, now: Millis) {
    behavior::record_scale(&mut next.scale_events, before, n, now);
    if n > before {
        next.last_up = Some(now);
    } else {
        next.last_down = Some(now);
    }
    next.idle_since = None;
    next.activated_at = (before == 0).then_some(now);
    let ours = next.wanted.is_some_and(|wanted| (before.min(wanted)..=before.max(wanted)).contains(&n));
    if !ours {
        // A person's number is a recommendation: it holds for as long as any other.
        behavior::record(&mut next.recommendations, &policy.behavior, n, now);
    }
}
