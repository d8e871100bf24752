//! `mcp-fleet operator`: flags, and what is made of them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use kube::{Api, Client, Config};
use prometheus_client::{metrics::info::Info, registry::Registry};
use tokio::sync::mpsc;

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
    state::States,
    supervise::Everything,
    watches::Watches,
};
use crate::runtime::{
    admin::{Admin, Readiness},
    client::{self, CallMetrics, Retry},
    lease::{self, Elector, KubeStore, Leadership, LeaseMetrics, Timing},
    shutdown,
    telemetry::{self, LogFormat},
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

    /// `host:port` at which all gateways answer the operator: their headless Service. Without it their pods' load
    /// is not known, and a scale-down takes any.
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

    /// Name of this replica. In a pod: the pod's name, by the downward API.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod_name: Option<String>,

    /// Namespace of the Lease. In a pod: the pod's namespace, by the downward API.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pod_namespace: Option<String>,
}

/// Runs until a signal, or until something that must not end ends.
pub async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    let OperatorArgs {
        agent_image,
        agent_image_pull_policy,
        watch_namespace,
        admin_listen,
        log_format,
        log_level,
        lease_name,
        lease_duration_seconds,
        lease_renew_deadline_seconds,
        lease_retry_period_seconds,
        concurrency,
        reconcile_timeout_seconds,
        resync_seconds,
        pod_name,
        pod_namespace,
        gateway_url,
        gateway_namespace,
        gateway_peers,
        gateway_class,
    } = args;
    telemetry::init(log_format.unwrap_or_else(LogFormat::for_stderr), &log_level)?;
    let timing = Timing {
        duration: Duration::from_secs(lease_duration_seconds),
        renew_deadline: Duration::from_secs(lease_renew_deadline_seconds),
        retry_period: Duration::from_secs(lease_retry_period_seconds),
    }
    .validate()?;
    let stop = shutdown::on_signals().context("failed to listen for signals")?;
    let config = client::infer_config().await?;
    let namespace =
        pod_namespace.filter(|n| !n.is_empty()).unwrap_or_else(|| config.default_namespace.clone());
    let gateway =
        install(gateway_url, gateway_namespace.unwrap_or_else(|| namespace.clone()), gateway_class)?;
    let pod_name = pod_name.filter(|n| !n.is_empty()).unwrap_or_else(host_name);
    let watch_namespace = watch_namespace.filter(|n| !n.is_empty());

    let mut registry = Registry::default();
    let parts =
        Parts::build(&config, &mut registry, &namespace, &lease_name, lease::identity(&pod_name), timing)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        server = %config.cluster_url,
        watch = watch_namespace.as_deref().unwrap_or("all namespaces"),
        "starting the operator"
    );
    let readiness = Readiness::default();
    let admin = Admin::bind(admin_listen, Arc::new(registry), readiness.clone()).await?;

    let caches = Arc::new(Caches::default());
    let (touched, receiver) = mpsc::channel(TOUCHED_CAPACITY);
    let api = match &watch_namespace {
        Some(namespace) => Api::namespaced(parts.client.clone(), namespace),
        None => Api::all(parts.client.clone()),
    };
    let fleets = Fleets::watch(api, &parts.metrics);
    let watches = Watches {
        client: parts.client.clone(),
        namespace: watch_namespace,
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
        rendering: Rendering { agent_image, agent_image_pull_policy },
        gateway,
        learned: Learned::default(),
        backoff: Backoff::default(),
        states: States::default(),
        timeout: Duration::from_secs(reconcile_timeout_seconds),
        resync: Duration::from_secs(resync_seconds),
    });
    let elector = parts.elector;
    let gateways = gateway_peers.filter(|peers| !peers.is_empty()).map(|peers| Gateways {
        ctx: Arc::clone(&ctx),
        peers,
        touched,
    });
    Everything {
        admin,
        watches,
        fleets,
        gateways,
        touched: receiver,
        ctx,
        elector,
        readiness,
        concurrency,
        stop,
    }
    .run()
    .await
}

/// The gateway that the flags describe. The chart leaves flags empty that do not apply.
fn install(url: Option<String>, namespace: String, classes: Vec<String>) -> anyhow::Result<Option<Install>> {
    let url = url.filter(|url| !url.is_empty());
    Ok(url.map(|url| Install::new(&url, namespace, classes)).transpose()?)
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
