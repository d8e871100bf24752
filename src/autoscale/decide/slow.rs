//! Pods that came because calls took longer, not because there were more of them. While it lasts nothing goes
//! (`HoldTimeDegraded`); when calls are as fast as ever, what asked for those pods is gone, and unlike load it does not
//! come back by itself.

use crate::autoscale::state::State;

use super::{View, guards::Guards};

/// Notes whether calls are slow. From then on, until [`over`], windows remember nothing: what slow calls hold says nothing
/// of the load, nor do clients that try again.
pub(super) fn observe(view: &View<'_>, degraded: bool, state: &mut State) {
    state.slow |= degraded && view.policy.preset_pace;
}

/// Whether steps down go without a pace: from the first decision since then in which nothing forbids to take away, until
/// the scale has come down to what is wanted (see [`done`]). What is still wanted then is load again, and remembered.
pub(super) fn over(guards: &Guards, state: &mut State) -> bool {
    if guards.forbids_down() {
        // Before it has come down: once more.
        state.slow |= std::mem::take(&mut state.slow_over);
    } else {
        state.slow_over |= std::mem::take(&mut state.slow);
    }
    state.slow_over
}

/// Nothing is left to take away, or a window holds it. Whoever writes the scale may have taken some seconds for it: an HPA
/// looks every 15.
pub(super) fn done(state: &mut State) {
    state.slow_over = false;
}
