//! Modern calls and pinned legacy sessions: what a request costs, how many there can be, how long each takes.

use std::{fmt::Write as _, time::Duration};

use anyhow::ensure;

use super::{Bench, ByPeer, of};
use crate::{
    args::Args,
    load::{self, Rate},
    machine,
    peers::{Peer, Target},
    rounds::{Numbers, order},
    wire::Era,
};

impl Bench {
    /// Closed and open loop, both eras; idle memory before them. All start anew in each round: delays differ from
    /// one start of a process to the next by some microseconds, and one start is one sample.
    pub fn load(&mut self) -> anyhow::Result<()> {
        let mut eras = [(Era::Modern, ByPeer::new()), (Era::Legacy, ByPeer::new())];
        for round in 0..self.args.rounds {
            let upstream = self.upstream(1)?;
            let targets = self.start_all(&upstream)?;
            std::thread::sleep(Duration::from_secs(1));
            if round == 0 {
                self.idle_memory(&targets);
            }
            for (era, samples) in &mut eras {
                for target in order(&targets.iter().collect::<Vec<_>>(), round) {
                    let one = samples.entry(target.peer.name()).or_default();
                    let args = &self.args;
                    one.measure(args.foreign, args.again, || Ok((under_load(args, target, *era)?, ())));
                    let remark = one.remark();
                    println!("round {} {} {}{remark}", round + 1, era.name(), target.peer.name());
                }
            }
        }
        for (era, samples) in &eras {
            self.load_rows(*era, samples);
        }
        Ok(())
    }

    fn idle_memory(&mut self, targets: &[Target]) {
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
    }

    fn load_rows(&mut self, era: Era, samples: &ByPeer) {
        self.tally(samples);
        for peer in self.with_direct() {
            let name = peer.name();
            let one = &samples[name];
            let number = |n: &str, digits| one.of(n).show(digits);
            let direct = |n: &str| samples["direct"].of(n).median;
            let added = |n: &str| one.of(n).median - direct(n);
            let mut text = format!("{} k/s", number("thousands", 1));
            if peer == Peer::Direct {
                let _ = write!(
                    text,
                    ", p50/p99/p99.9 {}/{}/{} µs",
                    number("p50", 0),
                    number("p99", 0),
                    number("p999", 0)
                );
            } else {
                let _ = write!(
                    text,
                    ", {} µs CPU a request, {} at {}/s, added p50/p99/p99.9 {:.0}/{:.0}/{:.0} µs ({}/{}/{} in all), {} MiB",
                    number("micros", 1),
                    number("micros at rate", 1),
                    self.args.rate,
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
                let _ = write!(text, ", {bad} bad answers");
            }
            self.note(format!("{}: {name}", era.name()), &format!("{text}{}", one.remark()));
        }
        if !self.has(Peer::Ours) {
            return;
        }
        let ratio = |peer, number: &str| of(samples, Peer::Ours, number) / of(samples, peer, number);
        let (name, cpu) = (era.name(), if era == Era::Modern { 1.25 } else { 1.4 });
        if self.has(Peer::Nginx) {
            let what = format!("{name}: CPU a request against nginx");
            self.report.at_most(&what, cpu, ratio(Peer::Nginx, "micros"), "×", 2);
        }
        if era == Era::Legacy {
            return;
        }
        if self.has(Peer::Haproxy) {
            let what = format!("{name}: throughput against haproxy");
            self.report.at_least(&what, 0.85, ratio(Peer::Haproxy, "thousands"), "×", 2);
        }
        // What a peer adds is never negative; where noise says so, nothing can be said.
        let added = |peer, number: &str| {
            let added = of(samples, peer, number) - of(samples, Peer::Direct, number);
            if added > 0.0 { added } else { f64::NAN }
        };
        for (number, limit) in [("p50", 1.1), ("p99", 1.3)] {
            if self.has(Peer::Nginx) {
                let what = format!("{name}: added {number} at {}/s against nginx", self.args.rate);
                let got = added(Peer::Ours, number) / added(Peer::Nginx, number);
                self.report.at_most(&what, limit, got, "×", 2);
            }
        }
    }
}

/// Closed loop for what it costs, then the open one for how long it takes.
fn under_load(args: &Args, target: &Target, era: Era) -> anyhow::Result<Numbers> {
    let pids = target.pids();
    let time = Duration::from_secs_f64(args.seconds);
    let warm = Duration::from_millis(1500);
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
        let before = machine::cpu(&pids);
        let open = load::open(target.addr, era, "answer", rate).await?;
        let at_rate =
            (machine::cpu(&pids) - before) / (rate.per_second * (rate.warm + rate.time).as_secs_f64());
        let p = |share| open.delays.micros(share);
        Ok(Numbers::from([
            ("thousands", closed.answers as f64 / closed.seconds / 1e3),
            ("micros", closed.cpu * 1e6 / closed.answers as f64),
            ("micros at rate", at_rate * 1e6),
            ("bad", (closed.bad + open.bad + open.lost) as f64),
            ("p50", p(0.5)),
            ("p99", p(0.99)),
            ("p999", p(0.999)),
            ("mib", mib),
        ]))
    })?
}
