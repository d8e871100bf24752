//! A load report as gateways send it: JSON, version 1 (autoscaling.md section 3). The writing side is the gateway's
//! (`gateway/reports/wire.rs`); unknown fields are ignored, so that versions can differ.
//!
//! A fleet that is missing in a report is as it was in the last one that had it: gateways leave out those at which
//! nothing changes. `null` in place of a number is NaN, so that one bad number costs one fleet's sample and not the
//! whole report.

mod flat;

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

/// One fleet. Counters and integrals since [`Self::since`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "flat::Fleet")]
pub struct FleetReport {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID of the McpFleet.
    pub uid: String,
    /// When its counters were zero, in ms since the Unix epoch by the gateway's clock; 0: not said. Another value
    /// starts them anew.
    pub since: u64,
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
    pub work: Work,
    /// Its pods.
    pub pods: Vec<PodReport>,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "flat::Pod")]
pub struct PodReport {
    /// UID.
    pub uid: String,
    /// Sessions that live on it now.
    pub sessions: f64,
    /// Tasks that live on it now.
    pub tasks: f64,
    /// Its work.
    pub work: Work,
}

/// Work of a fleet or a pod.
#[derive(Clone, Debug, Default, PartialEq)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_zero_and_what_is_unknown_is_ignored() {
        let json = r#"{"version":1,"gateway":"g","epoch":7,"sequence":2,"time":"2026-11-20T21:00:00.000Z","new":[],
            "fleets":[{"uid":"u","arrivals":3,"queueSeconds":0.5,"inFlight":2,"completions":{"ok":4,"odd":1},
            "latencyLog2Micros":[0,1],"pods":[{"uid":"p","sessions":1,"streamSeconds":2.5}],"more":{}}]}"#;
        let report: Report = serde_json::from_str(json).unwrap();
        let fleet = &report.fleets[0];
        assert!(!report.last);
        assert_eq!((fleet.arrivals, fleet.queue_seconds, fleet.since), (3.0, 0.5, 0));
        assert_eq!(
            (fleet.work.in_flight, fleet.work.completions.ok, fleet.work.completions.tool),
            (2.0, 4.0, 0.0)
        );
        assert_eq!(fleet.work.latency_log2_micros, [0.0, 1.0]);
        assert_eq!((fleet.pods[0].sessions, fleet.pods[0].work.stream_seconds), (1.0, 2.5));
    }

    #[test]
    fn null_is_no_number_and_spoils_nothing_else() {
        let json = r#"{"version":1,"gateway":"g","epoch":7,"sequence":2,"time":"x",
            "fleets":[{"uid":"u","queueSeconds":null},{"uid":"v","arrivals":-1}]}"#;
        let report: Report = serde_json::from_str(json).unwrap();
        assert!(report.fleets[0].queue_seconds.is_nan());
        assert!(report.fleets[1].arrivals < 0.0);
        assert!(serde_json::from_str::<Report>(&json.replace("null", "\"1\"")).is_err());
    }
}
