//! The election task: reads, renews and releases the Lease as `election` decides.
//!
//! It is the only writer of the Lease. It must not know what leadership is used for. It ends when it
//! is told to stop (the Lease is released, so that a standby takes over at once) or when leadership
//! is lost. A loss is final: the process must exit, since writes of the old term may be under way
//! everywhere in it.

use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Timing;
use super::election::{Candidate, Decision, Loss};
use super::leadership::{Announcer, Leadership};
use super::store::{LeaseStore, StoreError, Stored};

/// How often a standby reads the Lease while no watch tells it about changes.
const POLL: Duration = Duration::from_secs(1);

/// Attempts to release the Lease at the end. More than one, since a renewal that was cut off may
/// arrive in between.
const RELEASE_ATTEMPTS: u32 = 3;

/// Leadership was lost while it was needed. The process must exit.
#[derive(Debug, thiserror::Error)]
#[error("lost the leader lease as {identity}: {}{}", Reason(.loss, .timing), LastError(.last_error))]
pub struct Lost {
    identity: String,
    loss: Loss,
    timing: Timing,
    last_error: Option<StoreError>,
}

struct Reason<'a>(&'a Loss, &'a Timing);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Loss::Expired => write!(f, "it could not be renewed within {:?}", self.1.renew_deadline),
            Loss::Taken { by: Some(holder) } => write!(f, "it is held by {holder} now"),
            Loss::Taken { by: None } => f.write_str("its holder was removed by somebody else"),
        }
    }
}

struct LastError<'a>(&'a Option<StoreError>);

impl fmt::Display for LastError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |error| write!(f, " (last error: {error})"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    outcome: &'static str,
}

/// What `/metrics` says about the election.
#[derive(Debug, Clone, Default)]
pub struct LeaseMetrics {
    leader: Gauge,
    writes: Family<WriteLabels, Counter<u64, AtomicU64>>,
}

impl LeaseMetrics {
    /// Creates the metrics and makes them known to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("leader", "1 while this process holds the leader lease", metrics.leader.clone());
        registry.register(
            "lease_writes",
            "Attempts to take, renew or release the leader lease",
            metrics.writes.clone(),
        );
        metrics
    }
}

/// One replica's part in the election.
pub struct Elector<S> {
    store: S,
    identity: String,
    timing: Timing,
    metrics: LeaseMetrics,
    announcer: Announcer,
    candidate: Candidate,
    /// The Lease as read or written last.
    stored: Option<Stored>,
    /// Whether it must be read before it may be written.
    must_read: bool,
    /// Whether changes have been told without being asked for, since we asked last.
    is_told: bool,
    last_error: Option<StoreError>,
}

impl<S: LeaseStore> Elector<S> {
    /// `identity` comes from [`super::identity`], `timing` has been validated.
    pub fn new(store: S, identity: String, timing: Timing, metrics: LeaseMetrics) -> (Self, Leadership) {
        let (announcer, leadership) = Leadership::channel();
        let elector = Self {
            store,
            candidate: Candidate::new(identity.clone(), timing),
            identity,
            timing,
            metrics,
            announcer,
            stored: None,
            must_read: true,
            is_told: false,
            last_error: None,
        };
        (elector, leadership)
    }

