//! Clients that leave.

use super::Bench;
use crate::{
    leave::{self, Case},
    load,
    peers::{Peer, Target},
    upstream_process::Upstream,
};

impl Bench {
    pub fn leave(&mut self) -> anyhow::Result<()> {
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
}
