//! The atoms of all metrics: numbers that any thread changes without a lock, and a histogram of them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::labels::Label;

/// A counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

impl Level {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// As it is now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for each value of a label.
#[derive(Debug)]
pub struct Counts<L, const N: usize> {
    counts: [Count; N],
    label: std::marker::PhantomData<L>,
}

impl<L: Label, const N: usize> Default for Counts<L, N> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| Count::default()), label: std::marker::PhantomData }
    }
}

impl<L: Label, const N: usize> Counts<L, N> {
    /// One more of a kind.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// `n` more of a kind.
    pub fn add(&self, label: L, n: u64) {
        if let Some(count) = self.counts.get(label.index()) {
            count.add(n);
        }
    }

    /// How many there were of a kind.
    pub fn get(&self, label: L) -> u64 {
        self.counts.get(label.index()).map_or(0, Count::get)
    }

    /// All kinds with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        L::ALL.iter().map(|label| (label.as_str(), self.get(*label)))
    }
}

/// Longest sample, in microseconds: the sum must not overflow.
const YEAR: u64 = 365 * 86_400 * 1_000_000;

/// Number of bounds of every histogram here.
const BOUNDS: usize = 14;

/// Upper bounds in microseconds.
pub(super) type Bounds = [u64; BOUNDS];

/// The buckets of OpenTelemetry's MCP conventions (mcp.md section 12): 10 ms to 5 min.
pub(super) const OPERATION: Bounds = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
];

/// For waiting: 1 ms to 1 min.
pub(super) const WAIT: Bounds = [
    1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// A histogram of seconds. Two additions for each sample; the number of samples is the sum of the buckets, so
/// that a scrape never sees buckets that contradict the count.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static Bounds,
    buckets: [AtomicU64; BOUNDS + 1],
    /// In microseconds: room for 584,000 of the longest samples.
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one.
    pub(super) fn new(bounds: &'static Bounds) -> Self {
        Self { bounds, buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }

    /// One sample. Negative values and NaN count as 0, longer ones than a year as a year.
    pub fn observe(&self, seconds: f64) {
        // Not `round`: a call of the mathematics library where the processor's own is not assumed.
        let micros = ((seconds * 1e6 + 0.5) as u64).min(YEAR);
        let bucket = self.bounds.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// Sum in seconds, number of samples, and for each upper bound in seconds the samples of that bucket alone.
    pub fn read(&self) -> (f64, u64, [(f64, u64); BOUNDS + 1]) {
        let bucket = |i: usize| {
            let bound = self.bounds.get(i).map_or(f64::INFINITY, |micros| *micros as f64 / 1e6);
            (bound, self.buckets[i].load(Ordering::Relaxed))
        };
        let buckets: [_; BOUNDS + 1] = std::array::from_fn(bucket);
        let count = buckets.iter().map(|(_, n)| n).sum();
        (self.sum.load(Ordering::Relaxed) as f64 / 1e6, count, buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_fall_into_the_bucket_whose_bound_they_do_not_pass() {
        let histogram = Histogram::new(&OPERATION);
        for seconds in [0.0, 0.01, 0.010_001, 300.0, 300.1, -1.0, f64::NAN, f64::INFINITY] {
            histogram.observe(seconds);
        }
        let (sum, count, buckets) = histogram.read();
        assert_eq!(count, 8);
        assert!((sum - (365.0 * 86_400.0 + 600.120_001)).abs() < 1e-6, "{sum}");
        assert_eq!(buckets[0], (0.01, 4));
        assert_eq!(buckets[1], (0.02, 1));
        assert_eq!(buckets[13], (300.0, 1));
        assert_eq!(buckets[14], (f64::INFINITY, 2));
    }

    #[test]
    fn bounds_rise() {
        for bounds in [&OPERATION, &WAIT] {
            assert!(bounds.windows(2).all(|w| w[0] < w[1]));
        }
    }
}
