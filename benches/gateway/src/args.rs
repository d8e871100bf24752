//! What can be chosen.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::peers::Peer;

/// A part of the benchmark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Scenario {
    /// Modern calls and legacy sessions: throughput, processor time, added latency, idle memory.
    Load,
    /// Streams with one event a second.
    Streams,
    /// Ten thousand streams on which nothing happens.
    Idle,
    /// Clients that leave.
    Leave,
    /// Replicas that are slow or fail.
    Balance,
}

#[derive(Parser, Clone)]
#[command(about = "Measures the gateway against nginx, haproxy and envoy: same upstream, same load, one run")]
pub struct Args {
    /// Parts to run, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "load,streams,idle,leave,balance")]
    pub only: Vec<Scenario>,
    /// Targets, separated by commas; `direct` is always among those under load.
    #[arg(long, value_delimiter = ',', default_value = "nginx,haproxy,envoy,ours")]
    pub peers: Vec<Peer>,
    /// The gateway's binary; without it, it is built.
    #[arg(long)]
    pub gateway: Option<PathBuf>,
    /// Rounds that count; the order of the targets is reversed in each.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of each measurement under load.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Requests in a second of the open loop.
    #[arg(long, default_value_t = 4000.0)]
    pub rate: f64,
    /// Connections of the closed loop, and of the open one.
    #[arg(long, default_value_t = 32)]
    pub connections: usize,
    /// Streams with one event a second.
    #[arg(long, default_value_t = 1000)]
    pub streams: usize,
    /// Idle streams; no more than half of the file descriptors that a process may have.
    #[arg(long, default_value_t = 10_000)]
    pub idle: usize,
    /// Clients that leave.
    #[arg(long, default_value_t = 10_000)]
    pub leaves: usize,
    /// Seconds of each measurement of a balancer.
    #[arg(long, default_value_t = 20.0)]
    pub balance_seconds: f64,
    /// Balancing of the peers too, which no target is about.
    #[arg(long)]
    pub balance_peers: bool,
    /// Strategies of ours to measure; the first one named here is judged where a replica is slow.
    #[arg(long, value_delimiter = ',', default_value = "PeakEWMA,LeastRequest")]
    pub strategies: Vec<String>,
    /// Cores that others may use on average before a measurement is dropped and made again.
    #[arg(long, default_value_t = 0.1)]
    pub foreign: f64,
    /// How often a dropped measurement is made again.
    #[arg(long, default_value_t = 2)]
    pub again: usize,
    /// Targets have one worker, bound to processor 0; load and upstream are bound to processor 1.
    #[arg(long)]
    pub pinned: bool,
    /// A look instead of a measurement: one short round of everything.
    #[arg(long)]
    pub quick: bool,
    /// Folder of peers that are not installed; `benches/gateway/peers.sh` fills it.
    #[arg(long)]
    pub cache: Option<PathBuf>,
    /// Internal: be the upstream with so many replicas.
    #[arg(long, hide = true)]
    pub upstream: Option<usize>,
}

impl Args {
    /// With what `--quick` means.
    pub fn settle(mut self) -> Self {
        if self.quick {
            self.rounds = 1;
            self.again = 0;
            self.seconds = self.seconds.min(1.5);
            self.streams = self.streams.min(300);
            self.idle = self.idle.min(1000);
            self.leaves = self.leaves.min(1200);
            self.balance_seconds = self.balance_seconds.min(8.0);
        }
        self
    }

    /// Where peers that are not installed are.
    pub fn cache(&self) -> PathBuf {
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/mcp-fleet"));
        let root =
            || std::env::var_os("MCP_FLEET_CACHE").map(PathBuf::from).or_else(home).unwrap_or_default();
        self.cache.clone().unwrap_or_else(|| root().join("peers"))
    }
}
