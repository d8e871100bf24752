//! What all threads of the gateway share: the fleets, their endpoints and the state of both.
//!
//! The control thread publishes; requests read. A request loads one [`View`] and works with it to its end, so
//! nothing changes under its feet. Nothing here does I/O.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use http::{HeaderValue, uri::PathAndQuery};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    balance::{Candidate, Load, Nanos, Outlook},
    breaker::{Breaker, Outcome, State, Transition, may_eject},
    queue::FairQueue,
    reports::Totals,
    retry::Budget,
    seal::PodId,
    session::Sessions,
    settings::Settings,
    work::Work,
};
use crate::{api::v1alpha1::Sessions as ServerSessions, domain::FleetKey};

/// Where an endpoint is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Takes new work.
    Ready = 0,
    /// Listed, but not ready: bound work only.
    NotReady = 1,
    /// Its pod terminates and still serves: bound work only, and what can be moved is moved.
    Draining = 2,
    /// Not listed any more.
    Gone = 3,
}

impl Phase {
    /// As it stands in metrics and in the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

/// Whether a pod serves the revisions before 2026-07-28.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Legacy {
    /// It answered an `initialize`.
    Yes,
    /// It refused one because of the revision.
    No,
    /// Nobody asked it yet.
    #[default]
    Unknown,
}

/// What a pod can do, as its probes and its answers taught (mcp.md section 1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// A probe has answered: the rest is knowledge, not a guess.
    pub known: bool,
    /// It answers, but tells nobody what it can do (401, 403): it may get anything.
    pub opaque: bool,
    /// Revisions of `server/discover` from 2026-07-28 on, newest first.
    pub modern: Vec<String>,
    /// All revisions that it listed.
    pub listed: Vec<String>,
    /// Serves the earlier ones.
    pub legacy: Legacy,
    /// An `initialize` came back with a session.
    pub stateful: Option<bool>,
    /// `serverInfo.name` and `serverInfo.version`.
    pub server: Option<(String, String)>,
    /// The `result` of its last `server/discover`, to answer in its place where it cannot.
    pub discover: Option<Arc<str>>,
}

impl Capability {
    /// Whether it lists a revision.
    pub fn speaks(&self, version: &str) -> bool {
        self.opaque || self.modern.iter().any(|v| v == version)
    }

    /// Whether an `initialize` makes sense there.
    pub fn may_speak_legacy(&self) -> bool {
        self.legacy != Legacy::No
    }
}

/// One address of a fleet, and all that this process knows of it.
pub struct Endpoint {
    /// Identity: the pod's, or the address's outside Kubernetes.
    pub id: PodId,
    /// Unique in this process; keys the connection pools.
    pub serial: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// Name for people: the pod's, or the address.
    pub name: Box<str>,
    /// Share of the traffic under weighted strategies, ≥ 1.
    pub weight: u32,
    /// It is in our own zone, or zones are not known.
    pub local: bool,
    /// Counters and the cost of the balancer.
    pub load: Load,
    /// Opens on failures of requests.
    pub breaker: ArcSwap<Breaker>,
    /// Calls that are bound to it and wait for a place.
    pub queue: Arc<FairQueue>,
    /// What it can do.
    pub capability: ArcSwap<Capability>,
    /// Cancelled when it starts to drain or goes: long streams look for another pod.
    pub leaving: CancellationToken,
    phase: AtomicU8,
    unhealthy: AtomicBool,
    ejected: AtomicBool,
    /// Its breaker lets a few calls through, to see.
    on_trial: AtomicBool,
    /// Most requests at once here, 0 = no limit; this gateway's share.
    limit: AtomicU32,
    /// Live tasks and open retries that only this pod can go on with.
    pub work: Work,
    /// What it has done, for the load reports.
    pub totals: Totals,
    /// Connections to it that are open.
    pub connections: AtomicUsize,
    /// Legacy sessions that live on it, as far as this gateway knows; refreshed every few seconds.
    pub sessions: AtomicUsize,
}

impl Endpoint {
    /// A new endpoint, ready or not as told later by [`Self::set_phase`].
    pub fn new(spec: &EndpointSpec, settings: &Settings, now: Nanos) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            id: spec.id,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            address: spec.address,
            name: spec.name.as_str().into(),
            weight: spec.weight.max(1),
            local: spec.local,
            load: Load::new(now),
            breaker: ArcSwap::from_pointee(Breaker::new(settings.breaker.into())),
            queue: FairQueue::new(settings.queue.capacity),
            capability: ArcSwap::from_pointee(Capability::default()),
            leaving: CancellationToken::new(),
            phase: AtomicU8::new(Phase::NotReady as u8),
            unhealthy: AtomicBool::new(false),
            ejected: AtomicBool::new(false),
            on_trial: AtomicBool::new(false),
            limit: AtomicU32::new(0),
            work: Work::default(),
            totals: Totals::default(),
            connections: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
        }
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Ready,
            1 => Phase::NotReady,
            2 => Phase::Draining,
            _ => Phase::Gone,
        }
    }

    /// Moves it on. A pod that drains never comes back; its name and address may, with another identity.
    pub fn set_phase(&self, phase: Phase, now: Nanos) {
        let before = self.phase.swap(phase as u8, Ordering::AcqRel);
        if phase == Phase::Ready && before != Phase::Ready as u8 {
            self.load.became_ready(now);
        }
        if matches!(phase, Phase::Draining | Phase::Gone) {
            self.leaving.cancel();
        }
    }

    /// Active probes failed as often as `healthCheck.unhealthyThreshold` says.
    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy.load(Ordering::Relaxed)
    }

    /// Told by the prober.
    pub fn set_unhealthy(&self, unhealthy: bool) {
        self.unhealthy.store(unhealthy, Ordering::Relaxed);
    }

    /// Its breaker is open, and the fleet does without it.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Whether a picked endpoint may get the call: one on trial lets only a few through.
    pub fn admits(&self, now: Nanos) -> bool {
        !self.on_trial.load(Ordering::Relaxed) || self.breaker.load().allows(now)
    }

    /// This gateway's share of `maxRequestsPerPod`; 0 = no limit.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// It has no place for another request.
    pub fn is_full(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit != 0 && self.load.inflight() >= limit
    }

    /// New work may go here, health, breaker and room aside.
    pub fn takes_new(&self) -> bool {
        self.phase() == Phase::Ready
    }

    /// Work that is bound to it still gets through: it is listed, and neither probes nor requests say that it
    /// is dead (G8: affinity never bypasses health).
    pub fn serves_bound(&self) -> bool {
        self.phase() != Phase::Gone && !self.is_unhealthy() && !self.ejected.load(Ordering::Relaxed)
    }
}

impl Candidate for Endpoint {
    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> u32 {
        self.weight
    }

    fn is_local(&self) -> bool {
        self.local
    }

    fn eligible(&self) -> bool {
        self.takes_new()
    }

    fn has_room(&self) -> bool {
        !self.is_full()
    }

    fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed) || self.is_unhealthy()
    }
}

/// What a source of endpoints says of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Identity.
    pub id: PodId,
    /// Address of the server's port.
    pub address: SocketAddr,
    /// Name for people.
    pub name: String,
    /// Weight, ≥ 1.
    pub weight: u32,
    /// In our zone, or zones are not known.
    pub local: bool,
    /// Where it is in its life; never [`Phase::Gone`], which is not being listed.
    pub phase: Phase,
}

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