    /// Takes part until `stop`, then releases the Lease. Cancel `stop` only when no write of this
    /// process is under way any more: a standby may lead a moment later.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Lost> {
        let mut changes = self.store.changes();
        while !stop.is_cancelled() {
            let turn = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                turn = self.turn(&mut changes) => turn,
            };
            self.announce();
            if let Err(loss) = turn {
                self.announcer.announce(None);
                self.metrics.leader.set(0);
                let Self { identity, timing, last_error, .. } = self;
                return Err(Lost { identity, loss, timing, last_error });
            }
        }
        self.release().await;
        Ok(())
    }

    /// One step: read, write or wait. Takes no longer than one call or one wait.
    async fn turn(&mut self, changes: &mut BoxStream<'static, Option<Stored>>) -> Result<(), Loss> {
        let next = self.candidate.next(Instant::now())?;
        if self.must_read {
            self.read().await;
            return Ok(());
        }
        match next {
            None => self.must_read = true,
            Some(Decision::Wait(longest)) => self.wait(longest, changes).await,
            Some(Decision::Create | Decision::Acquire | Decision::Renew) => self.write().await,
        }
        Ok(())
    }

    async fn read(&mut self) {
        match self.bounded(self.store.read()).await {
            Ok(stored) => {
                self.must_read = false;
                self.see(stored);
            }
            Err(error) => self.failed(error).await,
        }
    }

    async fn write(&mut self) {
        // Stands if this write is cut off by `stop`: it may have taken effect.
        self.must_read = true;
        let started = Instant::now();
        let record = self.candidate.held(Timestamp::now());
        let written = self.bounded(self.store.write(self.stored.as_ref(), &record)).await;
        self.count(&written);
        match written {
            Ok(stored) => {
                self.candidate.wrote(stored.record(), started, Instant::now());
                self.stored = Some(stored);
                self.must_read = false;
                self.last_error = None;
            }
            // Somebody was faster, or our own cut-off write has arrived: look again at once.
            Err(StoreError::Conflict) => {}
            Err(error) => self.failed(error).await,
        }
    }

    /// Waits for `longest`, or until something is heard of the Lease. A standby does not rely on
    /// being told: it looks for itself when it hears nothing.
    async fn wait(&mut self, longest: Duration, changes: &mut BoxStream<'static, Option<Stored>>) {
        let is_standby = self.candidate.claim(Instant::now()).is_none();
        // A living leader renews once per period, so a watch that works is never silent for longer.
        let patience = if self.is_told { self.timing.retry_period * 3 / 2 } else { POLL };
        let pause = if is_standby { longest.min(patience) } else { longest };
        tokio::select! {
            Some(change) = changes.next() => self.hear(change),
            () = sleep(pause) => {
                self.must_read |= is_standby;
                self.is_told &= !is_standby;
            }
        }
    }

    fn hear(&mut self, change: Option<Stored>) {
        self.is_told = true;
        let revision = |stored: &Option<Stored>| stored.as_ref().and_then(Stored::revision);
        match (revision(&change), revision(&self.stored)) {
            // An echo of what we have read or written ourselves.
            (Some(heard), Some(known)) if heard <= known => {}
            (Some(_), Some(_)) => self.see(change),
            // Deleted, or versions that cannot be compared.
            _ => self.must_read = true,
        }
    }

    fn see(&mut self, stored: Option<Stored>) {
        let holder = |stored: &Option<Stored>| stored.as_ref().and_then(|stored| stored.record().holder);
        let (before, now) = (holder(&self.stored), holder(&stored));
        if before != now && now.as_ref() != Some(&self.identity) {
            tracing::info!(leader = now.as_deref().unwrap_or("none"), "the leader lease changed hands");
        }
        self.candidate.see(stored.as_ref().map(Stored::record), Instant::now());
        self.stored = stored;
    }

    /// Gives the Lease up, so that a standby need not wait for it to run out.
    async fn release(&mut self) {
        for _ in 0..RELEASE_ATTEMPTS {
            let resignation = self.candidate.resign(Timestamp::now());
            self.announce();
            if !self.must_read
                && let Some(record) = resignation
            {
                let written = self.bounded(self.store.write(self.stored.as_ref(), &record)).await;
                self.count(&written);
                match written {
                    Ok(_) => return tracing::info!(identity = self.identity, "released the leader lease"),
                    Err(error) => tracing::debug!(%error, "failed to release the leader lease"),
                }
            } else if !self.must_read {
                return;
            }
            match self.bounded(self.store.read()).await {
                Ok(stored) => {
                    self.must_read = false;
                    self.see(stored);
                }
                Err(error) => tracing::debug!(%error, "failed to read the leader lease"),
            }
        }
        tracing::warn!("the leader lease was not released; a standby takes over when it runs out");
    }

    /// Tells the writers of this process whether they may write.
    fn announce(&self) {
        let claim = self.candidate.claim(Instant::now());
        if self.announcer.announce(claim) {
            self.metrics.leader.set(i64::from(claim.is_some()));
            if claim.is_some() {
                tracing::info!(identity = self.identity, "became the leader");
            }
        }
    }

    /// Bounds a call by its own time and, for a leader, by the end of its claim.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let now = Instant::now();
        let limit = self.timing.call_timeout();
        let limit = self.candidate.claim(now).map_or(limit, |deadline| limit.min(deadline - now));
        timeout(limit, call).await.unwrap_or(Err(StoreError::Timeout(limit)))
    }

    async fn failed(&mut self, error: StoreError) {
        let now = Instant::now();
        let pause = self.timing.retry_period / 2;
        let pause = self.candidate.claim(now).map_or(pause, |deadline| pause.min(deadline - now));
        tracing::warn!(%error, retry_after = ?pause, "a call about the leader lease failed");
        self.last_error = Some(error);
        sleep(pause).await;
    }

    fn count<T>(&self, written: &Result<T, StoreError>) {
        let outcome = match written {
            Ok(_) => "ok",
            Err(StoreError::Conflict) => "conflict",
            Err(StoreError::Timeout(_)) => "timeout",
            Err(StoreError::Api { .. }) => "error",
        };
        self.metrics.writes.get_or_create(&WriteLabels { outcome }).inc();
    }
}

#[cfg(test)]
mod tests;
