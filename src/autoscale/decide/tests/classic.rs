//! `Classic`: the weighted formula to the digit, and its known defects (autoscaling.md section 4.2).

use super::support::*;
use crate::autoscale::{
    decision::{Decision, LimitedBy, Reason, Signal},
    policy::{Combine, Policy},
};

fn classic() -> Policy {
    Policy::classic(2, 10)
}

/// Raw u: the sum of the parts that the terms tell.
fn u(decision: &Decision) -> f64 {
    decision.terms.iter().map(|t| t.demand).sum()
}

/// One decision for each pod's share of streams and queue.
fn score(n: i32, latency_ms: f64, errors: f64, connections: f64, queue: f64) -> Decision {
    let pods = f64::from(n);
    let traffic = Traffic {
        rate: 100.0,
        latency_ms,
        errors,
        streams: connections * pods,
        queue: queue * pods,
        ..calls(5.0)
    };
    once(&classic(), &fleet(n, traffic))
}

#[track_caller]
fn near(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 1e-9, "{actual} is not {expected}");
}

#[test]
fn the_formula_to_the_digit() {
    for (latency, errors, connections, queue, expected) in [
        (0.0, 0.0, 0.0, 0.0, 0.0),
        (1000.0, 0.0, 0.0, 0.0, 0.3),
        (0.0, 1.0, 0.0, 0.0, 0.3),
        (0.0, 0.0, 100.0, 0.0, 0.2),
        (0.0, 0.0, 0.0, 50.0, 0.2),
        (1000.0, 1.0, 100.0, 50.0, 1.0),
        (400.0, 0.1, 60.0, 10.0, 0.12 + 0.03 + 0.12 + 0.04),
    ] {
        let decision = score(4, latency, errors, connections, queue);
        near(u(&decision), expected);
        near(decision.utilization.unwrap(), expected / 0.8);
        near(decision.demand.unwrap(), 4.0 * expected / 0.8);
    }
    let decision = score(4, 400.0, 0.1, 60.0, 10.0);
    let term = |signal| decision.terms.iter().find(|t| t.signal == signal).unwrap();
    for (signal, total, target, part) in [
        (Signal::Latency, 400.0, 1000.0, 0.12),
        (Signal::ErrorRate, 0.1, 1.0, 0.03),
        (Signal::Connections, 60.0, 100.0, 0.12),
        (Signal::QueueDepth, 10.0, 50.0, 0.04),
    ] {
        near(term(signal).total, total);
        near(term(signal).target, target);
        near(term(signal).demand, part);
    }
}

#[test]
fn the_defaults() {
    let policy = classic();
    let Combine::WeightedSum(thresholds) = policy.combine else { panic!("{policy:?}") };
    assert_eq!((thresholds.up, thresholds.down, thresholds.step), (0.8, 0.3, 1));
    assert_eq!((policy.min, policy.max), (2, 10));
    assert_eq!((policy.cooldown.after_up, policy.cooldown.after_down), (300_000, 300_000));
}

#[test]
fn one_step_beyond_a_threshold_and_none_on_it() {
    for (n, connections, wanted, reason) in [
        (4, 401.0, 5, Reason::ScaleUp),
        (4, 400.0, 4, Reason::Steady),
        (4, 151.0, 4, Reason::Steady),
        (4, 149.0, 3, Reason::ScaleDown),
        (2, 0.0, 2, Reason::Steady),
        (10, 2000.0, 10, Reason::Steady),
    ] {
        let decision = score(n, 0.0, 0.0, connections, 0.0);
        assert_eq!((decision.recommended, decision.reason), (Some(wanted), reason), "{n} {connections}");
    }
    assert_eq!(score(2, 0.0, 0.0, 0.0, 0.0).limited_by, Some(LimitedBy::TooFewReplicas));
    assert_eq!(score(10, 0.0, 0.0, 2000.0, 0.0).limited_by, Some(LimitedBy::TooManyReplicas));
}

#[test]
fn five_minutes_of_rest_both_ways() {
    let mut process = Process::warm(classic(), 2);
    let busy = |n: i32| fleet(n, Traffic { streams: 2000.0 * f64::from(n), ..calls(1.0) });
    let idle = |n| fleet(n, NONE);
    assert_eq!(process.tick(&busy(2)).recommended, Some(3));
    for snapshot in [busy(3), idle(3)] {
        let decision = process.tick(&snapshot);
        assert_eq!((decision.recommended, decision.limited_by), (Some(3), Some(LimitedBy::Cooldown)));
    }
    let seen_at = WARM + 2_000;
    process.now = seen_at + 299_000 - 1_000;
    assert_eq!(process.tick(&idle(3)).recommended, Some(3));
    assert_eq!(process.tick(&idle(3)).recommended, Some(2), "300 s after the step was seen");
    process.tick(&idle(2));
    assert_eq!(process.seconds(299, &busy(2)).recommended, Some(2), "the rest after a step down");
    assert_eq!(process.tick(&busy(2)).recommended, Some(3));
}

#[test]
fn defect_ratios_of_one_without_errors_stay_below_the_threshold() {
    near(u(&score(4, 1000.0, 0.0, 100.0, 50.0)), 0.7);
    assert_eq!(score(4, 1000.0, 0.0, 100.0, 50.0).recommended, Some(4));
    assert_eq!(score(4, 1000.0, 0.33, 100.0, 50.0).recommended, Some(4), "0.799");
    assert_eq!(score(4, 1000.0, 0.34, 100.0, 50.0).recommended, Some(5), "0.802");
}

#[test]
fn defect_one_term_alone_reaches_the_threshold() {
    for (latency, connections, queue) in [(2670.0, 0.0, 0.0), (0.0, 400.5, 0.0), (0.0, 0.0, 200.5)] {
        assert_eq!(score(4, latency, 0.0, connections, queue).recommended, Some(5));
    }
    // A ratio counts ten at most.
    near(u(&score(4, 0.0, 0.0, 5000.0, 0.0)), 2.0);
}

#[test]
fn defect_fast_failures_scale_down_in_the_outage() {
    let decision = score(4, 5.0, 0.95, 0.0, 0.0);
    near(u(&decision), 0.2865);
    assert_eq!((decision.recommended, decision.reason), (Some(3), Reason::ScaleDown));
    // The same load under the default preset: nothing is taken away.
    let traffic = Traffic { rate: 100.0, latency_ms: 5.0, errors: 0.95, ..calls(0.5) };
    let decision = once(&Policy::balanced(2, 10, None), &fleet(4, traffic));
    assert_eq!((decision.recommended, decision.limited_by), (Some(4), Some(LimitedBy::ErrorGuard)));
}

#[test]
fn defect_natural_latency_never_scales_down() {
    let mut process = Process::warm(classic(), 8);
    let traffic = Traffic { rate: 0.2, latency_ms: 1001.0, ..calls(0.2) };
    assert_eq!(process.seconds(3600, &fleet(8, traffic)).recommended, Some(8));
}

#[test]
fn defect_two_to_ten_takes_forty_minutes() {
    let mut process = Process::warm(classic(), 2);
    let (mut n, mut seconds) = (2, 0);
    while n < 10 {
        let busy = fleet(n, Traffic { streams: 2000.0 * f64::from(n), ..calls(1.0) });
        n = process.tick(&busy).recommended.unwrap();
        seconds += 1;
        assert!(seconds < 3600);
    }
    assert!((2100..2460).contains(&seconds), "{seconds} s: seven rests of 300 s between eight steps");
}
