//! The rules of section 6.2 one by one, and trajectories against `behavior`.

use super::*;
use crate::autoscale::{
    behavior::{self, Proposal, RatePolicy, Rules, Select, Unit},
    state::{Recommendation, ScaleEvent},
};

const SECOND: Millis = 1000;

fn spec(metric: Metric) -> Spec {
    let at_once = || Rules {
        stabilization: 0,
        select: Select::Max,
        policies: vec![RatePolicy { unit: Unit::Pods, value: 1000, period: 1000 }],
    };
    Spec { behavior: Behavior { up: at_once(), down: at_once() }, ..Spec::of(1, 100, metric) }
}

fn pod() -> PodView {
    PodView {
        ignored: false,
        pending: false,
        ready: true,
        started: -600_000,
        turned: -590_000,
        request: 1000,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an entry of a list with gaps")]
fn used(value: i64) -> Option<PodMetric> {
    Some(PodMetric { value, at: 0, window: 15_000 })
}

/// N after one sync of an Object metric; status.replicas is `status`.
fn object(spec: &Spec, replicas: i32, status: i32, value: i64) -> i32 {
    let pods = vec![pod(); replicas as usize];
    let inputs = Inputs {
        spec_replicas: replicas,
        status_replicas: status,
        pods: &pods,
        samples: &[Sample::Object(value)],
    };
    Controller::default().sync(spec, &inputs, 0).replicas
}

/// N after one sync of a metric of pods.
fn by_pods(metric: Metric, pods: &[PodView], values: &[Option<PodMetric>]) -> Outcome {
    let inputs = Inputs {
        spec_replicas: pods.len() as i32,
        status_replicas: pods.len() as i32,
        pods,
        samples: &[Sample::Pods(values.to_vec())],
    };
    Controller::default().sync(&spec(metric), &inputs, 0)
}

#[test]
fn values_round_up_to_thousandths() {
    assert_eq!(milli(7.0), 7000);
    assert_eq!(milli(10.0004), 10_001);
    let exact = Spec { tolerance_up: 0.0, tolerance_down: 0.0, ..spec(Metric::AverageValue(1000)) };
    assert_eq!(object(&exact, 10, 10, milli(10.0004)), 11);
}

#[test]
fn average_value_divides_by_status_and_proposes_it() {
    let ours = spec(Metric::AverageValue(1000));
    assert_eq!(object(&ours, 4, 4, 7000), 7);
    assert_eq!(object(&ours, 10, 10, 11_000), 10, "1.1 is inside");
    assert_eq!(object(&ours, 10, 10, 12_000), 12);
    assert_eq!(object(&ours, 17, 20, 18_000), 20, "0.9 is inside: what status says, above spec");
    assert_eq!(object(&ours, 3, 0, 5000), 5, "status 0");
    assert_eq!(object(&ours, 3, 0, 0), 1, "0 / 0 is outside");
    let exact = Spec { tolerance_up: 0.0, tolerance_down: 0.0, ..ours };
    assert_eq!(object(&exact, 20, 20, 21_000), 21);
    let one_way = Spec { tolerance_up: 0.0, tolerance_down: 0.5, ..exact };
    assert_eq!(object(&one_way, 20, 20, 21_000), 21);
    assert_eq!(object(&one_way, 20, 20, 11_000), 20);
}

#[test]
fn value_multiplies_ready_pods() {
    let score = spec(Metric::Value(1000));
    assert_eq!(object(&score, 4, 4, 1500), 6);
    assert_eq!(object(&score, 4, 4, 1100), 4);
    let mut pods = vec![pod(); 4];
    let mut sync = |unready: usize| {
        pods.iter_mut().take(unready).for_each(|p| p.ready = false);
        let inputs =
            Inputs { spec_replicas: 4, status_replicas: 4, pods: &pods, samples: &[Sample::Object(1500)] };
        Controller::default().sync(&score, &inputs, 0).replicas
    };
    assert_eq!(sync(2), 3, "half unready: down, although 1.5 times the target is used");
    assert_eq!(sync(4), 1, "none ready: down to the minimum");
}

#[test]
fn zero_stops_and_bounds_come_without_metrics() {
    let ours = spec(Metric::AverageValue(1000));
    let sync = |replicas| {
        let inputs = Inputs {
            spec_replicas: replicas,
            status_replicas: replicas,
            pods: &[],
            samples: &[Sample::Failed],
        };
        Controller::default().sync(&ours, &inputs, 0)
    };
    assert_eq!((sync(0).replicas, sync(0).active), (0, Active::Disabled));
    assert_eq!((sync(101).replicas, sync(101).active), (100, Active::Unlooked));
    assert_eq!((sync(5).replicas, sync(5).active), (5, Active::Failed));
    let three = Spec { min: 3, ..ours.clone() };
    let inputs =
        Inputs { spec_replicas: 2, status_replicas: 2, pods: &[], samples: &[Sample::Object(90_000)] };
    assert_eq!(Controller::default().sync(&three, &inputs, 0).replicas, 3, "to the bound first");
}

#[test]
fn the_greatest_of_several_and_no_way_down_beside_a_failure() {
    let two =
        Spec { metrics: vec![Metric::AverageValue(1000), Metric::Value(1000)], ..spec(Metric::Value(1000)) };
    let pods = [pod(); 4];
    let sync = |samples: &[Sample]| {
        let inputs = Inputs { spec_replicas: 4, status_replicas: 4, pods: &pods, samples };
        Controller::default().sync(&two, &inputs, 0)
    };
    assert_eq!(sync(&[Sample::Object(7000), Sample::Object(500)]).replicas, 7);
    assert_eq!(sync(&[Sample::Object(7000), Sample::Failed]).replicas, 7);
    let held = sync(&[Sample::Object(2000), Sample::Failed]);
    assert_eq!((held.replicas, held.active), (4, Active::Failed));
    assert_eq!(sync(&[Sample::Object(2000), Sample::Object(250)]).replicas, 2);
    assert_eq!(sync(&[Sample::Failed]).active, Active::Failed, "a missing answer is a failed one");
}

#[test]
fn utilization_is_a_whole_percentage_of_requests() {
    let pods = [pod(); 2];
    assert_eq!(by_pods(Metric::Cpu(50), &pods, &[used(1000), used(1000)]).replicas, 4);
    // 55.9 % is 55 %: 1.1 is inside.
    assert_eq!(by_pods(Metric::Cpu(50), &pods, &[used(559), used(559)]).replicas, 2);
    let without = [pod(), PodView { request: 0, ..pod() }];
    assert_eq!(by_pods(Metric::Cpu(50), &without, &[used(900), used(900)]).active, Active::Failed);
    assert_eq!(by_pods(Metric::Cpu(50), &pods, &[None, None]).active, Active::Failed);
}

#[test]
fn missing_pods_hold_back_in_both_directions() {
    let pods = [pod(); 4];
    let half = |value| [used(value), used(value), None, None];
    // Up: (900 + 900 + 0 + 0) / 4000 = 45 % of 50 %: it would turn.
    assert_eq!(by_pods(Metric::Cpu(50), &pods, &half(900)).replicas, 4);
    // Down: (100 + 100 + 1000 + 1000) / 4000 = 55 %: turned.
    assert_eq!(by_pods(Metric::Cpu(50), &pods, &half(100)).replicas, 4);
    let one = [used(100), used(100), used(100), None];
    // (300 + 1000) / 4000 = 32 % of 50 %: 0.64 · 4.
    assert_eq!(by_pods(Metric::Cpu(50), &pods, &one).replicas, 3);
    // Plain values, down with the missing one at the target: (3·1 + 10) / 4 = 3 of 10; up with it at 0: 60 / 4 of 10.
    let plain = |value| [used(value), used(value), used(value), None];
    assert_eq!(by_pods(Metric::Pods(10), &pods, &plain(1)).replicas, 2);
    assert_eq!(by_pods(Metric::Pods(10), &pods, &plain(20)).replicas, 6);
}

#[test]
fn unready_pods_count_as_idle_on_the_way_up_alone() {
    let young = PodView { ready: false, started: -10_000, turned: -10_000, ..pod() };
    let pods = [pod(), pod(), young, PodView { pending: true, ..pod() }];
    let values = |value| [used(value), used(value), used(1000), None];
    // (2000 + 0 + 0) / 4000 = 50 % of 25 %: 2 · 4.
    assert_eq!(by_pods(Metric::Cpu(25), &pods, &values(1000)).replicas, 8);
    // Without them: 100 % of 25 % of 2.
    assert_eq!(
        by_pods(Metric::Cpu(200), &pods, &values(1000)).replicas,
        1,
        "down: as if they were not there"
    );
    let failed = [pod(), pod(), PodView { ignored: true, ..pod() }];
    assert_eq!(by_pods(Metric::Cpu(50), &failed, &[used(1000), used(1000), used(9000)]).replicas, 4);
}

#[test]
fn a_pod_warms_up_until_it_was_measured_ready() {
    let fresh = |turned| PodView { started: -60_000, turned, ..pod() };
    let ratio = |pod| by_pods(Metric::Cpu(50), &[pod, self::pod()], &[used(1000), used(500)]).proposed;
    assert_eq!(ratio(fresh(-20_000)), Some(3), "ready for longer than the sample's window");
    assert_eq!(ratio(fresh(-10_000)), Some(2), "the sample reaches back to before it was ready");
    let late = PodView { ready: false, started: -400_000, turned: -380_000, ..pod() };
    assert_eq!(ratio(late), Some(2), "never ready");
    assert_eq!(ratio(PodView { turned: -5_000, ..late }), Some(3), "was ready once");
}

/// Trajectory of a scale that we write ourselves, and of one that the port writes, on the same proposals.
struct Pair {
    spec: Spec,
    controller: Controller,
    history: Vec<Recommendation>,
    events: Vec<ScaleEvent>,
}

impl Pair {
    fn hpa(&mut self, replicas: i32, proposal: i32, now: Millis) -> Outcome {
        let samples = [Sample::Object(i64::from(proposal) * 1000)];
        let inputs =
            Inputs { spec_replicas: replicas, status_replicas: replicas, pods: &[], samples: &samples };
        self.controller.sync(&self.spec, &inputs, now)
    }

    fn direct(
        &mut self,
        replicas: i32,
        proposed: i32,
        now: Millis,
    ) -> (i32, Option<LimitedBy>, Option<LimitedBy>) {
        let Spec { min, max, .. } = self.spec;
        let (to, able, limited) = if let Some(bound) = behavior::jump(min, max, replicas) {
            (bound, None, None)
        } else {
            let proposal = Proposal::new((min, max), replicas, proposed);
            let n = behavior::normalise(&self.spec.behavior, proposal, &mut self.history, &self.events, now);
            (n.replicas, n.able, n.limited)
        };
        behavior::record_scale(&mut self.events, replicas, to, now);
        (to, able, limited)
    }
}

fn any_rules(rng: &mut fastrand::Rng, longest: Millis) -> Rules {
    let select = [Select::Max, Select::Max, Select::Min, Select::Disabled][rng.usize(..13) / 4];
    let unit = |rng: &mut fastrand::Rng| if rng.bool() { Unit::Pods } else { Unit::Percent };
    let mut policies = vec![RatePolicy { unit: unit(rng), value: rng.i32(1..150), period: longest }];
    if rng.bool() {
        policies.push(RatePolicy { unit: unit(rng), value: rng.i32(1..150), period: rng.i64(1..=longest) });
    }
    let longest_window = [1, 60, 600][rng.usize(..3)];
    Rules { stabilization: rng.i64(0..longest_window) * SECOND, select, policies }
}

/// Invariant 11. The longest period is the same in both directions: the controller forgets a change once its own
/// direction needs it no more, even if the other still would, and we do not.
#[test]
fn we_and_the_controller_walk_the_same_way() {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut n_changes = 0_u32;
    for _ in 0..100_000 {
        let longest = rng.i64(1..300) * SECOND;
        let behavior = Behavior { up: any_rules(&mut rng, longest), down: any_rules(&mut rng, longest) };
        let min = rng.i32(1..5);
        let spec = Spec {
            min,
            max: rng.i32(min..40),
            metrics: vec![Metric::AverageValue(1000)],
            behavior,
            tolerance_up: 0.0,
            tolerance_down: 0.0,
        };
        let mut pair =
            Pair { spec, controller: Controller::default(), history: Vec::new(), events: Vec::new() };
        let (mut replicas, mut now) = (rng.i32(1..45), rng.i64(0..1000));
        behavior::begin(&mut pair.history, &pair.spec.behavior, replicas, now);
        for _ in 0..30 {
            let proposal = rng.i32(0..50);
            let theirs = pair.hpa(replicas, proposal, now);
            let ours = pair.direct(replicas, proposal, now);
            assert_eq!(
                ours,
                (theirs.replicas, theirs.able, theirs.limited),
                "{:?} {replicas} {proposal}",
                pair.spec
            );
            n_changes += u32::from(theirs.rescaled);
            replicas = theirs.replicas;
            now += rng.i64(1..40) * SECOND / 2;
        }
    }
    assert!(n_changes > 300_000, "{n_changes}: the histories do not move");
}
