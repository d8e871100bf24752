//! Policies and bounds: `convertDesiredReplicasWithBehaviorRate`.

use super::{Event, Spec};
use crate::autoscale::{
    behavior::{RatePolicy, Rules, Select, Unit},
    decision::LimitedBy,
    time::Millis,
};

/// Holds a stabilized recommendation within policies and bounds; the reason counts only where it was held.
pub(super) fn convert(
    spec: &Spec,
    current: i32,
    desired: i32,
    ups: &[Event],
    downs: &[Event],
    now: Millis,
) -> (i32, Option<LimitedBy>) {
    let start = |policy: &RatePolicy| current - within(ups, policy, now) + within(downs, policy, now);
    if desired > current {
        let limit = up(&spec.behavior.up, current, start).max(current);
        let (most, reason) = if spec.max > limit {
            (limit, LimitedBy::ScaleUpLimit)
        } else {
            (spec.max, LimitedBy::TooManyReplicas)
        };
        if desired > most {
            return (most, Some(reason));
        }
    } else if desired < current {
        let limit = down(&spec.behavior.down, current, start).min(current);
        let (least, reason) = if spec.min < limit {
            (limit, LimitedBy::ScaleDownLimit)
        } else {
            (spec.min, LimitedBy::TooFewReplicas)
        };
        if desired < least {
            return (least, Some(reason));
        }
    }
    (desired, None)
}

/// `getReplicasChangePerPeriod`.
fn within(events: &[Event], policy: &RatePolicy, now: Millis) -> i32 {
    events.iter().filter(|e| e.at > now - policy.period).map(|e| e.amount).sum()
}

/// `calculateScaleUpLimitWithScalingRules`.
fn up(rules: &Rules, current: i32, start: impl Fn(&RatePolicy) -> i32) -> i32 {
    if rules.select == Select::Disabled {
        return current;
    }
    let mut result = if rules.select == Select::Min { i32::MAX } else { i32::MIN };
    for policy in &rules.policies {
        let proposed = match policy.unit {
            Unit::Pods => start(policy) + policy.value,
            Unit::Percent => {
                (f64::from(start(policy)) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32
            }
        };
        result = if rules.select == Select::Min { result.min(proposed) } else { result.max(proposed) };
    }
    result
}

/// `calculateScaleDownLimitWithBehaviors`.
fn down(rules: &Rules, current: i32, start: impl Fn(&RatePolicy) -> i32) -> i32 {
    if rules.select == Select::Disabled {
        return current;
    }
    let mut result = if rules.select == Select::Min { i32::MIN } else { i32::MAX };
    for policy in &rules.policies {
        let proposed = match policy.unit {
            Unit::Pods => start(policy) - policy.value,
            Unit::Percent => (f64::from(start(policy)) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
        };
        result = if rules.select == Select::Min { result.max(proposed) } else { result.min(proposed) };
    }
    result
}
