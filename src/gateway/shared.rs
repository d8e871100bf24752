//! The gateway as one value: what every thread holds an `Arc` of.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    fleet::{Clock, EndpointSpec, Fleet, FleetSpec},
    metrics::Metrics,
    routing::{HostPolicy, Routes},
    seal::KeyRing,
};
use crate::domain::FleetKey;

/// The fleets that are served, and the way to them.
pub struct Snapshot {
    /// In the order of [`Routes`]' indexes.
    pub fleets: Vec<Arc<Fleet>>,
    /// Path and host → index.
    pub routes: Routes,
}

/// Another gateway of the same set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// Where its internal endpoint listens. Also its name in the rendezvous hash, so that all gateways agree.
    pub address: SocketAddr,
}

/// Flags that reach the data path.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Name of this gateway in logs and reports: the pod's.
    pub name: String,
    /// Hosts that are accepted beside the fleets' own and loopback.
    pub allowed_hosts: Vec<String>,
    /// Answers carry `X-Served-By`.
    pub expose_served_by: bool,
    /// One line per request.
    pub access_log: bool,
}

/// The gateway.
pub struct Gateway {
    /// Time of the hot path.
    pub clock: Clock,
    /// Flags.
    pub options: Options,
    /// What is served.
    pub snapshot: ArcSwap<Snapshot>,
    /// Which Hosts may be called.
    pub hosts: ArcSwap<HostPolicy>,
    /// Keys of all tokens.
    pub keys: ArcSwap<KeyRing>,
    /// The other gateways that are ready, sorted; without this one.
    pub peers: ArcSwap<Vec<Peer>>,
    /// This gateway's own address as peers know it.
    pub own: ArcSwap<Option<Peer>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Wakes the reporter at once: a request waits for a fleet without pods.
    pub urgent: Arc<Notify>,
    /// The process was asked to end: not ready any more, still serving, and every answer on HTTP/1 is the last on
    /// its connection.
    pub ending: AtomicBool,
    /// Cancelled when streams have to end.
    pub closing: CancellationToken,
    /// One writer of the snapshot at a time.
    pub(super) writing: Mutex<()>,
}

impl Gateway {
    /// The fleet of a name.
    pub fn fleet(&self, key: &FleetKey) -> Option<Arc<Fleet>> {
        self.snapshot.load().fleets.iter().find(|f| f.key == *key).cloned()
    }

    /// Takes over the fleets that the source lists: known ones (same name and UID) keep their state.
    pub fn set_fleets(&self, specs: Vec<FleetSpec>) {
        let _one = self.writing.lock();
        let before = self.snapshot.load();
        let is = |f: &Fleet, s: &FleetSpec| f.key == s.key && *f.uid == *s.uid;
        // First: a fleet that was made anew has the name of one that is gone.
        for gone in before.fleets.iter().filter(|f| !specs.iter().any(|s| is(f, s))) {
            gone.set_endpoints(&[], self.clock.now());
            self.metrics.forget(&gone.key);
        }
        let mut fleets = Vec::with_capacity(specs.len());
        for spec in specs {
            if let Some(known) = before.fleets.iter().find(|f| is(f, &spec)) {
                known.set_spec(spec);
                fleets.push(Arc::clone(known));
            } else {
                let metrics = self.metrics.fleet(&spec.key);
                fleets.push(Arc::new(Fleet::new(spec, metrics)));
            }
        }
        let routes = Routes::new(fleets.iter().map(|f| {
            let view = f.view();
            (f.key.clone(), view.spec.path.clone(), view.spec.settings.hostnames.clone())
        }));
        self.snapshot.store(Arc::new(Snapshot { fleets, routes }));
    }

    /// Takes over the endpoints that the source lists for one fleet.
    pub fn set_endpoints(&self, key: &FleetKey, specs: &[EndpointSpec]) {
        if let Some(fleet) = self.fleet(key) {
            fleet.set_endpoints(specs, self.clock.now());
            self.share_limits(&fleet);
        }
    }

    /// Gives each endpoint this gateway's part of `maxRequestsPerPod`: the whole divided by the gateways, at
    /// least 1 (gateway.md section 4).
    pub fn share_limits(&self, fleet: &Fleet) {
        let gateways = self.peers.load().len() as u32 + 1;
        let view = fleet.view();
        let whole = view.spec.settings.max_requests_per_pod;
        let limit = if whole == 0 { 0 } else { whole.div_ceil(gateways).max(1) };
        for endpoint in &view.endpoints {
            endpoint.set_limit(limit);
        }
        fleet.wake_all();
    }
}
