//! What comes out of a decision: a number, and every term that led to it.

use super::time::Millis;

/// What to do, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// After guards, tolerance and cooldown, before windows and rate policies. `None`: nothing can be said, the metrics API
    /// answers 503 and everything holds.
    pub recommended: Option<i32>,
    /// What N should be now, after behavior and bounds: written under `Direct`, and under `HPA` from and to zero; else the
    /// HPA is told of it ([`super::head_start`]). N itself where nobody of ours acts.
    pub desired: i32,
    /// D: demand in replicas, before guards; `None` without metrics.
    pub demand: Option<f64>,
    /// Published score D / max(N, 1); 1 is at target.
    pub utilization: Option<f64>,
    /// What is going on.
    pub reason: Reason,
    /// What kept the scale from following the demand.
    pub limited_by: Option<LimitedBy>,
    /// Each signal's part, greatest demand first.
    pub terms: Vec<Term>,
    /// Guards that stand.
    pub guards: Vec<Guard>,
    /// Until then nothing changes, or nothing goes down.
    pub hold_until: Option<Millis>,
}

#[cfg(test)]
impl Decision {
    /// One that says nothing else.
    pub(crate) fn bare(recommended: Option<i32>, desired: i32, reason: Reason) -> Self {
        Self {
            recommended,
            desired,
            demand: None,
            utilization: None,
            reason,
            limited_by: None,
            terms: vec![],
            guards: vec![],
            hold_until: None,
        }
    }
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Demand and scale agree.
    Steady,
    /// More are wanted.
    ScaleUp,
    /// Fewer are wanted.
    ScaleDown,
    /// Sudden load.
    Panic,
    /// A call waits at a fleet without a pod.
    Activation,
    /// Nobody has called for long.
    Idle,
    /// At zero, and nobody calls.
    ScaledToZero,
    /// No metrics: everything stays.
    MetricsUnavailable,
    /// No metrics for long.
    Fallback,
    /// A person paused it.
    Paused,
    /// Not enough has been seen since the start.
    WarmingUp,
}

impl Reason {
    /// The word in status, events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "Steady",
            Self::ScaleUp => "ScaleUp",
            Self::ScaleDown => "ScaleDown",
            Self::Panic => "Panic",
            Self::Activation => "Activation",
            Self::Idle => "Idle",
            Self::ScaledToZero => "ScaledToZero",
            Self::MetricsUnavailable => "MetricsUnavailable",
            Self::Fallback => "Fallback",
            Self::Paused => "Paused",
            Self::WarmingUp => "WarmingUp",
        }
    }
}

/// What kept the scale from following the demand (autoscaling.md section 12, `ScalingLimited` and `AbleToScale`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitedBy {
    /// The upper bound.
    TooManyReplicas,
    /// The lower bound.
    TooFewReplicas,
    /// A rate policy, upwards.
    ScaleUpLimit,
    /// A rate policy, downwards.
    ScaleDownLimit,
    /// A stabilization window, upwards.
    ScaleUpStabilized,
    /// A stabilization window, downwards.
    ScaleDownStabilized,
    /// The rest after a change.
    Cooldown,
    /// Servers fail.
    ErrorGuard,
    /// Calls are too slow.
    LatencyGuard,
    /// No pod is ready, or too few.
    AllPodsUnready,
    /// Each call takes longer than it used to: a dependency is slow, more pods would not help it.
    HoldTimeDegraded,
    /// Sudden load ended only now.
    PanicHold,
    /// A gateway, or pods, do not say how much they carry.
    MissingMetrics,
    /// More pods would not find a place.
    ScaleUpBlocked,
    /// Too many activations failed.
    ActivationFailed,
    /// A person paused it.
    Paused,
}

impl LimitedBy {
    /// The word in status, events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooManyReplicas => "TooManyReplicas",
            Self::TooFewReplicas => "TooFewReplicas",
            Self::ScaleUpLimit => "ScaleUpLimit",
            Self::ScaleDownLimit => "ScaleDownLimit",
            Self::ScaleUpStabilized => "ScaleUpStabilized",
            Self::ScaleDownStabilized => "ScaleDownStabilized",
            Self::Cooldown => "Cooldown",
            Self::ErrorGuard => "ErrorGuard",
            Self::LatencyGuard => "LatencyGuard",
            Self::AllPodsUnready => "AllPodsUnready",
            Self::HoldTimeDegraded => "HoldTimeDegraded",
            Self::PanicHold => "PanicHold",
            Self::MissingMetrics => "MissingMetrics",
            Self::ScaleUpBlocked => "ScaleUpBlocked",
            Self::ActivationFailed => "ActivationFailed",
            Self::Paused => "Paused",
        }
    }
}

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Running and waiting calls.
    Concurrency,
    /// Calls that wait.
    QueueDepth,
    /// Open sessions and streams.
    Connections,
    /// Calls per second.
    RequestRate,
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
    /// Latency.
    Latency,
    /// Errors.
    ErrorRate,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Concurrency,
        Self::QueueDepth,
        Self::Connections,
        Self::RequestRate,
        Self::Cpu,
        Self::Memory,
        Self::Latency,
        Self::ErrorRate,
    ];

    /// Its name in `spec.autoscaling.metrics`, status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::QueueDepth => "queueDepth",
            Self::Connections => "connections",
            Self::RequestRate => "requestRate",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Latency => "latency",
            Self::ErrorRate => "errorRate",
        }
    }
}

/// One signal's part in a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Which.
    pub signal: Signal,
    /// What was measured: a sum over the pods, or a mean share for cpu and memory, a percentile in ms for latency, a
    /// share for errors.
    pub total: f64,
    /// What one pod should carry, or the objective.
    pub target: f64,
    /// Replicas that it asks for; for guards the ratio of measured to objective.
    pub demand: f64,
    /// Over which window, in ms.
    pub window: Millis,
    /// Pods without a sample.
    pub missing: i32,
}

/// A guard that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// G1: nothing is ready.
    NothingReady,
    /// G2: too few are ready for signals of single pods to raise the scale.
    TooFewReady,
    /// G3: servers fail.
    Errors,
    /// G4: calls are too slow.
    Latency,
    /// Sudden load.
    Panic,
    /// A gateway is silent, or pods have no sample.
    Missing,
    /// Each call takes longer than it used to.
    HoldTimeDegraded,
}

impl Guard {
    /// The word in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NothingReady => "NothingReady",
            Self::TooFewReady => "TooFewReady",
            Self::Errors => "Errors",
            Self::Latency => "Latency",
            Self::Panic => "Panic",
            Self::Missing => "Missing",
            Self::HoldTimeDegraded => "HoldTimeDegraded",
        }
    }
}
