//! One address of a fleet: where it is in its life, what it can do, how it does. Shared by all threads; atomics,
//! no locks on the path of a request, no I/O.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::{
    balance::{Candidate, Load, Nanos},
    breaker::Breaker,
    queue::FairQueue,
    reports::Totals,
    seal::PodId,
    settings::Settings,
    work::Work,
};

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
    pub(super) ejected: AtomicBool,
    /// Its breaker lets a few calls through, to see.
    pub(super) on_trial: AtomicBool,
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
