//! What is written of a decision, and what is not.

use proptest::prelude::*;

use super::*;
use crate::{
    autoscale::{
        decision::{Decision, Guard, LimitedBy, Signal},
        state::State,
        time::Now,
    },
    operator::{scaling::EffectiveActuator, test_support::scaled as seven},
};

fn write(scaled: &Scaled) -> AutoscalingStatus {
    status(Some(scaled), None).expect("a status")
}

#[test]
fn a_decision_in_words_and_numbers() {
    let status = write(&seven());
    let AutoscalingStatus { effective_actuator, current_replicas, desired_replicas, .. } = status.clone();
    assert_eq!((effective_actuator.as_str(), current_replicas, desired_replicas), ("HPA", Some(6), Some(7)));
    assert_eq!((status.utilization.as_deref(), status.demand.as_deref()), (Some("1.12"), Some("6.7")));
    assert_eq!(
        (status.reason.as_deref(), status.limited_by.as_deref()),
        (Some("ScaleUp"), Some("LatencyGuard"))
    );
    let terms: Vec<_> =
        status.terms.iter().map(|t| format!("{} {}/{}={}", t.signal, t.total, t.target, t.demand)).collect();
    assert_eq!(terms, ["concurrency 93.4/14=6.7", "cpu 0.37/0.7=2.1"]);
    assert_eq!(
        (status.terms[0].window_seconds, status.terms[0].missing, status.terms[1].missing),
        (60, None, Some(1))
    );
    assert_eq!(status.guards, ["Latency"]);
    // 100,000.001 s is not over after 100,000 s.
    assert_eq!(status.cooldown_until.map(|t| t.0.as_second()), Some(100_001));
}

#[test]
fn numbers_have_the_digits_that_count() {
    let texts: Vec<String> = [0.0, 14.0, 93.44, 1234.6, 0.2, 0.365, 100.0].into_iter().map(number).collect();
    assert_eq!(texts, ["0", "14", "93.4", "1235", "0.2", "0.36", "100"]);
}

#[test]
fn what_is_no_news_stays_as_it_is_written() {
    let old = write(&seven());
    let with = |change: &dyn Fn(&mut Scaled)| {
        let mut scaled = seven();
        change(&mut scaled);
        (news(Some(&old), Some(&write(&scaled))), status(Some(&scaled), Some(&old)).expect("a status") == old)
    };
    let same = (News::None, true);
    let written = |news| (news, false);
    assert_eq!(with(&|_| ()), same);
    assert_eq!(with(&|s| s.decision.utilization = Some(1.16)), same);
    assert_eq!(with(&|s| s.decision.terms[0].total = 94.0), same);
    assert_eq!(with(&|s| s.decision.terms.swap(0, 1)), same);
    assert_eq!(with(&|s| s.persisted.recommendations[0].0 += 1000), same);
    assert_eq!(with(&|s| s.persisted.baseline_hold_ms = Some(260)), same);
    assert_eq!(with(&|s| s.cooldown_until = s.cooldown_until.map(|t| t + 900)), same);
    assert_eq!(with(&|s| s.persisted.last_up = s.persisted.last_up.map(|t| t + 30)), same);
    assert_eq!(with(&|s| s.decision.utilization = Some(1.18)), written(News::Load));
    assert_eq!(with(&|s| s.decision.utilization = None), written(News::Load));
    assert_eq!(with(&|s| s.decision.guards.push(Guard::Panic)), written(News::Load));
    assert_eq!(with(&|s| s.persisted.recommendations[0].2 = 12), written(News::Load));
    assert_eq!(with(&|s| s.decision.terms.truncate(1)), written(News::Load));
    assert_eq!(with(&|s| s.decision.recommended = Some(8)), written(News::Decision));
    assert_eq!(with(&|s| s.decision.limited_by = None), written(News::Decision));
    assert_eq!(with(&|s| s.cooldown_until = None), written(News::Decision));
    assert_eq!(with(&|s| s.effective = EffectiveActuator::Direct), written(News::Actuator));
    assert_eq!(with(&|s| s.replicas = 7), written(News::Replicas));
    assert_eq!(with(&|s| s.ahead = Some(HeadStart { over: 6, replicas: 7 })), written(News::Replicas));
    assert_eq!(with(&|s| s.persisted.last_down = Some(99_000_000)), written(News::Replicas));
}

