//! Cumulative counters and time integrals for the autoscaler (autoscaling.md section 3). Whoever reads them twice
//! knows the mean in between, however short the calls were and however many reports were lost.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::{
    balance::Nanos,
    metrics::{Counts, Outcome},
};

/// Modulus of an [`Integral`]: 2^48 µs are 8.9 years.
const MODULUS: u64 = 1 << 48;
/// Buckets of a latency histogram; see [`bucket`].
const BUCKETS: usize = 32;

/// ∫ n dt of a number n that is raised and lowered, exact to a microsecond, at the price of one addition.
///
/// The word holds `n · 2^48 + Σ(ends) − Σ(starts)`, in µs, since what was folded off last. At time `T` that is
/// `n · (2^48 − T) + ∫`, so that dividing by `2^48 − T` gives both. Holds for n < 65,536, for 8 years after the
/// start of the process, and while somebody folds often enough for the integral to stay below 2^47 µs (half an
/// hour at 65,536); the reporter does every second.
#[derive(Debug, Default)]
pub struct Integral {
    word: AtomicU64,
    /// What was folded off, in µs.
    folded: AtomicU64,
}

impl Integral {
    /// One more from `now` on.
    pub fn start(&self, now: Nanos) {
        self.word.fetch_add(MODULUS.wrapping_sub(now / 1000), Ordering::Relaxed);
    }

    /// One less from `now` on.
    pub fn finish(&self, now: Nanos) {
        self.word.fetch_sub(MODULUS.wrapping_sub(now / 1000), Ordering::Relaxed);
    }

    /// The number now, and its integral in µs. One caller at a time.
    pub fn read(&self, now: Nanos) -> (u64, u64) {
        let unit = MODULUS - (now / 1000).min(MODULUS / 2);
        let word = self.word.load(Ordering::Relaxed);
        let (mut n, rest) = (word / unit, word % unit);
        let mut integral = rest as i64;
        if rest > unit / 2 {
            // Somebody started a moment after `now`: the integral up to `now` lacks what lies between.
            n += 1;
            integral = rest.wrapping_sub(unit) as i64;
        }
        self.word.fetch_sub(integral as u64, Ordering::Relaxed);
        let before = self.folded.fetch_add(integral as u64, Ordering::Relaxed);
        (n, before.wrapping_add(integral as u64))
    }
}

/// What one fleet, or one endpoint, has done since the process started.
#[derive(Debug, Default)]
pub struct Totals {
    arrived: AtomicU64,
    admitted: AtomicU64,
    shed: AtomicU64,
    retried: AtomicU64,
    completed: Counts<Outcome, { Outcome::COUNT }>,
    inflight: Integral,
    streams: Integral,
    latency: Latency,
}

/// Latencies in powers of two.
#[derive(Debug)]
struct Latency([AtomicU64; BUCKETS]);

