//! Gauges that are read from the live structures at each scrape: nobody has to keep them, so they cannot drift.

use std::{
    fmt::{self, Error},
    sync::{Arc, atomic::Ordering},
};

use prometheus_client::{
    collector::Collector, encoding::DescriptorEncoder, metrics::MetricType, registry::Registry,
};

use super::encode::own;
use crate::gateway::{
    balance::Nanos,
    breaker::State,
    fleet::{Endpoint, Fleet, Phase, View},
    shared::Gateway,
};

/// Makes the gauges known to `registry`.
pub fn register(registry: &mut Registry, gateway: &Arc<Gateway>) {
    registry.register_collector(Box::new(Live(Arc::clone(gateway))));
}

struct Live(Arc<Gateway>);

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

/// A fleet at the time of the scrape.
struct Seen {
    fleet: Arc<Fleet>,
    view: Arc<View>,
}

impl Seen {
    fn sum(&self, value: impl Fn(&Endpoint) -> u64) -> u64 {
        self.view.endpoints.iter().map(|e| value(e)).sum()
    }

    fn count(&self, test: impl Fn(&Endpoint) -> bool) -> u64 {
        self.view.endpoints.iter().filter(|e| test(e)).count() as u64
    }
}

impl Collector for Live {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> Result<(), Error> {
        let now = self.0.clock.now();
        let mut fleets: Vec<Seen> = self
            .0
            .snapshot
            .load()
            .fleets
            .iter()
            .map(|fleet| Seen { fleet: Arc::clone(fleet), view: fleet.view_full() })
            .collect();
        fleets.sort_by(|a, b| a.fleet.key.cmp(&b.fleet.key));
        states(&mut out, &fleets, now)?;
        levels(&mut out, &fleets, now)?;
        let process = [
            (own!("fleets"), "Fleets that are served", fleets.len() as u64),
            (own!("peers"), "Other gateways that are ready", self.0.peers.load().len() as u64),
            (own!("open_fds"), "Open file descriptors of the process", open_fds()),
        ];
        for (name, help, value) in process {
            out.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

fn states(out: &mut DescriptorEncoder<'_>, fleets: &[Seen], now: Nanos) -> Result<(), Error> {
    let help = "Endpoints by phase: ready, not_ready, draining (the pod terminates)";
    let mut family = out.encode_descriptor(own!("endpoints"), help, None, MetricType::Gauge)?;
    for seen in fleets {
        for phase in [Phase::Ready, Phase::NotReady, Phase::Draining] {
            let count = seen.count(|e| e.phase() == phase);
            let [namespace, name] = labels(&seen.fleet);
            family.encode_family(&[namespace, name, ("phase", phase.as_str())])?.encode_gauge(&count)?;
        }
    }
    let help = "Endpoints by the state of their breaker";
    let mut family = out.encode_descriptor(own!("breakers"), help, None, MetricType::Gauge)?;
    for seen in fleets {
        for state in [State::Closed, State::Open, State::HalfOpen] {
            let count = seen.count(|e| e.breaker.load().state(now) == state);
            let [namespace, name] = labels(&seen.fleet);
            family.encode_family(&[namespace, name, ("state", state_name(state))])?.encode_gauge(&count)?;
        }
    }
    Ok(())
}

/// The standard words for the states of a breaker.
pub(in crate::gateway) fn state_name(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half_open",
    }
}

type Level = (&'static str, &'static str, fn(&Seen, Nanos) -> u64);

fn levels(out: &mut DescriptorEncoder<'_>, fleets: &[Seen], now: Nanos) -> Result<(), Error> {
    let all: [Level; 9] = [
        (own!("endpoints_unhealthy"), "Endpoints whose active probes fail", |s, _| {
            s.count(|e| e.phase() != Phase::Gone && e.is_unhealthy())
        }),
        (own!("endpoints_ejected"), "Endpoints that are left out because their breaker is open", |s, _| {
            s.count(Endpoint::is_ejected)
        }),
        (own!("endpoints_modern"), "Endpoints that speak 2026-07-28 or later", |s, _| {
            s.count(|e| !e.capability.load().modern.is_empty())
        }),
        (own!("inflight"), "Calls that run on pods", |s, _| s.sum(|e| u64::from(e.load.inflight()))),
        (own!("upstream_streams"), "Open event streams from pods", |s, _| {
            s.sum(|e| u64::from(e.load.streams()))
        }),
        (own!("upstream_connections"), "Open connections to pods", |s, _| {
            s.sum(|e| e.connections.load(Ordering::Relaxed) as u64)
        }),
        (own!("sessions"), "Sessions of revisions before 2026-07-28 that are not idle", |s, _| {
            s.fleet.sessions.len() as u64
        }),
        (own!("tasks"), "Live tasks and open retries that only their pod can go on with", |s, now| {
            s.sum(|e| e.work.count(now) as u64)
        }),
        (own!("queue_length"), "Requests that wait for a place on a pod", |s, _| {
            (s.fleet.queue.len() + s.fleet.legacy_queue.len()) as u64 + s.sum(|e| e.queue.len() as u64)
        }),
    ];
    for (name, help, value) in all {
        let mut family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for seen in fleets {
            family.encode_family(&labels(&seen.fleet))?.encode_gauge(&value(seen, now))?;
        }
    }
    Ok(())
}

fn labels(fleet: &Fleet) -> [(&'static str, &str); 2] {
    [("namespace", &fleet.key.namespace), ("fleet", &fleet.key.name)]
}

/// 0 where the system does not say.
fn open_fds() -> u64 {
    // The listing itself holds one.
    std::fs::read_dir("/proc/self/fd").map_or(0, |all| (all.count() as u64).saturating_sub(1))
}
