//! What of `spec.autoscaling` becomes what.

use super::*;
use crate::{
    autoscale::{
        behavior::{RatePolicy, Rules, Select, Unit},
        policy::{Cooldown, Errors, Latency, Queue, Role, Signals, Target, Thresholds, Windows, Zero},
    },
    operator::{
        test_support::{fleet, served, validated},
        validate::validate,
    },
};

fn spec(autoscaling: &str) -> String {
    format!("{{server: {{image: a}}, autoscaling: {autoscaling}}}")
}

fn unserved(autoscaling: &str) -> Scaling {
    validated(&spec(autoscaling)).scaling
}

fn mcp(scaling: Scaling) -> McpScaling {
    match scaling {
        Scaling::Mcp(mcp) => *mcp,
        other => unreachable!("{other:?}"),
    }
}

fn behind_gateway(autoscaling: &str) -> McpScaling {
    mcp(served(&spec(autoscaling)).scaling)
}

fn hpa(scaling: Scaling) -> (Option<i32>, Option<i32>) {
    match scaling {
        Scaling::Native(hpa) => (hpa.cpu, hpa.memory),
        other => unreachable!("{other:?}"),
    }
}

fn error(autoscaling: &str) -> String {
    validate(&fleet(&spec(autoscaling))).expect_err("invalid").to_string()
}

#[test]
fn without_a_gateway_cpu_and_memory_are_kubernetes_own_business() {
    assert_eq!(hpa(unserved("{}")), (Some(70), None));
    assert_eq!(hpa(unserved("{metrics: {memory: {}}}")), (None, Some(80)));
    assert_eq!(
        hpa(unserved("{metrics: {cpu: {target: {averageUtilization: 50}}, memory: {}}}")),
        (Some(50), Some(80))
    );
    assert_eq!(hpa(unserved("{metrics: {cpu: {weight: 0}, memory: {}}}")), (None, Some(80)));
}

#[test]
fn the_target_follows_the_limit_of_a_pod() {
    let target = |fleet: &str| {
        let spec = format!("{{server: {{image: a}}, {fleet}}}");
        mcp(served(&spec).scaling).policy.signals.concurrency.map(|c| c.per_pod)
    };
    assert_eq!(target("gateway: {maxRequestsPerPod: 40}, autoscaling: {}"), Some(34.0));
    assert_eq!(
        target("gateway: {maxRequestsPerPod: 40}, autoscaling: {metrics: {concurrency: {}}}"),
        Some(34.0)
    );
    let named = "metrics: {concurrency: {target: {averageValue: 3}}}";
    assert_eq!(target(&format!("gateway: {{maxRequestsPerPod: 40}}, autoscaling: {{{named}}}")), Some(3.0));
    assert_eq!(target("gateway: {maxRequestsPerPod: 0}, autoscaling: {}"), Some(14.0), "no limit");
}

#[test]
fn a_direction_that_is_named_is_kubernetes_and_the_other_one_the_presets() {
    let kubernetes = behavior::Behavior::default();
    let balanced = behavior::Behavior::balanced();
    let of = |autoscaling: &str| behind_gateway(autoscaling).policy.behavior;
    let releases = |autoscaling: &str| behind_gateway(autoscaling).policy.preset_pace;
    assert_eq!(of("{}"), balanced);
    assert!(releases("{}") && releases("{behavior: {scaleUp: {}}}"));
    assert!(!releases("{behavior: {scaleDown: {}}}"), "a window that is named holds whatever is remembered");
    let named = of("{behavior: {scaleDown: {stabilizationWindowSeconds: 60}}}");
    assert_eq!(named.up, balanced.up);
    assert_eq!(named.down, Rules { stabilization: 60_000, ..kubernetes.down.clone() });
    let named = of("{behavior: {scaleUp: {}}}");
    assert_eq!((named.up, named.down), (kubernetes.up.clone(), balanced.down));
    // CPU and memory alone go to Kubernetes' own autoscaler, with its own pace.
    let Scaling::Native(hpa) = unserved("{}") else { unreachable!() };
    assert_eq!(hpa.behavior, kubernetes);
}

#[test]
fn behind_the_gateway_what_is_named_decides() {
    assert_eq!(hpa(served(&spec("{metrics: {cpu: {}}}")).scaling), (Some(70), None), "named: only cpu");
    assert_eq!(behind_gateway("{}").policy, policy::Policy::balanced(2, 10, None));
    let named = behind_gateway(
        "{metrics: {concurrency: {target: {averageValue: 20}}, memory: {}, latency: {role: Boost}}}",
    );
    let only = Signals {
        concurrency: Some(Target { per_pod: 20.0, weight: 1.0 }),
        memory: Some(Target { per_pod: 0.8, weight: 1.0 }),
        latency: Some(Latency {
            objective_ms: 1000.0,
            percentile: 95.0,
            role: Role::Boost,
            max_boost: 0.25,
            weight: 1.0,
        }),
        ..Signals::default()
    };
    assert_eq!(named.policy.signals, only, "a named block is taken as it is");
}

