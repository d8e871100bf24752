//! Datadog's watermark autoscaler with its defaults: nothing between the marks, up by at most half, down by at most a
//! fifth, and after any change no step up for a minute and none down for five.

use super::{Period, Scaler, View};
use crate::simulate::world::{Micros, SECOND};

/// The low mark as a share of the high one.
const LOW: f64 = 0.6;
const TOLERANCE: f64 = 0.1;
const MOST_UP: f64 = 0.5;
const MOST_DOWN: f64 = 0.2;
const FORBIDDEN_UP: Micros = 60 * SECOND;
const FORBIDDEN_DOWN: Micros = 300 * SECOND;

/// The autoscaler.
pub(super) struct Wpa {
    min: i32,
    max: i32,
    high: f64,
    sync: Period,
    changed: Option<Micros>,
    score: Option<f64>,
}

impl Wpa {
    /// The high mark is the target per pod.
    pub(super) fn new(min: i32, max: i32, high: f64, phase: Micros) -> Self {
        Self { min, max, high, sync: Period::new(phase, 15 * SECOND), changed: None, score: None }
    }

    /// What the marks ask for, within the limits of a step.
    fn desired(&self, current: i32, ready: i32, total: f64) -> i32 {
        let ready = f64::from(ready.max(1));
        let (usage, low) = (total / ready, self.high * LOW);
        let step = |share: f64| ((share * f64::from(current)) as i32).max(1);
        let wanted = if usage > self.high * (1.0 + TOLERANCE) {
            ((ready * usage / self.high).ceil() as i32).clamp(current, current + step(MOST_UP))
        } else if usage < low * (1.0 - TOLERANCE) {
            ((ready * usage / low).floor() as i32).clamp(current - step(MOST_DOWN), current)
        } else {
            current
        };
        wanted.clamp(self.min, self.max)
    }
}

impl Scaler for Wpa {
    fn tick(&mut self, view: &View<'_>) -> Option<i32> {
        if !self.sync.due(view.now) {
            return None;
        }
        let load = view.load?;
        // Not from zero ready pods: a multiple of nothing.
        if view.ready() == 0 {
            return None;
        }
        let total = load.panic.in_flight + load.panic.queue;
        self.score = Some(total / f64::from(view.ready()) / self.high);
        let wanted = self.desired(view.replicas, view.ready(), total);
        let rest = if wanted > view.replicas { FORBIDDEN_UP } else { FORBIDDEN_DOWN };
        let forbidden = self.changed.is_some_and(|at| view.now - at < rest);
        if wanted == view.replicas || forbidden {
            return None;
        }
        self.changed = Some(view.now);
        Some(wanted)
    }

    /// Its last change stands in its status.
    fn restart(&mut self, _: Micros) {}

    fn score(&self) -> Option<f64> {
        self.score
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_between_the_marks_and_steps_are_limited() {
        let wpa = Wpa::new(1, 100, 10.0, 0);
        assert_eq!(wpa.desired(10, 10, 80.0), 10);
        assert_eq!(wpa.desired(10, 10, 109.0), 10, "inside the tolerance");
        assert_eq!(wpa.desired(10, 10, 120.0), 12);
        assert_eq!(wpa.desired(10, 10, 500.0), 15, "half more at the most");
        assert_eq!(wpa.desired(10, 10, 10.0), 8, "a fifth less at the most");
        assert_eq!(wpa.desired(2, 2, 1.0), 1, "but one");
    }
}
