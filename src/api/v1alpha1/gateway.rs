//! `spec.gateway`: how the gateway carries the fleet's traffic.
//!
//! All fields have defaults, so a fleet without this block is served as well. What is written here is
//! parsed once more by `gateway::settings`, which also reads it from a file without an API server.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Quantity, server::yes};

/// How the gateway chooses a pod for a request that is bound to none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayStrategy {
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// In turn, in proportion to the weights of the endpoints.
    Weighted,
    /// The pod with the fewest open sessions and streams.
    LeastConnections,
    /// The pod with the fewest running requests, of two drawn by chance.
    #[default]
    LeastRequest,
    /// The pod whose recent latency times its running requests is least, of two drawn by chance.
    PeakEWMA,
}

/// How the gateway finds out that a pod serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HealthCheckType {
    /// `server/discover`, or `initialize` for older servers.
    #[default]
    MCP,
    /// A GET that is answered with a status below 400.
    HTTP,
    /// A TCP connection.
    TCP,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Toggle {
    /// It is done.
    #[default]
    Enabled,
    /// It is not.
    Disabled,
}

/// How the gateway carries the fleet's traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("!has(self.hostnames) || self.hostnames.all(h, h.matches('^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*[a-z]([-a-z0-9]{0,61}[a-z0-9])?$'))").message("gateway.hostnames: write host names such as mcp.example.com, in lower case, without scheme, port, path or wildcard"),
    validation = Rule::new("!has(self.origins) || self.origins.all(o, o.matches('^[a-z][-+.a-z0-9]*://([a-z0-9]([-.a-z0-9]*[a-z0-9])?|[\\\\[][0-9a-f:.]+[\\\\]])(:[0-9]{1,5})?$'))").message("gateway.origins: write exact origins such as https://app.example.com, in lower case, with a port where it is not the default one, without path or wildcard"),
    validation = Rule::new("!has(self.origins) || self.origins.all(o, !o.matches('^(http://.*:80|https://.*:443)$'))").message("gateway.origins: leave out the default port; browsers never send it, so the origin would never match"),
    validation = Rule::new("self.healthCheck.type != 'HTTP' || (has(self.healthCheck.path) && self.healthCheck.path.startsWith('/'))").message("gateway.healthCheck: type HTTP needs a path that starts with '/', for example /health"),
    validation = Rule::new("self.healthCheck.type == 'HTTP' || !has(self.healthCheck.path)").message("gateway.healthCheck: path needs type HTTP; leave it out, or set type: HTTP"),
    validation = Rule::new("self.healthCheck.timeoutSeconds <= self.healthCheck.intervalSeconds").message("gateway.healthCheck.timeoutSeconds must not be greater than gateway.healthCheck.intervalSeconds"),
    validation = Rule::new("quantity(string(self.circuitBreaker.failureRatio)).compareTo(quantity('0')) > 0 && quantity(string(self.circuitBreaker.failureRatio)).compareTo(quantity('1')) <= 0").message("gateway.circuitBreaker.failureRatio must be greater than 0 and at most 1, for example \"0.5\"")
)]
pub struct GatewaySpec {
    /// Whether the gateway serves the fleet. Without it clients use the fleet's Service.
    #[serde(default = "yes")]
    pub enabled: bool,

    /// Which gateways serve the fleet: those that run with this `--class`.
    #[serde(default = "default_class")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub class: String,

    /// Host names that belong to this fleet alone: `/mcp` on them is the fleet. Of two fleets that claim
    /// one name, the older has it. Without any, clients use `/<namespace>/<fleet>/mcp` on the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hostnames: Vec<String>,

    /// How a pod is chosen: `RoundRobin`, `Random`, `Weighted`, `LeastConnections`, `LeastRequest` or
    /// `PeakEWMA`. Requests of a session, a task or a retry go to the pod that holds it.
    #[serde(default)]
    pub strategy: GatewayStrategy,

    /// Seconds over which the share of a pod that has just become ready grows to the full one; 0: at once.
    #[serde(default = "default_slow_start")]
    #[schemars(range(min = 0, max = 3600))]
    pub slow_start_seconds: i32,

    /// How the gateway finds out that a pod serves.
    #[serde(default)]
    pub health_check: GatewayHealthCheck,

    /// When a pod that fails is left alone for a while.
    #[serde(default)]
    pub circuit_breaker: CircuitBreaker,

    /// Requests that wait for a pod.
    #[serde(default)]
    pub queue: GatewayQueue,

    /// Requests that one pod is given at a time; more wait in the queue. 0: no limit.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_requests_per_pod: i32,

    /// Requests that are sent to a second pod. None is sent twice unless the first cannot have executed it.
    #[serde(default)]
    pub retries: GatewayRetries,

    /// `Enabled`: a session whose pod is gone is made again on another one, and the client does not notice.
    /// `Disabled`: the client gets 404 and starts anew.
    #[serde(default)]
    pub session_recovery: Toggle,

    /// Whether a client that listens hears all pods, and not one of them.
    #[serde(default = "yes")]
    pub listen_fan_out: bool,

    /// Bounds of what a client may send and keep.
    #[serde(default)]
    pub limits: GatewayLimits,

    /// How long things may take.
    #[serde(default)]
    pub timeouts: GatewayTimeouts,

    /// Origins of web pages that may call the fleet, besides its own and loopback, for example
    /// `https://app.example.com`. Requests without an Origin, as of all programs, always pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 300)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub origins: Vec<String>,
}

