//! The queue of one fleet: calls that found no place wait here, bounded, fair between clients.
//!
//! Clients (keys) take turns; within a client first come, first served. Waiters live on several
//! runtimes; the lock is held for a few map operations and never across an await.
//!
//! Who is woken holds a [`Turn`], the right to look for a place. Every turn ends in one of three ways:
//! the place was found, the holder gave up, or it found none and goes back to the head. The first two wake
//! the next waiter, so one wake-up serves as many waiters as there are places. The third ends the chain,
//! unless something was freed since the turn was given: then the holder looks again. So no free place is
//! ever left beside a waiter, whatever the order of wake-ups, arrivals and departures.
//!
//! The head of the queue blocks the rest: let only calls wait here that any free place can serve.

mod line;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use self::line::{Line, Place, Waiter};

/// Why a call did not get its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// As many wait as may.
    #[error("the queue is full")]
    Full,
    /// Waited for as long as allowed.
    #[error("waited too long in the queue")]
    TimedOut,
}

/// See the module.
#[derive(Debug)]
pub struct FairQueue {
    capacity: AtomicUsize,
    line: Mutex<Line>,
    /// Waiters and outstanding turns: what newcomers must not overtake. Changed under the lock.
    pending: AtomicUsize,
    /// Counts wake-ups, heard or not.
    n_wakes: AtomicU64,
}

impl FairQueue {
    /// A queue of at most `capacity` waiters and outstanding turns.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity: AtomicUsize::new(capacity),
            line: Mutex::new(Line::new(Instant::now())),
            pending: AtomicUsize::new(0),
            n_wakes: AtomicU64::new(0),
        })
    }

    /// Settings changed. Those who wait stay.
    pub fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, SeqCst);
    }

    /// Whether a newcomer may look for a place at once: nobody waits, and nobody who was woken is still
    /// looking. One load.
    pub fn is_empty(&self) -> bool {
        self.pending.load(SeqCst) == 0
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.line.lock().len()
    }

    /// Seconds of waiting, summed over all waiters so far. Differences of it give the mean queue between
    /// two load reports.
    pub fn integral(&self) -> f64 {
        self.line.lock().integral(Instant::now())
    }

    /// Waits for a turn, at most `timeout`. Dropping the future leaves the queue.
    ///
    /// With nobody ahead the first turn comes at once: a place may have been freed between the caller's
    /// look and this call, with nobody here to hear of it.
    pub async fn wait(self: &Arc<Self>, key: u64, timeout: Duration) -> Result<Turn, QueueError> {
        let deadline = Instant::now() + timeout;
        let waiting = {
            let mut line = self.line.lock();
            let mut pending = self.pending.load(SeqCst);
            if pending >= self.capacity.load(SeqCst) {
                // A full queue is shared as well: who waits for least displaces the latest of who waits
                // for most, else one client could shut out all others.
                let Some(displaced) = line.displace_for(key, Instant::now()) else {
                    return Err(QueueError::Full);
                };
                pending -= 1;
                // Its client may have left, which is fine.
                drop(displaced.sender.send(Err(QueueError::Full)));
            }
            let place = line.next_place(key);
            // Before n_wakes is read below: `wake` does the two in the opposite order, so either it sees
            // this waiter or this waiter sees the wake-up.
            self.pending.store(pending + 1, SeqCst);
            if pending == 0 {
                return Ok(self.turn(place, deadline));
            }
            let (sender, receiver) = oneshot::channel();
            line.push_back(place, Waiter { sender, deadline }, Instant::now());
            Waiting { queue: self, place, deadline, receiver }
        };
        waiting.turn().await
    }

    /// Something was freed or added: up to `n` waiters look for a place. Call it after each finished call
    /// and each change of endpoints, from any thread; after the place became visible. 1 is enough even when
    /// many places appeared, since who finds a place wakes the next.
    pub fn wake(self: &Arc<Self>, n: usize) {
        self.n_wakes.fetch_add(1, SeqCst);
        if self.is_empty() {
            return;
        }
        for _ in 0..n {
            let next = self.pop(&mut self.line.lock());
            if !self.give(next) {
                return;
            }
        }
    }

    /// The next waiter whose deadline has not passed. Those whose has are told by dropping their sender.
    fn pop(&self, line: &mut Line) -> Option<(Place, Waiter)> {
        let now = Instant::now();
        loop {
            let (place, waiter) = line.pop(now)?;
            if waiter.deadline > now {
                return Some((place, waiter));
            }
            self.pending.fetch_sub(1, SeqCst);
        }
    }

    /// Not under the lock: a receiver that is gone returns the turn, and a dropped turn takes the lock.
    fn give(self: &Arc<Self>, next: Option<(Place, Waiter)>) -> bool {
        let Some((place, waiter)) = next else { return false };
        let turn = self.turn(place, waiter.deadline);
        // On failure the turn comes back and its drop wakes the next.
        drop(waiter.sender.send(Ok(turn)));
        true
    }

    fn turn(self: &Arc<Self>, place: Place, deadline: Instant) -> Turn {
        let n_wakes = self.n_wakes.load(SeqCst);
        Turn { queue: Some(Arc::clone(self)), place, deadline, n_wakes }
    }

    /// A turn ended: the next waiter looks.
    fn settle(self: &Arc<Self>) {
        let next = {
            let mut line = self.line.lock();
            self.pending.fetch_sub(1, SeqCst);
            self.pop(&mut line)
        };
        self.give(next);
    }
}

