//! From a demand to whole replicas (autoscaling.md section 4.1 step 7).

use crate::autoscale::{decision::LimitedBy, policy::Policy};

/// What rounding in sums may add to a demand.
const EPSILON: f64 = 1e-9;

/// Whole replicas for a demand; saturates.
pub(super) fn whole(demand: f64) -> i32 {
    (demand - EPSILON).ceil().max(0.0) as i32
}

/// Fewest replicas while there is any.
pub(super) fn floor(policy: &Policy) -> i32 {
    policy.min.max(1).min(policy.max)
}

/// What a demand asks for while there are `n` > 0, and the bound that it would pass.
///
/// Nothing changes within the tolerance of N, as with the HPA, and nothing goes where the demand would lie within the
/// tolerance of one replica fewer: there the noise of a load would bring it back soon (section 5, invariant 13).
pub(super) fn quantise(policy: &Policy, demand: f64, n: i32) -> (i32, Option<LimitedBy>) {
    let n_f = f64::from(n);
    let up = demand > n_f * (1.0 + policy.tolerance_up) + EPSILON;
    let down = demand <= (n_f - 1.0) * (1.0 - policy.tolerance_down) + EPSILON;
    let wanted = if up || down { whole(demand) } else { n };
    if wanted > policy.max {
        (policy.max, Some(LimitedBy::TooManyReplicas))
    } else if wanted < policy.min {
        (floor(policy), Some(LimitedBy::TooFewReplicas))
    } else {
        (wanted.max(floor(policy)), None)
    }
}
