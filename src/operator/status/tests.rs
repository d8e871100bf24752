//! Statuses from small observations.

use kube::core::DynamicObject;
use serde_json::json;

use super::*;
use crate::{
    api::v1alpha1::AutoscalingStatus,
    autoscale::decision::{LimitedBy, Reason},
    operator::{
        observe::{ForeignAutoscaler, LiveChild},
        pods::{PodFacts, PodLoadFacts, Problem},
        scaling::{EffectiveActuator, Scaled},
        test_support::{scaled, served, validated},
    },
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn child(kind: ChildKind, spec: &serde_json::Value, status: &serde_json::Value) -> LiveChild {
    let object = json!({
        "apiVersion": "v1", "kind": kind.as_str(), "spec": spec, "status": status,
        "metadata": {"name": "weather", "namespace": "tools", "uid": "u", "generation": 4, "resourceVersion": "1",
            "labels": {"app.kubernetes.io/managed-by": "mcp-fleet", "mcpfleet.io/fleet": "weather"}},
    });
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    LiveChild::entry(kind, object).expect("ours").value
}

/// Of `desired` replicas: how many there are, run the present template, and are available.
fn deployment(desired: i32, replicas: i32, updated: i32, available: i32) -> LiveChild {
    let status = json!({"observedGeneration": 4, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available});
    child(ChildKind::Deployment, &json!({"replicas": desired}), &status)
}

fn observed(deployment: LiveChild, ready_endpoints: i32) -> Observed {
    Observed { children: vec![deployment], ready_endpoints, ..Observed::default() }
}

fn status_of(spec: &str, observed: &Observed) -> McpFleetStatus {
    build(&validated(spec), observed, &[], &ScalingFacts::default(), &McpFleetStatus::default(), NOW)
}

fn say(status: &McpFleetStatus, type_: &str) -> (String, String) {
    let c = condition(status, type_).expect("each condition is there");
    (c.status.clone(), c.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

const FIXED: &str = "{replicas: 3, server: {image: a}}";

#[test]
fn all_conditions_from_the_first_visit_on() {
    let status = status_of(FIXED, &Observed::default());
    let got: Vec<&str> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(got, types::ALL);
    assert!(status.conditions.iter().all(|c| c.observed_generation == Some(1) && !c.reason.is_empty()));
    assert_eq!(say(&status, "Ready"), is("False", "Pending"));
}

#[test]
fn ready_only_when_all_endpoints_serve() {
    for (deployment, endpoints, expected) in [
        (deployment(3, 3, 3, 3), 3, is("True", "Ready")),
        (deployment(3, 3, 3, 3), 2, is("False", "ReplicasUnavailable")),
        (deployment(3, 3, 3, 2), 3, is("False", "ReplicasUnavailable")),
        (deployment(3, 4, 1, 3), 3, is("False", "RollingOut")),
        (deployment(0, 0, 0, 0), 0, is("True", "ScaledToZero")),
    ] {
        let status = status_of(FIXED, &observed(deployment, endpoints));
        assert_eq!(say(&status, "Ready"), expected);
    }
}

#[test]
fn surge_pods_are_not_counted() {
    assert_eq!(status_of(FIXED, &observed(deployment(3, 4, 1, 3), 3)).replicas, 3);
    assert_eq!(status_of(FIXED, &observed(deployment(3, 2, 2, 2), 2)).replicas, 2);
}

#[test]
fn numbers_of_an_older_generation_say_nothing() {
    let mut stale = deployment(3, 3, 3, 3);
    stale.json = stale.json.replace("\"observedGeneration\":4", "\"observedGeneration\":3").into();
    assert_ne!(say(&status_of(FIXED, &observed(stale, 3)), "Ready"), is("True", "Ready"));
}

fn pod(name: &str, reason: &'static str) -> PodFacts {
    let problem = Some(Problem { reason, message: format!("pod {name}") });
    PodFacts {
        name: name.into(),
        uid: name.into(),
        deletion_cost: None,
        terminating: false,
        pending: true,
        problem,
        load: PodLoadFacts::default(),
    }
}

#[test]
fn trouble_is_named_and_the_old_pods_still_count() {
    let mut state = observed(deployment(3, 4, 1, 3), 3);
    state.pods = vec![pod("a", "ImagePullFailed")];
    let status = status_of(FIXED, &state);
    assert_eq!(say(&status, "Ready"), is("False", "ImagePullFailed"));
    assert_eq!(say(&status, "Available"), is("True", "EndpointsReady"));
}

#[test]
fn most_pods_decide_and_ending_ones_do_not_count() {
    let mut state = observed(deployment(3, 3, 3, 0), 0);
    state.pods = vec![pod("a", "OutOfMemory"), pod("b", "Unschedulable"), pod("c", "Unschedulable")];
    assert_eq!(say(&status_of(FIXED, &state), "Ready"), is("False", "Unschedulable"));
    state.pods.iter_mut().for_each(|p| p.terminating = true);
    assert_eq!(say(&status_of(FIXED, &state), "Ready"), is("False", "ReplicasUnavailable"));
}

#[test]
fn the_hpas_words_are_passed_on() {
    let conditions =
        json!([{"type": "ScalingLimited", "status": "True", "reason": "TooFewReplicas", "message": "m"}]);
    let mut state = observed(deployment(3, 3, 3, 3), 3);
    state.children.push(child(
        ChildKind::HorizontalPodAutoscaler,
        &json!({}),
        &json!({"conditions": conditions}),
    ));
    let spec = "{replicas: 3, server: {image: a}, autoscaling: {}}";
    let status = status_of(spec, &state);
    assert_eq!(say(&status, "ScalingLimited"), is("True", "TooFewReplicas"));
    assert_eq!(say(&status, "ScalingActive"), is("Unknown", "Pending"));
    state.foreign_autoscaler = Some(ForeignAutoscaler { name: "mine".into(), on_deployment: false });
    assert_eq!(say(&status_of(spec, &state), "ScalingActive"), is("False", "ForeignAutoscaler"));
}

#[test]
fn an_autoscaler_on_the_deployment_disables_the_scale_for_everybody() {
    let mut state = observed(deployment(3, 3, 3, 3), 3);
    assert_eq!(say(&status_of(FIXED, &state), "AbleToScale"), is("True", "ScaleSubresource"));
    state.foreign_autoscaler = Some(ForeignAutoscaler { name: "mine".into(), on_deployment: false });
    assert_eq!(say(&status_of(FIXED, &state), "AbleToScale"), is("True", "ScaleSubresource"));
    state.foreign_autoscaler = Some(ForeignAutoscaler { name: "mine".into(), on_deployment: true });
    for spec in [FIXED, "{replicas: 3, server: {image: a}, autoscaling: {}}"] {
        assert_eq!(say(&status_of(spec, &state), "AbleToScale"), is("False", "ForeignAutoscaler"));
    }
}

#[test]
fn the_transition_time_stays_as_long_as_the_state() {
    let before = status_of(FIXED, &observed(deployment(3, 3, 3, 3), 3));
    let later = Timestamp::from_second(60).expect("valid");
    let same = build(
        &validated(FIXED),
        &observed(deployment(3, 3, 3, 3), 3),
        &[],
        &ScalingFacts::default(),
        &before,
        later,
    );
    assert_eq!(change(&before, &same), Change::None);
    let other = build(
        &validated(FIXED),
        &observed(deployment(3, 3, 3, 2), 2),
        &[],
        &ScalingFacts::default(),
        &before,
        later,
    );
    assert_eq!(change(&before, &other), Change::Urgent);
    assert_eq!(condition(&other, "Ready").map(|c| c.last_transition_time.0), Some(later));
    assert_eq!(condition(&other, "Available").map(|c| c.last_transition_time.0), Some(NOW));
}

#[test]
fn a_change_is_as_urgent_as_it_is_news() {
    let status = |deployment, endpoints, draining| McpFleetStatus {
        draining_replicas: draining,
        ..status_of(FIXED, &observed(deployment, endpoints))
    };
    let ready = status(deployment(3, 3, 3, 3), 3, None);
    let rolling = status(deployment(3, 4, 1, 3), 3, None);
    let further = status(deployment(3, 4, 2, 3), 3, Some(1));
    let ending = status(deployment(3, 3, 3, 3), 3, Some(1));
    let down = status(deployment(3, 3, 3, 0), 0, None);
    let other_generation = McpFleetStatus { observed_generation: Some(7), ..further.clone() };
    let mut troubled = observed(deployment(3, 4, 1, 3), 3);
    troubled.pods = vec![pod("a", "ImagePullFailed")];
    for (old, new, expected) in [
        (&ready, &ready, Change::None),
        (&ready, &rolling, Change::Urgent),
        (&rolling, &other_generation, Change::Urgent),
        (&rolling, &further, Change::Rolling),
        (&rolling, &ending, Change::Wording),
        (&rolling, &ready, Change::Urgent),
        (&ending, &ready, Change::Wording),
        (&rolling, &down, Change::Condition),
        (&ready, &down, Change::Urgent),
        // Nobody was served, and a person waits.
        (&down, &ending, Change::Urgent),
        (&rolling, &status_of(FIXED, &troubled), Change::Condition),
        (&ready, &McpFleetStatus { replicas: 2, ..ready.clone() }, Change::Condition),
    ] {
        assert_eq!(change(old, new), expected, "{}", news(old, new));
    }
}

#[test]
fn a_decision_is_as_urgent_as_what_it_changes() {
    let fleet = served("{replicas: 6, server: {image: a}, autoscaling: {}}");
    let with = |decision: &Scaled, old: &McpFleetStatus| {
        let scaling = ScalingFacts { scaled: Some(decision), ..ScalingFacts::default() };
        build(&fleet, &observed(deployment(6, 6, 6, 6), 6), &[], &scaling, old, NOW)
    };
    let first = with(&scaled(), &McpFleetStatus::default());
    let next = |edit: &dyn Fn(&mut Scaled)| {
        let mut decision = scaled();
        edit(&mut decision);
        change(&first, &with(&decision, &first))
    };
    assert_eq!(change(&McpFleetStatus { autoscaling: None, ..first.clone() }, &first), Change::Condition);
    assert_eq!(next(&|s| s.decision.demand = Some(6.7)), Change::None);
    assert_eq!(next(&|s| s.decision.utilization = Some(1.4)), Change::Load);
    assert_eq!(next(&|s| s.decision.recommended = Some(8)), Change::Decision);
    // Its condition changes with it, and is the same news.
    assert_eq!(next(&|s| s.decision.limited_by = None), Change::Decision);
    assert_eq!(next(&|s| s.decision.limited_by = Some(LimitedBy::Cooldown)), Change::Decision);
    assert_eq!(next(&|s| s.decision.reason = Reason::MetricsUnavailable), Change::Condition);
    assert_eq!(next(&|s| s.effective = EffectiveActuator::Direct), Change::Condition);
    assert_eq!(next(&|s| s.replicas = 7), Change::Urgent);
    let decision = scaled();
    let held =
        ScalingFacts { scaled: Some(&decision), holder: Some("kubectl".into()), ..ScalingFacts::default() };
    let held = build(&fleet, &observed(deployment(6, 6, 6, 6), 6), &[], &held, &first, NOW);
    assert_eq!((change(&first, &held), change(&held, &first)), (Change::Condition, Change::Condition));
    let mut other = scaled();
    other.decision.utilization = Some(1.4);
    assert_eq!(timeless(&with(&other, &first)), timeless(&first), "load does not keep others from resting");
}

#[test]
fn an_hpa_that_is_inactive_at_zero_does_not_spoil_ready() {
    let conditions =
        json!([{"type": "ScalingActive", "status": "False", "reason": "ScalingDisabled", "message": "m"}]);
    let mut state = observed(deployment(0, 0, 0, 0), 0);
    state.children.push(child(
        ChildKind::HorizontalPodAutoscaler,
        &json!({}),
        &json!({"conditions": conditions}),
    ));
    let mut decision = scaled();
    (decision.replicas, decision.decision.reason) = (0, Reason::ScaledToZero);
    let fleet = served("{replicas: 0, server: {image: a}, autoscaling: {minReplicas: 0}}");
    let scaling = ScalingFacts { scaled: Some(&decision), ..ScalingFacts::default() };
    let status = build(&fleet, &state, &[], &scaling, &McpFleetStatus::default(), NOW);
    assert_eq!(say(&status, "Ready"), is("True", "ScaledToZero"));
    assert_eq!(say(&status, "ScalingActive"), is("True", "ValidMetricFound"));
}

#[test]
fn only_fleets_that_we_decide_about_carry_a_decision() {
    let decision = scaled();
    let scaling = ScalingFacts { scaled: Some(&decision), ..ScalingFacts::default() };
    let old = McpFleetStatus { autoscaling: Some(AutoscalingStatus::default()), ..McpFleetStatus::default() };
    for spec in [FIXED, "{replicas: 3, server: {image: a}, autoscaling: {}}"] {
        let status = build(&validated(spec), &Observed::default(), &[], &scaling, &old, NOW);
        assert_eq!(status.autoscaling, None, "{spec}");
    }
}

#[test]
fn messages_are_cut_at_a_character() {
    assert_eq!(truncate("abc", 3), "abc");
    let cut = truncate(&"ä".repeat(800), 1024);
    assert!(cut.len() <= 1024 && cut.ends_with('…'));
}
