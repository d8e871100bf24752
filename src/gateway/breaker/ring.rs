//! Exact counts of calls and failures over a sliding window of ten buckets, without locks.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{Nanos, nanos};

/// Ten slices: smooth expiry at a negligible cost.
const BUCKETS: u64 = 10;
/// A word is period (16 bits), calls (24 bits), failures (24 bits), so that one `fetch_add` counts a call
/// and no reader sees the counts of one period under the name of another.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const PERIOD_MASK: u64 = 0xffff;

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    period_ns: u64,
    words: [AtomicU64; BUCKETS as usize],
}

impl Ring {
    pub(super) fn new(window: Duration) -> Self {
        Self { period_ns: (nanos(window) / BUCKETS).max(1), words: array::from_fn(|_| AtomicU64::new(0)) }
    }

    pub(super) fn add(&self, now: Nanos, failed: bool) {
        let period = now / self.period_ns;
        let word = &self.words[(period % BUCKETS) as usize];
        let name = (period & PERIOD_MASK) << (2 * COUNT_BITS);
        let step = (1 << COUNT_BITS) | u64::from(failed);
        let before = word.load(Relaxed);
        if before >> (2 * COUNT_BITS) != period & PERIOD_MASK {
            // The first call of this period starts the bucket anew; who loses this race adds to it.
            if word.compare_exchange(before, name | step, Relaxed, Relaxed).is_ok() {
                return;
            }
        } else if before >> COUNT_BITS & COUNT_MASK == COUNT_MASK {
            // Full: 16 million calls in one period say what there is to say.
            return;
        }
        word.fetch_add(step, Relaxed);
    }

    /// Calls and failures within the window that ends at `now`.
    pub(super) fn sums(&self, now: Nanos) -> (u64, u64) {
        let newest = now / self.period_ns;
        let (mut total, mut failed) = (0, 0);
        for back in 0..BUCKETS.min(newest + 1) {
            let period = newest - back;
            let word = self.words[(period % BUCKETS) as usize].load(Relaxed);
            if word >> (2 * COUNT_BITS) == period & PERIOD_MASK {
                total += word >> COUNT_BITS & COUNT_MASK;
                failed += word & COUNT_MASK;
            }
        }
        (total, failed)
    }

    pub(super) fn clear(&self) {
        for word in &self.words {
            word.store(0, Relaxed);
        }
    }
}
