//! Invariant 11: the HPA that follows what is recommended and the scale that we write walk the same way.

use proptest::prelude::*;

use super::support::*;
use crate::autoscale::{
    behavior::{Behavior, RatePolicy, Rules, Select, Unit},
    decide::memory,
    head_start::{HeadStart, exported},
    hpa,
    policy::{Cooldown, Policy},
    snapshot::{Actuator, Snapshot},
    state::State,
};

/// The HPA looks each 15 s.
const SYNC: i64 = 15_000;

fn rules(longest: i64) -> impl Strategy<Value = Rules> {
    let policy = (any::<bool>(), 1..120_i32, 1..60_i64).prop_map(|(pods, value, seconds)| RatePolicy {
        unit: if pods { Unit::Pods } else { Unit::Percent },
        value: if pods { value % 10 + 1 } else { value },
        period: seconds * 1_000,
    });
    // Each direction has the same longest period: the HPA forgets by it.
    (0..300_i64, any::<bool>(), prop::collection::vec(policy, 0..3)).prop_map(
        move |(stabilization, min, mut policies)| {
            policies.push(RatePolicy { unit: Unit::Pods, value: 4, period: longest });
            let select = if min { Select::Min } else { Select::Max };
            Rules { stabilization: stabilization * 1_000, select, policies }
        },
    )
}

fn rest() -> impl Strategy<Value = i64> {
    prop_oneof![2 => Just(0_i64), 1 => 1_000..120_000_i64]
}

fn hpa_of(policy: &Policy) -> hpa::Spec {
    hpa::Spec {
        min: policy.min.max(1),
        max: policy.max,
        metrics: vec![hpa::Metric::AverageValue(1_000)],
        behavior: policy.of_hpa(false),
        tolerance_up: 0.0,
        tolerance_down: 0.0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_walk_the_same_way(
        (up, down) in (rules(60_000), rules(60_000)),
        (after_up, after_down) in (rest(), rest()),
        loads in prop::collection::vec((0.0..400.0_f64, 1_usize..12), 1..12),
        start in 2..30_i32,
    ) {
        let mut policy = Policy { preset_pace: false, ..Policy::balanced(2, 25, None) };
        policy.behavior = Behavior { up, down };
        policy.cooldown = Cooldown { after_up, after_down };
        let spec = hpa_of(&policy);
        let mut controller = hpa::Controller::default();
        let (mut told, mut ours) = (Process::new(policy.clone()), Process::new(policy));
        let known = State { pod_samples_seen: true, baseline_hold: Some(0.25), ..State::default() };
        (told.state, ours.state) = (known.clone(), known);
        let (mut n_told, mut n_ours) = (start, start);
        for traffic in loads.iter().flat_map(|(load, looks)| std::iter::repeat_n(calls(*load), *looks)) {
            let decision = told.after(SYNC, &Snapshot { actuator: Actuator::Hpa, ..fleet(n_told, traffic) });
            let samples = [hpa::Sample::Object(hpa::milli(f64::from(decision.recommended.unwrap())))];
            let inputs =
                hpa::Inputs { spec_replicas: n_told, status_replicas: n_told, pods: &[], samples: &samples };
            n_told = controller.sync(&spec, &inputs, told.now).replicas;
            prop_assert_eq!(n_told, decision.desired, "what we expect of it: {:?}", decision);
            let direct = |n| Snapshot { actuator: Actuator::Direct, ..fleet(n, traffic) };
            n_ours = ours.after(SYNC, &direct(n_ours)).desired;
            // A change is seen at once.
            for (process, n) in [(&mut told, n_told), (&mut ours, n_ours)] {
                process.state = memory::observe(&process.policy, &direct(n), &process.state, process.now);
            }
            prop_assert_eq!(n_told, n_ours, "{:?}", decision);
        }
    }
}

/// A fleet whose HPA looks every 15 s, and what the Deployment has.
struct Ahead {
    process: Process,
    spec: hpa::Spec,
    controller: hpa::Controller,
    replicas: i32,
    ahead: Option<HeadStart>,
}

impl Ahead {
    fn new(policy: Policy, replicas: i32) -> Self {
        let (spec, process) = (hpa_of(&policy), Process::warm(policy, replicas));
        Self { process, spec, controller: hpa::Controller::default(), replicas, ahead: None }
    }

    fn deployed(&self) -> i32 {
        HeadStart::replicas(self.ahead, self.replicas)
    }

    fn second(&mut self, traffic: Traffic) {
        let n = self.deployed();
        let decision = self.process.tick(&fleet(n, traffic));
        let max = self.process.policy.max;
        let ahead = HeadStart::decided(true, self.replicas, n, decision.desired, max);
        self.ahead = Some(ahead);
        if self.process.now % SYNC == 0 {
            let number = exported(self.process.policy.preset_pace, &decision, self.replicas, ahead).unwrap();
            let samples = [hpa::Sample::Object(hpa::milli(f64::from(number)))];
            let (spec_replicas, status_replicas) = (self.replicas, self.deployed());
            let inputs = hpa::Inputs { spec_replicas, status_replicas, pods: &[], samples: &samples };
            self.replicas = self.controller.sync(&self.spec, &inputs, self.process.now).replicas;
        }
    }
}

/// Up in the same second as where we write ourselves, down at a look of the HPA. A moment of less load takes nothing back,
/// and in the end nothing is ahead.
#[test]
fn beside_an_hpa_the_deployment_goes_up_as_with_direct() {
    let balanced = Policy::balanced(1, 20, None);
    let named = Policy { preset_pace: false, behavior: Behavior::default(), ..balanced.clone() };
    for policy in [balanced, named] {
        let mut ahead = Ahead::new(policy.clone(), 2);
        let (mut direct, mut n) = (Process::warm(policy, 2), 2);
        for (load, seconds) in [(28.0, 20), (200.0, 3), (60.0, 40), (250.0, 70), (14.0, 3_000)] {
            for second in 0..seconds {
                ahead.second(calls(load));
                let snapshot = Snapshot { actuator: Actuator::Direct, ..fleet(n, calls(load)) };
                let before = n;
                n = direct.tick(&snapshot).desired;
                let told = format!(
                    "{load} {second}: {} of {}, Direct {before} → {n}",
                    ahead.deployed(),
                    ahead.replicas
                );
                assert!(n <= before || ahead.deployed() == n, "{told}");
                assert!(load < 20.0 || ahead.deployed() >= n.min(before), "{told}");
            }
        }
        assert!(n <= 2, "{n}");
        assert_eq!((ahead.replicas, ahead.deployed()), (n, n));
    }
}
