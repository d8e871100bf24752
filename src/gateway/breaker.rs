//! The circuit breaker of one endpoint, shared by all threads. Closed passes, open blocks, half-open lets
//! a few trial calls through.
//!
//! Two trips in parallel: failures in a row (fast when everything fails) and the exact share of failures
//! over a ring of ten buckets (every second call fails). Exact counts, because in an average weighted by
//! the time between calls a tight burst of failures would weigh nothing.
//!
//! Health probes speak before calls do. Once open, no call is tried before a probe succeeded; if probes
//! failed too while it was open, they see the same fault that calls saw, and the first probe that succeeds
//! closes the breaker without risking a call. If they never failed, they are blind to the fault: then the
//! back-off decides when to try calls, and calls decide.
//!
//! Time and chance are arguments. Which answers are failures (mcp.md section 8), and whether an open
//! breaker may take its endpoint out ([`may_eject`]), is the caller's to say.

mod ring;
#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

use self::ring::Ring;
use super::balance::{Nanos, nanos};

const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// Part of the back-off by which jitter shortens or lengthens it.
const JITTER: f64 = 0.2;

/// When a breaker trips, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Failures in a row that open it, at least 1.
    pub failure_threshold: u32,
    /// The first back-off; doubles up to 300 s.
    pub recovery: Duration,
    /// Trial calls at a time, and successes that close it; at least 1.
    pub half_open_max: u32,
    /// Calls within `window` below which the ratio says nothing.
    pub min_requests: u32,
    /// Share of failures within `window` that opens it, 0..=1.
    pub failure_ratio: f64,
    /// What the ratio looks back on.
    pub window: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            recovery: Duration::from_secs(30),
            half_open_max: 3,
            min_requests: 20,
            failure_ratio: 0.5,
            window: Duration::from_secs(10),
        }
    }
}

/// What the breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Passes calls.
    Closed,
    /// Blocks calls.
    Open,
    /// Passes trial calls.
    HalfOpen,
}

/// How a call ended, as far as the endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It answered.
    Success,
    /// Transport error, timeout, 5xx.
    Failure,
    /// 429, session cap: counts in the ratio and fails a trial, but never counts as a failure in a row.
    Overload,
    /// A client's fault, or the client left: says nothing, gives a trial's place back.
    Ignored,
}

/// A change worth a log line and a metric. (Half-open comes by time alone.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// From closed or half-open.
    Opened,
    /// From open or half-open.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    open: AtomicBool,
    failures_in_row: AtomicU32,
    ring: Ring,
    /// While open: when calls may be tried; `u64::MAX`: not before a probe succeeded.
    trials_from: AtomicU64,
    /// Locked only to open, to close, and while open.
    slow: Mutex<Slow>,
}

