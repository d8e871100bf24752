//! Active probes, off the data path: whether endpoints are alive (G30), and what they can do (mcp.md section 7).
//!
//! One task per endpoint, from its first listing until it drains: a terminating pod is never probed, since each
//! connection would prolong its end. Results go to the endpoint (`capability`, `set_unhealthy`, breaker) and to
//! the fleet (`capabilities_changed`, names for metrics).

mod ask;
mod classify;
mod health;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use self::{
    ask::{Names, Target},
    classify::Finding,
    health::{Health, pause},
};
use super::super::{
    breaker::State,
    fleet::{Capability, Endpoint, Fleet, Legacy, Phase, Transport, View},
    settings::Probe,
    shared::Gateway,
};
use crate::{api::v1alpha1::Sessions, domain::FleetKey};

/// Probes at the same time.
const MAX_PROBES: usize = 64;
/// How often it is looked for new endpoints, where nobody said so.
const LOOK: Duration = Duration::from_secs(1);
/// How often a fleet's tools and prompts are listed.
const NAMES_EVERY: Duration = Duration::from_secs(300);
/// How often it is looked whether a pod that starts is ready.
const START_LOOK: Duration = Duration::from_millis(50);
/// Deep probes of an endpoint that say nothing before it is left at that.
const MAX_DEEP: u32 = 3;

/// Probes all endpoints of all fleets. Clones share everything.
#[derive(Clone)]
pub struct Prober(Arc<Shared>);

struct Shared {
    gateway: Arc<Gateway>,
    changed: Notify,
    /// Serial numbers of the endpoints that have a task.
    probed: Mutex<HashSet<u64>>,
    /// When each fleet's names were asked for.
    named: Mutex<HashMap<FleetKey, Instant>>,
    slots: Semaphore,
}

impl Prober {
    /// One that does nothing before [`Self::run`].
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self(Arc::new(Shared {
            gateway,
            changed: Notify::new(),
            probed: Mutex::default(),
            named: Mutex::default(),
            slots: Semaphore::new(MAX_PROBES),
        }))
    }

    /// Endpoints have been published: new ones are probed at once.
    pub fn endpoints_changed(&self) {
        self.0.changed.notify_one();
    }

    /// Probes until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.changed.notified() => {}
                _ = look.tick() => {}
            }
            self.start_missing(&stop);
        }
    }

    fn start_missing(&self, stop: &CancellationToken) {
        let snapshot = self.0.gateway.snapshot.load();
        self.0.named.lock().retain(|key, _| snapshot.fleets.iter().any(|f| f.key == *key));
        for fleet in &snapshot.fleets {
            for endpoint in &fleet.view().endpoints {
                if is_probed(endpoint) && self.0.probed.lock().insert(endpoint.serial) {
                    let (shared, fleet) = (Arc::clone(&self.0), Arc::clone(fleet));
                    let (endpoint, stop) = (Arc::clone(endpoint), stop.clone());
                    tokio::spawn(async move {
                        let ended = async {
                            tokio::select! {
                                () = endpoint.leaving.cancelled() => {}
                                () = stop.cancelled() => {}
                            }
                        };
                        tokio::select! {
                            () = ended => {}
                            () = Task::new(&shared, &fleet, &endpoint).run() => {}
                        }
                        shared.probed.lock().remove(&endpoint.serial);
                    });
                }
            }
        }
    }
}

fn is_probed(endpoint: &Endpoint) -> bool {
    matches!(endpoint.phase(), Phase::Ready | Phase::NotReady)
}

/// The probes of one endpoint.
struct Task<'a> {
    shared: &'a Shared,
    fleet: &'a Arc<Fleet>,
    endpoint: &'a Arc<Endpoint>,
    health: Health,
    deep: u32,
}

impl<'a> Task<'a> {
    fn new(shared: &'a Shared, fleet: &'a Arc<Fleet>, endpoint: &'a Arc<Endpoint>) -> Self {
        Self { shared, fleet, endpoint, health: Health::default(), deep: 0 }
    }

    async fn run(mut self) {
        loop {
            // A pod that starts answers nothing, and must not count as ill for it when it is ready: calls may be
            // waiting for it.
            while self.endpoint.phase() == Phase::NotReady && !self.endpoint.capability.load().known {
                sleep(START_LOOK).await;
            }
            let view = self.fleet.view_full();
            // The semaphore is never closed.
            let Ok(slot) = self.shared.slots.acquire().await else { return };
            self.probe(&view).await;
            drop(slot);
            let settings = &view.spec.settings.health_check;
            let is_open =
                self.endpoint.breaker.load().state(self.shared.gateway.clock.now()) != State::Closed;
            let known = self.endpoint.capability.load().known;
            let urgent = !known || is_open || self.endpoint.is_unhealthy();
            sleep(pause(&self.health, urgent, settings.interval, fastrand::f64())).await;
        }
    }

