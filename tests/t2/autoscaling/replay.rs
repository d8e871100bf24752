//! Replays recorded looks of the autoscaler through our code, one by one: each starts from what the real one had read
//! and had done before, so that one difference is one difference.
//!
//! The slack: the controller-manager takes its time several times within a look and tells nobody. So a look that comes
//! out differently if it was [`SLACK`] earlier or later may have come out in any of these ways. Values, targets, bounds
//! and tolerances have none.

use mcp_fleet::autoscale::{
    behavior::{self, Behavior, Proposal, RatePolicy, Rules, Select, Unit},
    hpa::{self, Controller, Inputs, Metric, Sample},
    state::{Recommendation, ScaleEvent},
};

use super::{
    histories::{Direction, Plan},
    metrics_server::Answer,
    record::Sync,
};

/// Milliseconds between the answer that the test gave and the moments at which the controller-manager looks at its
/// clock, on a busy machine.
const SLACK: i64 = 300;

/// What the looks were.
#[derive(Debug, Default)]
pub struct Tally {
    /// All.
    looks: usize,
    /// Those that changed the scale.
    changes: usize,
    /// Those where our code has exactly one answer.
    exact: usize,
    /// Those that were held by a window or a policy.
    held: usize,
    /// Those that were answered with an error.
    errors: usize,
    /// Those without a question that should have had one.
    unasked: usize,
    /// Jumps to a bound.
    jumps: usize,
    /// Those that went through `Direct`'s code, too.
    direct: usize,
}

impl Tally {
    /// Whether so much was seen that an agreement says something.
    pub fn check(&self, n_fleets: usize, n_questions: usize) -> Result<(), String> {
        // The first look of a fleet, or the last, may lack its write of the scale or the status before it.
        let enough = self.looks * 10 >= n_fleets * n_questions * 9
            && self.changes >= n_fleets * 3
            && self.held >= n_fleets
            && self.errors >= n_fleets / 2
            && self.direct >= self.looks / 5
            && self.jumps >= 2
            && self.unasked * 50 <= self.looks
            && self.exact * 10 >= self.looks * 9;
        if enough { Ok(()) } else { Err(format!("too little was seen, or too little of it clear: {self:?}")) }
    }

    fn count(&mut self, plan: &Plan, sync: &Sync) {
        self.looks += 1;
        self.changes += usize::from(sync.wrote.is_some());
        let outside = !(plan.min..=plan.max).contains(&sync.spec[0]);
        match &sync.answer {
            Some(Answer::Error(_)) => self.errors += 1,
            None if outside => self.jumps += 1,
            None => self.unasked += 1,
            Some(Answer::Value(_)) => {}
        }
    }
}

/// What one look may have read.
#[derive(Clone, Copy, Debug)]
struct Read {
    spec: i32,
    status: i32,
    /// Thousandths; `None`: an error, or no answer.
    value: Option<i64>,
}

/// Code of ours that does what the controller does.
trait Port: Clone {
    /// One look: the scale that it wants, and whether a window or a policy held it.
    fn look(&mut self, spec: &hpa::Spec, read: Read, now: i64) -> (i32, bool);
    /// The scale was changed.
    fn changed(&mut self, from: i32, to: i32, now: i64);
}

/// The port of the controller.
impl Port for Controller {
    fn look(&mut self, spec: &hpa::Spec, read: Read, now: i64) -> (i32, bool) {
        let samples = [read.value.map_or(Sample::Failed, Sample::Object)];
        let inputs =
            Inputs { spec_replicas: read.spec, status_replicas: read.status, pods: &[], samples: &samples };
        let outcome = self.sync(spec, &inputs, now);
        (outcome.replicas, outcome.able.is_some() || outcome.limited.is_some())
    }

    fn changed(&mut self, _: i32, _: i32, _: i64) {}
}

/// What the actuator `Direct` does with a recommendation. It does not forget, as the controller does, a change of the
/// other direction that its own policies still count.
#[derive(Clone, Default)]
struct Direct {
    begun: bool,
    recommendations: Vec<Recommendation>,
    events: Vec<ScaleEvent>,
}

impl Port for Direct {
    fn look(&mut self, spec: &hpa::Spec, read: Read, now: i64) -> (i32, bool) {
        if !std::mem::replace(&mut self.begun, true) {
            behavior::begin(&mut self.recommendations, &spec.behavior, read.spec, now);
        }
        if let Some(bound) = behavior::jump(spec.min, spec.max, read.spec) {
            return (bound, false);
        }
        let Some(value) = read.value else { return (read.spec, false) };
        let Metric::AverageValue(target) = spec.metrics[0] else { return (read.spec, false) };
        let ratio = value as f64 / (target as f64 * f64::from(read.status));
        let within = (1.0 - spec.tolerance_down..=1.0 + spec.tolerance_up).contains(&ratio);
        let proposed = if within { read.status } else { (value as f64 / target as f64).ceil() as i32 };
        let proposal = Proposal::new((spec.min, spec.max), read.spec, proposed);
        let out = behavior::normalise(&spec.behavior, proposal, &mut self.recommendations, &self.events, now);
        (out.replicas, out.able.is_some() || out.limited.is_some())
    }