#[test]
fn what_is_ahead_survives_the_way_through_the_status() {
    let ahead = Some(HeadStart { over: 6, replicas: 9 });
    let autoscaling = write(&Scaled { ahead, ..seven() });
    let json = serde_json::to_value(&autoscaling).expect("a status");
    assert_eq!(json["headStart"], serde_json::json!({"specReplicas": 6, "replicas": 9}));
    let status = McpFleetStatus { autoscaling: Some(autoscaling), ..McpFleetStatus::default() };
    assert_eq!(head_start(&status), ahead);
    let without = McpFleetStatus { autoscaling: Some(write(&seven())), ..McpFleetStatus::default() };
    assert_eq!(head_start(&without), None);
}

#[test]
fn slow_drift_is_written_in_the_end() {
    let mut known = write(&seven());
    let mut writes = 0;
    for step in 0..100 {
        let mut scaled = seven();
        scaled.decision.utilization = Some(1.12 + f64::from(step) * 0.004);
        let new = status(Some(&scaled), Some(&known)).expect("a status");
        writes += usize::from(new != known);
        known = new;
    }
    assert!((5..10).contains(&writes), "{writes}");
}

#[test]
fn a_new_leader_neither_forgets_nor_writes() {
    let old = write(&seven());
    assert_eq!(status(None, Some(&old)), Some(old.clone()), "nothing decided yet");
    let mut fresh = seven();
    fresh.decision =
        Decision { reason: Reason::WarmingUp, recommended: None, utilization: None, ..fresh.decision };
    assert_eq!(status(Some(&fresh), Some(&old)), Some(old.clone()));
    fresh.replicas = 9;
    assert_eq!(
        status(Some(&fresh), Some(&old)).and_then(|s| s.current_replicas),
        Some(9),
        "but N has changed"
    );
    assert_eq!(status(None, None), None);
}

proptest! {
    /// autoscaling.md section 5, invariant 7: through the status, as JSON, and back.
    #[test]
    fn the_memory_survives_the_way_through_the_status(
        replicas in proptest::option::of(0..1000),
        times in proptest::collection::vec(0..2_000_000_000_000_i64, 4),
        recommendations in proptest::collection::vec((0..2_000_000_000_000_i64, 0..1000, 0..1000), 0..70),
        scale_events in proptest::collection::vec((0..2_000_000_000_000_i64, -1000..1000), 0..70),
    ) {
        let mut scaled = seven();
        scaled.replicas = replicas.unwrap_or(3);
        scaled.persisted = Persisted {
            replicas: Some(scaled.replicas),
            last_up: Some(times[0]),
            last_down: replicas.map(|_| times[1]),
            baseline_hold_ms: Some(times[2] % 100_000 + 1),
            recommendations,
            scale_events,
        };
        let text = serde_json::to_string(&write(&scaled)).expect("JSON");
        let back = persisted(&serde_json::from_str(&text).expect("a status"));
        // What does not fit has fallen off at the old end, as a restored state would drop it.
        let now = Now { mono: 0, wall: times[3] };
        prop_assert_eq!(State::restore(&back, now), State::restore(&scaled.persisted, now));
    }
}

#[test]
fn words_are_those_of_the_decision() {
    for limit in [LimitedBy::Cooldown, LimitedBy::ScaleUpBlocked, LimitedBy::ActivationFailed] {
        let mut scaled = seven();
        scaled.decision.limited_by = Some(limit);
        assert_eq!(write(&scaled).limited_by.as_deref(), Some(limit.as_str()));
    }
    assert_eq!(write(&seven()).terms[1].signal, Signal::Cpu.as_str());
}
