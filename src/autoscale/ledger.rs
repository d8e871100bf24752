//! What each gateway has reported, and what follows from it for a window: cumulative counters → rates and means.
//!
//! Inputs: reports (`report.rs`) and the moment at which they came; output: [`Load`]. Reports may come twice, late,
//! in another order or not at all: counters are cumulative, so that the next one makes up for it. What cannot be
//! (NaN, negative, counters that go back) is dropped and counted, and never believed. Must not look at a clock.
//!
//! Times are those of the samples, moved to our own clock; a clock that jumps, ours or the gateway's, is noticed by
//! comparing with the time between arrivals. Whether a gateway is silent depends on arrivals alone.

mod gateway;
mod point;
mod series;
#[cfg(test)]
mod tests;
mod window;

pub use point::PodNow;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::atomic::{AtomicI64, Ordering::Relaxed},
};

use super::{
    policy::Windows,
    report::{FleetReport, Report, VERSION},
    snapshot::PodUid,
    time::{Millis, Now},
};
use gateway::{Gateway, Order};
use point::Impossible;
use series::{Moment, Reach, Series};

/// Gateways that are remembered; beyond that the one that was not heard for longest goes.
const MAX_GATEWAYS: usize = 512;
/// Fleets that are remembered.
const MAX_FLEETS: usize = 50_000;
/// Series of one fleet: every gateway, and those before that ended.
const MAX_SERIES: usize = 1_024;
/// Longest name of a gateway and longest UID, in bytes.
const MAX_NAME: usize = 253;
/// Samples this far in the future are believed, as of now: clocks differ.
const AHEAD: Millis = 5_000;
/// A gateway that knows a fleet says so at least this often.
const SAID: Millis = 60_000;

/// Reports of all gateways, by fleet. Bounded.
#[derive(Debug)]
pub struct Ledger {
    names: HashMap<Box<str>, u32>,
    gateways: BTreeMap<u32, Gateway>,
    next: u32,
    fleets: HashMap<Box<str>, Fleet>,
    /// Fleets with calls that wait for a first pod.
    waiting: HashSet<Box<str>>,
    /// The greatest `maxSampleAge` that somebody asked with.
    max_age: AtomicI64,
}

/// One fleet at all gateways.
#[derive(Debug)]
struct Fleet {
    series: Vec<Series>,
    drops: Drops,
    /// The windows that were asked for last: how far back the series reach.
    stable: AtomicI64,
    panic: AtomicI64,
}

/// Samples of a fleet that were not believed, since it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// A number was NaN, infinite, negative or beyond all measure, or a counter went back.
    pub impossible: u64,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Receipt {
    /// Taken.
    Accepted,
    /// Seen before, or overtaken by a later one of the same process.
    Duplicate,
    /// Too old, or too far in the future, to be believed.
    Untimely,
    /// Another version, or a head that cannot be read.
    Malformed,
}

/// What is known of a fleet right now, without a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Newest {
    /// When the newest sample was taken, in ms since the Unix epoch.
    pub wall: i64,
    /// Calls that wait.
    pub waiting: f64,
    /// What runs on each pod.
    pub pods: BTreeMap<PodUid, PodNow>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            gateways: BTreeMap::new(),
            next: 0,
            fleets: HashMap::new(),
            waiting: HashSet::new(),
            max_age: AtomicI64::new(Windows::default().max_sample_age),
        }
    }
}

impl Default for Fleet {
    fn default() -> Self {
        let windows = Windows::default();
        Self {
            series: Vec::new(),
            drops: Drops::default(),
            stable: AtomicI64::new(windows.stable),
            panic: AtomicI64::new(windows.panic),
        }
    }
}

impl Fleet {
    fn reach(&self) -> Reach {
        Reach { stable: self.stable.load(Relaxed), panic: self.panic.load(Relaxed) }
    }

    fn waits(&self) -> bool {
        self.series.iter().any(Series::waits)
    }
}

impl Ledger {
    /// Takes a report. Its counters stay until the gateway's process is gone for longer than the longest window.
    ///
    /// Who calls has to know that the report is of the gateway that it names.
    pub fn accept(&mut self, report: &Report, now: Now) -> Receipt {
        let time: Option<jiff::Timestamp> = report.time.parse().ok();
        let (Some(time), true) = (time, report.version == VERSION) else { return Receipt::Malformed };
        if report.gateway.is_empty() || report.gateway.len() > MAX_NAME {
            return Receipt::Malformed;
        }
        let taken = time.as_millisecond();
        let age = now.wall.saturating_sub(taken);
        if age > self.max_age.load(Relaxed) || age < -AHEAD {
            return Receipt::Untimely;
        }
        let id = self.gateway(&report.gateway);
        let gateway = self.gateways.entry(id).or_default();
        if gateway.order(report, now.mono) == Order::Old {
            return Receipt::Duplicate;
        }
        let moment = gateway.hear(report, taken, now);
        for fleet in report.fleets.iter().filter(|f| !f.uid.is_empty() && f.uid.len() <= MAX_NAME) {
            // When its counters were zero, moved to our clock by the gateway's own.
            let zero = (fleet.since > 0)
                .then(|| moment.at.saturating_sub(taken.saturating_sub(fleet.since as i64).max(0)));
            self.sample((id, report.epoch), fleet, moment, zero);
        }
        Receipt::Accepted
    }

