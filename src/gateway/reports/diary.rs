//! What was reported of each fleet last: which fleets a report may leave out, and since when a fleet's counters
//! count. A fleet that is left out is as it was in the last report that had it, so that 10,000 fleets at rest cost
//! their receivers next to nothing.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::{Arc, Weak},
};

use jiff::Timestamp;

use super::wire::{self, FleetLoad, Report};
use crate::gateway::{fleet::Fleet, shared::Gateway};

/// A fleet is reported so often without a change before it is left out. Whoever misses the change has missed as
/// many reports in a row, and knows that.
const REPEATS: u32 = 10;
/// A fleet that is left out is reported again after so many ms, for receivers that have just started: from this…
const REMIND_FROM: u64 = 6_000;
/// …to this longer, a fixed time for each fleet, so that they do not all come at once.
const REMIND_SPREAD: u64 = 8_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Diary {
    epoch: u64,
    sequence: u64,
    /// When the last report was taken, in ms since the Unix epoch.
    taken: u64,
    fleets: HashMap<Box<str>, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The counters' owner: another one has counters of its own.
    fleet: Weak<Fleet>,
    since: u64,
    last: FleetLoad,
    /// Reports in a row that said the same.
    same: u32,
    /// When it was reported last, in ms since the Unix epoch.
    sent: u64,
}

impl Diary {
    /// Of a process that started at `epoch`, in ms since the Unix epoch.
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch, sequence: 0, taken: epoch, fleets: HashMap::new() }
    }

    /// Takes the next report, with `all` fleets or with those that need it. One caller at a time: reading folds the
    /// integrals.
    pub(super) fn take(&mut self, gateway: &Gateway, now: Timestamp, all: bool, last: bool) -> Report {
        self.sequence += 1;
        let millis = now.as_millisecond().max(0) as u64;
        let known = &gateway.snapshot.load().fleets;
        let mut fleets = Vec::new();
        for fleet in known {
            let (due, load) = self.write(gateway, fleet, millis);
            if due || all {
                fleets.push(load);
            }
        }
        if self.fleets.len() > known.len() {
            self.fleets.retain(|_, entry| entry.fleet.strong_count() > 0);
        }
        self.taken = millis;
        Report::new(&gateway.options.name, (self.epoch, self.sequence), format!("{now:.3}"), last, fleets)
    }

    /// Reads a fleet; with it, whether a report needs it.
    fn write(&mut self, gateway: &Gateway, fleet: &Arc<Fleet>, now: u64) -> (bool, FleetLoad) {
        let entry =
            self.fleets.get_mut(&fleet.uid).filter(|e| std::ptr::eq(e.fleet.as_ptr(), Arc::as_ptr(fleet)));
        let Some(entry) = entry else {
            // Its counters were zero when the report before was taken: it was not there yet.
            let last = wire::fleet(gateway, fleet, self.taken);
            let entry = Entry {
                fleet: Arc::downgrade(fleet),
                since: self.taken,
                last: last.clone(),
                same: 0,
                sent: now,
            };
            self.fleets.insert(fleet.uid.clone(), entry);
            return (true, last);
        };
        let load = wire::fleet(gateway, fleet, entry.since);
        entry.same = if load == entry.last { entry.same.saturating_add(1) } else { 0 };
        let spread = BuildHasherDefault::<DefaultHasher>::default().hash_one(&fleet.uid) % REMIND_SPREAD;
        let due = entry.same < REPEATS || now.abs_diff(entry.sent) >= REMIND_FROM + spread;
        if due {
            entry.sent = now;
        }
        entry.last = load.clone();
        (due, load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::test_support;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_790_000_000_000 + millis).unwrap()
    }

    /// UIDs and starts of the fleets that a report has.
    fn has(report: &Report) -> Vec<(String, u64)> {
        let json = serde_json::to_value(report).unwrap();
        let of = |f: &serde_json::Value| {
            (f["uid"].as_str().unwrap().to_owned(), f["since"].as_u64().unwrap() - 1_790_000_000_000)
        };
        json["fleets"].as_array().unwrap().iter().map(of).collect()
    }

    #[test]
    fn a_fleet_at_rest_is_left_out_and_said_again_from_time_to_time() {
        let gateway = test_support::gateway();
        let (busy, rest) = (test_support::fleet("busy"), test_support::fleet("rest"));
        let key = busy.key.clone();
        gateway.set_fleets(vec![busy, rest]);
        let busy = gateway.fleet(&key).unwrap();
        let mut diary = Diary::new(1_790_000_000_000);
        let mut reminded = Vec::new();
        for second in 1..=60_i64 {
            busy.totals.arrived();
            let has = has(&diary.take(&gateway, at(second * 1000), false, false));
            assert!(has.contains(&("uid-busy".into(), 0)), "{has:?}");
            if has.len() == 2 {
                reminded.push(second);
            }
        }
        let repeats = i64::from(REPEATS);
        assert_eq!(reminded[..repeats as usize], (1..=repeats).collect::<Vec<_>>());
        let pauses: Vec<_> = reminded[repeats as usize - 1..].windows(2).map(|w| w[1] - w[0]).collect();
        assert!(pauses.len() >= 3 && pauses.iter().all(|p| (6..=15).contains(p)), "{pauses:?}");
        assert_eq!(has(&diary.take(&gateway, at(61_000), true, false)).len(), 2, "asked for all");
    }

    #[test]
    fn new_counters_have_a_new_start() {
        let gateway = test_support::gateway();
        let mut diary = Diary::new(1_790_000_000_000);
        diary.take(&gateway, at(1_000), false, false);
        gateway.set_fleets(vec![test_support::fleet("a")]);
        let first = has(&diary.take(&gateway, at(2_000), false, false));
        assert_eq!(first, [("uid-a".to_owned(), 1_000)], "zero when the report before was taken");
        assert_eq!(has(&diary.take(&gateway, at(3_000), false, false)), first);
        gateway.set_fleets(Vec::new());
        assert_eq!(has(&diary.take(&gateway, at(4_000), false, false)), []);
        assert_eq!(diary.fleets.len(), 0);
        gateway.set_fleets(vec![test_support::fleet("a")]);
        assert_eq!(has(&diary.take(&gateway, at(5_000), false, false)), [("uid-a".to_owned(), 4_000)]);
    }
}
