//! Whole objects against golden files, and the promises that hold for every fleet.

use serde_json::{Value, json};

use super::*;
use crate::operator::test_support::{served, validated};

fn rendering() -> Rendering {
    Rendering {
        agent_image: "example.test/mcp-fleet:1".into(),
        agent_image_pull_policy: "IfNotPresent".into(),
    }
}

fn built(spec: &str) -> Vec<Desired> {
    build(&validated(spec), &Facts::default(), &rendering())
}

fn object(spec: &str, kind: ChildKind, name: &str) -> Value {
    built(spec).into_iter().find(|d| d.kind == kind && d.name == name).expect("wanted").object
}

fn pod(spec: &str) -> Value {
    object(spec, ChildKind::Deployment, "weather").pointer("/spec/template/spec").cloned().expect("a pod")
}

const EVERYTHING: &str = "
replicas: 3
server:
  image: example.test/weather@sha256:abc
  command: [/server]
  args: [--verbose]
  env: [{name: A, value: '1'}, {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}]
  envFrom: [{configMapRef: {name: c, optional: true}}]
  imagePullPolicy: Always
  imagePullSecrets: [{name: pull}]
  port: 9000
  path: /weather
  resources: {requests: {cpu: 1, memory: 1024Mi}, limits: {cpu: 1000m, memory: 2Gi}}
  probes:
    readiness: {type: HTTP, path: /health/ready, periodSeconds: 3}
    liveness: {type: HTTP, path: /health/live, port: 9001, failureThreshold: 2}
  volumes: [{name: data, persistentVolumeClaim: {claimName: d}}, {name: tmp, emptyDir: {medium: Memory, sizeLimit: 1024Mi}}]
  volumeMounts: [{name: data, mountPath: /data, readOnly: true}, {name: tmp, mountPath: /tmp}]
  podLabels: {team: a}
  podAnnotations: {note: b}
  nodeSelector: {disk: ssd}
  tolerations: [{key: k, operator: Exists, effect: NoSchedule}]
  topologySpread: {topologyKeys: [zone], maxSkew: 2, whenUnsatisfiable: DoNotSchedule}
  priorityClassName: high
autoscaling:
  minReplicas: 3
  maxReplicas: 30
  metrics: {cpu: {target: {averageUtilization: 60}}, memory: {}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 60, policies: [{type: Pods, value: 1, periodSeconds: 30}]}}
service: {type: LoadBalancer, port: 8443, sessionAffinity: ClientIP, annotations: {lb: x}}
rollout: {maxSurge: 1, drainTimeoutSeconds: 120}
disruption: {maxUnavailable: 30%}
networkPolicy:
  allowFrom: [{namespaceSelector: {matchLabels: {team: a}}}]
  egress: {allow: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 443}]}]}
";

#[test]
fn a_minimal_fleet() {
    let all: Vec<Value> = built("server: {image: a}").into_iter().map(|d| d.object).collect();
    insta::assert_json_snapshot!(all);
}

#[test]
fn a_fleet_that_says_everything() {
    let all: Vec<Value> = built(EVERYTHING).into_iter().map(|d| d.object).collect();
    insta::assert_json_snapshot!(all);
}

#[test]
fn drain_decides_hook_grace_period_and_helper() {
    let await_drain = pod("{server: {image: a, port: 9}, rollout: {drainTimeoutSeconds: 100}}");
    let hook = await_drain.pointer("/containers/0/lifecycle/preStop/exec/command").expect("a hook");
    let expected = [
        "/run/mcp-fleet/mcp-fleet-agent",
        "await-drain",
        "--port",
        "9",
        "--min-seconds",
        "5",
        "--timeout-seconds",
        "100",
    ];
    assert_eq!(*hook, json!(expected));
    assert_eq!(await_drain["terminationGracePeriodSeconds"], 130);
    let sleep = pod("{server: {image: a}, rollout: {drain: Sleep}}");
    assert_eq!(sleep.pointer("/containers/0/lifecycle/preStop/sleep/seconds"), Some(&json!(60)));
    let none = pod("{server: {image: a}, rollout: {drain: None}}");
    assert_eq!(none["terminationGracePeriodSeconds"], 30);
    for without in [sleep, none] {
        assert_eq!(without.get("initContainers"), None);
        assert!(!without.to_string().contains("mcp-fleet-agent"));
    }
}

