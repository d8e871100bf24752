//! What the fleet's status says. Pure: from what was applied and observed, never from what was wished.
//!
//! Conditions follow the API conventions: all of them from the first visit on, `observedGeneration` on
//! each, the transition time only where the status of a condition changes, messages of at most 1 KiB.

mod autoscaling;
mod conditions;
mod rollout;
mod scaling;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    children::ChildKind,
    desired::selector_text,
    observe::Observed,
    plan::Blocked,
    validate::{Invalid, Scaling, ValidatedFleet},
};
use crate::api::{
    conditions::{reasons, types},
    v1alpha1::McpFleetStatus,
};

use autoscaling::News;

pub use autoscaling::{cause, head_start, persisted, status as autoscaling};
pub use rollout::Rollout;
pub use scaling::ScalingFacts;

/// Longest message of a condition, in bytes.
const MAX_MESSAGE: usize = 1024;

/// A condition before it is merged with what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: String,
    message: String,
}

fn verdict(status: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Verdict {
    Verdict { status, reason: reason.into(), message: message.into() }
}

/// The status of a fleet whose specification can be used. `observed` holds the children as they are
/// after this pass's writes.
pub fn build(
    fleet: &ValidatedFleet,
    observed: &Observed,
    blocked: &[Blocked],
    scaling: &ScalingFacts<'_>,
    old: &McpFleetStatus,
    now: Timestamp,
) -> McpFleetStatus {
    let deployment = observed.child(ChildKind::Deployment, fleet.name.as_str());
    let rollout = Rollout::of(deployment);
    let autoscaling = match &fleet.scaling {
        Scaling::Mcp(_) => autoscaling::status(scaling.scaled, old.autoscaling.as_ref()),
        Scaling::Fixed | Scaling::Native(_) | Scaling::Off(_) => None,
    };
    let scaling = scaling::View { fleet, observed, facts: scaling, autoscaling: autoscaling.as_ref(), old };
    let mut verdicts = vec![
        (types::ACCEPTED, conditions::accepted(&rollout, blocked)),
        (types::AVAILABLE, conditions::available(&rollout, observed)),
        (types::PROGRESSING, conditions::progressing(&rollout, observed)),
    ];
    verdicts.extend(scaling.verdicts());
    verdicts.push((types::READY, conditions::ready(&rollout, observed, blocked)));
    McpFleetStatus {
        observed_generation: Some(fleet.generation),
        replicas: rollout.counted,
        ready_replicas: observed.ready_endpoints,
        updated_replicas: rollout.updated,
        draining_replicas: rollout.terminating,
        selector: Some(selector_text(fleet)),
        url: Some(fleet.url()),
        protocol: old.protocol.clone(),
        autoscaling,
        conditions: merge(verdicts, fleet.generation, old, now),
    }
}

/// The status of a fleet whose specification cannot be used: what ran before runs on.
pub fn build_invalid(
    error: &Invalid,
    generation: i64,
    old: &McpFleetStatus,
    now: Timestamp,
) -> McpFleetStatus {
    let message = error.to_string();
    let verdicts = types::ALL.map(|type_| {
        let status = if type_ == types::ACCEPTED || type_ == types::READY { "False" } else { "Unknown" };
        (type_, verdict(status, reasons::INVALID_SPEC, &message))
    });
    McpFleetStatus {
        observed_generation: Some(generation),
        conditions: merge(verdicts, generation, old, now),
        ..old.clone()
    }
}

fn merge(
    verdicts: impl IntoIterator<Item = (&'static str, Verdict)>,
    generation: i64,
    old: &McpFleetStatus,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |(type_, verdict): (&'static str, Verdict)| {
        let before = old.conditions.iter().find(|c| c.type_ == type_ && c.status == verdict.status);
        Condition {
            type_: type_.into(),
            status: verdict.status.into(),
            reason: verdict.reason,
            message: truncate(&verdict.message, MAX_MESSAGE),
            observed_generation: Some(generation),
            last_transition_time: before.map_or(Time(now), |c| c.last_transition_time.clone()),
        }
    };
    verdicts.into_iter().map(condition).collect()
}

/// Cuts at a character, not within one.
pub fn truncate(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let ellipsis = '…';
    let mut end = max_bytes - ellipsis.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ellipsis}", &text[..end])
}

/// How urgent a changed status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing changed.
    None,
    /// How much is asked for, while the decision stays: it moves all the time.
    Load,
    /// Numbers and words of a rollout under way. They follow each other by the second, and may wait for its end.
    Rolling,
    /// Numbers and words otherwise. Also `Ready` again after a rollout that took no service away, while its last
    /// old pods still end: their end is part of the same news.
    Wording,
    /// What the autoscaler recommends, or what holds it back. It may change each second, and is told at once only
    /// where the last news is some time ago.
    Decision,
    /// The replicas, the state of a condition other than `Ready`, or a trouble that one names. An autoscaler
    /// looks at the replicas every 15 s.
    Condition,
    /// `Ready`, or the specification that it speaks of: a person waits for it. Also a change of the scale where we
    /// decide: the rest after it must not be forgotten with this process.
    Urgent,
}

