//! What picking needs to know of a whole fleet and cannot afford to find out for each call.
//!
//! Recomputed from time to time (each second, and when endpoints or ejections change) by the control
//! thread; read by all others. Fleets of up to 64 endpoints use only the seed and the cursor: everything
//! else is counted exactly at each pick.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use super::{
    Candidate, Nanos,
    load::{Load, SEED_NS},
};

/// A measured fleet's seed is never lower: with a seed near zero a new endpoint would look free.
const SEED_FLOOR_NS: u64 = 1_000_000;

/// Shared by all picks of one fleet.
#[derive(Debug)]
pub struct Outlook {
    /// Round robin's next ticket.
    pub(super) cursor: AtomicUsize,
    pub(super) seed_ns: AtomicU64,
    pub(super) most_weight: AtomicU32,
    /// Fewer than half of the eligible would remain: ignore ejection.
    pub(super) panic: AtomicBool,
    /// More than half are new: slow start would only shift the load among the new.
    pub(super) mostly_new: AtomicBool,
}

impl Default for Outlook {
    fn default() -> Self {
        Self {
            cursor: AtomicUsize::new(0),
            seed_ns: AtomicU64::new(SEED_NS),
            most_weight: AtomicU32::new(1),
            panic: AtomicBool::new(false),
            mostly_new: AtomicBool::new(false),
        }
    }
}

impl Outlook {
    /// Looks at all endpoints of the fleet. Allocates; not for the path of a call.
    pub fn refresh<C: Candidate>(&self, candidates: &[C], now: Nanos, slow_start: Duration) {
        let mut counts = Counts::default();
        let mut most_weight = 1;
        for candidate in candidates.iter().filter(|c| c.eligible() && c.weight() > 0) {
            counts.add(candidate, now, slow_start);
            most_weight = candidate.weight().max(most_weight);
        }
        self.seed_ns.store(seed(candidates), Relaxed);
        self.most_weight.store(most_weight, Relaxed);
        self.panic.store(counts.panic(), Relaxed);
        self.mostly_new.store(counts.mostly_new(), Relaxed);
    }

    /// What an endpoint without a sample counts as, in nanoseconds.
    pub fn seed_ns(&self) -> u64 {
        self.seed_ns.load(Relaxed)
    }
}

/// Endpoints counted for the two rules about halves of the fleet.
#[derive(Default)]
pub(super) struct Counts {
    eligible: u32,
    ejected: u32,
    new: u32,
}

impl Counts {
    pub(super) fn add<C: Candidate>(&mut self, candidate: &C, now: Nanos, slow_start: Duration) {
        self.eligible += 1;
        self.ejected += u32::from(candidate.is_ejected());
        self.new += u32::from(candidate.load().is_new(now, slow_start));
    }

    pub(super) fn panic(&self) -> bool {
        2 * (self.eligible - self.ejected) < self.eligible
    }

    pub(super) fn mostly_new(&self) -> bool {
        2 * self.new > self.eligible
    }
}

/// The median of the averages of eligible endpoints, at least 1 ms; 30 ms while none was measured.
pub fn seed<C: Candidate>(candidates: &[C]) -> u64 {
    let mut measured: Vec<u64> =
        candidates.iter().filter(Candidate::eligible).filter_map(|c| Load::ewma_ns(c.load())).collect();
    if measured.is_empty() {
        return SEED_NS;
    }
    let middle = measured.len() / 2;
    let (_, median, _) = measured.select_nth_unstable(middle);
    (*median).max(SEED_FLOOR_NS)
}
