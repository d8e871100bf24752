//! Fleets that come together: what sets off little is made for all of them before what sets off much for any.
//!
//! A Deployment makes controllers and kubelets write many times (replica sets, pods, bindings, endpoints,
//! statuses), and each later write of ours shares the API server with that; Services suffer most, because it gives
//! out cluster IPs one after the other. So where many fleets are new at once, as after a restore or the first sync
//! of a repository, a fleet's pass stops before its Deployment until all of them have had their first pass. A fleet
//! that comes alone never waits, and one of a few waits for a second at most. Times and writes: `benches/README.md`.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use kube::Resource;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

use super::state::WatchedFleet;
use crate::domain::FleetKey;

/// So many that have not had their first pass hold others for [`SHORT`] only. Fleets that are made all day, a few at a
/// time, are no burst, but a burst begins with a few.
const FEW: usize = 8;
const SHORT: Duration = Duration::from_secs(1);
/// Where no new fleet got a child for so long, the others wait no more: what stands in the way of a few, such as a
/// webhook that hangs, is not the others' matter.
const STANDSTILL: Duration = Duration::from_secs(2);
/// No fleet waits longer, however many come.
const LONGEST: Duration = Duration::from_mins(1);

/// The new fleets, and which of them wait for the rest.
pub struct Newcomers {
    inner: Mutex<Inner>,
    release: mpsc::UnboundedSender<FleetKey>,
}

struct Inner {
    /// They have not had their first pass.
    expected: HashSet<FleetKey>,
    /// When one of them last got a child, or had that pass.
    moved_at: Instant,
    /// They had it, and wait for the others.
    held: HashMap<FleetKey, Held>,
}

struct Held {
    since: Instant,
    /// When a pass last found that it has to wait.
    looked_at: Instant,
}

impl Newcomers {
    /// None yet. The receiver names fleets that wait no more: each needs a pass.
    pub fn new(now: Instant) -> (Self, mpsc::UnboundedReceiver<FleetKey>) {
        let (release, released) = mpsc::unbounded_channel();
        let inner = Inner { expected: HashSet::new(), moved_at: now, held: HashMap::new() };
        (Self { inner: Mutex::new(inner), release }, released)
    }

    /// A fleet that is about to get its first pass was seen.
    pub fn expect(&self, key: FleetKey, now: Instant) {
        let mut inner = self.inner.lock();
        if inner.expected.is_empty() {
            inner.moved_at = now;
        }
        inner.expected.insert(key);
    }

    /// A child of a fleet was written. First passes run side by side, and where the API server is slow they all end
    /// late; that is no reason to go on without them.
    pub fn wrote(&self, key: &FleetKey, now: Instant) {
        let mut inner = self.inner.lock();
        if inner.expected.contains(key) {
            inner.moved_at = now;
        }
    }

    /// A pass of a fleet is over that began at `started`. Once only a few are due, those that wait look again; once none
    /// is, they go on. A fleet that this pass has not held waits no more: it may be invalid by now.
    pub fn passed(&self, key: &FleetKey, started: Instant, now: Instant) {
        let mut inner = self.inner.lock();
        inner.passed(key, now, &self.release);
        if inner.held.get(key).is_some_and(|held| held.looked_at < started) {
            inner.held.remove(key);
        }
    }

    /// For a fleet that has all but its Deployment and what follows it: after how long to look again whether it may
    /// have those; `None`: now. Only a new one ever waits.
    pub fn hold(&self, key: &FleetKey, now: Instant) -> Option<Duration> {
        let mut inner = self.inner.lock();
        if !inner.passed(key, now, &self.release) && !inner.held.contains_key(key) {
            return None;
        }
        let held = inner.held.entry(key.clone()).or_insert(Held { since: now, looked_at: now });
        held.looked_at = now;
        let since = held.since;
        let longest = if inner.expected.len() <= FEW { SHORT } else { LONGEST };
        let free = inner.expected.is_empty()
            || now.duration_since(inner.moved_at) >= STANDSTILL
            || now.duration_since(since) >= longest;
        if free {
            inner.held.remove(key);
        }
        (!free).then_some(longest.min(STANDSTILL))
    }

