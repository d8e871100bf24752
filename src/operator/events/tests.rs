//! What of the way from one status to the next is said.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::*;

fn status(conditions: &[(&str, &str, &str)]) -> McpFleetStatus {
    let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
        type_: (*type_).into(),
        status: (*status).into(),
        reason: (*reason).into(),
        message: format!("{type_} {reason}"),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    };
    McpFleetStatus { conditions: conditions.iter().map(condition).collect(), ..McpFleetStatus::default() }
}

fn scaled(actuator: &str, current: i32, desired: i32, terms: &[(&str, &str, &str, &str)]) -> McpFleetStatus {
    let term = |(signal, total, target, demand): &(&str, &str, &str, &str)| TermStatus {
        signal: (*signal).into(),
        total: (*total).into(),
        target: (*target).into(),
        demand: (*demand).into(),
        ..TermStatus::default()
    };
    let autoscaling = AutoscalingStatus {
        effective_actuator: actuator.into(),
        current_replicas: Some(current),
        desired_replicas: Some(desired),
        reason: Some("Activation".into()),
        terms: terms.iter().map(term).collect(),
        ..AutoscalingStatus::default()
    };
    McpFleetStatus { autoscaling: Some(autoscaling), ..McpFleetStatus::default() }
}

fn said(old: &McpFleetStatus, new: &McpFleetStatus) -> Vec<(&'static str, String)> {
    transitions(old, new, None).into_iter().map(|n| (n.reason, n.text)).collect()
}

#[test]
fn each_change_of_the_scale_is_explained_in_one_line() {
    let terms = [
        ("concurrency", "93", "14", "6.7"),
        ("cpu", "0.37", "0.7", "2.1"),
        ("connections", "0", "100", "0.0"),
    ];
    let explained = |before: &McpFleetStatus, after: &McpFleetStatus| {
        let notes = transitions(before, after, before.autoscaling.as_ref());
        notes.into_iter().map(|n| (n.reason, n.text)).collect::<Vec<_>>()
    };
    let (before, mut after) = (scaled("HPA", 4, 7, &terms), scaled("HPA", 7, 7, &[]));
    let line = |text: &str| vec![("SuccessfulRescale", text.to_owned())];
    let because = "concurrency 93/14=6.7, cpu 2.1";
    assert_eq!(explained(&before, &after), line(&format!("4→7: Activation, {because}")));
    assert!(explained(&after, &after).is_empty(), "said once");
    // The HPA cut it, and says so in its condition; whatever it says of a step that was whole is the next one's.
    after.conditions = status(&[("ScalingLimited", "True", "ScaleUpLimit")]).conditions;
    assert_eq!(explained(&before, &after), line(&format!("4→7: Activation, {because}")));
    after.autoscaling.iter_mut().for_each(|a| a.current_replicas = Some(6));
    let cut = format!("4→6: Activation, {because}, limitedBy=ScaleUpLimit");
    assert_eq!(explained(&before, &after), line(&cut));
    after.conditions = status(&[("ScalingLimited", "True", "Cooldown")]).conditions;
    assert_eq!(explained(&before, &after), line(&format!("4→6: Activation, {because}")));
    let (zero, one) = (scaled("Direct", 0, 1, &[]), scaled("Direct", 1, 1, &[]));
    assert_eq!(explained(&zero, &one), line("0→1: Activation"));
    assert!(said(&scaled("Off", 2, 2, &[]), &scaled("Off", 5, 2, &[])).is_empty(), "not ours to explain");
    assert!(said(&McpFleetStatus::default(), &one).is_empty(), "the first that is known is no change");
}

#[test]
fn what_somebody_else_set_is_not_explained_by_what_we_measured() {
    let terms = [("concurrency", "93", "14", "6.7")];
    let text = said(&scaled("HPA", 7, 7, &terms), &scaled("HPA", 3, 7, &terms))[0].1.clone();
    assert!(text.starts_with("7→3: not decided by this replica"), "{text}");
}

