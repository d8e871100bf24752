//! The books of a run: what clients got, what it cost, and how well supply followed demand.

mod elasticity;

use super::{
    scenario::{Arrivals, Disturbance, Scenario, Shape},
    world::{Conditions, Micros, Phase, Pod, SECOND},
};

pub use self::elasticity::Elasticity;

/// A call is late if it took so much longer than it would have on an idle pod.
const LATE: Micros = SECOND;
/// A reversal of direction within this is a flap.
const FLAP: u32 = 600;
/// Buckets of the histogram of waits: powers of √2 from 1 ms.
const WAITS: usize = 64;
/// Share of a pod's slots or core that a healthy pod uses: what "demand" divides by.
const HEALTHY: f64 = 0.7;

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Share of calls that were late or got no place, in percent.
    pub violations: f64,
    /// Share of calls that got no place, in percent; part of the violations.
    pub shed: f64,
    /// Share of calls that a server failed, in percent; no violations.
    pub failed: f64,
    /// 95 % of all calls waited no longer than this for a slot and for CPU, in seconds.
    pub p95_wait: f64,
    /// Hours of pods: from their creation to their end.
    pub pod_hours: f64,
    /// Changes of the Deployment's replicas.
    pub scale_events: u32,
    /// Reversals within 600 s.
    pub flaps: u32,
    /// Pods that scale-downs took away.
    pub removed: u32,
    /// Sessions whose pod or gateway ended before them.
    pub sessions_broken: u32,
    /// Longest stretch with violations that was not interrupted by a minute without, in seconds.
    pub recovery: u32,
    /// Scale-downs while most calls failed.
    pub downs_in_outage: u32,
    /// SPEC's measures of elasticity.
    pub elasticity: Elasticity,
}

/// A second of a run, for pictures.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Second {
    pub(crate) offered: u32,
    pub(crate) bad: u32,
    pub(crate) demand: f64,
    pub(crate) ready: u32,
    pub(crate) replicas: i32,
    /// D / N as the policy sees it, if it says so.
    pub(crate) score: Option<f64>,
}

/// The books.
#[derive(Debug)]
pub(crate) struct Measure {
    scenario: Scenario,
    slots: f64,
    rates: Arrivals,
    outages: Vec<(u32, u32)>,
    pub(crate) seconds: Vec<Second>,
    waits: [u64; WAITS],
    pod_seconds: u64,
    sessions_broken: u32,
    n_shed: u64,
    n_failed: u64,
    scale_events: u32,
    flaps: u32,
    removed: u32,
    downs_in_outage: u32,
    /// When N changed last, and whether upwards.
    last_change: Option<(u32, bool)>,
}

impl Measure {
    pub(crate) fn new(scenario: &Scenario, seed: u64, slots: u32) -> Self {
        let outage = |d: &Disturbance| match d {
            Disturbance::Outage { from, to, share, .. } if *share >= 0.5 => Some((*from, *to)),
            _ => None,
        };
        Self {
            scenario: scenario.clone(),
            slots: f64::from(slots),
            rates: Arrivals::new(scenario, seed),
            outages: scenario.disturbances.iter().filter_map(outage).collect(),
            seconds: vec![Second::default(); scenario.seconds as usize],
            waits: [0; WAITS],
            pod_seconds: 0,
            sessions_broken: 0,
            n_shed: 0,
            n_failed: 0,
            scale_events: 0,
            flaps: 0,
            removed: 0,
            downs_in_outage: 0,
            last_change: None,
        }
    }

    pub(crate) fn offered(&mut self, now: Micros) {
        if let Some(second) = self.at(now) {
            second.offered += 1;
        }
    }

    /// A call got its answer.
    pub(crate) fn answered(&mut self, arrived: Micros, took: Micros, idle: Micros) {
        let wait = (took - idle).max(0);
        let ms = wait as f64 / 1000.0;
        let bucket = if ms < 1.0 { 0 } else { 1 + (2.0 * ms.log2()) as usize };
        self.waits[bucket.min(WAITS - 1)] += 1;
        if wait > LATE {
            self.bad(arrived);
        }
    }

    pub(crate) fn shed(&mut self, arrived: Micros) {
        self.n_shed += 1;
        self.bad(arrived);
    }

    /// A server failed; nothing that a scale could help.
    pub(crate) fn failed(&mut self) {
        self.n_failed += 1;
    }

    pub(crate) fn session_broken(&mut self) {
        self.sessions_broken += 1;
    }

    fn bad(&mut self, arrived: Micros) {
        if let Some(second) = self.at(arrived) {
            second.bad += 1;
        }
    }

    fn at(&mut self, now: Micros) -> Option<&mut Second> {
        self.seconds.get_mut((now / SECOND) as usize)
    }