    async fn probe(&mut self, view: &View) {
        let (spec, check) = (&view.spec, &view.spec.settings.health_check);
        let target = Target { endpoint: self.endpoint, spec, within: check.timeout };
        let is_sse = spec.transport == Transport::Sse;
        let finding = match &check.probe {
            Probe::Mcp if !is_sse => target.discover().await,
            Probe::Mcp | Probe::Tcp => target.connect().await,
            Probe::Http(path) => target.get(path).await,
        };
        self.fleet.metrics.probes.inc(finding.kind());
        if self.judge(&finding, view) {
            if is_sse {
                self.learn(sse_capability());
            } else if check.probe == Probe::Mcp {
                self.learn_from(finding);
            } else {
                // Another kind of check says nothing on the revisions; routing needs them all the same.
                self.learn_from(target.discover().await);
            }
            self.look_deeper(&target).await;
        }
    }

    /// Tells health and breaker; whether the endpoint is alive.
    fn judge(&mut self, finding: &Finding, view: &View) -> bool {
        let (endpoint, check) = (self.endpoint, &view.spec.settings.health_check);
        let alive = !matches!(finding, Finding::Failed(_));
        // One that is not ready gets nothing new anyway. If its start counted against it, each new pod of a
        // rollout would be told as unhealthy, and be left out for two more probes after it is ready.
        let unhealthy_after =
            if endpoint.phase() == Phase::NotReady { u32::MAX } else { check.unhealthy_threshold };
        if let Some(unhealthy) = self.health.note(alive, unhealthy_after, check.healthy_threshold) {
            endpoint.set_unhealthy(unhealthy);
            match finding {
                Finding::Failed(why) => {
                    tracing::warn!(fleet = %self.fleet.key, endpoint = %endpoint.name, why, "an endpoint is unhealthy");
                }
                _ => {
                    tracing::info!(fleet = %self.fleet.key, endpoint = %endpoint.name, "an endpoint is healthy again");
                }
            }
            self.fleet.wake_all();
        }
        let breaker = endpoint.breaker.load();
        if !alive {
            breaker.probe_failed();
        } else if breaker.probe_succeeded(self.shared.gateway.clock.now()).is_some() {
            self.fleet.readmit(endpoint);
        }
        alive
    }

    fn learn_from(&self, finding: Finding) {
        let before = self.endpoint.capability.load_full();
        self.learn(finding.learn(&before));
    }

    fn learn(&self, capability: Capability) {
        if **self.endpoint.capability.load() == capability {
            return;
        }
        tracing::info!(
            fleet = %self.fleet.key, endpoint = %self.endpoint.name, listed = ?capability.listed,
            legacy = ?capability.legacy, stateful = ?capability.stateful, "learnt what an endpoint can do"
        );
        self.endpoint.capability.store(Arc::new(capability));
        self.fleet.capabilities_changed();
    }

    /// Once per endpoint: does it serve the earlier revisions, and with sessions? And now and then, once per
    /// fleet: which tools and prompts are there?
    async fn look_deeper(&mut self, target: &Target<'_>) {
        let known = self.endpoint.capability.load_full();
        if !known.known || known.opaque || target.spec.transport == Transport::Sse {
            return;
        }
        let is_open =
            known.legacy != Legacy::No && (known.legacy == Legacy::Unknown || known.stateful.is_none());
        let deep = is_open && self.deep < MAX_DEEP && target.spec.sessions == Sessions::Auto;
        let names = self.names_are_due();
        if names && known.speaks("2026-07-28") {
            self.publish(&target.modern_names().await);
        }
        let legacy_names = names && !known.speaks("2026-07-28");
        if deep || (legacy_names && known.legacy != Legacy::No) {
            self.deep += u32::from(deep);
            let (found, names) = target.initialize(legacy_names).await;
            if deep {
                self.learn(found.learn(&known));
            }
            if let Some(names) = names {
                self.publish(&names);
            }
        }
    }

    fn names_are_due(&self) -> bool {
        let mut named = self.shared.named.lock();
        let now = Instant::now();
        let due = named.get(&self.fleet.key).is_none_or(|last| now.duration_since(*last) >= NAMES_EVERY);
        if due {
            named.insert(self.fleet.key.clone(), now);
        }
        due
    }

    fn publish(&self, names: &Names) {
        let (tools, prompts) = (names.tools.iter(), names.prompts.iter());
        self.fleet.metrics.set_names(tools.map(String::as_str), prompts.map(String::as_str));
    }
}

/// HTTP+SSE is 2024-11-05, with a session for each stream.
fn sse_capability() -> Capability {
    Capability {
        known: true,
        legacy: Legacy::Yes,
        stateful: Some(true),
        listed: vec!["2024-11-05".into()],
        ..Capability::default()
    }
}
