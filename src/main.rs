//! `mcp-fleet`: arguments → subcommand; nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mcp_fleet::{
    api::crd,
    autoscale::metrics_api::cleanup::{self, CleanupArgs},
    gateway::args::GatewayArgs,
    operator::run::OperatorArgs,
    runtime::chain::Chain,
    simulate::{self, SimulateArgs},
};

/// See `Cargo.toml`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Manages fleets of MCP (Model Context Protocol) servers on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "mcp-fleet", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator: it makes Deployments, Services, autoscalers and policies of McpFleet objects.
    Operator(Box<OperatorArgs>),
    /// Run the gateway: it balances MCP traffic over the pods of fleets.
    Gateway(Box<GatewayArgs>),
    /// Remove the APIService and the ConfigMap that the operator has made for itself, before it is uninstalled.
    Cleanup(CleanupArgs),
    /// Print the CustomResourceDefinition, for `kubectl apply --server-side -f -`.
    Crds,
    /// Try autoscaling without a cluster: a fleet's policy beside others, call by call.
    Simulate(Box<SimulateArgs>),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let result = match command {
        Command::Operator(args) => operator(*args),
        Command::Gateway(args) => gateway(*args),
        Command::Cleanup(args) => cleanup(args),
        Command::Crds => print(&crd::mcpfleet_crd_yaml()),
        Command::Simulate(args) => simulate::run(&args).map_err(Into::into).and_then(|text| print(&text)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("mcp-fleet: {}\n", Chain(error.as_ref())),
            );
            ExitCode::FAILURE
        }
    }
}

fn operator(args: OperatorArgs) -> anyhow::Result<()> {
    // Only a second provider in the same process could make it fail, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(mcp_fleet::operator::run::run(args))
}

fn gateway(args: GatewayArgs) -> anyhow::Result<()> {
    if args.check {
        let (text, valid) = mcp_fleet::gateway::run::check_config(&args)?;
        print(&text)?;
        anyhow::ensure!(valid, "the configuration cannot be used");
        return Ok(());
    }
    // See `operator`.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()?
        .block_on(mcp_fleet::gateway::run::run(args))
}

fn cleanup(args: CleanupArgs) -> anyhow::Result<()> {
    // See `operator`.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let say = |line: &str| {
        let _ = print(&format!("{line}\n"));
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(cleanup::run(args, say))
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?)
}
