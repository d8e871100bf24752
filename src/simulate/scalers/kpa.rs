//! The Knative autoscaler (KPA 1.23, autoscaling.md section 10): running and waiting calls over 60 s and 6 s, every two
//! seconds; in panic, from twice what the ready pods carry, no decrease; down to half at the most.

use super::{Period, Scaler, View};
use crate::simulate::world::{Micros, SECOND};

const STABLE: Micros = 60 * SECOND;
const PANIC_THRESHOLD: f64 = 2.0;
const MOST_UP: f64 = 1000.0;
const MOST_DOWN: f64 = 2.0;
/// Zero only after so long without a call (scale-to-zero grace period).
const GRACE: Micros = 30 * SECOND;

/// The autoscaler.
pub(super) struct Kpa {
    min: i32,
    max: i32,
    per_pod: f64,
    tick: Period,
    /// When panic began or was seen last.
    panic: Option<Micros>,
    most_in_panic: i32,
    fresh: bool,
    zero_since: Option<Micros>,
    score: Option<f64>,
}

impl Kpa {
    pub(super) fn new(min: i32, max: i32, per_pod: f64) -> Self {
        Self {
            min,
            max,
            per_pod,
            tick: Period::new(0, 2 * SECOND),
            panic: None,
            most_in_panic: 0,
            fresh: true,
            zero_since: None,
            score: None,
        }
    }

    /// What the windows ask for, within the rates.
    fn desired(&mut self, now: Micros, ready: i32, stable: f64, panic: f64) -> i32 {
        let ready = f64::from(ready.max(1));
        let (stable, panic) = ((stable / self.per_pod).ceil(), (panic / self.per_pod).ceil());
        let (most, least) = ((MOST_UP * ready).ceil(), (ready / MOST_DOWN).floor());
        let hold = |wanted: f64| wanted.max(least).min(most) as i32;
        let (stable_pods, panic_pods) = (hold(stable), hold(panic));
        if panic / ready >= PANIC_THRESHOLD {
            self.panic = Some(now);
        } else if self.panic.is_some_and(|since| since + STABLE < now) {
            self.panic = None;
            self.most_in_panic = 0;
        }
        if self.panic.is_none() {
            return stable_pods;
        }
        self.most_in_panic = self.most_in_panic.max(stable_pods).max(panic_pods);
        self.most_in_panic
    }
}

impl Scaler for Kpa {
    fn tick(&mut self, view: &View<'_>) -> Option<i32> {
        if !self.tick.due(view.now) {
            return None;
        }
        // No data: hold.
        let load = view.load?;
        if std::mem::take(&mut self.fresh) && view.ready() > 1 {
            // A new process starts in panic, at what is there.
            (self.panic, self.most_in_panic) = (Some(view.now), view.ready());
        }
        let waiting = load.waiting;
        let stable = load.stable.in_flight + load.stable.queue;
        let panic =
            (load.panic.in_flight + load.panic.queue).max(if view.replicas == 0 { waiting } else { 0.0 });
        self.score = Some(stable / self.per_pod / f64::from(view.replicas.max(1)));
        let wanted = self.desired(view.now, view.ready(), stable, panic);
        if wanted > 0 || stable > 0.0 {
            self.zero_since = None;
        }
        let idle = wanted == 0 && view.now - *self.zero_since.get_or_insert(view.now) >= GRACE;
        let least =
            if idle { self.min } else { self.min.max(1).min(view.replicas.max(i32::from(wanted > 0))) };
        let wanted = wanted.max(least).min(self.max);
        (wanted != view.replicas).then_some(wanted)
    }

    fn restart(&mut self, _: Micros) {
        *self = Self::new(self.min, self.max, self.per_pod);
    }

    fn score(&self) -> Option<f64> {
        self.score
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_holds_and_half_goes_at_the_most() {
        let mut kpa = Kpa::new(1, 100, 10.0);
        assert_eq!(kpa.desired(0, 10, 100.0, 100.0), 10);
        assert_eq!(kpa.desired(SECOND, 10, 110.0, 200.0), 20, "panic at twice the ready pods");
        assert_eq!(kpa.desired(30 * SECOND, 20, 50.0, 10.0), 20, "no decrease in panic");
        assert_eq!(kpa.desired(62 * SECOND, 20, 50.0, 10.0), 10, "then to half");
        assert_eq!(kpa.desired(64 * SECOND, 10, 50.0, 10.0), 5);
    }
}
