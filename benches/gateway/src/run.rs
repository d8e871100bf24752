//! The parts in their order, their rows and their targets.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    args::{Args, Scenario},
    balance::{self, Fleet},
    leave::{self, Case},
    load::{self, Rate},
    machine,
    peers::{Peer, Setup, Target},
    report::Report,
    rounds::{Numbers, Samples, order},
    streams::{self, Streams},
    upstream_process::Upstream,
    wire::Era,
};

/// A benchmark in progress.
struct Bench {
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
            Scenario::Streams => bench.streams()?,
            Scenario::Idle => bench.idle()?,
            Scenario::Leave => bench.leave()?,
            Scenario::Balance => bench.balance()?,
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

    /// Closed and open loop, both eras; idle memory before them.
    fn load(&mut self) -> anyhow::Result<()> {
        let upstream = self.upstream(1)?;
        let targets = self.start_all(&upstream)?;
        std::thread::sleep(Duration::from_secs(1));
        for target in targets.iter().filter(|t| t.peer != Peer::Direct) {
            let [mib, pss] = [machine::rss_kib, machine::pss_kib].map(|of| of(&target.pids()) / 1024.0);
            self.note(
                format!("idle memory: {}", target.peer.name()),
                &format!("{mib:.1} MiB resident, {pss:.1} with shared pages counted once"),
            );
            if target.peer == Peer::Ours {
                self.report.at_most("idle memory of ours", 12.0, mib, "MiB", 1);
            }
        }
        for era in [Era::Modern, Era::Legacy] {
            let mut samples = ByPeer::new();
            for round in 0..self.args.rounds {
                for target in order(&targets.iter().collect::<Vec<_>>(), round) {
                    let one = samples.entry(target.peer.name()).or_default();
                    let args = &self.args;
                    one.measure(args.foreign, args.again, || Ok((under_load(args, target, era, round)?, ())));
                    let remark = one.remark();
                    println!("round {} {} {}{remark}", round + 1, era.name(), target.peer.name());
                }
            }
            self.load_rows(era, &targets, &samples);
        }
        Ok(())
    }

    fn load_rows(&mut self, era: Era, targets: &[Target], samples: &ByPeer) {
        self.tally(samples);
        for target in targets {
            let name = target.peer.name();
            let one = &samples[name];
            let number = |n: &str, digits| one.of(n).show(digits);
            let direct = |n: &str| samples["direct"].of(n).median;
            let added = |n: &str| one.of(n).median - direct(n);
            let mut text = format!("{} k/s", number("thousands", 1));
            if target.peer == Peer::Direct {
                text += &format!(
                    ", p50/p99/p99.9 {}/{}/{} µs",
                    number("p50", 0),
                    number("p99", 0),
                    number("p999", 0)
                );
            } else {
                text += &format!(
                    ", {} µs CPU a request, added p50/p99/p99.9 {:.0}/{:.0}/{:.0} µs ({}/{}/{} in all), {} MiB",
                    number("micros", 1),
                    added("p50"),
                    added("p99"),
                    added("p999"),
                    number("p50", 0),
                    number("p99", 0),
                    number("p999", 0),
                    number("mib", 1)
                );
            }
            let bad = one.of("bad").median;
            if bad > 0.0 {
                text += &format!(", {bad} bad answers");
            }
            self.note(format!("{}: {name}", era.name()), &format!("{text}{}", one.remark()));
        }
        if !self.has(Peer::Ours) {
            return;
        }
        let ratio = |peer, number: &str| of(samples, Peer::Ours, number) / of(samples, peer, number);
        let added = |peer, number: &str| of(samples, peer, number) - of(samples, Peer::Direct, number);
        let (name, cpu) = (era.name(), if era == Era::Modern { 1.25 } else { 1.4 });
        let what = format!("{name}: CPU a request against nginx");
        self.report.at_most(&what, cpu, ratio(Peer::Nginx, "micros"), "×", 2);
        if era == Era::Legacy {
            return;
        }
        let what = format!("{name}: throughput against haproxy");
        self.report.at_least(&what, 0.85, ratio(Peer::Haproxy, "thousands"), "×", 2);
        for (what, number, limit) in [("p50", "p50", 1.1), ("p99", "p99", 1.3)] {
            let what = format!("{name}: added {what} at {}/s against nginx", self.args.rate);
            let got = added(Peer::Ours, number) / added(Peer::Nginx, number);
            self.report.at_most(&what, limit, got, "×", 2);
        }
    }

