//! Fleets, endpoints and the other gateways out of a Kubernetes cluster. Only get, list and watch.
//!
//! Three watches fill three stores; each event asks for a publication, and what comes within 50 ms is published
//! together. What did not change is not published.

pub mod authority;
mod slices;
mod world;

use std::{
    collections::HashMap,
    fmt::Debug,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher::{self, Config, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use self::world::{LastGood, WatchedFleet, prune};
use super::probe::Prober;
use crate::{
    api::names,
    domain::FleetKey,
    gateway::{
        fleet::{EndpointSpec, FleetSpec},
        shared::{Gateway, Peer},
    },
    runtime::{
        admin::{Blocker, Readiness},
        chain::Chain,
    },
};

/// Events that come together are published together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Objects of a page of a list.
const PAGE_SIZE: u32 = 100;
/// Label of every slice that names its Service.
const LABEL_SERVICE: &str = "kubernetes.io/service-name";

/// What is watched.
#[derive(Clone, Debug)]
pub struct ClusterArgs {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Fleets of this class are served.
    pub class: String,
    /// The gateway's own zone, where zones matter.
    pub zone: Option<String>,
    /// The other gateways; `None`: there are none.
    pub peers: Option<PeersArgs>,
}

/// How the other gateways are found.
#[derive(Clone, Debug)]
pub struct PeersArgs {
    /// Namespace of the gateways.
    pub namespace: String,
    /// Their headless Service.
    pub service: String,
    /// Our own address, and the port on which we answer them.
    pub own: SocketAddr,
}

/// See the module.
pub struct Cluster {
    gateway: Arc<Gateway>,
    prober: Prober,
    args: ClusterArgs,
    fleets: Watched<WatchedFleet>,
    slices: Watched<EndpointSlice>,
    peers: Option<Watched<EndpointSlice>>,
    changed: Arc<Notify>,
}

/// A store, and whether its first list is complete.
struct Watched<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    synced: Arc<AtomicBool>,
    blocker: Option<Blocker>,
}

type Task = futures::future::BoxFuture<'static, ()>;

impl Cluster {
    /// Prepares the watches and blocks `readiness` until all have listed and were published once. The returned
    /// tasks, `(name, future)`, run until the process ends.
    pub fn new(
        client: &Client,
        gateway: Arc<Gateway>,
        prober: Prober,
        readiness: &Readiness,
        args: ClusterArgs,
    ) -> (Self, Vec<(&'static str, Task)>) {
        let changed = Arc::new(Notify::new());
        let mut tasks: Vec<(&'static str, Task)> = Vec::new();
        let fleets = Watch { gateway: &gateway, changed: &changed, readiness, name: names::KIND };
        let (fleets, task) = fleets.start(api(client, args.namespace.as_deref()), Config::default(), prune);
        tasks.push((names::KIND, task));
        let labels = format!("{},service.kubernetes.io/headless", names::LABEL_FLEET);
        let slices = Watch { gateway: &gateway, changed: &changed, readiness, name: "EndpointSlice" };
        let config = Config::default().labels(&labels);
        let (slices, task) = slices.start(api(client, args.namespace.as_deref()), config, prune_slice);
        tasks.push(("EndpointSlice", task));
        let peers = args.peers.as_ref().map(|peers| {
            let watch = Watch {
                gateway: &gateway,
                changed: &changed,
                readiness,
                name: "EndpointSlice of the gateways",
            };
            let config = Config::default().labels(&format!("{LABEL_SERVICE}={}", peers.service));
            let (watched, task) = watch.start(api(client, Some(&peers.namespace)), config, prune_slice);
            tasks.push(("EndpointSlice of the gateways", task));
            watched
        });
        if let Some(peers) = &args.peers {
            gateway.own.store(Arc::new(Some(Peer { address: peers.own })));
        }
        (Self { gateway, prober, args, fleets, slices, peers, changed }, tasks)
    }

    /// Publishes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut known = Published::default();
        while stop.run_until_cancelled(self.changed.notified()).await.is_some() {
            sleep(DEBOUNCE).await;
            let synced = self.fleets.is_synced() && self.slices.is_synced();
            // Fleets without their endpoints would answer that there are none.
            if synced {
                self.publish(&mut known);
                self.fleets.blocker = None;
                self.slices.blocker = None;
            }
            if self.peers.as_ref().is_some_and(Watched::is_synced) {
                self.publish_peers();
                if let Some(peers) = &mut self.peers {
                    peers.blocker = None;
                }
            }
        }
    }

    fn publish(&self, known: &mut Published) {
        let fleets = self.fleets.store.state();
        let specs = known.good.fleets(fleets.iter().map(AsRef::as_ref), &self.args.class);
        let slices = self.slices.store.state();
        let mut endpoints = world::endpoints(slices.iter().map(AsRef::as_ref), self.args.zone.as_deref());
        let mut changed = known.fleets != specs;
        if changed {
            self.gateway.set_fleets(specs.clone());
        }
        let before = std::mem::take(&mut known.endpoints);
        for spec in &specs {
            let now = endpoints.remove(&spec.key).unwrap_or_default();
            let id = (spec.key.clone(), spec.uid.clone());
            if before.get(&id) != Some(&now) {
                changed = true;
                self.gateway.set_endpoints(&spec.key, &now);
            }
            known.endpoints.insert(id, now);
        }
        known.fleets = specs;
        if changed {
            self.prober.endpoints_changed();
        }
    }

    fn publish_peers(&self) {
        let (Some(watched), Some(args)) = (&self.peers, &self.args.peers) else { return };
        let slices = watched.store.state();
        let found = slices::peers(slices.iter().map(AsRef::as_ref), args.own.ip(), args.own.port());
        let peers: Vec<Peer> = found.into_iter().map(|address| Peer { address }).collect();
        if **self.gateway.peers.load() == peers {
            return;
        }
        tracing::info!(peers = peers.len(), "the other gateways that are ready");
        self.gateway.peers.store(Arc::new(peers));
        for fleet in &self.gateway.snapshot.load().fleets {
            self.gateway.share_limits(fleet);
        }
    }
}

/// What the gateway got last.
#[derive(Default)]
struct Published {
    good: LastGood,
    fleets: Vec<FleetSpec>,
    /// By name and UID: a fleet that was made anew starts without endpoints.
    endpoints: HashMap<(FleetKey, String), Vec<EndpointSpec>>,
}

impl<K: Resource<DynamicType = ()>> Watched<K> {
    fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }
}

/// What a watch needs beside its objects.
struct Watch<'a> {
    gateway: &'a Arc<Gateway>,
    changed: &'a Arc<Notify>,
    readiness: &'a Readiness,
    name: &'static str,
}

