//! The world of a run: clients, gateways, pods and what goes wrong with them, call by call, on a virtual clock.
//!
//! Every call is an event: it comes to a gateway, gets a slot of a pod or waits in a bounded queue, needs CPU that the
//! calls of a pod share, then waits for others (I/O), and ends. Two gateways count and report as the real ones do; they
//! share one queue and know each other's calls, which real ones learn with some delay. Sessions hold a stream on a pod;
//! calls are not bound to them.

mod calls;
mod deployment;
mod disturb;
mod pod;
mod sessions;
#[cfg(test)]
mod tests;
mod work;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

pub(crate) use self::{
    deployment::VictimRule,
    disturb::Conditions,
    pod::{Phase, Pod},
    work::{End, Gateway},
};
use super::{
    measure::Measure,
    random::{LogNormal, Random},
    scenario::{Arrivals, Scenario},
};
use crate::autoscale::{
    load::Load,
    policy::Policy,
    report::{FleetReport, PodReport, Report, VERSION},
};

/// A moment or duration in microseconds of the virtual clock.
pub(crate) type Micros = i64;

/// A second.
pub(crate) const SECOND: Micros = 1_000_000;

/// Gateways in front of the fleet.
pub(crate) const GATEWAYS: usize = 2;

/// UID of the only fleet.
pub(crate) const FLEET: &str = "00000000-0000-0000-0000-000000000001";

/// The wall time at which runs begin, in ms since the Unix epoch.
pub(crate) const BEGIN: i64 = 1_700_000_000_000;

/// What a fleet's spec says of its gateway and its drain; defaults of the API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Calls that a pod gets at a time.
    pub(crate) slots: u32,
    /// Calls per pod that the policies of others aim at.
    pub(crate) target: f64,
    /// Sessions that a pod takes.
    pub(crate) streams: u32,
    /// Calls that may wait.
    pub(crate) queue: usize,
    /// How long.
    pub(crate) queue_timeout: Micros,
    /// Longest drain.
    pub(crate) drain: Micros,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slots: 20,
            target: Self::target(20),
            // 100 of them are 70 %.
            streams: 143,
            queue: 1000,
            queue_timeout: 30 * SECOND,
            drain: 300 * SECOND,
        }
    }
}

impl Limits {
    /// What others aim at where nobody says otherwise: 70 % (Knative's `container-concurrency-target-percentage`).
    pub(crate) fn target(slots: u32) -> f64 {
        0.7 * f64::from(slots)
    }

    /// The preset `Balanced` for these pods.
    pub(crate) fn balanced(&self, min: i32, max: i32) -> Policy {
        Policy::balanced(min, max, Some(f64::from(self.slots)))
    }
}

/// What happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The first call on a pod's CPU is done, unless the pod changed since.
    CpuDone { pod: u32, generation: u32 },
    /// A call is done, unless it ended before.
    CallDone { call: u32, generation: u32 },
    /// A client tries again.
    Retry { attempt: u8 },
    /// A pod is ready.
    PodReady { pod: u32, generation: u32 },
    /// The time to drain is over.
    DrainEnd { pod: u32 },
    /// A session begins; so many seconds of it are left.
    SessionBegin { micros: Micros },
    /// A session ends.
    SessionEnd { session: u32, generation: u32 },
}

/// A call.
#[derive(Clone, Copy, Debug, Default)]
struct Call {
    arrived: Micros,
    /// What it would have taken on an idle pod, as far as that is known yet.
    idle: Micros,
    cpu: f32,
    io: f32,
    pod: u32,
    generation: u32,
    gateway: u8,
    attempt: u8,
    fails: bool,
}

/// The world.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    limits: Limits,
    pub(crate) now: Micros,
    events: BinaryHeap<Reverse<(Micros, u64, Kind)>>,
    n_events: u64,
    arrivals: Arrivals,
    next_arrival: Micros,
    pub(crate) pods: Vec<Pod>,
    serving: Vec<u32>,
    alive: Vec<u32>,
    queue: VecDeque<u32>,
    calls: Vec<Call>,
    free: Vec<u32>,
    sessions: Vec<sessions::Session>,
    free_sessions: Vec<u32>,
    gateways: [Gateway; GATEWAYS],
    pub(crate) conditions: Conditions,
    /// Replicas of the Deployment.
    pub(crate) replicas: i32,
    revision: u32,
    dependency_free: Micros,
    io: LogNormal,
    random: Random,
    pub(crate) measure: Measure,
}

