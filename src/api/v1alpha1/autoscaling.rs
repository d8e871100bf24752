//! `spec.autoscaling`: bounds of the scale, who changes it, and what it follows.
//!
//! What a preset decides has no default in the schema: `operator::validate` resolves it, so that a stored object
//! never names what its author did not.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Behavior, Metrics, Quantity};

/// Who changes the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Actuator {
    /// A generated HorizontalPodAutoscaler on the fleet's own scale subresource.
    #[default]
    HPA,
    /// The operator itself.
    Direct,
    /// Nobody of ours: a person or an autoscaler of your own.
    Off,
}

/// What holds where a field is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// The greatest demand of several signals; latency and errors only hold back.
    #[default]
    Balanced,
    /// A weighted sum with two thresholds, one replica at a time and a rest of 300 s.
    Classic,
}

/// How the demands of several signals become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Combine {
    /// The greatest.
    Max,
    /// A mean of powers: near the greatest, and smoother.
    PowerMean,
    /// The weighted sum of each signal over its target, with thresholds.
    WeightedSum,
}

/// Scaling between `minReplicas` and `maxReplicas`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("self.minReplicas <= self.maxReplicas").message("autoscaling.minReplicas must not be greater than autoscaling.maxReplicas"),
    validation = Rule::new("!has(self.scaleToZero) || !has(self.scaleToZero.enabled) || !self.scaleToZero.enabled || self.minReplicas <= 1").message("autoscaling.scaleToZero.enabled goes with autoscaling.minReplicas 0 or 1 (2 if left out): a fleet that must keep more cannot go to zero; write minReplicas: 0"),
    validation = Rule::new("!has(self.scaleToZero) || !has(self.scaleToZero.enabled) || self.scaleToZero.enabled || self.minReplicas > 0").message("autoscaling.minReplicas 0 means scaling to zero, and autoscaling.scaleToZero.enabled is false: set minReplicas to 1, or leave out enabled"),
    validation = Rule::new("!has(self.scaleToZero) || self.scaleToZero.idleSeconds >= (has(self.windows) ? self.windows.stableSeconds : 60)").message("autoscaling.scaleToZero.idleSeconds must not be less than autoscaling.windows.stableSeconds (60 if left out): what was called within that window is not idle"),
    validation = Rule::new("!has(self.windows) || self.windows.panicSeconds <= self.windows.stableSeconds").message("autoscaling.windows.panicSeconds must not be greater than autoscaling.windows.stableSeconds"),
    validation = Rule::new("!has(self.activation) || self.activation.replicas <= self.maxReplicas").message("autoscaling.activation.replicas must not be greater than autoscaling.maxReplicas"),
    validation = Rule::new("!has(self.fallback) || self.fallback.replicas <= self.maxReplicas").message("autoscaling.fallback.replicas must not be greater than autoscaling.maxReplicas"),
    validation = Rule::new("!has(self.thresholds) || (has(self.combine) ? self.combine == 'WeightedSum' : (has(self.preset) && self.preset == 'Classic'))").message("autoscaling.thresholds belong to combine WeightedSum; Max and PowerMean compare each signal with its own target: remove thresholds, or set combine: WeightedSum"),
    validation = Rule::new("!has(self.thresholds) || quantity(string(self.thresholds.scaleDown)).asApproximateFloat() * double((self.minReplicas > 1 ? self.minReplicas : 1) + 1) < quantity(string(self.thresholds.scaleUp)).asApproximateFloat() * double(self.minReplicas > 1 ? self.minReplicas : 1)").message("autoscaling.thresholds would make the scale swing: with m = minReplicas (at least 1), one replica more brings the sum from scaleUp down to scaleUp*m/(m+1), which must stay above scaleDown, or the replica is taken away again; lower scaleDown, or raise scaleUp or minReplicas"),
    validation = Rule::new("!has(self.metrics) || (!has(self.metrics.latency) && !has(self.metrics.errorRate)) || has(self.metrics.concurrency) || has(self.metrics.queueDepth) || has(self.metrics.connections) || has(self.metrics.requestRate) || has(self.metrics.cpu) || has(self.metrics.memory) || (has(self.combine) ? self.combine == 'WeightedSum' : (has(self.preset) && self.preset == 'Classic'))").message("autoscaling.metrics: latency and errorRate only hold the scale, they ask for no replicas; metrics that are named replace those of the preset, so name concurrency, cpu or another demand as well")
)]
pub struct AutoscalingSpec {
    /// What holds where a field is left out. `Balanced`: the greatest demand of concurrency, queue, connections
    /// and CPU, with latency and errors as guards. `Classic`: the weighted sum 0.3 latency + 0.3 errors + 0.2
    /// connections + 0.2 queue, up above 0.8, down below 0.3, one replica at a time, 300 s apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Who changes the scale. `HPA`: a generated HorizontalPodAutoscaler, which reads what the operator
    /// recommends. `Direct`: the operator itself, also where the cluster's metrics API belongs to others. `"Off"`
    /// (in quotes: YAML takes a bare Off for false): the scale is left to you, for example to `kubectl autoscale
    /// mcpfleet`, and the status shows what we would do.
    #[serde(default)]
    pub actuator: Actuator,
    /// The fleet never has fewer replicas. With 0 it goes to zero when nobody has called for
    /// `scaleToZero.idleSeconds`, and the gateway holds the first call until a replica serves.
    #[serde(default = "default_min")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: i32,
    /// The fleet never has more replicas.
    #[serde(default = "default_max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// How the demands of several signals become one. Without it what the preset says: `Max`, or for Classic
    /// `WeightedSum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<Combine>,
    /// What the scale follows. Metrics that are named replace those of the preset. Without any, a fleet behind
    /// the gateway follows those of its preset, and any other CPU at 70 % of the request.
    #[serde(default)]
    pub metrics: Metrics,
    /// Where `combine: WeightedSum` acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
    /// Over which time signals are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
    /// How fast it follows; the fields of `autoscaling/v2`. A direction that is left out is as the preset says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Behavior>,
    /// Rest after each change of the scale, whoever made it; it outlives restarts of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_seconds: Option<CooldownSeconds>,
    /// When a fleet that nobody calls goes to zero. Needs the gateway, which wakes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_to_zero: Option<ScaleToZero>,
    /// The step from zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// What holds when all metrics are gone for long. Without it the scale stays what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Share of the replicas, in percent, that must be ready for a signal of single pods, such as CPU, to raise
    /// the scale: pods that crash or start burn CPU and serve nobody. 50 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub min_available_percent: Option<i32>,
}

