//! What a fleet asks of the autoscaler, resolved: `spec.autoscaling` without anything left open.

use super::{
    behavior::{Behavior, COARSE_WINDOW, Rules},
    time::Millis,
};

/// Everything that [`super::decide::decide`] follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Fewest replicas, 0..=1000. Zero only together with [`Self::zero`].
    pub min: i32,
    /// Most replicas, 1..=1000, not below `min`.
    pub max: i32,
    /// May go to zero.
    pub zero: Option<Zero>,
    /// How demands of several signals become one.
    pub combine: Combine,
    /// What is looked at.
    pub signals: Signals,
    /// Over which time.
    pub windows: Windows,
    /// How fast the scale follows: the generated HPA's, and ours where we write the scale ourselves.
    pub behavior: Behavior,
    /// The fleet names no `behavior.scaleDown`: the preset's own pace down holds, and the operator keeps it, whoever writes
    /// the scale. It knows what an HPA cannot: what only slow calls had asked for goes at once when calls are as fast as
    /// ever; neither a window nor a rate policy keeps it.
    pub preset_pace: bool,
    /// Calls that a pod is given at a time, greater than 0; `None`: no limit.
    pub slots: Option<f64>,
    /// Rest after a change.
    pub cooldown: Cooldown,
    /// What holds when all metrics are gone for long.
    pub fallback: Option<Fallback>,
    /// Replicas of the step from zero, 1..=max.
    pub activation_replicas: i32,
    /// Share of replicas, 0..=1, that must be ready for signals of single pods to raise the scale (guard G2).
    pub min_available: f64,
    /// A demand up to so much above the scale, as a share of it, changes nothing.
    pub tolerance_up: f64,
    /// A demand up to so much below the scale, as a share of it, changes nothing.
    pub tolerance_down: f64,
}

/// Down to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zero {
    /// For so long there was no call, no session, no stream and nobody waiting. At least one stable window.
    pub idle: Millis,
}

/// How demands of several signals become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Combine {
    /// The greatest.
    Max,
    /// `(Σ ŵ dᵖ)^(1/p)`, weights normalised to 1; p ≥ 1.
    PowerMean {
        /// p.
        exponent: f64,
    },
    /// The weighted formula with thresholds and single steps (autoscaling.md section 4.2).
    WeightedSum(Thresholds),
}

/// Where the weighted sum acts, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Up above this.
    pub up: f64,
    /// Down below this.
    pub down: f64,
    /// Replicas of one step.
    pub step: i32,
}

/// What is looked at; an absent one has no weight at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signals {
    /// Running calls; idle streams are none.
    pub concurrency: Option<Target>,
    /// Calls that wait in the gateway.
    pub queue: Option<Queue>,
    /// Open sessions and streams.
    pub connections: Option<Target>,
    /// Calls per second.
    pub request_rate: Option<Target>,
    /// CPU, as a share of the request.
    pub cpu: Option<Target>,
    /// Memory, as a share of the request.
    pub memory: Option<Target>,
    /// Latency: a guard, and with evidence of saturation perhaps a boost.
    pub latency: Option<Latency>,
    /// Errors of the servers: a guard.
    pub errors: Option<Errors>,
}

/// An amount for each pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// What one pod should carry, greater than 0.
    pub per_pod: f64,
    /// Weight in a mean or sum, 0..=100.
    pub weight: f64,
}

/// The gateway's queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Queue {
    /// What waits shall be served within this, in seconds, greater than 0.
    pub drain_seconds: f64,
    /// The reference of the weighted sum: waiting calls for each pod.
    pub per_pod: f64,
    /// Weight.
    pub weight: f64,
}

/// Latency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// No more than this, in milliseconds, greater than 0; also the reference of the weighted sum.
    pub objective_ms: f64,
    /// Which percentile, in percent, 1..=99.9.
    pub percentile: f64,
    /// Guard only, or also a boost.
    pub role: Role,
    /// Most that a boost adds, as a share of the scale.
    pub max_boost: f64,
    /// Weight.
    pub weight: f64,
}

/// Errors of the servers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// From this share on (0..=1, over the stable window) nothing is taken away.
    pub threshold: f64,
    /// Weight.
    pub weight: f64,
}

/// What a signal that is no demand may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It forbids to scale down.
    Guard,
    /// It may raise the scale, too.
    Boost,
}

/// Over which time signals are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// The ordinary window.
    pub stable: Millis,
    /// The short one, which finds sudden load.
    pub panic: Millis,
    /// A demand over the short window of so many times the ready pods is panic; 2.0 for 200 %.
    pub panic_threshold: f64,
    /// A sample that is older counts as missing.
    pub max_sample_age: Millis,
}

/// Rest after a change of the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cooldown {
    /// After a step up.
    pub after_up: Millis,
    /// After a step down.
    pub after_down: Millis,
}

