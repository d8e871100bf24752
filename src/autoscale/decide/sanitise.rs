//! What of a snapshot can be believed (autoscaling.md section 4.1 step 1). Numbers that are not finite, negative or
//! beyond all reason count as missing: never as zero, never as the last value, and nothing is taken away meanwhile.

use crate::autoscale::{
    load::{Completions, Latencies, Load, PodWindow, Window},
    policy::Policy,
    snapshot::Snapshot,
    time::Millis,
};

/// A mean or a sum over all pods above this is not believed: 1000 pods with 100,000 streams each.
pub(super) const BELIEVABLE: f64 = 1e8;
/// A count over a window above this is not believed.
const BELIEVABLE_COUNT: f64 = 1e10;
/// A share of a request above this is not believed: ten cores where a thousandth of one was asked for.
const BELIEVABLE_SHARE: f64 = 1e4;
/// A sample from so far in the future is not believed, in ms.
const FUTURE: Millis = 5_000;
/// Fewer calls than this in a window say nothing about how long a call takes, or whether a pod is broken.
const FEW_CALLS: f64 = 10.0;
/// A pod of whose calls such a share fails, while those of others do not, answers nothing and draws the calls.
const BLACK_HOLE: f64 = 0.5;

/// What can be believed.
#[derive(Debug)]
pub(super) struct Seen {
    /// R.
    pub(super) ready: i32,
    /// What the gateways said, if it is fresh and covers any time.
    pub(super) load: Option<Believed>,
    /// CPU of the pods.
    pub(super) cpu: Samples,
    /// Memory of the pods.
    pub(super) memory: Samples,
    /// A number was dropped.
    pub(super) dropped: bool,
}

/// What the gateways said.
#[derive(Debug)]
pub(super) struct Believed {
    /// The ordinary window.
    pub(super) stable: Span,
    /// The short window, if the samples cover half of it.
    pub(super) panic: Option<Span>,
    /// Calls that wait now.
    pub(super) waiting: Option<f64>,
    /// Sessions that live now.
    pub(super) sessions: Option<f64>,
    /// Gateways that should have reported and did not.
    pub(super) silent: u32,
    /// Calls in flight there.
    pub(super) silent_in_flight: f64,
    /// The samples reach back over the whole stable window.
    pub(super) complete: bool,
    /// Share of the calls that failed at the servers; `None` without calls.
    pub(super) errors: Option<f64>,
    /// The latency at the policy's percentile, in ms.
    pub(super) latency_ms: Option<f64>,
    /// How long a call holds its place, in seconds, black holes left out; `None` where too few calls ended.
    pub(super) hold: Option<f64>,
    /// Some pods fail nearly all calls, and others do not.
    pub(super) black_holes: bool,
}

/// One window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// What it covers, in seconds. 0 where there is one sample alone: then means are what it saw, and no rate is known.
    pub(super) seconds: f64,
    /// λ: offered calls per second, each once.
    pub(super) rate: Option<f64>,
    /// Mean of running calls.
    pub(super) in_flight: Option<f64>,
    /// Mean of waiting calls.
    pub(super) queue: Option<f64>,
    /// Mean of open streams.
    pub(super) streams: Option<f64>,
    /// Anything came in.
    pub(super) called: bool,
}

/// A share of a request, over the pods.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Samples {
    /// Ready pods with a sample.
    pub(super) good: i32,
    /// Ready pods without one.
    pub(super) missing: i32,
    /// Pods that are not ready.
    pub(super) unready: i32,
    /// Sum over the good ones.
    pub(super) sum: f64,
    /// Some pod has a number, believable or not: somebody measures.
    pub(super) measured: bool,
}

impl Samples {
    /// More than half of the pods have no sample, or there is none at all: nothing can be said.
    pub(super) fn invalid(self) -> bool {
        self.good == 0 || self.missing > self.good
    }
}

/// Takes numbers and notes whether one was dropped.
struct Sieve(bool);

impl Sieve {
    fn up_to(&mut self, value: f64, most: f64) -> Option<f64> {
        let good = value.is_finite() && (0.0..=most).contains(&value);
        self.0 |= !good;
        good.then_some(value)
    }

    fn mean(&mut self, value: f64) -> Option<f64> {
        self.up_to(value, BELIEVABLE)
    }

    fn count(&mut self, value: f64) -> Option<f64> {
        self.up_to(value, BELIEVABLE_COUNT)
    }

    fn completions(&mut self, c: &Completions) -> Option<Completions> {
        Some(Completions {
            ok: self.count(c.ok)?,
            overload: self.count(c.overload)?,
            upstream: self.count(c.upstream)?,
            client: self.count(c.client)?,
            tool: self.count(c.tool)?,
        })
    }
}