#[test]
fn a_change_is_explained_by_the_decision_that_led_to_it() {
    let terms = [("concurrency", "93", "14", "6.7")];
    let (before, after) = (scaled("Direct", 4, 4, &terms), scaled("Direct", 6, 6, &[]));
    let said = |before, after, cause: &McpFleetStatus| {
        let notes = transitions(before, after, cause.autoscaling.as_ref());
        notes.into_iter().map(|n| n.text).collect::<Vec<_>>()
    };
    let mut cause = scaled("Direct", 4, 7, &terms);
    let mut decided = |reason: &str, limited_by: Option<&str>| {
        let autoscaling = cause.autoscaling.as_mut().expect("a decision");
        autoscaling.reason = Some(reason.into());
        autoscaling.limited_by = limited_by.map(str::to_owned);
        cause.clone()
    };
    assert_eq!(
        said(&before, &after, &decided("ScaleUp", Some("ScaleUpLimit"))),
        ["4→6: concurrency 93/14=6.7, limitedBy=ScaleUpLimit"]
    );
    assert_eq!(said(&before, &after, &decided("Panic", None)), ["4→6: Panic, concurrency 93/14=6.7"]);
    let seven = scaled("Direct", 7, 7, &[]);
    let stabilized = decided("ScaleUp", Some("ScaleUpStabilized"));
    assert_eq!(said(&before, &seven, &stabilized), ["4→7: concurrency 93/14=6.7"], "the HPA's own had ended");
    let part = said(&before, &after, &stabilized);
    assert_eq!(part, ["4→6: concurrency 93/14=6.7, limitedBy=ScaleUpStabilized"]);
    let nothing = [("concurrency", "0", "14", "0.0"), ("queueDepth", "0", "5", "0.0")];
    let (mut less, two) = (scaled("Direct", 4, 2, &nothing), scaled("Direct", 2, 2, &nothing));
    less.autoscaling.iter_mut().for_each(|a| a.reason = Some("ScaleDown".into()));
    assert_eq!(said(&before, &two, &less), ["4→2: concurrency 0/14=0.0"]);
    let mut idle = scaled("Direct", 1, 0, &nothing);
    idle.autoscaling.iter_mut().for_each(|a| a.reason = Some("Idle".into()));
    let (one, zero) = (scaled("Direct", 1, 1, &[]), scaled("Direct", 0, 0, &[]));
    assert_eq!(said(&one, &zero, &idle), ["1→0: Idle"]);
}

#[test]
fn another_actuator_is_said_with_the_reason() {
    let (mut hpa, mut direct) = (scaled("HPA", 2, 2, &[]), scaled("Direct", 2, 2, &[]));
    hpa.conditions = status(&[("MetricsAPIAvailable", "True", "Serving")]).conditions;
    direct.conditions = status(&[("MetricsAPIAvailable", "False", "OwnedByOther")]).conditions;
    let text = "HPA → Direct: MetricsAPIAvailable OwnedByOther".to_owned();
    assert_eq!(said(&hpa, &direct), [("ActuatorChanged", text)]);
    direct.conditions = hpa.conditions.clone();
    assert_eq!(said(&hpa, &direct)[0].1, "HPA → Direct: the specification asks for it");
}

#[test]
fn a_scaler_that_is_blind_is_said_once() {
    let active = |status_: &str, reason: &str| status(&[("ScalingActive", status_, reason)]);
    let (fine, blind) = (active("True", "ValidMetricFound"), active("False", "MetricsUnavailable"));
    let fallback = active("False", "Fallback");
    assert_eq!(said(&fine, &blind)[0].0, "MetricsUnavailable");
    assert!(said(&blind, &blind).is_empty());
    assert_eq!(said(&blind, &fallback)[0].0, "FallbackActive");
    assert!(said(&fallback, &fine).is_empty());
}

#[test]
fn only_what_a_user_would_ask_about() {
    let reasons = |old: &[(&str, &str, &str)], new: &[(&str, &str, &str)]| -> Vec<(&'static str, bool)> {
        transitions(&status(old), &status(new), None).into_iter().map(|n| (n.reason, n.warning)).collect()
    };
    let pending = [("Ready", "False", "Pending")];
    let ready = [("Ready", "True", "Ready")];
    let broken = [("Ready", "False", "ImagePullFailed")];
    assert!(reasons(&[], &pending).is_empty());
    assert_eq!(reasons(&pending, &ready), [("Ready", false)]);
    assert!(reasons(&ready, &ready).is_empty());
    assert_eq!(reasons(&ready, &broken), [("ImagePullFailed", true)]);
    assert_eq!(
        reasons(&ready, &[("ScalingActive", "False", "ForeignAutoscaler")]),
        [("ForeignAutoscaler", true)]
    );
}
