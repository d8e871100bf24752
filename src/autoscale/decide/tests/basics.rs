//! The steps of a decision, each with the numbers that show it.

use super::support::*;
use crate::autoscale::{
    behavior::Behavior,
    decide::{decide, example},
    decision::{Guard, LimitedBy, Reason, Signal},
    policy::{Combine, Cooldown, Fallback, FallbackBehavior, Policy, Role, Zero},
    snapshot::{Actuator, Pause},
    state::State,
};

fn balanced() -> Policy {
    Policy::balanced(1, 20, None)
}

#[test]
fn concurrency_asks_for_calls_over_target() {
    let decision = once(&balanced(), &fleet(4, calls(93.0)));
    assert_eq!(decision.recommended, Some(7), "{decision:?}");
    assert!((decision.demand.unwrap() - 93.0 / 14.0).abs() < 1e-9);
    assert!((decision.utilization.unwrap() - 93.0 / 14.0 / 4.0).abs() < 1e-9);
    assert_eq!(decision.reason, Reason::ScaleUp);
    let first = &decision.terms[0];
    assert_eq!((first.signal, first.total, first.target), (Signal::Concurrency, 93.0, 14.0));
}

#[test]
fn within_tolerance_nothing_changes() {
    let per_pod = |demand: f64| demand * 14.0;
    for (demand, wanted) in [(10.0, 10), (10.01, 11), (9.0, 10), (8.2, 10), (8.1, 9), (7.0, 7), (1.0, 1)] {
        let decision = once(&balanced(), &fleet(10, calls(per_pod(demand))));
        assert_eq!(decision.recommended, Some(wanted), "{demand}");
    }
}

#[test]
fn what_is_shed_and_what_waits_is_demand() {
    // 56 calls run, 4 × 14: as many are shed. They would take 250 ms each.
    let shed = Traffic { shed: 4.0 * 56.0, ..calls(56.0) };
    assert_eq!(once(&balanced(), &fleet(4, shed)).recommended, Some(8));
    // 40 wait: to serve them within 5 s takes 8/s more, and they count as load.
    let waiting = Traffic { queue: 40.0, ..calls(56.0) };
    let decision = once(&balanced(), &fleet(4, waiting));
    assert_eq!(decision.recommended, Some(7), "{decision:?}");
}

#[test]
fn connections_ask_too() {
    let streams = Traffic { streams: 730.0, ..calls(1.0) };
    let decision = once(&balanced(), &fleet(4, streams));
    assert_eq!(decision.recommended, Some(8));
    assert_eq!(decision.terms[0].signal, Signal::Connections);
}

#[test]
fn a_power_mean_lies_between() {
    let mut policy = balanced();
    policy.signals.cpu = None;
    policy.combine = Combine::PowerMean { exponent: 4.0 };
    let traffic = Traffic { streams: 1000.0, ..calls(70.0) };
    let demand = once(&policy, &fleet(4, traffic)).demand.unwrap();
    let expected = f64::midpoint(5.0_f64.powi(4), 10.0_f64.powi(4)).powf(0.25);
    assert!((demand - expected).abs() < 1e-9, "{demand} {expected}");
}

#[test]
fn sudden_load_is_seen_in_the_short_window_and_holds() {
    let mut process = Process::warm(balanced(), 4);
    let mut snapshot = fleet(4, calls(50.0));
    let pods = snapshot.pods.clone();
    snapshot.load.as_mut().unwrap().panic = window(6.0, calls(140.0), &pods);
    let decision = process.tick(&snapshot);
    assert_eq!((decision.recommended, decision.reason), (Some(10), Reason::Panic));
    assert_eq!(decision.terms[0].window, 2_000, "the window that decided");
    // The load is gone, the scale is not until a window later.
    let calm = fleet(10, calls(20.0));
    let decision = process.seconds(59, &calm);
    assert_eq!((decision.recommended, decision.limited_by), (Some(10), Some(LimitedBy::PanicHold)));
    assert!(decision.guards.contains(&Guard::Panic));
    assert_eq!(decision.hold_until, Some(WARM + 61_000));
    assert_eq!(process.tick(&calm).recommended, Some(2));
}

