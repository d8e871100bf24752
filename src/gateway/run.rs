//! `mcp-fleet gateway`: from flags to threads, and to their orderly end.
//!
//! ```text
//! control runtime: sources → Gateway ← probes, anchors, peers, admin, reports
//! data threads:    acceptor → connection → proxy, each on its own thread
//! ```

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use kube::Client;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    access_log::AccessLog,
    admin,
    args::{CheckOutput, GatewayArgs},
    config::{
        self, GatewayConfig,
        check::{Output, check},
        watch::{Event, Watcher},
    },
    conn::{
        Limits, socket,
        tls::{Certificates, Entry},
    },
    control::{
        cluster::{Cluster, ClusterArgs, PeersArgs, authority, own_peer},
        probe::Prober,
        standalone::Standalone,
    },
    drain,
    fleet::Clock,
    keys,
    listener::{Data, Threads},
    metrics::{Done, Metrics},
    peering,
    reports::{self, Receivers},
    routing::{HostPolicy, Routes, service_names},
    seal::KeyRing,
    session,
    shared::{Gateway, Options, Snapshot},
};
use crate::runtime::{
    admin::{Admin, Blocker, Readiness},
    client::{self, CallMetrics, Retry},
    shutdown,
    telemetry::{self, LogFormat},
};

/// Fleets tick this often: breakers, outlook of the balancer, sessions that idle.
const TICK: Duration = Duration::from_secs(1);
/// Sessions are looked through every so many ticks.
const SESSION_TICKS: u64 = 5;
/// How often it is looked whether all connections have ended.
const LOOK: Duration = Duration::from_millis(50);

/// Says what is wrong with a configuration file; whether nothing is.
pub fn check_config(args: &GatewayArgs) -> anyhow::Result<(String, bool)> {
    let path = args.config.as_deref().context("--check needs --config")?;
    let output = match args.output {
        CheckOutput::Text => Output::Text,
        CheckOutput::Json => Output::Json,
    };
    let report = check(path, output);
    Ok((report.text, report.valid))
}

/// What flags and file say together.
struct Setup {
    listen: SocketAddr,
    admin_listen: SocketAddr,
    debug_listen: SocketAddr,
    peer_listen: Option<SocketAddr>,
    tls: Vec<Entry>,
    keys_file: Option<PathBuf>,
    reports: Vec<String>,
    config: Option<Arc<GatewayConfig>>,
}

impl Setup {
    fn of(args: &GatewayArgs) -> anyhow::Result<Self> {
        let Some(path) = &args.config else {
            return Ok(Self {
                listen: args.listen,
                admin_listen: args.admin_listen,
                debug_listen: args.debug_listen,
                peer_listen: Some(args.peer_listen),
                tls: Vec::new(),
                keys_file: args.keys_file.clone(),
                reports: args.reports.clone(),
                config: None,
            });
        };
        let config = config::load(path)?;
        let tls = tls_entries(&config);
        Ok(Self {
            listen: config.listen,
            admin_listen: config.admin_listen,
            debug_listen: config.debug_listen,
            peer_listen: config.peer_listen,
            tls,
            keys_file: config.keys_file.clone(),
            reports: config.reports.clone(),
            config: Some(Arc::new(config)),
        })
    }
}

fn tls_entries(config: &GatewayConfig) -> Vec<Entry> {
    let entry =
        |e: &config::TlsEntry| Entry { hosts: e.hosts.clone(), cert: e.cert.clone(), key: e.key.clone() };
    config.tls.iter().map(entry).collect()
}

