//! `cluster`: a Kubernetes of one's own on one Linux machine, from the command line. Only parses, calls the
//! library and prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command line is for")]
#![allow(clippy::doc_markdown, reason = "the comments are the help texts")]

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mcp_fleet_cluster::image::Image;
use mcp_fleet_cluster::{Cluster, Error, Result, Tier};

/// A real Kubernetes on this machine, without Docker: for trying things out, and for the tests.
///
/// Everything runs as plain processes in a network namespace of its own; the machine's routes, rules and
/// settings are not touched, and `cluster down` removes it without a trace. Needs root.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster and leave it running
    ///
    /// Tier 1: etcd and the API server. Tier 2: and the controllers, the scheduler and fake nodes. Tier 3: and
    /// real nodes (kubelet and containerd), kube-proxy, DNS and metrics.
    Up {
        /// How much of a cluster
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
        tier: u8,
        /// What to call it: 1 to 20 of a-z, 0-9, -
        #[arg(long, default_value = "demo")]
        name: String,
        /// Image file to import into every real node; may be given more than once
        #[arg(long = "image", value_name = "TAR")]
        images: Vec<PathBuf>,
        /// Real nodes (tier 3)
        #[arg(long, default_value_t = 2)]
        nodes: usize,
        /// Fake nodes [default: 3 in tier 2, else 0]
        #[arg(long)]
        kwok_nodes: Option<usize>,
        /// One more argument for the API server; may be given more than once
        #[arg(long = "api-arg", value_name = "--FLAG=VALUE", allow_hyphen_values = true)]
        api_args: Vec<String>,
        /// One more argument for the controller-manager; may be given more than once
        #[arg(long = "kcm-arg", value_name = "--FLAG=VALUE", allow_hyphen_values = true)]
        kcm_args: Vec<String>,
    },
    /// End a cluster and remove everything of it
    Down {
        /// Which one
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Show the clusters that `up` has started
    List,
    /// Run a command in the cluster's network, where Services, pods and nodes have their addresses
    ///
    /// KUBECONFIG is set for it. Example: cluster exec -- curl -s http://10.96.0.10/
    Exec {
        /// Which one
        #[arg(long, default_value = "demo")]
        name: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Write a container image file, without Docker
    ///
    /// Programs bring the shared libraries of this machine that they are linked with. Example:
    /// cluster image --name localhost/server:dev --out server.tar --entrypoint /server target/release/server:/server
    Image {
        /// The image's reference, with its tag; pods use it with imagePullPolicy Never or IfNotPresent
        #[arg(long)]
        name: String,
        /// The tar file to write
        #[arg(long)]
        out: PathBuf,
        /// What is run: a path in the image
        #[arg(long)]
        entrypoint: String,
        /// Numeric user and group
        #[arg(long, default_value = "65532:65532", value_parser = parse_user)]
        user: (u32, u32),
        /// Files: here and, after a colon, there
        #[arg(required = true, value_name = "SRC:/DST", value_parser = parse_file)]
        files: Vec<(PathBuf, String)>,
    },
    /// Import image files into every real node of a cluster
    Load {
        /// Which one
        #[arg(long, default_value = "demo")]
        name: String,
        /// Image files
        #[arg(required = true, value_name = "TAR")]
        images: Vec<PathBuf>,
    },
    /// Say which tiers this machine can run, and what the others lack
    Check,
}

fn parse_user(text: &str) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a number"));
    Ok((number(user)?, number(group)?))
}

fn parse_file(text: &str) -> Result<(PathBuf, String), String> {
    let (source, target) = text.rsplit_once(':').ok_or("write SRC:/DST")?;
    if target.starts_with('/') {
        Ok((source.into(), target.to_owned()))
    } else {
        Err(format!("`{target}` is not an absolute path"))
    }
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cluster: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn with_causes(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { tier, name, images, nodes, kwok_nodes, api_args, kcm_args } => {
            let tier = [Tier::T1, Tier::T2, Tier::T3][usize::from(tier) - 1];
            if mcp_fleet_cluster::list()?.iter().any(|known| known.name == name && known.is_alive()) {
                return Err(Error::Invalid(format!(
                    "a cluster called `{name}` runs already; `cluster down --name {name}` ends it"
                )));
            }
            let builder = Cluster::builder(tier)
                .name(&name)
                .real_nodes(nodes)
                .images(images)
                .api_args(api_args)
                .kcm_args(kcm_args);
            let builder = match kwok_nodes {
                Some(n) => builder.kwok_nodes(n),
                None => builder,
            };
            println!("starting a {tier} cluster called {name}");
            let cluster = builder
                .progress(|what, elapsed: Duration| println!("{:6.1} s  {what}", elapsed.as_secs_f64()))
                .start()?;
            let bin = cluster.bin_dir().to_owned();
            let kubeconfig = cluster.detach()?;
            println!("\nTo use it:\n");
            println!(
                "  export KUBECONFIG={}\n  export PATH={}:$PATH\n  kubectl get nodes\n",
                kubeconfig.display(),
                bin.display()
            );
            println!(
                "`cluster exec --name {name} -- COMMAND` runs a command where Services and pods have their addresses."
            );
            println!("`cluster down --name {name}` ends and removes it.");
        }
        Command::Down { name } => {
            mcp_fleet_cluster::down(&name)?;
            println!("cluster {name} is gone");
        }
        Command::List => list()?,
        Command::Exec { name, command } => {
            let cluster = mcp_fleet_cluster::open(&name)?;
            let path = std::env::join_paths(
                std::iter::once(cluster.bin_dir().to_owned())
                    .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
            );
            // Through `env`, so that the changed PATH also finds the command itself.
            let mut inside = cluster.command_inside("env");
            inside.args(&command);
            if let Ok(path) = path {
                inside.env("PATH", path);
            }
            let source = inside.exec();
            return Err(Error::Io { what: format!("start {}", command[0]), source });
        }
        Command::Image { name, out, entrypoint, user: (user, group), files } => {
            let image = Image::new(&name).entrypoint([entrypoint]).user(user, group);
            let image =
                files.into_iter().try_fold(image, |image, (source, target)| image.program(source, target))?;
            println!("{}  {name}  {}", image.write(&out)?, out.display());
        }
        Command::Load { name, images } => {
            let cluster = mcp_fleet_cluster::open(&name)?;
            for image in images {
                cluster.import_image(&image)?;
                println!("imported {} into {} nodes of {name}", image.display(), cluster.n_nodes());
            }
        }
        Command::Check => return Ok(check()),
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> Result<()> {
    let clusters = mcp_fleet_cluster::list()?;
    if clusters.is_empty() {
        println!("no clusters; `cluster up` starts one");
    }
    for cluster in clusters {
        let state = if cluster.is_alive() { "running" } else { "ended" };
        println!(
            "{:20} T{}  {state:8} KUBECONFIG={}",
            cluster.name,
            cluster.tier,
            cluster.kubeconfig().display()
        );
    }
    Ok(())
}

fn check() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for tier in [Tier::T1, Tier::T2, Tier::T3] {
        match tier.available() {
            Ok(()) => println!("{tier}  can run"),
            Err(reason) => {
                println!("{tier}  cannot run: {reason}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
