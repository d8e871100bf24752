//! How many replicas each signal asks for (autoscaling.md section 4.1 steps 2 and 3).

use crate::autoscale::{
    decision::{Signal, Term},
    policy::{Policy, Target},
    time::Millis,
};

use super::sanitise::{Believed, Samples, Seen, Span};

/// What one signal asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Which.
    pub(super) signal: Signal,
    /// What was measured: a sum over the pods, or a mean share for cpu and memory.
    pub(super) total: f64,
    /// What one pod should carry.
    pub(super) target: f64,
    /// Replicas, where the question is whether to add: who is silent carries nothing.
    pub(super) up: f64,
    /// Replicas, where the question is whether to take away: who is silent carries as much as it should.
    pub(super) down: f64,
    /// Its weight.
    pub(super) weight: f64,
    /// Pods without a sample.
    pub(super) missing: i32,
    /// It is measured at pods, which a rollout or a crash loop distorts (guard G2).
    pub(super) of_pods: bool,
}

impl Demand {
    /// Replicas that it asks for while there are `n`: between both answers it asks for no change.
    pub(super) fn replicas(&self, n: f64) -> f64 {
        if self.up > n {
            self.up
        } else if self.down < n {
            self.down
        } else {
            n
        }
    }

    /// For status and events.
    pub(super) fn term(&self, n: f64, window: Millis) -> Term {
        Term {
            signal: self.signal,
            total: self.total,
            target: self.target,
            demand: self.replicas(n),
            window,
            missing: self.missing,
        }
    }
}

/// Which of the two windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The ordinary one.
    Stable,
    /// The short one.
    Panic,
}

/// All demands that are known over a window.
pub(super) fn demands(
    policy: &Policy,
    seen: &Seen,
    over: Over,
    baseline: Option<f64>,
    degraded: bool,
) -> Vec<Demand> {
    let signals = &policy.signals;
    let mut all = Vec::with_capacity(6);
    let span = seen.load.as_ref().and_then(|load| match over {
        Over::Stable => Some((load, &load.stable)),
        Over::Panic => load.panic.as_ref().map(|span| (load, span)),
    });
    if let Some((load, span)) = span {
        if let Some(target) = signals.concurrency {
            all.extend(concurrency(policy, target, load, span, baseline, degraded));
        } else if let (Some(queue), Some(waiting)) = (signals.queue, span.queue) {
            let target = Target { per_pod: queue.per_pod, weight: queue.weight };
            all.push(additive(Signal::QueueDepth, target, waiting));
        }
        if let (Some(target), Some(streams)) = (signals.connections, span.streams) {
            // A session and its stream are one connection, and either can stand alone.
            let open = streams.max(load.sessions.unwrap_or(0.0));
            all.push(additive(Signal::Connections, target, open));
        }
        if let (Some(target), Some(rate)) = (signals.request_rate, span.rate) {
            all.push(additive(Signal::RequestRate, target, rate));
        }
    }
    let shares = [(Signal::Cpu, signals.cpu, seen.cpu), (Signal::Memory, signals.memory, seen.memory)];
    for (signal, target, samples) in shares {
        all.extend(target.filter(|_| !samples.invalid()).map(|target| share(signal, target, samples)));
    }
    all
}

/// Whether a signal of the pods is asked for, and anybody measures it.
pub(super) fn pods_measured(policy: &Policy, seen: &Seen) -> bool {
    let signals = &policy.signals;
    (signals.cpu.is_some() && seen.cpu.measured) || (signals.memory.is_some() && seen.memory.measured)
}

/// Whether a signal of the pods is asked for and cannot be told.
pub(super) fn pods_invalid(policy: &Policy, seen: &Seen) -> bool {
    let signals = &policy.signals;
    (signals.cpu.is_some() && seen.cpu.invalid()) || (signals.memory.is_some() && seen.memory.invalid())
}

/// Whether some pod has no sample of a signal that is asked for.
pub(super) fn pods_missing(policy: &Policy, seen: &Seen) -> bool {
    let signals = &policy.signals;
    (signals.cpu.is_some() && seen.cpu.missing > 0) || (signals.memory.is_some() && seen.memory.missing > 0)
}

/// The weights of all signals that should be known. Pods' samples, only where there were any.
pub(super) fn asked(policy: &Policy, pods_known: bool) -> f64 {
    let s = &policy.signals;
    let queue = s.queue.filter(|_| s.concurrency.is_none()).map(|q| q.weight);
    let of_pods = [s.cpu, s.memory].into_iter().filter(|_| pods_known);
    let targets = [s.concurrency, s.connections, s.request_rate].into_iter().chain(of_pods);
    targets.flatten().map(|t| t.weight).chain(queue).sum()
}

/// Whether any signal of the gateways is asked for.
pub(super) fn wants_load(policy: &Policy) -> bool {
    let s = &policy.signals;
    s.concurrency.is_some()
        || s.queue.is_some()
        || s.connections.is_some()
        || s.request_rate.is_some()
        || s.latency.is_some()
        || s.errors.is_some()
}

fn additive(signal: Signal, target: Target, total: f64) -> Demand {
    let demand = total / target.per_pod;
    Demand {
        signal,
        total,
        target: target.per_pod,
        up: demand,
        down: demand,
        weight: target.weight,
        missing: 0,
        of_pods: false,
    }
}

/// Little's law. What comes in, at the time that a call takes while nothing is wrong, tells the load that there should
/// be, also where calls fail fast or are sent away; what runs and waits tells the load that there is.
fn concurrency(
    policy: &Policy,
    target: Target,
    load: &Believed,
    span: &Span,
    baseline: Option<f64>,
    degraded: bool,
) -> Option<Demand> {
    // While each call takes longer, what waits would not be served faster by more pods.
    let drain = policy.signals.queue.filter(|_| !degraded).zip(span.queue);
    let extra = drain.map_or(0.0, |(queue, waiting)| waiting / queue.drain_seconds);
    let driven = baseline.zip(span.rate).map(|(hold, rate)| (rate + extra) * hold);
    let there = span.in_flight.map(|in_flight| in_flight + span.queue.unwrap_or(0.0));
    let total = driven.into_iter().chain(there).reduce(f64::max)?;
    let mut demand = additive(Signal::Concurrency, target, total);
    demand.down = total.max(there.unwrap_or(0.0) + load.silent_in_flight) / target.per_pod;
    Some(demand)
}

/// A share of the request. Pods without a sample use nothing where the question is whether to add, and their target
/// where it is whether to take away; pods that start use nothing, and are not taken away while the others are busy.
fn share(signal: Signal, target: Target, samples: Samples) -> Demand {
    let up = samples.sum / target.per_pod;
    let mean = samples.sum / f64::from(samples.good);
    let starting = if mean >= target.per_pod { samples.unready } else { 0 };
    Demand {
        signal,
        total: mean,
        target: target.per_pod,
        up,
        down: up + f64::from(samples.missing + starting),
        weight: target.weight,
        missing: samples.missing,
        of_pods: true,
    }
}
