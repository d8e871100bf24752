//! Fairness, bounds and deadlines with paused time; no lost wake-ups, both by random interleavings of
//! single steps and by many tasks on real threads.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::poll;
use proptest::prelude::*;

use super::{FairQueue, QueueError, Turn};

const LONG: Duration = Duration::from_secs(3_600);

type Pending = Pin<Box<dyn Future<Output = Result<Turn, QueueError>> + Send>>;

fn waiting(queue: &Arc<FairQueue>, key: u64, timeout: Duration) -> Pending {
    let queue = Arc::clone(queue);
    Box::pin(async move { queue.wait(key, timeout).await })
}

/// A queue whose first turn is out, so that all others wait.
async fn occupied(capacity: usize) -> (Arc<FairQueue>, Turn) {
    let queue = FairQueue::new(capacity);
    assert!(queue.is_empty());
    let turn = queue.wait(0, LONG).await.unwrap();
    assert!(!queue.is_empty());
    (queue, turn)
}

async fn enqueue(queue: &Arc<FairQueue>, key: u64) -> Pending {
    let mut future = waiting(queue, key, LONG);
    assert!(poll!(&mut future).is_pending());
    future
}

/// Ends turns one by one; returns the keys in the order in which they were called.
async fn order(turn: Turn, mut waiters: Vec<(u64, Pending)>) -> Vec<u64> {
    let mut keys = Vec::new();
    turn.taken();
    while !waiters.is_empty() {
        let mut called = None;
        for (i, (_, future)) in waiters.iter_mut().enumerate() {
            if let std::task::Poll::Ready(turn) = poll!(future) {
                assert!(called.replace((i, turn.unwrap())).is_none(), "one turn at a time");
            }
        }
        let (i, turn) = called.expect("somebody is called as long as somebody waits");
        keys.push(waiters.remove(i).0);
        turn.taken();
    }
    keys
}

