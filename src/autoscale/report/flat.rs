//! The report as it stands on the wire, without nesting: `#[serde(flatten)]` would build a tree of each of 20,000
//! fleets a second first.

use serde::{Deserialize, Deserializer, de};

use super::{Completions, FleetReport, PodReport, Work};

/// A number; `null` is NaN.
#[derive(Clone, Copy, Default)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Number;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number or null")
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Number, E> {
        Ok(Number(v as f64))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Number, E> {
        Ok(Number(v as f64))
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Number, E> {
        Ok(Number(v))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Number, E> {
        Ok(Number(f64::NAN))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Fleet {
    namespace: String,
    name: String,
    uid: String,
    since: u64,
    ready: u64,
    arrivals: Number,
    admitted: Number,
    shed: Number,
    retries: Number,
    queue: Number,
    queue_seconds: Number,
    in_flight: Number,
    in_flight_seconds: Number,
    streams: Number,
    stream_seconds: Number,
    completions: Ends,
    latency_log2_micros: Vec<Number>,
    pods: Vec<PodReport>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Pod {
    uid: String,
    sessions: Number,
    tasks: Number,
    in_flight: Number,
    in_flight_seconds: Number,
    streams: Number,
    stream_seconds: Number,
    completions: Ends,
    latency_log2_micros: Vec<Number>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ends {
    ok: Number,
    overload: Number,
    upstream: Number,
    client: Number,
    tool: Number,
}

impl From<Ends> for Completions {
    fn from(ends: Ends) -> Self {
        let Ends { ok, overload, upstream, client, tool } = ends;
        Self { ok: ok.0, overload: overload.0, upstream: upstream.0, client: client.0, tool: tool.0 }
    }
}

impl From<Fleet> for FleetReport {
    fn from(flat: Fleet) -> Self {
        Self {
            namespace: flat.namespace,
            name: flat.name,
            uid: flat.uid,
            since: flat.since,
            ready: flat.ready,
            arrivals: flat.arrivals.0,
            admitted: flat.admitted.0,
            shed: flat.shed.0,
            retries: flat.retries.0,
            queue: flat.queue.0,
            queue_seconds: flat.queue_seconds.0,
            work: Work {
                in_flight: flat.in_flight.0,
                in_flight_seconds: flat.in_flight_seconds.0,
                streams: flat.streams.0,
                stream_seconds: flat.stream_seconds.0,
                completions: flat.completions.into(),
                latency_log2_micros: flat.latency_log2_micros.into_iter().map(|n| n.0).collect(),
            },
            pods: flat.pods,
        }
    }
}

impl From<Pod> for PodReport {
    fn from(flat: Pod) -> Self {
        Self {
            uid: flat.uid,
            sessions: flat.sessions.0,
            tasks: flat.tasks.0,
            work: Work {
                in_flight: flat.in_flight.0,
                in_flight_seconds: flat.in_flight_seconds.0,
                streams: flat.streams.0,
                stream_seconds: flat.stream_seconds.0,
                completions: flat.completions.into(),
                latency_log2_micros: flat.latency_log2_micros.into_iter().map(|n| n.0).collect(),
            },
        }
    }
}
