//! `spec.autoscaling.metrics`: the signals, their targets and weights.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Quantity;

/// What the scale follows. CPU and memory are measured by the cluster, the others by the gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("(!has(self.concurrency) && !has(self.queueDepth) && !has(self.connections) && !has(self.requestRate) && !has(self.cpu) && !has(self.memory) && !has(self.latency) && !has(self.errorRate)) || (has(self.concurrency) && (!has(self.concurrency.weight) || quantity(string(self.concurrency.weight)).compareTo(quantity('0')) > 0)) || (has(self.queueDepth) && (!has(self.queueDepth.weight) || quantity(string(self.queueDepth.weight)).compareTo(quantity('0')) > 0)) || (has(self.connections) && (!has(self.connections.weight) || quantity(string(self.connections.weight)).compareTo(quantity('0')) > 0)) || (has(self.requestRate) && (!has(self.requestRate.weight) || quantity(string(self.requestRate.weight)).compareTo(quantity('0')) > 0)) || (has(self.cpu) && (!has(self.cpu.weight) || quantity(string(self.cpu.weight)).compareTo(quantity('0')) > 0)) || (has(self.memory) && (!has(self.memory.weight) || quantity(string(self.memory.weight)).compareTo(quantity('0')) > 0)) || (has(self.latency) && (!has(self.latency.weight) || quantity(string(self.latency.weight)).compareTo(quantity('0')) > 0)) || (has(self.errorRate) && (!has(self.errorRate.weight) || quantity(string(self.errorRate.weight)).compareTo(quantity('0')) > 0))").message("autoscaling.metrics: all weights are 0, so nothing is looked at; give one metric a weight above 0, or remove metrics to follow the preset"),
    validation = Rule::new("!has(self.errorRate) || (quantity(string(self.errorRate.threshold)).compareTo(quantity('0')) > 0 && quantity(string(self.errorRate.threshold)).compareTo(quantity('1')) <= 0)").message("autoscaling.metrics.errorRate.threshold must be greater than 0 and at most 1, for example \"0.2\"")
)]
pub struct Metrics {
    /// Running calls; open streams that are idle do not count. `concurrency: {}` means 85 % of
    /// `gateway.maxRequestsPerPod` per replica, and 14 where that has no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<AmountMetric>,
    /// Calls that wait in the gateway. `queueDepth: {}` means that they are to be served within 5 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<QueueMetric>,
    /// Open sessions and streams. `connections: {}` means 100 per replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<AmountMetric>,
    /// Calls per second. `requestRate: {}` means 50 per replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<AmountMetric>,
    /// CPU of the server container. `cpu: {}` means 70 % of its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<ResourceMetric>,
    /// Memory of the server container. `memory: {}` means 80 % of its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ResourceMetric>,
    /// Latency of calls. `latency: {}` means that nothing is taken away while the 95th percentile is above 1000 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyMetric>,
    /// Share of calls that fail by the server's fault. `errorRate: {}` means that nothing is taken away from 0.2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<ErrorMetric>,
}

/// An amount for each replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmountMetric {
    /// What one replica should carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<AmountTarget>,
    /// Share in a mean or a weighted sum, at most 100; 0: not looked at. Without it 1, and in a weighted sum 0.2
    /// for connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Quantity>,
}

/// An amount as a mean over the replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("quantity(string(self.averageValue)).compareTo(quantity('0')) > 0").message("autoscaling.metrics: target.averageValue must be greater than 0, for example \"14\"")
)]
pub struct AmountTarget {
    /// The amount, for example "14".
    pub average_value: Quantity,
}

/// Calls that wait in the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueMetric {
    /// Seconds within which what waits is to be served.
    #[schemars(range(min = 1, max = 600))]
    pub drain_seconds: i32,
    /// What counts as 1 in a weighted sum: waiting calls for each replica, 50 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<AmountTarget>,
    /// Share in a mean or a weighted sum, at most 100; 0: not looked at. Without it 1, and in a weighted sum 0.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Quantity>,
}

impl Default for QueueMetric {
    fn default() -> Self {
        Self { drain_seconds: 5, target: None, weight: None }
    }
}

/// A resource of the server container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceMetric {
    /// The use that the autoscaler aims at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<UtilizationTarget>,
    /// Share in a mean or a weighted sum, at most 100; 0: not looked at. Without it 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Quantity>,
}

/// A use in percent of the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UtilizationTarget {
    /// Percent of the request, as a mean over the pods.
    #[schemars(range(min = 1, max = 1000))]
    pub average_utilization: i32,
}

/// What a signal that asks for no replicas by itself may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SignalRole {
    /// It forbids to scale down.
    #[default]
    Guard,
    /// With signs of saturation it also raises the scale.
    Boost,
}

/// What errors may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ErrorRole {
    /// They forbid to scale down.
    #[default]
    Guard,
}

/// Latency of calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LatencyMetric {
    /// Milliseconds that the percentile should not exceed; also what counts as 1 in a weighted sum.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub objective_milliseconds: i32,
    /// Which percentile.
    #[schemars(range(min = 1, max = 99))]
    pub percentile: i32,
    /// `Guard`: above the objective nothing is taken away. `Boost`: where calls also wait, or replicas are nearly
    /// full, the scale is raised as well.
    pub role: SignalRole,
    /// Most that a boost adds, in percent of the scale.
    #[schemars(range(min = 1, max = 200))]
    pub max_boost_percent: i32,
    /// Share in a weighted sum, at most 100; 0: not looked at. Without it 0.3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Quantity>,
}

impl Default for LatencyMetric {
    fn default() -> Self {
        Self {
            objective_milliseconds: 1000,
            percentile: 95,
            role: SignalRole::default(),
            max_boost_percent: 25,
            weight: None,
        }
    }
}

/// Share of calls that fail by the server's fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorMetric {
    /// From this share on, above 0 and at most 1, nothing is taken away.
    pub threshold: Quantity,
    /// `Guard`: from the threshold on nothing is taken away. Servers that fail need no more replicas of themselves.
    pub role: ErrorRole,
    /// Share in a weighted sum, at most 100; 0: not looked at. Without it 0.3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Quantity>,
}

impl Default for ErrorMetric {
    fn default() -> Self {
        Self { threshold: Quantity("0.2".into()), role: ErrorRole::default(), weight: None }
    }
}