#[tokio::test(start_paused = true)]
async fn clients_take_turns_and_each_is_first_come_first_served() {
    let (queue, turn) = occupied(100).await;
    let mut waiters = Vec::new();
    // The tag is the key times 100 plus the order of arrival.
    for tag in [100, 101, 102, 103, 200, 201, 300] {
        waiters.push((tag, enqueue(&queue, tag / 100).await));
    }
    assert_eq!(queue.len(), 7);
    assert_eq!(order(turn, waiters).await, [100, 200, 300, 101, 201, 102, 103]);
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_found_no_place_stays_ahead() {
    let (queue, turn) = occupied(100).await;
    let mut second = enqueue(&queue, 2).await;
    let mut first = Box::pin(turn.requeue_front());
    assert!(poll!(&mut first).is_pending());
    queue.wake(1);
    assert!(poll!(&mut second).is_pending());
    let std::task::Poll::Ready(Ok(turn)) = poll!(&mut first) else { panic!("the first is called first") };
    drop(turn);
    assert!(poll!(&mut second).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_between_look_and_requeue_is_heard() {
    let (queue, turn) = occupied(100).await;
    queue.wake(1);
    let mut again = Box::pin(turn.requeue_front());
    assert!(poll!(&mut again).is_ready());
}

#[tokio::test(start_paused = true)]
async fn deadlines_end_waiting_and_are_judged_when_called() {
    let (queue, turn) = occupied(100).await;
    let short = waiting(&queue, 1, Duration::from_secs(5));
    assert_eq!(short.await.err(), Some(QueueError::TimedOut));
    assert_eq!(queue.len(), 0);

    let mut late = waiting(&queue, 1, Duration::from_secs(5));
    assert!(poll!(&mut late).is_pending());
    let mut patient = enqueue(&queue, 2).await;
    tokio::time::advance(Duration::from_secs(6)).await;
    // Not polled since: its own timer had no chance to speak.
    turn.taken();
    assert!(poll!(&mut patient).is_ready(), "a call that nobody waits for any more is passed over");
    assert_eq!(late.await.err(), Some(QueueError::TimedOut));
    assert!(queue.is_empty());

    let turn = queue.wait(1, Duration::from_secs(5)).await.unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(turn.requeue_front().await.err(), Some(QueueError::TimedOut), "the original deadline");
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_forgotten_even_after_being_called() {
    let (queue, turn) = occupied(100).await;
    let gone = enqueue(&queue, 1).await;
    let called = enqueue(&queue, 1).await;
    let mut last = enqueue(&queue, 2).await;
    drop(gone);
    assert_eq!(queue.len(), 2);
    turn.taken();
    // Called, but it leaves before it hears of it.
    drop(called);
    assert!(poll!(&mut last).is_ready());
    drop(last);
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_shared_between_clients() {
    let (queue, turn) = occupied(5).await;
    let mut greedy = Vec::new();
    for _ in 0..4 {
        greedy.push(enqueue(&queue, 1).await);
    }
    assert_eq!(queue.wait(1, LONG).await.err(), Some(QueueError::Full));
    // Another client displaces the latest of the greedy one, until both have the same.
    let modest = [enqueue(&queue, 2).await, enqueue(&queue, 2).await];
    assert_eq!(queue.wait(2, LONG).await.err(), Some(QueueError::Full));
    assert_eq!(greedy.pop().unwrap().await.err(), Some(QueueError::Full));
    assert_eq!(greedy.pop().unwrap().await.err(), Some(QueueError::Full));
    assert_eq!(queue.len(), 4);
    drop((greedy, modest, turn));
    assert!(queue.is_empty());
    assert_eq!(FairQueue::new(0).wait(1, LONG).await.err(), Some(QueueError::Full), "no queue at all");
}

#[tokio::test(start_paused = true)]
async fn the_integral_counts_waiter_seconds() {
    let (queue, turn) = occupied(100).await;
    let one = enqueue(&queue, 1).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    let two = enqueue(&queue, 2).await;
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!((queue.integral() - 8.0).abs() < 0.01, "{}", queue.integral());
    drop((one, two, turn));
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!((queue.integral() - 8.0).abs() < 0.01);
}

/// A caller, one step at a time.
enum Caller {
    /// Looked in vain; will call `wait` (or `requeue_front`) next.
    Unlucky(Option<Turn>),
    Waiting(Pending),
    Called(Turn),
}

/// Places, callers and the queue between them.
struct World {
    queue: Arc<FairQueue>,
    free: usize,
    callers: Vec<Caller>,
}

impl World {
    /// One step of one caller. `None`: it got a place or gave up.
    async fn advance(&mut self, caller: Caller) -> Option<Caller> {
        match caller {
            Caller::Unlucky(turn) => {
                let mut future: Pending = match turn {
                    Some(turn) => Box::pin(turn.requeue_front()),
                    None => waiting(&self.queue, self.callers.len() as u64 % 3, LONG),
                };
                match poll!(&mut future) {
                    std::task::Poll::Ready(turn) => turn.ok().map(Caller::Called),
                    std::task::Poll::Pending => Some(Caller::Waiting(future)),
                }
            }
            Caller::Waiting(mut future) => match poll!(&mut future) {
                std::task::Poll::Ready(turn) => turn.ok().map(Caller::Called),
                std::task::Poll::Pending => Some(Caller::Waiting(future)),
            },
            Caller::Called(turn) if self.free > 0 => {
                self.free -= 1;
                turn.taken();
                None
            }
            Caller::Called(turn) => Some(Caller::Unlucky(Some(turn))),
        }
    }

    async fn step(&mut self, kind: u8, which: usize) {
        match kind {
            // A newcomer: takes a place at once if it may, else it has looked in vain.
            0..=2 if self.queue.is_empty() && self.free > 0 => self.free -= 1,
            0..=2 => self.callers.push(Caller::Unlucky(None)),
            3 => {
                self.free += 1;
                self.queue.wake(1);
            }
            4 if !self.callers.is_empty() => {
                // The client leaves, in whatever state.
                drop(self.callers.swap_remove(which % self.callers.len()));
            }
            _ if !self.callers.is_empty() => {
                let caller = self.callers.swap_remove(which % self.callers.len());
                let next = self.advance(caller).await;
                self.callers.extend(next);
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the order of steps: once everyone has done what he can, there is no free place beside a
    /// waiter, and nothing is left behind.
    #[test]
    fn no_place_stays_free_beside_a_waiter(steps in prop::collection::vec((0_u8..9, any::<usize>()), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut world = World { queue: FairQueue::new(10), free: 0, callers: Vec::new() };
            for (kind, which) in steps {
                world.step(kind, which).await;
            }
            for _ in 0..world.callers.len() * 8 + 8 {
                for caller in std::mem::take(&mut world.callers) {
                    let next = world.advance(caller).await;
                    world.callers.extend(next);
                }
            }
            assert!(world.free == 0 || world.callers.is_empty(), "{} free places", world.free);
            assert!(world.callers.iter().all(|caller| matches!(caller, Caller::Waiting(_))));
            assert_eq!(world.queue.len(), world.callers.len());
            world.callers.clear();
            assert!(world.queue.is_empty());
        });
    }
}

/// One call of the stress: takes one of the places, works, gives it back.
async fn call(queue: &Arc<FairQueue>, free: &AtomicUsize, key: u64) {
    let take = || free.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
    if !(queue.is_empty() && take()) {
        let mut turn = queue.wait(key, LONG).await.unwrap();
        while !take() {
            turn = turn.requeue_front().await.unwrap();
        }
        turn.taken();
    }
    let place = Taken(queue, free);
    tokio::task::yield_now().await;
    drop(place);
}

/// Gives its place back however the call ends.
struct Taken<'a>(&'a Arc<FairQueue>, &'a AtomicUsize);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.1.fetch_add(1, SeqCst);
        self.0.wake(1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_on_many_threads_all_get_through() {
    let queue = FairQueue::new(10_000);
    let free = Arc::new(AtomicUsize::new(3));
    let tasks: Vec<_> = (0..60_u64)
        .map(|task| {
            let (queue, free) = (Arc::clone(&queue), Arc::clone(&free));
            tokio::spawn(async move {
                for round in 0..200_u64 {
                    let work = call(&queue, &free, task % 7);
                    if (task + round).is_multiple_of(5) {
                        // This client leaves early, at a moment that differs from round to round.
                        drop(tokio::time::timeout(Duration::from_micros(round * 7 % 400), work).await);
                    } else {
                        work.await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("a wake-up was lost").unwrap();
    }
    assert!(queue.is_empty());
    assert_eq!((queue.len(), free.load(SeqCst)), (0, 3));
}
