//! What one process of a gateway said of one fleet: a ring of points, fine for the short window, coarser for the
//! long one, and a difference over a window of it.
//!
//! A fleet at which nothing happens has one point, however long that lasts: a report that changes nothing, or that
//! leaves the fleet out, adds none.

use std::collections::VecDeque;

use super::{
    super::{load::Window, report::FleetReport, time::Millis},
    point::{Gauges, Impossible, Point, read},
};

/// Points of one series.
const MAX_POINTS: usize = 64;
/// Points that the long window is divided into.
const STABLE_POINTS: Millis = 24;
/// Points that the short window is divided into.
const PANIC_POINTS: Millis = 8;
/// Points closer together than this are merged when there are many.
const FINEST: Millis = 500;
/// A hole in the reports up to this, or up to a twelfth of the window, is filled by a straight line.
const HOLE: Millis = 5_000;
/// So many refused samples in a row are a new start that nobody announced.
const REFUSED: u8 = 5;

/// How far back and how fine somebody wants to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// The long window.
    pub(super) stable: Millis,
    /// The short one.
    pub(super) panic: Millis,
}

/// When a sample was taken and what the gateway's clock says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// When the report was taken, on our clock.
    pub(super) at: Millis,
    /// When it came.
    pub(super) heard: Millis,
    /// When the report before it was taken, where that was of the same process.
    pub(super) before: Option<Millis>,
}

/// One fleet at one process of a gateway.
#[derive(Debug)]
pub(super) struct Series {
    /// The gateway, as the ledger numbers it.
    pub(super) gateway: u32,
    /// Its process.
    pub(super) epoch: u64,
    /// Start of the counters by the gateway's clock; 0: unknown.
    since: u64,
    points: VecDeque<Point>,
    /// The first point is the start of all counters: before it there was nothing.
    from_zero: bool,
    pub(super) gauges: Gauges,
    /// When the newest sample that holds was taken.
    pub(super) seen: Millis,
    /// When it came.
    pub(super) said: Millis,
    /// The newest sample was refused: what stands here is older than the gateway's newest report.
    pub(super) doubtful: bool,
    refused: u8,
    /// Lives of pods that were given out.
    lives: u64,
}

/// A difference over a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cover {
    /// What the points cover of it.
    pub(super) millis: Millis,
    /// There is a hole in the reports at its start.
    pub(super) hole: bool,
}

impl Series {
    /// Starts with a sample. `zero`: when all counters were zero, where that is known.
    pub(super) fn new(
        (gateway, epoch): (u32, u64),
        report: &FleetReport,
        moment: Moment,
        zero: Option<Millis>,
    ) -> Result<Self, Impossible> {
        let (mut point, gauges) = read(report, moment.at)?;
        let mut points = VecDeque::with_capacity(2);
        if let Some(zero) = zero {
            let start = Point::zero(zero.min(moment.at));
            point.follow(&start, 0)?;
            points.push_back(start);
        }
        points.push_back(point);
        let since = report.since;
        let (seen, said, from_zero) = (moment.at, moment.heard, zero.is_some());
        Ok(Self {
            gateway,
            epoch,
            since,
            points,
            from_zero,
            gauges,
            seen,
            said,
            doubtful: false,
            refused: 0,
            lives: 0,
        })
    }

    /// Whether a sample goes on from here; else the counters started anew.
    pub(super) fn continues(&self, epoch: u64, report: &FleetReport) -> bool {
        self.epoch == epoch && self.since == report.since && self.refused < REFUSED
    }

    /// Takes the next sample.
    pub(super) fn push(
        &mut self,
        report: &FleetReport,
        moment: Moment,
        reach: Reach,
    ) -> Result<(), Impossible> {
        let taken = self.try_push(report, moment, reach);
        self.doubtful = taken.is_err();
        self.refused = if taken.is_err() { self.refused + 1 } else { 0 };
        taken
    }

