//! What keeps the scale from following the demand: guards, a cluster that is full, rest after a change.

use crate::autoscale::{
    decision::{LimitedBy, Reason},
    state::State,
    time::Millis,
};

use super::{Proposal, View, measure::Measured};

/// G1: where nothing is ready, numbers say nothing.
pub(super) fn nothing_ready(view: &View<'_>, state: &State, proposal: &mut Proposal) {
    if view.seen.ready == 0 {
        let why = if state.activation_failures > 0 {
            LimitedBy::ActivationFailed
        } else {
            LimitedBy::AllPodsUnready
        };
        proposal.keep(view.n, why, None);
        if state.activation_failures > 0 {
            proposal.limited_by = Some(why);
        }
    }
}

/// More pods would not find a place.
pub(super) fn blocked(view: &View<'_>, proposal: &mut Proposal) {
    if view.snapshot.blocked.is_some() && proposal.wanted > view.n {
        proposal.keep(view.n, LimitedBy::ScaleUpBlocked, None);
    }
}

/// A guard forbids to take away.
pub(super) fn no_down(view: &View<'_>, measured: &Measured, proposal: &mut Proposal) {
    if proposal.wanted >= view.n {
        return;
    }
    if let Some(why) = measured.guards.no_down {
        proposal.keep(view.n, why, measured.guards.until);
    } else if measured.guards.warming {
        *proposal = Proposal {
            reason: Some(Reason::WarmingUp),
            hold_until: measured.guards.warm_at,
            ..Proposal::of(view.n)
        };
    }
}

/// The end of the rest after the last change, while it lasts (step 8).
pub(super) fn rest_until(view: &View<'_>, state: &State) -> Option<Millis> {
    let rest = &view.policy.cooldown;
    let ends = [(state.last_up, rest.after_up), (state.last_down, rest.after_down)];
    let until = ends.iter().filter_map(|(at, rest)| Some((*at)?.saturating_add(*rest))).max()?;
    (view.now < until).then_some(until)
}

/// Rest after a change, in both directions.
pub(super) fn cooldown(view: &View<'_>, state: &State, proposal: &mut Proposal) {
    if let Some(until) = rest_until(view, state) {
        if proposal.wanted != view.n {
            proposal.keep(view.n, LimitedBy::Cooldown, Some(until));
        }
        proposal.hold_until = Some(until);
    }
}
