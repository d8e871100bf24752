//! What always holds (autoscaling.md section 5), for any policy, load and memory.

use proptest::prelude::*;

use super::{strategies::*, support::*};
use crate::autoscale::{
    decide::{combine::combine, decide, demand::Demand, quantise},
    decision::{Guard, LimitedBy, Signal},
    policy::{Combine, Policy, Role},
    snapshot::{Actuator, Snapshot},
    state::State,
    time::Now,
};

/// Fewest replicas while there are any.
fn floor(policy: &Policy) -> i32 {
    policy.min.max(1)
}

fn within(policy: &Policy, n: i32) -> bool {
    (floor(policy)..=policy.max).contains(&n)
}

/// A number that cannot be.
fn bad() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        (-1e12..-1e-6),
        (1e12..1e300),
        Just(f64::MAX),
        Just(f64::MIN),
    ]
}

/// Puts a bad number in one of all the places that are read; ends and latencies are those of the ordinary window alone.
fn corrupt(snapshot: &mut Snapshot, place: usize, which: usize, bad: f64) {
    let Some(load) = snapshot.load.as_mut() else { return };
    let stable = which.is_multiple_of(2) || matches!(place, 8..=10 | 14 | 15);
    let window = if stable { &mut load.stable } else { &mut load.panic };
    let pods = window.pods.len().max(1);
    match place {
        0 => window.seconds = bad,
        1 => window.arrivals = bad,
        2 => window.admitted = bad,
        3 => window.shed = bad,
        4 => window.retries = bad,
        5 => window.queue = bad,
        6 => window.in_flight = bad,
        7 => window.streams = bad,
        8 => window.completions.ok = bad,
        9 => window.completions.upstream = bad,
        10 => window.latency.0[which % 32] = bad,
        11 => load.waiting = bad,
        12 => load.sessions = bad,
        13 => load.silent_in_flight = bad,
        14 => {
            if let Some(pod) = window.pods.values_mut().nth(which % pods) {
                pod.in_flight = bad;
            }
        }
        15 => {
            if let Some(pod) = window.pods.values_mut().nth(which % pods) {
                pod.completions.upstream = bad;
            }
        }
        _ => {
            let all = snapshot.pods.len().max(1);
            if let Some(pod) = snapshot.pods.get_mut(which % all) {
                pod.cpu = Some(bad);
            }
        }
    }
}

fn demand_of(up: f64, missing: f64, of_pods: bool) -> Demand {
    Demand {
        signal: Signal::Concurrency,
        total: up,
        target: 1.0,
        up,
        down: up + missing,
        weight: 1.0,
        missing: 0,
        of_pods,
    }
}

