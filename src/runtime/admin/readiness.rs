//! Readiness by ownership: the process is ready when nobody holds a blocker any more.
//!
//! A blocker is handed to whoever has something to do first (fill a store, open a port). It is
//! cleared by its drop, so it cannot be forgotten on an early return.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Knows what the process still waits for. Clones share the same list.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    blockers: Arc<Mutex<Blockers>>,
}

#[derive(Debug, Default)]
struct Blockers {
    next: u64,
    names: BTreeMap<u64, String>,
}

/// Something that must happen before the process is ready.
#[derive(Debug)]
#[must_use = "the process is ready as soon as this is dropped"]
pub struct Blocker {
    blockers: Arc<Mutex<Blockers>>,
    number: u64,
}

impl Readiness {
    /// Holds readiness back until the blocker is dropped. `name` is shown to people, in `/readyz`.
    pub fn blocker(&self, name: impl Into<String>) -> Blocker {
        let mut blockers = self.blockers.lock();
        let number = blockers.next;
        blockers.next += 1;
        blockers.names.insert(number, name.into());
        Blocker { blockers: Arc::clone(&self.blockers), number }
    }

    /// What is still missing, in the order in which it was registered.
    pub fn missing(&self) -> Vec<String> {
        self.blockers.lock().names.values().cloned().collect()
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.blockers.lock().names.is_empty()
    }
}

impl Blocker {
    /// It has happened. The same as dropping the blocker, said aloud.
    pub fn ready(self) {
        drop(self);
    }
}

impl Drop for Blocker {
    fn drop(&mut self) {
        let mut blockers = self.blockers.lock();
        let name = blockers.names.remove(&self.number);
        let left = blockers.names.len();
        drop(blockers);
        tracing::debug!(name, left, "a readiness blocker is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_when_the_last_blocker_is_gone() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let stores = readiness.blocker("stores");
        let twin = readiness.blocker("stores");
        let port = readiness.blocker("port");
        assert_eq!(readiness.missing(), ["stores", "stores", "port"]);
        stores.ready();
        drop(port);
        assert_eq!(readiness.clone().missing(), ["stores"]);
        drop(twin);
        assert!(readiness.is_ready());
    }
}
