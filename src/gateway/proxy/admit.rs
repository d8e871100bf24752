//! Admission: a request gets a place at an endpoint, waits for one, or is refused (G18; dataplane.md section 6).

use std::{
    cell::Cell,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::worker::Worker;
use crate::gateway::{
    balance::{self, Nanos, Sample},
    breaker::Outcome,
    fleet::{Endpoint, Fleet, View},
    queue::{FairQueue, QueueError},
};

/// What a request needs of its endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need<'a> {
    /// A pod that serves the revisions before 2026-07-28.
    Legacy,
    /// A pod whose last `server/discover` listed this revision (G3).
    Modern(&'a str),
}

/// There is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shed {
    /// The queue is full.
    Full,
    /// None came free in time.
    TimedOut,
    /// There is no pod, and none came in time.
    NoPod,
}

/// A place at an endpoint. Whoever drops it frees the place.
pub(crate) struct Permit {
    /// Where.
    pub(crate) endpoint: Arc<Endpoint>,
    fleet: Arc<Fleet>,
    clock: crate::gateway::fleet::Clock,
    started: Nanos,
    /// Time until the head of the answer.
    head_after: Cell<Option<Nanos>>,
    sample: Cell<Option<Sample>>,
    outcome: Cell<Outcome>,
}

impl Permit {
    fn take(worker: &Worker, fleet: &Arc<Fleet>, endpoint: &Arc<Endpoint>, now: Nanos) -> Self {
        endpoint.load.started();
        fleet.active.fetch_add(1, Ordering::Relaxed);
        let clock = worker.gateway.clock;
        fleet.totals.admitted();
        fleet.totals.inflight_start(now);
        endpoint.totals.inflight_start(now);
        Self {
            endpoint: Arc::clone(endpoint),
            fleet: Arc::clone(fleet),
            clock,
            started: now,
            head_after: Cell::new(None),
            sample: Cell::new(None),
            outcome: Cell::new(Outcome::Ignored),
        }
    }

    /// The head of the answer is there.
    pub(crate) fn answered(&self, status: http::StatusCode, retry_after: Option<Duration>) {
        let took = self.clock.now().saturating_sub(self.started);
        self.head_after.set(Some(took));
        let (sample, outcome) = match status.as_u16() {
            429 | 503 => (Sample::RetryAfter(retry_after.unwrap_or_default()), Outcome::Overload),
            500.. => (Sample::Failed, Outcome::Failure),
            _ => (Sample::Answered(took), Outcome::Success),
        };
        self.sample.set(Some(sample));
        self.outcome.set(outcome);
    }

    /// No answer, or a broken one.
    pub(crate) fn failed(&self) {
        self.sample.set(Some(Sample::Failed));
        self.outcome.set(Outcome::Failure);
    }

    /// It does not count what became of it.
    pub(crate) fn ignore(&self) {
        self.sample.set(Some(Sample::Nothing));
        self.outcome.set(Outcome::Ignored);
    }

    /// When the place was taken.
    pub(crate) fn started(&self) -> Nanos {
        self.started
    }

    /// Time from then to the head of the answer, in nanoseconds.
    pub(crate) fn head_after(&self) -> Option<Nanos> {
        self.head_after.get()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.clock.now();
        let took = now.saturating_sub(self.started);
        self.fleet.totals.inflight_finish(now);
        self.endpoint.totals.inflight_finish(now);
        self.endpoint.load.finished(now, self.sample.get().unwrap_or(Sample::ClientLeft(took)));
        self.fleet.active.fetch_sub(1, Ordering::Relaxed);
        self.fleet.note(&self.endpoint, now, self.outcome.get());
        for queue in [&self.endpoint.queue, &self.fleet.queue, &self.fleet.legacy_queue] {
            if !queue.is_empty() {
                queue.wake(1);
            }
        }
    }
}

fn suits(endpoint: &Endpoint, need: Need<'_>, view: &View) -> bool {
    match need {
        Need::Legacy => endpoint.capability.load().may_speak_legacy(),
        Need::Modern(version) => {
            let capability = endpoint.capability.load();
            // A revision that no pod lists is for the pods to refuse; a legacy fleet gets what it can judge.
            capability.speaks(version)
                || (capability.known && !view.any_modern)
                || (!capability.modern.is_empty()
                    && !view.endpoints.iter().any(|e| e.capability.load().speaks(version)))
        }
    }
}