#[test]
fn cooldown_holds_both_ways_after_any_observed_change() {
    let policy = Policy { cooldown: Cooldown { after_up: 120_000, after_down: 60_000 }, ..balanced() };
    let mut process = Process::warm(policy, 4);
    process.tick(&fleet(4, calls(50.0)));
    // Somebody makes it 6.
    for traffic in [calls(10.0), calls(200.0)] {
        let decision = process.tick(&fleet(6, traffic));
        assert_eq!((decision.recommended, decision.limited_by), (Some(6), Some(LimitedBy::Cooldown)));
        assert_eq!(decision.hold_until, Some(WARM + 122_000));
    }
    let decision = process.after(120_000, &fleet(6, calls(200.0)));
    assert_eq!(decision.recommended, Some(15));
}

#[test]
fn direct_follows_behavior() {
    let mut process = Process::warm(Policy { behavior: Behavior::default(), ..balanced() }, 4);
    let direct = |n, traffic| {
        let mut snapshot = fleet(n, traffic);
        snapshot.actuator = Actuator::Direct;
        snapshot
    };
    let decision = process.tick(&direct(4, calls(270.0)));
    assert_eq!((decision.recommended, decision.desired), (Some(20), 8));
    assert_eq!(decision.limited_by, Some(LimitedBy::ScaleUpLimit));
    let decision = process.tick(&direct(8, calls(270.0)));
    assert_eq!(decision.desired, 8, "four in 15 s, or as many again");
    let decision = process.seconds(100, &direct(8, calls(14.0)));
    assert_eq!((decision.recommended, decision.desired), (Some(1), 8));
    assert_eq!(decision.limited_by, Some(LimitedBy::ScaleDownStabilized));
    let until = decision.hold_until.unwrap();
    assert_eq!(process.after(until - 1 - process.now, &direct(8, calls(14.0))).desired, 8);
    assert_eq!(process.after(1, &direct(8, calls(14.0))).desired, 1);
}

/// The preset's own pace: all at once, and back after eight minutes by a tenth a minute.
#[test]
fn balanced_adds_at_once_and_takes_away_little_by_little() {
    let mut process = Process::warm(balanced(), 4);
    let direct = |n, traffic| {
        let mut snapshot = fleet(n, traffic);
        snapshot.actuator = Actuator::Direct;
        snapshot
    };
    assert_eq!(process.tick(&direct(4, calls(280.0))).desired, 20);
    // Sudden load holds for a minute; then the window begins.
    assert_eq!(process.seconds(535, &direct(20, calls(14.0))).desired, 20);
    let decision = process.seconds(10, &direct(20, calls(14.0)));
    assert_eq!((decision.desired, decision.limited_by), (18, Some(LimitedBy::ScaleDownLimit)));
    assert_eq!(process.seconds(58, &direct(18, calls(14.0))).desired, 18);
    assert_eq!(process.seconds(4, &direct(18, calls(14.0))).desired, 16);
}

#[test]
fn the_target_follows_what_a_pod_is_given_at_a_time() {
    let target = |slots| Policy::balanced(1, 20, slots).signals.concurrency.unwrap().per_pod;
    assert!((target(None) - 14.0).abs() < 1e-9);
    assert!((target(Some(20.0)) - 17.0).abs() < 1e-9);
    assert!((target(Some(1.0)) - 0.85).abs() < 1e-9, "one call at a time: a replica for each, and some more");
}

