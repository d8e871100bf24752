//! Probes: safe defaults, HTTP only where the user names a path.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a probe asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProbeType {
    /// A TCP connection to the port.
    #[default]
    TCP,
    /// An HTTP GET of `path`; 200–399 is success.
    HTTP,
}

/// The three probes of the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(cel)]
pub struct Probes {
    /// Until it succeeds, the other two rest. By default TCP every 2 s for at most 2 minutes.
    #[serde(default)]
    pub startup: Probe,
    /// Whether the pod gets traffic. By default TCP, after 5 s, every 10 s.
    #[serde(default)]
    pub readiness: Probe,
    /// Whether the server is restarted. By default TCP, after 15 s, every 20 s. Never let it depend on
    /// what the server itself calls: an outage there would restart the whole fleet.
    #[serde(default)]
    pub liveness: Probe,
}

/// One probe. What is left out takes the default of its kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("(self.type == 'HTTP') == has(self.path)").message("server.probes: type HTTP needs a path such as /health, and type TCP takes none"),
    validation = Rule::new("!has(self.path) || self.path.startsWith('/')").message("server.probes: path must start with '/'")
)]
pub struct Probe {
    /// `TCP` (a connection) or `HTTP` (a GET of `path`).
    #[serde(default, rename = "type")]
    pub type_: ProbeType,
    /// Path of the GET, such as `/health/ready`. Only for HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub path: Option<String>,
    /// Port, where it is not `server.port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Seconds after the start of the container before the first probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub initial_delay_seconds: Option<i32>,
    /// Seconds between probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: Option<i32>,
    /// Seconds after which a probe without answer has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: Option<i32>,
    /// Failures in a row until it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600))]
    pub failure_threshold: Option<i32>,
}