    fn changed(&mut self, from: i32, to: i32, now: i64) {
        behavior::record_scale(&mut self.events, from, to, now);
    }
}

/// Compares all looks at a fleet; the differences.
pub fn compare(plan: &Plan, syncs: &[Sync], tally: &mut Tally) -> Vec<String> {
    let spec = spec(plan);
    for sync in syncs {
        tally.count(plan, sync);
    }
    let replayed = replay(Controller::default(), &spec, syncs);
    tally.exact += replayed.exact;
    tally.held += replayed.held;
    let mut differences: Vec<String> =
        replayed.difference.map(|d| format!("port: {d}")).into_iter().collect();
    let longest = |rules: &Rules| rules.policies.iter().map(|p| p.period).max();
    if longest(&spec.behavior.up) == longest(&spec.behavior.down) {
        tally.direct += syncs.len();
        let replayed = replay(Direct::default(), &spec, syncs);
        differences.extend(replayed.difference.map(|d| format!("Direct: {d}")));
    }
    differences.into_iter().map(|d| format!("{} {d}\n  of {plan:?}", plan.name)).collect()
}

#[derive(Default)]
struct Replayed {
    exact: usize,
    held: usize,
    difference: Option<String>,
}

fn replay<P: Port>(mut port: P, spec: &hpa::Spec, syncs: &[Sync]) -> Replayed {
    let mut replayed = Replayed::default();
    let start = syncs.first().map(|s| s.at).unwrap_or_default();
    let since = |at: std::time::Duration| at.saturating_sub(start).as_millis() as i64;
    for (number, sync) in syncs.iter().enumerate() {
        let mut said = Vec::new();
        let mut agreed = None;
        for read in reads(sync) {
            for shift in [0, -SLACK, SLACK] {
                let mut port = port.clone();
                let (wants, was_held) = port.look(spec, read, since(sync.at) + shift);
                said.push((read, shift, wants, was_held));
                // What it did not write, stays.
                if wants == sync.wrote.map_or(read.spec, |(n, _)| n) && agreed.is_none() {
                    agreed = Some((port, read));
                }
            }
        }
        replayed.exact += usize::from(said.iter().all(|s| s.2 == said[0].2));
        replayed.held += usize::from(said[0].3);
        let Some((after, read)) = agreed else {
            let at = since(sync.at);
            replayed.difference = Some(format!(
                "look {number} at {at} ms: {sync:?}\n  ours (read, shift, wants, held): {said:?}"
            ));
            break;
        };
        port = after;
        if let Some((n, done)) = sync.wrote {
            port.changed(read.spec, n, since(done));
        }
    }
    replayed
}

/// Everything that it may have read.
fn reads(sync: &Sync) -> Vec<Read> {
    let value = match &sync.answer {
        Some(Answer::Value(value)) => Some(milli(value)),
        _ => None,
    };
    let of = |&spec: &i32| sync.status.iter().map(move |&status| Read { spec, status, value });
    sync.spec.iter().flat_map(of).collect()
}

/// Thousandths, rounded up, of a quantity as the test writes it.
fn milli(quantity: &str) -> i64 {
    match quantity.strip_suffix('m') {
        Some(m) => m.parse().unwrap_or_default(),
        // Four digits at most: what is left of the binary fraction is no fifth one.
        None => ((quantity.parse::<f64>().unwrap_or_default() * 10_000.0).round() / 10.0).ceil() as i64,
    }
}

fn spec(plan: &Plan) -> hpa::Spec {
    hpa::Spec {
        min: plan.min,
        max: plan.max,
        metrics: vec![Metric::AverageValue(plan.target_milli)],
        behavior: Behavior { up: rules(&plan.up), down: rules(&plan.down) },
        tolerance_up: plan.up.tolerance_milli as f64 / 1000.0,
        tolerance_down: plan.down.tolerance_milli as f64 / 1000.0,
    }
}

fn rules(direction: &Direction) -> Rules {
    let policies = direction.policies.iter().map(|(unit, value, seconds)| RatePolicy {
        unit: if *unit == "Pods" { Unit::Pods } else { Unit::Percent },
        value: *value,
        period: seconds * 1000,
    });
    let select = match direction.select {
        "Min" => Select::Min,
        "Disabled" => Select::Disabled,
        _ => Select::Max,
    };
    Rules { stabilization: direction.window * 1000, select, policies: policies.collect() }
}