impl Seen {
    /// Looks through a snapshot.
    pub(super) fn new(policy: &Policy, snapshot: &Snapshot) -> Self {
        let mut sieve = Sieve(false);
        let fresh = snapshot
            .load
            .as_ref()
            .filter(|load| (-FUTURE..=policy.windows.max_sample_age).contains(&load.age));
        let load = fresh.and_then(|load| believe(policy, load, &mut sieve));
        let broken = load.as_ref().is_some_and(|l| l.black_holes);
        let mut seen = Self {
            ready: snapshot.ready(),
            load,
            cpu: Samples::default(),
            memory: Samples::default(),
            dropped: false,
        };
        for pod in &snapshot.pods {
            // A black hole has nothing to compute: its low use says nothing about the others.
            let hole = broken
                && fresh
                    .and_then(|l| l.stable.pods.get(&pod.uid))
                    .is_some_and(|w| is_black_hole(&w.completions));
            for (samples, value) in [(&mut seen.cpu, pod.cpu), (&mut seen.memory, pod.memory)] {
                samples.measured |= value.is_some();
                let value = value.and_then(|v| sieve.up_to(v, BELIEVABLE_SHARE));
                match value {
                    _ if !pod.ready => samples.unready += 1,
                    Some(value) if !hole => {
                        samples.good += 1;
                        samples.sum += value;
                    }
                    _ => samples.missing += 1,
                }
            }
        }
        seen.dropped = sieve.0;
        seen
    }

    /// Nobody calls, waits or has anything open, as far as complete samples of all gateways tell.
    pub(super) fn idle(&self) -> bool {
        let Some(load) = self.load.as_ref().filter(|l| l.complete && l.silent == 0) else { return false };
        let nothing = |value: Option<f64>| value.is_some_and(|v| v <= 0.0);
        let quiet = |span: &Span| {
            !span.called && nothing(span.in_flight) && nothing(span.queue) && nothing(span.streams)
        };
        !self.dropped
            && nothing(load.waiting)
            && nothing(load.sessions)
            && quiet(&load.stable)
            && load.panic.as_ref().is_none_or(quiet)
    }
}

fn believe(policy: &Policy, load: &Load, sieve: &mut Sieve) -> Option<Believed> {
    let stable = span(&load.stable, sieve)?;
    let enough = policy.windows.panic as f64 / 2000.0;
    let completions = sieve.completions(&load.stable.completions);
    let errors = completions.filter(|c| c.served() > 0.0).map(|c| (c.upstream / c.served()).min(1.0));
    let latency_ms =
        policy.signals.latency.and_then(|l| percentile(&load.stable.latency, l.percentile, sieve));
    let (hold, black_holes) = hold(&load.stable, &stable, completions, sieve);
    Some(Believed {
        stable,
        panic: span(&load.panic, sieve).filter(|s| s.seconds >= enough),
        waiting: sieve.mean(load.waiting),
        sessions: sieve.mean(load.sessions),
        silent: load.silent,
        silent_in_flight: sieve.mean(load.silent_in_flight).unwrap_or(0.0),
        complete: load.complete,
        errors,
        latency_ms,
        hold,
        black_holes,
    })
}

fn span(window: &Window, sieve: &mut Sieve) -> Option<Span> {
    let seconds = sieve.up_to(window.seconds, 1e6)?;
    let [arrivals, admitted, shed, retries] =
        [window.arrivals, window.admitted, window.shed, window.retries].map(|v| sieve.count(v));
    let rate = match (admitted, shed, retries) {
        (Some(admitted), Some(shed), Some(retries)) if seconds > 0.0 => {
            Some((admitted + shed - retries).max(0.0) / seconds)
        }
        _ => None,
    };
    let called = [arrivals, admitted, shed].iter().any(|v| v.is_some_and(|v| v > 0.0));
    Some(Span {
        seconds,
        rate,
        in_flight: sieve.mean(window.in_flight),
        queue: sieve.mean(window.queue),
        streams: sieve.mean(window.streams),
        called,
    })
}

fn percentile(latencies: &Latencies, percent: f64, sieve: &mut Sieve) -> Option<f64> {
    let good = latencies.0.iter().all(|n| n.is_finite() && (0.0..=BELIEVABLE_COUNT).contains(n));
    sieve.0 |= !good;
    if good { latencies.percentile(percent) } else { None }
}

fn is_black_hole(c: &Completions) -> bool {
    c.served() >= FEW_CALLS && c.upstream >= BLACK_HOLE * c.served()
}

/// How long a call holds its place (Little: mean in flight over rate of ends), and whether there are black holes, which
/// are left out. A call that failed says nothing of how long a call takes: its end does not count.
fn hold(
    window: &Window,
    span: &Span,
    completions: Option<Completions>,
    sieve: &mut Sieve,
) -> (Option<f64>, bool) {
    let seconds = |in_flight: f64, c: &Completions| {
        let ends = c.ok + c.client + c.tool;
        (ends >= FEW_CALLS).then(|| in_flight * span.seconds / ends)
    };
    let mut good = PodWindow::default();
    let (mut holes, mut others) = (0, 0);
    for pod in window.pods.values() {
        let (Some(in_flight), Some(c)) = (sieve.mean(pod.in_flight), sieve.completions(&pod.completions))
        else {
            continue;
        };
        if is_black_hole(&c) {
            holes += 1;
            continue;
        }
        others += i32::from(c.served() > 0.0);
        good.in_flight += in_flight;
        good.completions.ok += c.ok;
        good.completions.client += c.client;
        good.completions.tool += c.tool;
    }
    if others > 0 {
        return (seconds(good.in_flight, &good.completions), holes > 0);
    }
    let hold = completions.zip(span.in_flight).and_then(|(c, in_flight)| seconds(in_flight, &c));
    (hold, false)
}