    fn streams(&mut self) -> anyhow::Result<()> {
        let n = self.args.streams;
        let mut samples = ByPeer::new();
        for round in 0..self.args.rounds {
            for peer in order(&self.with_direct(), round) {
                let one = samples.entry(peer.name()).or_default();
                one.measure(self.args.foreign, self.args.again, || self.ticking(peer));
                println!("round {} streams {}{}", round + 1, peer.name(), one.remark());
            }
        }
        self.tally(&samples);
        for peer in self.with_direct() {
            let one = &samples[peer.name()];
            let number = |name: &str, digits| one.of(name).show(digits);
            let text = format!(
                "{} KiB a stream, event delay p50/p99 {}/{} µs, {} µs CPU an event, first event alone p50/p99 {}/{} µs, of all at once {}/{} ms, {} lost, {} cut{}",
                number("kib", 1),
                number("p50", 0),
                number("p99", 0),
                number("micros", 1),
                number("first50", 0),
                number("first99", 0),
                number("burst50", 1),
                number("burst99", 1),
                number("lost", 0),
                number("cut", 0),
                one.remark()
            );
            self.note(format!("{n} streams, 1 event/s each: {}", peer.name()), &text);
        }
        if self.has(Peer::Ours) {
            let ours = |name| of(&samples, Peer::Ours, name);
            self.report.at_most(&format!("memory of each of {n} streams"), 50.0, ours("kib"), "KiB", 1);
            let ratio = ours("p50") / of(&samples, Peer::Nginx, "p50");
            self.report.at_most("event delay p50 against nginx", 1.0, ratio, "×", 2);
            self.report.at_most("event delay p99", 2.0, ours("p99") / 1e3, "ms", 2);
            let lost = ours("lost") + ours("cut");
            self.report.zero("events lost and streams cut", lost as usize, "");
        }
        Ok(())
    }

    fn ticking(&self, peer: Peer) -> anyhow::Result<(Numbers, (Upstream, Target))> {
        // A fresh one each time: memory that earlier streams left behind would hide what these need.
        let mut upstream = self.upstream(1)?;
        let target = self.setup.start(peer, &upstream.replicas, "LeastRequest")?;
        let time = Duration::from_secs_f64(self.args.seconds.max(3.0));
        let (pids, n) = (target.pids(), self.args.streams);
        let got = load::block_on(streams::ticking(target.addr, &pids, &mut upstream, n, time))??;
        Ok((stream_numbers(&got), (upstream, target)))
    }