/// Runs until a signal, or until something that must not end ends.
pub async fn run(args: GatewayArgs) -> anyhow::Result<()> {
    telemetry::init(args.log_format.unwrap_or_else(LogFormat::for_stderr), &args.log_level)?;
    let stop = shutdown::on_signals().context("failed to listen for signals")?;
    let setup = Setup::of(&args)?;
    let mut registry = Registry::default();
    let gateway = Arc::new(build(&args, &setup, &mut registry)?);
    let certificates =
        if setup.tls.is_empty() { None } else { Some(Arc::new(Certificates::load(setup.tls.clone())?)) };
    let readiness = Readiness::default();
    let starting = readiness.blocker("the listener");

    let ended = CancellationToken::new();
    let mut tasks = Tasks { set: JoinSet::new(), ended: ended.clone() };
    let prober = Prober::new(Arc::clone(&gateway));
    tasks.forever("probes", prober.clone().run(ended.clone()));
    tasks.forever("anchors", drain::run(Arc::clone(&gateway), ended.clone()));
    tasks.forever("ticks", tick(Arc::clone(&gateway)));
    tasks.forever("keys", keys::watch(Arc::clone(&gateway), setup.keys_file.clone()));
    if let Some(certificates) = &certificates {
        tasks.forever("certificates", Arc::clone(certificates).watch());
    }
    let receivers =
        Receivers::new(&setup.reports, args.reports_token_file.clone(), args.reports_ca_file.clone())?;
    let certificates_too = certificates.clone();
    let cluster =
        sources(&mut tasks, &args, &setup, &gateway, prober, &readiness, &mut registry, certificates_too)
            .await?;
    let namespace = args.pod_namespace.clone().filter(|n| !n.is_empty());
    if let Some(((client, name), namespace)) = cluster.zip(args.reports_ca_config_map.clone()).zip(namespace)
    {
        tasks.forever("receivers' CA", authority::watch(client, namespace, name, receivers.authority()));
    }
    let urgent = Arc::clone(&gateway.urgent);
    tasks.until_told("load reports", reports::run(Arc::clone(&gateway), receivers, urgent, ended.clone()));
    let admin = Admin::bind(setup.admin_listen, Arc::new(registry), readiness.clone()).await?;
    tasks.forever("admin", admin.serve(ended.clone()));
    let debug = admin::bind(setup.debug_listen, Arc::clone(&gateway)).await?;
    tasks.forever("debug", debug.serve(ended.clone()));
    if let Some(address) = setup.peer_listen {
        let listener = listen(address, "peers")?;
        tasks.forever("peers", peering::run(Arc::clone(&gateway), listener, ended.clone()));
    }

    // Where moved sessions live has to be known before the first request.
    session::learn_from_peers(&gateway).await;
    let data = Data {
        gateway: Arc::clone(&gateway),
        log: AccessLog::new(args.access_log, &gateway.metrics)?,
        tls: certificates,
        limits: Limits::default(),
        draining: CancellationToken::new(),
        open: Arc::new(AtomicUsize::new(0)),
    };
    let n = args.threads.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    let threads = Threads::start(n, &data).context("failed to start the data threads")?;
    let listener = listen(setup.listen, "clients")?;
    let address = listener.local_addr()?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, threads = n, "the gateway serves");
    drop(starting);

    let accepting = CancellationToken::new();
    tokio::select! {
        () = threads.accept(listener, accepting.clone()) => anyhow::bail!("the listener ended"),
        ended = tasks.set.join_next() => match ended {
            Some(Ok(name)) => anyhow::bail!("the task of the {name} ended"),
            Some(Err(error)) => return Err(error).context("a task of the gateway failed"),
            None => anyhow::bail!("nothing runs"),
        },
        () = leave(&args, &gateway, &readiness, stop) => {}
    }
    end(&args, &gateway, &data).await;
    ended.cancel();
    let rest = reports::FAREWELL + Duration::from_millis(500);
    let _ = timeout(rest, async { while tasks.set.join_next().await.is_some() {} }).await;
    Ok(())
}

fn listen(address: SocketAddr, whom: &str) -> anyhow::Result<TcpListener> {
    let listener = socket::listen(address)
        .with_context(|| format!("failed to listen on {address} for {whom}; choose another address"))?;
    Ok(TcpListener::from_std(listener)?)
}

/// Tasks that end with the process.
struct Tasks {
    set: JoinSet<&'static str>,
    ended: CancellationToken,
}

impl Tasks {
    fn forever(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        self.set.spawn(async move {
            let _ = ended.run_until_cancelled(task).await;
            name
        });
    }

    /// The same for one that has something left to do when it is told to end.
    fn until_told(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.set.spawn(async move {
            task.await;
            name
        });
    }
}

fn build(args: &GatewayArgs, setup: &Setup, registry: &mut Registry) -> anyhow::Result<Gateway> {
    let ring = match (&setup.keys_file, args.ephemeral_key) {
        (Some(path), _) => keys::load(path)?,
        (None, true) => KeyRing::ephemeral()?,
        (None, false) => anyhow::bail!(
            "no key file: identifiers of sessions and tasks have to be sealed with keys that survive a restart \
             and that all gateways share; set keys.file (or --keys-file), or try it with --ephemeral-key"
        ),
    };
    let namespace = args.pod_namespace.as_deref().unwrap_or_default();
    let own = service_names(&args.service, namespace);
    let hosts = own.iter().filter(|_| args.config.is_none()).chain(&args.allowed_hosts);
    let name = args.pod_name.clone().filter(|n| !n.is_empty()).unwrap_or_else(host_name);
    Ok(Gateway {
        clock: Clock::start(),
        options: Options { name, expose_served_by: args.expose_served_by, ..Options::default() },
        snapshot: ArcSwap::from_pointee(Snapshot { fleets: Vec::new(), routes: Routes::default() }),
        hosts: ArcSwap::from_pointee(HostPolicy::new(hosts)),
        keys: ArcSwap::from_pointee(ring),
        peers: ArcSwap::from_pointee(Vec::new()),
        own: ArcSwap::from_pointee(None),
        metrics: Metrics::register(registry),
        urgent: Arc::new(Notify::new()),
        ending: AtomicBool::new(false),
        closing: CancellationToken::new(),
        writing: Mutex::new(()),
    })
}

