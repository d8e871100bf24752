//! What is known of one endpoint's load: a peak-sensitive average of the time to the response head,
//! penalties for failures, and counts of what is open.
//!
//! The average rises at once and falls slowly, so one slow answer is believed at once and forgotten over
//! seconds; it decays while nothing is in flight, so a slow endpoint is tried again. An endpoint that
//! fails fast would look idle and fast: failures therefore leave the average alone and cost a penalty
//! instead, which grows while trials keep failing.
//!
//! The words are independent atomics without an order between them. Two threads that sample at the same
//! moment may lose one of the two samples; no count of open things can be lost.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::Nanos;

/// An average never counts as less: below it, noise would decide.
const FLOOR_NS: u64 = 100_000;
/// How fast the average of an idle endpoint fades.
const IDLE_DECAY_NS: f64 = 10e9;
/// How fast lower samples pull the average down.
const FALL_NS: f64 = 2e9;
/// The seed while nothing in the fleet was measured.
pub(super) const SEED_NS: u64 = 30_000_000;
const FIRST_PENALTY_NS: u64 = 5_000_000_000;
const LONGEST_PENALTY_NS: u64 = 60_000_000_000;
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// The least share of a new endpoint in slow start.
const SLOW_START_LEAST: f64 = 0.1;

/// What one call taught about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// Response head (or first event of a stream) came after so many nanoseconds.
    Answered(u64),
    /// Connect error, transport error, timeout or 5xx.
    Failed,
    /// 429 or 503 that asked for so much time (zero when it named none).
    RetryAfter(Duration),
    /// The client left after so many nanoseconds without an answer. Raises the average, never lowers it:
    /// an endpoint that hangs until clients give up must not look fast.
    ClientLeft(u64),
    /// Nothing is learned (a client's fault, an idle stream).
    Nothing,
}

/// Counters of one endpoint, shared by all threads, without locks.
#[derive(Debug, Default)]
pub struct Load {
    /// Nanoseconds; 0: not measured.
    ewma: AtomicU64,
    sampled_at: AtomicU64,
    penalty_until: AtomicU64,
    /// Nanoseconds, both how much a penalty costs and how long it lasts; 0: none since the last success.
    penalty: AtomicU64,
    inflight: AtomicU32,
    streams: AtomicU32,
    sessions: AtomicU32,
    ready_since: AtomicU64,
}

impl Load {
    /// An endpoint that became ready at `now`.
    pub fn new(now: Nanos) -> Self {
        Self { ready_since: AtomicU64::new(now), ..Self::default() }
    }

    /// The endpoint became ready (again): slow start begins, and what an earlier process did is forgiven.
    pub fn became_ready(&self, now: Nanos) {
        self.ready_since.store(now, Relaxed);
        self.forgive();
    }

    /// A call was sent.
    pub fn started(&self) {
        self.inflight.fetch_add(1, Relaxed);
    }

    /// A call ended with its body; `sample` as for [`Load::observe`].
    pub fn finished(&self, now: Nanos, sample: Sample) {
        self.observe(now, sample);
        subtract(&self.inflight);
    }

    /// Learns from a call that goes on, at its response head: long bodies must not delay what is learned.
    /// Follow with `finished(now, Sample::Nothing)`, or `Failed` if the body breaks off.
    pub fn observe(&self, now: Nanos, sample: Sample) {
        match sample {
            Sample::Answered(ns) => self.answered(now, ns.max(1)),
            Sample::Failed => self.punish(now, 0),
            Sample::RetryAfter(asked) => self.punish(now, nanos(asked.min(LONGEST_RETRY_AFTER))),
            Sample::ClientLeft(ns) => {
                let known = self.ewma.load(Relaxed);
                if ns > if known == 0 { SEED_NS } else { known } {
                    self.store(now, ns);
                }
            }
            Sample::Nothing => {}
        }
    }

    /// A stream (listen, legacy GET) opened. Streams are never in flight.
    pub fn stream_opened(&self) {
        self.streams.fetch_add(1, Relaxed);
    }

    /// A stream closed.
    pub fn stream_closed(&self) {
        subtract(&self.streams);
    }

    /// A legacy session was bound to this endpoint.
    pub fn session_opened(&self) {
        self.sessions.fetch_add(1, Relaxed);
    }

    /// A legacy session ended, moved away, or has been idle for too long to count.
    pub fn session_closed(&self) {
        subtract(&self.sessions);
    }

