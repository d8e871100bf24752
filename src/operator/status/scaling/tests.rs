//! Conditions of fleets that we decide about.

use jiff::Timestamp;
use kube::core::DynamicObject;
use serde_json::json;

use super::*;
use crate::{
    api::v1alpha1::McpFleetStatus,
    autoscale::{
        decision::{LimitedBy, Reason},
        head_start::HeadStart,
    },
    operator::{
        status::{build, condition},
        test_support::{scaled, served, validated},
    },
};

fn hpa(spec: &Value, conditions: &Value) -> LiveChild {
    let object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": spec, "status": {"conditions": conditions},
        "metadata": {"name": "weather", "namespace": "tools", "uid": "u", "resourceVersion": "1",
            "labels": {"app.kubernetes.io/managed-by": "mcp-fleet", "mcpfleet.io/fleet": "weather"}},
    });
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    LiveChild::entry(ChildKind::HorizontalPodAutoscaler, object).expect("ours").value
}

fn with_hpa(spec: &Value, conditions: &Value) -> Observed {
    Observed { children: vec![hpa(spec, conditions)], ..Observed::default() }
}

/// Status and reason of a condition of a fleet with that decision.
fn says(type_: &str, decision: &Scaled, observed: &Observed) -> (String, String) {
    let fleet = served("{replicas: 6, server: {image: a}, autoscaling: {}}");
    let facts = ScalingFacts { scaled: Some(decision), api: ApiState::Serving, holder: None };
    of(type_, &fleet, &facts, observed)
}

