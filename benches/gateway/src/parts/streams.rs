//! Streams on which events flow, and streams on which nothing happens.

use std::time::Duration;

use super::{Bench, ByPeer, of};
use crate::{
    load, machine,
    peers::{Peer, Target},
    rounds::{Numbers, order},
    streams::{self, Streams},
    upstream_process::Upstream,
};

impl Bench {
    pub fn streams(&mut self) {
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
            if self.has(Peer::Nginx) {
                let ratio = ours("p50") / of(&samples, Peer::Nginx, "p50");
                self.report.at_most("event delay p50 against nginx", 1.0, ratio, "×", 2);
            }
            self.report.at_most("event delay p99", 2.0, ours("p99") / 1e3, "ms", 2);
            let lost = ours("lost") + ours("cut");
            self.report.zero("events lost and streams cut", lost as usize, "");
        }
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

    pub fn idle(&mut self) -> anyhow::Result<()> {
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
