//! `behavior` of `autoscaling/v2`: stabilization windows and rate policies, as the HPA controller applies them
//! (autoscaling.md section 6.3), for scales that we write ourselves.

use super::time::Millis;

/// Both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// Upwards.
    pub up: Rules,
    /// Downwards.
    pub down: Rules,
}

/// One direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The safest recommendation of so long counts; 0..=3,600,000.
    pub stabilization: Millis,
    /// Which of the policies counts.
    pub select: Select,
    /// Policies; at least one, unless disabled.
    pub policies: Vec<RatePolicy>,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the greatest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// None: no change in this direction.
    Disabled,
}

/// At most `value` in `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatePolicy {
    /// What `value` counts.
    pub unit: Unit,
    /// How much, greater than 0.
    pub value: i32,
    /// In how long, 1..=1,800,000 ms.
    pub period: Millis,
}

/// What a policy's value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Pods.
    Pods,
    /// Percent of the scale at the start of the period.
    Percent,
}

impl Default for Behavior {
    /// Kubernetes' own (autoscaling.md section 6.1).
    fn default() -> Self {
        let policy = |unit, value| RatePolicy { unit, value, period: 15_000 };
        Self {
            up: Rules {
                stabilization: 0,
                select: Select::Max,
                policies: vec![policy(Unit::Pods, 4), policy(Unit::Percent, 100)],
            },
            down: Rules {
                stabilization: 300_000,
                select: Select::Max,
                policies: vec![policy(Unit::Percent, 100)],
            },
        }
    }
}
