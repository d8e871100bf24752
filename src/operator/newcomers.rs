//! Fleets that come together: what sets off little is made for all of them before what sets off much for any.
//!
//! A Deployment makes controllers and kubelets write many times (replica sets, pods, bindings, endpoints,
//! statuses), and each later write of ours shares the API server with that; Services suffer most, because it gives
//! out cluster IPs one after the other. So where many fleets are new at once, as after a restore or the first sync
//! of a repository, a fleet's pass stops before its Deployment until every new fleet has had its first pass. A
//! fleet that comes alone never waits. Times and writes: `benches/README.md`.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use kube::Resource;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

use super::state::WatchedFleet;
use crate::domain::FleetKey;

/// Where no new fleet got its first pass for so long, the others wait no more: what stands in the way of one, such
/// as a webhook that hangs, is not the others' matter.
const STANDSTILL: Duration = Duration::from_secs(2);
/// No fleet waits longer, however many come.
const LONGEST: Duration = Duration::from_secs(30);

/// The new fleets, and which of them wait for the rest.
pub struct Newcomers {
    inner: Mutex<Inner>,
    release: mpsc::UnboundedSender<FleetKey>,
}

struct Inner {
    /// They have not had their first pass.
    expected: HashSet<FleetKey>,
    /// When one of them last had it.
    moved_at: Instant,
    /// They had it, and wait for the others; since when.
    held: HashMap<FleetKey, Instant>,
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

    /// A pass of a fleet is over, or the fleet is. The last one lets go all that wait.
    pub fn passed(&self, key: &FleetKey, now: Instant) {
        self.inner.lock().passed(key, now, &self.release);
    }

    /// For a fleet that has all but its Deployment and what follows it: after how long to look again whether it may
    /// have those; `None`: now. Only a new one ever waits.
    pub fn hold(&self, key: &FleetKey, now: Instant) -> Option<Duration> {
        let mut inner = self.inner.lock();
        if !inner.passed(key, now, &self.release) && !inner.held.contains_key(key) {
            return None;
        }
        let since = *inner.held.entry(key.clone()).or_insert(now);
        let free = inner.expected.is_empty()
            || now.duration_since(inner.moved_at) >= STANDSTILL
            || now.duration_since(since) >= LONGEST;
        if free {
            inner.held.remove(key);
        }
        (!free).then_some(STANDSTILL)
    }

    /// This fleet waits no more, for it is somebody else's.
    pub fn unhold(&self, key: &FleetKey) {
        self.inner.lock().held.remove(key);
    }

    /// Forgets a fleet that is gone.
    pub fn forget(&self, key: &FleetKey, now: Instant) {
        self.unhold(key);
        self.passed(key, now);
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
        if self.expected.is_empty() {
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

    fn come(newcomers: &Newcomers, names: &[&str], now: Instant) {
        for name in names {
            newcomers.expect(key(name), now);
        }
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
    fn one_whose_deployment_is_made_anew_waits_for_nobody() {
        let now = Instant::now();
        let (newcomers, _released) = Newcomers::new(now);
        come(&newcomers, &["a", "b"], now);
        assert_eq!(newcomers.hold(&key("old"), now), None);
        assert_eq!(newcomers.n_held(), 0);
    }

    #[test]
    fn those_that_come_together_wait_for_the_last_of_them() {
        let now = Instant::now();
        let (newcomers, mut released) = Newcomers::new(now);
        come(&newcomers, &["a", "b", "c"], now);
        assert_eq!(newcomers.hold(&key("a"), now), Some(STANDSTILL));
        newcomers.passed(&key("b"), now);
        assert_eq!(newcomers.hold(&key("a"), now), Some(STANDSTILL), "c has not had its pass");
        assert!(released.try_recv().is_err());
        assert_eq!(newcomers.hold(&key("c"), now), None, "the last goes on at once");
        assert_eq!(released.try_recv(), Ok(key("a")));
        assert_eq!(newcomers.hold(&key("a"), now), None);
        assert_eq!(newcomers.n_held(), 0);
    }

    #[test]
    fn one_that_gets_no_pass_holds_the_others_for_a_moment_only() {
        let now = Instant::now();
        let (newcomers, _released) = Newcomers::new(now);
        come(&newcomers, &["stuck", "a"], now);
        assert_eq!(newcomers.hold(&key("a"), now), Some(STANDSTILL));
        assert_eq!(newcomers.hold(&key("a"), now + STANDSTILL), None);
        let later = now + STANDSTILL * 2;
        newcomers.expect(key("b"), later);
        assert_eq!(newcomers.hold(&key("b"), later), Some(STANDSTILL), "its own pass is progress");
        assert_eq!(newcomers.hold(&key("b"), later + STANDSTILL), None);
    }

    #[test]
    fn nobody_waits_for_ever_where_fleets_keep_coming() {
        let start = Instant::now();
        let (newcomers, _released) = Newcomers::new(start);
        newcomers.expect(key("a"), start);
        newcomers.expect(key("next-0"), start);
        let mut waited = Duration::ZERO;
        for second in 1..100 {
            let now = start + Duration::from_secs(second);
            newcomers.expect(key(&format!("next-{second}")), now);
            newcomers.passed(&key(&format!("next-{}", second - 1)), now);
            match newcomers.hold(&key("a"), now) {
                Some(_) => waited = Duration::from_secs(second),
                None => break,
            }
        }
        assert_eq!(waited, LONGEST, "from the end of its first pass, one second after it came");
    }

    #[test]
    fn the_end_of_a_fleet_lets_the_others_go() {
        let now = Instant::now();
        let (newcomers, mut released) = Newcomers::new(now);
        come(&newcomers, &["a", "b", "gone"], now);
        assert!(newcomers.hold(&key("a"), now).is_some() && newcomers.hold(&key("b"), now).is_some());
        newcomers.forget(&key("b"), now);
        newcomers.forget(&key("gone"), now);
        assert_eq!(released.try_recv(), Ok(key("a")));
        assert!(released.try_recv().is_err(), "what is gone needs no pass");
    }
}
