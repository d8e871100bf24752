//! Leader election over one `coordination.k8s.io` Lease: one replica writes, the others stand by.
//!
//! | file | does |
//! |---|---|
//! | `election` | what was seen, and when → what to do next; pure, no clock |
//! | `store` | reads, writes and watches the Lease object |
//! | `elector` | the task: clock and store at the rim, `election` in the middle |
//! | `leadership` | the handle that every writer asks before it writes |
//!
//! Why two replicas never write at the same time:
//!
//! 1. Every change of the Lease carries the resourceVersion that was read, so of two candidates that
//!    see it expired only one gets it.
//! 2. Clocks of different machines are never compared. A candidate measures on its own monotonic
//!    clock for how long it has seen the Lease unchanged, and takes it only after the whole lease
//!    duration (15 s).
//! 3. The holder may write until the renew deadline (10 s) after the *start* of its last successful
//!    renewal. What it has sent by then has 5 s to arrive, or to die, before somebody else takes over.
//!
//! What it cannot exclude: a holder that is stopped (SIGSTOP, a suspended machine) between the check
//! and the write, and somebody who deletes the Lease just when a new candidate starts. So writes must
//! be idempotent as well, or carry a resourceVersion.

pub mod election;
mod elector;
mod leadership;
mod store;

pub use elector::{Elector, LeaseMetrics, Lost};
pub use leadership::{Fence, Leadership, NotLeader};
pub use store::{KubeStore, LeaseStore, StoreError};

use std::time::Duration;

/// Longest lease duration that is accepted from the settings and believed of others.
const MAX_DURATION: Duration = Duration::from_mins(10);

/// How long a lease lasts and how eagerly it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long others leave an unchanged lease alone. Whole seconds, at most 600.
    pub duration: Duration,
    /// How long the holder may write after the start of its last successful renewal.
    pub renew_deadline: Duration,
    /// Time between two renewals, and between two attempts.
    pub retry_period: Duration,
}

impl Default for Timing {
    /// 15 s, 10 s and 2 s: the values of Kubernetes' own components.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Timing that would let two replicas write at once, or let the holder lose a healthy lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Not a whole number of seconds from 1 to 600.
    #[error("the lease duration must be 1 to 600 whole seconds, not {0:?}")]
    Duration(Duration),
    /// The holder would write while others may already take over.
    #[error("the renew deadline ({renew_deadline:?}) must be shorter than the lease duration ({duration:?})")]
    RenewDeadline {
        /// As given.
        renew_deadline: Duration,
        /// As given.
        duration: Duration,
    },
    /// One failed renewal would end the leadership.
    #[error(
        "the retry period ({retry_period:?}) must be positive and at most half the renew deadline ({renew_deadline:?})"
    )]
    RetryPeriod {
        /// As given.
        retry_period: Duration,
        /// As given.
        renew_deadline: Duration,
    },
}

impl Timing {
    /// Checks what the safety argument at the head of this module rests on.
    pub fn validate(self) -> Result<Self, TimingError> {
        let Self { duration, renew_deadline, retry_period } = self;
        if duration.is_zero() || duration > MAX_DURATION || duration.subsec_nanos() != 0 {
            return Err(TimingError::Duration(duration));
        }
        if renew_deadline >= duration {
            return Err(TimingError::RenewDeadline { renew_deadline, duration });
        }
        if retry_period.is_zero() || retry_period * 2 > renew_deadline {
            return Err(TimingError::RetryPeriod { retry_period, renew_deadline });
        }
        Ok(self)
    }

    /// How long one call about the Lease may take: three fit into the renew deadline.
    fn call_timeout(&self) -> Duration {
        self.renew_deadline / 3
    }
}

/// A name for this process that no other one has, a restarted one of the same pod included: the pod's
/// name and a random suffix.
pub fn identity(pod_name: &str) -> String {
    format!("{pod_name}_{:08x}", rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(duration: u64, renew_deadline: u64, retry_period: u64) -> Timing {
        Timing {
            duration: Duration::from_secs(duration),
            renew_deadline: Duration::from_secs(renew_deadline),
            retry_period: Duration::from_secs(retry_period),
        }
    }

    #[test]
    fn timing_must_leave_room_for_safety() {
        for (timing, message) in [
            (timing(0, 0, 0), "the lease duration must be 1 to 600 whole seconds, not 0ns"),
            (timing(601, 10, 2), "the lease duration must be 1 to 600 whole seconds, not 601s"),
            (timing(15, 15, 2), "the renew deadline (15s) must be shorter than the lease duration (15s)"),
            (
                timing(15, 10, 6),
                "the retry period (6s) must be positive and at most half the renew deadline (10s)",
            ),
            (
                timing(15, 10, 0),
                "the retry period (0ns) must be positive and at most half the renew deadline (10s)",
            ),
        ] {
            assert_eq!(timing.validate().unwrap_err().to_string(), message);
        }
        assert!(Timing::default().validate().is_ok());
        assert!(timing(3, 2, 1).validate().is_ok());
    }

    #[test]
    fn two_starts_of_a_pod_have_two_names() {
        let (first, second) = (identity("operator-0"), identity("operator-0"));
        assert!(first.starts_with("operator-0_"));
        assert_ne!(first, second);
    }
}