    /// The number of a gateway; a new one where it is not known.
    fn gateway(&mut self, name: &str) -> u32 {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        if self.names.len() >= MAX_GATEWAYS {
            let oldest = self.gateways.iter().min_by_key(|(_, g)| g.heard).map(|(id, _)| *id);
            self.forget(|id, _| Some(*id) == oldest);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.names.insert(name.into(), id);
        self.gateways.insert(id, Gateway::default());
        id
    }

    fn sample(
        &mut self,
        (id, epoch): (u32, u64),
        report: &FleetReport,
        moment: Moment,
        zero: Option<Millis>,
    ) {
        let uid = report.uid.as_str();
        if !self.fleets.contains_key(uid) {
            if self.fleets.len() >= MAX_FLEETS {
                return;
            }
            self.fleets.insert(uid.into(), Fleet::default());
        }
        let Some(fleet) = self.fleets.get_mut(uid) else { return };
        let reach = fleet.reach();
        let known = fleet.series.iter().position(|s| s.gateway == id);
        let waited = known.is_some_and(|i| fleet.series[i].waits());
        let taken = match known {
            Some(i) if fleet.series[i].continues(epoch, report) => {
                fleet.series[i].push(report, moment, reach)
            }
            // What it did before it started anew is not in the new counters, so that the window is not complete.
            Some(i) => Series::new((id, epoch), report, moment, None).map(|new| fleet.series[i] = new),
            None if fleet.series.len() >= MAX_SERIES => Ok(()),
            None => {
                let zero = zero.filter(|zero| moment.at - zero <= reach.stable);
                Series::new((id, epoch), report, moment, zero).map(|new| fleet.series.push(new))
            }
        };
        if let Err(Impossible) = taken {
            fleet.drops.impossible += 1;
        }
        let waits = fleet.series.iter().any(|s| s.gateway == id && s.waits());
        if waits {
            if !waited {
                self.waiting.insert(uid.into());
            }
        } else if waited && !fleet.waits() {
            self.waiting.remove(uid);
        }
    }

    /// Fleets at which calls wait while there is no pod that they could go to, as gateways that are heard say.
    pub fn fleets_waiting(&self, now: Now) -> impl Iterator<Item = &str> {
        let is_heard = move |s: &Series| {
            self.gateways.get(&s.gateway).is_some_and(|g| g.epoch == s.epoch && g.is_heard(now.mono))
        };
        let waits = move |uid: &&str| {
            self.fleets.get(*uid).is_some_and(|f| f.series.iter().any(|s| s.waits() && is_heard(s)))
        };
        self.waiting.iter().map(AsRef::as_ref).filter(waits)
    }

    /// What is known of a fleet right now. Gateways that fell silent count as they were: what is asked for is where
    /// work may still be.
    pub fn newest(&self, uid: &str) -> Option<Newest> {
        let fleet = self.fleets.get(uid)?;
        let mut newest = Newest { wall: i64::MIN, ..Newest::default() };
        for series in &fleet.series {
            let Some(gateway) = self.gateways.get(&series.gateway).filter(|g| !g.ended) else { continue };
            newest.wall = newest.wall.max(gateway.taken);
            newest.waiting += series.gauges.queue;
            for (pod, now) in &series.gauges.pods {
                newest.pods.entry(*pod).or_default().add(now);
            }
        }
        (newest.wall > i64::MIN).then_some(newest)
    }

    /// Samples of a fleet that were not believed.
    pub fn drops(&self, uid: &str) -> Drops {
        self.fleets.get(uid).map(|f| f.drops).unwrap_or_default()
    }

    /// Gateways that are heard.
    pub fn heard(&self, now: Now) -> usize {
        self.gateways.values().filter(|g| g.is_heard(now.mono)).count()
    }

    /// Forgets gateways and fleets of which nothing can be in a window any more. Call it every minute or so.
    pub fn prune(&mut self, now: Now) {
        let longest = self.fleets.values().map(|f| f.stable.load(Relaxed)).max().unwrap_or(0).max(SAID);
        self.forget(|_, gateway| now.mono - gateway.heard > longest);
        for fleet in self.fleets.values_mut() {
            let keep = fleet.stable.load(Relaxed).max(SAID);
            fleet.series.retain(|s| now.mono - s.said <= keep);
        }
        self.forget(|_, _| false);
    }

    /// Forgets gateways, series without a gateway and fleets without a series.
    fn forget(&mut self, is_gone: impl Fn(&u32, &Gateway) -> bool) {
        self.gateways.retain(|id, gateway| !is_gone(id, gateway));
        self.names.retain(|_, id| self.gateways.contains_key(id));
        self.fleets.retain(|_, fleet| {
            fleet.series.retain(|s| self.gateways.contains_key(&s.gateway));
            !fleet.series.is_empty()
        });
        self.waiting.retain(|uid| self.fleets.contains_key(uid));
    }
}