/// What only an open breaker needs.
#[derive(Debug, Default)]
struct Slow {
    /// Openings without 300 s of rest between them.
    n_opened: u32,
    closed_at: Nanos,
    backoff_until: Nanos,
    probe_failed: bool,
    trials: u32,
    successes: u32,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            open: AtomicBool::new(false),
            failures_in_row: AtomicU32::new(0),
            ring: Ring::new(settings.window),
            trials_from: AtomicU64::new(0),
            slow: Mutex::default(),
        }
    }

    /// The state at `now`; two loads.
    pub fn state(&self, now: Nanos) -> State {
        if !self.open.load(Ordering::Acquire) {
            State::Closed
        } else if now >= self.trials_from.load(Ordering::Relaxed) {
            State::HalfOpen
        } else {
            State::Open
        }
    }

    /// Whether a call may be sent. Half-open, this takes one of the places for trials, which the call's
    /// [`Breaker::record`] gives back: call both, or neither.
    pub fn allows(&self, now: Nanos) -> bool {
        match self.state(now) {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => {
                let mut slow = self.slow.lock();
                // Another thread may have closed or opened it meanwhile.
                match self.state(now) {
                    State::Closed => true,
                    State::HalfOpen if slow.trials < self.settings.half_open_max.max(1) => {
                        slow.trials += 1;
                        true
                    }
                    State::HalfOpen | State::Open => false,
                }
            }
        }
    }

    /// Records how a call ended. `draw` returns uniformly distributed bits; called when it opens.
    pub fn record(&self, now: Nanos, outcome: Outcome, draw: impl FnOnce() -> u64) -> Option<Transition> {
        if self.open.load(Ordering::Acquire) {
            return self.record_trial(now, outcome, draw);
        }
        let trips = match outcome {
            Outcome::Ignored => false,
            Outcome::Success => {
                // A write only if there is something to forget: healthy threads share the cache line.
                if self.failures_in_row.load(Ordering::Relaxed) != 0 {
                    self.failures_in_row.store(0, Ordering::Relaxed);
                }
                self.ring.add(now, false);
                false
            }
            Outcome::Failure => {
                self.ring.add(now, true);
                let in_row = self.failures_in_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                in_row >= self.settings.failure_threshold.max(1) || self.ratio_trips(now)
            }
            Outcome::Overload => {
                self.ring.add(now, true);
                self.ratio_trips(now)
            }
        };
        if !trips {
            return None;
        }
        let mut slow = self.slow.lock();
        if self.open.load(Ordering::Acquire) {
            return None;
        }
        if now.saturating_sub(slow.closed_at) > nanos(LONGEST_BACKOFF) {
            slow.n_opened = 0;
        }
        self.open(&mut slow, now, draw());
        Some(Transition::Opened)
    }

    /// A health probe succeeded.
    pub fn probe_succeeded(&self, now: Nanos) -> Option<Transition> {
        if !self.open.load(Ordering::Acquire) {
            return None;
        }
        let mut slow = self.slow.lock();
        if !self.open.load(Ordering::Acquire) {
            return None;
        }
        if slow.probe_failed {
            self.close(&mut slow, now);
            return Some(Transition::Closed);
        }
        self.trials_from.store(slow.backoff_until, Ordering::Relaxed);
        None
    }

    /// A health probe failed: no trials until one succeeds. Never opens a closed breaker, since thresholds
    /// of probes decide on readiness.
    pub fn probe_failed(&self) {
        if !self.open.load(Ordering::Acquire) {
            return;
        }
        let mut slow = self.slow.lock();
        slow.probe_failed = true;
        self.trials_from.store(u64::MAX, Ordering::Relaxed);
    }

    /// Failures in a row, for the admin API.
    pub fn failures_in_row(&self) -> u32 {
        self.failures_in_row.load(Ordering::Relaxed)
    }

    fn ratio_trips(&self, now: Nanos) -> bool {
        let (total, failed) = self.ring.sums(now);
        total >= u64::from(self.settings.min_requests.max(1))
            && failed as f64 >= self.settings.failure_ratio * total as f64
    }

    fn record_trial(&self, now: Nanos, outcome: Outcome, draw: impl FnOnce() -> u64) -> Option<Transition> {
        let mut slow = self.slow.lock();
        if self.state(now) != State::HalfOpen {
            // Sent before it opened, or in spite of it when too few endpoints remained: not a trial.
            return None;
        }
        slow.trials = slow.trials.saturating_sub(1);
        match outcome {
            Outcome::Ignored => None,
            Outcome::Failure | Outcome::Overload => {
                self.open(&mut slow, now, draw());
                Some(Transition::Opened)
            }
            Outcome::Success => {
                slow.successes += 1;
                if slow.successes < self.settings.half_open_max.max(1) {
                    return None;
                }
                self.close(&mut slow, now);
                Some(Transition::Closed)
            }
        }
    }

    fn open(&self, slow: &mut Slow, now: Nanos, draw: u64) {
        let recovery = self.settings.recovery.min(LONGEST_BACKOFF);
        let backoff = recovery.saturating_mul(2_u32.saturating_pow(slow.n_opened)).min(LONGEST_BACKOFF);
        let jitter = 1.0 - JITTER + 2.0 * JITTER * ((draw >> 11) as f64 / (1_u64 << 53) as f64);
        slow.n_opened = slow.n_opened.saturating_add(1);
        slow.backoff_until = now.saturating_add(nanos(backoff.mul_f64(jitter)));
        slow.probe_failed = false;
        slow.trials = 0;
        slow.successes = 0;
        // Probes get as long again to speak. Should none run, calls must still bring the endpoint back.
        self.trials_from.store(slow.backoff_until.saturating_add(nanos(recovery)), Ordering::Relaxed);
        self.open.store(true, Ordering::Release);
    }

    fn close(&self, slow: &mut Slow, now: Nanos) {
        slow.closed_at = now;
        self.failures_in_row.store(0, Ordering::Relaxed);
        self.ring.clear();
        self.open.store(false, Ordering::Release);
    }
}

/// Whether one more of `n_eligible` endpoints may be ejected while `n_ejected` are: at most
/// `max_percent` of them, but always one.
pub fn may_eject(n_eligible: usize, n_ejected: usize, max_percent: u32) -> bool {
    n_ejected < (n_eligible * max_percent as usize / 100).max(1)
}
