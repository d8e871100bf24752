//! Flags and environment of `mcp-fleet gateway`, and nothing else.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use crate::runtime::telemetry::LogFormat;

/// How `--check` reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

/// Flags of `mcp-fleet gateway`. With `--config` it serves what the file names; without, the McpFleets of the
/// cluster.
#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// File with fleets and endpoints, for use without Kubernetes. Read again when it changes.
    #[arg(long, env = "MCP_FLEET_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the file, say all that is wrong with it, and end.
    #[arg(long, requires = "config")]
    pub check: bool,

    /// Form of what --check says.
    #[arg(long, value_enum, default_value_t, requires = "check")]
    pub output: CheckOutput,

    /// Run without a key file: identifiers are sealed with a key that nobody else has and that ends with the
    /// process. For one gateway, and for trying things.
    #[arg(long, requires = "config")]
    pub ephemeral_key: bool,

    /// Where clients come in. With --config the file says it.
    #[arg(long, env = "MCP_FLEET_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// Address of /livez, /readyz and /metrics. With --config the file says it.
    #[arg(long, env = "MCP_FLEET_ADMIN_LISTEN", default_value = "0.0.0.0:9090", value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,

    /// Address of /admin, read-only. With --config the file says it.
    #[arg(long, env = "MCP_FLEET_DEBUG_LISTEN", default_value = "127.0.0.1:9091", value_name = "ADDRESS")]
    pub debug_listen: SocketAddr,

    /// Where the other gateways and the operator ask this one. With --config the file says it.
    #[arg(long, env = "MCP_FLEET_PEER_LISTEN", default_value = "0.0.0.0:8082", value_name = "ADDRESS")]
    pub peer_listen: SocketAddr,

    /// File with the keys that seal identifiers, the same for all gateways. With --config the file says it.
    #[arg(long, env = "MCP_FLEET_KEYS_FILE", value_name = "FILE")]
    pub keys_file: Option<PathBuf>,

    /// Fleets of this class are served.
    #[arg(long, env = "MCP_FLEET_CLASS", default_value = "default", value_name = "CLASS")]
    pub class: String,

    /// The only namespace whose fleets are served. Without it: all namespaces.
    #[arg(long, env = "MCP_FLEET_WATCH_NAMESPACE", value_name = "NAMESPACE")]
    pub watch_namespace: Option<String>,

    /// Headless Service of the gateways, by which they find each other.
    #[arg(long, env = "MCP_FLEET_PEERS_SERVICE", value_name = "NAME")]
    pub peers_service: Option<String>,

    /// Own address. In a pod: by the downward API.
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    pub pod_ip: Option<IpAddr>,

    /// Name of this gateway. In a pod: the pod's name, by the downward API.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,

    /// Namespace of the gateways. In a pod: by the downward API.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub pod_namespace: Option<String>,

    /// Name of the Service that clients call; its names are accepted as Host.
    #[arg(long, env = "MCP_FLEET_SERVICE", default_value = "mcp-fleet-gateway", value_name = "NAME")]
    pub service: String,

    /// Receivers of load reports, as URLs; every address of a host gets all. With --config the file says it.
    #[arg(long, env = "MCP_FLEET_REPORTS", value_delimiter = ',', value_name = "URL")]
    pub reports: Vec<String>,

    /// File with the bearer token of load reports; read again for each.
    #[arg(long, env = "MCP_FLEET_REPORTS_TOKEN_FILE", value_name = "FILE")]
    pub reports_token_file: Option<PathBuf>,

    /// File with the CA certificates of receivers of load reports. It may come later, and change: it is read
    /// again each second.
    #[arg(long, env = "MCP_FLEET_REPORTS_CA_FILE", value_name = "FILE")]
    pub reports_ca_file: Option<PathBuf>,

    /// ConfigMap in the namespace of the gateways with the same certificates, in keys that end with `.crt`: it is watched,
    /// and goes before the file, which a kubelet updates late and which counts until this is read. In a cluster only.
    #[arg(long, env = "MCP_FLEET_REPORTS_CA_CONFIG_MAP", value_name = "NAME", requires = "reports_ca_file")]
    pub reports_ca_config_map: Option<String>,

    /// Hosts that clients may name beside the Service's names, the fleets' host names and loopback; `*.name` for
    /// all below a name, `*` for all.
    #[arg(long, env = "MCP_FLEET_ALLOWED_HOSTS", value_delimiter = ',', value_name = "HOST")]
    pub allowed_hosts: Vec<String>,

    /// Answers say in X-Served-By which pod they come from.
    #[arg(long, env = "MCP_FLEET_EXPOSE_SERVED_BY")]
    pub expose_served_by: bool,

    /// One JSON line per request on standard output.
    #[arg(long, env = "MCP_FLEET_ACCESS_LOG", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub access_log: bool,

    /// Threads that carry traffic. Without it: one per core that the process may use.
    #[arg(long, env = "MCP_FLEET_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,

    /// Own zone; endpoints of the same zone are preferred.
    #[arg(long, env = "MCP_FLEET_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,

    /// From the wish to end to the last connection that is taken: as long as the news takes to everybody.
    #[arg(long, env = "MCP_FLEET_SHUTDOWN_DELAY_SECONDS", default_value_t = 5, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=300))]
    pub shutdown_delay_seconds: u64,

    /// Longest time for running calls after that.
    #[arg(long, env = "MCP_FLEET_SHUTDOWN_TIMEOUT_SECONDS", default_value_t = 30, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub shutdown_timeout_seconds: u64,

    /// How logs are written. Without it: text on a terminal, JSON elsewhere.
    #[arg(long, env = "MCP_FLEET_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// What is logged: error, warn, info, debug or trace, also per module.
    #[arg(long, env = "MCP_FLEET_LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub log_level: String,
}
