//! `spec.autoscaling`: bounds, metrics and behavior of the scale.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who changes the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Actuator {
    /// A generated HorizontalPodAutoscaler on the fleet's own scale subresource.
    #[default]
    HPA,
    /// Nobody of ours: a person or an autoscaler of your own.
    Off,
}

/// Scaling between `minReplicas` and `maxReplicas`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("self.minReplicas <= self.maxReplicas").message("autoscaling.minReplicas must not be greater than autoscaling.maxReplicas")
)]
pub struct AutoscalingSpec {
    /// `HPA`: a generated HorizontalPodAutoscaler. `Off`: the scale is left to you, for example to
    /// `kubectl autoscale mcpfleet`.
    #[serde(default)]
    pub actuator: Actuator,
    /// The fleet never has fewer replicas.
    #[serde(default = "default_min")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// The fleet never has more replicas.
    #[serde(default = "default_max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// What the scale follows. Without any: CPU at 70 % of the request.
    #[serde(default)]
    pub metrics: Metrics,
    /// How fast it follows; the fields of `autoscaling/v2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Behavior>,
}

/// What the scale follows. Of several, the one that asks for most replicas wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// CPU of the server container. `cpu: {}` means 70 % of its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<ResourceMetric>,
    /// Memory of the server container. `memory: {}` means 80 % of its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ResourceMetric>,
}

/// A resource of the server container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceMetric {
    /// The use that the autoscaler aims at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<UtilizationTarget>,
}

/// A use in percent of the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UtilizationTarget {
    /// Percent of the request, as a mean over the pods.
    #[schemars(range(min = 1, max = 1000))]
    pub average_utilization: i32,
}

/// How fast the scale follows, as in `autoscaling/v2`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Behavior {
    /// Upwards. By default at once, by at most 4 pods or 100 % in 15 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_up: Option<ScalingRules>,
    /// Downwards. By default after 300 s, by at most 100 % in 15 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<ScalingRules>,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectPolicy {
    /// The one that allows most.
    Max,
    /// The one that allows least.
    Min,
    /// None: no scaling in this direction.
    Disabled,
}

/// What a policy's value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyType {
    /// Pods.
    Pods,
    /// Percent of the present scale.
    Percent,
}

/// At most `value` in `periodSeconds`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingPolicy {
    /// What `value` counts.
    #[serde(rename = "type")]
    pub type_: PolicyType,
    /// How much.
    #[schemars(range(min = 1, max = 10000))]
    pub value: i32,
    /// In how many seconds.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: i32,
}

/// Rules of one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRules {
    /// Seconds over which the safest of the past recommendations is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: Option<i32>,
    /// Which policy counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select_policy: Option<SelectPolicy>,
    /// The policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub policies: Vec<ScalingPolicy>,
}

fn default_min() -> i32 {
    2
}

fn default_max() -> i32 {
    10
}