fn host_name() -> String {
    let read = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = read.trim();
    if name.is_empty() { "gateway".to_owned() } else { name.to_owned() }
}

/// Where fleets and endpoints come from.
#[expect(clippy::too_many_arguments, reason = "the parts of the process, put together once")]
async fn sources(
    tasks: &mut Tasks,
    args: &GatewayArgs,
    setup: &Setup,
    gateway: &Arc<Gateway>,
    prober: Prober,
    readiness: &Readiness,
    registry: &mut Registry,
    certificates: Option<Arc<Certificates>>,
) -> anyhow::Result<Option<Client>> {
    let ended = tasks.ended.clone();
    if let (Some(config), Some(path)) = (&setup.config, &args.config) {
        let standalone = Standalone::new(Arc::clone(gateway), prober, args.zone.clone());
        standalone.apply(config);
        tasks.forever("names", Arc::clone(&standalone).run(ended.clone()));
        let watcher = Watcher::new(path.clone(), Arc::clone(config));
        let metrics = Arc::clone(&gateway.metrics);
        let hook = move |event| match event {
            Event::Reloaded { config, .. } => {
                standalone.apply(&config);
                let replaced = certificates.as_ref().map(|c| c.replace(tls_entries(&config)));
                if let Some(Err(error)) = replaced {
                    tracing::error!(%error, "certificates not reloaded; the old ones stay in use");
                }
                metrics.reloads.inc(Done::Ok);
            }
            Event::Refused(_) => metrics.reloads.inc(Done::Failed),
        };
        tasks.forever("configuration", config::watch::watch(watcher, ended, hook));
        return Ok(None);
    }
    let calls = CallMetrics::register(registry);
    let cluster_config = client::infer_config().await?;
    let client = client::build(cluster_config, Retry::Few, &calls)?;
    let namespace = args.pod_namespace.clone().filter(|n| !n.is_empty());
    let peers = args.peers_service.clone().filter(|s| !s.is_empty()).zip(namespace).zip(args.pod_ip);
    let peers = peers.map(|((service, namespace), ip)| PeersArgs {
        namespace,
        service,
        own: own_peer(ip, args.peer_listen),
    });
    let scope = ClusterArgs {
        namespace: args.watch_namespace.clone().filter(|n| !n.is_empty()),
        class: args.class.clone(),
        zone: args.zone.clone(),
        peers,
    };
    let (cluster, watches) = Cluster::new(&client, Arc::clone(gateway), prober, readiness, scope);
    for (name, watch) in watches {
        tasks.forever(name, watch);
    }
    tasks.forever("cluster", cluster.run(ended));
    Ok(Some(client))
}

/// What changes with time alone.
async fn tick(gateway: Arc<Gateway>) {
    let mut ticks = interval(TICK);
    let mut n = 0_u64;
    loop {
        ticks.tick().await;
        n += 1;
        let (snapshot, now) = (gateway.snapshot.load_full(), gateway.clock.now());
        for fleet in &snapshot.fleets {
            fleet.tick(now);
            if n.is_multiple_of(SESSION_TICKS) {
                fleet.count_sessions(now);
            }
        }
    }
}

/// Waits for the wish to end, and then for everybody to hear of it: not ready any more, but still serving.
async fn leave(args: &GatewayArgs, gateway: &Gateway, readiness: &Readiness, stop: CancellationToken) {
    stop.cancelled().await;
    gateway.ending.store(true, Ordering::Release);
    let _ending: Blocker = readiness.blocker("the end of this process");
    tracing::info!(seconds = args.shutdown_delay_seconds, "not ready any more; still serving");
    sleep(Duration::from_secs(args.shutdown_delay_seconds)).await;
}

/// Running answers come to their end, streams are ended, and at the deadline what is left is cut.
async fn end(args: &GatewayArgs, gateway: &Gateway, data: &Data) {
    data.draining.cancel();
    gateway.closing.cancel();
    let deadline = Instant::now() + Duration::from_secs(args.shutdown_timeout_seconds);
    while data.open.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    match data.open.load(Ordering::Relaxed) {
        0 => tracing::info!("all connections have ended"),
        cut => {
            for fleet in &gateway.snapshot.load().fleets {
                fleet.metrics.drain_cut.add(fleet.active.load(Ordering::Relaxed) as u64);
            }
            tracing::warn!(cut, "cut at the deadline");
        }
    }
}