    /// Notes N before and after a change.
    pub(crate) fn scaled(&mut self, now: Micros, from: i32, to: i32) {
        let (second, up) = ((now / SECOND) as u32, to > from);
        self.scale_events += 1;
        if self.last_change.is_some_and(|(at, was_up)| was_up != up && second - at < FLAP) {
            self.flaps += 1;
        }
        self.last_change = Some((second, up));
        if !up {
            self.removed += (from - to) as u32;
            let outage = self.outages.iter().any(|(begin, end)| (*begin..*end).contains(&second));
            self.downs_in_outage += u32::from(outage);
        }
    }

    /// What the policy thinks of it.
    pub(crate) fn score(&mut self, now: Micros, score: Option<f64>) {
        if let Some(second) = self.at(now) {
            second.score = score;
        }
    }

    /// Closes a second.
    pub(crate) fn second(
        &mut self,
        now: Micros,
        pods: &[Pod],
        alive: &[u32],
        replicas: i32,
        conditions: &Conditions,
    ) {
        self.pod_seconds += alive.len() as u64;
        let ready = alive.iter().filter(|id| pods[**id as usize].phase == Phase::Ready).count() as u32;
        let streams: u32 = alive.iter().map(|id| pods[*id as usize].streams).sum();
        let demand = self.demand(now, conditions, f64::from(streams));
        if let Some(second) = self.at(now) {
            (second.ready, second.replicas, second.demand) = (ready, replicas, demand);
        }
    }

    /// Pods that would carry the load with 70 % of their slots and CPU, and 100 streams each: what is known here and to
    /// no policy. During an outage what the calls would need if they did not fail.
    fn demand(&mut self, now: Micros, conditions: &Conditions, streams: f64) -> f64 {
        let rate = self.rates.rate(now as f64 / 1e6);
        let service = conditions.service;
        let slots = rate * (service.io_ms + service.cpu_ms) / 1000.0 / (HEALTHY * self.slots);
        let cpu = rate * service.cpu_ms / 1000.0 / HEALTHY;
        let floor = if self.scenario.zero && rate <= 0.0 { 0.0 } else { 1.0 };
        slots.max(cpu).max(streams / 100.0).ceil().clamp(floor, f64::from(self.scenario.max))
    }

    /// Calls that came, and calls that ended, however.
    #[cfg(test)]
    pub(crate) fn balance(&self) -> (u64, u64) {
        let offered = self.seconds.iter().map(|s| u64::from(s.offered)).sum();
        (offered, self.waits.iter().sum::<u64>() + self.n_shed + self.n_failed)
    }

    /// What it came to.
    pub(crate) fn summary(&self) -> Summary {
        let offered: u64 = self.seconds.iter().map(|s| u64::from(s.offered)).sum();
        let bad: u64 = self.seconds.iter().map(|s| u64::from(s.bad)).sum();
        let percent = |n: u64| 100.0 * n as f64 / offered.max(1) as f64;
        Summary {
            violations: percent(bad),
            shed: percent(self.n_shed),
            failed: percent(self.n_failed),
            p95_wait: self.wait(0.95),
            pod_hours: self.pod_seconds as f64 / 3600.0,
            scale_events: self.scale_events,
            flaps: self.flaps,
            removed: self.removed,
            sessions_broken: self.sessions_broken,
            recovery: self.recovery(),
            downs_in_outage: self.downs_in_outage,
            elasticity: Elasticity::of(&self.seconds),
        }
    }

    fn wait(&self, share: f64) -> f64 {
        let total: u64 = self.waits.iter().sum();
        let mut below = 0;
        for (i, n) in self.waits.iter().enumerate() {
            below += n;
            if below as f64 >= share * total as f64 {
                return if i == 0 { 0.0 } else { 2_f64.powf(i as f64 / 2.0) / 1000.0 };
            }
        }
        0.0
    }

    fn recovery(&self) -> u32 {
        let (mut longest, mut begin, mut last) = (0, None, 0);
        for (i, second) in self.seconds.iter().enumerate() {
            let i = i as u32;
            // One late call among many is chance.
            if f64::from(second.bad) > 0.02 * f64::from(second.offered) {
                if begin.is_none_or(|_| i - last > 60) {
                    begin = Some(i);
                }
                last = i;
                longest = longest.max(begin.map_or(0, |b| i + 1 - b));
            }
        }
        longest
    }
}

/// N at the start of a run: what its first second needs.
pub(crate) fn first_replicas(scenario: &Scenario, seed: u64, slots: u32, min: i32) -> i32 {
    let mut measure = Measure::new(scenario, seed, slots);
    let mut service = scenario.service;
    if let Shape::Trace(trace) = &scenario.load {
        let row = trace.at(0.0);
        service.io_ms = row.service_ms.unwrap_or(service.io_ms);
        service.cpu_ms = row.cpu_ms.unwrap_or(service.cpu_ms);
    }
    let conditions = Conditions { service, ..Conditions::default() };
    (measure.demand(0, &conditions, 0.0) as i32).clamp(min.max(1), scenario.max)
}
