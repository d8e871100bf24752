//! The plan against an imagined API server: apply it, observe, plan again.

use kube::core::DynamicObject;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::operator::{
    desired::{Rendering, build},
    test_support::validated,
};

fn rendering(agent_image: &str) -> Rendering {
    Rendering { agent_image: agent_image.into(), agent_image_pull_policy: "IfNotPresent".into() }
}

fn live(desired: &Desired, uid: &str) -> LiveChild {
    let mut object = desired.object.clone();
    object["metadata"]["uid"] = json!(uid);
    object["metadata"]["resourceVersion"] = json!("7");
    object["metadata"]["annotations"][names::ANNOTATION_APPLIED_HASH] = json!(applied_hash(&desired.object));
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    LiveChild::entry(desired.kind, object).expect("ours").value
}

fn plan_of(spec: &str, observed: &Observed, agent: &str) -> Plan {
    let fleet = validated(spec);
    let desired = build(&fleet, &observed.facts(&fleet.name), &rendering(agent));
    plan(&fleet, desired, observed, true)
}

/// Carries out the writes of a plan on an imagined API server.
fn carry_out(mut observed: Observed, plan: &Plan) -> Observed {
    for effect in &plan.effects {
        match effect {
            Effect::Create(desired) | Effect::Apply { desired, .. } => {
                observed.children.retain(|c| (c.kind, &c.name) != (desired.kind, &desired.name));
                observed.children.push(live(desired, &format!("{}-{}", desired.kind, desired.name)));
            }
            Effect::Delete { kind, name, .. } => {
                observed.children.retain(|c| (c.kind, &c.name) != (*kind, name));
            }
            Effect::MakeWay | Effect::SeedReplicas(_) | Effect::WriteStatus => {}
        }
    }
    observed
}

fn settled(spec: &str) -> Observed {
    carry_out(Observed::default(), &plan_of(spec, &Observed::default(), "agent:1"))
}

const FULL: &str = "{replicas: 2, server: {image: a}, autoscaling: {}}";

