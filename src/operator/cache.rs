//! What the watches have seen of each fleet, indexed by fleet.
//!
//! kube's reflector keeps objects by name and cannot say "everything of this fleet" without a scan, nor
//! which fleets lost an object over a relist. This cache does both: it knows the fleet of each object,
//! and at the end of a relist names the fleets whose objects are gone.

use std::collections::{BTreeMap, HashMap, HashSet};

use kube::runtime::watcher::Event;
use parking_lot::RwLock;

use crate::domain::FleetKey;

/// Namespace and name of a watched object.
pub type ObjectKey = (String, String);

/// One watched object: its key, the fleet that it belongs to, and what is kept of it.
pub struct Entry<T> {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its fleet.
    pub fleet: FleetKey,
    /// What is kept.
    pub value: T,
}

/// Objects of one kind by fleet.
pub struct Cache<T> {
    inner: RwLock<Inner<T>>,
    /// What a new object of a held name does to it.
    meet: fn(&T, &T) -> Meeting,
    /// resourceVersion of a held object, where own writes are taken in; else 0.
    version: fn(&T) -> u64,
}

/// What a new object does to the one of the same name that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// It is older: a watch lags behind our own write. The held one stays.
    Older,
    /// It says the same: it is taken, and nobody has to look. Half of all events are echoes of our own writes.
    Same,
    /// It says something new.
    News,
}

struct Inner<T> {
    by_fleet: HashMap<FleetKey, BTreeMap<String, T>>,
    fleet_of: HashMap<ObjectKey, FleetKey>,
    /// What a relist has named so far; the rest is gone at its end.
    relisted: Option<HashSet<ObjectKey>>,
    /// Greatest resourceVersion that the watch has told of.
    watched: u64,
    synced: bool,
}

impl<T: PartialEq> Default for Cache<T> {
    fn default() -> Self {
        Self::guarded(|held, new| if held == new { Meeting::Same } else { Meeting::News }, |_| 0)
    }
}

impl<T> Cache<T> {
    /// A cache that takes in the replies of own writes at once ([`Cache::wrote`]), so that reads never fall
    /// behind own writes (the aim of KEP-5647). `meet(held, new)` keeps a watch that lags behind from undoing
    /// it; `version` is an object's resourceVersion, comparable within a kind.
    pub fn guarded(meet: fn(&T, &T) -> Meeting, version: fn(&T) -> u64) -> Self {
        let inner = Inner {
            by_fleet: HashMap::new(),
            fleet_of: HashMap::new(),
            relisted: None,
            watched: 0,
            synced: false,
        };
        Self { inner: RwLock::new(inner), meet, version }
    }
}