#[test]
fn every_container_is_restricted() {
    for spec in ["server: {image: a}", EVERYTHING] {
        let pod = pod(spec);
        assert_eq!(pod.pointer("/securityContext/runAsNonRoot"), Some(&json!(true)));
        assert_eq!(pod.pointer("/securityContext/seccompProfile/type"), Some(&json!("RuntimeDefault")));
        let lists = ["initContainers", "containers"].map(|k| pod[k].as_array().cloned().unwrap_or_default());
        for container in lists.concat() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert!(container.pointer("/resources/limits/memory").is_some());
        }
        for word in ["hostPath", "hostNetwork", "hostPort", "privileged", "hostPID"] {
            assert!(!pod.to_string().contains(word), "{word}");
        }
    }
}

#[test]
fn probes_that_kill_have_their_own_grace_period() {
    let pod = pod("server: {image: a}");
    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(pod["containers"][0][probe]["terminationGracePeriodSeconds"], 10, "{probe}");
    }
    let readiness = &pod["containers"][0]["readinessProbe"];
    assert_eq!(readiness.get("terminationGracePeriodSeconds"), None);
    assert_eq!((&readiness["initialDelaySeconds"], &readiness["periodSeconds"]), (&json!(5), &json!(10)));
}

#[test]
fn a_taken_deployment_keeps_its_replicas() {
    let fleet = validated("{replicas: 3, server: {image: a}, autoscaling: {}}");
    let replicas = |handed_over: bool| {
        let facts = Facts {
            deployment_taken: true,
            deployment_replicas: Some(9),
            deployment_replicas_handed_over: handed_over,
            ..Facts::default()
        };
        build(&fleet, &facts, &rendering())
            .into_iter()
            .find(|d| d.kind == ChildKind::Deployment)
            .expect("one")
            .object["spec"]
            .get("replicas")
            .cloned()
    };
    assert_eq!(replicas(false), Some(json!(9)), "else it would fall back to 1");
    assert_eq!(replicas(true), None);
}

#[test]
fn a_head_start_is_the_deployments_and_a_lower_scale_takes_it_back() {
    let replicas = |n: i32| {
        let fleet = validated(&format!("{{replicas: {n}, server: {{image: a}}, autoscaling: {{}}}}"));
        let facts = Facts { ahead: Some(HeadStart { over: 4, replicas: 9 }), ..Facts::default() };
        let all = build(&fleet, &facts, &rendering());
        let deployment = all.into_iter().find(|d| d.kind == ChildKind::Deployment).expect("one");
        deployment.object["spec"]["replicas"].as_i64()
    };
    assert_eq!([4, 7, 9, 10, 3].map(replicas), [9, 9, 9, 10, 3].map(Some));
}

/// A gateway that is installed later lets the drain take longer, and restarts nobody for it; a drain time that is
/// named counts at once, even where it is the default of fleets without a gateway.
#[test]
fn a_gateway_restarts_nobody() {
    let deployment = |fleet: &ValidatedFleet, facts: &Facts| {
        let found = build(fleet, facts, &rendering()).into_iter().find(|d| d.kind == ChildKind::Deployment);
        found.expect("wanted").object
    };
    let grace = |d: &Value| d["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone();
    let keeping = |d: &Value| {
        let annotation = |key: &str| d["metadata"]["annotations"][key].as_str().map(str::to_owned);
        let kept_template = annotation(names::ANNOTATION_POD_TEMPLATE)
            .zip(annotation(names::ANNOTATION_POD_TEMPLATE_INPUTS))
            .map(|(template, inputs)| KeptTemplate { template, inputs });
        Facts { kept_template, ..Facts::default() }
    };
    let before = deployment(&validated("server: {image: a}"), &Facts::default());
    assert_eq!(grace(&before), 90);
    let after = deployment(&served("server: {image: a}"), &keeping(&before));
    assert_eq!(after["spec"]["template"], before["spec"]["template"]);
    assert_eq!(grace(&deployment(&served("server: {image: a}"), &Facts::default())), 330);
    let changed = deployment(&served("server: {image: b}"), &keeping(&before));
    assert_eq!(grace(&changed), 330, "with the next change of its own");
    let named = "{server: {image: b}, rollout: {drainTimeoutSeconds: 60}}";
    assert_eq!(grace(&deployment(&served(named), &keeping(&changed))), 90);
}

/// Who lists callers need not know the gateway.
#[test]
fn the_gateway_gets_through_the_network_policy() {
    let from = |fleet: ValidatedFleet| {
        let all = build(&fleet, &Facts::default(), &rendering());
        let policy = all.into_iter().find(|d| d.kind == ChildKind::NetworkPolicy).expect("wanted").object;
        policy["spec"]["ingress"][0]["from"].clone()
    };
    let listed = "{server: {image: a}, networkPolicy: {allowFrom: [{podSelector: {}}]}}";
    let peer = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gates"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}},
    });
    assert_eq!(from(served(listed)), json!([{"podSelector": {}}, peer]));
    assert_eq!(from(validated(listed)), json!([{"podSelector": {}}]));
    assert_eq!(from(served("server: {image: a}")), Value::Null, "everybody may, the gateway among them");
}

