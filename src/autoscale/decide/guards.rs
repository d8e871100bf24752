//! Guards (autoscaling.md section 4.1 steps 5 and 6): what forbids to take away, and what only may raise the demand
//! with a reason. They are checked in a fixed order, and all that stand are told.

use crate::autoscale::{
    decision::{Guard, LimitedBy},
    policy::Role,
    state::State,
    time::Millis,
};

use super::{View, demand, quantise::whole};

/// From this share of its target on a pod counts as saturated: evidence without which latency raises nothing.
const SATURATED: f64 = 0.7;

/// Guards that stand, in their order.
#[derive(Debug, Default)]
pub(super) struct Guards {
    /// All of them.
    pub(super) standing: Vec<Guard>,
    /// The first that forbids to take away.
    pub(super) no_down: Option<LimitedBy>,
    /// Until when, where that is known.
    pub(super) until: Option<Millis>,
    /// Not enough has been seen since the start.
    pub(super) warming: bool,
    /// Until when, where that is known.
    pub(super) warm_at: Option<Millis>,
}

impl Guards {
    fn stand(&mut self, guard: Guard) {
        self.standing.push(guard);
    }

    fn forbid(&mut self, guard: Guard, why: LimitedBy) {
        self.stand(guard);
        self.no_down.get_or_insert(why);
    }

    /// Nothing is taken away.
    pub(super) fn forbids_down(&self) -> bool {
        self.no_down.is_some() || self.warming
    }

    /// Whether a guard stands.
    pub(super) fn has(&self, guard: Guard) -> bool {
        self.standing.contains(&guard)
    }
}

/// The guards that hold for every way to combine signals: what is not known is not taken away.
pub(super) fn of_knowledge(view: &View<'_>, state: &State, guards: &mut Guards) {
    let (policy, seen) = (view.policy, view.seen);
    let wants_load = demand::wants_load(policy);
    let load_missing = wants_load && seen.load.as_ref().is_none_or(|l| l.silent > 0);
    // Where no sample of a pod was ever seen there is no metrics server; the gateways' signals have to do. Samples that
    // are lost are another matter: a fleet that is busy with computing would look idle.
    let pods_lost = demand::pods_invalid(policy, seen) && state.pod_samples_seen;
    if load_missing || seen.dropped || pods_lost {
        guards.forbid(Guard::Missing, LimitedBy::MissingMetrics);
    } else if demand::pods_missing(policy, seen) {
        guards.stand(Guard::Missing);
    }
    let since = state.since.unwrap_or(view.now);
    let warm_at = since.saturating_add(policy.windows.stable);
    guards.warm_at = (view.now < warm_at).then_some(warm_at);
    let incomplete = wants_load && !seen.load.as_ref().is_some_and(|l| l.complete);
    guards.warming = guards.warm_at.is_some() || incomplete;
}

/// G1 and G2: pods that do not serve.
pub(super) fn of_readiness(view: &View<'_>, guards: &mut Guards) {
    if view.n > 0 && view.seen.ready == 0 {
        guards.forbid(Guard::NothingReady, LimitedBy::AllPodsUnready);
    } else if few_ready(view) {
        guards.stand(Guard::TooFewReady);
    }
}

/// Whether too few pods are ready for signals of single pods to raise the scale (G2).
pub(super) fn few_ready(view: &View<'_>) -> bool {
    f64::from(view.seen.ready) < view.policy.min_available * f64::from(view.n)
}

/// G3, G4 and the hold time: what the calls say.
pub(super) fn of_calls(view: &View<'_>, degraded: bool, guards: &mut Guards) {
    let Some(load) = &view.seen.load else { return };
    let signals = &view.policy.signals;
    let failing = signals.errors.is_some_and(|e| load.errors.is_some_and(|share| share >= e.threshold));
    if failing || load.black_holes {
        guards.forbid(Guard::Errors, LimitedBy::ErrorGuard);
    }
    if signals.latency.is_some_and(|l| load.latency_ms.is_some_and(|ms| ms > l.objective_ms)) {
        guards.forbid(Guard::Latency, LimitedBy::LatencyGuard);
    }
    if degraded {
        guards.forbid(Guard::HoldTimeDegraded, LimitedBy::HoldTimeDegraded);
    }
}

/// Step 5: the demand with sudden load, and no decrease until one stable window after it.
pub(super) fn of_panic(
    view: &View<'_>,
    stable: f64,
    short: Option<f64>,
    state: &mut State,
    guards: &mut Guards,
) -> f64 {
    let windows = &view.policy.windows;
    let ready = f64::from(view.seen.ready.max(1));
    let sudden = short.filter(|d| f64::from(whole(*d)) / ready >= windows.panic_threshold);
    if sudden.is_some() {
        state.last_panic = Some(view.now);
    }
    if let Some(last) = state.last_panic {
        let until = last.saturating_add(windows.stable);
        if view.now < until {
            if guards.no_down.is_none() {
                guards.until = Some(until);
            }
            guards.forbid(Guard::Panic, LimitedBy::PanicHold);
        }
    }
    sudden.map_or(stable, |d| d.max(stable))
}

/// What guards make of a demand: not less than before the servers failed, and more where calls are slow because the
/// pods are full.
pub(super) fn raise(view: &View<'_>, demand: f64, state: &mut State, guards: &Guards) -> f64 {
    if guards.has(Guard::Errors) {
        return demand.max(state.last_good_demand.unwrap_or(0.0));
    }
    if !view.seen.dropped {
        state.last_good_demand = Some(demand);
    }
    boost(view).map_or(demand, |boosted| demand.max(boosted))
}

/// G4 as a boost. Only while all pods are ready: those that start are the answer already, and a boost on a boost would
/// go to the upper bound within seconds.
fn boost(view: &View<'_>) -> Option<f64> {
    let latency = view.policy.signals.latency.filter(|l| l.role == Role::Boost)?;
    let load = view.seen.load.as_ref()?;
    let ms = load.latency_ms.filter(|ms| *ms > latency.objective_ms)?;
    let n = f64::from(view.n);
    if view.n == 0 || view.seen.ready < view.n || !saturated(view) {
        return None;
    }
    Some(n * (ms / latency.objective_ms).min(1.0 + latency.max_boost))
}

fn saturated(view: &View<'_>) -> bool {
    let Some(load) = &view.seen.load else { return false };
    let waits = load.stable.queue.is_some_and(|q| q > 0.0);
    let full =
        view.policy.signals.concurrency.zip(load.stable.in_flight).is_some_and(|(target, in_flight)| {
            in_flight >= SATURATED * target.per_pod * f64::from(view.seen.ready)
        });
    let cpu = view.seen.cpu;
    let busy = cpu.good > 0 && cpu.sum >= SATURATED * f64::from(cpu.good + cpu.missing);
    waits || full || busy
}
