//! The decisions of leader election: what was seen, and when → what to do next.
//!
//! Pure: `now` comes in as a local monotonic instant. It must not read a clock, must not compare
//! the times inside a Lease with anything but themselves, and does no I/O.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{MAX_DURATION, Timing};

/// What a Lease object says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; `None` if it was released or never held.
    pub holder: Option<String>,
    /// When the holder says that it renewed it. By the holder's clock, hence only ever compared for
    /// being the same or not.
    pub renewed: Option<Timestamp>,
    /// How often it went to another holder.
    pub transitions: i32,
    /// How long the holder asks others to leave it alone, if it says so.
    pub duration: Option<Duration>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// There is no Lease: create it, held by us.
    Create,
    /// It is free: take it with the resourceVersion that was read.
    Acquire,
    /// It is ours: renew it with the resourceVersion that was read.
    Renew,
    /// Nothing to do for so long, unless a change is seen before.
    Wait(Duration),
}

/// Why a leader is none any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// It was not renewed before the renew deadline.
    Expired,
    /// Somebody else, or nobody, is written in the Lease.
    Taken {
        /// The new holder.
        by: Option<String>,
    },
}

/// The Lease as last seen; `record: None` means that there is none.
#[derive(Debug, Clone)]
pub struct View {
    /// Its content.
    pub record: Option<Record>,
    /// When *we* saw this holder, renew time and transition count for the first time.
    pub observed_at: Instant,
    /// How long we leave it alone from then on, unless it is ours or free.
    pub respite: Duration,
}

/// What candidate `me` may do about a Lease that looks like `view`, as if it held nothing itself.
pub fn decide(view: &View, me: &str, now: Instant) -> Decision {
    let left = view.respite.saturating_sub(now.saturating_duration_since(view.observed_at));
    match view.record.as_ref().map(|record| record.holder.as_deref()) {
        None if left.is_zero() => Decision::Create,
        Some(None) => Decision::Acquire,
        Some(Some(holder)) if holder == me => Decision::Renew,
        Some(Some(_)) if left.is_zero() => Decision::Acquire,
        None | Some(Some(_)) => Decision::Wait(left),
    }
}

/// The right to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    /// Start of the last successful write of the Lease.
    renewed_at: Instant,
    /// No write may be under way after this.
    deadline: Instant,
}

/// One replica's memory of the election.
#[derive(Debug)]
pub struct Candidate {
    me: String,
    timing: Timing,
    view: Option<View>,
    claim: Option<Claim>,
}

impl Candidate {
    /// A candidate that has seen nothing yet. `me` must be unique among all processes, ever.
    pub fn new(me: String, timing: Timing) -> Self {
        Self { me, timing, view: None, claim: None }
    }

    /// Until when this candidate may write, if it may at all.
    pub fn claim(&self, now: Instant) -> Option<Instant> {
        self.claim.map(|claim| claim.deadline).filter(|deadline| now < *deadline)
    }

    /// Notes what was read. `now` is the time after the read, never before: a late time only makes
    /// this candidate more patient.
    pub fn see(&mut self, record: Option<Record>, now: Instant) {
        if let Some(view) = &mut self.view
            && is_same_term(view.record.as_ref(), record.as_ref())
        {
            view.record = record;
            return;
        }
        let respite = match (&record, &self.view) {
            (Some(record), _) => {
                record.duration.map_or(self.timing.duration, |asked| asked.min(MAX_DURATION))
            }
            // It was held and is gone: its holder may not know yet.
            (None, Some(View { record: Some(Record { holder: Some(_), .. }), respite, .. })) => *respite,
            // Never seen one, as at the first start of all, or one that was free.
            (None, _) => Duration::ZERO,
        };
        self.view = Some(View { record, observed_at: now, respite });
    }

    /// What to do now, or why we must stop being leader. `None`: read the Lease first.
    pub fn next(&self, now: Instant) -> Result<Option<Decision>, Loss> {
        let Some(view) = &self.view else { return Ok(None) };
        let Some(claim) = self.claim else {
            return Ok(Some(decide(view, &self.me, now)));
        };
        if now >= claim.deadline {
            return Err(Loss::Expired);
        }
        Ok(Some(match &view.record {
            // Deleted under the holder: it is still ours, and who has seen it before waits.
            None => Decision::Create,
            Some(record) if record.holder.as_ref() == Some(&self.me) => {
                let due = claim.renewed_at + self.timing.retry_period;
                match due.saturating_duration_since(now) {
                    Duration::ZERO => Decision::Renew,
                    left => Decision::Wait(left),
                }
            }
            Some(record) => return Err(Loss::Taken { by: record.holder.clone() }),
        }))
    }

    /// The record to write in order to hold the Lease. `wall` is for people who look at it.
    pub fn held(&self, wall: Timestamp) -> Record {
        let before = self.view.as_ref().and_then(|view| view.record.as_ref());
        let transitions = match before {
            Some(record) if record.holder.as_ref() == Some(&self.me) => record.transitions,
            Some(record) => record.transitions.saturating_add(1),
            None => 0,
        };
        Record {
            holder: Some(self.me.clone()),
            renewed: Some(wall),
            transitions,
            duration: Some(self.timing.duration),
        }
    }

    /// Notes that a write begun at `started` was accepted. `written` is what is stored now.
    pub fn wrote(&mut self, written: Record, started: Instant, now: Instant) {
        self.see(Some(written), now);
        self.claim = Some(Claim { renewed_at: started, deadline: started + self.timing.renew_deadline });
    }

    /// Gives up the right to write, and returns the record that says so, if the Lease is ours.
    pub fn resign(&mut self, wall: Timestamp) -> Option<Record> {
        self.claim = None;
        let record = self.view.as_ref()?.record.as_ref()?;
        (record.holder.as_ref() == Some(&self.me)).then(|| Record {
            holder: None,
            renewed: Some(wall),
            ..record.clone()
        })
    }
}

/// Whether nothing has happened between two looks that would show a living holder.
fn is_same_term(before: Option<&Record>, after: Option<&Record>) -> bool {
    let term = |record: &Record| (record.holder.clone(), record.renewed, record.transitions);
    before.map(term) == after.map(term)
}

#[cfg(test)]
mod tests;