impl<'a> World<'a> {
    /// With so many ready pods.
    pub(crate) fn new(scenario: &'a Scenario, limits: Limits, replicas: i32, seed: u64) -> Self {
        let mut random = Random::new(seed, 3);
        let mut world = Self {
            scenario,
            limits,
            now: 0,
            events: BinaryHeap::new(),
            n_events: 0,
            arrivals: Arrivals::new(scenario, seed),
            next_arrival: 0,
            pods: Vec::new(),
            serving: Vec::new(),
            alive: Vec::new(),
            queue: VecDeque::new(),
            calls: Vec::new(),
            free: Vec::new(),
            sessions: Vec::new(),
            free_sessions: Vec::new(),
            gateways: std::array::from_fn(|_| Gateway { epoch: Some(BEGIN as u64), ..Gateway::default() }),
            conditions: Conditions::default(),
            replicas,
            revision: 0,
            dependency_free: 0,
            io: LogNormal::new(0.5, &mut random),
            random,
            measure: Measure::new(scenario, seed, limits.slots),
        };
        for _ in 0..replicas {
            let pod = world.create();
            world.ready(pod);
        }
        world.draw_arrival();
        world.begin_sessions(seed);
        world
    }

    /// Runs until a moment.
    pub(crate) fn run_until(&mut self, end: Micros) {
        loop {
            let event = self.events.peek().map_or(Micros::MAX, |Reverse((at, ..))| *at);
            let next = event.min(self.next_arrival);
            if next >= end {
                break;
            }
            self.now = next;
            if self.next_arrival <= event {
                self.arrive(0);
                self.draw_arrival();
            } else if let Some(Reverse((_, _, kind))) = self.events.pop() {
                self.happen(kind);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, kind: Kind) {
        match kind {
            Kind::CpuDone { pod, generation } => self.cpu_done(pod, generation),
            Kind::CallDone { call, generation } => {
                if self.calls[call as usize].generation == generation {
                    let end = if self.calls[call as usize].fails { End::Upstream } else { End::Ok };
                    self.finish(call, end);
                    self.dispatch();
                }
            }
            Kind::Retry { attempt } => self.arrive(attempt),
            Kind::PodReady { pod, generation } => {
                let starting = &self.pods[pod as usize];
                if starting.phase == Phase::Starting && starting.generation == generation {
                    self.ready(pod);
                    self.dispatch();
                }
            }
            Kind::DrainEnd { pod } => self.end(pod),
            Kind::SessionBegin { micros } => self.begin_session(micros),
            Kind::SessionEnd { session, generation } => self.end_session(session, generation),
        }
    }

    fn at(&mut self, moment: Micros, kind: Kind) {
        self.n_events += 1;
        self.events.push(Reverse((moment.max(self.now), self.n_events, kind)));
    }

    fn draw_arrival(&mut self) {
        let next = self.arrivals.next(self.next_arrival as f64 / 1e6);
        self.next_arrival = if next.is_finite() { (next * 1e6) as Micros } else { Micros::MAX };
    }

    /// Once a second: deadlines of the queue, the Deployment, what goes wrong next, and the books.
    pub(crate) fn second(&mut self, victims: VictimRule, load: Option<&Load>) {
        self.disturb();
        self.expire();
        self.reconcile(victims, load);
        self.dispatch();
        self.measure.second(self.now, &self.pods, &self.alive, self.replicas, &self.conditions);
    }

    /// Pods that are not gone.
    pub(crate) fn alive(&self) -> impl Iterator<Item = (u32, &Pod)> {
        self.alive.iter().map(|id| (*id, &self.pods[*id as usize]))
    }

    /// Gateways that should report: those whose endpoints are ready.
    pub(crate) fn expected_gateways(&self) -> usize {
        self.gateways.iter().filter(|g| g.epoch.is_some()).count()
    }

    /// The metrics server looks at all pods, every 15 s.
    pub(crate) fn read_cpu(&mut self) {
        for id in &self.alive {
            self.pods[*id as usize].read_cpu(self.now);
        }
    }

    /// The report of a gateway, if it lives.
    pub(crate) fn report(&mut self, gateway: usize) -> Option<Report> {
        let now = self.now;
        let n_ready = self.serving.len() as u64;
        let process = &mut self.gateways[gateway];
        let epoch = process.epoch?;
        process.sequence += 1;
        let pods = self.alive.iter().map(|id| {
            let pod = &self.pods[*id as usize];
            let work = pod.work[gateway].report(now);
            PodReport { uid: uid(*id), sessions: work.streams, tasks: 0.0, work }
        });
        let fleet = FleetReport {
            namespace: "simulated".into(),
            name: "fleet".into(),
            uid: FLEET.into(),
            ready: n_ready,
            arrivals: process.arrivals,
            admitted: process.admitted,
            shed: process.shed,
            retries: 0.0,
            queue: process.queue.n,
            queue_seconds: process.queue.read(now),
            work: process.work.report(now),
            pods: pods.collect(),
            ..FleetReport::default()
        };
        Some(Report {
            version: VERSION,
            gateway: format!("gateway-{gateway}"),
            epoch,
            sequence: process.sequence,
            time: rfc3339(now),
            last: false,
            fleets: vec![fleet],
        })
    }
}

/// UID of a pod.
pub(crate) fn uid(pod: u32) -> String {
    format!("00000000-0000-0000-0000-{:012x}", pod + 1)
}

/// A moment of the run as gateways write it.
fn rfc3339(now: Micros) -> String {
    jiff::Timestamp::from_millisecond(BEGIN + now / 1000).unwrap_or_default().to_string()
}
