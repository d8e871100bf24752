//! Names of labels, annotations, ports and field managers: one place, so that none is spelled twice.

/// API group of everything of ours.
pub const GROUP: &str = "mcpfleet.io";
/// The served version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of an `McpFleet`.
pub const API_VERSION: &str = "mcpfleet.io/v1alpha1";
/// Kind of the custom resource.
pub const KIND: &str = "McpFleet";

/// Carries the fleet's name; alone in every selector, because it is ours alone and never changes.
pub const LABEL_FLEET: &str = "mcpfleet.io/fleet";
/// Recommended label; the watches of children are scoped by it.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "mcp-fleet";
/// Recommended label with the fleet's name.
pub const LABEL_NAME: &str = "app.kubernetes.io/name";
/// Recommended label with the role.
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Value of [`LABEL_COMPONENT`].
pub const COMPONENT_SERVER: &str = "mcp-server";
/// Value of [`LABEL_COMPONENT`] of the gateway's pods.
pub const COMPONENT_GATEWAY: &str = "gateway";
/// Set by Kubernetes on each namespace: its name.
pub const LABEL_NAMESPACE: &str = "kubernetes.io/metadata.name";
/// Prefixes that users may not put on pods: selectors and other tools rely on them.
pub const RESERVED_LABEL_PREFIXES: [&str; 2] = ["mcpfleet.io/", "app.kubernetes.io/"];

/// Hash of what was applied last, on every child: equal hash and equal fields mean nothing to write.
pub const ANNOTATION_APPLIED_HASH: &str = "mcpfleet.io/applied-hash";
/// The pod template that was applied last, on the Deployment (operator.md section 1: an upgrade restarts nobody).
pub const ANNOTATION_POD_TEMPLATE: &str = "mcpfleet.io/pod-template";
/// Hash of the fleet's own fields that the kept pod template was rendered from.
pub const ANNOTATION_POD_TEMPLATE_INPUTS: &str = "mcpfleet.io/pod-template-inputs";
/// Set by a person on the fleet to "true": the scale stays where it is, or at [`ANNOTATION_PAUSED_REPLICAS`].
pub const ANNOTATION_PAUSED: &str = "mcpfleet.io/paused";
/// The scale of a paused fleet, a number; it pauses by itself as well.
pub const ANNOTATION_PAUSED_REPLICAS: &str = "mcpfleet.io/paused-replicas";
/// Set by a person on the fleet to "true": nothing is taken away.
pub const ANNOTATION_PAUSED_SCALE_IN: &str = "mcpfleet.io/paused-scale-in";
/// Set by a person on the fleet to "true": nothing is added.
pub const ANNOTATION_PAUSED_SCALE_OUT: &str = "mcpfleet.io/paused-scale-out";
/// Set by a person on the fleet to restart its pods; copied to the pod template.
pub const ANNOTATION_RESTARTED_AT: &str = "mcpfleet.io/restartedAt";
/// All that stop scaling.
pub const ANNOTATIONS_PAUSED: [&str; 4] =
    [ANNOTATION_PAUSED, ANNOTATION_PAUSED_REPLICAS, ANNOTATION_PAUSED_SCALE_IN, ANNOTATION_PAUSED_SCALE_OUT];

/// Metric of a fleet in the metrics API: replicas that are recommended.
pub const METRIC_DESIRED_REPLICAS: &str = "mcp_desired_replicas";
/// Metric of a fleet in the metrics API: demand over replicas.
pub const METRIC_UTILIZATION: &str = "mcp_utilization";

/// Field manager of all children.
pub const MANAGER: &str = "mcp-fleet";
/// Field manager of `status`.
pub const MANAGER_STATUS: &str = "mcp-fleet-status";
/// Field manager of the seed of `spec.replicas`.
pub const MANAGER_SCALE: &str = "mcp-fleet-scale";

/// Field manager of the pods' deletion cost.
pub const MANAGER_COST: &str = "mcp-fleet-cost";
/// Kubernetes' own: of several pods, a scale-down takes those that cost least.
pub const ANNOTATION_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Container that runs the user's server.
pub const CONTAINER_SERVER: &str = "server";
/// Init container and volume that bring the drain helper into the pod.
pub const AGENT: &str = "mcp-fleet-agent";
/// Where the helper lies in the pod.
pub const AGENT_DIR: &str = "/run/mcp-fleet";
/// Volume behind `/tmp` of a read-only root.
pub const VOLUME_TMP: &str = "mcp-fleet-tmp";
/// Name of the server's port on the pod and on both Services.
pub const PORT_NAME: &str = "http";
