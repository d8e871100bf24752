//! `status.autoscaling`: the last decision in words and numbers, and what the next leader needs of its memory.
//!
//! Times of the memory are exact to the microsecond: whole seconds would end a rest early.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the scaler sees and does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoscalingStatus {
    /// Who changes the scale in effect: `HPA`, `Direct` or `Off`.
    #[schemars(length(max = 32))]
    pub effective_actuator: String,
    /// Replicas asked for when it was decided: `spec.replicas`, and what is ahead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_replicas: Option<i32>,
    /// A step up that the Deployment has got before the HPA's next look at the fleet; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_start: Option<HeadStartStatus>,
    /// Replicas that are recommended, before windows and policies of `behavior`; absent where nothing can be said for
    /// lack of metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// Demand over replicas, for example "1.12"; 1 is at target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub utilization: Option<String>,
    /// Demand in replicas, for example "6.7", before guards and bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub demand: Option<String>,
    /// What is going on, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// What keeps the scale from following the demand, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub limited_by: Option<String>,
    /// Each signal's part, greatest demand first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub terms: Vec<TermStatus>,
    /// Guards that stand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub guards: Vec<String>,
    /// The last step up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_up_time: Option<MicroTime>,
    /// The last step down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_scale_down_time: Option<MicroTime>,
    /// The end of the rest after a change, while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_until: Option<Time>,
    /// Past recommendations, oldest first; each stands for all since the one before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub recommendations: Vec<RecommendationStatus>,
    /// Past changes of the scale, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub scale_events: Vec<ScaleEventStatus>,
    /// How long a call takes while nothing is wrong, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline_hold_time_ms: Option<i64>,
}

/// A step up that the HPA has yet to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeadStartStatus {
    /// `spec.replicas` when it was decided. A lower value takes the head start back.
    pub spec_replicas: i32,
    /// Replicas that the Deployment gets.
    pub replicas: i32,
}

/// One signal's part in the decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TermStatus {
    /// Its name in `spec.autoscaling.metrics`.
    #[schemars(length(max = 32))]
    pub signal: String,
    /// What was measured over all replicas; for cpu, memory and errorRate a share, for latency milliseconds.
    #[schemars(length(max = 32))]
    pub total: String,
    /// What one replica should carry, or the objective.
    #[schemars(length(max = 32))]
    pub target: String,
    /// Replicas that it asks for; for latency and errorRate measured over objective.
    #[schemars(length(max = 32))]
    pub demand: String,
    /// Seconds over which it was measured.
    pub window_seconds: i32,
    /// Pods that said nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<i32>,
}

/// What was recommended in a stretch of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecommendationStatus {
    /// The end of the stretch.
    pub time: MicroTime,
    /// Fewest replicas.
    pub min: i32,
    /// Most replicas.
    pub max: i32,
}

/// A change of the scale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleEventStatus {
    /// When.
    pub time: MicroTime,
    /// By how many replicas; negative: down.
    pub change: i32,
}
