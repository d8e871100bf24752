//! What has to happen when something is broken (autoscaling.md section 11), as far as it is decided here.

use super::support::*;
use crate::autoscale::{
    decision::{Guard, LimitedBy, Reason},
    policy::{Cooldown, Fallback, FallbackBehavior, Policy},
    snapshot::{Actuator, Snapshot},
    state::State,
};

fn balanced() -> Policy {
    Policy::balanced(2, 20, None)
}

#[track_caller]
fn expect(snapshot: &Snapshot, wanted: i32, why: Option<LimitedBy>) {
    let decision = once(&balanced(), snapshot);
    assert_eq!((decision.recommended, decision.limited_by), (Some(wanted), why), "{decision:?}");
}

/// Without samples of pods.
fn without_pod_samples(mut snapshot: Snapshot) -> Snapshot {
    snapshot.pods.iter_mut().for_each(|p| (p.cpu, p.memory) = (None, None));
    snapshot
}

#[test]
fn no_pod_samples_and_gateways_fine() {
    // Up from the gateways; down only while pods' samples were never there.
    expect(&without_pod_samples(fleet(4, calls(93.0))), 7, None);
    expect(&without_pod_samples(fleet(10, calls(28.0))), 10, Some(LimitedBy::MissingMetrics));
    let mut process = Process::new(balanced());
    let decision = process.seconds(100, &without_pod_samples(fleet(10, calls(28.0))));
    assert_eq!((decision.recommended, decision.limited_by), (Some(2), Some(LimitedBy::ScaleDownStabilized)));
    // One sample out of ten is none.
    let mut few = without_pod_samples(fleet(10, calls(28.0)));
    few.pods[0].cpu = Some(0.9);
    expect(&few, 10, Some(LimitedBy::MissingMetrics));
}

#[test]
fn a_gateway_stops_reporting() {
    let mut snapshot = fleet(10, calls(28.0));
    let load = snapshot.load.as_mut().unwrap();
    (load.silent, load.silent_in_flight) = (1, 60.0);
    expect(&snapshot, 10, Some(LimitedBy::MissingMetrics));
    let mut busy = fleet(4, calls(93.0));
    let load = busy.load.as_mut().unwrap();
    (load.silent, load.silent_in_flight) = (1, 60.0);
    expect(&busy, 7, None);
}

#[test]
fn all_metrics_gone() {
    let policy = Policy {
        fallback: Some(Fallback {
            after: 180_000,
            replicas: 6,
            behavior: FallbackBehavior::CurrentReplicasIfHigher,
        }),
        ..balanced()
    };
    let mut blind = without_pod_samples(fleet(4, NONE));
    blind.load = None;
    let mut process = Process::warm(policy, 4);
    let decision = process.seconds(180, &blind);
    assert_eq!((decision.recommended, decision.desired), (None, 4), "503 and hold");
    assert_eq!(decision.reason, Reason::MetricsUnavailable);
    let decision = process.tick(&blind);
    assert_eq!((decision.recommended, decision.reason), (Some(6), Reason::Fallback));
    // A process that has only just begun cannot know.
    let mut new = Process::new(balanced());
    let first = new.seconds(60, &blind);
    assert_eq!((first.recommended, first.reason), (None, Reason::WarmingUp));
    assert_eq!(new.tick(&blind).reason, Reason::MetricsUnavailable);
    // They are back: the time without them does not count on.
    process.tick(&fleet(4, calls(40.0)));
    assert_eq!(process.seconds(100, &blind).recommended, None);
}

#[test]
fn stale_samples_are_missing() {
    for age in [30_001, i64::MAX, -5_001, i64::MIN] {
        for traffic in [calls(1000.0), NONE] {
            let mut snapshot = fleet(5, traffic);
            snapshot.load.as_mut().unwrap().age = age;
            expect(&snapshot, 5, Some(LimitedBy::MissingMetrics));
        }
    }
}

