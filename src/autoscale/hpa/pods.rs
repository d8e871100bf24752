//! Pods of a metric: measured, unready, missing, ignored (`groupPods`), and the ratio of use to target.

use crate::autoscale::time::Millis;

/// For so long after its start a pod's CPU counts only if it is ready, and measured since it became ready
/// (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION: Millis = 300_000;
/// A pod that turned unready within this after its start was never ready
/// (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const INITIAL_READINESS_DELAY: Millis = 30_000;

/// What the controller sees of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodView {
    /// It has a deletion timestamp, or failed.
    pub ignored: bool,
    /// Phase Pending.
    pub pending: bool,
    /// Condition Ready.
    pub ready: bool,
    /// `status.startTime`.
    pub started: Millis,
    /// When condition Ready changed last.
    pub turned: Millis,
    /// Request of the resource, in thousandths; 0: none.
    pub request: i64,
}

/// A pod's sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodMetric {
    /// Use, in thousandths.
    pub value: i64,
    /// The end of the time that it covers.
    pub at: Millis,
    /// How long that is.
    pub window: Millis,
}

/// Which rules count.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A mean against a target in thousandths.
    Plain(i64),
    /// CPU against percent of the request.
    Cpu(i32),
    /// Another resource against percent of the request.
    Resource(i32),
}

/// Use and request.
#[derive(Clone, Copy)]
pub(super) struct Measured {
    value: i64,
    request: i64,
}

/// Pods by what is known of them.
pub(super) struct Groups {
    pub(super) measured: Vec<Measured>,
    /// Requests of pods without a sample.
    pub(super) missing: Vec<i64>,
    /// Requests of pods that are not ready.
    pub(super) unready: Vec<i64>,
    /// Some pod has no request: an error for a percentage.
    without_request: bool,
}

/// `getReadyPodsCount`.
pub(super) fn ready(pods: &[PodView]) -> i32 {
    pods.iter().filter(|p| !p.ignored && !p.pending && p.ready).count() as i32
}

/// `groupPods`.
pub(super) fn group(pods: &[PodView], values: &[Option<PodMetric>], kind: Kind, now: Millis) -> Groups {
    let mut groups = Groups {
        measured: Vec::new(),
        missing: Vec::new(),
        unready: Vec::new(),
        without_request: pods.iter().any(|p| p.request == 0),
    };
    for (i, pod) in pods.iter().enumerate().filter(|(_, pod)| !pod.ignored) {
        let sample = values.get(i).copied().flatten();
        match sample {
            _ if pod.pending => groups.unready.push(pod.request),
            None => groups.missing.push(pod.request),
            Some(sample) if matches!(kind, Kind::Cpu(_)) && warming_up(pod, sample, now) => {
                groups.unready.push(pod.request);
            }
            Some(sample) => groups.measured.push(Measured { value: sample.value, request: pod.request }),
        }
    }
    groups
}

fn warming_up(pod: &PodView, sample: PodMetric, now: Millis) -> bool {
    if pod.started + CPU_INITIALIZATION > now {
        !pod.ready || sample.at < pod.turned + sample.window
    } else {
        !pod.ready && pod.started + INITIAL_READINESS_DELAY > pod.turned
    }
}

impl Groups {
    /// Use by target; `None` without any sample, or without a request that a percentage needs.
    pub(super) fn ratio(&self, kind: Kind) -> Option<f64> {
        let total: i64 = self.measured.iter().map(|m| m.value).sum();
        let percent = match kind {
            Kind::Plain(target) => {
                let mean = total.checked_div(self.measured.len() as i64)?;
                return Some(mean as f64 / target as f64);
            }
            Kind::Cpu(percent) | Kind::Resource(percent) => percent,
        };
        if self.without_request {
            return None;
        }
        let requests: i64 = self.measured.iter().map(|m| m.request).sum();
        // A whole number of percent, cut off.
        let used = (total * 100).checked_div(requests)?;
        Some(used as f64 / f64::from(percent))
    }

    /// On the way down: at the target, or for a percentage with all that they requested, or the target if that is more.
    pub(super) fn count_missing_as_busy(&mut self, kind: Kind) {
        let value = |request: i64| match kind {
            Kind::Plain(target) => target,
            Kind::Cpu(percent) | Kind::Resource(percent) => request * i64::from(percent.max(100)) / 100,
        };
        self.measured.extend(self.missing.iter().map(|r| Measured { value: value(*r), request: *r }));
    }

    /// On the way up: without any use.
    pub(super) fn count_missing_as_idle(&mut self) {
        self.measured.extend(self.missing.iter().map(|r| Measured { value: 0, request: *r }));
    }

    /// On the way up: without any use.
    pub(super) fn count_unready_as_idle(&mut self) {
        self.measured.extend(self.unready.iter().map(|r| Measured { value: 0, request: *r }));
    }
}
