//! Fleets and endpoints without Kubernetes: what the configuration file lists, and the addresses of names in it.
//! The file itself is read and watched by `config`; each configuration that is in force comes in by [`apply`].
//!
//! [`apply`]: Standalone::apply

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    net::UdpSocket,
    sync::Notify,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    dns::{self, Members},
    is_local,
    probe::Prober,
    upstream_host,
};
use crate::{
    api::v1alpha1::Sessions,
    domain::FleetKey,
    gateway::{
        config::{EndpointSource, FleetConfig, GatewayConfig},
        fleet::{EndpointSpec, FleetSpec},
        seal::PodId,
        shared::{Gateway, Peer},
    },
};

/// How often it is looked whether an endpoint that left has drained.
const SWEEP: Duration = Duration::from_secs(1);

/// See the module.
pub struct Standalone {
    gateway: Arc<Gateway>,
    prober: Prober,
    zone: Option<String>,
    start: Instant,
    fleets: Mutex<HashMap<FleetKey, Known>>,
    names: Mutex<Names>,
    changed: Notify,
}

struct Known {
    source: EndpointSource,
    members: Members,
}

/// What has to be looked up.
#[derive(Clone, Default)]
struct Names {
    peers: Vec<String>,
    listen: Option<SocketAddr>,
}