#[test]
fn numbers_that_cannot_be_are_missing() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300] {
        let corrupt: [fn(&mut Snapshot, f64); 6] = [
            |s, bad| s.load.as_mut().unwrap().stable.in_flight = bad,
            |s, bad| s.load.as_mut().unwrap().stable.admitted = bad,
            |s, bad| s.load.as_mut().unwrap().panic.in_flight = bad,
            |s, bad| s.load.as_mut().unwrap().stable.streams = bad,
            |s, bad| s.load.as_mut().unwrap().stable.latency.0[20] = bad,
            |s, bad| s.pods[0].cpu = Some(bad),
        ];
        for (i, corrupt) in corrupt.iter().enumerate() {
            let mut calm = fleet(5, calls(14.0));
            corrupt(&mut calm, bad);
            let decision = once(&balanced(), &calm);
            let held = (Some(5), Some(LimitedBy::MissingMetrics));
            assert_eq!((decision.recommended, decision.limited_by), held, "{bad} {i}");
        }
    }
}

#[test]
fn one_dead_pod() {
    // Its sample is missing: nothing on the up side, its target on the down side.
    let busy = |cpus: [Option<f64>; 4]| {
        let mut snapshot = fleet(4, calls(10.0));
        snapshot.pods.iter_mut().zip(cpus).for_each(|(p, cpu)| p.cpu = cpu);
        once(&balanced(), &snapshot)
    };
    let decision = busy([Some(1.0), Some(1.0), Some(1.0), None]);
    assert_eq!(decision.recommended, Some(5), "3.0/0.7 = 4.3");
    let decision = busy([Some(0.8), Some(0.8), Some(0.8), None]);
    assert_eq!(decision.recommended, Some(4), "3.4 without it, 4.4 with it");
    assert!(decision.guards.contains(&Guard::Missing));
    assert_eq!(decision.terms[0].missing, 1);
    let decision = busy([Some(0.3), Some(0.3), Some(0.3), None]);
    assert_eq!(decision.recommended, Some(3), "1.3 and the one that is silent");
}

#[test]
fn one_black_hole_pod() {
    // It fails in no time and draws most calls.
    let mut snapshot = fleet(4, calls(56.0));
    let hole = snapshot.pods[0].uid;
    snapshot.pods[0].cpu = Some(0.0);
    snapshot.pods[1..].iter_mut().for_each(|p| p.cpu = Some(0.69));
    let stable = &mut snapshot.load.as_mut().unwrap().stable;
    let pod = stable.pods.get_mut(&hole).unwrap();
    (pod.completions.ok, pod.completions.upstream, pod.in_flight) = (0.0, 40_000.0, 0.2);
    let mut process = Process::warm(balanced(), 4);
    let decision = process.seconds(30, &snapshot);
    assert!(decision.guards.contains(&Guard::Errors));
    let baseline = process.state.baseline_hold.unwrap();
    assert!((baseline - 0.25).abs() < 0.01, "{baseline}: what others take");
    // And when calls become few, nothing goes.
    stable_calls(&mut snapshot, 1.0);
    snapshot.pods.iter_mut().for_each(|p| p.cpu = Some(0.0));
    let decision = process.tick(&snapshot);
    assert_eq!((decision.recommended, decision.limited_by), (Some(4), Some(LimitedBy::ErrorGuard)));
}

fn stable_calls(snapshot: &mut Snapshot, in_flight: f64) {
    let load = snapshot.load.as_mut().unwrap();
    for window in [&mut load.stable, &mut load.panic] {
        (window.in_flight, window.admitted) = (in_flight, in_flight * 4.0 * window.seconds);
    }
}

#[test]
fn all_pods_fail_fast() {
    let mut process = Process::warm(balanced(), 8);
    process.seconds(120, &fleet(8, calls(100.0)));
    // 400 calls per second fail within 5 ms: two in flight.
    let outage = Traffic { rate: 400.0, in_flight: 2.0, latency_ms: 5.0, errors: 0.95, ..NONE };
    let decision = process.seconds(600, &fleet(8, outage));
    assert_eq!(decision.recommended, Some(8), "what comes in keeps the demand: {decision:?}");
    assert!(decision.guards.contains(&Guard::Errors));
    assert!((decision.demand.unwrap() - 100.0 / 14.0).abs() < 0.1);
    // Also where clients give up.
    let given_up = Traffic { rate: 20.0, in_flight: 0.1, ..outage };
    let decision = process.seconds(600, &fleet(8, given_up));
    assert_eq!(
        (decision.recommended, decision.limited_by),
        (Some(8), Some(LimitedBy::ErrorGuard)),
        "as before the outage"
    );
    // Slow failures are no reason for more.
    let slow = Traffic { latency_ms: 30_000.0, ..outage };
    assert_eq!(process.seconds(60, &fleet(8, slow)).recommended, Some(8));
}

