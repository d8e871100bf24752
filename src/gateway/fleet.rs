//! What all threads of the gateway share: the fleets, their endpoints and the state of both.
//!
//! The control thread publishes; requests read. A request loads one [`View`] and works with it to its end, so
//! nothing changes under its feet. Nothing here does I/O.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use http::{HeaderValue, uri::PathAndQuery};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use super::endpoint::{Capability, Endpoint, EndpointSpec, Legacy, Phase};
use super::{
    balance::{Nanos, Outlook},
    breaker::{Breaker, Outcome, State, Transition, may_eject},
    queue::FairQueue,
    reports::Totals,
    retry::Budget,
    seal::PodId,
    session::Sessions,
    settings::Settings,
};
use crate::{api::v1alpha1::Sessions as ServerSessions, domain::FleetKey};

/// How a fleet's servers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Transport {
    /// Streamable HTTP, and both eras of it.
    #[default]
    StreamableHttp,
    /// HTTP+SSE of 2024-11-05.
    Sse,
}

/// What a source of fleets says of one.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSpec {
    /// Namespace and name.
    pub key: FleetKey,
    /// UID of the object; `namespace/name` without Kubernetes.
    pub uid: String,
    /// MCP path of its servers.
    pub path: String,
    /// How they speak.
    pub transport: Transport,
    /// Whether they keep sessions, or that it has to be found out.
    pub sessions: ServerSessions,
    /// `Host` that the servers get to see: `localhost:<port>` (G12).
    pub upstream_host: String,
    /// The same, ready to be sent.
    pub host_header: HeaderValue,
    /// Its settings.
    pub settings: Settings,
    /// It may be scaled to zero or from it: calls wait for the first pod.
    pub scalable: bool,
}

/// What one request works with.
pub struct View {
    /// The fleet as its source has it.
    pub spec: FleetSpec,
    /// Its MCP path, ready to be sent.
    pub mcp_path: PathAndQuery,
    /// Its endpoints, draining ones included.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Some pod speaks a modern revision.
    pub any_modern: bool,
}

impl View {
    fn new(spec: FleetSpec, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let any_modern =
            endpoints.iter().any(|e| e.phase() != Phase::Gone && !e.capability.load().modern.is_empty());
        let mcp_path = spec.path.parse().unwrap_or_else(|_| PathAndQuery::from_static("/mcp"));
        Self { spec, mcp_path, endpoints, any_modern }
    }

    /// The endpoint of an identity.
    pub fn endpoint(&self, id: PodId) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|e| e.id == id)
    }
}

/// One fleet. Lives as long as its source lists it, through all changes of its settings and endpoints.
pub struct Fleet {
    /// Namespace and name.
    pub key: FleetKey,
    /// UID; part of every token.
    pub uid: Box<str>,
    view: ArcSwap<View>,
    /// One writer at a time.
    writing: Mutex<()>,
    /// Requests of modern revisions that wait for a place.
    pub queue: Arc<FairQueue>,
    /// The same for legacy ones, which other pods may be able to serve: neither holds up the other.
    pub legacy_queue: Arc<FairQueue>,
    /// What the balancer remembers from pick to pick.
    pub outlook: Outlook,
    /// Retries at once.
    pub retries: ArcSwap<Budget>,
    /// What it has done, for the load reports.
    pub totals: Totals,
    /// Requests that run.
    pub active: AtomicUsize,
    /// Legacy sessions that this gateway has seen.
    pub sessions: Sessions,
    /// Handles of its metrics.
    pub metrics: super::metrics::FleetMetrics,
}

impl Fleet {
    /// A fleet without endpoints.
    pub fn new(spec: FleetSpec, metrics: super::metrics::FleetMetrics) -> Self {
        Self {
            key: spec.key.clone(),
            uid: spec.uid.as_str().into(),
            queue: FairQueue::new(spec.settings.queue.capacity),
            legacy_queue: FairQueue::new(spec.settings.queue.capacity),
            retries: ArcSwap::new(Budget::new(
                spec.settings.retries.budget_percent,
                spec.settings.retries.min_concurrency,
            )),
            view: ArcSwap::from_pointee(View::new(spec, Vec::new())),
            writing: Mutex::new(()),
            outlook: Outlook::default(),
            totals: Totals::default(),
            active: AtomicUsize::new(0),
            sessions: Sessions::default(),
            metrics,
        }
    }