fn ways() -> impl Strategy<Value = Combine> {
    prop_oneof![Just(Combine::Max), (1.0..16.0).prop_map(|exponent| Combine::PowerMean { exponent })]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        max_global_rejects: 65_536,
        ..ProptestConfig::default()
    })]

    /// 1 and 10: the result lies within the bounds, is zero where zero may be, and never negative.
    #[test]
    fn within_the_bounds((policy, snapshot, state) in anything()) {
        let (decision, next) = decide(&policy, &snapshot, &state, at(WARM));
        let n = snapshot.replicas;
        if let Some(recommended) = decision.recommended {
            prop_assert!(recommended == 0 || within(&policy, recommended), "{decision:?}");
            prop_assert!(recommended > 0 || policy.zero.is_some() || n == 0);
        }
        if snapshot.actuator == Actuator::Off {
            prop_assert_eq!(decision.desired, n, "a dry run");
        } else {
            prop_assert!(decision.desired == 0 || within(&policy, decision.desired), "{decision:?}");
        }
        prop_assert!(next.recommendations.len() <= 64 && next.scale_events.len() <= 64);
    }

    /// The step to zero is made from one replica alone.
    #[test]
    fn to_zero_from_one_alone((policy, snapshot, state) in anything()) {
        let decision = decide(&policy, &snapshot, &state, at(WARM)).0;
        prop_assert!(decision.desired > 0 || snapshot.replicas <= 1, "{decision:?}");
        prop_assert!(decision.recommended != Some(0) || snapshot.replicas <= 1, "{decision:?}");
    }

    /// 2: more of one demand never asks for fewer, and twice of all asks for twice as many (5).
    #[test]
    fn combining_is_monotone_and_homogeneous(
        how in ways(),
        parts in prop::collection::vec((0.0..200.0_f64, 0.0..3.0_f64, any::<bool>()), 1..6),
        which in any::<prop::sample::Index>(),
        more in 0.0..50.0_f64,
        n in 1..100_i32,
        few_ready in any::<bool>(),
    ) {
        let demands: Vec<Demand> = parts.iter().map(|(d, m, of_pods)| demand_of(*d, *m, *of_pods)).collect();
        let weights = demands.len() as f64;
        let all = |demands: &[Demand], n: f64| combine(how, demands, n, few_ready, weights).unwrap();
        let n_f = f64::from(n);
        let before = all(&demands, n_f);
        let mut raised = demands.clone();
        let raised_one = which.get(&demands).up + more;
        let index = which.index(demands.len());
        raised[index] = demand_of(raised_one, parts[index].1, parts[index].2);
        let after = all(&raised, n_f);
        prop_assert!(after >= before - 1e-9, "{before} {after}");
        let policy = Policy::balanced(1, 1000, None);
        prop_assert!(
            quantise::quantise(&policy, after + 1e-8, n).0 >= quantise::quantise(&policy, before, n).0
        );
        let doubled: Vec<Demand> =
            parts.iter().map(|(d, m, of_pods)| demand_of(2.0 * d, 2.0 * m, *of_pods)).collect();
        prop_assert!((all(&doubled, 2.0 * n_f) - 2.0 * before).abs() <= 1e-9 * before.max(1.0));
    }

    /// 2, through the whole decision: more streams, or more CPU, never give fewer replicas.
    #[test]
    fn more_load_never_gives_fewer(
        (policy, snapshot, state) in anything(),
        streams in 0.0..500.0_f64,
        cpu in 0.0..1.0_f64,
    ) {
        let mut more = snapshot.clone();
        if let Some(load) = more.load.as_mut() {
            load.stable.streams += streams;
            load.panic.streams += streams;
        }
        more.pods.iter_mut().for_each(|p| p.cpu = p.cpu.map(|v| v + cpu));
        let before = decide(&policy, &snapshot, &state, at(WARM)).0;
        let after = decide(&policy, &more, &state, at(WARM)).0;
        prop_assert!(after.recommended >= before.recommended, "{before:?}\n{after:?}");
    }

    /// 3: nothing is taken away while a guard says so.
    #[test]
    fn guards_hold((policy, snapshot, state) in anything()) {
        let decision = decide(&policy, &snapshot, &state, at(WARM)).0;
        let hold = [Guard::NothingReady, Guard::Errors, Guard::Latency, Guard::Panic, Guard::HoldTimeDegraded];
        let silent = snapshot.load.as_ref().is_some_and(|l| l.silent > 0 || !l.complete);
        let guarded = silent || decision.guards.iter().any(|g| hold.contains(g));
        if guarded && snapshot.replicas <= policy.max {
            prop_assert!(decision.recommended.is_none_or(|r| r >= snapshot.replicas), "{decision:?}");
            prop_assert!(decision.desired >= snapshot.replicas);
        }
    }

    /// 4: the order of the pods says nothing.
    #[test]
    fn the_order_of_pods_says_nothing((policy, snapshot, state) in anything(), turn in 0_usize..30) {
        let mut turned = snapshot.clone();
        let pods = turned.pods.len().max(1);
        turned.pods.rotate_left(turn % pods);
        turned.pods.reverse();
        let (a, next_a) = decide(&policy, &snapshot, &state, at(WARM));
        let (b, next_b) = decide(&policy, &turned, &state, at(WARM));
        prop_assert_eq!((a.recommended, a.desired, a.reason, a.limited_by, &a.guards),
            (b.recommended, b.desired, b.reason, b.limited_by, &b.guards));
        prop_assert_eq!(next_a.recommendations, next_b.recommendations);
        prop_assert!((a.demand.unwrap_or(-1.0) - b.demand.unwrap_or(-1.0)).abs() < 1e-9);
    }

    /// 5: twice the pods under twice the load ask for twice as many.
    #[test]
    fn twice_of_all_asks_for_twice(
        policy in policy(),
        n in 1..30_i32,
        traffic in traffic(),
        cpu in 0.0..1.5_f64,
    ) {
        let twice = Traffic {
            rate: traffic.rate * 2.0,
            shed: traffic.shed * 2.0,
            in_flight: traffic.in_flight * 2.0,
            queue: traffic.queue * 2.0,
            streams: traffic.streams * 2.0,
            ..traffic
        };
        let with_cpu = |n, traffic| {
            let mut snapshot = fleet(n, traffic);
            snapshot.pods.iter_mut().for_each(|p| p.cpu = Some(cpu));
            snapshot
        };
        let one = once(&policy, &with_cpu(n, traffic)).demand.unwrap();
        let two = once(&policy, &with_cpu(2 * n, twice)).demand.unwrap();
        prop_assert!((two - 2.0 * one).abs() <= 1e-6 * one.max(1.0), "{one} {two}");
    }

    /// 6: numbers that cannot be never take away, and never ask for more than the true ones.
    #[test]
    fn bad_numbers_neither_lower_nor_raise(
        (policy, snapshot, mut state) in anything(),
        places in prop::collection::vec((0_usize..17, 0_usize..64, bad()), 1..4),
    ) {
        // The baseline, which bad numbers leave alone, must not move in the comparison either.
        state.baseline_at = Some(WARM);
        let mut corrupted = snapshot.clone();
        for (place, which, bad) in places {
            corrupt(&mut corrupted, place, which, bad);
        }
        prop_assume!(corrupted != snapshot);
        prop_assume!(snapshot.replicas > 0 && snapshot.replicas <= policy.max && snapshot.load.is_some());
        let (n, base) = (snapshot.replicas, decide(&policy, &snapshot, &state, at(WARM)).0);
        let decision = decide(&policy, &corrupted, &state, at(WARM)).0;
        if let Some(recommended) = decision.recommended {
            prop_assert!(recommended >= n, "{decision:?}");
            let most = base.recommended.unwrap_or(n).max(n);
            prop_assert!(recommended <= most, "{most}: {decision:?}\n{base:?}");
        }
        prop_assert!(decision.desired >= n);
    }

    /// 7: what was persisted decides as what was remembered.
    #[test]
    fn what_is_persisted_decides_alike((policy, snapshot, state) in anything(), wall in any::<u32>()) {
        let now = Now { mono: WARM, wall: 1_700_000_000_000 + i64::from(wall) };
        // What only this process knows is gone in either case.
        let state = State {
            replicas: state.replicas,
            last_up: state.last_up,
            last_down: state.last_down,
            baseline_hold: state.baseline_hold.map(|s| (s * 1000.0).round() / 1000.0),
            recommendations: state.recommendations,
            scale_events: state.scale_events,
            ..State::default()
        };
        let restored = State::restore(&state.persist(now), now);
        prop_assert_eq!(decide(&policy, &snapshot, &restored, now), decide(&policy, &snapshot, &state, now));
    }

    /// 7 and 8: a new process takes away no more than the old one would have, and never within a window.
    #[test]
    fn a_new_process_takes_nothing_away((policy, snapshot, state) in anything()) {
        prop_assume!(snapshot.replicas <= policy.max);
        let old = decide(&policy, &snapshot, &state, at(WARM)).0;
        let restored = State::restore(&state.persist(at(WARM)), at(WARM));
        let new = decide(&policy, &snapshot, &restored, at(WARM)).0;
        prop_assert!(new.desired >= snapshot.replicas.min(old.desired));
        prop_assert!(new.recommended.is_none_or(|r| r >= snapshot.replicas), "{new:?}");
    }

    /// 9: where demand and scale agree nothing changes, however often one asks. Demands lead there; the weighted sum and
    /// a boost need not.
    #[test]
    fn a_fixed_point_stays(policy in policy(), traffic in traffic(), n in 1..30_i32) {
        let leads_there = !matches!(policy.combine, Combine::WeightedSum(_))
            && policy.signals.latency.is_none_or(|l| l.role == Role::Guard);
        let mut process = Process::warm(Policy { zero: None, ..policy }, n);
        let ends = traffic.rate * (1.0 - traffic.errors);
        process.state.baseline_hold = (ends > 0.0).then_some(traffic.in_flight / ends);
        let mut n = n;
        let mut settled = None;
        let direct = |n| Snapshot { actuator: Actuator::Direct, ..fleet(n, traffic) };
        for _ in 0..60 {
            let decision = process.after(401_000, &direct(n));
            let waits = [
                LimitedBy::Cooldown,
                LimitedBy::ScaleDownStabilized,
                LimitedBy::ScaleDownLimit,
                LimitedBy::ScaleUpLimit,
                LimitedBy::PanicHold,
            ];
            let agree = decision.desired == n && !decision.limited_by.is_some_and(|why| waits.contains(&why));
            settled = settled.or(agree.then_some(n));
            prop_assert!(settled.is_none_or(|settled| decision.desired == settled), "{settled:?} {decision:?}");
            n = decision.desired;
        }
        for _ in 0..20 {
            let decision = process.tick(&direct(n));
            prop_assert!(settled.is_none_or(|settled| decision.desired == settled), "{settled:?} {decision:?}");
        }
        prop_assert!(settled.is_some() || !leads_there);
    }

    /// 12: a gateway that is lost, with all that it carried, takes nothing away.
    #[test]
    fn a_lost_gateway_takes_nothing_away(policy in policy(), n in 1..20_i32, all in traffic(), lost in 0.0..1.0_f64) {
        prop_assume!(n <= policy.max);
        let share = 1.0 - lost;
        let rest = Traffic {
            rate: all.rate * share,
            shed: all.shed * share,
            in_flight: all.in_flight * share,
            queue: all.queue * share,
            streams: all.streams * share,
            ..all
        };
        let mut snapshot = fleet(n, rest);
        let load = snapshot.load.as_mut().unwrap();
        (load.silent, load.silent_in_flight) = (1, all.in_flight * lost);
        let recommended = once(&policy, &snapshot).recommended;
        prop_assert!(recommended >= Some(n), "{recommended:?}");
    }
}