fn hpa_of(spec: &str, effective: EffectiveActuator) -> Option<Value> {
    let facts = Facts { effective, ..Facts::default() };
    let all = build(&served(spec), &facts, &rendering());
    all.into_iter().find(|d| d.kind == ChildKind::HorizontalPodAutoscaler).map(|d| d.object["spec"].clone())
}

/// autoscaling.md section 1.2, field by field.
#[test]
fn the_hpa_of_a_decision_asks_for_exactly_what_is_recommended() {
    let this = json!({"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "name": "weather"});
    let all = json!({"type": "Pods", "value": 1000, "periodSeconds": 15});
    let expected = json!({
        "scaleTargetRef": this,
        "minReplicas": 2,
        "maxReplicas": 10,
        "metrics": [{"type": "Object", "object": {
            "describedObject": this,
            "metric": {"name": "mcp_desired_replicas"},
            "target": {"type": "AverageValue", "averageValue": "1"},
        }}],
        "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [all], "tolerance": "0"},
            "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [all], "tolerance": "0"},
        },
    });
    assert_eq!(
        hpa_of("{server: {image: a}, autoscaling: {}}", EffectiveActuator::Hpa),
        Some(expected.clone()),
        "the preset's own pace is in the number"
    );
    let coarse = Facts { effective: EffectiveActuator::Hpa, coarse_hpa: true, ..Facts::default() };
    let all = build(&served("{server: {image: a}, autoscaling: {}}"), &coarse, &rendering());
    let hpa = all.into_iter().find(|d| d.kind == ChildKind::HorizontalPodAutoscaler).expect("an HPA").object;
    let window = hpa.pointer("/spec/behavior/scaleDown/stabilizationWindowSeconds");
    assert_eq!(
        window,
        Some(&json!(60)),
        "one that takes small steps for noise follows no dip of status.replicas"
    );
    let named =
        "{server: {image: a}, autoscaling: {behavior: {scaleDown: {stabilizationWindowSeconds: 120}}}}";
    let of_kubernetes = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let mut paced = expected;
    paced["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = json!(120);
    paced["behavior"]["scaleDown"]["policies"] = json!([of_kubernetes]);
    assert_eq!(hpa_of(named, EffectiveActuator::Hpa), Some(paced), "one that is named is the HPA's");
}

#[test]
fn an_hpa_of_a_decision_never_has_less_than_one_and_leaves_the_wait_of_classic_to_the_cooldown() {
    let of = |autoscaling: &str| {
        let spec = format!("{{server: {{image: a}}, autoscaling: {autoscaling}}}");
        hpa_of(&spec, EffectiveActuator::Hpa).expect("an HPA")
    };
    assert_eq!(of("{minReplicas: 0}")["minReplicas"], 1);
    let behavior = &of("{preset: Classic}")["behavior"];
    for direction in ["scaleUp", "scaleDown"] {
        let at_once = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "tolerance": "0",
            "policies": [{"type": "Pods", "value": 1000, "periodSeconds": 15}]});
        assert_eq!(behavior[direction], at_once);
    }
}

#[test]
fn no_hpa_where_we_or_others_write_the_scale() {
    let spec = "{server: {image: a}, autoscaling: {}}";
    assert_eq!(hpa_of(spec, EffectiveActuator::Direct), None);
    assert_eq!(hpa_of(spec, EffectiveActuator::Off), None);
    // On CPU alone nobody has to be asked, whatever the scaler has to say.
    let native = "{server: {image: a}, autoscaling: {metrics: {cpu: {}}}}";
    let of = |effective| hpa_of(native, effective).map(|hpa| hpa["metrics"][0]["type"].clone());
    assert_eq!(of(EffectiveActuator::Off), Some(json!("ContainerResource")));
    assert_eq!(of(EffectiveActuator::Native), of(EffectiveActuator::Off));
    let facts = Facts { foreign_autoscaler: true, effective: EffectiveActuator::Hpa, ..Facts::default() };
    let all = build(&served(spec), &facts, &rendering());
    assert!(all.iter().all(|d| d.kind != ChildKind::HorizontalPodAutoscaler));
}
