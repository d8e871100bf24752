//! The budget of retries of one fleet: a retry doubles the load exactly when there is too much of it.
//!
//! Whether a call may be repeated at all (G17) is decided elsewhere.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// Retries in flight, at most `percent` of the active calls, but always `min_concurrency`.
#[derive(Debug)]
pub struct Budget {
    percent: u32,
    min_concurrency: u32,
    retrying: AtomicU32,
}

/// A retry in flight; ends when dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the retry"]
pub struct Permit(Arc<Budget>);

impl Budget {
    /// `percent` of active calls, 0..=100 (default 20); `min_concurrency` retries always (default 3).
    pub fn new(percent: u32, min_concurrency: u32) -> Arc<Self> {
        Arc::new(Self { percent, min_concurrency, retrying: AtomicU32::new(0) })
    }

    /// Takes a place, if the budget for `active` calls has one. `active` counts the calls of the fleet in
    /// flight, the one to be retried included.
    pub fn try_acquire(self: &Arc<Self>, active: u32) -> Option<Permit> {
        let allowed = (u64::from(active) * u64::from(self.percent) / 100).max(self.min_concurrency.into());
        self.retrying
            .fetch_update(Relaxed, Relaxed, |n| (u64::from(n) < allowed).then_some(n + 1))
            .ok()
            .map(|_| Permit(Arc::clone(self)))
    }

    /// Retries in flight.
    pub fn retrying(&self) -> u32 {
        self.retrying.load(Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.retrying.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_holds_for_a_quiet_fleet_and_the_share_for_a_busy_one() {
        for (active, allowed) in [(0, 3), (1, 3), (15, 3), (19, 3), (20, 4), (1000, 200)] {
            let budget = Budget::new(20, 3);
            let permits: Vec<_> = std::iter::from_fn(|| budget.try_acquire(active)).collect();
            assert_eq!(permits.len(), allowed, "active {active}");
        }
        assert!(Budget::new(0, 0).try_acquire(1_000_000).is_none());
    }

    #[test]
    fn a_dropped_permit_gives_its_place_back() {
        let budget = Budget::new(20, 1);
        let permit = budget.try_acquire(1);
        assert!(permit.is_some());
        assert!(budget.try_acquire(1).is_none());
        drop(permit);
        assert_eq!(budget.retrying(), 0);
        assert!(budget.try_acquire(1).is_some());
    }

    #[test]
    fn a_shrinking_fleet_gets_no_new_retries_until_old_ones_end() {
        let budget = Budget::new(20, 1);
        let mut permits: Vec<_> = std::iter::from_fn(|| budget.try_acquire(20)).collect();
        assert_eq!(permits.len(), 4);
        assert!(budget.try_acquire(5).is_none());
        permits.truncate(0);
        assert!(budget.try_acquire(5).is_some());
    }
}
