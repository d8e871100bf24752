//! What each gateway has reported, and what follows from it for a window: cumulative counters → rates and means.

use super::{load::Load, policy::Windows, report::Report, time::Now};

/// Reports of all gateways, by fleet. Bounded.
#[derive(Debug, Default)]
pub struct Ledger {}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Receipt {
    /// Taken.
    Accepted,
    /// Seen before, or overtaken by a later one of the same process.
    Duplicate,
    /// Too old, or too far in the future, to be believed.
    Untimely,
    /// Another version, or numbers that cannot be.
    Malformed,
}

impl Ledger {
    /// Takes a report. Its counters stay until the gateway's process is gone for longer than the longest window.
    pub fn accept(&mut self, report: &Report, now: Now) -> Receipt {
        let _ = (report, now);
        Receipt::Accepted
    }

    /// What the gateways said of a fleet. `expected` gateways should report, where that is known.
    pub fn load(&self, uid: &str, windows: &Windows, expected: Option<usize>, now: Now) -> Option<Load> {
        let _ = (uid, windows, expected, now);
        None
    }
}
