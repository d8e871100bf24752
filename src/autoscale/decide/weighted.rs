//! The weighted sum with thresholds and single steps (autoscaling.md section 4.2), preset `Classic`. Latency and errors
//! are summands here, and guard nothing: the formula is kept as it is known, with its defects.

use crate::autoscale::{
    decision::{LimitedBy, Signal, Term},
    policy::{Target, Thresholds},
};

use super::{View, guards::Guards, measure::Measured, quantise::floor};

/// A ratio counts no more than this: at 1 a fleet without errors could never reach the upper threshold.
const MOST: f64 = 10.0;

/// One summand: a weight, and what was measured over what should be.
struct Part {
    signal: Signal,
    weight: f64,
    measured: f64,
    reference: f64,
    missing: i32,
}

impl Part {
    /// Its part of u.
    fn value(&self) -> f64 {
        self.weight * (self.measured / self.reference).min(MOST)
    }
}

/// u from all that is known, D = N·u/up, and one step if u lies beyond a threshold.
pub(super) fn measure(
    view: &View<'_>,
    thresholds: Thresholds,
    pods_known: bool,
    mut guards: Guards,
) -> Measured {
    let (parts, known) = parts(view, pods_known);
    if parts.is_empty() {
        return Measured {
            demand: None,
            wanted: view.n,
            bound: None,
            terms: Vec::new(),
            guards,
            sudden: false,
        };
    }
    // Summed in the order of the parts, so that the same load always gives the same digits.
    let u: f64 = parts.iter().map(Part::value).sum();
    let demand = f64::from(view.n.max(1)) * u / thresholds.up;
    let (wanted, bound) = step(view, thresholds, u);
    if !known {
        guards.no_down.get_or_insert(LimitedBy::MissingMetrics);
    }
    let window = view.policy.windows.stable;
    let mut terms: Vec<Term> = parts
        .iter()
        .map(|part| Term {
            signal: part.signal,
            total: part.measured,
            target: part.reference,
            demand: part.value(),
            window,
            missing: part.missing,
        })
        .collect();
    terms.sort_by(|a, b| b.demand.total_cmp(&a.demand));
    Measured { demand: Some(demand), wanted, bound, terms, guards, sudden: false }
}

fn step(view: &View<'_>, thresholds: Thresholds, u: f64) -> (i32, Option<LimitedBy>) {
    let (n, policy) = (view.n, view.policy);
    if n == 0 {
        (0, None)
    } else if u > thresholds.up {
        let wanted = n.saturating_add(thresholds.step.max(1));
        (wanted.min(policy.max), (wanted > policy.max).then_some(LimitedBy::TooManyReplicas))
    } else if u < thresholds.down {
        let wanted = n.saturating_sub(thresholds.step.max(1));
        (wanted.max(floor(policy)), (wanted < policy.min).then_some(LimitedBy::TooFewReplicas))
    } else {
        (n, None)
    }
}

/// All summands that are known, and whether those are all that are asked for.
fn parts(view: &View<'_>, pods_known: bool) -> (Vec<Part>, bool) {
    let mut parts = Vec::with_capacity(8);
    let of_gateways = of_gateways(view, &mut parts);
    let of_pods = of_pods(view, pods_known, &mut parts);
    (parts, of_gateways && of_pods)
}

/// What the gateways say. Sums over the pods are divided by N: as sums they would not fall when pods are added.
fn of_gateways(view: &View<'_>, parts: &mut Vec<Part>) -> bool {
    let signals = &view.policy.signals;
    let load = view.seen.load.as_ref();
    let stable = load.map(|l| &l.stable);
    let target = |t: Target| (t.weight, t.per_pod);
    // Without calls there is neither latency nor an error; that is known.
    let of_calls = |value: Option<f64>| load.map(|_| value.unwrap_or(0.0));
    let each = f64::from(view.n.max(1));
    let per_pod = |value: Option<f64>| value.map(|v| v / each);
    let open = load.and_then(|l| Some(l.stable.streams?.max(l.sessions.unwrap_or(0.0))));
    let asked = [
        (
            Signal::Latency,
            signals.latency.map(|l| (l.weight, l.objective_ms)),
            of_calls(load.and_then(|l| l.latency_ms)),
        ),
        (Signal::ErrorRate, signals.errors.map(|e| (e.weight, 1.0)), of_calls(load.and_then(|l| l.errors))),
        (Signal::Connections, signals.connections.map(target), per_pod(open)),
        (
            Signal::QueueDepth,
            signals.queue.map(|q| (q.weight, q.per_pod)),
            per_pod(stable.and_then(|s| s.queue)),
        ),
        (Signal::Concurrency, signals.concurrency.map(target), per_pod(stable.and_then(|s| s.in_flight))),
        (Signal::RequestRate, signals.request_rate.map(target), per_pod(stable.and_then(|s| s.rate))),
    ];
    let mut known = true;
    for (signal, asked, measured) in asked {
        let Some((weight, reference)) = asked else { continue };
        match measured {
            Some(measured) => parts.push(Part { signal, weight, measured, reference, missing: 0 }),
            None => known = false,
        }
    }
    known
}

/// What the pods say. Those without a sample use nothing where the question is whether to add; meanwhile none is taken
/// away, unless there never was a sample.
fn of_pods(view: &View<'_>, pods_known: bool, parts: &mut Vec<Part>) -> bool {
    let (signals, seen) = (&view.policy.signals, view.seen);
    let mut known = true;
    for (signal, asked, samples) in
        [(Signal::Cpu, signals.cpu, seen.cpu), (Signal::Memory, signals.memory, seen.memory)]
    {
        let Some(target) = asked else { continue };
        known &= samples.missing == 0 || !pods_known;
        if !samples.invalid() {
            let measured = samples.sum / f64::from(samples.good + samples.missing);
            let (weight, reference) = (target.weight, target.per_pod);
            parts.push(Part { signal, weight, measured, reference, missing: samples.missing });
        }
    }
    known
}
