//! Thresholds and pauses of probes. Pure.

use std::time::Duration;

/// First pause after a failure, and the longest while something is amiss.
const FIRST: Duration = Duration::from_millis(100);
const URGENT: Duration = Duration::from_secs(1);

/// Results in a row.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    successes: u32,
    unhealthy: bool,
}

impl Health {
    /// Takes over a result; tells a change: `Some(true)` when the endpoint has become unhealthy.
    pub(super) fn note(&mut self, alive: bool, unhealthy_after: u32, healthy_after: u32) -> Option<bool> {
        if alive {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
        }
        let unhealthy = if self.unhealthy {
            self.successes < healthy_after.max(1)
        } else {
            self.failures >= unhealthy_after.max(1)
        };
        (std::mem::replace(&mut self.unhealthy, unhealthy) != unhealthy).then_some(unhealthy)
    }
}

/// Time to the next probe. `draw` in [0, 1): gateways and endpoints must not probe in step. What is amiss
/// (unknown, unhealthy, breaker not closed) is looked at every 1–2 s; what has just failed sooner, so that a
/// starting server is known soon after it listens.
pub(super) fn pause(health: &Health, urgent: bool, interval: Duration, draw: f64) -> Duration {
    if urgent || health.failures > 0 {
        let first = FIRST * 2_u32.saturating_pow(health.failures.saturating_sub(1).min(8));
        let urgent = if health.failures > 0 { first.min(URGENT) } else { URGENT };
        return urgent.mul_f64(1.0 + draw).min(interval);
    }
    interval.mul_f64(0.9 + 0.2 * draw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_results_in_a_row() {
        let mut health = Health::default();
        let mut note = |alive| health.note(alive, 3, 2);
        assert_eq!([false, false, true, false, false].map(&mut note), [None; 5]);
        assert_eq!(note(false), Some(true));
        assert_eq!([false, true, false, true].map(&mut note), [None; 4]);
        assert_eq!(note(true), Some(false));
        assert_eq!(note(true), None);
    }

    #[test]
    fn pauses() {
        let interval = Duration::from_secs(30);
        let ms = |health: &Health, urgent, draw| pause(health, urgent, interval, draw).as_millis();
        let mut health = Health::default();
        assert_eq!((ms(&health, false, 0.0), ms(&health, false, 0.5)), (27_000, 30_000));
        assert_eq!((ms(&health, true, 0.0), ms(&health, true, 0.999)), (1000, 1999));
        health.note(false, 3, 2);
        assert_eq!(ms(&health, true, 0.0), 100);
        health.note(false, 3, 2);
        assert_eq!(ms(&health, false, 0.0), 200);
        for _ in 0..100 {
            health.note(false, 3, 2);
        }
        assert_eq!(ms(&health, true, 0.0), 1000);
        // Never slower than the interval that was asked for.
        assert_eq!(pause(&health, true, Duration::from_millis(300), 0.9), Duration::from_millis(300));
    }
}
