//! `make bench-reconcile N=500`: what the operator costs and how fast it is, on a real control plane with
//! fake nodes. The targets and how each is measured stand in `benches/README.md`.
//!
//! This process starts the cluster, then starts itself again inside the cluster's network: there the plain
//! client, the operator and the API server talk directly, over the same path.
#![allow(
    unreachable_pub,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types,
    missing_docs,
    reason = "a benchmark: it talks to a person and measures on the wall clock"
)]

#[path = "reconcile/audit.rs"]
mod audit;
#[path = "reconcile/bench.rs"]
mod bench;
#[path = "reconcile/fleets.rs"]
mod fleets;
#[path = "reconcile/phases.rs"]
mod phases;
#[path = "reconcile/process.rs"]
mod process;
#[path = "reconcile/repair.rs"]
mod repair;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use mcp_fleet_cluster::{Cluster, Tier};

/// Namespace and ServiceAccount of the operator in `deploy/`.
const NAMESPACE: &str = "mcp-fleet-system";
const SERVICE_ACCOUNT: &str = "mcp-fleet-operator";

#[derive(Parser)]
#[command(about = "Measures the operator on a real control plane with fake nodes")]
struct Args {
    /// Fleets that are applied at once.
    #[arg(long, default_value_t = 500)]
    n: usize,
    /// The phases up to the creation of the fleets alone.
    #[arg(long)]
    creation_only: bool,
    /// Another build of the operator, to compare it with.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_mcp-fleet"))]
    operator: PathBuf,
    /// Internal: the folder of the cluster that this process is inside of.
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
    /// Internal: process id of the API server.
    #[arg(long, hide = true, default_value_t = 0)]
    api_server: u32,
    /// Internal: kubeconfig of the operator.
    #[arg(long, hide = true)]
    operator_kubeconfig: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(scratch) = args.inside {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = bench::Settings {
            n: args.n,
            creation_only: args.creation_only,
            audit: scratch.join("audit.log"),
            log: scratch.join("operator.log"),
            api_server: args.api_server,
            operator: args.operator,
            operator_kubeconfig: args.operator_kubeconfig.context("--operator-kubeconfig is missing")?,
        };
        return tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(bench::run(settings));
    }
    outside(&args)
}

/// Starts the cluster with the CRD and the operator's rights, and this program inside its network.
fn outside(args: &Args) -> anyhow::Result<ExitCode> {
    if let Err(reason) = Tier::T2.available() {
        println!("skipped: {}: {reason}", Tier::T2);
        return Ok(ExitCode::SUCCESS);
    }
    // One pod for each fleet, as many again for the plain client's and for surges, 110 on each node.
    let n_nodes = 2 + args.n * 3 / 110;
    println!("starting a T2 cluster with {n_nodes} fake nodes");
    let cluster = Cluster::builder(Tier::T2).name("bench").kwok_nodes(n_nodes).start()?;
    let crd = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/mcpfleets.yaml");
    cluster.apply(&fs::read_to_string(crd)?)?;
    // Not `kubectl wait`: it fails on an object that has no conditions yet.
    cluster.wait_until("the CRD to be served", Duration::from_secs(30), || {
        let get = ["get", "--raw", "/apis/mcpfleet.io/v1alpha1/mcpfleets?limit=1"];
        cluster.kubectl_ok(get).map(drop).map_err(|e| e.to_string())
    })?;
    install_rights(&cluster)?;
    let token = cluster.service_account_token(NAMESPACE, SERVICE_ACCOUNT)?;
    let kubeconfig = cluster.token_kubeconfig_inside("operator", &token)?;
    let mut command = cluster.command_inside(std::env::current_exe()?);
    command.arg("--inside").arg(cluster.scratch()).args(["--n", &args.n.to_string()]);
    command.arg("--operator-kubeconfig").arg(kubeconfig).arg("--operator").arg(&args.operator);
    let api_server = cluster.component_pid("kube-apiserver").context("the API server does not run")?;
    command.args(["--api-server", &api_server.to_string()]);
    if args.creation_only {
        command.arg("--creation-only");
    }
    let status = command.status().context("failed to start inside the cluster's network")?;
    if !status.success() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/reports/bench-reconcile-operator.log");
        if fs::copy(cluster.scratch().join("operator.log"), &kept).is_ok() {
            println!("the operator's log: {}", kept.display());
        }
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The namespace and exactly the rights that are deployed, without the workload.
fn install_rights(cluster: &Cluster) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    cluster.apply(&fs::read_to_string(root.join("deploy/namespace.yaml"))?)?;
    let manifests = fs::read_to_string(root.join("deploy/operator.yaml"))?;
    let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let is_right = |m: &&str| kinds.iter().any(|kind| m.lines().any(|l| l == format!("kind: {kind}")));
    let rights: Vec<&str> = manifests.split("\n---").filter(is_right).collect();
    if rights.len() < kinds.len() {
        bail!("deploy/operator.yaml has {} objects of rights", rights.len());
    }
    Ok(cluster.apply(&rights.join("\n---\n"))?)
}
