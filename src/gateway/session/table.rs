//! What this gateway remembers of the sessions that it has seen. Bounded; what is forgotten is only what the
//! tokens say anyway, or what peers know too.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::gateway::{balance::Nanos, seal::PodId};

/// Power of two; keeps threads out of each other's way.
const SHARDS: usize = 32;
/// Most sessions that are remembered per shard: 131,072 per fleet.
const PER_SHARD: usize = 4_096;

/// Where a session lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Where its token says.
    #[default]
    Original,
    /// On another pod, or on the same under another upstream identifier.
    Moved {
        /// The pod.
        pod: PodId,
        /// The upstream's own identifier; empty where the server keeps no sessions.
        upstream: Bytes,
        /// How often it has moved.
        epoch: u32,
    },
    /// Its client ended it.
    Ended,
}

/// The wire form of a [`Place`], between gateways.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct MovedTo {
    /// Pod, as hexadecimal number.
    pub pod: String,
    /// Upstream identifier.
    pub upstream: String,
    /// How often it has moved.
    pub epoch: u32,
}

impl Place {
    /// For a peer; `None` where it has not moved.
    pub fn to_wire(&self) -> Option<MovedTo> {
        let Self::Moved { pod, upstream, epoch } = self else { return None };
        let upstream = String::from_utf8_lossy(upstream).into_owned();
        Some(MovedTo { pod: format!("{:032x}", pod.0), upstream, epoch: *epoch })
    }

    /// From a peer.
    pub fn from_wire(moved: MovedTo) -> Option<Self> {
        let pod = PodId(u128::from_str_radix(&moved.pod, 16).ok()?);
        Some(Self::Moved { pod, upstream: moved.upstream.into(), epoch: moved.epoch })
    }

    /// How often it has moved.
    pub fn epoch(&self) -> u32 {
        if let Self::Moved { epoch, .. } = self { *epoch } else { 0 }
    }
}

/// One session.
pub struct Entry {
    /// The random id inside its token.
    pub id: u128,
    /// The pod that minted it.
    pub origin: PodId,
    /// When this gateway saw it first.
    pub since: Nanos,
    last_seen: AtomicU64,
    inflight: AtomicU32,
    /// Requests of the server that its client has not answered.
    pending: AtomicU32,
    /// It has a task of 2025-11-25, which would be lost on a move.
    immovable: AtomicBool,
    place: Mutex<Place>,
    /// Moves one at a time.
    pub moving: tokio::sync::Mutex<()>,
}

impl Entry {
    fn new(id: u128, origin: PodId, now: Nanos) -> Self {
        Self {
            id,
            origin,
            since: now,
            last_seen: AtomicU64::new(now),
            inflight: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            immovable: AtomicBool::new(false),
            place: Mutex::new(Place::Original),
            moving: tokio::sync::Mutex::new(()),
        }
    }

    /// Where it lives.
    pub fn place(&self) -> Place {
        self.place.lock().clone()
    }

    /// The pod on which it lives.
    pub fn pod(&self) -> PodId {
        if let Place::Moved { pod, .. } = &*self.place.lock() { *pod } else { self.origin }
    }

    /// Takes over a newer place; an older one, and any after the end, is ignored.
    pub fn set_place(&self, new: Place) {
        let mut place = self.place.lock();
        let newer = match (&*place, &new) {
            (Place::Ended, _) => false,
            (_, Place::Ended) => true,
            (old, new) => new.epoch() > old.epoch(),
        };
        if newer {
            *place = new;
        }
    }

    /// A call begins.
    pub fn begin(&self, now: Nanos) {
        self.inflight.fetch_add(1, Ordering::AcqRel);
        self.last_seen.store(now, Ordering::Relaxed);
    }

    /// A call has ended.
    pub fn end(&self, now: Nanos) {
        self.inflight.fetch_sub(1, Ordering::AcqRel);
        self.last_seen.store(now, Ordering::Relaxed);
    }

