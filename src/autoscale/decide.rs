//! One decision (autoscaling.md section 4.1): sanitise → demand → combine → panic → guards → whole replicas → cooldown →
//! behavior. Pure: the same values give the same answer; nothing is read, written or awaited.

mod act;
mod baseline;
mod combine;
mod demand;
pub mod example;
mod fallback;
mod guards;
mod hold;
mod measure;
mod memory;
mod quantise;
mod sanitise;
mod slow;
mod weighted;
mod zero;

#[cfg(test)]
mod tests;

use super::{
    behavior,
    decision::{Decision, LimitedBy, Reason},
    policy::Policy,
    snapshot::{Actuator, Snapshot},
    state::State,
    time::{Millis, Now},
};
use measure::Measured;
use sanitise::Seen;

/// All that a decision looks at.
struct View<'a> {
    policy: &'a Policy,
    snapshot: &'a Snapshot,
    seen: &'a Seen,
    /// N.
    n: i32,
    now: Millis,
}

/// A scale, and what led to it beside the demand.
#[derive(Clone, Copy, Debug)]
struct Proposal {
    wanted: i32,
    reason: Option<Reason>,
    limited_by: Option<LimitedBy>,
    hold_until: Option<Millis>,
}

impl Proposal {
    fn of(wanted: i32) -> Self {
        Self { wanted, reason: None, limited_by: None, hold_until: None }
    }

    /// Stays at `n`, if it would have changed.
    fn keep(&mut self, n: i32, why: LimitedBy, until: Option<Millis>) {
        if self.wanted != n {
            self.wanted = n;
            self.limited_by = Some(why);
            self.hold_until = until;
        }
    }
}

/// Decides about one fleet, and what to remember.
///
/// Call it about once a second with the state that it returned last, or, in a new process, with
/// [`State::restore`]. It takes some microseconds, and no number in the snapshot can make it panic.
pub fn decide(policy: &Policy, snapshot: &Snapshot, state: &State, now: Now) -> (Decision, State) {
    let now = now.mono;
    let mut next = memory::observe(policy, snapshot, state, now);
    let seen = Seen::new(policy, snapshot);
    let view = View { policy, snapshot, seen: &seen, n: snapshot.replicas.max(0), now };
    let measured = measure::measure(&view, &mut next);
    zero::observe(&view, &mut next);
    next.blind_since = if measured.demand.is_some() { None } else { Some(next.blind_since.unwrap_or(now)) };

    let proposal = propose(&view, &measured, &next).map(|mut proposal| {
        pause_directions(&view, &mut proposal);
        proposal
    });
    let (recommended, desired, proposal) = match (snapshot.pause.all, proposal) {
        (Some(at), _) => {
            let (target, desired, proposal) = paused(&view, at);
            // It holds for as long as any other when the pause is over.
            behavior::record(&mut next.recommendations, &policy.behavior, target, now);
            (Some(target), desired, proposal)
        }
        (None, Some(mut proposal)) => {
            let recommended = proposal.wanted;
            let desired = act::act(&view, &measured, &mut proposal, &mut next);
            (Some(recommended), desired, proposal)
        }
        (None, None) => (None, view.n, unknown(&view, &measured)),
    };
    next.wanted = (snapshot.actuator != Actuator::Off).then_some(desired);
    let decision = Decision {
        recommended,
        desired,
        demand: measured.demand,
        utilization: measured.demand.map(|d| d / f64::from(view.n.max(1))),
        reason: proposal.reason.unwrap_or_else(|| reason(&view, &measured)),
        limited_by: proposal.limited_by,
        terms: measured.terms,
        guards: measured.guards.standing,
        hold_until: proposal.hold_until,
    };
    (decision, next)
}

/// Nothing is known: of a process that has only just begun, nothing can be.
fn unknown(view: &View<'_>, measured: &Measured) -> Proposal {
    let warm_at = measured.guards.warm_at;
    let reason = if warm_at.is_some() { Reason::WarmingUp } else { Reason::MetricsUnavailable };
    Proposal { reason: Some(reason), hold_until: warm_at, ..Proposal::of(view.n) }
}

/// What is recommended, before windows and rate policies; `None`: nothing can be said.
fn propose(view: &View<'_>, measured: &Measured, state: &State) -> Option<Proposal> {
    let (policy, n) = (view.policy, view.n);
    if n == 0 {
        return Some(zero::at_zero(view, state, measured));
    }
    if let Some(bound) = behavior::jump(quantise::floor(policy), policy.max, n) {
        let (reason, why) = if bound > n {
            (Reason::ScaleUp, LimitedBy::TooFewReplicas)
        } else {
            (Reason::ScaleDown, LimitedBy::TooManyReplicas)
        };
        return Some(Proposal { reason: Some(reason), limited_by: Some(why), ..Proposal::of(bound) });
    }
    if measured.demand.is_none() {
        return fallback::blind(view, state);
    }
    if zero::may_go(view, state, measured) {
        return Some(Proposal { reason: Some(Reason::Idle), ..Proposal::of(0) });
    }
    let mut proposal = Proposal { limited_by: measured.bound, ..Proposal::of(measured.wanted) };
    hold::nothing_ready(view, state, &mut proposal);
    hold::blocked(view, &mut proposal);
    hold::no_down(view, measured, &mut proposal);
    hold::cooldown(view, state, &mut proposal);
    Some(proposal)
}

/// A person stopped one direction.
fn pause_directions(view: &View<'_>, proposal: &mut Proposal) {
    let pause = view.snapshot.pause;
    if (pause.scale_in && proposal.wanted < view.n) || (pause.scale_out && proposal.wanted > view.n) {
        proposal.keep(view.n, LimitedBy::Paused, None);
    }
}

/// A person stopped everything, at `at` replicas or where it stands. The bounds do not hold for it.
fn paused(view: &View<'_>, at: Option<i32>) -> (i32, i32, Proposal) {
    let target = at.unwrap_or(view.n).max(0);
    let desired = match view.snapshot.actuator {
        Actuator::Hpa | Actuator::Direct => target,
        Actuator::Off => view.n,
    };
    let proposal = Proposal {
        reason: Some(Reason::Paused),
        limited_by: Some(LimitedBy::Paused),
        ..Proposal::of(target)
    };
    (target, desired, proposal)
}

/// What is going on, where nothing special is: what the demand asks for, even where it is not obeyed.
fn reason(view: &View<'_>, measured: &Measured) -> Reason {
    match measured.wanted.cmp(&view.n) {
        std::cmp::Ordering::Greater if measured.sudden => Reason::Panic,
        std::cmp::Ordering::Greater => Reason::ScaleUp,
        std::cmp::Ordering::Less => Reason::ScaleDown,
        std::cmp::Ordering::Equal => Reason::Steady,
    }
}
