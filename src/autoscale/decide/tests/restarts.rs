//! Invariant 8: no restart, at whatever instant, shortens a rest or adds to what policies allow.

use proptest::prelude::*;

use super::support::*;
use crate::autoscale::{
    behavior::{Behavior, RatePolicy, Rules, Select, Unit},
    policy::{Cooldown, Policy, Target},
    snapshot::{Actuator, Snapshot},
};

/// A step of ours: when, from and to how many.
type Step = (i64, i32, i32);

/// What happens in a second.
#[derive(Clone, Debug)]
enum Happens {
    Nothing,
    /// The process ends; the next one's wall clock is set back by so many ms, and so many pass meanwhile.
    Restart {
        back: i64,
        meanwhile: i64,
    },
    /// Somebody sets N.
    Manual(i32),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        40 => Just(Happens::Nothing),
        2 => (0..5_000_i64, 0..30_000_i64).prop_map(|(back, meanwhile)| Happens::Restart { back, meanwhile }),
        1 => (2..30_i32).prop_map(Happens::Manual),
    ]
}

/// Runs a fleet whose load changes by the minute; our own steps, in true time, and all changes.
fn run(policy: &Policy, start: i32, loads: &[f64], events: &[Happens]) -> (Vec<Step>, Vec<(i64, i32)>) {
    let mut process = Process::new(policy.clone());
    let (mut n, mut time, mut ours, mut all) = (start, 0_i64, Vec::new(), Vec::new());
    for (second, event) in events.iter().enumerate() {
        time += 1_000;
        match event {
            Happens::Nothing => {}
            Happens::Restart { back, meanwhile } => {
                process.restart(meanwhile - back);
                time += meanwhile;
            }
            // Two changes within a second may be none that anybody sees.
            Happens::Manual(to) if *to == n || process.state.replicas != Some(n) => {}
            Happens::Manual(to) => {
                all.push((time, to - n));
                n = *to;
            }
        }
        let load = calls(loads[second / 60 % loads.len()]);
        let decision = process.tick(&Snapshot { actuator: Actuator::Direct, ..fleet(n, load) });
        if decision.desired != n {
            ours.push((time, n, decision.desired));
            all.push((time, decision.desired - n));
            n = decision.desired;
        }
    }
    (ours, all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_restart_shortens_a_cooldown(
        loads in prop::collection::vec(0.0..500.0_f64, 4..10),
        events in prop::collection::vec(happens(), 1000),
        after_up in 10_000..400_000_i64,
        after_down in 10_000..400_000_i64,
        weighted in any::<bool>(),
    ) {
        let mut policy = if weighted { Policy::classic(2, 40) } else { Policy::balanced(2, 40, None) };
        policy.signals.connections = None;
        if let (true, Some(queue)) = (weighted, policy.signals.queue.as_mut()) {
            // What this load can move.
            queue.weight = 0.0;
            policy.signals.concurrency = Some(Target { per_pod: 14.0, weight: 0.8 });
        }
        policy.behavior.down.stabilization = 0;
        policy.cooldown = Cooldown { after_up, after_down };
        let (ours, all) = run(&policy, 10, &loads, &events);
        for (at, from, to) in ours {
            for (before, change) in all.iter().filter(|(before, _)| *before < at) {
                let rest = if *change > 0 { after_up } else { after_down };
                prop_assert!(at - before >= rest, "{from}→{to} at {at}, after {change} at {before}");
            }
        }
    }

    /// Loads that only rise, or only fall: the HPA reckons a step against the other direction as room for this one, and
    /// one whose time is not known exactly would blur what is allowed.
    #[test]
    fn no_restart_adds_to_a_policy(
        mut loads in prop::collection::vec(0.0..500.0_f64, 17),
        events in prop::collection::vec(happens(), 1000),
        value in 1..6_i32,
        period in 15_000..600_000_i64,
        falling in any::<bool>(),
    ) {
        loads.sort_by(|a, b| if falling { b.total_cmp(a) } else { a.total_cmp(b) });
        let events: Vec<Happens> =
            events.into_iter().map(|e| if let Happens::Manual(_) = e { Happens::Nothing } else { e }).collect();
        let rules = || Rules {
            stabilization: 0,
            select: Select::Max,
            policies: vec![RatePolicy { unit: Unit::Pods, value, period }],
        };
        let mut policy = Policy::balanced(2, 40, None);
        policy.behavior = Behavior { up: rules(), down: rules() };
        let (ours, all) = run(&policy, if falling { 40 } else { 2 }, &loads, &events);
        for (at, from, to) in ours {
            let within = all.iter().filter(|(t, _)| *t > at - period && *t < at);
            let moved: i32 = within.map(|(_, change)| change.abs()).sum();
            let allowed = moved + (to - from).abs() <= value && (to < from) == falling;
            prop_assert!(allowed, "{from}→{to} at {at}: {moved} in the period, {value} allowed");
        }
    }

    #[test]
    fn nothing_goes_down_within_a_window_of_a_restart(
        loads in prop::collection::vec(0.0..500.0_f64, 4..10),
        events in prop::collection::vec(happens(), 900),
    ) {
        let mut policy = Policy::balanced(2, 40, None);
        policy.behavior.down.stabilization = 0;
        let mut process = Process::new(policy);
        let (mut n, mut age) = (10, 0_i64);
        for (second, event) in events.iter().enumerate() {
            age += 1;
            if let Happens::Restart { back, meanwhile } = event {
                process.restart(meanwhile - back);
                age = 0;
            }
            let load = calls(loads[second / 60 % loads.len()]);
            let decision = process.tick(&Snapshot { actuator: Actuator::Direct, ..fleet(n, load) });
            prop_assert!(decision.desired >= n || age >= 60, "{n}→{} after {age} s", decision.desired);
            n = decision.desired;
        }
    }
}
