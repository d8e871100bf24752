//! `status`: written by the operator's leader alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AutoscalingStatus;

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
    /// Where clients reach the fleet: one of its host names, the gateway, or without a gateway its Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the gateways learned of the server by asking its pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolStatus>,
    /// What the scaler sees and does; absent where the fleet is not scaled by what the gateway measures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingStatus>,
    /// States of the fleet; `Ready` sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What the gateways learned of the server by asking its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolStatus {
    /// Revisions of the protocol that it speaks, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 32)))]
    pub versions: Vec<String>,
    /// What the server calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerIdentity>,
    /// Whether it keeps sessions.
    #[serde(default)]
    pub sessions: SessionsStatus,
}

/// What a server calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerIdentity {
    /// Its name.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub name: String,
    /// Its version.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub version: String,
}

/// Whether a server keeps sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionsStatus {
    /// It hands out session identifiers.
    Stateful,
    /// It does not.
    Stateless,
    /// Nobody has asked it yet.
    #[default]
    Unknown,
}
