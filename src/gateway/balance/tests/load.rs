//! One endpoint's average, penalties and counts.

use std::{thread, time::Duration};

use super::{
    super::{Load, Sample},
    SECOND,
};

const MS: u64 = 1_000_000;

fn cost(load: &Load, now: u64) -> f64 {
    load.cost_peak_ewma(now, 30 * MS)
}

#[test]
fn the_average_rises_at_once_and_falls_over_seconds() {
    let load = Load::new(0);
    assert_eq!(load.ewma_ns(), None);
    load.observe(SECOND, Sample::Answered(20 * MS));
    load.observe(SECOND, Sample::Answered(200 * MS));
    assert_eq!(load.ewma_ns(), Some(200 * MS));
    // One time constant later, 1/e of the difference is left.
    load.observe(3 * SECOND, Sample::Answered(20 * MS));
    let ewma = load.ewma_ns().unwrap() as f64;
    assert!((ewma / 1e6 - (20.0 + 180.0 / std::f64::consts::E)).abs() < 0.01, "{ewma}");
}

#[test]
fn an_idle_endpoint_is_forgiven_and_a_hanging_one_is_not() {
    let load = Load::new(0);
    load.observe(0, Sample::Answered(200 * MS));
    let idle = cost(&load, 23 * SECOND) / 1e6;
    assert!((19.0..21.0).contains(&idle), "200 ms fall to 20 ms in 23 s, not {idle}");
    assert!((cost(&load, 10_000 * SECOND) - 1e5).abs() < 1.0, "never below 0.1 ms");
    load.started();
    assert!((cost(&load, 23 * SECOND) / 1e6 - 400.0).abs() < 0.01);
}

#[test]
fn unmeasured_counts_as_the_seed() {
    let load = Load::new(0);
    load.started();
    assert!((cost(&load, 0) - 60e6).abs() < 1.0);
}

#[test]
fn leaving_clients_only_raise_the_average() {
    let load = Load::new(0);
    load.observe(0, Sample::ClientLeft(MS));
    assert_eq!(load.ewma_ns(), None, "a quick leave says nothing");
    load.observe(0, Sample::ClientLeft(3_000 * MS));
    assert_eq!(load.ewma_ns(), Some(3_000 * MS));
    load.observe(60 * SECOND, Sample::ClientLeft(MS));
    assert_eq!(load.ewma_ns(), Some(3_000 * MS));
}

#[test]
fn penalties_double_while_trials_fail_and_end_with_a_success() {
    let load = Load::new(0);
    let mut now = SECOND;
    for seconds in [5, 10, 20, 40, 60, 60] {
        load.observe(now, Sample::Failed);
        assert_eq!(load.penalty_ns(now), seconds * SECOND);
        // What failed together is one failure.
        load.observe(now, Sample::Failed);
        assert_eq!(load.penalty_ns(now), seconds * SECOND);
        now += seconds * SECOND;
        assert_eq!(load.penalty_ns(now), 0);
    }
    load.observe(now, Sample::Failed);
    load.observe(now + MS, Sample::Answered(2 * MS));
    assert!(load.penalty_ns(now + MS) > 0, "sent before the failure");
    load.observe(now + 3 * MS, Sample::Answered(2 * MS));
    assert_eq!(load.penalty_ns(now + 3 * MS), 0);
    load.observe(now + 4 * MS, Sample::Failed);
    assert_eq!(load.penalty_ns(now + 4 * MS), 5 * SECOND, "doubling starts anew");
}

#[test]
fn a_slow_endpoint_is_punished_by_its_own_measure() {
    let load = Load::new(0);
    load.observe(0, Sample::Answered(20 * SECOND));
    load.observe(SECOND, Sample::Failed);
    assert_eq!(load.penalty_ns(SECOND), 20 * SECOND);
}

#[test]
fn retry_after_counts_if_longer_and_within_five_minutes() {
    for (asked, penalty) in [(0, 5), (2, 5), (90, 90), (3_600, 300)] {
        let load = Load::new(0);
        load.observe(SECOND, Sample::RetryAfter(Duration::from_secs(asked)));
        assert_eq!(load.penalty_ns(SECOND), penalty * SECOND, "asked for {asked} s");
    }
}

#[test]
fn readiness_begins_slow_start_and_forgives() {
    let load = Load::new(0);
    load.observe(SECOND, Sample::Failed);
    load.became_ready(2 * SECOND);
    assert_eq!(load.penalty_ns(2 * SECOND), 0);
    let window = Duration::from_secs(10);
    for (age, warmth) in [(0, 0.1), (5, 0.5), (9, 0.9), (10, 1.0), (60, 1.0)] {
        assert!((load.warmth((2 + age) * SECOND, window) - warmth).abs() < 1e-9, "age {age} s");
    }
    assert!((load.warmth(2 * SECOND, Duration::ZERO) - 1.0).abs() < 1e-9, "turned off");
}

#[test]
fn counts_are_exact_across_threads_and_never_wrap() {
    let load = Load::new(0);
    load.finished(0, Sample::Nothing);
    load.stream_closed();
    load.session_closed();
    assert_eq!((load.inflight(), load.streams(), load.sessions()), (0, 0, 0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..10_000 {
                    load.started();
                    load.session_opened();
                    if i % 2 == 0 {
                        load.finished(i, Sample::Answered(i));
                    }
                }
            });
        }
    });
    assert_eq!((load.inflight(), load.sessions()), (20_000, 40_000));
}