#[test]
fn beside_an_hpa_it_is_decided_as_without_one_and_a_dry_run_does_nothing() {
    let decision = once(&balanced(), &fleet(4, calls(270.0)));
    assert_eq!((decision.recommended, decision.desired), (Some(20), 20));
    let paced = Policy { behavior: Behavior::default(), ..balanced() };
    let decision = once(&paced, &fleet(4, calls(270.0)));
    assert_eq!((decision.recommended, decision.desired), (Some(20), 8), "no more than behavior allows");
    assert_eq!(decision.limited_by, Some(LimitedBy::ScaleUpLimit));
    let mut dry = fleet(4, calls(270.0));
    dry.actuator = Actuator::Off;
    let decision = once(&balanced(), &dry);
    assert_eq!((decision.recommended, decision.desired), (Some(20), 4));
}

#[test]
fn bounds_hold_at_once() {
    for (n, wanted, why) in [(25, 20, LimitedBy::TooManyReplicas), (1, 3, LimitedBy::TooFewReplicas)] {
        let mut snapshot = fleet(n, calls(14.0 * f64::from(n)));
        snapshot.actuator = Actuator::Direct;
        let decision = once(&Policy::balanced(3, 20, None), &snapshot);
        assert_eq!((decision.desired, decision.limited_by), (wanted, Some(why)));
    }
}

#[test]
fn nothing_goes_down_before_a_window_was_seen() {
    let mut process = Process::new(balanced());
    let calm = fleet(10, calls(14.0));
    for _ in 0..60 {
        let decision = process.tick(&calm);
        assert_eq!((decision.recommended, decision.reason), (Some(10), Reason::WarmingUp));
    }
    assert_eq!(process.tick(&calm).recommended, Some(1));
    let mut young = calm.clone();
    young.load.as_mut().unwrap().complete = false;
    assert_eq!(process.tick(&young).recommended, Some(10), "another gateway's samples do not reach back");
    // Up needs no such patience.
    assert_eq!(Process::new(balanced()).tick(&fleet(10, calls(200.0))).recommended, Some(15));
}

#[test]
fn one_sample_alone_raises_and_takes_nothing() {
    let first = |traffic| {
        let mut snapshot = fleet(4, traffic);
        let pods = snapshot.pods.clone();
        let load = snapshot.load.as_mut().unwrap();
        (load.complete, load.stable, load.panic) =
            (false, window(0.0, traffic, &pods), window(0.0, traffic, &pods));
        once(&balanced(), &snapshot).recommended
    };
    assert_eq!(first(calls(93.0)), Some(7));
    assert_eq!(first(calls(14.0)), Some(4));
}

#[test]
fn a_boost_needs_saturation_and_all_pods() {
    let mut policy = balanced();
    let latency = policy.signals.latency.as_mut().unwrap();
    (latency.role, latency.objective_ms) = (Role::Boost, 1000.0);
    let slow = |in_flight| Traffic { latency_ms: 3000.0, ..calls(in_flight) };
    let decision = once(&policy, &fleet(4, slow(50.0)));
    assert_eq!(decision.recommended, Some(5), "a quarter more: {decision:?}");
    assert_eq!(once(&policy, &fleet(4, slow(20.0))).recommended, Some(4), "not saturated");
    let mut starting = fleet(4, slow(50.0));
    starting.pods[3].ready = false;
    assert_eq!(once(&policy, &starting).recommended, Some(4), "one is on its way");
    policy.signals.latency.as_mut().unwrap().role = Role::Guard;
    let decision = once(&policy, &fleet(4, slow(20.0)));
    assert_eq!((decision.recommended, decision.limited_by), (Some(4), Some(LimitedBy::LatencyGuard)));
}