impl Watch<'_> {
    fn start<K>(&self, api: Api<K>, config: Config, prune: fn(&mut K)) -> (Watched<K>, Task)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone,
    {
        let (store, writer) = reflector::store();
        let synced = Arc::new(AtomicBool::new(false));
        let (listed, changed, metrics) =
            (Arc::clone(&synced), Arc::clone(self.changed), Arc::clone(&self.gateway.metrics));
        let name = self.name;
        let stream = watcher(api, config.page_size(PAGE_SIZE))
            .default_backoff()
            .modify(prune)
            .inspect_err(move |error| {
                metrics.source_errors.inc();
                tracing::warn!(kind = name, error = %Chain(error), "a watch failed and is tried again");
            })
            .reflect(writer)
            .inspect_ok(move |event| {
                if matches!(event, Event::InitDone) {
                    listed.store(true, Ordering::Release);
                }
                // The pages of a list are not worth a look before it is complete.
                if !matches!(event, Event::Init | Event::InitApply(_)) {
                    changed.notify_one();
                }
            });
        let blocker = self.readiness.blocker(format!("the first list of {name} objects"));
        let task = Box::pin(stream.for_each(|_: Result<_, watcher::Error>| std::future::ready(())));
        (Watched { store, synced, blocker: Some(blocker) }, task)
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn prune_slice(slice: &mut EndpointSlice) {
    slice.metadata.managed_fields = None;
    slice.metadata.annotations = None;
    slice.metadata.owner_references = None;
}

/// Our own address as the others know it.
pub fn own_peer(pod_ip: IpAddr, peer_listen: SocketAddr) -> SocketAddr {
    SocketAddr::new(pod_ip, peer_listen.port())
}
