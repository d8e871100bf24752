//! The parts of the benchmark in their order; each has its rows and its targets in a file below.

mod balance;
mod leave;
mod load;
mod streams;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, ensure};

use crate::{
    args::{Args, Scenario},
    machine,
    peers::{Peer, Setup, Target},
    report::Report,
    rounds::Samples,
    upstream_process::Upstream,
};

/// A benchmark in progress.
pub struct Bench {
    args: Args,
    setup: Setup,
    peers: Vec<Peer>,
    report: Report,
    dropped: usize,
    kept: usize,
}

/// Runs what was chosen.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let gateway = if args.peers.contains(&Peer::Ours) { gateway(args)? } else { PathBuf::new() };
    let scratch = std::env::temp_dir().join(format!("bench-gateway-{}", std::process::id()));
    let workers = if args.pinned { 1 } else { 2 };
    let setup = Setup { cache: args.cache(), gateway, scratch, workers, core: args.pinned.then_some(0) };
    let mut report = Report::new("gateway");
    report.row("machine", machine::describe());
    let (has, missing): (Vec<_>, Vec<_>) =
        args.peers.iter().copied().filter(|p| *p != Peer::Direct).partition(|p| setup.program(*p).is_some());
    for peer in &missing {
        report.row(peer.name(), "not found: neither installed nor fetched by benches/gateway/peers.sh");
    }
    for peer in &has {
        report.row(peer.name(), setup.version(*peer));
    }
    let layout =
        if args.pinned { "one worker on a processor of its own" } else { "two workers, shared processors" };
    report.row("layout", layout);
    let mut bench = Bench { args: args.clone(), setup, peers: has, report, dropped: 0, kept: 0 };
    if bench.setup.core.is_some() {
        machine::pin(std::process::id(), 1);
    }
    for scenario in &args.only {
        println!("== {scenario:?}");
        match scenario {
            Scenario::Load => bench.load()?,
            Scenario::Streams => bench.streams(),
            Scenario::Idle => bench.idle()?,
            Scenario::Leave => bench.leave()?,
            Scenario::Balance => bench.balance(),
        }
    }
    bench.report.row(
        "measurements kept, and dropped since others used the machine",
        format!("{}, {}", bench.kept, bench.dropped),
    );
    let _ = std::fs::remove_dir_all(&bench.setup.scratch);
    bench.report.finish()
}

/// The gateway's binary: the one given, or built now.
fn gateway(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(path) = &args.gateway {
        ensure!(path.is_file(), "{} does not exist", path.display());
        return Ok(path.clone());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built =
        Command::new(cargo).args(["build", "--release", "--bin", "mcp-fleet"]).current_dir(&root).status();
    ensure!(built.context("failed to start cargo")?.success(), "the gateway does not build");
    Ok(root.join("target/release/mcp-fleet"))
}

type ByPeer = BTreeMap<&'static str, Samples>;

/// A ratio to a peer, or a remark that it cannot be told.
fn of(samples: &ByPeer, peer: Peer, number: &str) -> f64 {
    samples.get(peer.name()).map_or(f64::NAN, |s| s.of(number).median)
}

impl Bench {
    fn has(&self, peer: Peer) -> bool {
        self.peers.contains(&peer)
    }

    fn with_direct(&self) -> Vec<Peer> {
        [Peer::Direct].into_iter().chain(self.peers.iter().copied()).collect()
    }

    fn start_all(&self, upstream: &Upstream) -> anyhow::Result<Vec<Target>> {
        let start = |peer: &Peer| self.setup.start(*peer, &upstream.replicas, "LeastRequest");
        self.with_direct().iter().map(start).collect()
    }

    fn upstream(&self, replicas: usize) -> anyhow::Result<Upstream> {
        let upstream = Upstream::start(replicas)?;
        if self.setup.core.is_some() {
            machine::pin(upstream.pid(), 1);
        }
        Ok(upstream)
    }

    fn note(&mut self, what: String, got: &str) {
        println!("{what}: {got}");
        self.report.row(what, got);
    }

    fn tally(&mut self, samples: &ByPeer) {
        for one in samples.values() {
            self.kept += one.counts().0;
            self.dropped += one.counts().1;
        }
    }
}