    /// Calls in flight.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Relaxed)
    }

    /// Open streams.
    pub fn streams(&self) -> u32 {
        self.streams.load(Relaxed)
    }

    /// Bound sessions.
    pub fn sessions(&self) -> u32 {
        self.sessions.load(Relaxed)
    }

    /// The average as stored, in nanoseconds; `None` before the first sample.
    pub fn ewma_ns(&self) -> Option<u64> {
        Some(self.ewma.load(Relaxed)).filter(|&ns| ns > 0)
    }

    /// When it became ready.
    pub fn ready_since(&self) -> Nanos {
        self.ready_since.load(Relaxed)
    }

    /// The penalty in force, in nanoseconds; 0: none.
    pub fn penalty_ns(&self, now: Nanos) -> u64 {
        if now < self.penalty_until.load(Relaxed) { self.penalty.load(Relaxed) } else { 0 }
    }

    /// Cost for PeakEWMA, in nanoseconds: expected latency and penalty, times the calls in flight with
    /// this one. `seed_ns` stands for the average until the first sample.
    pub fn cost_peak_ewma(&self, now: Nanos, seed_ns: u64) -> f64 {
        let inflight = self.inflight.load(Relaxed);
        let latency = match self.ewma.load(Relaxed) {
            0 => seed_ns as f64,
            // While calls hang, silence is no rest: their endpoint must not look faster by the second.
            ewma if inflight > 0 => ewma as f64,
            ewma => {
                let idle = now.saturating_sub(self.sampled_at.load(Relaxed)) as f64;
                ewma as f64 * (-idle / IDLE_DECAY_NS).exp()
            }
        };
        (latency.max(FLOOR_NS as f64) + self.penalty_ns(now) as f64) * (f64::from(inflight) + 1.0)
    }

    /// Cost for LeastRequest: calls in flight with this one, times the penalty.
    pub fn cost_least_request(&self, now: Nanos) -> f64 {
        self.cost_of(f64::from(self.inflight.load(Relaxed)), now)
    }

    /// Cost for LeastConnections: calls, streams and sessions with this one, times the penalty.
    pub fn cost_least_connections(&self, now: Nanos) -> f64 {
        let open = f64::from(self.inflight.load(Relaxed))
            + f64::from(self.streams.load(Relaxed))
            + f64::from(self.sessions.load(Relaxed));
        self.cost_of(open, now)
    }

    /// A millisecond of penalty weighs like a further call: 5 s outweigh any honest queue.
    fn cost_of(&self, open: f64, now: Nanos) -> f64 {
        (open + 1.0) * (1.0 + self.penalty_ns(now) as f64 / 1e6)
    }

    /// Whether slow start still holds it back.
    pub fn is_new(&self, now: Nanos, window: Duration) -> bool {
        now.saturating_sub(self.ready_since.load(Relaxed)) < nanos(window)
    }

    /// The share of a full endpoint's traffic that slow start allows, 0.1..=1: age ÷ window.
    pub fn warmth(&self, now: Nanos, window: Duration) -> f64 {
        if !self.is_new(now, window) {
            return 1.0;
        }
        let age = now.saturating_sub(self.ready_since.load(Relaxed)) as f64;
        (age / nanos(window) as f64).max(SLOW_START_LEAST)
    }

    fn answered(&self, now: Nanos, ns: u64) {
        // A success of a call sent before the last failure proves nothing about the time after it.
        let penalty = self.penalty.load(Relaxed);
        if penalty > 0 {
            let failed_at = self.penalty_until.load(Relaxed).saturating_sub(penalty);
            if now.saturating_sub(ns) >= failed_at {
                self.forgive();
            }
        }
        let ewma = self.ewma.load(Relaxed);
        if ewma == 0 || ns >= ewma {
            return self.store(now, ns);
        }
        let age = now.saturating_sub(self.sampled_at.load(Relaxed)) as f64;
        let kept = (-age / FALL_NS).exp();
        self.store(now, (ns as f64 + (ewma - ns) as f64 * kept) as u64);
    }

    fn store(&self, now: Nanos, ewma: u64) {
        self.ewma.store(ewma.max(1), Relaxed);
        self.sampled_at.store(now, Relaxed);
    }

    /// Doubles only when the last penalty had run out: calls that were in flight together fail together,
    /// and that is one failure, not many.
    fn punish(&self, now: Nanos, asked_ns: u64) {
        let before = self.penalty.load(Relaxed);
        let size = if before == 0 {
            self.ewma.load(Relaxed).max(FIRST_PENALTY_NS)
        } else if now >= self.penalty_until.load(Relaxed) {
            before.saturating_mul(2)
        } else {
            before
        };
        let size = size.min(LONGEST_PENALTY_NS).max(asked_ns);
        self.penalty.store(size, Relaxed);
        self.penalty_until.store(now.saturating_add(size), Relaxed);
    }

    fn forgive(&self) {
        self.penalty_until.store(0, Relaxed);
        self.penalty.store(0, Relaxed);
    }
}

/// Never below zero: a count that wrapped would keep an endpoint idle for ever.
fn subtract(count: &AtomicU32) {
    // `Err` means that it was zero already.
    let _ = count.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
}

/// Saturates after 584 years.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
