//! Decides when a terminating pod is empty: what was seen on the port, over time → wait or done.
//!
//! Pure: time comes in as the duration since the hook started, sockets as [`Connections`]. It must
//! not read a clock or a file.
//!
//! The rules, and why:
//!
//! - **At least `min`.** Endpoints take seconds to spread to proxies and gateways; until then new
//!   clients still come.
//! - **Nobody for `quiet`, without a break.** A client may close one connection before it opens the
//!   next one; a gateway that anchors a pod does just that. The quiet time may lie within `min`, so an
//!   empty pod goes after `min`.
//! - **A connection counts once it is seen at two looks in a row** ([`LOOK_INTERVAL`] apart). The
//!   kubelet goes on with readiness probes while a pod terminates; each lasts milliseconds and must
//!   not start the quiet time anew. A connection seen for the first time only puts the decision off
//!   by one look: if it is still there it was no probe, and the quiet time starts anew.
//! - **A half-closed connection counts for [`HALF_CLOSED_PATIENCE`].** Its client may wait for an
//!   answer. But a server that never closes what its clients have left (a common leak) would hold
//!   each of its pods until the deadline.
//! - **At most `timeout`**, whatever is seen.
//! - **Blind.** If the tables could never be read, the drain ends after `min`: there is no reason to
//!   believe that waiting longer helps anybody. If they could be read before, what was seen last
//!   cannot be disproved: no decision until they can be read again, or the deadline.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::sockets::{Connections, Ends, Kind};

/// Time between two looks at the tables. Longer than a probe, short against the seconds that a pod
/// takes to go; reading the tables of a busy pod takes a few milliseconds.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a connection counts whose client has closed its side.
pub const HALF_CLOSED_PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait. `timeout` wins over the other two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wait at least so long.
    pub min: Duration,
    /// Nobody connected for so long, without a break.
    pub quiet: Duration,
    /// Wait at most so long.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min: Duration::from_secs(5), quiet: Duration::from_secs(2), timeout: Duration::from_mins(5) }
    }
}

/// What to do after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look again after so long: more than zero, at most [`LOOK_INTERVAL`].
    Wait(Duration),
    /// The hook may return.
    Done(Outcome),
}

/// Why the hook returns. Prints as the line for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody was connected for the quiet time.
    Drained {
        /// Since the hook started.
        after: Duration,
    },
    /// The time is up.
    Deadline {
        /// Since the hook started.
        after: Duration,
        /// Connections that still counted when the tables were last read.
        held: usize,
    },
    /// The tables could not be read a single time.
    Blind {
        /// Since the hook started.
        after: Duration,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained { after } => {
                write!(f, "drained: nobody is connected, after {:.1} s", after.as_secs_f64())
            }
            Self::Deadline { after, held } => write!(
                f,
                "deadline: the drain time of {:.1} s is over with {held} connection(s) held; they are cut",
                after.as_secs_f64()
            ),
            Self::Blind { after } => write!(
                f,
                "blind: connections cannot be seen; waited the minimum of {:.1} s only",
                after.as_secs_f64()
            ),
        }
    }
}

/// A connection that was there at the last look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When it was first seen half-closed without a break.
    half_closed_since: Option<Duration>,
}

/// One drain, from the start of the hook to its end.
#[derive(Debug)]
pub struct Drain {
    limits: Limits,
    /// Connections at the last look that succeeded.
    last: BTreeMap<Ends, Seen>,
    /// Those of `last` that counted.
    held: usize,
    /// Since when nobody counts.
    quiet_since: Option<Duration>,
    /// Whether any look has succeeded.
    sighted: bool,
}

impl Drain {
    /// Starts a drain at time zero.
    pub fn new(limits: Limits) -> Self {
        Self { limits, last: BTreeMap::new(), held: 0, quiet_since: None, sighted: false }
    }

    /// Takes one look: `elapsed` since the start (never less than at the look before) and what the
    /// tables say, or `None` if they could not be read.
    pub fn observe(&mut self, elapsed: Duration, connections: Option<&Connections>) -> Step {
        // What cannot be seen is not quiet either.
        if connections.is_none() {
            self.quiet_since = None;
        }
        let n_unconfirmed = connections.map_or(0, |connections| self.take(elapsed, connections));
        if elapsed >= self.limits.timeout {
            return Step::Done(Outcome::Deadline { after: elapsed, held: self.held });
        }
        if elapsed >= self.limits.min {
            if !self.sighted {
                return Step::Done(Outcome::Blind { after: elapsed });
            }
            let quiet =
                self.quiet_since.is_some_and(|since| elapsed.saturating_sub(since) >= self.limits.quiet);
            if quiet && n_unconfirmed == 0 {
                return Step::Done(Outcome::Drained { after: elapsed });
            }
        }
        Step::Wait(self.until_next_look(elapsed))
    }

    /// Remembers what is connected, counts who holds the pod, and returns the number of connections
    /// that were not there at the look before.
    fn take(&mut self, elapsed: Duration, connections: &Connections) -> usize {
        let mut now = BTreeMap::new();
        let (mut n_held, mut n_unconfirmed) = (0, 0);
        for (ends, kind) in connections.iter() {
            let before = self.last.get(ends);
            let half_closed_since = (kind == Kind::HalfClosed)
                .then(|| before.and_then(|seen| seen.half_closed_since).unwrap_or(elapsed));
            let abandoned =
                half_closed_since.is_some_and(|since| elapsed.saturating_sub(since) >= HALF_CLOSED_PATIENCE);
            match before {
                _ if abandoned => {}
                Some(_) => n_held += 1,
                None => n_unconfirmed += 1,
            }
            now.insert(*ends, Seen { half_closed_since });
        }
        self.last = now;
        self.held = n_held;
        self.sighted = true;
        if n_held > 0 {
            self.quiet_since = None;
        } else if n_unconfirmed == 0 && self.quiet_since.is_none() {
            self.quiet_since = Some(elapsed);
        }
        n_unconfirmed
    }

    /// One interval, or less if the drain may end earlier: an empty pod should go at `min` and not
    /// at the look after it.
    fn until_next_look(&self, elapsed: Duration) -> Duration {
        let ends = [
            Some(self.limits.timeout),
            Some(self.limits.min),
            self.quiet_since.map(|since| since + self.limits.quiet),
        ];
        ends.into_iter()
            .flatten()
            .filter_map(|end| end.checked_sub(elapsed))
            .filter(|left| !left.is_zero())
            .fold(LOOK_INTERVAL, Duration::min)
    }
}

#[cfg(test)]
mod tests;