#[test]
fn a_pause_stops_what_it_says() {
    let with = |pause, n, traffic| {
        let mut snapshot = fleet(n, traffic);
        snapshot.pause = pause;
        once(&balanced(), &snapshot)
    };
    let all = |at| Pause { all: Some(at), ..Pause::default() };
    assert_eq!(with(all(None), 4, calls(200.0)).recommended, Some(4));
    let decision = with(all(Some(30)), 4, calls(200.0));
    assert_eq!((decision.recommended, decision.reason), (Some(30), Reason::Paused));
    assert!(decision.demand.is_some(), "still told");
    let (no_in, no_out) =
        (Pause { scale_in: true, ..Pause::default() }, Pause { scale_out: true, ..Pause::default() });
    assert_eq!(with(no_in, 4, calls(14.0)).recommended, Some(4));
    assert_eq!(with(no_in, 4, calls(140.0)).recommended, Some(10));
    assert_eq!(with(no_out, 4, calls(140.0)).recommended, Some(4));
    assert_eq!(with(no_out, 4, calls(14.0)).recommended, Some(1));
}

#[test]
fn what_a_person_held_is_held_for_a_window_after_the_pause() {
    let mut process = Process::warm(balanced(), 8);
    let (calm, mut paused) = (fleet(8, calls(14.0)), fleet(8, calls(14.0)));
    paused.pause.all = Some(None);
    process.seconds(600, &paused);
    assert_eq!(process.seconds(479, &calm).desired, 8);
    assert_eq!(process.seconds(2, &calm).desired, 7, "a tenth");
}

#[test]
fn without_metrics_it_stays_and_then_falls_back() {
    let fallback = |behavior| {
        let mut policy = balanced();
        policy.fallback = Some(Fallback { after: 180_000, replicas: 6, behavior });
        policy
    };
    let blind = |n| {
        let mut snapshot = fleet(n, NONE);
        snapshot.load = None;
        snapshot.pods.iter_mut().for_each(|p| (p.cpu, p.memory) = (None, None));
        snapshot
    };
    for (behavior, n, wanted) in [
        (FallbackBehavior::Static, 9, 6),
        (FallbackBehavior::CurrentReplicas, 4, 4),
        (FallbackBehavior::CurrentReplicasIfHigher, 9, 9),
        (FallbackBehavior::CurrentReplicasIfHigher, 4, 6),
        (FallbackBehavior::CurrentReplicasIfLower, 9, 6),
        (FallbackBehavior::CurrentReplicasIfLower, 4, 4),
    ] {
        let mut process = Process::warm(fallback(behavior), n);
        let decision = process.seconds(180, &blind(n));
        assert_eq!((decision.recommended, decision.desired), (None, n));
        assert_eq!(decision.reason, Reason::MetricsUnavailable);
        let decision = process.tick(&blind(n));
        assert_eq!((decision.recommended, decision.reason), (Some(wanted), Reason::Fallback), "{behavior:?}");
    }
    let mut process = Process::warm(balanced(), 4);
    assert_eq!(process.seconds(1000, &blind(4)).recommended, None, "no fallback was asked for");
}

#[test]
fn the_example_is_a_fixed_point() {
    let (policy, snapshot) = example::busy_fleet();
    let mut state = State::default();
    for second in 0..700 {
        let (decision, next) = decide(&policy, &snapshot, &state, at(second * 1000));
        state = next;
        assert_eq!((decision.desired, decision.reason), (10, Reason::Steady));
    }
    assert_eq!(state.recommendations.len(), 1);
}

fn to_zero() -> Policy {
    Policy { zero: Some(Zero { idle: 300_000 }), ..Policy::balanced(0, 20, None) }
}

#[test]
fn the_last_replica_goes_after_an_observed_idle_time() {
    let mut process = Process::warm(to_zero(), 1);
    process.tick(&fleet(1, calls(2.0)));
    // The samples reach one minute back.
    let decision = process.seconds(240, &fleet(1, NONE));
    assert_eq!((decision.recommended, decision.desired), (Some(1), 1));
    let decision = process.tick(&fleet(1, NONE));
    assert_eq!((decision.desired, decision.reason), (0, Reason::Idle));
    assert_eq!(process.seconds(10, &fleet(0, NONE)).reason, Reason::ScaledToZero);
}

