//! Counters and integrals as a gateway keeps them, and the report that it makes of them.

use super::Micros;
use crate::autoscale::{load::LATENCY_BUCKETS, report};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    /// It got no place.
    Shed,
    /// The server failed.
    Upstream,
}

/// ∫ n dt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Integral {
    pub(crate) n: f64,
    seconds: f64,
    at: Micros,
}

impl Integral {
    pub(crate) fn add(&mut self, change: f64, now: Micros) {
        self.seconds = self.read(now);
        self.at = now;
        self.n += change;
    }

    pub(crate) fn read(&self, now: Micros) -> f64 {
        self.seconds + self.n * (now - self.at) as f64 / 1e6
    }
}

/// A fleet's or a pod's work, as one gateway sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    pub(crate) in_flight: Integral,
    pub(crate) streams: Integral,
    ok: f64,
    shed: f64,
    upstream: f64,
    latency: [u32; LATENCY_BUCKETS],
}

impl Work {
    /// A call ended so long after it came in.
    pub(crate) fn ended(&mut self, end: End, took: Micros) {
        match end {
            End::Ok => self.ok += 1.0,
            End::Shed => self.shed += 1.0,
            End::Upstream => self.upstream += 1.0,
        }
        let micros = took.max(0) as u64;
        let bucket = ((u64::BITS - micros.leading_zeros()) as usize).min(LATENCY_BUCKETS - 1);
        self.latency[bucket] += 1;
    }

    /// As it stands in a report.
    pub(crate) fn report(&self, now: Micros) -> report::Work {
        let used = self.latency.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
        report::Work {
            in_flight: self.in_flight.n,
            in_flight_seconds: self.in_flight.read(now),
            streams: self.streams.n,
            stream_seconds: self.streams.read(now),
            completions: report::Completions {
                ok: self.ok,
                overload: self.shed,
                upstream: self.upstream,
                client: 0.0,
                tool: 0.0,
            },
            latency_log2_micros: self.latency[..used].iter().map(|n| f64::from(*n)).collect(),
        }
    }
}

/// One gateway's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gateway {
    pub(crate) arrivals: f64,
    pub(crate) admitted: f64,
    pub(crate) shed: f64,
    pub(crate) queue: Integral,
    pub(crate) work: Work,
    /// When its process started, in ms of wall time; `None` while it is dead.
    pub(crate) epoch: Option<u64>,
    pub(crate) sequence: u64,
}