    /// The fleet as it is now.
    pub fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// The fleet as it is now, to be kept.
    pub fn view_full(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Takes over new settings.
    pub fn set_spec(&self, spec: FleetSpec) {
        let _one = self.writing.lock();
        let view = self.view.load();
        let (old, new) = (&view.spec.settings, &spec.settings);
        self.queue.set_capacity(new.queue.capacity);
        self.legacy_queue.set_capacity(new.queue.capacity);
        if old.retries != new.retries {
            self.retries.store(Budget::new(new.retries.budget_percent, new.retries.min_concurrency));
        }
        if old.breaker != new.breaker {
            for endpoint in &view.endpoints {
                endpoint.breaker.store(Arc::new(Breaker::new(new.breaker.into())));
            }
        }
        self.view.store(Arc::new(View::new(spec, view.endpoints.clone())));
        self.wake_all();
    }

    /// Takes over the endpoints that a source lists: known ones keep their state, missing ones go.
    pub fn set_endpoints(&self, specs: &[EndpointSpec], now: Nanos) {
        let _one = self.writing.lock();
        let view = self.view.load();
        let mut endpoints = Vec::with_capacity(specs.len());
        for spec in specs {
            let known = view.endpoints.iter().find(|e| e.id == spec.id && e.address == spec.address);
            let endpoint =
                known.cloned().unwrap_or_else(|| Arc::new(Endpoint::new(spec, &view.spec.settings, now)));
            // A draining pod is not revived by a stale listing.
            if endpoint.phase() != Phase::Draining {
                endpoint.set_phase(spec.phase, now);
            }
            endpoints.push(endpoint);
        }
        for old in &view.endpoints {
            if !endpoints.iter().any(|e| e.serial == old.serial) {
                old.set_phase(Phase::Gone, now);
            }
        }
        self.store(view.spec.clone(), endpoints);
        self.wake_all();
    }

    /// A probe has learnt something new: what the view derives from it is computed again.
    pub fn capabilities_changed(&self) {
        let _one = self.writing.lock();
        let view = self.view.load();
        self.store(view.spec.clone(), view.endpoints.clone());
        self.wake_all();
    }

    /// Places may have come free for all who wait.
    pub fn wake_all(&self) {
        self.queue.wake(usize::MAX);
        self.legacy_queue.wake(usize::MAX);
    }

    /// A call on `endpoint` has ended: its breaker learns, and ejects where it may.
    pub fn note(&self, endpoint: &Endpoint, now: Nanos, outcome: Outcome) {
        match endpoint.breaker.load().record(now, outcome, || fastrand::u64(..)) {
            None => {}
            Some(Transition::Opened) => {
                endpoint.on_trial.store(false, Ordering::Relaxed);
                self.eject(endpoint);
            }
            Some(Transition::Closed) => self.readmit(endpoint),
        }
    }

    /// The breaker of `endpoint` has opened: it is left out while the fleet can do without it.
    fn eject(&self, endpoint: &Endpoint) {
        let view = self.view();
        let ready = view.endpoints.iter().filter(|e| e.takes_new());
        let ejected = ready.clone().filter(|e| e.is_ejected() && e.serial != endpoint.serial).count();
        let may = may_eject(ready.count(), ejected, view.spec.settings.breaker.max_ejected_percent);
        tracing::warn!(fleet = %self.key, endpoint = %endpoint.name, ejected = may, "the breaker of an endpoint opens");
        if may {
            endpoint.ejected.store(true, Ordering::Relaxed);
            self.metrics.ejections.inc();
        }
    }

    /// The breaker of `endpoint` has closed.
    pub fn readmit(&self, endpoint: &Endpoint) {
        endpoint.on_trial.store(false, Ordering::Relaxed);
        if endpoint.ejected.swap(false, Ordering::Relaxed) {
            tracing::info!(fleet = %self.key, endpoint = %endpoint.name, "the breaker of an endpoint closes");
        }
        self.wake_all();
    }

    /// Counts sessions per endpoint, and forgets those that idle.
    pub fn count_sessions(&self, now: Nanos) {
        let view = self.view();
        let idle = view.spec.settings.limits.session_idle;
        for seconds in self.sessions.sweep(now, idle) {
            self.metrics.session_ended(seconds);
        }
        let mut counts = std::collections::HashMap::new();
        self.sessions.for_each(|entry| {
            if entry.place() != super::session::Place::Ended {
                *counts.entry(entry.pod()).or_insert(0_usize) += 1;
            }
        });
        for endpoint in &view.endpoints {
            endpoint.sessions.store(counts.get(&endpoint.id).copied().unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// What changes with time alone, once a second: breakers that may try again, and the balancer's outlook.
    pub fn tick(&self, now: Nanos) {
        let view = self.view();
        for endpoint in view.endpoints.iter().filter(super::balance::Candidate::is_ejected) {
            match endpoint.breaker.load().state(now) {
                State::Closed => self.readmit(endpoint),
                State::HalfOpen => {
                    endpoint.on_trial.store(true, Ordering::Relaxed);
                    endpoint.ejected.store(false, Ordering::Relaxed);
                }
                State::Open => {}
            }
        }
        self.outlook.refresh(&view.endpoints, now, view.spec.settings.slow_start);
    }

    fn store(&self, spec: FleetSpec, endpoints: Vec<Arc<Endpoint>>) {
        self.view.store(Arc::new(View::new(spec, endpoints)));
    }
}

/// Time since the start of the process, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    pub fn now(self) -> Nanos {
        self.0.elapsed().as_nanos() as Nanos
    }
}