impl<T: Clone> Cache<T> {
    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        self.inner.read().synced
    }

    /// Takes in a watch event; returns the fleets that it touches. `entry` says what an object is to us,
    /// or `None` where it is nothing of ours; `id` is its key and its resourceVersion.
    pub fn take<K>(
        &self,
        event: Event<K>,
        entry: impl Fn(K) -> Option<Entry<T>>,
        id: impl Fn(&K) -> (ObjectKey, u64),
    ) -> Vec<FleetKey> {
        let mut inner = self.inner.write();
        match event {
            Event::Init => {
                inner.relisted = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let (object_key, version) = id(&object);
                inner.watched = inner.watched.max(version);
                if let Some(relisted) = &mut inner.relisted {
                    relisted.insert(object_key.clone());
                }
                match entry(object) {
                    Some(entry) => inner.insert(entry, self.meet),
                    None => inner.remove(&object_key).into_iter().collect(),
                }
            }
            Event::Delete(object) => {
                let (key, version) = id(&object);
                inner.watched = inner.watched.max(version);
                // What we created anew under the same name is not what was deleted.
                let newer = inner.held(&key).is_some_and(|held| (self.version)(held) > version);
                if newer { Vec::new() } else { inner.remove(&key).into_iter().collect() }
            }
            Event::InitDone => {
                inner.synced = true;
                let relisted = inner.relisted.take().unwrap_or_default();
                let gone: Vec<ObjectKey> =
                    inner.fleet_of.keys().filter(|k| !relisted.contains(*k)).cloned().collect();
                gone.iter().filter_map(|k| inner.remove(k)).collect()
            }
        }
    }

    /// Takes in the reply of an own write. Where the watch is past that version already and the object is not
    /// held, it was deleted in the meantime, and no event will come to say so again.
    pub fn wrote(&self, entry: Entry<T>) {
        let mut inner = self.inner.write();
        let passed = (self.version)(&entry.value) <= inner.watched;
        if !passed || inner.held(&entry.key).is_some() {
            inner.insert(entry, self.meet);
        }
    }

    /// Removes one object that a direct read did not find.
    pub fn remove(&self, key: &ObjectKey) {
        self.inner.write().remove(key);
    }

    /// Everything of a fleet, by name.
    pub fn of(&self, fleet: &FleetKey) -> BTreeMap<String, T> {
        self.inner.read().by_fleet.get(fleet).cloned().unwrap_or_default()
    }

    /// Looks at everything of a fleet, by name, without a copy. `look` must be quick: the watch waits.
    pub fn with<R>(&self, fleet: &FleetKey, look: impl FnOnce(Option<&BTreeMap<String, T>>) -> R) -> R {
        look(self.inner.read().by_fleet.get(fleet))
    }

    /// One object of a fleet.
    pub fn get(&self, fleet: &FleetKey, name: &str) -> Option<T> {
        self.inner.read().by_fleet.get(fleet)?.get(name).cloned()
    }

    /// The fleet of an object.
    pub fn fleet_of(&self, key: &ObjectKey) -> Option<FleetKey> {
        self.inner.read().fleet_of.get(key).cloned()
    }

    /// How many objects are held.
    pub fn len(&self) -> usize {
        self.inner.read().fleet_of.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Inner<T> {
    fn held(&self, key: &ObjectKey) -> Option<&T> {
        self.by_fleet.get(self.fleet_of.get(key)?)?.get(&key.1)
    }

    /// Returns the fleets that it touches.
    fn insert(&mut self, entry: Entry<T>, meet: fn(&T, &T) -> Meeting) -> Vec<FleetKey> {
        let held = self.by_fleet.get_mut(&entry.fleet).and_then(|objects| objects.get_mut(&entry.key.1));
        if let Some(held) = held {
            match meet(held, &entry.value) {
                Meeting::Older => return Vec::new(),
                Meeting::Same => {
                    *held = entry.value;
                    return Vec::new();
                }
                Meeting::News => {}
            }
        }
        let mut touched = vec![entry.fleet.clone()];
        let before = self.fleet_of.insert(entry.key.clone(), entry.fleet.clone());
        if let Some(before) = before.filter(|b| *b != entry.fleet) {
            self.drop_from(&before, &entry.key.1);
            touched.push(before);
        }
        self.by_fleet.entry(entry.fleet).or_default().insert(entry.key.1, entry.value);
        touched
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<FleetKey> {
        let fleet = self.fleet_of.remove(key)?;
        self.drop_from(&fleet, &key.1);
        Some(fleet)
    }

    fn drop_from(&mut self, fleet: &FleetKey, name: &str) {
        if let Some(objects) = self.by_fleet.get_mut(fleet) {
            objects.remove(name);
            if objects.is_empty() {
                self.by_fleet.remove(fleet);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (name, fleet, value); fleet "" is nothing of ours.
    type Object = (&'static str, &'static str, i32);

    fn take(cache: &Cache<i32>, event: Event<Object>) -> Vec<String> {
        let entry = |(name, fleet, value): Object| {
            let fleet = (!fleet.is_empty()).then(|| FleetKey::new("ns", fleet))?;
            Some(Entry { key: ("ns".into(), name.into()), fleet, value })
        };
        let id = |o: &Object| (("ns".into(), o.0.into()), o.2 as u64);
        cache.take(event, entry, id).into_iter().map(|f| f.name).collect()
    }

    #[test]
    fn a_relist_names_the_fleets_that_lost_an_object() {
        let cache = Cache::default();
        take(&cache, Event::Apply(("a", "one", 1)));
        take(&cache, Event::Apply(("b", "two", 2)));
        take(&cache, Event::Init);
        take(&cache, Event::InitApply(("b", "two", 3)));
        assert_eq!(take(&cache, Event::InitDone), ["one"]);
        assert!(cache.of(&FleetKey::new("ns", "one")).is_empty());
        assert_eq!(cache.get(&FleetKey::new("ns", "two"), "b"), Some(3));
    }

    #[test]
    fn an_object_that_changes_its_fleet_touches_both() {
        let cache = Cache::default();
        take(&cache, Event::Apply(("a", "one", 1)));
        assert_eq!(take(&cache, Event::Apply(("a", "two", 1))), ["two", "one"]);
        assert_eq!(take(&cache, Event::Apply(("a", "", 1))), ["two"]);
        assert!(cache.is_empty());
    }

    /// The value is the version.
    fn guarded() -> Cache<i32> {
        let meet = |held: &i32, new: &i32| match new.cmp(held) {
            std::cmp::Ordering::Less => Meeting::Older,
            std::cmp::Ordering::Equal => Meeting::Same,
            std::cmp::Ordering::Greater => Meeting::News,
        };
        Cache::guarded(meet, |value| *value as u64)
    }

    fn wrote(cache: &Cache<i32>, name: &str, version: i32) {
        let key = ("ns".to_owned(), name.to_owned());
        cache.wrote(Entry { key, fleet: FleetKey::new("ns", "one"), value: version });
    }

    #[test]
    fn a_reply_does_not_bring_back_what_was_deleted_in_the_meantime() {
        let (cache, one) = (guarded(), FleetKey::new("ns", "one"));
        take(&cache, Event::Apply(("a", "one", 5)));
        // We write version 6; the watch tells of it, and of the deletion as version 7, before the reply comes.
        take(&cache, Event::Apply(("a", "one", 6)));
        take(&cache, Event::Delete(("a", "one", 7)));
        wrote(&cache, "a", 6);
        assert_eq!(cache.get(&one, "a"), None);
        wrote(&cache, "a", 8);
        assert_eq!(cache.get(&one, "a"), Some(8), "made anew");
    }

    #[test]
    fn a_late_deletion_does_not_take_what_was_made_anew() {
        let (cache, one) = (guarded(), FleetKey::new("ns", "one"));
        take(&cache, Event::Apply(("a", "one", 5)));
        cache.remove(&("ns".into(), "a".into()));
        wrote(&cache, "a", 9);
        assert!(take(&cache, Event::Delete(("a", "one", 7))).is_empty());
        assert_eq!(cache.get(&one, "a"), Some(9));
    }

    #[test]
    fn a_guarded_cache_does_not_go_back() {
        let cache = guarded();
        take(&cache, Event::Apply(("a", "one", 5)));
        assert!(take(&cache, Event::Apply(("a", "one", 4))).is_empty());
        assert_eq!(cache.get(&FleetKey::new("ns", "one"), "a"), Some(5));
        assert_eq!(take(&cache, Event::Apply(("a", "one", 6))), ["one"]);
    }

    #[test]
    fn what_says_nothing_new_touches_nobody() {
        let cache = Cache::default();
        assert_eq!(take(&cache, Event::Apply(("a", "one", 5))), ["one"]);
        assert!(take(&cache, Event::Apply(("a", "one", 5))).is_empty());
        assert_eq!(take(&cache, Event::Apply(("a", "one", 6))), ["one"]);
    }

    #[test]
    fn a_second_delete_touches_nobody() {
        let cache = Cache::default();
        take(&cache, Event::Apply(("a", "one", 1)));
        assert_eq!(take(&cache, Event::Delete(("a", "one", 1))), ["one"]);
        assert!(take(&cache, Event::Delete(("a", "one", 1))).is_empty());
    }
}
