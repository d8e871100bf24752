//! No metrics at all: everything stays for a while, then the policy's number holds (autoscaling.md section 4.1).

use crate::autoscale::{
    decision::Reason,
    policy::{Fallback, FallbackBehavior},
    state::State,
};

use super::{Proposal, View, hold, quantise::floor};

/// What to do without metrics while there are pods; `None`: nothing can be said.
pub(super) fn blind(view: &View<'_>, state: &State) -> Option<Proposal> {
    let fallback = view.policy.fallback?;
    let since = state.blind_since?;
    if view.now < since.saturating_add(fallback.after) {
        return None;
    }
    let wanted = replicas(fallback, view.n).clamp(floor(view.policy), view.policy.max);
    let mut proposal = Proposal { reason: Some(Reason::Fallback), ..Proposal::of(wanted) };
    hold::nothing_ready(view, state, &mut proposal);
    hold::blocked(view, &mut proposal);
    hold::cooldown(view, state, &mut proposal);
    Some(proposal)
}

fn replicas(fallback: Fallback, n: i32) -> i32 {
    match fallback.behavior {
        FallbackBehavior::Static => fallback.replicas,
        FallbackBehavior::CurrentReplicas => n,
        FallbackBehavior::CurrentReplicasIfHigher => n.max(fallback.replicas),
        FallbackBehavior::CurrentReplicasIfLower => n.min(fallback.replicas),
    }
}