#[test]
fn a_new_fleet_gets_everything_in_order() {
    let plan = plan_of("{server: {image: a}, autoscaling: {}}", &Observed::default(), "agent:1");
    let names: Vec<String> = plan
        .effects
        .iter()
        .map(|e| match e {
            Effect::SeedReplicas(n) => format!("seed {n}"),
            Effect::Create(d) => format!("{} {}", d.kind, d.name),
            Effect::MakeWay => "make way".into(),
            Effect::WriteStatus => "status".into(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        names,
        [
            "ServiceAccount mcp-weather",
            "Service weather",
            "Service weather-headless",
            "NetworkPolicy weather",
            "PodDisruptionBudget weather",
            "seed 2",
            "make way",
            "Deployment weather",
            "HorizontalPodAutoscaler weather",
            "status",
        ]
    );
}

#[test]
fn the_hpa_waits_for_the_status() {
    let fleet = validated(FULL);
    let desired = build(&fleet, &Observed::default().facts(&fleet.name), &rendering("agent:1"));
    let plan = plan(&fleet, desired, &Observed::default(), false);
    let hpa = |e: &Effect| matches!(e, Effect::Create(d) if d.kind == ChildKind::HorizontalPodAutoscaler);
    let position = |f: &dyn Fn(&Effect) -> bool| plan.effects.iter().position(f);
    assert!(position(&|e| *e == Effect::WriteStatus) < position(&hpa));
}

#[test]
fn at_rest_nothing_is_written() {
    assert_eq!(plan_of(FULL, &settled(FULL), "agent:1").n_writes(), 0);
}

#[test]
fn another_version_of_the_operator_writes_nothing() {
    assert_eq!(plan_of(FULL, &settled(FULL), "agent:2").n_writes(), 0);
}

#[test]
fn a_change_of_the_fleet_brings_todays_rendering() {
    let plan = plan_of("{replicas: 2, server: {image: b}, autoscaling: {}}", &settled(FULL), "agent:2");
    let [Effect::Apply { desired, because, .. }, Effect::WriteStatus] = &plan.effects[..] else {
        panic!("one write and the status: {:?}", plan.effects)
    };
    assert_eq!(*because, Because::SpecChanged);
    assert_eq!(desired.object.pointer("/spec/template/spec/initContainers/0/image"), Some(&json!("agent:2")));
}

#[test]
fn a_change_of_scale_keeps_the_template() {
    let plan = plan_of("{replicas: 5, server: {image: a}, autoscaling: {}}", &settled(FULL), "agent:2");
    let [Effect::Apply { desired, .. }, Effect::WriteStatus] = &plan.effects[..] else {
        panic!("{:?}", plan.effects)
    };
    assert_eq!(desired.object.pointer("/spec/replicas"), Some(&json!(5)));
    assert_eq!(desired.object.pointer("/spec/template/spec/initContainers/0/image"), Some(&json!("agent:1")));
}

#[test]
fn a_kept_template_that_was_tampered_with_is_not_believed() {
    let mut observed = settled(FULL);
    let deployment = observed.children.iter_mut().find(|c| c.kind == ChildKind::Deployment).expect("one");
    deployment.json = deployment.json.replace("agent:1", "evil:1").into();
    let plan = plan_of(FULL, &observed, "agent:1");
    let [Effect::Apply { desired, because: Because::Drift(_), .. }, _] = &plan.effects[..] else {
        panic!("{:?}", plan.effects)
    };
    assert!(!desired.object.to_string().contains("evil"));
}

#[test]
fn what_is_no_longer_asked_for_goes() {
    let plan = plan_of(
        "{replicas: 2, server: {image: a}, networkPolicy: {enabled: false}}",
        &settled(FULL),
        "agent:1",
    );
    let gone: Vec<ChildKind> = plan
        .effects
        .iter()
        .filter_map(|e| match e {
            Effect::Delete { kind, .. } => Some(*kind),
            _ => None,
        })
        .collect();
    assert_eq!(gone, [ChildKind::NetworkPolicy, ChildKind::HorizontalPodAutoscaler]);
}

#[test]
fn a_foreign_object_is_never_touched() {
    let mut observed = settled(FULL);
    let mut service =
        observed.children.remove(observed.children.iter().position(|c| c.name == "weather").expect("one"));
    service.owner_uid = Some("uid-of-another".into());
    for (owned_by_fleet, advice) in [(false, "delete or rename it"), (true, "when it is gone")] {
        service.owned_by_fleet = owned_by_fleet;
        observed.owned_by_other = vec![service.clone()];
        let plan = plan_of(FULL, &observed, "agent:1");
        assert_eq!(plan.n_writes(), 0);
        assert_eq!(plan.blocked[0].reason, "ChildConflict");
        assert!(plan.blocked[0].message.contains(advice), "{}", plan.blocked[0].message);
    }
}

#[test]
fn a_service_that_lost_its_kind_of_ip_is_made_anew() {
    let mut observed = settled(FULL);
    let headless = observed.children.iter_mut().find(|c| c.name == "weather-headless").expect("one");
    headless.json = headless.json.replace("\"clusterIP\":\"None\"", "\"clusterIP\":\"10.0.0.1\"").into();
    let plan = plan_of(FULL, &observed, "agent:1");
    assert!(
        matches!(&plan.effects[0], Effect::Delete { name, because: Because::Immutable(_), .. } if name == "weather-headless")
    );
    assert_eq!(plan_of(FULL, &carry_out(observed, &plan), "agent:1").n_writes(), 1, "then it is created");
}

#[test]
fn another_selector_blocks_with_advice() {
    let mut observed = settled(FULL);
    let deployment = observed.children.iter_mut().find(|c| c.kind == ChildKind::Deployment).expect("one");
    deployment.json = deployment
        .json
        .replacen("\"matchLabels\":{\"mcpfleet.io/fleet\":\"weather\"}", "\"matchLabels\":{\"a\":\"b\"}", 1)
        .into();
    let value = deployment.value();
    assert_eq!(value.pointer("/spec/selector/matchLabels/a"), Some(&json!("b")));
    let plan = plan_of(FULL, &observed, "agent:1");
    assert_eq!(plan.n_writes(), 0);
    assert_eq!(plan.blocked[0].reason, "ImmutableField");
}

#[test]
fn a_foreign_autoscaler_makes_ours_step_aside() {
    let mut observed = settled(FULL);
    observed.foreign_autoscaler =
        Some(super::super::observe::ForeignAutoscaler { name: "x".into(), on_deployment: false });
    let plan = plan_of(FULL, &observed, "agent:1");
    assert!(matches!(
        &plan.effects[..],
        [Effect::Delete { kind: ChildKind::HorizontalPodAutoscaler, .. }, Effect::WriteStatus]
    ));
}

const SPECS: [&str; 6] = [
    FULL,
    "{replicas: 2, server: {image: b}}",
    "{replicas: 7, server: {image: a, port: 9, podLabels: {a: b}}, networkPolicy: {enabled: false}}",
    "{replicas: 1, server: {image: a, serviceAccountName: x}, autoscaling: {metrics: {memory: {}}}}",
    "{replicas: 1, server: {image: a, env: [{name: A, value: '1'}]}, rollout: {drain: Sleep}}",
    "{replicas: 3, server: {image: a, volumes: [{name: v, emptyDir: {}}], volumeMounts: [{name: v, mountPath: /v}]}, service: {port: 81}, networkPolicy: {egress: {allow: []}}}",
];

proptest! {
    /// Cut anywhere, the next plans end in the same state, and then nothing is left to do.
    #[test]
    fn a_crash_between_any_two_writes_ends_in_the_same_state(from in 0..SPECS.len(), to in 0..SPECS.len(), cut in 0_usize..12) {
        let whole = settled(SPECS[from]);
        let mut first = plan_of(SPECS[to], &whole, "agent:1");
        first.effects.truncate(cut);
        let mut observed = carry_out(whole, &first);
        for _ in 0..2 {
            let next = plan_of(SPECS[to], &observed, "agent:1");
            observed = carry_out(observed, &next);
        }
        prop_assert_eq!(plan_of(SPECS[to], &observed, "agent:1").n_writes(), 0);
        let key = |c: &LiveChild| (c.kind, c.name.clone(), c.json.clone());
        let mut got: Vec<_> = observed.children.iter().map(key).collect();
        let mut fresh: Vec<_> = settled(SPECS[to]).children.iter().map(key).collect();
        got.sort();
        fresh.sort();
        prop_assert_eq!(got, fresh);
    }
}
