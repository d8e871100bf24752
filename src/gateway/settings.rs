//! What `spec.gateway` means to the data path: parsed once, in units, within bounds.
//!
//! In a cluster the API server has checked the same bounds already, but a file has no API server, and an
//! object may be older than a rule. Pure: no I/O, no clock.

use std::{fmt, time::Duration};

pub use super::balance::Strategy;
use crate::api::v1alpha1::{GatewaySpec, GatewayStrategy};

mod check;
mod forms;
#[cfg(test)]
mod tests;

pub use forms::{is_class, is_hostname, is_origin};

impl From<GatewayStrategy> for Strategy {
    fn from(strategy: GatewayStrategy) -> Self {
        match strategy {
            GatewayStrategy::RoundRobin => Self::RoundRobin,
            GatewayStrategy::Random => Self::Random,
            GatewayStrategy::Weighted => Self::Weighted,
            GatewayStrategy::LeastConnections => Self::LeastConnections,
            GatewayStrategy::LeastRequest => Self::LeastRequest,
            GatewayStrategy::PeakEWMA => Self::PeakEwma,
        }
    }
}

/// How an endpoint is asked whether it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `server/discover`, or `initialize`.
    Mcp,
    /// A GET of this path, which starts with `/`.
    Http(String),
    /// A TCP connection.
    Tcp,
}

/// Active health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// How it is asked.
    pub probe: Probe,
    /// From one check to the next.
    pub interval: Duration,
    /// A check fails after it; at most [`Self::interval`].
    pub timeout: Duration,
    /// Failures in a row that make an endpoint unhealthy, ≥ 1.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make it healthy again, ≥ 1.
    pub healthy_threshold: u32,
}

/// Passive health checks: the breaker of each endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// Failures in a row that open it, ≥ 1.
    pub failure_threshold: u32,
    /// From open to half-open.
    pub recovery: Duration,
    /// Trial requests at once while half-open, and successes that close it, ≥ 1.
    pub half_open_max_requests: u32,
    /// Requests in the window below which the ratio says nothing, ≥ 1.
    pub min_requests: u32,
    /// Share of failures in the window that opens it, in (0, 1].
    pub failure_ratio: f64,
    /// The window.
    pub window: Duration,
    /// Share of the endpoints that may be ejected at once, 0 to 100; one always may.
    pub max_ejected_percent: u32,
}

impl From<BreakerSettings> for super::breaker::Settings {
    fn from(settings: BreakerSettings) -> Self {
        Self {
            failure_threshold: settings.failure_threshold,
            recovery: settings.recovery,
            half_open_max: settings.half_open_max_requests,
            min_requests: settings.min_requests,
            failure_ratio: settings.failure_ratio,
            window: settings.window,
        }
    }
}

/// Requests that wait for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Fleet total of waiting requests; 0: none waits.
    pub capacity: usize,
    /// Longest wait.
    pub timeout: Duration,
}

/// Requests that are sent to a second endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Share of the running requests, 0 to 100.
    pub budget_percent: u32,
    /// Always allowed at once.
    pub min_concurrency: u32,
    /// All tools may be called twice.
    pub idempotent_tools: bool,
}

/// Bounds of what a client may send and keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Head of a request, in bytes.
    pub max_header_bytes: usize,
    /// A session that idles as long is no load any more.
    pub session_idle: Duration,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection to an endpoint.
    pub connect: Duration,
    /// Until the answer, or its head where it streams.
    pub request: Duration,
    /// A stream without a byte.
    pub stream_idle: Duration,
    /// Any stream; `None`: for ever.
    pub stream_max: Option<Duration>,
    /// Wait for the first endpoint of a fleet without any.
    pub activation: Duration,
}

/// `spec.gateway`, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The gateway serves this fleet.
    pub enabled: bool,
    /// Gateways of this class do.
    pub class: String,
    /// Host names of the fleet, lower case, each once.
    pub hostnames: Vec<String>,
    /// How an endpoint is chosen.
    pub strategy: Strategy,
    /// Time in which the share of a new endpoint grows to the full one; zero: at once.
    pub slow_start: Duration,
    /// Active checks.
    pub health_check: HealthCheck,
    /// Passive checks.
    pub breaker: BreakerSettings,
    /// Waiting requests.
    pub queue: Queue,
    /// Fleet-wide limit per endpoint; 0 = no limit.
    pub max_requests_per_pod: u32,
    /// Second tries.
    pub retries: Retries,
    /// Sessions whose pod is gone are made again.
    pub session_recovery: bool,
    /// A listen reaches all endpoints.
    pub listen_fan_out: bool,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timeouts: Timeouts,
    /// Origins that may call, besides the own one and loopback.
    pub origins: Vec<String>,
}

/// One thing that is wrong with a `spec.gateway`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// Field below `gateway`, such as `queue.capacity`.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gateway.{}: {}", self.field, self.problem)
    }
}

/// All that is wrong with a `spec.gateway`; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidSettings(pub Vec<InvalidSetting>);

impl Default for Settings {
    /// Those of a fleet that says nothing.
    fn default() -> Self {
        Self::try_from(&GatewaySpec::default()).expect("the defaults of the API are within its bounds")
    }
}