    fn try_push(&mut self, report: &FleetReport, moment: Moment, reach: Reach) -> Result<(), Impossible> {
        let (mut point, gauges) = read(report, moment.at)?;
        if let Some(last) = self.points.back() {
            point.at = point.at.max(last.at);
            self.lives += 1;
            point.follow(last, self.lives)?;
            if !point.is_same(last) {
                // Reports in between that left the fleet out, or said the same, said that nothing had changed.
                let rested = moment.before.filter(|before| !self.doubtful && *before > last.at);
                if let Some(before) = rested {
                    let mut rest = last.clone();
                    rest.at = before.min(point.at);
                    self.points.push_back(rest);
                }
                self.points.push_back(point);
            }
        }
        self.gauges = gauges;
        self.seen = moment.at;
        self.said = moment.heard;
        self.trim(moment.at, reach);
        Ok(())
    }

    /// Forgets what is beyond every window, and merges what is finer than needed.
    fn trim(&mut self, now: Millis, reach: Reach) {
        let oldest = now - reach.stable - reach.stable / 8 - HOLE;
        while self.points.get(1).is_some_and(|next| next.at <= oldest) {
            self.points.pop_front();
            self.from_zero = false;
        }
        let mut finest = FINEST;
        while self.points.len() > MAX_POINTS {
            self.merge(now, reach, finest);
            finest *= 2;
        }
        if self.points.capacity() > 4 * self.points.len().max(4) {
            self.points.shrink_to_fit();
        }
    }

    /// Drops points between neighbours that are close enough without them.
    fn merge(&mut self, now: Millis, reach: Reach, finest: Millis) {
        let fine = now - reach.panic - reach.panic / 2 - HOLE;
        let mut kept: VecDeque<Point> = VecDeque::with_capacity(MAX_POINTS);
        let mut points = std::mem::take(&mut self.points).into_iter().peekable();
        while let Some(point) = points.next() {
            let spacing =
                if point.at < fine { reach.stable / STABLE_POINTS } else { reach.panic / PANIC_POINTS };
            let (before, after) = (kept.back().map(|p| p.at), points.peek().map(|p| p.at));
            let needless =
                before.zip(after).is_some_and(|(before, after)| after - before <= spacing.max(finest));
            if !needless {
                kept.push_back(point);
            }
        }
        self.points = kept;
    }

    /// Adds what happened in the `window` that ends at `end`, where the newest point still holds, as a mean (integrals)
    /// or as a count over the window's length (counts), extended from what is covered to the whole.
    pub(super) fn add_to(&self, sums: &mut Window, window: Millis, end: Millis, with_pods: bool) -> Cover {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else {
            return Cover { millis: 0, hole: true };
        };
        let start = end - window;
        if start >= last.at {
            return Cover { millis: window, hole: false };
        }
        let after = self.points.partition_point(|p| p.at <= start).min(self.points.len() - 1);
        let (before, after) = (after.checked_sub(1).map(|i| &self.points[i]), after);
        let next = &self.points[after];
        let millis = if before.is_some() || self.from_zero { window } else { (end - first.at).min(window) };
        if millis <= 0 {
            return Cover { millis: 0, hole: false };
        }
        let (share, hole) = before.map_or((0.0, false), |before| {
            let length = next.at - before.at;
            let share = (next.at - start) as f64 / length.max(1) as f64;
            (share, length > HOLE.max(window / 12) && !next.is_same(before))
        });
        let weight = 1000.0 / millis as f64;
        last.add_since(next, weight, sums);
        if let Some(before) = before {
            next.add_since(before, share * weight, sums);
        }
        if with_pods {
            let between = self.points.range(after..);
            last.add_pods_since((before.unwrap_or(next), next, share), &between, weight, sums);
        }
        Cover { millis, hole }
    }

    /// It has calls that wait, and nobody whom they could go to.
    pub(super) fn waits(&self) -> bool {
        self.gauges.queue > 0.0 && self.gauges.ready == 0
    }
}

#[cfg(test)]
impl Series {
    /// Points that it keeps.
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }
}
