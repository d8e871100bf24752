//! One gateway's clock: which of its reports is the newest, and where on our clock its samples lie.

use std::cmp::Ordering;

use super::{
    super::{
        report::Report,
        time::{Millis, Now},
    },
    series::Moment,
};

/// A gateway reports each second; one that was not heard for so long is silent.
pub(super) const SILENT: Millis = 5_000;
/// Reports may be this late before one of the clocks is said to have jumped.
const LATE: Millis = 5_000;

/// A gateway.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    /// Start of its process.
    pub(super) epoch: u64,
    /// Of the newest report; `None`: nothing came yet.
    sequence: Option<u64>,
    /// When the newest report was taken, by the gateway's clock.
    pub(super) taken: i64,
    /// The same on ours, as computed from the age alone.
    raw: Millis,
    /// The same on ours.
    pub(super) at: Millis,
    /// When it came.
    pub(super) heard: Millis,
    /// Its age when it came.
    pub(super) age: Millis,
    /// It said that it ends.
    pub(super) ended: bool,
}

/// Where a report stands among those that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The newest.
    New,
    /// Seen before, or overtaken.
    Old,
}

impl Gateway {
    /// Whether a report is the newest. One of an earlier process counts only where the later one fell silent: its
    /// clock was set back.
    pub(super) fn order(&self, report: &Report, now: Millis) -> Order {
        let is_old = self.sequence.is_some_and(|newest| match report.epoch.cmp(&self.epoch) {
            Ordering::Less => now - self.heard <= SILENT,
            Ordering::Equal => report.sequence <= newest,
            Ordering::Greater => false,
        });
        if is_old { Order::Old } else { Order::New }
    }

    /// Takes the head of a report that is new.
    pub(super) fn hear(&mut self, report: &Report, taken: i64, now: Now) -> Moment {
        let raw = now.to_mono(taken);
        let goes_on = self.sequence.is_some() && self.epoch == report.epoch;
        let before = goes_on.then_some(self.at);
        self.at = if goes_on {
            let (by_clocks, by_arrival) = (raw - self.raw, now.mono - self.heard);
            let jumped = (by_clocks - by_arrival).abs() > LATE;
            let passed = if jumped { by_arrival } else { by_clocks };
            (self.at + passed.max(0)).min(now.mono)
        } else {
            raw
        };
        self.raw = raw;
        self.epoch = report.epoch;
        self.sequence = Some(report.sequence);
        self.taken = taken;
        self.heard = now.mono;
        self.age = (now.wall - taken).max(0);
        self.ended = report.last;
        Moment { at: self.at, heard: now.mono, before }
    }

    /// It reports.
    pub(super) fn is_heard(&self, now: Millis) -> bool {
        !self.ended && self.sequence.is_some() && now - self.heard <= SILENT
    }

    /// Age of its newest sample.
    pub(super) fn age(&self, now: Millis) -> Millis {
        now - self.heard + self.age
    }
}