/// Reasons that follow each other while a fleet comes up or rolls; all others are news.
const ORDINARY: [&str; 5] = [
    reasons::PENDING,
    reasons::NO_ENDPOINTS,
    reasons::REPLICAS_UNAVAILABLE,
    reasons::ROLLING_OUT,
    reasons::ROLLOUT_COMPLETE,
];

/// Reasons about scaling that do not come from a decision, or that end only by a person's hand.
const TO_MEND: [&str; 4] = [
    reasons::REPLICAS_OVERRIDDEN,
    reasons::HPA_NOT_FOLLOWING,
    reasons::FOREIGN_AUTOSCALER,
    reasons::ACTIVATION_FAILED,
];

/// Compares two statuses.
pub fn change(old: &McpFleetStatus, new: &McpFleetStatus) -> Change {
    let state = |s: &McpFleetStatus, type_: &str| condition(s, type_).map(|c| c.status.clone());
    let is_true = |s: &McpFleetStatus, type_: &str| state(s, type_).as_deref() == Some("True");
    let ends = |s: &McpFleetStatus| s.draining_replicas.is_some_and(|n| n > 0);
    let trouble = |c: &Condition| Some(c.reason.clone()).filter(|r| !ORDINARY.contains(&r.as_str()));
    let news = autoscaling::news(old.autoscaling.as_ref(), new.autoscaling.as_ref());
    // Where we decide, these say the same as the decision, but for what a person has to mend.
    let decided = [types::ABLE_TO_SCALE, types::SCALING_LIMITED];
    let is_decided = |c: &Condition| {
        new.autoscaling.is_some()
            && decided.contains(&c.type_.as_str())
            && !TO_MEND.contains(&c.reason.as_str())
    };
    // The metrics API may be out of reach for a moment, as while we start.
    let apart = [types::READY, types::METRICS_API_AVAILABLE];
    let others = |s: &McpFleetStatus| -> Vec<_> {
        let others = s.conditions.iter().filter(|c| !apart.contains(&c.type_.as_str()) && !is_decided(c));
        others.map(|c| (c.type_.clone(), c.status.clone(), trouble(c))).collect()
    };
    let words = |s: &McpFleetStatus, type_: &str| {
        condition(s, type_).filter(|c| is_decided(c)).map(|c| (c.status.clone(), c.reason.clone()))
    };
    let ready_trouble = |s: &McpFleetStatus| condition(s, types::READY).and_then(trouble);
    if old == new {
        Change::None
    } else if (old.observed_generation, &old.selector) != (new.observed_generation, &new.selector)
        || news == News::Replicas
    {
        Change::Urgent
    } else if state(old, types::READY) != state(new, types::READY) {
        let served = is_true(old, types::AVAILABLE) && is_true(new, types::AVAILABLE);
        if is_true(new, types::READY) && served && ends(new) { Change::Wording } else { Change::Urgent }
    } else if old.replicas != new.replicas
        || news == News::Actuator
        || others(old) != others(new)
        || ready_trouble(old) != ready_trouble(new)
    {
        Change::Condition
    } else if news == News::Decision || decided.iter().any(|type_| words(old, type_) != words(new, type_)) {
        Change::Decision
    } else if news == News::Load && only_load(old, new) {
        Change::Load
    } else if ends(new)
        || condition(new, types::PROGRESSING).is_some_and(|c| c.reason != reasons::ROLLOUT_COMPLETE)
    {
        Change::Rolling
    } else {
        Change::Wording
    }
}

/// Nothing but `status.autoscaling` changed.
fn only_load(old: &McpFleetStatus, new: &McpFleetStatus) -> bool {
    McpFleetStatus { autoscaling: old.autoscaling.clone(), ..new.clone() } == *old
}

/// What differs between two statuses, for the log.
pub fn news(old: &McpFleetStatus, new: &McpFleetStatus) -> String {
    let numbers = |s: &McpFleetStatus| {
        let McpFleetStatus { observed_generation, replicas, ready_replicas, .. } = s;
        let (updated, draining) = (s.updated_replicas, s.draining_replicas);
        format!("{observed_generation:?} {replicas} {ready_replicas} {updated} {draining:?}")
    };
    let mut news = vec![format!("{} → {}", numbers(old), numbers(new))];
    let say = |c: &Condition| format!("{} {}: {}", c.status, c.reason, c.message);
    for new in &new.conditions {
        let (old, new_text) = (condition(old, &new.type_).map(say).unwrap_or_default(), say(new));
        if old != new_text {
            news.push(format!("{} {old} → {new_text}", new.type_));
        }
    }
    news.join("; ")
}

/// The same without times and loads, which differ from pass to pass until they are written.
pub fn timeless(status: &McpFleetStatus) -> McpFleetStatus {
    let mut status = status.clone();
    status.conditions.iter_mut().for_each(|c| c.last_transition_time = Time(Timestamp::UNIX_EPOCH));
    status.autoscaling = status.autoscaling.as_ref().map(autoscaling::at_rest);
    status
}

/// The condition of a type.
pub fn condition<'a>(status: &'a McpFleetStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

#[cfg(test)]
mod tests;
