//! From signals to a wanted scale, before cooldown: demand, panic, guards, whole replicas. Not for the weighted sum.

use crate::autoscale::{
    decision::{Guard, LimitedBy, Signal, Term},
    policy::Combine,
    state::State,
};

use super::{
    View, baseline,
    combine::combine,
    demand::{self, Over, demands},
    guards::{self, Guards},
    quantise::quantise,
    slow, weighted,
};

/// What the signals say.
#[derive(Debug)]
pub(super) struct Measured {
    /// D, before guards; `None`: nothing is known.
    pub(super) demand: Option<f64>,
    /// What they ask for; N where nothing is known, and at zero.
    pub(super) wanted: i32,
    /// The bound that it would pass.
    pub(super) bound: Option<LimitedBy>,
    /// Each signal's part.
    pub(super) terms: Vec<Term>,
    /// Guards that stand.
    pub(super) guards: Guards,
    /// Sudden load, right now.
    pub(super) sudden: bool,
}

/// Measures all signals.
pub(super) fn measure(view: &View<'_>, state: &mut State) -> Measured {
    state.pod_samples_seen |= demand::pods_measured(view.policy, view.seen);
    let mut guards = Guards::default();
    guards::of_readiness(view, &mut guards);
    let mut measured = match view.policy.combine {
        Combine::WeightedSum(thresholds) => {
            weighted::measure(view, thresholds, state.pod_samples_seen, guards)
        }
        how => by_demand(view, how, state, guards),
    };
    guards::of_knowledge(view, state, &mut measured.guards);
    measured
}

fn by_demand(view: &View<'_>, how: Combine, state: &mut State, mut guards: Guards) -> Measured {
    let (policy, seen, n) = (view.policy, view.seen, f64::from(view.n));
    let degraded = baseline::degraded(seen, state);
    slow::observe(view, degraded, state);
    baseline::update(policy, seen, state, view.now);
    let few_ready = guards::few_ready(view);
    // Whether calls take longer is not known either where numbers were dropped.
    let no_drain = degraded || seen.dropped;
    let stable = demands(policy, seen, Over::Stable, state.baseline_hold, no_drain);
    let short = demands(policy, seen, Over::Panic, state.baseline_hold, no_drain);
    guards::of_calls(view, degraded, &mut guards);
    let asked = demand::asked(policy, state.pod_samples_seen);
    let over_stable = combine(how, &stable, n, few_ready, asked);
    let sudden_demand = combine(how, &short, n, few_ready, asked);
    let Some(over_stable) = over_stable else {
        return Measured {
            demand: None,
            wanted: view.n,
            bound: None,
            terms: Vec::new(),
            guards,
            sudden: false,
        };
    };
    let demand = guards::of_panic(view, over_stable, sudden_demand, state, &mut guards);
    let sudden = state.last_panic == Some(view.now);
    let raised = guards::raise(view, demand, state, &guards);
    let (wanted, bound) = if view.n > 0 { quantise(policy, raised, view.n) } else { (0, None) };
    // Whatever the demand of before is, without the guard there would be fewer: that is what holds the scale.
    let held =
        guards.has(Guard::Errors) && wanted == view.n && quantise(policy, demand, view.n.max(1)).0 < view.n;
    let bound = if held { Some(LimitedBy::ErrorGuard) } else { bound };
    let (shown, window) =
        if demand > over_stable { (&short, policy.windows.panic) } else { (&stable, policy.windows.stable) };
    let mut terms: Vec<Term> = shown.iter().map(|d| d.term(n, window)).collect();
    terms.sort_by(|a, b| b.demand.total_cmp(&a.demand));
    terms.extend(guard_terms(view));
    Measured { demand: Some(demand), wanted, bound, terms, guards, sudden }
}

/// Latency and errors: no demand, but a reason to hold. Their part is measured over objective.
fn guard_terms(view: &View<'_>) -> impl Iterator<Item = Term> {
    let signals = &view.policy.signals;
    let window = view.policy.windows.stable;
    let term = move |signal, total: f64, target: f64| Term {
        signal,
        total,
        target,
        demand: if target > 0.0 { total / target } else { 0.0 },
        window,
        missing: 0,
    };
    let load = view.seen.load.as_ref();
    let latency = signals.latency.zip(load.and_then(|l| l.latency_ms));
    let errors = signals.errors.zip(load.and_then(|l| l.errors));
    latency
        .map(|(l, ms)| term(Signal::Latency, ms, l.objective_ms))
        .into_iter()
        .chain(errors.map(|(e, share)| term(Signal::ErrorRate, share, e.threshold)))
}
