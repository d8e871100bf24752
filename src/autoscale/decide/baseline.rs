//! W_b: how long a call holds its place while nothing is wrong (autoscaling.md section 4.1 step 3).

use crate::autoscale::{policy::Policy, state::State, time::Millis};

use super::sanitise::Seen;

/// Half-life upwards, in ms: a dependency that is slow for minutes must not become the rule.
const HALF_LIFE_UP: f64 = 600_000.0;
/// Half-life downwards, in ms.
const HALF_LIFE_DOWN: f64 = 70_000.0;
/// One step of the mean counts no more than this, in ms, however long ago the last one was.
const LONGEST_STEP: Millis = 60_000;
/// A call that takes so many times the baseline waits for something that more pods would not bring.
const DEGRADED: f64 = 1.5;
/// Share of a pod's places that its target takes where they are not known: a target of 14 is for 20.
const SUPPOSED_TARGET: f64 = 0.7;
/// Above this share of all places calls hinder each other.
const BUSY: f64 = 0.9;
/// Fewer waiting calls than this, as a share of the running ones, are none.
const NO_QUEUE: f64 = 0.01;
/// The share of errors from which on times say nothing, where the policy names none.
const ERRORS: f64 = 0.2;

/// Whether calls take much longer than they used to.
pub(super) fn degraded(seen: &Seen, state: &State) -> bool {
    let hold = seen.load.as_ref().and_then(|l| l.hold);
    hold.zip(state.baseline_hold).is_some_and(|(hold, baseline)| hold > DEGRADED * baseline)
}

/// Moves W_b towards what is measured, if nothing distorts it.
pub(super) fn update(policy: &Policy, seen: &Seen, state: &mut State, now: Millis) {
    let before = state.baseline_at.replace(now);
    let Some(hold) = measured(policy, seen) else { return };
    state.baseline_hold = match (state.baseline_hold, before) {
        (None, _) => Some(hold),
        // Restored, and how long ago it was right is not known.
        (Some(baseline), None) => Some(baseline),
        (Some(baseline), Some(before)) => {
            let half_life = if hold > baseline { HALF_LIFE_UP } else { HALF_LIFE_DOWN };
            let step = now.saturating_sub(before).clamp(0, LONGEST_STEP) as f64;
            let share = 1.0 - (-step / half_life).exp2();
            Some(baseline + (hold - baseline) * share)
        }
    };
}

fn measured(policy: &Policy, seen: &Seen) -> Option<f64> {
    let target = policy.signals.concurrency?;
    let load = seen.load.as_ref()?;
    let errors = policy.signals.errors.map_or(ERRORS, |e| e.threshold);
    let slots = f64::from(seen.ready) * policy.slots.unwrap_or(target.per_pod / SUPPOSED_TARGET);
    let in_flight = load.stable.in_flight?;
    let undisturbed = load.stable.queue.is_some_and(|q| q <= NO_QUEUE * in_flight)
        && load.errors.is_none_or(|e| e < errors)
        && in_flight < BUSY * slots
        && !seen.dropped;
    load.hold.filter(|hold| undisturbed && *hold > 0.0)
}