fn pick(worker: &Worker, fleet: &Arc<Fleet>, need: Need<'_>, except: &[u64]) -> Option<Permit> {
    let view = fleet.view();
    let settings = &view.spec.settings;
    let now = worker.gateway.clock.now();
    // An endpoint on trial whose few places are taken is passed over; there cannot be many of those.
    let mut passed = [0_u64; 4];
    for turn in 0..=passed.len() {
        let picked = balance::pick(
            settings.strategy,
            &view.endpoints,
            |e: &Arc<Endpoint>| {
                suits(e, need, &view) && !except.contains(&e.serial) && !passed.contains(&e.serial)
            },
            &fleet.outlook,
            &mut || fastrand::u64(..),
            now,
            settings.slow_start,
        )?;
        let endpoint = &view.endpoints[picked];
        if endpoint.admits(now) {
            return Some(Permit::take(worker, fleet, endpoint, now));
        }
        *passed.get_mut(turn)? = endpoint.serial;
    }
    None
}

/// Who waits, for the fairness of the queue.
pub(crate) fn client_key(headers: &http::HeaderMap, address: std::net::IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    match headers.get(http::header::AUTHORIZATION) {
        Some(credential) => credential.as_bytes().hash(&mut hasher),
        None => address.hash(&mut hasher),
    }
    hasher.finish()
}

/// A place at any endpoint that suits; `except` are those that were tried.
pub(crate) async fn admit(
    worker: &Worker,
    fleet: &Arc<Fleet>,
    need: Need<'_>,
    except: &[u64],
    client: impl FnOnce() -> u64,
) -> Result<Permit, Shed> {
    let queue = if matches!(need, Need::Legacy) { &fleet.legacy_queue } else { &fleet.queue };
    if queue.is_empty()
        && let Some(permit) = pick(worker, fleet, need, except)
    {
        return Ok(permit);
    }
    if !except.is_empty() {
        // A second try does not wait: its client has waited for the first.
        return Err(Shed::NoPod);
    }
    let view = fleet.view_full();
    let settings = &view.spec.settings;
    let empty = !view.endpoints.iter().any(|e| e.takes_new());
    if empty {
        worker.gateway.urgent.notify_one();
    }
    let within = if empty { settings.timeouts.activation } else { settings.queue.timeout };
    let wait = wait(queue, fleet, client(), within, || pick(worker, fleet, need, except));
    Box::pin(wait).await.map_err(|shed| match shed {
        Shed::TimedOut if !fleet.view().endpoints.iter().any(|e| e.takes_new()) => Shed::NoPod,
        shed => shed,
    })
}

/// A place at the one endpoint to which a request is bound.
pub(crate) async fn admit_bound(
    worker: &Worker,
    fleet: &Arc<Fleet>,
    endpoint: &Arc<Endpoint>,
    client: impl FnOnce() -> u64,
) -> Result<Permit, Shed> {
    let take = || Permit::take(worker, fleet, endpoint, worker.gateway.clock.now());
    if !endpoint.is_full() {
        return Ok(take());
    }
    let within = fleet.view().spec.settings.queue.timeout;
    let may = || (!endpoint.is_full() || !endpoint.serves_bound()).then(take);
    Box::pin(wait(&endpoint.queue, fleet, client(), within, may)).await
}

async fn wait(
    queue: &Arc<FairQueue>,
    fleet: &Fleet,
    client: u64,
    within: Duration,
    mut pick: impl FnMut() -> Option<Permit>,
) -> Result<Permit, Shed> {
    let shed = |error| match error {
        QueueError::Full => Shed::Full,
        QueueError::TimedOut => Shed::TimedOut,
    };
    let began = Instant::now();
    let result = async {
        let mut turn = queue.wait(client, within).await.map_err(shed)?;
        loop {
            if let Some(permit) = pick() {
                turn.taken();
                return Ok(permit);
            }
            turn = turn.requeue_front().await.map_err(shed)?;
        }
    }
    .await;
    fleet.metrics.waited(began.elapsed().as_secs_f64());
    result
}
