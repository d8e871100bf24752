//! The scaler: once a second, and at once where a call waits at a fleet without a pod, it decides about every fleet that
//! is scaled by MCP signals.
//!
//! | file | does | pure |
//! |---|---|---|
//! | [`tick`] | the loop, in every replica | no |
//! | [`look`] | one look at one fleet: what is known → `decide` → what follows | no I/O of its own |
//! | [`entry`] | what is remembered of one fleet | yes |
//! | [`snapshot`], [`usage`] | caches and `metrics.k8s.io` → the input of a decision | yes |
//! | [`effective`] | who acts, and what we write ourselves | yes |
//! | [`news`] | when the status is worth a write | yes |
//! | [`pause`] | annotations that stop it | yes |
//! | [`write`] | `McpFleet.spec.replicas` through `/scale`; the leader alone | no |
//! | [`victims`] | deletion costs of the pods that a scale-down takes | no |
//! | [`poll`] | asks `metrics.k8s.io`, and how many gateways there are | no |
//! | [`metrics`] | `mcp_utilization` and its like | no |
//!
//! The status is written by passes alone: [`Scaler::of`] tells them what is known. Every replica decides, so that each can
//! answer the metrics API and take over with a full memory; the leader alone writes.

pub mod effective;
pub mod entry;
pub mod look;
pub mod metrics;
pub mod news;
pub mod pause;
pub mod poll;
pub mod snapshot;
pub mod tick;
pub mod usage;
pub mod victims;
pub mod write;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use kube::Resource;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::{
    entry::{Entry, Wrote},
    usage::UsageByFleet,
};
use super::{
    scaling::{ApiState, Scaled},
    state::WatchedFleet,
};
use crate::{
    autoscale::{board::Board, head_start::HeadStart, ledger::Ledger, time::Now},
    domain::FleetKey,
};

/// Both clocks: one that never jumps, from the start of this process on, and that of the wall.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Reads both.
    pub fn now(self) -> Now {
        Now { mono: self.0.elapsed().as_millis() as i64, wall: Timestamp::now().as_millisecond() }
    }
}

/// What the scaler shares with passes, the metrics API and the receiver of reports.
pub struct Scaler {
    /// Both clocks; those of the ledger, too.
    pub clock: Clock,
    /// What the gateways reported.
    pub ledger: Arc<Mutex<Ledger>>,
    /// What the metrics API answers.
    pub board: Arc<Board>,
    /// Woken where calls wait at a fleet without a pod.
    pub urgent: Arc<Notify>,
    /// How it stands with the metrics API.
    api: watch::Receiver<ApiState>,
    /// As many as there are fleets.
    entries: Arc<Mutex<HashMap<FleetKey, Entry>>>,
    /// What pods use.
    usage: ArcSwap<UsageByFleet>,
    /// Gateways that should report, where that is known.
    gateways: Mutex<Option<usize>>,
}

impl Scaler {
    /// Knows nothing yet.
    pub fn new(
        clock: Clock,
        ledger: Arc<Mutex<Ledger>>,
        board: Arc<Board>,
        urgent: Arc<Notify>,
        api: watch::Receiver<ApiState>,
    ) -> Self {
        Self {
            clock,
            ledger,
            board,
            urgent,
            api,
            entries: Arc::default(),
            usage: ArcSwap::default(),
            gateways: Mutex::default(),
        }
    }

    /// What is known of a fleet; `None`: it is not scaled by MCP signals, or there is nothing better to say yet than what
    /// its status says already.
    pub fn of(&self, key: &FleetKey) -> Option<Scaled> {
        self.entries.lock().get(key)?.scaled()
    }

    /// What the Deployment of a fleet gets before `spec.replicas` says so.
    pub fn ahead(&self, key: &FleetKey) -> Option<HeadStart> {
        self.entries.lock().get(key)?.ahead()
    }

    /// How it stands with the metrics API.
    pub fn api_state(&self) -> ApiState {
        self.api.borrow().clone()
    }

    /// Metrics of what is remembered.
    pub fn collector(&self) -> metrics::ScalerCollector {
        metrics::ScalerCollector(Arc::clone(&self.entries))
    }

    /// Forgets a fleet that is gone.
    pub fn forget(&self, key: &FleetKey) {
        self.entries.lock().remove(key);
        self.board.remove(key);
    }

    /// Fleets without a replica at which calls wait.
    fn waiting(&self) -> Vec<FleetKey> {
        let now = self.clock.now();
        let waiting: HashSet<String> = self.ledger.lock().fleets_waiting(now).map(str::to_owned).collect();
        if waiting.is_empty() {
            return Vec::new();
        }
        let is_one = |entry: &Entry| {
            let uid = entry.object.meta().uid.as_deref();
            entry.replicas().is_some_and(|(n, _)| n == 0) && uid.is_some_and(|uid| waiting.contains(uid))
        };
        let entries = self.entries.lock();
        entries.iter().filter(|(_, entry)| is_one(entry)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether something of a fleet changed that a decision depends on: its own statuses change all the time.
    fn is_news(&self, key: &FleetKey, fleet: &Arc<WatchedFleet>) -> bool {
        let entries = self.entries.lock();
        let Some(entry) = entries.get(key) else { return true };
        let (before, meta) = (entry.object.meta(), fleet.meta());
        (&before.uid, before.generation) != (&meta.uid, meta.generation)
            || before.annotations != meta.annotations
    }

    /// Remembers whether a write of a fleet's scale is under way.
    fn writing(&self, key: &FleetKey, writing: bool) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.writing = writing;
        }
    }

    /// Remembers a write of a fleet's scale.
    fn wrote(&self, key: &FleetKey, uid: &str, wrote: Wrote) {
        if let Some(entry) =
            self.entries.lock().get_mut(key).filter(|e| e.object.meta().uid.as_deref() == Some(uid))
        {
            entry.wrote(wrote);
        }
    }

    /// Remembers that a fleet's scale could not be written; how long the next write waits.
    fn failed(&self, key: &FleetKey) -> Duration {
        let now = self.clock.now().mono;
        let wait = self.entries.lock().get_mut(key).map(|entry| entry.failed(now));
        Duration::from_millis(wait.unwrap_or_default() as u64)
    }

    /// How many fleets are remembered.
    fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Forgets fleets that are gone.
    fn retain(&self, keep: impl Fn(&FleetKey) -> bool) {
        self.entries.lock().retain(|key, _| keep(key));
        self.board.retain(keep);
    }

    /// Whether any fleet follows CPU or memory.
    fn is_usage_wanted(&self) -> bool {
        let follows =
            |e: &Entry| e.policy().is_some_and(|p| p.signals.cpu.is_some() || p.signals.memory.is_some());
        self.entries.lock().values().any(follows)
    }

    /// Replaces what pods use.
    fn set_usage(&self, usage: UsageByFleet) {
        self.usage.store(Arc::new(usage));
    }

    /// Replaces how many gateways should report.
    fn set_gateways(&self, n: Option<usize>) {
        *self.gateways.lock() = n;
    }

    /// Gateways that should report, where that is known.
    fn gateways(&self) -> Option<usize> {
        *self.gateways.lock()
    }
}

#[cfg(test)]
mod tests;
