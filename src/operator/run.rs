//! `mcp-fleet operator`: flags, and what is made of them.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use kube::{Api, Client, Config, ResourceExt, runtime::reflector::ObjectRef};
use prometheus_client::{metrics::info::Info, registry::Registry};
use tokio::sync::{Notify, mpsc, watch};

use super::{
    backoff::Backoff,
    controller::Fleets,
    desired::Rendering,
    gateway::Install,
    gateways::{Gateways, Learned},
    metrics::Metrics,
    observe::Caches,
    reconcile::Context,
    recorder::Recorder,
    scaler::{
        Clock, Scaler,
        poll::{GatewayCount, UsagePoll},
        tick::Loop,
    },
    scaling::ApiState,
    state::States,
    supervise::Everything,
    watches::Watches,
};
use crate::{
    autoscale::{
        board::Board,
        metrics_api::{self, MetricsApi, SamplesDropped},
    },
    domain::FleetKey,
    runtime::{
        admin::{Admin, Readiness},
        client::{self, CallMetrics, Retry},
        lease::{self, Elector, KubeStore, Leadership, LeaseMetrics, Timing},
        shutdown,
        telemetry::{self, LogFormat},
    },
};

/// Fleets named by watches and not yet handed on. A full channel makes the watches wait, and loses nothing.
const TOUCHED_CAPACITY: usize = 1024;

/// Flags of `mcp-fleet operator`.
#[derive(Debug, Args)]
pub struct OperatorArgs {
    /// Image with the drain helper that is put into the fleets' pods; usually the operator's own.
    #[arg(long, env = "MCP_FLEET_AGENT_IMAGE", value_name = "IMAGE")]
    agent_image: String,

    /// Pull policy of the agent image.
    #[arg(long, env = "MCP_FLEET_AGENT_IMAGE_PULL_POLICY", default_value = "IfNotPresent", value_name = "POLICY",
          value_parser = ["Always", "IfNotPresent", "Never"])]
    agent_image_pull_policy: String,

    /// The only namespace whose fleets are managed. Without it: all namespaces.
    #[arg(long, env = "MCP_FLEET_WATCH_NAMESPACE", value_name = "NAMESPACE")]
    watch_namespace: Option<String>,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "MCP_FLEET_ADMIN_LISTEN", default_value = "0.0.0.0:9090", value_name = "ADDRESS")]
    admin_listen: SocketAddr,

    /// How logs are written. Without it: text on a terminal, JSON elsewhere.
    #[arg(long, env = "MCP_FLEET_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,

    /// What is logged: error, warn, info, debug or trace, also per module, as in `info,kube=debug`.
    #[arg(long, env = "MCP_FLEET_LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    log_level: String,

    /// Name of the Lease by which the replicas elect the one that writes.
    #[arg(long, env = "MCP_FLEET_LEASE_NAME", default_value = "mcp-fleet-operator", value_name = "NAME")]
    lease_name: String,

    /// For how long other replicas leave an unchanged lease alone.
    #[arg(long, env = "MCP_FLEET_LEASE_DURATION_SECONDS", default_value_t = 15, value_name = "SECONDS")]
    lease_duration_seconds: u64,

    /// For how long the leader may write after the start of its last successful renewal.
    #[arg(
        long,
        env = "MCP_FLEET_LEASE_RENEW_DEADLINE_SECONDS",
        default_value_t = 10,
        value_name = "SECONDS"
    )]
    lease_renew_deadline_seconds: u64,

    /// Time between two renewals.
    #[arg(long, env = "MCP_FLEET_LEASE_RETRY_PERIOD_SECONDS", default_value_t = 2, value_name = "SECONDS")]
    lease_retry_period_seconds: u64,

    /// Fleets that are reconciled at the same time.
    #[arg(long, env = "MCP_FLEET_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,

    /// Longest time for one reconcile.
    #[arg(long, env = "MCP_FLEET_RECONCILE_TIMEOUT_SECONDS", default_value_t = 30, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=600))]
    reconcile_timeout_seconds: u64,

    /// Time after which a fleet at rest is compared again. It writes nothing where nothing changed.
    #[arg(long, env = "MCP_FLEET_RESYNC_SECONDS", default_value_t = 600, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(10..=86400))]
    resync_seconds: u64,

    /// Where clients reach the gateway, such as http://mcp-fleet-gateway.mcp-fleet-system. Without it the cluster
    /// has no gateway, and clients use the fleets' Services.
    #[arg(long, env = "MCP_FLEET_GATEWAY_URL", value_name = "URL")]
    gateway_url: Option<String>,

    /// Namespace of the gateway's pods. Without it: the operator's own.
    #[arg(long, env = "MCP_FLEET_GATEWAY_NAMESPACE", value_name = "NAMESPACE")]
    gateway_namespace: Option<String>,

    /// `host:port` at which all gateways answer the operator: their headless Service. Without it it is not known what
    /// servers speak, nor how many gateways should report their load.
    #[arg(long, env = "MCP_FLEET_GATEWAY_PEERS", value_name = "ADDRESS")]
    gateway_peers: Option<String>,

    /// Classes of fleets that the gateway serves.
    #[arg(
        long,
        env = "MCP_FLEET_GATEWAY_CLASS",
        default_value = "default",
        value_delimiter = ',',
        value_name = "CLASS"
    )]
    gateway_class: Vec<String>,

    /// Address of the TLS port: the metrics API for the autoscalers of fleets, and the gateways' load reports. Opened
    /// only with --metrics-api-service or --load-service.
    #[arg(long, env = "MCP_FLEET_API_LISTEN", default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    api_listen: SocketAddr,

    /// Service in the operator's namespace, with a port 443 called `https`, behind which the API server finds the
    /// metrics API. Without it there is none, and the operator writes the scale of fleets itself.
    #[arg(long, env = "MCP_FLEET_METRICS_API_SERVICE", value_name = "NAME")]
    metrics_api_service: Option<String>,

    /// Headless Service in the operator's namespace to which gateways report their load. Without it fleets scale by
    /// CPU and memory alone.
    #[arg(long, env = "MCP_FLEET_LOAD_SERVICE", value_name = "NAME")]
    load_service: Option<String>,

    /// ConfigMap in the operator's namespace in which the replicas publish their certificates; gateways mount it.
    #[arg(
        long,
        env = "MCP_FLEET_CA_CONFIG_MAP",
        default_value = "mcp-fleet-operator-ca",
        value_name = "NAME"
    )]
    ca_config_map: String,

    /// ServiceAccount of the gateways, in --gateway-namespace: whose tokens may report load.
    #[arg(long, env = "MCP_FLEET_GATEWAY_SERVICE_ACCOUNT", value_name = "NAME")]
    gateway_service_account: Option<String>,

    /// Audience that the gateways' tokens must name.
    #[arg(
        long,
        env = "MCP_FLEET_LOAD_AUDIENCE",
        default_value = "mcp-fleet-operator",
        value_name = "AUDIENCE"
    )]
    load_audience: String,

    /// File with a bearer token that gateways must show, instead of a ServiceAccount's: for an operator of one
    /// namespace, which may not have tokens reviewed.
    #[arg(long, env = "MCP_FLEET_LOAD_TOKEN_FILE", value_name = "FILE")]
    load_token_file: Option<PathBuf>,

    /// Name of this replica. In a pod: the pod's name, by the downward API.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod_name: Option<String>,

    /// Namespace of the Lease. In a pod: the pod's namespace, by the downward API.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pod_namespace: Option<String>,
}

