//! The root of the API.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    AutoscalingSpec, DisruptionSpec, GatewaySpec, McpFleetStatus, NetworkPolicySpec, RolloutSpec, ServerSpec,
    ServiceSpec,
};

/// A fleet of replicas of one MCP server: its workload, Services, probes, disruption budget, network
/// policy and autoscaler in one object.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "mcpfleet.io",
    version = "v1alpha1",
    kind = "McpFleet",
    plural = "mcpfleets",
    singular = "mcpfleet",
    shortname = "mcpf",
    category = "all",
    namespaced,
    status = "McpFleetStatus",
    derive = "PartialEq",
    doc = "McpFleet is a fleet of replicas of one MCP (Model Context Protocol) server.",
    cel,
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas", description = "Replicas whose endpoint serves"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas", description = "Replicas asked for"),
    printcolumn(name = "Min", type_ = "integer", json_path = ".spec.autoscaling.minReplicas"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.autoscaling.maxReplicas"),
    printcolumn(name = "Util", type_ = "string", json_path = ".status.autoscaling.utilization", description = "Demand over replicas; 1 is at target"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Reason of the Ready condition"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.server.image", priority = 1),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 50").message("metadata.name must be at most 50 characters of a-z, 0-9 and '-', and start with a letter: it becomes the name of a Service")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.autoscaling) || self.gateway.enabled || (self.autoscaling.minReplicas > 0 && !(has(self.autoscaling.scaleToZero) && has(self.autoscaling.scaleToZero.enabled) && self.autoscaling.scaleToZero.enabled))").message("autoscaling: scaling to zero needs the gateway, which holds the first call until a replica serves: set gateway.enabled: true, or autoscaling.minReplicas to 1 without scaleToZero"),
    validation = Rule::new("!has(self.autoscaling) || self.gateway.enabled || !has(self.autoscaling.metrics) || !(has(self.autoscaling.metrics.concurrency) || has(self.autoscaling.metrics.queueDepth) || has(self.autoscaling.metrics.connections) || has(self.autoscaling.metrics.requestRate) || has(self.autoscaling.metrics.latency) || has(self.autoscaling.metrics.errorRate))").message("autoscaling.metrics: concurrency, queueDepth, connections, requestRate, latency and errorRate are measured by the gateway: set gateway.enabled: true, or follow cpu and memory")
)]
pub struct McpFleetSpec {
    /// Number of replicas. With `autoscaling` leave it out: the autoscaler owns it through the scale
    /// subresource, and a value in the file would reset the scale at each `kubectl apply`. Without
    /// either, the operator starts with 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,

    /// The MCP server: its image, how it is run and how it speaks.
    pub server: ServerSpec,

    /// Scaling between `minReplicas` and `maxReplicas`. Leave it out for a fixed number of replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<AutoscalingSpec>,

    /// How the gateway carries the fleet's traffic: balancing, health, breaker, queue, sessions, limits.
    #[serde(default)]
    pub gateway: GatewaySpec,

    /// The Service that clients call.
    #[serde(default)]
    pub service: ServiceSpec,

    /// How pods are replaced, and how a pod that ends is drained of its running calls.
    #[serde(default)]
    pub rollout: RolloutSpec,

    /// How many pods a node drain or another voluntary disruption may take at once.
    #[serde(default)]
    pub disruption: DisruptionSpec,

    /// Who may reach the server, and what it may reach.
    #[serde(default)]
    pub network_policy: NetworkPolicySpec,
}
