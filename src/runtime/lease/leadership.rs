//! The handle that writers ask: are we leader, and until when may a write be under way?
//!
//! It answers from the clock and the last renewal, not from the election task: a runtime too busy to
//! renew is also too busy to tell, and must not go on writing for that reason.

use std::future::Future;

use futures::{Stream, stream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// A write was not begun, or not finished, because we are not leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotLeader {
    /// Another replica leads: nothing was sent.
    #[error("this replica is not the leader")]
    Standby,
    /// The renew deadline came while the call was under way: it may have taken effect.
    #[error("the leader lease ran out during the call, which may or may not have taken effect")]
    Expired,
}

/// Tells whether this process is leader. Cheap to clone and to ask.
#[derive(Debug, Clone)]
pub struct Leadership {
    deadline: watch::Receiver<Option<Instant>>,
}

/// The end that belongs to the election task.
#[derive(Debug)]
pub(super) struct Announcer(watch::Sender<Option<Instant>>);

/// Permission for one write, taken just before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    deadline: Instant,
}

impl Leadership {
    pub(super) fn channel() -> (Announcer, Self) {
        let (sender, deadline) = watch::channel(None);
        (Announcer(sender), Self { deadline })
    }

    /// A handle that never changes: leader until `deadline`, or never. For tests of code that writes.
    pub fn fixed(deadline: Option<Instant>) -> Self {
        Self { deadline: watch::channel(deadline).1 }
    }

    /// Whether a write may begin now.
    pub fn is_leader(&self) -> bool {
        self.fence().is_some()
    }

    /// Permission for a write that begins now and is over by [`Fence::deadline`].
    pub fn fence(&self) -> Option<Fence> {
        let deadline = (*self.deadline.borrow())?;
        (Instant::now() < deadline).then_some(Fence { deadline })
    }

    /// Runs one write, if we are leader, and cuts it off at the renew deadline.
    pub async fn fenced<F: Future>(&self, write: F) -> Result<F::Output, NotLeader> {
        self.fence().ok_or(NotLeader::Standby)?.bound(write).await
    }

    /// One item each time that this process becomes leader, the current term included. For
    /// `Controller::reconcile_all_on`.
    pub fn gained(&self) -> impl Stream<Item = ()> + Send + use<> {
        let deadline = self.deadline.clone();
        stream::unfold((deadline, false), |(mut deadline, was_leader)| async move {
            if was_leader {
                deadline.wait_for(Option::is_none).await.ok()?;
            }
            deadline.wait_for(Option::is_some).await.ok()?;
            Some(((), (deadline, true)))
        })
    }
}

impl Fence {
    /// No write may be under way after this.
    pub fn deadline(self) -> Instant {
        self.deadline
    }

    /// Runs one write and cuts it off at the deadline.
    pub async fn bound<F: Future>(self, write: F) -> Result<F::Output, NotLeader> {
        timeout_at(self.deadline, write).await.map_err(|_| NotLeader::Expired)
    }
}

impl Announcer {
    /// Publishes the claim. Those who wait hear of gain and loss, not of each renewal.
    /// Returns whether it was a gain or a loss.
    pub(super) fn announce(&self, claim: Option<Instant>) -> bool {
        self.0.send_if_modified(|deadline| {
            let is_edge = deadline.is_some() != claim.is_some();
            *deadline = claim;
            is_edge
        })
    }
}

impl Drop for Announcer {
    /// A task that ends, by a panic included, leads no more.
    fn drop(&mut self) {
        self.announce(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use std::time::Duration;
    use tokio::time::{advance, sleep};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_by_the_clock_alone() {
        let (announcer, leadership) = Leadership::channel();
        assert!(!leadership.is_leader());
        announcer.announce(Some(Instant::now() + 10 * SECOND));
        assert!(leadership.is_leader());
        advance(10 * SECOND).await;
        assert!(!leadership.is_leader());
        assert_eq!(leadership.fenced(async {}).await, Err(NotLeader::Standby));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_cut_off_at_the_deadline() {
        let leadership = Leadership::fixed(Some(Instant::now() + 10 * SECOND));
        assert_eq!(leadership.fenced(sleep(9 * SECOND)).await, Ok(()));
        assert_eq!(leadership.fenced(sleep(9 * SECOND)).await, Err(NotLeader::Expired));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_moves_the_deadline_and_wakes_nobody() {
        let (announcer, leadership) = Leadership::channel();
        let mut gained = Box::pin(leadership.gained());
        announcer.announce(Some(Instant::now() + 10 * SECOND));
        assert_eq!(gained.next().await, Some(()));
        advance(5 * SECOND).await;
        assert!(!announcer.announce(Some(Instant::now() + 10 * SECOND)));
        assert!(futures::poll!(gained.next()).is_pending());
        advance(9 * SECOND).await;
        assert!(leadership.is_leader());
    }

    #[tokio::test]
    async fn every_gain_is_told_once_also_to_a_late_listener() {
        let (announcer, leadership) = Leadership::channel();
        let end = Instant::now() + 10 * SECOND;
        announcer.announce(Some(end));
        let mut gained = Box::pin(leadership.gained());
        assert_eq!(gained.next().await, Some(()));
        assert!(futures::poll!(gained.next()).is_pending());
        announcer.announce(None);
        assert!(futures::poll!(gained.next()).is_pending());
        announcer.announce(Some(end));
        assert_eq!(gained.next().await, Some(()));
        drop(announcer);
        assert_eq!(gained.next().await, None);
        assert!(!leadership.is_leader());
    }
}
