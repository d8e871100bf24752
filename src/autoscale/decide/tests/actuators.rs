//! Invariant 11: the HPA that follows what is recommended and the scale that we write walk the same way.

use proptest::prelude::*;

use super::support::*;
use crate::autoscale::{
    behavior::{Behavior, RatePolicy, Rules, Select, Unit},
    decide::memory,
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
        behavior: policy.behavior.clone(),
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
        let mut policy = Policy::balanced(2, 25, None);
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
            prop_assert_eq!(decision.desired, n_told);
            let samples = [hpa::Sample::Object(hpa::milli(f64::from(decision.recommended.unwrap())))];
            let inputs =
                hpa::Inputs { spec_replicas: n_told, status_replicas: n_told, pods: &[], samples: &samples };
            n_told = controller.sync(&spec, &inputs, told.now).replicas;
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
