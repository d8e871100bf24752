//! Policies that are compared: ours, and those of others as their sources say.

mod cpu;
mod hpa;
mod kpa;
mod ours;
mod wpa;

use clap::ValueEnum;

use super::world::{Micros, VictimRule};
use crate::autoscale::{load::Load, policy::Policy};

/// What a policy sees.
pub(crate) struct View<'a> {
    /// Now.
    pub(crate) now: Micros,
    /// `spec.replicas`.
    pub(crate) replicas: i32,
    /// Replicas of the Deployment.
    pub(crate) deployed: i32,
    /// Pods that have not been told to end.
    pub(crate) pods: &'a [PodFacts],
    /// What the gateways reported; `None` without fresh reports.
    pub(crate) load: Option<&'a Load>,
}

impl View<'_> {
    /// Ready pods.
    pub(crate) fn ready(&self) -> i32 {
        self.pods.iter().filter(|p| p.ready).count() as i32
    }

    /// `status.replicas`.
    pub(crate) fn status_replicas(&self) -> i32 {
        self.deployed.min(self.pods.len() as i32)
    }
}

/// A pod as the API server and the metrics server show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodFacts {
    pub(crate) id: u32,
    pub(crate) ready: bool,
    pub(crate) created: Micros,
    /// When it became ready, or unready.
    pub(crate) turned: Micros,
    /// Share of its core over the last 15 s, and when that was read.
    pub(crate) cpu: Option<(Micros, f64)>,
}

/// A policy at work on one fleet.
pub(crate) trait Scaler {
    /// Called once a second; what `spec.replicas` should be now, or nothing.
    fn tick(&mut self, view: &View<'_>) -> Option<i32>;

    /// Replicas of the Deployment where `spec.replicas` is `spec`.
    fn deployed(&self, spec: i32) -> i32 {
        spec
    }

    /// Its process starts anew.
    fn restart(&mut self, now: Micros);

    /// D / N as it sees it.
    fn score(&self) -> Option<f64> {
        None
    }
}

/// Policies by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// The fleet's own policy through an HPA; without a fleet the preset Balanced.
    Balanced,
    /// The same, written by the operator itself.
    Direct,
    /// An HPA on CPU, 70 % of the request.
    HpaCpu,
    /// An HPA on running and waiting calls, as KEDA or a metrics adapter would feed it.
    HpaConcurrency,
    /// The Knative autoscaler on the same.
    Kpa,
    /// Datadog's watermark autoscaler on the same.
    Wpa,
    /// The preset Classic: the weighted formula.
    Weighted,
}

impl Kind {
    /// What a comparison shows unless told otherwise.
    pub const DEFAULT: [Self; 6] =
        [Self::Balanced, Self::HpaCpu, Self::HpaConcurrency, Self::Kpa, Self::Wpa, Self::Weighted];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Direct => "direct",
            Self::HpaCpu => "hpa-cpu",
            Self::HpaConcurrency => "hpa-concurrency",
            Self::Kpa => "kpa",
            Self::Wpa => "wpa",
            Self::Weighted => "weighted",
        }
    }

    /// Whether it is the fleet's own policy, in one way or another.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Balanced | Self::Direct)
    }

    /// Whether it can go to zero.
    pub(crate) fn to_zero(self) -> bool {
        matches!(self, Self::Balanced | Self::Direct | Self::Kpa)
    }

    /// Which pods it takes away. Only ours name them.
    pub(crate) fn victims(self) -> VictimRule {
        match self {
            Self::Balanced | Self::Direct | Self::Weighted => VictimRule::Chosen,
            _ => VictimRule::Newest,
        }
    }

    /// At work, with the bounds of `policy`. `per_pod`: calls per pod that the others aim at. `phase`: when in its period
    /// it looks first.
    pub(crate) fn scaler(self, policy: &Policy, per_pod: f64, phase: Micros) -> Box<dyn Scaler> {
        let (min, max) = (policy.min.max(1), policy.max);
        match self {
            Self::Balanced => Box::new(ours::Ours::through_hpa(policy.clone(), phase)),
            Self::Direct => Box::new(ours::Ours::direct(policy.clone())),
            Self::HpaCpu => Box::new(cpu::HpaCpu::new(min, max, phase)),
            Self::HpaConcurrency => Box::new(hpa::HpaConcurrency::new(min, max, per_pod, phase)),
            Self::Kpa => Box::new(kpa::Kpa::new(policy.min, max, per_pod)),
            Self::Wpa => Box::new(wpa::Wpa::new(min, max, per_pod, phase)),
            Self::Weighted => Box::new(ours::Ours::through_hpa(Policy::classic(min, max), phase)),
        }
    }
}

/// A period: true once in each, first at `phase`.
#[derive(Clone, Copy, Debug)]
struct Period {
    next: Micros,
    every: Micros,
}

impl Period {
    fn new(phase: Micros, every: Micros) -> Self {
        Self { next: phase, every }
    }

    fn due(&mut self, now: Micros) -> bool {
        let due = now >= self.next;
        if due {
            self.next += self.every;
        }
        due
    }
}
