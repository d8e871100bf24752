//! Exponential back-off by fleet: one that always fails must not slow the others, nor the API server.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::FleetKey;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(120);

/// Failures in a row of each fleet.
#[derive(Default)]
pub struct Backoff {
    failing: Mutex<HashMap<FleetKey, Failing>>,
}

struct Failing {
    generation: Option<i64>,
    n_failures: u32,
    retry_at: Instant,
}

impl Backoff {
    /// Counts a failure; returns after how long to try again. `jitter` is 0..1.
    pub fn fail(&self, fleet: &FleetKey, generation: Option<i64>, now: Instant, jitter: f64) -> Duration {
        let mut failing = self.failing.lock();
        let entry =
            failing.entry(fleet.clone()).or_insert(Failing { generation, n_failures: 0, retry_at: now });
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(entry.n_failures.min(16))).min(LONGEST);
        // Up to a quarter more, so that fleets that failed together do not come back together.
        let wait = wait.mul_f64(1.0 + 0.25 * jitter.clamp(0.0, 1.0));
        entry.n_failures = entry.n_failures.saturating_add(1);
        entry.generation = generation;
        entry.retry_at = now + wait;
        wait
    }

    /// How long this fleet still has to wait. Watch events overtake a requeue; they must not overtake the
    /// back-off, or a fleet whose pods crash would be tried at each crash. An edit may.
    pub fn remaining(&self, fleet: &FleetKey, generation: Option<i64>, now: Instant) -> Option<Duration> {
        let failing = self.failing.lock();
        let entry = failing.get(fleet).filter(|e| e.generation == generation)?;
        entry.retry_at.checked_duration_since(now).filter(|d| !d.is_zero())
    }

    /// Forgets a fleet's failures, after a success or its end.
    pub fn forget(&self, fleet: &FleetKey) {
        self.failing.lock().remove(fleet);
    }

    /// How many fleets are failing.
    pub fn len(&self) -> usize {
        self.failing.lock().len()
    }

    /// Whether none is failing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_bound_and_an_edit_overtakes_it() {
        let (backoff, fleet, now) = (Backoff::default(), FleetKey::new("a", "b"), Instant::now());
        let waits: Vec<_> = (0..12).map(|_| backoff.fail(&fleet, Some(1), now, 0.0)).collect();
        assert_eq!(waits[..3], [500, 1000, 2000].map(Duration::from_millis));
        assert_eq!(waits[11], LONGEST);
        assert_eq!(backoff.remaining(&fleet, Some(1), now), Some(LONGEST));
        assert_eq!(backoff.remaining(&fleet, Some(2), now), None);
        assert_eq!(backoff.remaining(&fleet, Some(1), now + LONGEST), None);
        backoff.forget(&fleet);
        assert!(backoff.is_empty());
    }
}
