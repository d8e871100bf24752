//! From what is recommended to what is written, for each actuator (autoscaling.md sections 1 and 6.3).

use crate::autoscale::{behavior, decision::LimitedBy, snapshot::Actuator, state::State, time::Millis};

use super::{Proposal, View, measure::Measured, quantise::floor, slow};

/// What `spec.replicas` should be if we write it. Under `Direct` windows and policies come in here; the history is kept
/// under every actuator, so that a change of actuator starts with one.
pub(super) fn act(view: &View<'_>, measured: &Measured, proposal: &mut Proposal, state: &mut State) -> i32 {
    let (n, policy) = (view.n, view.policy);
    let at_zero = n == 0 || proposal.wanted == 0;
    let slow_over = slow::over(&measured.guards, state);
    match view.snapshot.actuator {
        _ if at_zero && view.snapshot.actuator != Actuator::Off => proposal.wanted,
        Actuator::Off => {
            behavior::record(&mut state.recommendations, &policy.behavior, proposal.wanted, view.now);
            n
        }
        // Outside the bounds: to the bound at once.
        _ if behavior::jump(floor(policy), policy.max, n).is_some() => proposal.wanted,
        Actuator::Hpa | Actuator::Direct => {
            let wanted = behavior::Proposal {
                remembered: !state.slow,
                paced: !slow_over,
                ..behavior::Proposal::new((floor(policy), policy.max), n, proposal.wanted)
            };
            let normal = behavior::normalise(
                &policy.behavior,
                wanted,
                &mut state.recommendations,
                &state.scale_events,
                view.now,
            );
            if normal.replicas >= n {
                slow::done(state);
            }
            if normal.replicas != proposal.wanted {
                proposal.limited_by = normal.able.or(normal.limited);
                if normal.able == Some(LimitedBy::ScaleDownStabilized) && normal.replicas == n {
                    proposal.hold_until = stabilized_until(view, state);
                }
            }
            normal.replicas
        }
    }
}

/// When the last recommendation of N, or more, leaves the window downwards.
fn stabilized_until(view: &View<'_>, state: &State) -> Option<Millis> {
    let last = state.recommendations.iter().filter(|r| r.max >= view.n).map(|r| r.at).max()?;
    Some(last.saturating_add(view.policy.behavior.down.stabilization))
}
