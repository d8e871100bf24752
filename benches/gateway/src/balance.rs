//! Quality of balancing: three replicas with four slots and random service times, of which one is slow or fails.
//! What counts is what callers see, at one fixed rate, from the intended send.

use std::time::Duration;

use crate::{
    load::{self, Open, Rate},
    peers::{Peer, Setup},
    upstream_process::Upstream,
    wire::Era,
};

/// Requests in a second: 42 % of what three healthy replicas can do.
const PER_SECOND: f64 = 250.0;
/// How much slower the slow one is.
const SLOW: f64 = 20.0;

/// What the replicas are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Fleet {
    /// All alike.
    Healthy,
    /// The first takes 20 times as long.
    OneSlow,
    /// The first answers every call with 500 at once; its probes succeed.
    OneFails,
}

impl Fleet {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "three healthy replicas",
            Self::OneSlow => "one of three 20 × slower",
            Self::OneFails => "one of three fails at once",
        }
    }
}

/// A fresh target before fresh replicas; calls before the fault shows itself are counted too. Also the share of
/// all calls that the first replica got.
pub fn measure(
    setup: &Setup,
    peer: Peer,
    strategy: &str,
    fleet: Fleet,
    time: Duration,
) -> anyhow::Result<(Open, f64)> {
    let mut upstream = Upstream::start(3)?;
    let target = setup.start(peer, &upstream.replicas.clone(), strategy)?;
    match fleet {
        Fleet::Healthy => {}
        Fleet::OneSlow => drop(upstream.tell(&format!("slow 0 {SLOW}"))?),
        Fleet::OneFails => drop(upstream.tell("fail 0 1")?),
    }
    // Latency is that of a fleet in its stride; failures count from the first call.
    let warm = if fleet == Fleet::OneFails { Duration::ZERO } else { Duration::from_secs(3) };
    let rate = Rate { per_second: PER_SECOND, connections: 200, warm, time, grace: Duration::from_secs(10) };
    let open = load::block_on(load::open(target.addr, Era::Modern, "slot", rate))??;
    let served = upstream.stats()?.served;
    let share = served.first().copied().unwrap_or(0) as f64 / served.iter().sum::<u64>() as f64;
    Ok((open, share))
}