    /// The server asked the client for something.
    pub fn asked(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// The client answered.
    pub fn answered(&self) {
        let _ = self.pending.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
    }

    /// Its server waits for an answer of its client.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }

    /// From now on it stays where it is.
    pub fn pin(&self) {
        self.immovable.store(true, Ordering::Relaxed);
    }

    /// A move would lose something.
    pub fn must_stay(&self) -> bool {
        self.is_pending() || self.immovable.load(Ordering::Relaxed)
    }

    /// Nothing but `own` calls of the asker runs on it, and it may move.
    pub fn is_movable(&self, own: u32) -> bool {
        self.inflight.load(Ordering::Acquire) <= own && !self.must_stay()
    }

    /// Time since its last call.
    pub fn idle(&self, now: Nanos) -> Duration {
        if self.inflight.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(now.saturating_sub(self.last_seen.load(Ordering::Relaxed)))
    }
}

/// The sessions of one fleet.
pub struct Sessions {
    shards: Vec<Mutex<HashMap<u128, Arc<Entry>>>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Sessions {
    fn shard(&self, id: u128) -> &Mutex<HashMap<u128, Arc<Entry>>> {
        &self.shards[(id as usize) & (SHARDS - 1)]
    }

    /// The session of an id, known or not.
    pub fn entry(&self, id: u128, origin: PodId, now: Nanos) -> Arc<Entry> {
        let mut shard = self.shard(id).lock();
        if let Some(entry) = shard.get(&id) {
            return Arc::clone(entry);
        }
        if shard.len() >= PER_SHARD {
            Self::make_room(&mut shard, now);
        }
        Arc::clone(shard.entry(id).or_insert_with(|| Arc::new(Entry::new(id, origin, now))))
    }

    /// The longest idle ones go. What is lost is re-learnt from tokens and peers.
    fn make_room(shard: &mut HashMap<u128, Arc<Entry>>, now: Nanos) {
        let mut idle: Vec<_> = shard.iter().map(|(id, e)| (e.idle(now), *id)).collect();
        idle.sort_unstable_by(|a, b| b.cmp(a));
        for (_, id) in idle.into_iter().take(PER_SHARD / 8) {
            shard.remove(&id);
        }
    }

    /// The session of an id, if it is known.
    pub fn get(&self, id: u128) -> Option<Arc<Entry>> {
        self.shard(id).lock().get(&id).cloned()
    }

    /// Every session, for the few who have to look at all.
    pub fn for_each(&self, mut look: impl FnMut(&Arc<Entry>)) {
        for shard in &self.shards {
            for entry in shard.lock().values() {
                look(entry);
            }
        }
    }

    /// Forgets those that idle for longer; returns how long each had lived, in seconds.
    pub fn sweep(&self, now: Nanos, idle: Duration) -> Vec<f64> {
        let mut lived = Vec::new();
        for shard in &self.shards {
            shard.lock().retain(|_, e| {
                let keep = e.idle(now) < idle;
                if !keep && e.place() != Place::Ended {
                    lived.push(now.saturating_sub(e.since) as f64 / 1e9);
                }
                keep
            });
        }
        lived
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().len()).sum()
    }

    /// None is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(epoch: u32) -> Place {
        Place::Moved { pod: PodId(7), upstream: Bytes::from_static(b"up"), epoch }
    }

    #[test]
    fn the_newest_place_wins_and_the_end_is_final() {
        let sessions = Sessions::default();
        let entry = sessions.entry(1, PodId(1), 0);
        assert_eq!(entry.pod(), PodId(1));
        entry.set_place(moved(2));
        entry.set_place(moved(1));
        assert_eq!(entry.place(), moved(2));
        entry.set_place(Place::Ended);
        entry.set_place(moved(3));
        assert_eq!(entry.place(), Place::Ended);
    }

    #[test]
    fn a_place_survives_the_way_to_a_peer() {
        assert_eq!(moved(3).to_wire().and_then(Place::from_wire), Some(moved(3)));
        assert_eq!(Place::Original.to_wire(), None);
    }

    #[test]
    fn only_an_idle_session_without_open_questions_may_move() {
        let entry = Sessions::default().entry(1, PodId(1), 0);
        entry.begin(0);
        assert!(entry.is_movable(1));
        entry.begin(0);
        assert!(!entry.is_movable(1), "another call runs on it");
        entry.end(0);
        entry.asked();
        assert!(!entry.is_movable(1));
        entry.answered();
        entry.answered();
        assert!(entry.is_movable(1));
        entry.pin();
        assert!(!entry.is_movable(1));
    }

    #[test]
    fn is_bounded_and_forgets_the_idle() {
        let sessions = Sessions::default();
        for id in 0..(PER_SHARD * SHARDS + SHARDS) as u128 {
            sessions.entry(id, PodId(1), id as Nanos);
        }
        assert!(sessions.len() <= PER_SHARD * SHARDS);
        let busy = sessions.entry(9, PodId(1), 0);
        busy.begin(0);
        let hour = 3_600_000_000_000;
        sessions.sweep(hour, Duration::from_secs(1800));
        assert_eq!(sessions.len(), 1);
    }
}