#[test]
fn own_refusals_are_demand() {
    let refused = Traffic { shed: 224.0, ..calls(56.0) };
    expect(&fleet(4, refused), 8, None);
    // Second sends are no demand of their own.
    let mut retried = fleet(4, refused);
    let load = retried.load.as_mut().unwrap();
    (load.stable.retries, load.panic.retries) = (224.0 * 60.0, 224.0 * 6.0);
    expect(&retried, 4, None);
}

#[test]
fn a_slow_dependency() {
    let mut process = Process::warm(balanced(), 4);
    process.seconds(60, &fleet(4, calls(50.0)));
    // The same calls take four times as long.
    let slow = Traffic { rate: 200.0, in_flight: 200.0, latency_ms: 900.0, ..NONE };
    let decision = process.tick(&fleet(4, slow));
    assert_eq!(decision.recommended, Some(15), "what runs needs a place");
    assert!(decision.guards.contains(&Guard::HoldTimeDegraded));
    // More would not serve what waits sooner.
    let waiting = Traffic { queue: 10.0, ..slow };
    assert_eq!(
        process.tick(&fleet(4, waiting)).recommended,
        Some(15),
        "210/14, nothing for the queue's rate"
    );
    // Nothing goes while it lasts, and up is bounded.
    let fewer = Traffic { rate: 20.0, in_flight: 20.0, ..slow };
    let decision = process.after(60_000, &fleet(15, fewer));
    assert_eq!((decision.recommended, decision.limited_by), (Some(15), Some(LimitedBy::HoldTimeDegraded)));
    let worse = Traffic { in_flight: 2000.0, ..slow };
    let decision = process.tick(&fleet(15, worse));
    assert_eq!((decision.recommended, decision.limited_by), (Some(20), Some(LimitedBy::TooManyReplicas)));
}

/// The window of a minute still knows of slow calls when most are fast.
const MIXED: Traffic = Traffic { rate: 200.0, in_flight: 70.0, latency_ms: 1200.0, ..NONE };

/// Calls that are slow for so long by a dependency: 4 replicas have become 15.
fn slowed(policy: Policy, seconds: i64) -> Process {
    let direct = |n, traffic| Snapshot { actuator: Actuator::Direct, ..fleet(n, traffic) };
    let mut process = Process::warm(policy, 4);
    process.seconds(60, &direct(4, calls(50.0)));
    // More run before it is known that each takes longer.
    let mut n = process.seconds(3, &direct(4, calls(200.0))).desired;
    assert_eq!(n, 15);
    let slow = Traffic { rate: 200.0, in_flight: 200.0, queue: 5.0, latency_ms: 1200.0, ..NONE };
    for _ in 0..seconds {
        n = process.tick(&direct(n, slow)).desired;
        assert_eq!(n, 15, "nothing goes while it lasts");
    }
    for _ in 0..10 {
        n = process.tick(&direct(n, MIXED)).desired;
        assert_eq!(n, 15, "the latency guard stands");
    }
    process
}

/// Calls that are slow for so long, and then as fast as before: the scale after each second since.
fn after_slow_calls(policy: Policy, seconds: i64) -> Vec<i32> {
    let (mut process, mut n) = (slowed(policy, seconds), 15);
    let mut seen = Vec::new();
    for _ in 0..600 {
        n = process.tick(&Snapshot { actuator: Actuator::Direct, ..fleet(n, calls(50.0)) }).desired;
        seen.push(n);
    }
    seen
}

#[test]
fn what_slow_calls_asked_for_goes_at_once_when_they_are_fast_again() {
    let scales = after_slow_calls(balanced(), 600);
    assert_eq!(scales[0], 4, "{scales:?}");
    assert!(scales.iter().all(|n| *n == 4));
}