fn of(
    type_: &str,
    fleet: &ValidatedFleet,
    facts: &ScalingFacts<'_>,
    observed: &Observed,
) -> (String, String) {
    let status = build(fleet, observed, &[], facts, &McpFleetStatus::default(), Timestamp::UNIX_EPOCH);
    let found = condition(&status, type_).expect("each condition is there");
    (found.status.clone(), found.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

fn with(change: impl FnOnce(&mut Scaled)) -> Scaled {
    let mut decision = scaled();
    change(&mut decision);
    decision
}

#[test]
fn what_is_going_on_becomes_a_reason() {
    let nothing = Observed::default();
    for (reason, expected) in [
        (Reason::Steady, is("True", "ValidMetricFound")),
        (Reason::Panic, is("True", "ValidMetricFound")),
        (Reason::ScaledToZero, is("True", "ValidMetricFound")),
        (Reason::MetricsUnavailable, is("False", "MetricsUnavailable")),
        (Reason::Fallback, is("False", "Fallback")),
        (Reason::Paused, is("False", "Paused")),
        (Reason::WarmingUp, is("Unknown", "WarmingUp")),
    ] {
        let decision = with(|s| s.decision.reason = reason);
        assert_eq!(says("ScalingActive", &decision, &nothing), expected, "{reason:?}");
    }
}

#[test]
fn each_limit_is_said_by_one_condition() {
    use LimitedBy as L;
    let nothing = Observed::default();
    let free = (is("True", "ReadyForNewScale"), is("False", "DesiredWithinRange"));
    let said = |limit: Option<L>| {
        let decision = with(|s| s.decision.limited_by = limit);
        (says("AbleToScale", &decision, &nothing), says("ScalingLimited", &decision, &nothing))
    };
    assert_eq!(said(None), free);
    for (limit, able) in [
        (L::Cooldown, is("False", "Cooldown")),
        (L::ScaleUpBlocked, is("False", "ScaleUpBlocked")),
        (L::ActivationFailed, is("False", "ActivationFailed")),
        (L::ScaleUpStabilized, is("True", "ScaleUpStabilized")),
        (L::ScaleDownStabilized, is("True", "ScaleDownStabilized")),
    ] {
        assert_eq!(said(Some(limit)), (able, free.1.clone()), "{limit:?}");
    }
    for limit in [
        L::TooManyReplicas,
        L::TooFewReplicas,
        L::ScaleUpLimit,
        L::ScaleDownLimit,
        L::ErrorGuard,
        L::LatencyGuard,
        L::AllPodsUnready,
        L::HoldTimeDegraded,
        L::PanicHold,
        L::MissingMetrics,
        L::Paused,
    ] {
        assert_eq!(said(Some(limit)), (free.0.clone(), is("True", limit.as_str())), "{limit:?}");
    }
}

#[test]
fn what_only_the_hpa_knows_is_added() {
    let decision = with(|s| s.decision.limited_by = None);
    let hpa = |type_: &str, status: &str, reason: &str| {
        with_hpa(&json!({}), &json!([{"type": type_, "status": status, "reason": reason, "message": "m"}]))
    };
    let active = |observed: &Observed| says("ScalingActive", &decision, observed);
    assert_eq!(
        active(&hpa("ScalingActive", "False", "FailedGetObjectMetric")),
        is("False", "FailedGetObjectMetric")
    );
    assert_eq!(
        active(&hpa("ScalingActive", "False", "ScalingDisabled")),
        is("True", "ValidMetricFound"),
        "at zero"
    );
    let able = |observed: &Observed| says("AbleToScale", &decision, observed);
    assert_eq!(able(&hpa("AbleToScale", "False", "FailedUpdateScale")), is("False", "FailedUpdateScale"));
    assert_eq!(able(&hpa("AbleToScale", "True", "ScaleDownStabilized")), is("True", "ScaleDownStabilized"));
    assert_eq!(able(&hpa("AbleToScale", "True", "SucceededGetScale")), is("True", "ReadyForNewScale"));
    let limited = hpa("ScalingLimited", "True", "ScaleUpLimit");
    assert_eq!(says("ScalingLimited", &decision, &limited), is("True", "ScaleUpLimit"));
    let direct = with(|s| (s.effective, s.decision.limited_by) = (EffectiveActuator::Direct, None));
    assert_eq!(
        says("ScalingLimited", &direct, &limited),
        is("False", "DesiredWithinRange"),
        "it is not at work"
    );
    let guarded = scaled();
    assert_eq!(
        says("ScalingLimited", &guarded, &limited),
        is("True", "LatencyGuard"),
        "what we know comes first"
    );
}

#[test]
fn an_hpa_that_does_not_follow_is_told() {
    let ahead = |unfollowed| {
        with(|s| {
            s.ahead = Some(HeadStart { over: 4, replicas: 6 });
            s.unfollowed = unfollowed;
            s.decision.limited_by = None;
        })
    };
    let able = |decision: &Scaled| says("AbleToScale", decision, &Observed::default());
    assert_eq!(able(&ahead(false)), is("True", "ReadyForNewScale"));
    assert_eq!(able(&ahead(true)), is("False", "HPANotFollowing"));
    // A process that has just begun says what was said.
    let (fleet, nothing) =
        (served("{replicas: 4, server: {image: a}, autoscaling: {}}"), Observed::default());
    let again = |old: &McpFleetStatus| {
        let status = build(&fleet, &nothing, &[], &ScalingFacts::default(), old, Timestamp::UNIX_EPOCH);
        condition(&status, "AbleToScale").expect("it is there").reason.clone()
    };
    for (unfollowed, reason) in [(true, "HPANotFollowing"), (false, "ReadyForNewScale")] {
        let decision = ahead(unfollowed);
        let facts = ScalingFacts { scaled: Some(&decision), ..ScalingFacts::default() };
        let old = build(&fleet, &nothing, &[], &facts, &McpFleetStatus::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(again(&old), reason);
    }
}

#[test]
fn a_small_step_of_a_large_fleet_needs_the_tolerance_that_old_servers_drop() {
    let kept = json!({"behavior": {"scaleUp": {"tolerance": "0"}, "scaleDown": {"tolerance": "0"}}});
    let dropped =
        json!({"behavior": {"scaleUp": {"selectPolicy": "Max"}, "scaleDown": {"selectPolicy": "Max"}}});
    let said = |n, desired, spec: &Value| {
        let decision = with(|s| {
            (s.replicas, s.decision.recommended, s.decision.limited_by) = (n, Some(desired), None);
        });
        says("ScalingLimited", &decision, &with_hpa(spec, &json!([]))).1
    };
    for (n, desired, spec, expected) in [
        (10, 11, &dropped, "HPATolerance"),
        (10, 9, &dropped, "HPATolerance"),
        (10, 11, &kept, "DesiredWithinRange"),
        (9, 10, &dropped, "DesiredWithinRange"),
        (10, 12, &dropped, "DesiredWithinRange"),
        (20, 22, &dropped, "HPATolerance"),
        (10, 10, &dropped, "DesiredWithinRange"),
    ] {
        assert_eq!(said(n, desired, spec), expected, "{n}→{desired}");
    }
}

#[test]
fn the_metrics_api_matters_only_to_those_who_read_it() {
    let api = |fleet: &ValidatedFleet, api: ApiState| {
        of(
            "MetricsAPIAvailable",
            fleet,
            &ScalingFacts { api, ..ScalingFacts::default() },
            &Observed::default(),
        )
    };
    let fleet = |autoscaling: &str| {
        served(&format!("{{replicas: 2, server: {{image: a}}, autoscaling: {autoscaling}}}"))
    };
    let reads = fleet("{}");
    assert_eq!(api(&reads, ApiState::Serving), is("True", "Serving"));
    assert_eq!(api(&reads, ApiState::NotServing("no endpoint".into())), is("False", "NotServing"));
    assert_eq!(api(&reads, ApiState::OwnedByOther(vec!["a/b".into()])), is("False", "OwnedByOther"));
    assert_eq!(api(&reads, ApiState::Disabled), is("False", "Disabled"));
    for other in [fleet("{actuator: Direct}"), fleet("{metrics: {cpu: {}}}"), validated("server: {image: a}")]
    {
        assert_eq!(api(&other, ApiState::Disabled), is("Unknown", "NotUsed"));
    }
}

#[test]
fn who_else_is_at_work_and_what_is_missing_comes_before_the_numbers() {
    let decision = scaled();
    let facts = ScalingFacts { scaled: Some(&decision), ..ScalingFacts::default() };
    let fleet = |spec: &str| served(&format!("{{replicas: 6, server: {{image: a}}, autoscaling: {spec}}}"));
    let nothing = Observed::default();
    let active = |fleet: &ValidatedFleet, observed: &Observed| of("ScalingActive", fleet, &facts, observed);
    assert_eq!(active(&fleet("{actuator: 'Off'}"), &nothing), is("False", "ActuatorOff"));
    let foreign = ForeignAutoscaler { name: "mine".into(), on_deployment: false };
    let taken = Observed { foreign_autoscaler: Some(foreign), ..Observed::default() };
    assert_eq!(active(&fleet("{}"), &taken), is("False", "ForeignAutoscaler"));
    assert_eq!(of("ScalingLimited", &fleet("{}"), &facts, &taken), is("False", "NotScaled"));
    let alone = validated("{replicas: 6, server: {image: a}, autoscaling: {metrics: {concurrency: {}}}}");
    assert_eq!(active(&alone, &nothing), is("False", "GatewayMissing"));
    let held =
        ScalingFacts { scaled: Some(&decision), holder: Some("kubectl".into()), ..ScalingFacts::default() };
    assert_eq!(of("AbleToScale", &fleet("{}"), &held, &nothing), is("False", "ReplicasOverridden"));
    let none = ScalingFacts::default();
    assert_eq!(of("ScalingActive", &fleet("{}"), &none, &nothing), is("Unknown", "Pending"));
}