/// Where a weighted sum acts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Thresholds {
    /// Above it one replica is added.
    pub scale_up: Quantity,
    /// Below it one replica is taken away.
    pub scale_down: Quantity,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { scale_up: Quantity("0.8".into()), scale_down: Quantity("0.3".into()) }
    }
}

/// Over which time signals are taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Windows {
    /// The ordinary window, in seconds.
    #[schemars(range(min = 5, max = 3600))]
    pub stable_seconds: i32,
    /// The short window, in seconds, which finds sudden load.
    #[schemars(range(min = 1, max = 3600))]
    pub panic_seconds: i32,
    /// A demand over the short window of so many percent of the ready replicas raises the scale at once, and
    /// nothing is taken away until it has been gone for `stableSeconds`.
    #[schemars(range(min = 110, max = 1000))]
    pub panic_threshold_percent: i32,
    /// A sample that is older, in seconds, counts as missing.
    #[schemars(range(min = 5, max = 600))]
    pub max_sample_age_seconds: i32,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            stable_seconds: 60,
            panic_seconds: 2,
            panic_threshold_percent: 200,
            max_sample_age_seconds: 30,
        }
    }
}

/// Rest after a change of the scale.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CooldownSeconds {
    /// Seconds without any change after a step up. Without it 0, for Classic 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub after_scale_up: Option<i32>,
    /// Seconds without any change after a step down. Without it 0, for Classic 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub after_scale_down: Option<i32>,
}

/// When a fleet goes to zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleToZero {
    /// Whether it may. Without it exactly where `minReplicas` is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Seconds without a call, a session, an open stream and a waiting request.
    #[schemars(range(min = 5, max = 86_400))]
    pub idle_seconds: i32,
}

impl Default for ScaleToZero {
    fn default() -> Self {
        Self { enabled: None, idle_seconds: 600 }
    }
}

/// The step from zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Activation {
    /// Replicas that the first call starts.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
}

impl Default for Activation {
    fn default() -> Self {
        Self { replicas: 1 }
    }
}

/// How the fallback's number is compared with what runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FallbackBehavior {
    /// The number itself.
    Static,
    /// What runs.
    CurrentReplicas,
    /// The greater of the two.
    #[default]
    CurrentReplicasIfHigher,
    /// The smaller of the two.
    CurrentReplicasIfLower,
}

/// What holds when all metrics are gone for long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// For so many seconds everything stays as it is first.
    #[serde(default = "default_failure_duration")]
    #[schemars(range(min = 10, max = 86_400))]
    pub failure_duration_seconds: i32,
    /// The number of replicas.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: i32,
    /// How that number is compared with what runs.
    #[serde(default)]
    pub behavior: FallbackBehavior,
}

fn default_min() -> i32 {
    2
}

fn default_max() -> i32 {
    10
}

fn default_failure_duration() -> i32 {
    180
}