#[test]
fn what_slow_calls_asked_for_still_goes_after_a_slow_moment_before_the_hpa_has_looked() {
    let mut process = slowed(balanced(), 600);
    assert_eq!(process.tick(&fleet(15, calls(50.0))).desired, 4);
    assert_eq!(process.seconds(5, &fleet(15, MIXED)).desired, 15);
    assert_eq!(process.seconds(5, &fleet(15, calls(50.0))).desired, 4);
}

#[test]
fn slow_calls_for_a_while_count_like_load() {
    // The pods that came before it was known why are in the window still: this could be a burst.
    let scales = after_slow_calls(balanced(), 100);
    assert_eq!((scales[0], scales[300]), (15, 15), "{scales:?}");
    assert!(scales.windows(2).all(|pair| pair[1] <= pair[0]));
    assert_eq!(*scales.iter().find(|n| **n != 15).unwrap(), 13, "a tenth: {scales:?}");
}

#[test]
fn a_slow_moment_makes_windows_forget_no_load() {
    let direct = |n, traffic| Snapshot { actuator: Actuator::Direct, ..fleet(n, traffic) };
    let mut process = Process::warm(balanced(), 15);
    process.seconds(60, &direct(15, calls(200.0)));
    let slow = Traffic { rate: 400.0, in_flight: 200.0, latency_ms: 500.0, ..NONE };
    assert!(process.tick(&direct(15, slow)).guards.contains(&Guard::HoldTimeDegraded));
    // The same load as before needs all pods while calls are fast, for nearly a window; then it falls.
    process.seconds(470, &direct(15, calls(200.0)));
    assert_eq!(process.seconds(479, &direct(15, calls(50.0))).desired, 15);
    assert_eq!(process.seconds(2, &direct(15, calls(50.0))).desired, 13, "a tenth");
}

#[test]
fn a_pace_that_a_person_chose_holds_for_slow_calls_too() {
    let scales = after_slow_calls(Policy { preset_pace: false, ..balanced() }, 600);
    assert!(scales[..470].iter().all(|n| *n == 15), "{scales:?}");
    assert_eq!(*scales[470..].iter().find(|n| **n != 15).unwrap(), 13, "a tenth");
}

#[test]
fn restart_in_the_middle_of_a_cooldown() {
    let policy = Policy { cooldown: Cooldown { after_up: 300_000, after_down: 300_000 }, ..balanced() };
    let mut process = Process::warm(policy, 4);
    process.tick(&fleet(5, calls(65.0)));
    process.after(100_000, &fleet(5, calls(65.0)));
    process.restart(20_000);
    let decision = process.tick(&fleet(5, calls(200.0)));
    assert_eq!((decision.recommended, decision.limited_by), (Some(5), Some(LimitedBy::Cooldown)));
    assert_eq!(decision.hold_until, Some(180_000), "20 s passed while nobody looked");
    assert_eq!(process.after(179_000, &fleet(5, calls(200.0))).recommended, Some(15));
}

#[test]
fn a_change_while_nobody_looked_counts_as_made_now() {
    let policy = Policy { cooldown: Cooldown { after_up: 300_000, after_down: 300_000 }, ..balanced() };
    let mut process = Process::warm(policy, 4);
    process.tick(&fleet(4, calls(50.0)));
    process.restart(500_000);
    let decision = process.tick(&fleet(7, calls(200.0)));
    assert_eq!((decision.recommended, decision.hold_until), (Some(7), Some(301_000)));
}

#[test]
fn a_clock_that_was_set_back_skips_nothing() {
    let policy = Policy { cooldown: Cooldown { after_up: 300_000, after_down: 300_000 }, ..balanced() };
    for skew in [-1_000, -10_000_000] {
        let mut process = Process::warm(policy.clone(), 4);
        process.tick(&fleet(5, calls(65.0)));
        process.restart(skew);
        assert_eq!(process.after(298_000, &fleet(5, calls(200.0))).recommended, Some(5), "{skew}");
        assert_eq!(process.after(3_000, &fleet(5, calls(200.0))).recommended, Some(15), "{skew}");
    }
}

