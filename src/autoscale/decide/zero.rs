//! From one replica to none, and back (autoscaling.md section 8).

use crate::autoscale::{
    decision::{LimitedBy, Reason},
    state::State,
    time::Millis,
};

use super::{Proposal, View, hold, measure::Measured, quantise::whole};

/// If none of its pods is ready after so long, in ms, an activation has failed.
const PATIENCE: Millis = 120_000;
/// Rest after a failed activation, in ms; doubled with each that follows.
const BACK_OFF: Millis = 30_000;
/// Longest rest, in ms.
const LONGEST_BACK_OFF: Millis = 600_000;

/// Notes since when nobody calls, and how an activation goes.
pub(super) fn observe(view: &View<'_>, state: &mut State) {
    if view.seen.ready > 0 {
        state.activated_at = None;
        state.activation_failures = 0;
    } else if state.activated_at.is_some_and(|at| view.now >= at.saturating_add(PATIENCE)) {
        state.activated_at = None;
        state.activation_failures = state.activation_failures.saturating_add(1);
    }
    if !view.seen.idle() {
        state.idle_since = None;
    } else if state.idle_since.is_none() {
        state.idle_since = Some(idle_from(view, state));
    }
}

/// Nobody called for as long as the samples tell, but not before the last change: whoever made it wanted it.
fn idle_from(view: &View<'_>, state: &State) -> Millis {
    let covered = view.seen.load.as_ref().map_or(0.0, |l| l.stable.seconds * 1000.0) as Millis;
    let covered = view.now.saturating_sub(covered.min(view.policy.windows.stable));
    [state.last_up, state.last_down, state.since]
        .into_iter()
        .flatten()
        .fold(covered, Millis::max)
        .min(view.now)
}

/// Whether the last replica may go.
pub(super) fn may_go(view: &View<'_>, state: &State, measured: &Measured) -> bool {
    let Some(zero) = view.policy.zero else { return false };
    let long = zero.idle.max(view.policy.windows.stable);
    view.n == 1
        && !measured.guards.forbids_down()
        && hold::rest_until(view, state).is_none()
        && state.idle_since.is_some_and(|since| view.now >= since.saturating_add(long))
}

/// At zero: one waits for a call. A rest after the step down does not keep a caller waiting.
pub(super) fn at_zero(view: &View<'_>, state: &State, measured: &Measured) -> Proposal {
    let asleep = Proposal { reason: Some(Reason::ScaledToZero), ..Proposal::of(0) };
    if view.policy.zero.is_none() || !called(view) {
        // A fleet that may not go to zero was put there by a person, and stays as an HPA would leave it.
        return asleep;
    }
    if let Some(until) = backed_off_until(state).filter(|until| view.now < *until) {
        return Proposal {
            limited_by: Some(LimitedBy::ActivationFailed),
            hold_until: Some(until),
            reason: Some(Reason::Activation),
            ..Proposal::of(0)
        };
    }
    let demand = whole(measured.demand.unwrap_or(0.0));
    let wanted = demand.max(view.policy.activation_replicas).max(1);
    Proposal {
        reason: Some(Reason::Activation),
        limited_by: (wanted > view.policy.max).then_some(LimitedBy::TooManyReplicas),
        ..Proposal::of(wanted.min(view.policy.max))
    }
}

/// Somebody calls, or called within the window.
fn called(view: &View<'_>) -> bool {
    let Some(load) = &view.seen.load else { return false };
    let some = |value: Option<f64>| value.is_some_and(|v| v > 0.0);
    some(load.waiting)
        || [Some(&load.stable), load.panic.as_ref()].into_iter().flatten().any(|s| s.called || some(s.queue))
}

fn backed_off_until(state: &State) -> Option<Millis> {
    let doublings = state.activation_failures.checked_sub(1)?.min(16);
    let rest = BACK_OFF.saturating_mul(1 << doublings).min(LONGEST_BACK_OFF);
    let step = state.last_up?;
    Some(step.saturating_add(PATIENCE).saturating_add(rest))
}