/// What holds when all metrics are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// After so long.
    pub after: Millis,
    /// So many.
    pub replicas: i32,
    /// Compared with what runs.
    pub behavior: FallbackBehavior,
}

/// How the fallback's number is compared with what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallbackBehavior {
    /// The number itself.
    Static,
    /// What runs.
    CurrentReplicas,
    /// The greater one.
    CurrentReplicasIfHigher,
    /// The smaller one.
    CurrentReplicasIfLower,
}

/// Two reports of each gateway: an autoscaler that sees what waits need not look longer to be sure.
const PANIC: Millis = 2_000;

impl Default for Windows {
    fn default() -> Self {
        Self { stable: 60_000, panic: PANIC, panic_threshold: 2.0, max_sample_age: 30_000 }
    }
}

/// Calls at work that a pod of a fleet should carry if nobody says otherwise: 85 % of what it is given at a time. There
/// is room for noise in the rest, and what waits is a signal of its own, so a pod may be fuller than where running calls
/// are all that is seen (Knative and others: 70 %). `benches/README.md` compares.
const TARGET_OF_SLOTS: f64 = 0.85;

/// Where a pod has no limit.
const UNLIMITED: f64 = 14.0;

/// The target of [`Signals::concurrency`] that a fleet has by default, from [`Policy::slots`].
pub fn concurrency_target(slots: Option<f64>) -> f64 {
    slots.map_or(UNLIMITED, |slots| TARGET_OF_SLOTS * slots)
}

impl Policy {
    /// The preset `Balanced` for a fleet behind the gateway that names no metric: the greatest demand of all signals
    /// counts, latency and errors only guard. `slots`: calls that a pod is given at a time, if that is limited.
    pub fn balanced(min: i32, max: i32, slots: Option<f64>) -> Self {
        Self {
            min,
            max,
            zero: None,
            combine: Combine::Max,
            signals: Signals {
                concurrency: Some(Target { per_pod: concurrency_target(slots), weight: 1.0 }),
                queue: Some(Queue { drain_seconds: 5.0, per_pod: 50.0, weight: 1.0 }),
                connections: Some(Target { per_pod: 100.0, weight: 1.0 }),
                request_rate: None,
                cpu: Some(Target { per_pod: 0.7, weight: 1.0 }),
                memory: None,
                latency: Some(Latency {
                    objective_ms: 1000.0,
                    percentile: 95.0,
                    role: Role::Guard,
                    max_boost: 0.25,
                    weight: 1.0,
                }),
                errors: Some(Errors { threshold: 0.2, weight: 1.0 }),
            },
            windows: Windows::default(),
            behavior: Behavior::balanced(),
            preset_pace: true,
            slots,
            cooldown: Cooldown::default(),
            fallback: None,
            activation_replicas: 1,
            min_available: 0.5,
            tolerance_up: 0.0,
            tolerance_down: 0.1,
        }
    }

    /// The behavior of the generated HPA: where the pace down is ours, its own is open, else two windows would add up.
    /// `coarse`: it takes steps of a tenth for noise.
    pub fn of_hpa(&self, coarse: bool) -> Behavior {
        let mut behavior = self.behavior.clone();
        if self.preset_pace {
            behavior.down = Rules::at_once();
            behavior.down.stabilization = if coarse { COARSE_WINDOW } else { 0 };
        }
        behavior
    }

    /// Whether the number for an HPA is to be paced downwards. `open`: the one that stands lets everything through, which it
    /// may for a moment after the fleet named a pace.
    pub fn paces(&self, open: bool) -> bool {
        self.preset_pace || (open && !self.behavior.down.is_open())
    }

    /// The preset `Classic`: the weighted formula, one replica per step, five minutes of rest after each
    /// (autoscaling.md section 4.2). Its pace is the cooldown alone, so its behavior lets everything through.
    pub fn classic(min: i32, max: i32) -> Self {
        Self {
            combine: Combine::WeightedSum(Thresholds { up: 0.8, down: 0.3, step: 1 }),
            signals: Signals {
                connections: Some(Target { per_pod: 100.0, weight: 0.2 }),
                queue: Some(Queue { drain_seconds: 5.0, per_pod: 50.0, weight: 0.2 }),
                latency: Some(Latency {
                    objective_ms: 1000.0,
                    percentile: 95.0,
                    role: Role::Guard,
                    max_boost: 0.25,
                    weight: 0.3,
                }),
                errors: Some(Errors { threshold: 0.2, weight: 0.3 }),
                ..Signals::default()
            },
            behavior: Behavior { up: Rules::at_once(), down: Rules::at_once() },
            cooldown: Cooldown { after_up: 300_000, after_down: 300_000 },
            ..Self::balanced(min, max, None)
        }
    }
}