impl Standalone {
    /// One that serves nothing yet. `zone`: the gateway's own.
    pub fn new(gateway: Arc<Gateway>, prober: Prober, zone: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            prober,
            zone,
            start: Instant::now(),
            fleets: Mutex::default(),
            names: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Takes over a configuration: fleets at once, their listed endpoints too; names are looked up by
    /// [`Self::run`].
    pub fn apply(&self, config: &GatewayConfig) {
        let served = || config.fleets.iter().filter(|f| f.settings.enabled);
        self.gateway.set_fleets(served().map(spec).collect());
        let mut fleets = self.fleets.lock();
        fleets.retain(|key, _| served().any(|f| key_of(f) == *key));
        for fleet in served() {
            let known = fleets
                .entry(key_of(fleet))
                .or_insert_with(|| Known { source: fleet.source.clone(), members: Members::default() });
            known.source = fleet.source.clone();
            if let EndpointSource::Static(endpoints) = &fleet.source {
                let listed = endpoints.iter().map(|e| {
                    let local = is_local(self.zone.as_deref(), e.zone.as_deref());
                    dns::endpoint(e.address, e.weight, local)
                });
                self.list(&key_of(fleet), known, listed.collect());
            }
        }
        drop(fleets);
        *self.names.lock() = Names { peers: config.peers.clone(), listen: config.peer_listen };
        self.changed.notify_one();
    }

    /// Looks up names and lets drained endpoints go, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut look, mut sweep) = (interval(dns::EVERY), interval(SWEEP));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => self.look_up().await,
                _ = look.tick() => self.look_up().await,
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn list(&self, key: &FleetKey, known: &mut Known, listed: Vec<EndpointSpec>) {
        if known.members.list(listed, self.start.elapsed()) {
            self.gateway.set_endpoints(key, &known.members.only_leaving());
        }
        self.gateway.set_endpoints(key, &known.members.endpoints());
        self.prober.endpoints_changed();
    }

    /// All names at once: one that hangs must not hold up the others.
    async fn look_up(&self) {
        let wanted: Vec<(FleetKey, String, u16)> = self
            .fleets
            .lock()
            .iter()
            .filter_map(|(key, known)| match &known.source {
                EndpointSource::Dns { name, port } => Some((key.clone(), name.clone(), *port)),
                EndpointSource::Static(_) => None,
            })
            .collect();
        let fleets = wanted.into_iter().map(|(key, name, port)| async move {
            match dns::resolve(&name, port).await {
                Ok(addresses) => self.resolved(&key, &name, &addresses),
                Err(error) => self.failed(&error),
            }
        });
        let names = self.names.lock().clone();
        futures::join!(futures::future::join_all(fleets), self.look_up_peers(names));
    }

    fn resolved(&self, key: &FleetKey, looked_up: &str, addresses: &[SocketAddr]) {
        let mut fleets = self.fleets.lock();
        let Some(known) = fleets.get_mut(key) else { return };
        // The configuration may have changed meanwhile.
        if !matches!(&known.source, EndpointSource::Dns { name, .. } if name == looked_up) {
            return;
        }
        let listed: Vec<_> = addresses.iter().map(|a| dns::endpoint(*a, 1, true)).collect();
        if !known.members.lists(&listed) {
            tracing::info!(fleet = %key, name = looked_up, addresses = listed.len(), "a name has other addresses");
            self.list(key, known, listed);
        }
    }

    /// What was known stays.
    fn failed(&self, error: &dns::DnsError) {
        self.gateway.metrics.source_errors.inc();
        tracing::warn!(%error, "the last known addresses stay in use");
    }

    fn sweep(&self) {
        for (key, known) in self.fleets.lock().iter_mut() {
            let Some(fleet) = self.gateway.fleet(key) else { continue };
            let view = fleet.view_full();
            let now = self.gateway.clock.now();
            let busy = |id: PodId| view.endpoints.iter().any(|e| e.id == id && is_busy(e, now));
            if known.members.sweep(self.start.elapsed(), busy) {
                self.gateway.set_endpoints(key, &known.members.endpoints());
            }
        }
    }

    async fn look_up_peers(&self, names: Names) {
        let looked = names.peers.iter().map(|peer| async move {
            let (host, port) = peer.rsplit_once(':')?;
            let port = port.parse().ok()?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            match dns::resolve(host, port).await {
                Ok(addresses) => Some(addresses),
                Err(error) => {
                    self.failed(&error);
                    None
                }
            }
        });
        let looked = futures::future::join_all(looked).await;
        if names.peers.is_empty() || looked.iter().any(Option::is_none) {
            return;
        }
        let mut peers: Vec<Peer> =
            looked.into_iter().flatten().flatten().map(|address| Peer { address }).collect();
        let own = own_address(names.listen, peers.first()).await;
        peers.retain(|p| own.as_ref() != Some(p));
        peers.sort_unstable();
        peers.dedup();
        self.gateway.own.store(Arc::new(own));
        if **self.gateway.peers.load() != peers {
            self.gateway.peers.store(Arc::new(peers));
            for fleet in &self.gateway.snapshot.load().fleets {
                self.gateway.share_limits(fleet);
            }
        }
    }
}

/// Somebody holds a connection to it, or waits for something that only it can finish.
fn is_busy(endpoint: &crate::gateway::fleet::Endpoint, now: u64) -> bool {
    endpoint.connections.load(std::sync::atomic::Ordering::Relaxed) > 0 || endpoint.work.count(now) > 0
}

/// Our address as peers know it: where we listen, or if that is all addresses, the one that leads to a peer.
async fn own_address(listen: Option<SocketAddr>, peer: Option<&Peer>) -> Option<Peer> {
    let listen = listen?;
    if !listen.ip().is_unspecified() {
        return Some(Peer { address: listen });
    }
    let peer = peer?.address;
    let any: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    // Connecting a datagram socket sends nothing; it only chooses the route.
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(peer).await.ok()?;
    let ip = socket.local_addr().ok()?.ip();
    Some(Peer { address: SocketAddr::new(ip, listen.port()) })
}

fn key_of(fleet: &FleetConfig) -> FleetKey {
    FleetKey::new(&fleet.namespace, &fleet.name)
}

fn spec(fleet: &FleetConfig) -> FleetSpec {
    let key = key_of(fleet);
    let port = match &fleet.source {
        EndpointSource::Static(endpoints) => endpoints.first().map_or(80, |e| e.address.port()),
        EndpointSource::Dns { port, .. } => *port,
    };
    let (upstream_host, host_header) = upstream_host(port);
    FleetSpec {
        uid: key.to_string(),
        key,
        path: fleet.path.clone(),
        transport: fleet.transport.into(),
        sessions: Sessions::Auto,
        upstream_host,
        host_header,
        settings: fleet.settings.clone(),
        scalable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::{
        config::StaticEndpoint,
        fleet::Phase,
        settings::Settings,
        test_support::{gateway, until},
    };

    fn at(port: u16) -> StaticEndpoint {
        StaticEndpoint {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            weight: 2,
            zone: Some("a".into()),
        }
    }

    fn config(source: EndpointSource) -> GatewayConfig {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        GatewayConfig {
            listen: any,
            admin_listen: any,
            debug_listen: any,
            peer_listen: Some(SocketAddr::from(([0, 0, 0, 0], 8082))),
            tls: Vec::new(),
            keys_file: None,
            peers: Vec::new(),
            reports: Vec::new(),
            fleets: vec![FleetConfig {
                namespace: "tools".into(),
                name: "github".into(),
                path: "/mcp".into(),
                transport: crate::api::v1alpha1::Transport::StreamableHTTP,
                hostnames: Vec::new(),
                source,
                settings: Settings::default(),
            }],
        }
    }

    fn shown(gateway: &Gateway) -> Vec<(u16, Phase)> {
        let fleet = gateway.fleet(&FleetKey::new("tools", "github")).unwrap();
        let view = fleet.view();
        view.endpoints.iter().map(|e| (e.address.port(), e.phase())).collect()
    }

    fn standalone() -> (Arc<Gateway>, Arc<Standalone>) {
        let gateway = gateway();
        let prober = Prober::new(Arc::clone(&gateway));
        (Arc::clone(&gateway), Standalone::new(gateway, prober, Some("b".into())))
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_leaves_the_file_drains_and_goes() {
        let (gateway, standalone) = standalone();
        standalone.apply(&config(EndpointSource::Static(vec![at(1), at(2)])));
        assert_eq!(shown(&gateway), [(1, Phase::Ready), (2, Phase::Ready)]);
        let fleet = gateway.fleet(&FleetKey::new("tools", "github")).unwrap();
        let first = Arc::clone(&fleet.view().endpoints[0]);
        assert_eq!((first.weight, first.local), (2, false), "weight and zone of the file");
        assert_eq!(fleet.view().spec.upstream_host, "localhost:1");
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&standalone).run(stop.clone()));
        standalone.apply(&config(EndpointSource::Static(vec![at(2)])));
        assert_eq!(shown(&gateway), [(2, Phase::Ready), (1, Phase::Draining)]);
        first.connections.store(1, std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(first.phase(), Phase::Draining, "somebody holds it");
        first.connections.store(0, std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((first.phase(), shown(&gateway)), (Phase::Gone, vec![(2, Phase::Ready)]));
        stop.cancel();
    }

    #[tokio::test]
    async fn one_that_comes_back_serves_again() {
        let (gateway, standalone) = standalone();
        standalone.apply(&config(EndpointSource::Static(vec![at(1)])));
        standalone.apply(&config(EndpointSource::Static(vec![])));
        standalone.apply(&config(EndpointSource::Static(vec![at(1)])));
        assert_eq!(shown(&gateway), [(1, Phase::Ready)]);
    }

    #[tokio::test]
    async fn names_are_looked_up_and_a_failure_keeps_what_is_known() {
        let (gateway, standalone) = standalone();
        let name = |name: &str| config(EndpointSource::Dns { name: name.into(), port: 9 });
        standalone.apply(&name("localhost"));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&standalone).run(stop.clone()));
        until("an address", || shown(&gateway).contains(&(9, Phase::Ready))).await;
        let known = shown(&gateway);
        standalone.apply(&name("no-such-host.invalid"));
        until("a failure", || gateway.metrics.source_errors.get() > 0).await;
        assert_eq!(shown(&gateway), known);
        stop.cancel();
    }

    #[tokio::test]
    async fn peers_and_the_way_to_them() {
        let (gateway, standalone) = standalone();
        let mut config = config(EndpointSource::Static(vec![at(1)]));
        config.peers = vec!["127.0.0.1:8083".into(), "127.0.0.1:8082".into()];
        standalone.apply(&config);
        let names = standalone.names.lock().clone();
        standalone.look_up_peers(names).await;
        let peer = |port| Peer { address: SocketAddr::from(([127, 0, 0, 1], port)) };
        assert_eq!(**gateway.own.load(), Some(peer(8082)), "0.0.0.0 is reached over the way to a peer");
        assert_eq!(**gateway.peers.load(), [peer(8083)], "a list that names ourselves too does no harm");
    }
}
