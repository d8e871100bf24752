//! Pods that came because calls took longer, not because there were more of them. While it lasts nothing goes
//! (`HoldTimeDegraded`); when calls are as fast as ever, what asked for those pods is gone, and unlike load it does not
//! come back by itself.

use crate::autoscale::state::State;

use super::{View, guards::Guards};

/// Notes whether calls are slow. From then on, until [`over`], windows remember nothing: what slow calls hold says nothing
/// of the load, nor do clients that try again.
pub(super) fn observe(view: &View<'_>, degraded: bool, state: &mut State) {
    state.slow |= degraded && view.policy.release_slow;
}

/// Whether this is the end of it: the first decision since then in which nothing forbids to take away. A step down goes
/// without a pace then; what is still wanted is load again, and remembered.
pub(super) fn over(guards: &Guards, state: &mut State) -> bool {
    !guards.forbids_down() && std::mem::take(&mut state.slow)
}