/// autoscaling.md section 4.2, digit by digit; not by way of `Policy::classic`, which could be wrong as well.
#[test]
fn classic_is_the_formula() {
    let McpScaling { policy, range, unserved, .. } = behind_gateway("{preset: Classic}");
    assert_eq!((range.min(), range.max(), unserved), (2, 10, None));
    assert_eq!(policy.combine, policy::Combine::WeightedSum(Thresholds { up: 0.8, down: 0.3, step: 1 }));
    let latency =
        Latency { objective_ms: 1000.0, percentile: 95.0, role: Role::Guard, max_boost: 0.25, weight: 0.3 };
    let formula = Signals {
        latency: Some(latency),
        errors: Some(Errors { threshold: 0.2, weight: 0.3 }),
        connections: Some(Target { per_pod: 100.0, weight: 0.2 }),
        queue: Some(Queue { drain_seconds: 5.0, per_pod: 50.0, weight: 0.2 }),
        ..Signals::default()
    };
    assert_eq!(policy.signals, formula);
    assert_eq!(policy.cooldown, Cooldown { after_up: 300_000, after_down: 300_000 });
    for Rules { stabilization, select, policies } in [policy.behavior.up, policy.behavior.down] {
        assert_eq!((stabilization, select), (0, Select::Max), "its cooldown is its only wait");
        assert!(
            policies.iter().any(|p| p.unit == Unit::Pods && p.value >= ReplicaRange::CAP),
            "{policies:?}"
        );
    }
    assert_eq!((policy.zero, policy.fallback), (None, None));
}

#[test]
fn what_is_named_overrides_the_preset() {
    let policy = behind_gateway(
        "{preset: Classic, minReplicas: 1, maxReplicas: 40, thresholds: {scaleDown: '0.2'}, cooldownSeconds: {afterScaleUp: 60}, \
         metrics: {errorRate: {}, connections: {weight: '0.7'}, cpu: {}}}",
    )
    .policy;
    assert_eq!(policy.combine, policy::Combine::WeightedSum(Thresholds { up: 0.8, down: 0.2, step: 1 }));
    assert_eq!(policy.cooldown, Cooldown { after_up: 60_000, after_down: 300_000 });
    let weights = (policy.signals.errors.map(|e| e.weight), policy.signals.connections.map(|c| c.weight));
    assert_eq!(weights, (Some(0.3), Some(0.7)));
    assert_eq!((policy.signals.cpu.map(|c| c.weight), policy.signals.latency), (Some(1.0), None));
    assert_eq!((policy.min, policy.max), (1, 40));
    let policy = behind_gateway("{preset: Classic, combine: Max}").policy;
    assert_eq!((policy.combine, policy.cooldown.after_up), (policy::Combine::Max, 300_000));
    let policy = behind_gateway("{combine: WeightedSum}").policy;
    assert_eq!(policy, policy::Policy::classic(2, 10), "a sum has no pace of its own");
    let policy = behind_gateway("{combine: PowerMean}").policy;
    assert_eq!(policy.combine, policy::Combine::PowerMean { exponent: 4.0 });
}

#[test]
fn pace_is_read_in_milliseconds() {
    let policy = behind_gateway(
        "{windows: {stableSeconds: 30, panicSeconds: 3, panicThresholdPercent: 150, maxSampleAgeSeconds: 10}, minAvailablePercent: 25, \
         behavior: {scaleUp: {policies: [{type: Percent, value: 50, periodSeconds: 60}]}, scaleDown: {stabilizationWindowSeconds: 7, selectPolicy: Disabled}}, \
         fallback: {replicas: 4}}",
    )
    .policy;
    let windows = Windows { stable: 30_000, panic: 3_000, panic_threshold: 1.5, max_sample_age: 10_000 };
    assert_eq!((policy.windows, policy.min_available), (windows, 0.25));
    assert_eq!(policy.behavior.up.policies, [RatePolicy { unit: Unit::Percent, value: 50, period: 60_000 }]);
    assert_eq!(
        (policy.behavior.up.stabilization, policy.behavior.up.select),
        (0, Select::Max),
        "what is left out"
    );
    assert_eq!((policy.behavior.down.stabilization, policy.behavior.down.select), (7_000, Select::Disabled));
    let fallback = policy::Fallback {
        after: 180_000,
        replicas: 4,
        behavior: policy::FallbackBehavior::CurrentReplicasIfHigher,
    };
    assert_eq!(policy.fallback, Some(fallback));
}

