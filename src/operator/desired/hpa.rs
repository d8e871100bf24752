//! The HorizontalPodAutoscaler on the fleet's own scale subresource.
//!
//! Metrics are of the container `server` alone: a sidecar without requests, injected by a mesh, would
//! stop a metric of the whole pod. The behavior is written out in full, so that what counts can be read.

use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules,
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget,
};

use super::metadata;
use crate::{
    api::{
        names,
        v1alpha1::{PolicyType, ScalingPolicy, ScalingRules, SelectPolicy},
    },
    operator::validate::{HpaSettings, ValidatedFleet},
};

/// Kubernetes' own defaults (autoscaling.md section 6.1).
const SCALE_DOWN_WINDOW_SECONDS: i32 = 300;
const PERIOD_SECONDS: i32 = 15;

pub(super) fn build(fleet: &ValidatedFleet, settings: &HpaSettings) -> HorizontalPodAutoscaler {
    let metrics = [("cpu", settings.cpu), ("memory", settings.memory)];
    let metrics = metrics.into_iter().filter_map(|(name, target)| target.map(|t| metric(name, t))).collect();
    HorizontalPodAutoscaler {
        metadata: metadata(fleet, fleet.name.as_str()),
        spec: HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(names::API_VERSION.into()),
                kind: names::KIND.into(),
                name: fleet.name.to_string(),
            },
            min_replicas: Some(settings.range.min()),
            max_replicas: settings.range.max(),
            metrics: Some(metrics),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                scale_up: Some(rules(settings.behavior.scale_up.as_ref(), &default_scale_up())),
                scale_down: Some(rules(settings.behavior.scale_down.as_ref(), &default_scale_down())),
            }),
        },
        status: None,
    }
}

fn metric(name: &str, average_utilization: i32) -> MetricSpec {
    MetricSpec {
        type_: "ContainerResource".into(),
        container_resource: Some(ContainerResourceMetricSource {
            container: names::CONTAINER_SERVER.into(),
            name: name.into(),
            target: MetricTarget {
                type_: "Utilization".into(),
                average_utilization: Some(average_utilization),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn policy(type_: PolicyType, value: i32) -> ScalingPolicy {
    ScalingPolicy { type_, value, period_seconds: PERIOD_SECONDS }
}

fn default_scale_up() -> ScalingRules {
    ScalingRules {
        stabilization_window_seconds: Some(0),
        select_policy: Some(SelectPolicy::Max),
        policies: vec![policy(PolicyType::Pods, 4), policy(PolicyType::Percent, 100)],
    }
}

fn default_scale_down() -> ScalingRules {
    ScalingRules {
        stabilization_window_seconds: Some(SCALE_DOWN_WINDOW_SECONDS),
        select_policy: Some(SelectPolicy::Max),
        policies: vec![policy(PolicyType::Percent, 100)],
    }
}

fn rules(user: Option<&ScalingRules>, default: &ScalingRules) -> HPAScalingRules {
    let user = user.unwrap_or(default);
    let policies = if user.policies.is_empty() { &default.policies } else { &user.policies };
    let policy = |p: &ScalingPolicy| HPAScalingPolicy {
        type_: format!("{:?}", p.type_),
        value: p.value,
        period_seconds: p.period_seconds,
    };
    HPAScalingRules {
        stabilization_window_seconds: user
            .stabilization_window_seconds
            .or(default.stabilization_window_seconds),
        select_policy: user.select_policy.or(default.select_policy).map(|p| format!("{p:?}")),
        policies: Some(policies.iter().map(policy).collect()),
        ..HPAScalingRules::default()
    }
}
