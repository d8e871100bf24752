//! The HorizontalPodAutoscaler on the fleet's own scale subresource: on CPU and memory alone, or on what the operator
//! recommends through the metrics API.
//!
//! CPU and memory are of the container `server` alone: a sidecar without requests, injected by a mesh, would
//! stop a metric of the whole pod. The behavior is written out in full, so that what counts can be read.

use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricSource, CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules,
        HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec,
        MetricIdentifier, MetricSpec, MetricTarget, ObjectMetricSource,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::metadata;
use crate::{
    api::names,
    autoscale::behavior::{Behavior, Rules, Select, Unit},
    domain::ReplicaRange,
    operator::validate::{HpaSettings, McpScaling, ValidatedFleet},
};

/// On CPU and memory, as percent of the request.
pub(super) fn native(fleet: &ValidatedFleet, settings: &HpaSettings) -> HorizontalPodAutoscaler {
    let metrics = [("cpu", settings.cpu), ("memory", settings.memory)];
    let metrics =
        metrics.into_iter().filter_map(|(name, target)| target.map(|t| resource(name, t))).collect();
    build(fleet, settings.range, metrics, behavior(&settings.behavior, None))
}

/// On what the operator recommends: an integer, so that the HPA asks for exactly that many. Tolerance, guards and
/// cooldown are in it already; without a tolerance of 0 the HPA would take ±1 of 10 or more replicas for noise
/// (autoscaling.md section 1.2). Servers without that field drop it.
pub(super) fn of_decision(fleet: &ValidatedFleet, mcp: &McpScaling, coarse: bool) -> HorizontalPodAutoscaler {
    let metric = MetricSpec {
        type_: "Object".into(),
        object: Some(ObjectMetricSource {
            described_object: this(fleet),
            metric: MetricIdentifier { name: names::METRIC_DESIRED_REPLICAS.into(), selector: None },
            target: MetricTarget {
                type_: "AverageValue".into(),
                average_value: Some(Quantity("1".into())),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    };
    build(fleet, mcp.range, vec![metric], behavior(&mcp.policy.of_hpa(coarse), Some("0")))
}

fn build(
    fleet: &ValidatedFleet,
    range: ReplicaRange,
    metrics: Vec<MetricSpec>,
    behavior: HorizontalPodAutoscalerBehavior,
) -> HorizontalPodAutoscaler {
    HorizontalPodAutoscaler {
        metadata: metadata(fleet, fleet.name.as_str()),
        spec: HorizontalPodAutoscalerSpec {
            scale_target_ref: this(fleet),
            // An HPA does nothing at 0; the step from and to it is the operator's.
            min_replicas: Some(range.min().max(1)),
            max_replicas: range.max(),
            metrics: Some(metrics),
            behavior: Some(behavior),
        },
        status: None,
    }
}

fn this(fleet: &ValidatedFleet) -> CrossVersionObjectReference {
    CrossVersionObjectReference {
        api_version: Some(names::API_VERSION.into()),
        kind: names::KIND.into(),
        name: fleet.name.to_string(),
    }
}

fn resource(name: &str, average_utilization: i32) -> MetricSpec {
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

fn behavior(behavior: &Behavior, tolerance: Option<&str>) -> HorizontalPodAutoscalerBehavior {
    HorizontalPodAutoscalerBehavior {
        scale_up: Some(rules(&behavior.up, tolerance)),
        scale_down: Some(rules(&behavior.down, tolerance)),
    }
}

fn rules(rules: &Rules, tolerance: Option<&str>) -> HPAScalingRules {
    // The wire counts in whole seconds, at least one.
    let seconds = |millis: i64| i32::try_from((millis + 999) / 1000).unwrap_or(i32::MAX);
    let policies = rules.policies.iter().map(|p| HPAScalingPolicy {
        type_: match p.unit {
            Unit::Pods => "Pods".into(),
            Unit::Percent => "Percent".into(),
        },
        value: p.value,
        period_seconds: seconds(p.period),
    });
    let select = match rules.select {
        Select::Max => "Max",
        Select::Min => "Min",
        Select::Disabled => "Disabled",
    };
    HPAScalingRules {
        stabilization_window_seconds: Some(seconds(rules.stabilization)),
        select_policy: Some(select.into()),
        policies: Some(policies.collect()),
        tolerance: tolerance.map(|t| Quantity(t.into())),
    }
}
