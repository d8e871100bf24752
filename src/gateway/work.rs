//! What only one pod can go on with: live tasks and open retries. A terminating pod is kept as long as there is
//! any (mcp.md section 6, points 5 and 6).

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

use super::balance::Nanos;

/// Most items that are remembered per endpoint; what comes on top is not waited for.
const MOST: usize = 10_000;

/// Tasks and retries of one endpoint, by the id of their token, with the moment at which they no longer count.
#[derive(Default)]
pub struct Work {
    items: Mutex<HashMap<u128, Nanos>>,
}

impl Work {
    /// It was seen just now, and is waited for so long.
    pub fn seen(&self, id: u128, now: Nanos, wait: Duration) {
        let mut items = self.items.lock();
        if items.len() >= MOST {
            items.retain(|_, until| *until > now);
        }
        if items.len() < MOST || items.contains_key(&id) {
            items.insert(id, now.saturating_add(wait.as_nanos() as Nanos));
        }
    }

    /// It came to its end.
    pub fn done(&self, id: u128) {
        self.items.lock().remove(&id);
    }

    /// How many there are.
    pub fn count(&self, now: Nanos) -> usize {
        let mut items = self.items.lock();
        items.retain(|_, until| *until > now);
        items.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_neither_done_nor_over() {
        let (work, second) = (Work::default(), 1_000_000_000);
        work.seen(1, 0, Duration::from_secs(10));
        work.seen(2, 0, Duration::from_secs(20));
        work.seen(3, 0, Duration::from_secs(30));
        work.done(3);
        assert_eq!(work.count(5 * second), 2);
        work.seen(1, 9 * second, Duration::from_secs(10));
        assert_eq!(work.count(15 * second), 2, "seen again, waited for again");
        assert_eq!(work.count(20 * second), 0);
    }

    #[test]
    fn is_bounded() {
        let work = Work::default();
        for id in 0..(MOST as u128 + 5) {
            work.seen(id, 0, Duration::from_secs(1));
        }
        assert_eq!(work.count(0), MOST);
    }
}