/// Runs until a signal, or until something that must not end ends.
pub async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    telemetry::init(args.log_format.unwrap_or_else(LogFormat::for_stderr), &args.log_level)?;
    let timing = Timing {
        duration: Duration::from_secs(args.lease_duration_seconds),
        renew_deadline: Duration::from_secs(args.lease_renew_deadline_seconds),
        retry_period: Duration::from_secs(args.lease_retry_period_seconds),
    }
    .validate()?;
    let stop = shutdown::on_signals().context("failed to listen for signals")?;
    let config = client::infer_config().await?;
    let of = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
    let namespace = of(&args.pod_namespace).unwrap_or_else(|| config.default_namespace.clone());
    let gateway_namespace = of(&args.gateway_namespace).unwrap_or_else(|| namespace.clone());
    let gateway = install(of(&args.gateway_url), &gateway_namespace, args.gateway_class.clone())?;
    let pod_name = of(&args.pod_name).unwrap_or_else(host_name);
    let watch_namespace = of(&args.watch_namespace);

    let mut registry = Registry::default();
    let identity = lease::identity(&pod_name);
    let parts = Parts::build(&config, &mut registry, &namespace, &args.lease_name, identity, timing)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        server = %config.cluster_url,
        watch = watch_namespace.as_deref().unwrap_or("all namespaces"),
        "starting the operator"
    );
    let readiness = Readiness::default();
    let caches = Arc::new(Caches::default());
    let (touched, receiver) = mpsc::channel(TOUCHED_CAPACITY);
    let (changed_to, changed) = mpsc::channel(TOUCHED_CAPACITY);
    let api = match &watch_namespace {
        Some(namespace) => Api::namespaced(parts.client.clone(), namespace),
        None => Api::all(parts.client.clone()),
    };
    let fleets = Fleets::watch(api, &parts.metrics, changed_to);
    let rim = Rim { namespace, pod_name: pod_name.clone(), gateway_namespace };
    let (scaler, metrics_api) = scaling(&args, rim, &parts, &fleets, &readiness, &mut registry).await?;
    registry.register_collector(Box::new(scaler.collector()));
    let admin = Admin::bind(args.admin_listen, Arc::new(registry), readiness.clone()).await?;

    let watches = Watches {
        client: parts.client.clone(),
        namespace: watch_namespace.clone(),
        caches: Arc::clone(&caches),
        touched: touched.clone(),
        metrics: parts.metrics.clone(),
    };
    let ctx = Arc::new(Context {
        recorder: Recorder::new(parts.client.clone(), &pod_name),
        client: parts.client,
        leadership: parts.leadership,
        caches,
        metrics: parts.metrics,
        rendering: Rendering {
            agent_image: args.agent_image,
            agent_image_pull_policy: args.agent_image_pull_policy,
        },
        gateway,
        learned: Learned::default(),
        scaler,
        newcomers: Arc::clone(&fleets.newcomers),
        backoff: Backoff::default(),
        states: States::default(),
        timeout: Duration::from_secs(args.reconcile_timeout_seconds),
        resync: Duration::from_secs(args.resync_seconds),
    });
    let peers = of(&args.gateway_peers);
    Everything {
        admin,
        watches,
        gateways: peers.clone().map(|peers| Gateways {
            ctx: Arc::clone(&ctx),
            peers,
            touched: touched.clone(),
        }),
        count: peers.map(|peers| GatewayCount { ctx: Arc::clone(&ctx), peers }),
        usage: UsagePoll { ctx: Arc::clone(&ctx), namespace: watch_namespace },
        scaler: Loop {
            ctx: Arc::clone(&ctx),
            fleets: fleets.store.clone(),
            synced: Arc::clone(&fleets.synced),
            changed,
            touched,
        },
        metrics_api,
        fleets,
        touched: receiver,
        ctx,
        elector: parts.elector,
        readiness,
        concurrency: args.concurrency,
        stop,
    }
    .run()
    .await
}

