//! Pods that came because calls took longer, not because there were more of them. While it lasts nothing goes
//! (`HoldTimeDegraded`); when calls are as fast as ever, what asked for those pods is gone, and unlike load it does not
//! come back by itself.

use crate::autoscale::state::State;

use super::View;

/// Notes whether calls are slow. From then on, until what they asked for is given back or a window downwards has passed,
/// windows remember nothing: what slow calls hold says nothing of the load, nor do clients that try again.
pub(super) fn observe(view: &View<'_>, degraded: bool, state: &mut State) {
    let policy = view.policy;
    if degraded && policy.release_slow {
        state.slow_at = Some(view.now);
    }
    let window = policy.behavior.down.stabilization;
    state.slow_at = state.slow_at.filter(|at| view.now < at.saturating_add(window));
}

/// Whether a step to `wanted` gives back what slow calls had asked for, for which no pace holds. Once: later steps are
/// about load again.
pub(super) fn release(view: &View<'_>, wanted: i32, state: &mut State) -> bool {
    wanted < view.n && state.slow_at.take().is_some()
}