impl Default for Latency {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// Bucket `i` holds latencies below `2^i` µs that bucket `i − 1` does not; the last one all longer than 18 min.
fn bucket(latency_ns: u64) -> usize {
    let micros = latency_ns / 1000;
    ((u64::BITS - micros.leading_zeros()) as usize).min(BUCKETS - 1)
}

impl Totals {
    /// A request came in.
    pub fn arrived(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    /// It got a place.
    pub fn admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    /// It got none: our 429 or 503, or its time in the queue was over.
    pub fn shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// It was sent a second time.
    pub fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// It ended; `latency_ns` from its arrival to its last byte.
    pub fn completed(&self, class: Outcome, latency_ns: u64) {
        self.completed.inc(class);
        self.latency.0[bucket(latency_ns)].fetch_add(1, Ordering::Relaxed);
    }

    /// A call was sent to a pod.
    pub fn inflight_start(&self, now: Nanos) {
        self.inflight.start(now);
    }

    /// It came back.
    pub fn inflight_finish(&self, now: Nanos) {
        self.inflight.finish(now);
    }

    /// A stream opened.
    pub fn stream_start(&self, now: Nanos) {
        self.streams.start(now);
    }

    /// It closed.
    pub fn stream_finish(&self, now: Nanos) {
        self.streams.finish(now);
    }

    /// As they are reported. One caller at a time.
    pub fn read(&self, now: Nanos) -> Reading {
        let load = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let (inflight, inflight_micros) = self.inflight.read(now);
        let (streams, stream_micros) = self.streams.read(now);
        Reading {
            arrivals: load(&self.arrived),
            admitted: load(&self.admitted),
            shed: load(&self.shed),
            retries: load(&self.retried),
            completed: std::array::from_fn(|i| self.completed.iter().nth(i).map_or(0, |(_, n)| n)),
            inflight,
            inflight_seconds: inflight_micros as f64 / 1e6,
            streams,
            stream_seconds: stream_micros as f64 / 1e6,
            latency: self.latency.0.iter().map(load).collect(),
        }
    }
}

/// [`Totals`] at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests that came in.
    pub arrivals: u64,
    /// Requests that got a place.
    pub admitted: u64,
    /// Requests that got none.
    pub shed: u64,
    /// Second sends.
    pub retries: u64,
    /// Ends by [`Outcome`], in its order.
    pub completed: [u64; Outcome::COUNT],
    /// Calls that run.
    pub inflight: u64,
    /// ∫ of it.
    pub inflight_seconds: f64,
    /// Streams that are open.
    pub streams: u64,
    /// ∫ of it.
    pub stream_seconds: f64,
    /// Latencies, see [`bucket`].
    pub latency: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn an_integral_is_exact() {
        let integral = Integral::default();
        integral.start(SECOND);
        integral.start(2 * SECOND);
        assert_eq!(integral.read(3 * SECOND), (2, 3_000_000));
        integral.finish(4 * SECOND);
        assert_eq!(
            integral.read(10 * SECOND),
            (1, 2_000_000 + 3_000_000 + 1_000_000 + 6_000_000 - 1_000_000)
        );
        integral.finish(10 * SECOND);
        let (n, total) = integral.read(20 * SECOND);
        assert_eq!((n, total), (0, 11_000_000));
        assert_eq!(integral.read(30 * SECOND), (0, 11_000_000), "at rest it stands still");
    }

    #[test]
    fn who_starts_a_moment_after_the_reader_looked_at_its_clock() {
        let integral = Integral::default();
        integral.start(5 * SECOND + 2_000);
        assert_eq!(integral.read(5 * SECOND).0, 1);
        integral.finish(6 * SECOND);
        assert_eq!(integral.read(7 * SECOND), (0, 999_998));
    }

    proptest! {
        #[test]
        fn any_history_adds_up(
            calls in prop::collection::vec((0_u64..5_000_000_000, 0_u64..3_000_000_000), 0..200),
            reads in prop::collection::vec(0_u64..9_000_000_000, 0..20),
            boot in 0_u64..(4 * 365 * 86_400 * SECOND),
        ) {
            let mut events: Vec<(u64, u8)> = Vec::new();
            for (start, length) in &calls {
                events.push((boot + start, 1));
                events.push((boot + start + length, 2));
            }
            events.extend(reads.iter().map(|at| (boot + at, 3)));
            events.sort_unstable();
            let integral = Integral::default();
            let mut running = 0_u64;
            for (at, what) in events {
                match what {
                    1 => { integral.start(at); running += 1; }
                    2 => { integral.finish(at); running -= 1; }
                    _ => prop_assert_eq!(integral.read(at).0, running),
                }
            }
            let expected: u64 = calls.iter().map(|(s, l)| (boot + s + l) / 1000 - (boot + s) / 1000).sum();
            prop_assert_eq!(integral.read(boot + 10 * SECOND), (0, expected));
        }
    }

    #[test]
    fn buckets_are_powers_of_two() {
        assert_eq!([0, 999, 1_000, 1_999, 2_000, 3_999, 4_000].map(bucket), [0, 0, 1, 1, 2, 2, 3]);
        assert_eq!([1_023_000_000, 1_073_741_824_000, u64::MAX].map(bucket), [20, 31, 31]);
    }

    #[test]
    fn threads_lose_nothing() {
        let totals = Totals::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let totals = &totals;
                scope.spawn(move || {
                    for i in 0..1000 {
                        let now = SECOND + thread * 1_000_000 + i * 1000;
                        totals.arrived();
                        totals.inflight_start(now);
                        totals.inflight_finish(now + 1_000_000);
                        totals.completed(Outcome::Ok, 1_000_000);
                    }
                });
            }
        });
        let reading = totals.read(2 * SECOND);
        assert_eq!((reading.arrivals, reading.inflight, reading.completed[0]), (4000, 0, 4000));
        assert!((reading.inflight_seconds - 4.0).abs() < 1e-9, "{}", reading.inflight_seconds);
        assert_eq!(reading.latency.iter().sum::<u64>(), 4000);
    }
}