/// Where this replica is.
struct Rim {
    namespace: String,
    pod_name: String,
    gateway_namespace: String,
}

/// The scaler, and the port that it shares its knowledge with, if there is one.
async fn scaling(
    args: &OperatorArgs,
    rim: Rim,
    parts: &Parts,
    fleets: &Fleets,
    readiness: &Readiness,
    registry: &mut Registry,
) -> anyhow::Result<(Scaler, Option<MetricsApi>)> {
    let clock = Clock::start();
    let (ledger, board, urgent) = (Arc::default(), Arc::new(Board::default()), Arc::new(Notify::new()));
    let of = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
    let config = metrics_api::Config {
        listen: args.api_listen,
        namespace: rim.namespace,
        pod_name: rim.pod_name,
        metrics_api_service: of(&args.metrics_api_service),
        load_service: of(&args.load_service),
        ca_config_map: args.ca_config_map.clone(),
        gateway_user: of(&args.gateway_service_account)
            .map(|name| format!("system:serviceaccount:{}:{name}", rim.gateway_namespace)),
        audience: args.load_audience.clone(),
        load_token_file: args.load_token_file.clone().filter(|file| !file.as_os_str().is_empty()),
    };
    if config.metrics_api_service.is_none() && config.load_service.is_none() {
        let disabled = watch::channel(ApiState::Disabled).1;
        return Ok((Scaler::new(clock, ledger, board, urgent, disabled), None));
    }
    let store = fleets.store.clone();
    let labels = move |key: &FleetKey| {
        let fleet = store.get(&ObjectRef::new(&key.name).within(&key.namespace))?;
        Some(fleet.labels().clone())
    };
    let shared = metrics_api::Parts {
        client: parts.client.clone(),
        leadership: parts.leadership.clone(),
        board: Arc::clone(&board),
        ledger: Arc::clone(&ledger),
        urgent: Arc::clone(&urgent),
        clock: Arc::new(move || clock.now()),
        labels: Arc::new(labels),
        dropped: SamplesDropped::register(registry),
    };
    let api = MetricsApi::bind(config, shared, readiness, registry).await?;
    Ok((Scaler::new(clock, ledger, board, urgent, api.state()), Some(api)))
}

/// The gateway that the flags describe. The chart leaves flags empty that do not apply.
fn install(url: Option<String>, namespace: &str, classes: Vec<String>) -> anyhow::Result<Option<Install>> {
    Ok(url.map(|url| Install::new(&url, namespace.to_owned(), classes)).transpose()?)
}

/// What is made of the configuration of the client.
struct Parts {
    client: Client,
    metrics: Metrics,
    elector: Elector<KubeStore>,
    leadership: Leadership,
}

impl Parts {
    fn build(
        config: &Config,
        registry: &mut Registry,
        namespace: &str,
        lease_name: &str,
        identity: String,
        timing: Timing,
    ) -> anyhow::Result<Self> {
        let calls = CallMetrics::register(registry);
        let metrics = Metrics::register(registry);
        registry.register(
            "mcp_fleet_build",
            "Version of this binary",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let client = client::build(config.clone(), Retry::Few, &calls)?;
        let store =
            KubeStore::new(client::build(config.clone(), Retry::Never, &calls)?, namespace, lease_name);
        let lease_metrics = LeaseMetrics::register(registry.sub_registry_with_prefix("mcp_fleet_operator"));
        let (elector, leadership) = Elector::new(store, identity, timing, lease_metrics);
        Ok(Self { client, metrics, elector, leadership })
    }
}

fn host_name() -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = from_kernel.trim();
    if name.is_empty() { "mcp-fleet".into() } else { name.to_owned() }
}
