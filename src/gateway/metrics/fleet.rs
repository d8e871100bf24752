//! What is counted for one fleet. Requests hold a [`FleetMetrics`] through their fleet, so nothing is looked up.

use std::sync::Arc;

use super::{
    cells::{Count, Counts, Histogram, Level, OPERATION, WAIT},
    labels::{Outcome, Probed, Purpose, Recovery, RetryReason, Shed},
    operations::{Observation, Operations},
};
use crate::domain::FleetKey;

/// HTTP statuses that get a series of their own; others count as `other`.
const STATUSES: [u16; 24] = [
    200, 202, 204, 400, 401, 403, 404, 405, 406, 408, 409, 411, 413, 414, 415, 421, 429, 431, 499, 500, 502,
    503, 504, 505,
];
const STATUS_SLOTS: usize = STATUSES.len() + 1;

/// Handles of a fleet's metrics; clones share them.
#[derive(Clone)]
pub struct FleetMetrics(Arc<FleetCells>);

impl std::ops::Deref for FleetMetrics {
    type Target = FleetCells;

    fn deref(&self) -> &FleetCells {
        &self.0
    }
}

/// The numbers of one fleet.
pub struct FleetCells {
    /// Which fleet.
    pub(super) key: FleetKey,
    pub(super) operations: Operations,
    requests: [[Count; STATUS_SLOTS]; Outcome::COUNT],
    pub(super) queue_wait: Histogram,
    pub(super) session_duration: Histogram,
    /// Requests that were not taken.
    pub shed: Counts<Shed, { Shed::COUNT }>,
    /// Requests that were sent again.
    pub retries: Counts<RetryReason, { RetryReason::COUNT }>,
    /// Ends of re-creations of sessions.
    pub recoveries: Counts<Recovery, { Recovery::COUNT }>,
    /// Sessions that went to another pod, planned or not.
    pub sessions_moved: Count,
    /// Sessions that ended because their pod did.
    pub sessions_lost: Count,
    /// Identifiers of clients that are no token of ours, or of no key that we have.
    pub tokens_unopened: Counts<Purpose, { Purpose::COUNT }>,
    /// Times that a pod was taken out of the choice by its breaker.
    pub ejections: Count,
    /// Listens that are open.
    pub listens: Level,
    /// Streams to clients that are open: GET, listen, and calls answered as events.
    pub streams: Level,
    /// Fresh connections that keep a terminating pod alive.
    pub anchors: Level,
    /// Calls and streams that a drain's deadline cut.
    pub drain_cut: Count,
    /// What probes found.
    pub probes: Counts<Probed, { Probed::COUNT }>,
}

impl FleetMetrics {
    pub(super) fn new(key: &FleetKey) -> Self {
        Self(Arc::new(FleetCells {
            key: key.clone(),
            operations: Operations::default(),
            requests: std::array::from_fn(|_| std::array::from_fn(|_| Count::default())),
            queue_wait: Histogram::new(&WAIT),
            session_duration: Histogram::new(&OPERATION),
            shed: Counts::default(),
            retries: Counts::default(),
            recoveries: Counts::default(),
            sessions_moved: Count::default(),
            sessions_lost: Count::default(),
            tokens_unopened: Counts::default(),
            ejections: Count::default(),
            listens: Level::default(),
            streams: Level::default(),
            anchors: Level::default(),
            drain_cut: Count::default(),
            probes: Counts::default(),
        }))
    }

    #[cfg(test)]
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl FleetCells {
    /// Counts a finished operation. Not for listens: their length says nothing (mcp.md section 12).
    pub fn observe(&self, seen: &Observation<'_>) {
        self.operations.observe(seen);
    }

    /// Tools and prompts of the fleet, the only ones that become labels (G29).
    pub fn set_names<'a>(
        &self,
        tools: impl Iterator<Item = &'a str>,
        prompts: impl Iterator<Item = &'a str>,
    ) {
        self.operations.set_names(tools.chain(prompts));
    }

    /// Tools and prompts that have a series.
    #[cfg(test)]
    pub(in crate::gateway) fn operation_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let _ = self.operations.each(|_, name, _, _, _| {
            names.push(name.to_owned());
            Ok::<_, ()>(())
        });
        names
    }

    /// Counts a finished HTTP request; status 499 stands for a client that left.
    pub fn requested(&self, outcome: Outcome, status: u16) {
        let slot = STATUSES.iter().position(|s| *s == status).unwrap_or(STATUSES.len());
        self.requests[outcome as usize][slot].inc();
    }

    /// Counts the time that a request waited, in seconds, whether it was then served or not.
    pub fn waited(&self, seconds: f64) {
        self.queue_wait.observe(seconds);
    }

    /// Counts a legacy session that ended, and its length in seconds.
    pub fn session_ended(&self, seconds: f64) {
        self.session_duration.observe(seconds);
    }

    /// Requests of an outcome and a status, those that occurred: outcome, status, count.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static str, Option<u16>, u64)> + '_ {
        use super::labels::Label as _;
        Outcome::ALL.iter().flat_map(move |outcome| {
            let slots = self.requests[*outcome as usize].iter().enumerate();
            slots
                .map(|(slot, count)| (outcome.as_str(), STATUSES.get(slot).copied(), count.get()))
                .filter(|(_, _, count)| *count > 0)
        })
    }
}
