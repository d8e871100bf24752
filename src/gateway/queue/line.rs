//! The order of the queue: a head for those who were called before, then the clients in turn. Plain data
//! under its owner's lock; knows no tasks and no clock.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::{sync::oneshot, time::Instant};

use super::{QueueError, Turn};

/// Who waits where: `number` is unique and grows with arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) key: u64,
}

/// How to reach a waiter.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) sender: oneshot::Sender<Result<Turn, QueueError>>,
    pub(super) deadline: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    next_number: u64,
    /// Called before and found nothing, by arrival.
    head: BTreeMap<Place, Waiter>,
    /// Keys of `by_key` in the order of their turns.
    round: VecDeque<u64>,
    /// Never an empty value.
    by_key: HashMap<u64, VecDeque<(u64, Waiter)>>,
    len: usize,
    waited_seconds: f64,
    counted_until: Instant,
}

impl Line {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next_number: 0,
            head: BTreeMap::new(),
            round: VecDeque::new(),
            by_key: HashMap::new(),
            len: 0,
            waited_seconds: 0.0,
            counted_until: now,
        }
    }

    pub(super) fn next_place(&mut self, key: u64) -> Place {
        self.next_number += 1;
        Place { number: self.next_number, key }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn integral(&mut self, now: Instant) -> f64 {
        self.count(now);
        self.waited_seconds
    }

    pub(super) fn push_back(&mut self, place: Place, waiter: Waiter, now: Instant) {
        self.count(now);
        self.len += 1;
        let waiters = self.by_key.entry(place.key).or_default();
        if waiters.is_empty() {
            self.round.push_back(place.key);
        }
        waiters.push_back((place.number, waiter));
    }

    pub(super) fn push_front(&mut self, place: Place, waiter: Waiter, now: Instant) {
        self.count(now);
        self.len += 1;
        self.head.insert(place, waiter);
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<(Place, Waiter)> {
        self.count(now);
        if let Some(first) = self.head.pop_first() {
            self.len -= 1;
            return Some(first);
        }
        let key = self.round.pop_front()?;
        let waiters = self.by_key.get_mut(&key)?;
        let (number, waiter) = waiters.pop_front()?;
        if waiters.is_empty() {
            self.by_key.remove(&key);
        } else {
            self.round.push_back(key);
        }
        self.len -= 1;
        Some((Place { number, key }, waiter))
    }

    /// `None` when it was popped before.
    pub(super) fn remove(&mut self, place: Place, now: Instant) -> Option<Waiter> {
        self.count(now);
        let removed = self.head.remove(&place).or_else(|| self.remove_from_round(place));
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Takes the latest waiter of the key that waits for most, if that is more than `key` would wait for
    /// with one more. Those at the head are safe: it was their turn already.
    pub(super) fn displace_for(&mut self, key: u64, now: Instant) -> Option<Waiter> {
        let own = self.by_key.get(&key).map_or(0, VecDeque::len);
        let most = self.by_key.values_mut().max_by_key(|waiters| waiters.len())?;
        if most.len() <= own + 1 {
            return None;
        }
        let (_, waiter) = most.pop_back()?;
        self.count(now);
        self.len -= 1;
        Some(waiter)
    }

    fn remove_from_round(&mut self, place: Place) -> Option<Waiter> {
        let waiters = self.by_key.get_mut(&place.key)?;
        let at = waiters.binary_search_by_key(&place.number, |(number, _)| *number).ok()?;
        let (_, waiter) = waiters.remove(at)?;
        if waiters.is_empty() {
            self.by_key.remove(&place.key);
            // At once, not when its turn comes: a client that leaves and returns must not be in it twice.
            self.round.retain(|key| *key != place.key);
        }
        Some(waiter)
    }

    fn count(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted_until);
        self.waited_seconds += passed.as_secs_f64() * self.len as f64;
        self.counted_until = self.counted_until.max(now);
    }
}
