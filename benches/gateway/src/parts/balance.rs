//! Quality of balancing.

use std::{collections::BTreeMap, time::Duration};

use super::Bench;
use crate::{
    balance::{self, Fleet},
    peers::Peer,
    rounds::{Numbers, Samples},
};

impl Bench {
    pub fn balance(&mut self) {
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
    }
}