/// The right to look for a place. Dropping it, with a place found or not, lets the next waiter look.
#[derive(Debug)]
#[must_use = "look for a place; if there is none, requeue_front"]
pub struct Turn {
    /// `None` once the turn went back into the queue.
    queue: Option<Arc<FairQueue>>,
    place: Place,
    deadline: Instant,
    n_wakes: u64,
}

impl Turn {
    /// A place was found and taken. The same as dropping the turn, by a name that says so.
    pub fn taken(self) {
        drop(self);
    }

    /// No place after all: waits again, ahead of all who came later, until the original deadline. Returns
    /// at once when something was freed since this turn was given.
    pub async fn requeue_front(mut self) -> Result<Self, QueueError> {
        let Some(queue) = self.queue.take() else { return Err(QueueError::TimedOut) };
        let (place, deadline) = (self.place, self.deadline);
        let receiver = {
            let mut line = queue.line.lock();
            let n_wakes = queue.n_wakes.load(SeqCst);
            let expired = deadline <= Instant::now();
            if expired || n_wakes != self.n_wakes {
                drop(line);
                self.n_wakes = n_wakes;
                self.queue = Some(queue);
                // Out of time, the turn ends here and the next waiter looks.
                return if expired { Err(QueueError::TimedOut) } else { Ok(self) };
            }
            let (sender, receiver) = oneshot::channel();
            line.push_front(place, Waiter { sender, deadline }, Instant::now());
            receiver
        };
        Waiting { queue: &queue, place, deadline, receiver }.turn().await
    }

    /// Until when its call may wait.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.settle();
        }
    }
}

/// One waiter; leaves the queue when dropped. The receiver goes after `drop` ran: a turn that was sent but
/// not received is dropped with it, and so wakes the next.
struct Waiting<'a> {
    queue: &'a Arc<FairQueue>,
    place: Place,
    deadline: Instant,
    receiver: oneshot::Receiver<Result<Turn, QueueError>>,
}

impl Waiting<'_> {
    async fn turn(mut self) -> Result<Turn, QueueError> {
        if let Ok(told) = tokio::time::timeout_at(self.deadline, &mut self.receiver).await {
            return told.unwrap_or(Err(QueueError::TimedOut));
        }
        self.leave();
        // Called up in time, heard late: the turn counts.
        self.receiver.try_recv().unwrap_or(Err(QueueError::TimedOut))
    }

    fn leave(&self) {
        let mut line = self.queue.line.lock();
        if line.remove(self.place, Instant::now()).is_some() {
            self.queue.pending.fetch_sub(1, SeqCst);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