#[test]
fn a_rollout_does_not_move_the_count() {
    // Two of ten are new and not ready, one more than asked for.
    let mut snapshot = fleet(10, calls(135.0));
    snapshot.pods = pods(8, 3);
    snapshot.pods.iter_mut().for_each(|p| p.cpu = Some(0.85));
    expect(&snapshot, 10, None);
}

#[test]
fn a_crash_loop_does_not_run_away() {
    // Three of ten are left and work hard: their CPU asks for nothing.
    let mut snapshot = fleet(10, calls(50.0));
    snapshot.pods = pods(3, 7);
    snapshot.pods.iter_mut().for_each(|p| p.cpu = Some(9.0));
    let decision = once(&balanced(), &snapshot);
    assert_eq!(decision.recommended, Some(10), "27/0.7 = 38.6 without the guard: {decision:?}");
    assert!(decision.guards.contains(&Guard::TooFewReady));
    // Calls may: they were counted at the gateways.
    snapshot.load = Some(load(calls(180.0), &snapshot.pods));
    assert_eq!(once(&balanced(), &snapshot).recommended, Some(13));
}

#[test]
fn nothing_is_ready() {
    for traffic in [calls(200.0), NONE] {
        let mut snapshot = fleet(4, traffic);
        snapshot.pods = pods(0, 4);
        expect(&snapshot, 4, Some(LimitedBy::AllPodsUnready));
    }
}

#[test]
fn no_place_for_more() {
    let mut snapshot = fleet(4, calls(93.0));
    snapshot.blocked = Some("exceeded quota: pods".into());
    expect(&snapshot, 4, Some(LimitedBy::ScaleUpBlocked));
    let mut calm = fleet(4, calls(28.0));
    calm.blocked.clone_from(&snapshot.blocked);
    expect(&calm, 2, Some(LimitedBy::ScaleDownLimit));
}

#[test]
fn somebody_changes_the_scale_by_hand() {
    let mut process = Process::warm(balanced(), 4);
    let direct = |n| {
        let mut snapshot = fleet(n, calls(50.0));
        snapshot.actuator = Actuator::Direct;
        snapshot
    };
    process.seconds(600, &direct(4));
    // Eight: held for a whole window, as if it had been recommended.
    assert_eq!(process.seconds(480, &direct(8)).desired, 8);
    assert_eq!(process.tick(&direct(8)).desired, 7);
    // Two are not enough.
    assert_eq!(process.tick(&direct(2)).desired, 4);
}

#[test]
fn a_foreign_autoscaler() {
    let mut snapshot = fleet(4, calls(93.0));
    snapshot.actuator = Actuator::Off;
    let decision = once(&balanced(), &snapshot);
    assert_eq!((decision.recommended, decision.desired), (Some(7), 4), "told, not done");
}

#[test]
fn clock_jumps_within_a_process_change_nothing() {
    use crate::autoscale::{decide::decide, time::Now};
    let policy = Policy { cooldown: Cooldown { after_up: 300_000, after_down: 300_000 }, ..balanced() };
    let state = State { last_up: Some(WARM - 10_000), ..warm(4) };
    let expected = decide(&policy, &fleet(4, calls(93.0)), &state, at(WARM));
    for wall in [0, i64::MAX, i64::MIN, 1_600_000_000_000] {
        let now = Now { mono: WARM, wall };
        assert_eq!(decide(&policy, &fleet(4, calls(93.0)), &state, now), expected);
    }
}

#[test]
fn a_policy_that_cannot_be_harms_nobody() {
    // Bounds the wrong way round, targets of zero: no panic, and within what the bounds leave.
    let mut policy = Policy::balanced(9, 3, None);
    policy.signals.concurrency.as_mut().unwrap().per_pod = 0.0;
    policy.signals.cpu.as_mut().unwrap().per_pod = f64::NAN;
    for n in [0, 1, 5, 1000, -3, i32::MAX] {
        let decision = once(&policy, &Snapshot { replicas: n, ..fleet(3, calls(93.0)) });
        assert!((0..=i32::MAX).contains(&decision.desired));
    }
}
