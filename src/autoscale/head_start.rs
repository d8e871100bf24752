//! Head start: a step up that the Deployment gets before the HPA has written it to `spec.replicas`.
//!
//! An HPA looks every 15 s, whatever happens in between (autoscaling.md section 6.1). What it will find then is known
//! before: it is our own number. So the Deployment gets the step at once, the HPA writes the same number at its next look,
//! and then nothing is ahead any more. Each field keeps its one writer, and who lowers `spec.replicas` has the last word.

use super::decision::{Decision, Reason};

/// What the last decision wants of the Deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStart {
    /// `spec.replicas` when it was decided.
    pub over: i32,
    /// Replicas that are wanted. Nothing is ahead where they are not more than `over`.
    pub replicas: i32,
}

impl HeadStart {
    /// What is wanted after a decision from N to `desired`, while `spec.replicas` is `spec`. It is a promise about the HPA's
    /// next look, so it stays until then, also where load falls in between: the HPA reads it and paces the way down. Where
    /// nobody looks (`follows` is false), nothing is added, and what is ahead goes as `desired` goes.
    pub fn decided(follows: bool, spec: i32, n: i32, desired: i32, max: i32) -> Self {
        let replicas = if follows { desired.max(n.min(max)) } else { desired.min(n) };
        Self { over: spec, replicas }
    }

    /// Replicas of the Deployment where `spec.replicas` is `spec`. A value below [`Self::over`] takes the head start back:
    /// an HPA goes down, or a person does. At zero there is none, as the step from it is written to `spec.replicas`.
    pub fn replicas(this: Option<Self>, spec: i32) -> i32 {
        match this {
            Some(ahead) if spec > 0 && spec >= ahead.over => spec.max(ahead.replicas),
            _ => spec,
        }
    }

    /// This one, where it makes a difference.
    pub fn standing(this: Option<Self>, spec: i32) -> Option<Self> {
        this.filter(|_| Self::replicas(this, spec) > spec)
    }
}

/// What the HPA reads as `mcp_desired_replicas`; `None`: it is to hold.
///
/// Upwards that is what was recommended: the HPA has the windows and policies of its own. `paced`: downwards it has none,
/// and the number is what ours leave. While something is ahead the number is not below it: a look in a moment of less load
/// would take it back.
pub fn exported(paced: bool, decision: &Decision, spec: i32, ahead: HeadStart) -> Option<i32> {
    let recommended = decision.recommended?;
    if decision.reason == Reason::Paused {
        return Some(recommended);
    }
    let number = if paced { recommended.max(decision.desired) } else { recommended };
    let ahead = HeadStart::standing(Some(ahead), spec).map_or(number, |ahead| ahead.replicas);
    Some(number.max(ahead))
}

/// The same for an HPA that takes a change of a tenth for noise, as the server dropped `tolerance`: a step down that the
/// preset's pace allows would never be made. It goes one replica further, if so few are `recommended`.
pub fn beyond_tolerance(number: i32, n: i32, recommended: i32) -> i32 {
    // In whole replicas: 9/10 is within, too.
    let is_noise = number < n && 10 * (i64::from(n) - i64::from(number)) <= i64::from(n);
    if is_noise { number.min(recommended.max(n - n / 10 - 1)) } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(over: i32, replicas: i32) -> HeadStart {
        HeadStart { over, replicas }
    }

    #[test]
    fn who_lowers_the_scale_has_the_last_word() {
        for (this, spec, replicas) in [
            (None, 4, 4),
            (Some(ahead(4, 9)), 4, 9),
            (Some(ahead(4, 9)), 6, 9),
            (Some(ahead(4, 9)), 9, 9),
            (Some(ahead(4, 9)), 12, 12),
            (Some(ahead(4, 9)), 3, 3),
            (Some(ahead(4, 2)), 4, 4),
            (Some(ahead(0, 1)), 0, 0),
            (Some(ahead(0, 3)), 1, 3),
        ] {
            assert_eq!(HeadStart::replicas(this, spec), replicas, "{this:?} {spec}");
            assert_eq!(HeadStart::standing(this, spec).is_some(), replicas > spec, "{this:?} {spec}");
        }
    }

    #[test]
    fn a_promise_stands_until_the_hpa_has_looked() {
        for (follows, spec, n, desired, max, deployed) in [
            (true, 2, 2, 5, 10, 5),
            (true, 2, 5, 7, 10, 7),
            (true, 2, 5, 3, 10, 5),
            (true, 2, 5, 3, 4, 4),
            (true, 5, 5, 3, 10, 5),
            (false, 2, 2, 5, 10, 2),
            (false, 2, 5, 7, 10, 5),
            (false, 2, 5, 3, 10, 3),
        ] {
            let ahead = HeadStart::decided(follows, spec, n, desired, max);
            let told = format!("{follows} {spec} {n} {desired} {max}");
            assert_eq!(HeadStart::replicas(Some(ahead), spec), deployed, "{told}");
        }
    }

    #[test]
    fn a_step_down_is_large_enough_to_be_made() {
        for (number, n, recommended, told) in [
            (18, 20, 5, 17),
            (18, 20, 18, 18),
            (9, 10, 1, 8),
            (8, 9, 1, 8),
            (10, 10, 1, 10),
            (11, 10, 11, 11),
            (12, 20, 5, 12),
        ] {
            assert_eq!(
                beyond_tolerance(number, n, recommended),
                told,
                "{number} of {n}, {recommended} wanted"
            );
        }
    }

    #[test]
    fn the_hpa_reads_what_is_left_for_it_to_do() {
        let (ours, its_own) = (true, false);
        let down = Decision::bare(Some(5), 8, Reason::ScaleDown);
        assert_eq!(exported(ours, &down, 9, ahead(9, 8)), Some(8), "our pace");
        assert_eq!(exported(its_own, &down, 9, ahead(9, 8)), Some(5), "its own pace");
        let up = Decision::bare(Some(9), 6, Reason::ScaleUp);
        assert_eq!(exported(ours, &up, 4, ahead(4, 6)), Some(9), "upwards the HPA paces itself");
        assert_eq!(exported(its_own, &up, 4, ahead(4, 6)), Some(9), "its own pace, too");
        let less = Decision::bare(Some(5), 9, Reason::ScaleDown);
        for paced in [ours, its_own] {
            assert_eq!(exported(paced, &less, 4, ahead(4, 9)), Some(9), "what is ahead stays");
            assert_eq!(
                exported(paced, &Decision::bare(None, 9, Reason::MetricsUnavailable), 4, ahead(4, 9)),
                None
            );
            let paused = Decision::bare(Some(2), 9, Reason::Paused);
            assert_eq!(exported(paced, &paused, 4, ahead(4, 9)), Some(2), "a person's word");
        }
    }
}
