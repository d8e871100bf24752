//! Whole objects against golden files, and the promises that hold for every fleet.

use serde_json::{Value, json};

use super::*;
use crate::operator::test_support::validated;

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