#[test]
fn zero_needs_the_gateway_and_our_own_decision() {
    for asked in [
        "{minReplicas: 0}",
        "{minReplicas: 1, scaleToZero: {enabled: true}}",
        "{minReplicas: 0, metrics: {cpu: {}}}",
    ] {
        let zero = behind_gateway(asked);
        assert_eq!(
            (zero.range.min(), zero.policy.min, zero.policy.zero),
            (0, 0, Some(Zero { idle: 600_000 })),
            "{asked}"
        );
        assert_eq!(zero.unserved, None, "{asked}");
        let alone = mcp(unserved(asked));
        assert_eq!((alone.range.min(), alone.policy.min, alone.policy.zero), (1, 1, None), "{asked}");
        assert!(alone.unserved.is_some_and(|m| m.contains("calls to a fleet at zero")), "{asked}");
    }
    let quick =
        behind_gateway("{minReplicas: 0, scaleToZero: {idleSeconds: 20}, activation: {replicas: 3}}").policy;
    assert_eq!(quick.zero, Some(Zero { idle: 60_000 }), "never less than the stable window");
    assert_eq!(quick.activation_replicas, 3);
    assert_eq!(served(&spec("{minReplicas: 0}")).seed(None), 1, "nobody has said yet that it is idle");
}

#[test]
fn what_nobody_measures_is_said_with_the_field_to_change() {
    let missing =
        mcp(unserved("{metrics: {cpu: {}, concurrency: {}, latency: {}}}")).unserved.unwrap_or_default();
    for part in ["concurrency, latency", "class default", "spec.gateway.class"] {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    assert!(mcp(unserved("{preset: Classic}")).unserved.is_some());
    let off = validated(
        "{server: {image: a}, gateway: {enabled: false}, autoscaling: {metrics: {queueDepth: {}}}}",
    );
    assert!(mcp(off.scaling).unserved.is_some_and(|m| m.contains("spec.gateway.enabled is false")));
}

#[test]
fn what_kubernetes_own_cannot_do_is_ours() {
    for asked in [
        "actuator: Direct",
        "combine: PowerMean",
        "cooldownSeconds: {afterScaleDown: 10}",
        "fallback: {replicas: 3}",
        "windows: {}",
        "minAvailablePercent: 10",
    ] {
        let ours = mcp(unserved(&format!("{{metrics: {{cpu: {{}}}}, {asked}}}")));
        assert_eq!(ours.policy.signals.cpu.map(|c| c.per_pod), Some(0.7), "{asked}");
        assert_eq!(ours.unserved, None, "{asked}: cpu needs no gateway");
    }
    assert_eq!(hpa(unserved("{cooldownSeconds: {afterScaleUp: 0}, metrics: {cpu: {}}}")), (Some(70), None));
}

#[test]
fn off_shows_what_we_would_do_where_we_can() {
    assert_eq!(unserved("{actuator: 'Off'}"), Scaling::Off(ReplicaRange::new(2, 10).expect("a range")));
    let dry = behind_gateway("{actuator: 'Off'}");
    assert_eq!((dry.actuator, dry.policy), (Actuator::Off, policy::Policy::balanced(2, 10, None)));
    assert!(!served(&spec("{actuator: 'Off'}")).scaling.is_ours());
    assert!(served(&spec("{}")).scaling.is_ours());
}

#[test]
fn what_an_older_schema_let_through_is_named() {
    for (bad, says) in [
        ("{minReplicas: 9, maxReplicas: 3}", "minReplicas (9)"),
        (
            "{minReplicas: 2, scaleToZero: {enabled: true}}",
            "autoscaling.minReplicas: a fleet that must keep more",
        ),
        ("{minReplicas: 0, scaleToZero: {enabled: false}}", "autoscaling.scaleToZero.enabled"),
        (
            "{combine: WeightedSum, thresholds: {scaleDown: '0.6'}}",
            "scaleDown 0.6 is not below scaleUp 0.8 × 2/3",
        ),
        (
            "{metrics: {concurrency: {target: {averageValue: 0}}}}",
            "metrics.concurrency.target.averageValue: must be greater",
        ),
        ("{metrics: {concurrency: {target: {averageValue: many}}}}", "'many' is not a quantity"),
        ("{metrics: {cpu: {weight: 101}}}", "metrics.cpu.weight: 101 is more than 100"),
        ("{metrics: {cpu: {}, errorRate: {threshold: 2}}}", "metrics.errorRate.threshold"),
        ("{metrics: {cpu: {weight: 0}, latency: {}}}", "nothing asks for replicas"),
        ("{preset: Classic, metrics: {latency: {weight: 0}}}", "nothing asks for replicas"),
    ] {
        let error = error(bad);
        assert!(error.contains(says), "{bad}: {error}");
    }
}
