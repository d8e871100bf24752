//! A load report as gateways send it: JSON, version 1 (autoscaling.md section 3). The writing side is the gateway's
//! (`gateway/reports/wire.rs`); unknown fields are ignored, so that versions can differ.

use serde::Deserialize;

/// The version that this side reads.
pub const VERSION: u32 = 1;

/// One report. The same (gateway, epoch, sequence) is the same report; another epoch starts all counters anew.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the format.
    pub version: u32,
    /// Name of the gateway.
    pub gateway: String,
    /// Start of the gateway's process, in ms since the Unix epoch.
    pub epoch: u64,
    /// Counts reports of this process.
    pub sequence: u64,
    /// When it was taken, RFC 3339.
    pub time: String,
    /// The last one of this process: it ends in order, and is not missed afterwards.
    #[serde(default)]
    pub last: bool,
    /// Its fleets.
    pub fleets: Vec<FleetReport>,
}

/// One fleet. Counters and integrals since the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetReport {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID of the McpFleet.
    pub uid: String,
    /// Endpoints to which new work may go.
    pub ready: u64,
    /// Requests that came in.
    pub arrivals: f64,
    /// Requests that got a place.
    pub admitted: f64,
    /// Requests that got none.
    pub shed: f64,
    /// Second sends.
    pub retries: f64,
    /// Requests that wait now.
    pub queue: f64,
    /// ∫ of it, in seconds.
    pub queue_seconds: f64,
    /// The whole fleet's work.
    #[serde(flatten)]
    pub work: Work,
    /// Its pods.
    pub pods: Vec<PodReport>,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodReport {
    /// UID.
    pub uid: String,
    /// Sessions that live on it now.
    pub sessions: f64,
    /// Tasks that live on it now.
    pub tasks: f64,
    /// Its work.
    #[serde(flatten)]
    pub work: Work,
}

/// Work of a fleet or a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Work {
    /// Calls that run now.
    pub in_flight: f64,
    /// ∫ of it, in seconds.
    pub in_flight_seconds: f64,
    /// Streams that are open now.
    pub streams: f64,
    /// ∫ of it, in seconds.
    pub stream_seconds: f64,
    /// Ends by class.
    pub completions: Completions,
    /// Item i: calls that took less than 2^i µs and not less than 2^(i−1) µs.
    pub latency_log2_micros: Vec<f64>,
}

/// Ends by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Completions {
    /// Well.
    pub ok: f64,
    /// Our own 429 or 503.
    pub overload: f64,
    /// The server's fault.
    pub upstream: f64,
    /// The client's fault.
    pub client: f64,
    /// The tool's own error.
    pub tool: f64,
}
