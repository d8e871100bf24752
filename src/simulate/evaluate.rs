//! Many seeds: means with 95 % confidence intervals, and who is worse than whom. The same seed brings the same load to
//! every policy, so policies are compared pair by pair.

use super::{measure::Summary, run, scalers::Kind, scenario::Scenario, world::Limits};
use crate::autoscale::policy::Policy;

/// Student's t for 95 %, two-sided, by degrees of freedom from 1 on; beyond, the normal distribution's 1.96 is close.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// A mean, and how far the true one may be from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Mean.
    pub mean: f64,
    /// Half of the 95 % confidence interval (t distribution); 0 for a single value.
    pub half: f64,
}

impl Estimate {
    /// Of independent values.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let t = STUDENT.get(values.len().saturating_sub(2)).copied().unwrap_or(1.96);
        let half = if values.len() < 2 { 0.0 } else { t * (squares / (n - 1.0) / n).sqrt() };
        Self { mean, half }
    }

    /// The whole interval is below `limit`.
    pub fn below(self, limit: f64) -> bool {
        self.mean + self.half < limit
    }

    /// Some of the interval is not above `limit`.
    pub fn may_reach(self, limit: f64) -> bool {
        self.mean - self.half <= limit
    }
}

/// The preset `Balanced` for the pods that are simulated where no fleet says otherwise.
pub fn policy(min: i32, max: i32) -> Policy {
    Limits::default().balanced(min, max)
}

/// All runs of one policy in one scenario, by seed.
#[derive(Clone, Debug)]
pub struct Runs {
    /// Who.
    pub kind: Kind,
    /// By seed, the same order for every policy.
    pub summaries: Vec<Summary>,
}

impl Runs {
    /// Runs a policy with seeds 1..=`seeds`. The bounds of `policy` count for all kinds; its signals only where the kind
    /// is the fleet's own policy.
    pub fn new(scenario: &Scenario, kind: Kind, policy: &Policy, seeds: u64) -> Self {
        let run = |seed| run::run(scenario, kind, policy, Limits::default(), seed).summary();
        Self { kind, summaries: (1..=seeds).map(run).collect() }
    }

    /// Of one figure.
    pub fn estimate(&self, figure: impl Fn(&Summary) -> f64) -> Estimate {
        Estimate::of(&self.values(figure))
    }

    /// One figure by seed.
    pub fn values(&self, figure: impl Fn(&Summary) -> f64) -> Vec<f64> {
        self.summaries.iter().map(figure).collect()
    }

    /// The difference of a figure to that of `other`, seed by seed.
    pub fn minus(&self, other: &Self, figure: impl Fn(&Summary) -> f64) -> Estimate {
        let pairs = self.values(&figure).into_iter().zip(other.values(&figure));
        Estimate::of(&pairs.map(|(a, b)| a - b).collect::<Vec<_>>())
    }

    /// Better than `other` in violations or pod-hours, and worse in neither. Better means: the whole confidence interval
    /// of the difference is below zero. Worse means: not even its lower end reaches zero. All else is a tie.
    pub fn dominates(&self, other: &Self) -> bool {
        let differences = [self.minus(other, |s| s.violations), self.minus(other, |s| s.pod_hours)];
        differences.iter().all(|d| d.may_reach(0.0)) && differences.iter().any(|d| d.below(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::measure::Elasticity;

    fn runs(figures: &[(f64, f64)]) -> Runs {
        let summary = |(violations, pod_hours): &(f64, f64)| Summary {
            violations: *violations,
            shed: 0.0,
            failed: 0.0,
            p95_wait: 0.0,
            pod_hours: *pod_hours,
            scale_events: 0,
            flaps: 0,
            removed: 0,
            sessions_broken: 0,
            recovery: 0,
            downs_in_outage: 0,
            elasticity: Elasticity::default(),
        };
        Runs { kind: Kind::Balanced, summaries: figures.iter().map(summary).collect() }
    }

    #[test]
    fn intervals_are_students() {
        let e = Estimate::of(&[1.0, 2.0, 3.0]);
        assert!((e.mean - 2.0).abs() < 1e-12);
        assert!((e.half - 4.303 / 3_f64.sqrt()).abs() < 1e-9, "{e:?}");
        assert_eq!(Estimate::of(&[5.0]), Estimate { mean: 5.0, half: 0.0 });
    }

    #[test]
    fn a_tie_is_no_domination() {
        let a = runs(&[(1.0, 10.0), (1.1, 11.0), (0.9, 10.5)]);
        let noise = runs(&[(1.1, 10.1), (0.9, 10.8), (1.1, 10.6)]);
        assert!(!a.dominates(&noise) && !noise.dominates(&a));
        let dearer = runs(&[(1.0, 12.0), (1.1, 13.1), (0.9, 12.4)]);
        assert!(a.dominates(&dearer) && !dearer.dominates(&a));
        let better_and_dearer = runs(&[(0.5, 12.0), (0.6, 13.1), (0.4, 12.4)]);
        assert!(!a.dominates(&better_and_dearer) && !better_and_dearer.dominates(&a));
        assert!(!a.dominates(&a));
    }
}
