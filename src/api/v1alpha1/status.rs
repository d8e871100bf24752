//! `status`: written by the operator's leader alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpFleetStatus {
    /// Generation of the specification that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Replicas without surge pods and without pods that end; an autoscaler divides by it.
    #[serde(default)]
    pub replicas: i32,
    /// Replicas whose endpoint serves.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Replicas of the present pod template.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Pods that end and still finish calls, where the cluster counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_replicas: Option<i32>,
    /// Label selector of the fleet's pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Where clients inside the cluster reach the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// States of the fleet; `Ready` sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
