//! `spec.server`: the MCP server and the pod around it.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EnvFromSource, EnvVar, LocalRef, Placement, Probes, Quantity, Volume, VolumeMount};

/// How the server speaks MCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// Streamable HTTP: one endpoint for everything (MCP 2025-03-26 and later).
    #[default]
    StreamableHTTP,
    /// HTTP with Server-Sent Events (MCP 2024-11-05, deprecated by the protocol).
    SSE,
}

/// Whether the server keeps sessions in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Sessions {
    /// The gateway finds out.
    #[default]
    Auto,
    /// It does not: any pod can answer any request.
    Stateless,
    /// It does: the requests of a session go to one pod.
    Stateful,
}

/// When the kubelet pulls the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start.
    Always,
    /// Only where it is not on the node.
    IfNotPresent,
    /// Never.
    Never,
}

impl ImagePullPolicy {
    /// The word of the Kubernetes API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The MCP server and the pod around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("self.path.startsWith('/')").message("server.path must start with '/', for example /mcp"),
    validation = Rule::new("self.transport != 'SSE' || self.sessions != 'Stateless'").message("server.sessions: a server with transport SSE always keeps sessions; use Auto or Stateful"),
    validation = Rule::new("(!has(self.probes.startup.path) || self.probes.startup.path != self.path) && (!has(self.probes.readiness.path) || self.probes.readiness.path != self.path) && (!has(self.probes.liveness.path) || self.probes.liveness.path != self.path)").message("server.probes: no MCP server answers a plain GET of its MCP path with 200; name a health path, or use type TCP"),
    validation = Rule::new("!has(self.tolerations) || self.tolerations.all(t, has(t.key) || (has(t.operator) && t.operator == 'Exists'))").message("server.tolerations: a toleration without a key tolerates every taint and needs operator Exists"),
    validation = Rule::new("!has(self.tolerations) || self.tolerations.all(t, !has(t.value) || !has(t.operator) || t.operator != 'Exists')").message("server.tolerations: operator Exists takes no value"),
    validation = Rule::new("!has(self.tolerations) || self.tolerations.all(t, !has(t.tolerationSeconds) || (has(t.effect) && t.effect == 'NoExecute'))").message("server.tolerations: tolerationSeconds needs effect NoExecute"),
    validation = Rule::new("!has(self.volumes) || self.volumes.all(v, !v.name.startsWith('mcp-fleet'))").message("server.volumes: names that start with 'mcp-fleet' are the operator's own; choose another name"),
    validation = Rule::new("!has(self.volumeMounts) || self.volumeMounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))").message("server.volumeMounts: each entry must name a volume of server.volumes"),
    validation = Rule::new("!has(self.volumeMounts) || self.volumeMounts.all(m, m.mountPath.startsWith('/') && m.mountPath != '/' && m.mountPath != '/run/mcp-fleet')").message("server.volumeMounts: mountPath must be absolute, and neither '/' nor '/run/mcp-fleet', which is the operator's own")
)]
pub struct ServerSpec {
    /// Container image of the MCP server, best by digest: `registry.example.com/github-mcp@sha256:…`.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub image: String,

    /// Entrypoint in place of the image's own. An array, never a shell line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,

    /// Arguments in place of the image's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 8192)))]
    pub args: Vec<String>,

    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,

    /// Secrets and `ConfigMaps` of this namespace whose keys all become environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env_from: Vec<EnvFromSource>,

    /// When the image is pulled. Without it Kubernetes decides: Always for the tag `latest`, else IfNotPresent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets of this namespace with credentials of the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<LocalRef>,

    /// TCP port on which the server listens.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// Path of the MCP endpoint.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 256))]
    pub path: String,

    /// How the server speaks MCP: `StreamableHTTP` (one endpoint, MCP 2025-03-26 and later) or `SSE`
    /// (HTTP with Server-Sent Events, MCP 2024-11-05). It decides the default of the probes and the URL.
    #[serde(default)]
    pub transport: Transport,

    /// Whether the server keeps sessions in memory: `Auto` (the gateway finds out), `Stateless` (any pod
    /// can answer any request) or `Stateful` (the requests of a session go to one pod).
    #[serde(default)]
    pub sessions: Sessions,

    /// CPU and memory. Requests default to 250m and 256Mi, limits to 500m and 512Mi; a value that is
    /// named here replaces the default of the same name, and a default limit never undercuts a request.
    #[serde(default)]
    pub resources: Resources,

    /// How Kubernetes finds out that the server started, may get traffic, and still lives. By default
    /// a TCP connection to `port`: no MCP server answers a plain GET of its MCP path with 200.
    #[serde(default)]
    pub probes: Probes,

    /// Volumes: configMap, secret, emptyDir and existing claims of this namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub volumes: Vec<Volume>,

    /// Where the volumes appear in the server's file system.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    pub volume_mounts: Vec<VolumeMount>,

    /// User id of the server. Root (0) is not possible.
    #[serde(default = "default_id")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: i64,

    /// Group id of the server.
    #[serde(default = "default_id")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_group: i64,

    /// Group that owns the volumes. Defaults to `runAsGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub fs_group: Option<i64>,

    /// Whether the server sees its image read-only. `/tmp` is writable in either case.
    #[serde(default = "yes")]
    pub read_only_root_filesystem: bool,

    /// Whether the pod's containers share one process namespace. Otherwise the server is process 1 of
    /// its own, and one without a SIGTERM handler then ignores SIGTERM and sits out the grace period.
    #[serde(default = "yes")]
    pub share_process_namespace: bool,

    /// Whether the pod gets a token for the Kubernetes API.
    #[serde(default)]
    pub automount_service_account_token: bool,

    /// An existing ServiceAccount of this namespace, in place of the generated one without rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,

    /// Further labels of the pods. `mcpfleet.io/…` and `app.kubernetes.io/…` are the operator's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('mcpfleet.io/') && !k.startsWith('app.kubernetes.io/'))").message("server.podLabels: labels below mcpfleet.io/ and app.kubernetes.io/ are the operator's own; use a prefix of yours"))]
    pub pod_labels: BTreeMap<String, String>,

    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('mcpfleet.io/'))").message("server.podAnnotations: annotations below mcpfleet.io/ are the operator's own; use a prefix of yours"))]
    pub pod_annotations: BTreeMap<String, String>,

    /// Which nodes the pods run on.
    #[serde(flatten)]
    pub placement: Placement,
}

/// CPU, memory and extended resources of the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)").message("server.resources: a request must not be greater than the limit of the same name; lower the request or raise the limit")
)]
pub struct Resources {
    /// What the scheduler sets aside for each pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Quantity>,
    /// What each pod may use at the most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Quantity>,
}

fn default_port() -> i32 {
    8080
}

fn default_path() -> String {
    "/mcp".into()
}

fn default_id() -> i64 {
    65532
}

pub(crate) fn yes() -> bool {
    true
}
