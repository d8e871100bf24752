//! What the gateways said of a fleet, over two windows: the sums of all gateways.

use std::collections::BTreeMap;

use super::{snapshot::PodUid, time::Millis};

/// Buckets of a latency histogram: item i counts calls below 2^i µs and not below 2^(i−1) µs.
pub const LATENCY_BUCKETS: usize = 32;

/// What the gateways said of a fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Over the stable window.
    pub stable: Window,
    /// Over the panic window.
    pub panic: Window,
    /// Calls that wait now, as the newest reports say.
    pub waiting: f64,
    /// Sessions that live now.
    pub sessions: f64,
    /// Age of the oldest of the gateways' newest samples that count as fresh, in ms.
    pub age: Millis,
    /// The reports reach back over the whole stable window. Before that nothing is taken away.
    pub complete: bool,
    /// Gateways that should have reported and did not. Their last contribution is in [`Self::silent_in_flight`], and
    /// nothing is taken away while there is one.
    pub silent: u32,
    /// What silent gateways carried at last: calls in flight. Counts where the question is whether to scale down.
    pub silent_in_flight: f64,
}

/// Sums and means over one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// What the samples cover, in seconds; 0: nothing.
    pub seconds: f64,
    /// Requests that came in.
    pub arrivals: f64,
    /// Requests that got a place.
    pub admitted: f64,
    /// Requests that got none: our own 429 and 503, and those whose time in the queue was over.
    pub shed: f64,
    /// Second sends.
    pub retries: f64,
    /// Calls that waited, as a mean over time.
    pub queue: f64,
    /// Calls that ran, as a mean over time, all pods together.
    pub in_flight: f64,
    /// Streams that were open, as a mean over time.
    pub streams: f64,
    /// Ends by class.
    pub completions: Completions,
    /// Latencies.
    pub latency: Latencies,
    /// By pod.
    pub pods: BTreeMap<PodUid, PodWindow>,
}

/// One pod over one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodWindow {
    /// Calls that ran, as a mean over time.
    pub in_flight: f64,
    /// Streams that were open, as a mean over time.
    pub streams: f64,
    /// Sessions that live now.
    pub sessions: f64,
    /// Ends by class.
    pub completions: Completions,
}

/// Ends of calls by class (autoscaling.md section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Completions {
    /// Well.
    pub ok: f64,
    /// Our own 429 or 503, or the queue's timeout: demand that was not served.
    pub overload: f64,
    /// 5xx, no connection, no answer in time: nothing can be learned from such calls.
    pub upstream: f64,
    /// The client's fault.
    pub client: f64,
    /// The tool's own error.
    pub tool: f64,
}

impl Completions {
    /// All that a server answered or should have answered.
    pub fn served(&self) -> f64 {
        self.ok + self.upstream + self.client + self.tool
    }
}

/// A histogram in powers of two.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies(pub [f64; LATENCY_BUCKETS]);

impl Default for Latencies {
    fn default() -> Self {
        Self([0.0; LATENCY_BUCKETS])
    }
}

impl Latencies {
    /// The latency, in ms, below which `percent` of the calls were, linear within a bucket; `None` without calls.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let total: f64 = self.0.iter().sum();
        if total <= 0.0 {
            return None;
        }
        let wanted = total * (percent / 100.0).clamp(0.0, 1.0);
        let mut below = 0.0;
        let mut last = 0.0;
        for (i, n) in self.0.iter().enumerate().filter(|(_, n)| **n > 0.0) {
            let upper = (1_u64 << i) as f64 / 1000.0;
            let lower = if i == 0 { 0.0 } else { upper / 2.0 };
            if below + n >= wanted {
                return Some(lower + (upper - lower) * ((wanted - below) / n).clamp(0.0, 1.0));
            }
            below += n;
            last = upper;
        }
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_within_their_bucket() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(95.0), None);
        latencies.0[10] = 90.0; // 0.512..1.024 ms
        latencies.0[20] = 10.0; // 524..1049 ms
        let p50 = latencies.percentile(50.0).unwrap();
        let p95 = latencies.percentile(95.0).unwrap();
        assert!((0.512..1.024).contains(&p50), "{p50}");
        assert!((786.0..788.0).contains(&p95), "{p95}");
        assert_eq!(latencies.percentile(100.0), Some(1048.576));
    }
}