/// How the gateway finds out that a pod serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayHealthCheck {
    /// `MCP` (asks for the server's capabilities), `HTTP` (a GET) or `TCP` (a connection).
    #[serde(rename = "type")]
    pub type_: HealthCheckType,
    /// What type HTTP gets, for example `/health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[!-~]*$"))]
    pub path: Option<String>,
    /// Seconds from one check of a pod to the next.
    #[schemars(range(min = 1, max = 3600))]
    pub interval_seconds: i32,
    /// Seconds after which a check counts as failed.
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: i32,
    /// Failures in a row until the pod gets nothing new.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: i32,
    /// Successes in a row until it does again.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: i32,
}

impl Default for GatewayHealthCheck {
    fn default() -> Self {
        Self {
            type_: HealthCheckType::default(),
            path: None,
            interval_seconds: 30,
            timeout_seconds: 5,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        }
    }
}

/// When a pod that fails is left alone for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CircuitBreaker {
    /// Failures in a row that open the breaker.
    #[schemars(range(min = 1, max = 10_000))]
    pub failure_threshold: i32,
    /// Seconds until an open breaker lets trial requests through.
    #[schemars(range(min = 1, max = 3600))]
    pub recovery_seconds: i32,
    /// Trial requests at a time; as many successes close the breaker.
    #[schemars(range(min = 1, max = 1000))]
    pub half_open_max_requests: i32,
    /// Requests within the window below which the ratio says nothing.
    #[schemars(range(min = 1, max = 100_000))]
    pub min_requests: i32,
    /// Share of failed requests within the window that opens the breaker, above 0 and at most 1.
    pub failure_ratio: Quantity,
    /// Length of the window, in seconds.
    #[schemars(range(min = 1, max = 600))]
    pub window_seconds: i32,
    /// Share of the pods that may be left alone at a time, in percent. One always may.
    #[schemars(range(min = 0, max = 100))]
    pub max_ejected_percent: i32,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            recovery_seconds: 30,
            half_open_max_requests: 3,
            min_requests: 20,
            failure_ratio: Quantity("0.5".into()),
            window_seconds: 10,
            max_ejected_percent: 50,
        }
    }
}

/// Requests that wait for a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayQueue {
    /// How many may wait; more are answered with an error at once. 0: none waits.
    #[schemars(range(min = 0, max = 100_000))]
    pub capacity: i32,
    /// Seconds after which one that waits is answered with an error.
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: i32,
}

impl Default for GatewayQueue {
    fn default() -> Self {
        Self { capacity: 1000, timeout_seconds: 30 }
    }
}

/// Requests that are sent to a second pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayRetries {
    /// Retries at the most, in percent of the running requests.
    #[schemars(range(min = 0, max = 100))]
    pub budget_percent: i32,
    /// Retries at a time that are allowed however few requests run.
    #[schemars(range(min = 0, max = 1000))]
    pub min_concurrency: i32,
    /// Whether all tools of the server may be called twice for one request of a client.
    pub idempotent_tools: bool,
}

impl Default for GatewayRetries {
    fn default() -> Self {
        Self { budget_percent: 20, min_concurrency: 3, idempotent_tools: false }
    }
}

/// Bounds of what a client may send and keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayLimits {
    /// Greatest body of a request, in bytes.
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub max_body_bytes: i32,
    /// Greatest head of a request, in bytes.
    #[schemars(range(min = 8192, max = 65_536))]
    pub max_header_bytes: i32,
    /// Seconds without a request after which a session no longer counts as load.
    #[schemars(range(min = 10, max = 604_800))]
    pub session_idle_seconds: i32,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self { max_body_bytes: 4_194_304, max_header_bytes: 16_384, session_idle_seconds: 1800 }
    }
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayTimeouts {
    /// Milliseconds for a connection to a pod.
    #[schemars(range(min = 10, max = 60_000))]
    pub connect_milliseconds: i32,
    /// Seconds until a request is answered; for an answer that streams, until its head.
    #[schemars(range(min = 1, max = 86_400))]
    pub request_seconds: i32,
    /// Seconds without a byte after which a stream is ended; keep-alives count as bytes.
    #[schemars(range(min = 1, max = 86_400))]
    pub stream_idle_seconds: i32,
    /// Seconds after which any stream is ended. 0: never.
    #[schemars(range(min = 0, max = 604_800))]
    pub stream_max_seconds: i32,
    /// Seconds that a request waits for the first pod of a fleet that has none.
    #[schemars(range(min = 1, max = 600))]
    pub activation_seconds: i32,
}

impl Default for GatewayTimeouts {
    fn default() -> Self {
        Self {
            connect_milliseconds: 1000,
            request_seconds: 300,
            stream_idle_seconds: 300,
            stream_max_seconds: 0,
            activation_seconds: 55,
        }
    }
}

impl Default for GatewaySpec {
    fn default() -> Self {
        Self {
            enabled: true,
            class: default_class(),
            hostnames: Vec::new(),
            strategy: GatewayStrategy::default(),
            slow_start_seconds: default_slow_start(),
            health_check: GatewayHealthCheck::default(),
            circuit_breaker: CircuitBreaker::default(),
            queue: GatewayQueue::default(),
            max_requests_per_pod: 0,
            retries: GatewayRetries::default(),
            session_recovery: Toggle::default(),
            listen_fan_out: true,
            limits: GatewayLimits::default(),
            timeouts: GatewayTimeouts::default(),
            origins: Vec::new(),
        }
    }
}

fn default_class() -> String {
    "default".into()
}

fn default_slow_start() -> i32 {
    15
}