#[test]
fn not_from_two_and_not_while_something_is_open_or_unknown() {
    assert_eq!(Process::warm(to_zero(), 2).seconds(1000, &fleet(2, NONE)).recommended, Some(1));
    let stream = Traffic { streams: 1.0, ..NONE };
    assert_eq!(Process::warm(to_zero(), 1).seconds(1000, &fleet(1, stream)).desired, 1);
    let mut session = fleet(1, NONE);
    session.load.as_mut().unwrap().sessions = 1.0;
    assert_eq!(Process::warm(to_zero(), 1).seconds(1000, &session).desired, 1);
    let mut silent = fleet(1, NONE);
    silent.load.as_mut().unwrap().silent = 1;
    assert_eq!(Process::warm(to_zero(), 1).seconds(1000, &silent).desired, 1);
    let mut blind = fleet(1, NONE);
    blind.load = None;
    assert_eq!(Process::warm(to_zero(), 1).seconds(1000, &blind).desired, 1);
    // A change of N begins the idle time anew: whoever made it wanted it.
    let mut process = Process::warm(to_zero(), 1);
    process.seconds(100, &fleet(0, NONE));
    assert_eq!(process.seconds(300, &fleet(1, NONE)).desired, 1);
    assert_eq!(process.tick(&fleet(1, NONE)).desired, 0);
}

#[test]
fn a_call_wakes_a_fleet_at_once() {
    let policy = Policy { cooldown: Cooldown { after_up: 300_000, after_down: 300_000 }, ..to_zero() };
    let mut process = Process::warm(policy, 1);
    process.seconds(400, &fleet(0, NONE));
    let mut waiting = fleet(0, NONE);
    waiting.load.as_mut().unwrap().waiting = 1.0;
    for actuator in [Actuator::Hpa, Actuator::Direct] {
        waiting.actuator = actuator;
        let decision = process.tick(&waiting);
        assert_eq!((decision.desired, decision.reason), (1, Reason::Activation));
    }
    process.policy.activation_replicas = 3;
    assert_eq!(process.tick(&waiting).desired, 3);
    // Also where this is the first sample of all, which covers no time.
    let mut first = waiting.clone();
    let load = first.load.as_mut().unwrap();
    (load.complete, load.stable.seconds, load.panic.seconds) = (false, 0.0, 0.0);
    assert_eq!(Process::new(process.policy.clone()).tick(&first).desired, 3);
    // A fleet that may not go to zero was put there by a person.
    process.policy.zero = None;
    assert_eq!(process.tick(&waiting).desired, 0);
}

#[test]
fn a_failed_activation_is_not_tried_in_circles() {
    let mut process = Process::warm(to_zero(), 1);
    let mut waiting = fleet(0, NONE);
    waiting.load.as_mut().unwrap().waiting = 1.0;
    process.tick(&waiting);
    let mut starting = fleet(1, NONE);
    starting.pods[0].ready = false;
    let decision = process.seconds(120, &starting);
    assert_eq!((decision.desired, decision.limited_by), (1, None));
    let decision = process.seconds(5, &starting);
    assert_eq!((decision.desired, decision.limited_by), (1, Some(LimitedBy::ActivationFailed)));
    // It does not go back by itself, however long nobody calls.
    assert_eq!(process.seconds(2000, &starting).desired, 1);
    // A person takes it back: the next call waits for the rest.
    process.state.last_up = Some(process.now - 121_000);
    let decision = process.tick(&waiting);
    assert_eq!((decision.desired, decision.limited_by), (0, Some(LimitedBy::ActivationFailed)));
    assert_eq!(process.seconds(30, &waiting).desired, 1);
    // Once ready, all is forgotten.
    process.tick(&fleet(1, calls(1.0)));
    assert_eq!(process.state.activation_failures, 0);
}