    fn idle(&mut self) -> anyhow::Result<()> {
        // A target needs two descriptors for each stream, and some of its own.
        let n = self.args.idle.min((machine::fd_limit().saturating_sub(300)) / 2);
        if n < self.args.idle {
            let why = format!("{n}, since a process may open {} files here", machine::fd_limit());
            self.note("idle streams".into(), &why);
        }
        let hold = Duration::from_secs(if self.args.quick { 3 } else { 20 });
        for peer in self.peers.clone() {
            let mut upstream = self.upstream(1)?;
            let target = self.setup.start(peer, &upstream.replicas, "LeastRequest")?;
            let pids = target.pids();
            let got = load::block_on(streams::idle(target.addr, &pids, &mut upstream, n, hold))??;
            let text = format!("{:.1} KiB a stream, {} ended, {} events lost", got.kib, got.cut, got.lost);
            self.note(format!("{n} idle streams for {} s: {}", hold.as_secs(), peer.name()), &text);
            if peer == Peer::Ours {
                self.report.at_most(&format!("memory of each of {n} idle streams"), 50.0, got.kib, "KiB", 1);
                self.report.zero(
                    "idle streams that ended or missed their event",
                    got.cut + got.lost as usize,
                    "",
                );
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        let n = if self.args.quick { 30 } else { 100 };
        for peer in self.peers.clone() {
            let mut upstream = self.upstream(1)?;
            let target = self.setup.start(peer, &upstream.replicas, "LeastRequest")?;
            for case in Case::ALL.into_iter().filter(|c| peer == Peer::Ours || !c.needs_h2()) {
                let got = load::block_on(leave::measure(target.addr, &mut upstream, case, n))?;
                let what = format!("leaving, {}", case.name());
                match got {
                    Ok(leaves) => {
                        let [p50, most] = [0.5, 1.0].map(|q| leaves.delays.micros(q) / 1e3);
                        let text = format!(
                            "seen after {p50:.2} ms (p50), {most:.2} ms at most, {} of {n} never",
                            leaves.missed
                        );
                        self.note(format!("{what}: {}", peer.name()), &text);
                        if peer == Peer::Ours {
                            let worst = if leaves.missed > 0 { f64::INFINITY } else { most };
                            self.report.at_most(&what, 10.0, worst, "ms", 2);
                        }
                    }
                    Err(error) => {
                        self.note(format!("{what}: {}", peer.name()), &format!("{error:#}"));
                        if peer == Peer::Ours {
                            self.report.at_most(&what, 10.0, f64::NAN, "ms", 2);
                        }
                    }
                }
            }
            if peer == Peer::Ours {
                self.leak(&target, &mut upstream)?;
            }
        }
        Ok(())
    }

    fn leak(&mut self, target: &Target, upstream: &mut Upstream) -> anyhow::Result<()> {
        let n = self.args.leaves;
        let leak = load::block_on(leave::leak(target.addr, &target.pids(), upstream, n))??;
        let growth = (leak.rss.1 / leak.rss.0 - 1.0) * 100.0;
        let text = format!(
            "{} requests still run, {:+} descriptors, memory {:.1} → {:.1} MiB",
            leak.open,
            leak.fds,
            leak.rss.0 / 1024.0,
            leak.rss.1 / 1024.0
        );
        self.note(format!("after {n} leaves"), &text);
        self.report.zero(
            &format!("requests and descriptors left behind by {n} leaves"),
            leak.open + leak.fds.max(0) as usize,
            "",
        );
        self.report.at_most(&format!("growth of memory over {n} leaves"), 5.0, growth, "%", 1);
        Ok(())
    }

    fn balance(&mut self) -> anyhow::Result<()> {
        let time = Duration::from_secs_f64(self.args.balance_seconds);
        let ours = self.args.strategies.clone().into_iter().map(|s| (Peer::Ours, s));
        let others = self.peers.iter().filter(|p| **p != Peer::Ours && self.args.balance_peers);
        let others = others.map(|p| (*p, String::new()));
        let kinds: Vec<_> = others.chain(ours.filter(|_| self.has(Peer::Ours))).collect();
        for (peer, strategy) in kinds {
            let mut p99 = BTreeMap::new();
            let mut bad = f64::NAN;
            for fleet in [Fleet::Healthy, Fleet::OneSlow, Fleet::OneFails] {
                let mut samples = Samples::default();
                for _ in 0..self.args.rounds {
                    // Service takes tens of ms: what others do to the machine hardly shows.
                    samples.measure(f64::INFINITY, 0, || {
                        let (open, first) = balance::measure(&self.setup, peer, &strategy, fleet, time)?;
                        let share = (open.bad + open.lost) as f64 / open.delays.len() as f64 * 100.0;
                        let numbers = Numbers::from([
                            ("share", share),
                            ("first", first * 100.0),
                            ("p99", open.delays.micros(0.99) / 1e3),
                            ("p50", open.delays.micros(0.5) / 1e3),
                        ]);
                        Ok((numbers, ()))
                    });
                }
                let show = |name, digits| samples.of(name).show(digits);
                let text = format!(
                    "p50/p99 {}/{} ms, {} % bad, {} % of the calls to the first{}",
                    show("p50", 0),
                    show("p99", 0),
                    show("share", 2),
                    show("first", 1),
                    samples.remark()
                );
                self.note(format!("{}: {} {strategy}", fleet.name(), peer.name()), &text);
                p99.insert(fleet, samples.of("p99").median);
                if fleet == Fleet::OneFails {
                    bad = samples.of("share").median;
                }
            }
            if peer == Peer::Ours {
                if self.args.strategies.first() == Some(&strategy) {
                    let what = format!("{strategy}, {}: p99 against healthy ones", Fleet::OneSlow.name());
                    let ratio = p99[&Fleet::OneSlow] / p99[&Fleet::Healthy];
                    self.report.at_most(&what, 1.5, ratio, "×", 2);
                }
                let what = format!("{strategy}, {}: bad answers", Fleet::OneFails.name());
                self.report.at_most(&what, 0.2, bad, "%", 2);
            }
        }
        Ok(())
    }
}

/// Closed loop for what it costs, then the open one for how long it takes.
fn under_load(args: &Args, target: &Target, era: Era, round: usize) -> anyhow::Result<Numbers> {
    let pids = target.pids();
    let time = Duration::from_secs_f64(args.seconds);
    let warm = Duration::from_millis(if round == 0 { 1500 } else { 500 });
    load::block_on(async {
        let closed = load::closed(target.addr, era, args.connections, warm, time, &pids).await?;
        ensure!(closed.answers > 0, "no answers");
        let mib = machine::pss_kib(&pids) / 1024.0;
        let rate = Rate {
            per_second: args.rate,
            connections: args.connections,
            warm: Duration::from_millis(500),
            time,
            grace: Duration::from_secs(2),
        };
        let open = load::open(target.addr, era, "answer", rate).await?;
        let p = |share| open.delays.micros(share);
        Ok(Numbers::from([
            ("thousands", closed.answers as f64 / closed.seconds / 1e3),
            ("micros", closed.cpu * 1e6 / closed.answers as f64),
            ("bad", (closed.bad + open.bad + open.lost) as f64),
            ("p50", p(0.5)),
            ("p99", p(0.99)),
            ("p999", p(0.999)),
            ("mib", mib),
        ]))
    })?
}

fn stream_numbers(got: &Streams) -> Numbers {
    Numbers::from([
        ("kib", got.kib),
        ("p50", got.delays.micros(0.5)),
        ("p99", got.delays.micros(0.99)),
        ("micros", got.micros),
        ("first50", got.first.micros(0.5)),
        ("first99", got.first.micros(0.99)),
        ("burst50", got.burst.micros(0.5) / 1e3),
        ("burst99", got.burst.micros(0.99) / 1e3),
        ("lost", got.lost as f64),
        ("cut", got.cut as f64),
    ])
}