    /// This fleet waits no more, for it is somebody else's.
    pub fn unhold(&self, key: &FleetKey) {
        self.inner.lock().held.remove(key);
    }

    /// Forgets a fleet that is gone.
    pub fn forget(&self, key: &FleetKey, now: Instant) {
        let mut inner = self.inner.lock();
        inner.held.remove(key);
        inner.passed(key, now, &self.release);
    }

    /// How many wait for others.
    pub fn n_held(&self) -> usize {
        self.inner.lock().held.len()
    }
}

impl Inner {
    /// Whether it was expected.
    fn passed(&mut self, key: &FleetKey, now: Instant, release: &mpsc::UnboundedSender<FleetKey>) -> bool {
        if !self.expected.remove(key) {
            return false;
        }
        self.moved_at = now;
        if self.expected.is_empty() || self.expected.len() == FEW {
            // Nobody listens any more while the process ends.
            self.held.keys().for_each(|held| drop(release.send(held.clone())));
        }
        true
    }
}

/// Whether nothing was done for a fleet yet, as far as it shows: our first write on it sets its scale or its status.
pub fn is_new(fleet: &WatchedFleet) -> bool {
    let Ok(read) = &fleet.0 else { return false };
    read.status.is_none() && fleet.meta().generation == Some(1) && fleet.meta().deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> FleetKey {
        FleetKey::new("tools", name)
    }

    /// Fleets of a burst: so many that the others wait for them.
    fn burst(newcomers: &Newcomers, n: usize, now: Instant) -> Vec<FleetKey> {
        let keys: Vec<_> = (0..n).map(|i| key(&format!("fleet-{i}"))).collect();
        for key in &keys {
            newcomers.expect(key.clone(), now);
        }
        keys
    }

    #[test]
    fn a_fleet_that_comes_alone_never_waits() {
        let now = Instant::now();
        let (newcomers, mut released) = Newcomers::new(now);
        newcomers.expect(key("a"), now);
        assert_eq!(newcomers.hold(&key("a"), now), None);
        assert_eq!(newcomers.n_held(), 0);
        assert!(released.try_recv().is_err());
    }

    #[test]
    fn where_fleets_follow_each_other_one_waits_a_second_at_most() {
        let start = Instant::now();
        let (newcomers, _released) = Newcomers::new(start);
        for tenth in 0..1000_u64 {
            let now = start + Duration::from_millis(100 * tenth);
            newcomers.expect(key(&format!("fleet-{tenth}")), now);
            // Each gets its first pass half a second later, and another one after the wait.
            if let Some(first) = tenth.checked_sub(5) {
                assert_eq!(newcomers.hold(&key(&format!("fleet-{first}")), now), Some(SHORT), "{first}");
            }
            if let Some(second) = tenth.checked_sub(15) {
                assert_eq!(newcomers.hold(&key(&format!("fleet-{second}")), now), None, "{second}");
            }
        }
    }

    #[test]
    fn one_whose_deployment_is_made_anew_waits_for_nobody() {
        let now = Instant::now();
        let (newcomers, _released) = Newcomers::new(now);
        burst(&newcomers, 100, now);
        assert_eq!(newcomers.hold(&key("old"), now), None);
        assert_eq!(newcomers.n_held(), 0);
    }

    #[test]
    fn those_that_come_together_wait_for_the_last_of_them() {
        let now = Instant::now();
        let (newcomers, mut released) = Newcomers::new(now);
        let keys = burst(&newcomers, 3, now);
        assert_eq!(newcomers.hold(&keys[0], now), Some(SHORT));
        newcomers.passed(&keys[1], now, now);
        assert_eq!(newcomers.hold(&keys[0], now), Some(SHORT), "the third has not had its pass");
        assert!(released.try_recv().is_err());
        assert_eq!(newcomers.hold(&keys[2], now), None, "the last goes on at once");
        assert_eq!(released.try_recv(), Ok(keys[0].clone()));
        assert_eq!(newcomers.hold(&keys[0], now), None);
        assert_eq!(newcomers.n_held(), 0);
    }

    #[test]
    fn many_wait_until_a_few_are_left_and_a_moment_longer() {
        let now = Instant::now();
        let (newcomers, mut released) = Newcomers::new(now);
        let keys = burst(&newcomers, FEW + 2, now);
        assert_eq!(newcomers.hold(&keys[0], now), Some(STANDSTILL));
        assert_eq!(newcomers.hold(&keys[0], now + SHORT), Some(STANDSTILL), "more than a few are left");
        newcomers.passed(&keys[1], now, now + SHORT);
        assert_eq!(released.try_recv(), Ok(keys[0].clone()));
        assert_eq!(newcomers.hold(&keys[0], now + SHORT), None);
    }

    #[test]
    fn those_that_get_no_pass_hold_the_others_for_a_moment_only() {
        let now = Instant::now();
        let (newcomers, _released) = Newcomers::new(now);
        let keys = burst(&newcomers, 100, now);
        assert_eq!(newcomers.hold(&keys[0], now), Some(STANDSTILL));
        assert_eq!(newcomers.hold(&keys[0], now + STANDSTILL), None);
        let later = now + STANDSTILL * 2;
        assert_eq!(newcomers.hold(&keys[1], later), Some(STANDSTILL), "its own pass is progress");
        assert_eq!(newcomers.hold(&keys[1], later + STANDSTILL), None);
    }

    #[test]
    fn first_passes_that_take_long_are_no_standstill() {
        let now = Instant::now();
        let (newcomers, _released) = Newcomers::new(now);
        let keys = burst(&newcomers, 100, now);
        assert_eq!(newcomers.hold(&keys[0], now), Some(STANDSTILL));
        newcomers.wrote(&keys[1], now + SHORT);
        assert_eq!(newcomers.hold(&keys[0], now + STANDSTILL), Some(STANDSTILL));
        newcomers.wrote(&keys[0], now + STANDSTILL);
        assert_eq!(
            newcomers.hold(&keys[0], now + STANDSTILL + SHORT),
            None,
            "its own writes are no progress"
        );
    }

    #[test]
    fn nobody_waits_for_ever_where_fleets_keep_coming() {
        let start = Instant::now();
        let (newcomers, _released) = Newcomers::new(start);
        let keys = burst(&newcomers, 200, start);
        let mut waited = Duration::ZERO;
        for second in 1..100 {
            let now = start + Duration::from_secs(second);
            newcomers.passed(&keys[second as usize], now, now);
            match newcomers.hold(&keys[0], now) {
                Some(_) => waited = Duration::from_secs(second),
                None => break,
            }
        }
        assert_eq!(waited, LONGEST, "from the end of its first pass, one second after it came");
    }

    #[test]
    fn a_held_fleet_that_a_later_pass_does_not_hold_waits_no_more() {
        let now = Instant::now();
        let (newcomers, _released) = Newcomers::new(now);
        let keys = burst(&newcomers, 100, now);
        assert!(newcomers.hold(&keys[0], now).is_some());
        newcomers.passed(&keys[0], now, now);
        assert_eq!(newcomers.n_held(), 1, "the pass that held it is over");
        // It was edited and is invalid: its next pass ends before anybody asks.
        let later = now + SHORT;
        newcomers.passed(&keys[0], later, later);
        assert_eq!(newcomers.n_held(), 0);
    }

    #[test]
    fn the_end_of_a_fleet_lets_the_others_go() {
        let now = Instant::now();
        let (newcomers, mut released) = Newcomers::new(now);
        let keys = burst(&newcomers, 3, now);
        assert!(newcomers.hold(&keys[0], now).is_some() && newcomers.hold(&keys[1], now).is_some());
        newcomers.forget(&keys[1], now);
        newcomers.forget(&keys[2], now);
        assert_eq!(released.try_recv(), Ok(keys[0].clone()));
        assert!(released.try_recv().is_err(), "what is gone needs no pass");
    }
}
