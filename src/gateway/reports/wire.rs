//! A load report as it is sent: JSON, version 1 (autoscaling.md section 3).

use serde::Serialize;

use super::totals::Reading;
use crate::gateway::{
    fleet::{Endpoint, Fleet, Phase},
    metrics::{Outcome, labels::Label as _},
    seal::PodId,
    shared::Gateway,
};

/// Version of the format.
const VERSION: u32 = 1;

/// One report. The same (gateway, epoch, sequence) is the same report; another epoch starts all counters anew.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    version: u32,
    gateway: String,
    epoch: u64,
    sequence: u64,
    /// When it was taken, RFC 3339.
    time: String,
    /// The last one of this process.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    last: bool,
    fleets: Vec<FleetLoad>,
}

impl Report {
    /// A report of the process that started at `epoch`, in ms since the Unix epoch.
    pub(super) fn new(
        gateway: &str,
        (epoch, sequence): (u64, u64),
        time: String,
        last: bool,
        fleets: Vec<FleetLoad>,
    ) -> Self {
        Self { version: VERSION, gateway: gateway.to_owned(), epoch, sequence, time, last, fleets }
    }

    /// Calls wait at a fleet without a pod.
    pub(super) fn waits(&self) -> bool {
        self.fleets.iter().any(|fleet| fleet.ready == 0 && fleet.queue > 0)
    }
}

/// One fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FleetLoad {
    namespace: String,
    name: String,
    uid: String,
    /// When its counters were zero, in ms since the Unix epoch.
    since: u64,
    /// Endpoints to which new work may go.
    ready: usize,
    #[serde(skip_serializing_if = "is_zero")]
    arrivals: u64,
    #[serde(skip_serializing_if = "is_zero")]
    admitted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    shed: u64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: u64,
    /// Requests that wait, and ∫ of it.
    #[serde(skip_serializing_if = "is_zero")]
    queue: usize,
    #[serde(skip_serializing_if = "is_zero")]
    queue_seconds: f64,
    #[serde(flatten)]
    work: Work,
    pods: Vec<PodLoad>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodLoad {
    uid: String,
    #[serde(skip_serializing_if = "is_zero")]
    sessions: usize,
    #[serde(skip_serializing_if = "is_zero")]
    tasks: usize,
    #[serde(flatten)]
    work: Work,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Work {
    #[serde(skip_serializing_if = "is_zero")]
    in_flight: u64,
    #[serde(skip_serializing_if = "is_zero")]
    in_flight_seconds: f64,
    #[serde(skip_serializing_if = "is_zero")]
    streams: u64,
    #[serde(skip_serializing_if = "is_zero")]
    stream_seconds: f64,
    #[serde(skip_serializing_if = "is_zero")]
    completions: Completions,
    /// Item i: calls that took less than 2^i µs and not less than 2^(i−1) µs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    latency_log2_micros: Vec<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Completions {
    #[serde(skip_serializing_if = "is_zero")]
    ok: u64,
    #[serde(skip_serializing_if = "is_zero")]
    overload: u64,
    #[serde(skip_serializing_if = "is_zero")]
    upstream: u64,
    #[serde(skip_serializing_if = "is_zero")]
    client: u64,
    #[serde(skip_serializing_if = "is_zero")]
    tool: u64,
}

/// What is missing is zero; most of most reports is.
fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl From<&Reading> for Work {
    fn from(reading: &Reading) -> Self {
        let of = |class: Outcome| reading.completed[class.index()];
        let mut latency = reading.latency.clone();
        latency.truncate(latency.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1));
        Self {
            in_flight: reading.inflight,
            in_flight_seconds: reading.inflight_seconds,
            streams: reading.streams,
            stream_seconds: reading.stream_seconds,
            completions: Completions {
                ok: of(Outcome::Ok),
                overload: of(Outcome::Overload),
                upstream: of(Outcome::Upstream),
                client: of(Outcome::Client),
                tool: of(Outcome::Tool),
            },
            latency_log2_micros: latency,
        }
    }
}

/// Reads one fleet, whose counters were zero at `since`. One caller at a time: reading folds the integrals.
pub(super) fn fleet(gateway: &Gateway, fleet: &Fleet, since: u64) -> FleetLoad {
    let now = gateway.clock.now();
    let reading = fleet.totals.read(now);
    let view = fleet.view_full();
    FleetLoad {
        namespace: fleet.key.namespace.clone(),
        name: fleet.key.name.clone(),
        uid: fleet.uid.to_string(),
        since,
        ready: view.endpoints.iter().filter(|e| e.phase() == Phase::Ready).count(),
        arrivals: reading.arrivals,
        admitted: reading.admitted,
        shed: reading.shed,
        retries: reading.retries,
        queue: fleet.queue.len() + fleet.legacy_queue.len(),
        queue_seconds: fleet.queue.integral() + fleet.legacy_queue.integral(),
        work: Work::from(&reading),
        pods: view.endpoints.iter().map(|e| pod(e, now)).collect(),
    }
}

fn pod(endpoint: &Endpoint, now: u64) -> PodLoad {
    PodLoad {
        uid: uid(endpoint.id),
        sessions: endpoint.sessions.load(std::sync::atomic::Ordering::Relaxed),
        tasks: endpoint.work.count(now),
        work: Work::from(&endpoint.totals.read(now)),
    }
}

/// The UID of a pod as Kubernetes writes it.
pub(in crate::gateway) fn uid(id: PodId) -> String {
    let hex = format!("{:032x}", id.0);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_comes_back_as_it_was() {
        let text = "0f3c2b1a-2222-3333-4444-555555555555";
        assert_eq!(uid(PodId::from_uid(text)), text);
    }

    #[test]
    fn empty_buckets_at_the_end_are_not_sent() {
        let reading = Reading { latency: vec![0, 2, 0, 1, 0, 0], ..Reading::default() };
        assert_eq!(Work::from(&reading).latency_log2_micros, [0, 2, 0, 1]);
        assert!(Work::from(&Reading::default()).latency_log2_micros.is_empty());
    }
}
