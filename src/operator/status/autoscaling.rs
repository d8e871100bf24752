//! `status.autoscaling`: a decision in words and numbers, and the memory that outlives a process. Pure.
//!
//! A decision is made each second and is a little different each time. What is written changes only where it is news,
//! so that a fleet at rest writes nothing.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use crate::{
    api::v1alpha1::{
        AutoscalingStatus, HeadStartStatus, McpFleetStatus, RecommendationStatus, ScaleEventStatus,
        TermStatus,
    },
    autoscale::{
        decision::{Reason, Term},
        head_start::HeadStart,
        state::{MAX_RING, Persisted},
    },
    operator::scaling::Scaled,
};

/// Utilization that moved by less is the same, up to 1; above it, by less than this share.
const MOVED: f64 = 0.05;
/// Times on the wall clock are computed from the monotonic one, and creep with its corrections.
const CREEP_MILLIS: i64 = 2_000;

/// What is to be said of a fleet that we decide about. `old` stays as it is where there is no news, and where nothing
/// has been decided yet: it is the memory of the leader before.
pub fn status(scaled: Option<&Scaled>, old: Option<&AutoscalingStatus>) -> Option<AutoscalingStatus> {
    let Some(scaled) = scaled else { return old.cloned() };
    let new = render(scaled);
    // A new leader knows nothing better for its first seconds, and a restart is no news.
    let warms_up = |old: &AutoscalingStatus| {
        scaled.decision.reason == Reason::WarmingUp
            && old.current_replicas == new.current_replicas
            && old.effective_actuator == new.effective_actuator
    };
    match old {
        Some(old) if warms_up(old) || !is_news(old, &new) => Some(old.clone()),
        _ => Some(new),
    }
}

/// The decision that led to the present scale, in the same words.
pub fn cause(scaled: &Scaled) -> Option<AutoscalingStatus> {
    let decision = scaled.cause.clone()?;
    Some(render(&Scaled { decision, ..scaled.clone() }))
}

fn render(scaled: &Scaled) -> AutoscalingStatus {
    let Scaled { decision, persisted, effective, replicas, ahead, cooldown_until, .. } = scaled;
    let Persisted { replicas: _, last_up, last_down, baseline_hold_ms, recommendations, scale_events } =
        persisted;
    let recommendations = recommendations
        .iter()
        .filter_map(|(at, min, max)| Some(RecommendationStatus { time: micro(*at)?, min: *min, max: *max }));
    let scale_events = scale_events
        .iter()
        .filter_map(|(at, change)| Some(ScaleEventStatus { time: micro(*at)?, change: *change }));
    AutoscalingStatus {
        effective_actuator: effective.as_str().to_owned(),
        current_replicas: Some(*replicas),
        head_start: ahead
            .map(|HeadStart { over, replicas }| HeadStartStatus { spec_replicas: over, replicas }),
        desired_replicas: decision.recommended,
        utilization: decision.utilization.map(|u| format!("{u:.2}")),
        demand: decision.demand.map(|d| format!("{d:.1}")),
        reason: Some(decision.reason.as_str().to_owned()),
        limited_by: decision.limited_by.map(|l| l.as_str().to_owned()),
        terms: decision.terms.iter().take(16).map(term).collect(),
        guards: decision.guards.iter().take(16).map(|g| g.as_str().to_owned()).collect(),
        last_scale_up_time: last_up.and_then(micro),
        last_scale_down_time: last_down.and_then(micro),
        // Rounded up: it is not over before it is over.
        cooldown_until: cooldown_until
            .and_then(|ms| Timestamp::from_second(ms.saturating_add(999).div_euclid(1000)).ok())
            .map(Time),
        recommendations: newest(recommendations.collect()),
        scale_events: newest(scale_events.collect()),
        baseline_hold_time_ms: *baseline_hold_ms,
    }
}

fn micro(ms: i64) -> Option<MicroTime> {
    Timestamp::from_millisecond(ms).ok().map(MicroTime)
}

fn newest<T>(mut all: Vec<T>) -> Vec<T> {
    all.drain(..all.len().saturating_sub(MAX_RING));
    all
}

fn term(term: &Term) -> TermStatus {
    TermStatus {
        signal: term.signal.as_str().to_owned(),
        total: number(term.total),
        target: number(term.target),
        demand: format!("{:.1}", term.demand),
        window_seconds: i32::try_from(term.window / 1000).unwrap_or(i32::MAX),
        missing: (term.missing > 0).then_some(term.missing),
    }
}

/// Three digits that count, and no zeros that do not.
fn number(value: f64) -> String {
    let text = match value.abs() {
        v if v >= 100.0 => return format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What the next leader has to remember. The other direction of what [`status`] writes.
pub fn persisted(status: &AutoscalingStatus) -> Persisted {
    let ms = |time: &MicroTime| time.0.as_millisecond();
    Persisted {
        replicas: status.current_replicas,
        last_up: status.last_scale_up_time.as_ref().map(ms),
        last_down: status.last_scale_down_time.as_ref().map(ms),
        baseline_hold_ms: status.baseline_hold_time_ms,
        recommendations: status.recommendations.iter().map(|r| (ms(&r.time), r.min, r.max)).collect(),
        scale_events: status.scale_events.iter().map(|e| (ms(&e.time), e.change)).collect(),
    }
}

/// What is ahead of `spec.replicas`, as an earlier process or the leader wrote it down.
pub fn head_start(status: &McpFleetStatus) -> Option<HeadStart> {
    let HeadStartStatus { spec_replicas, replicas } = status.autoscaling.as_ref()?.head_start?;
    Some(HeadStart { over: spec_replicas, replicas })
}

/// How much a change of it matters, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// Nothing that needs to be written.
    None,
    /// How much is asked for, and by what.
    Load,
    /// What is recommended, and why.
    Decision,
    /// Who acts.
    Actuator,
    /// N: from now on counts the rest after a change.
    Replicas,
}

/// Compares two of them.
pub(super) fn news(old: Option<&AutoscalingStatus>, new: Option<&AutoscalingStatus>) -> News {
    let (Some(old), Some(new)) = (old, new) else {
        return if old.is_some() || new.is_some() { News::Actuator } else { News::None };
    };
    let decision = |s: &AutoscalingStatus| (s.desired_replicas, s.reason.clone(), s.limited_by.clone());
    let second = |time: &Time| time.0.as_millisecond();
    let last = |s: &AutoscalingStatus| {
        let ms = |time: &MicroTime| time.0.as_millisecond();
        (s.last_scale_up_time.as_ref().map(ms), s.last_scale_down_time.as_ref().map(ms))
    };
    let ((old_up, old_down), (new_up, new_down)) = (last(old), last(new));
    let scale = |s: &AutoscalingStatus| (s.current_replicas, s.head_start);
    if scale(old) != scale(new) || differ(old_up, new_up) || differ(old_down, new_down) {
        News::Replicas
    } else if old.effective_actuator != new.effective_actuator {
        News::Actuator
    } else if decision(old) != decision(new)
        || differ(old.cooldown_until.as_ref().map(second), new.cooldown_until.as_ref().map(second))
    {
        News::Decision
    } else if moved(old.utilization.as_deref(), new.utilization.as_deref())
        || old.guards != new.guards
        || signals(old) != signals(new)
        || window(old) != window(new)
    {
        News::Load
    } else {
        News::None
    }
}

fn is_news(old: &AutoscalingStatus, new: &AutoscalingStatus) -> bool {
    news(Some(old), Some(new)) > News::None
}

fn differ(old: Option<i64>, new: Option<i64>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => (old - new).abs() >= CREEP_MILLIS,
        (old, new) => old != new,
    }
}

fn moved(old: Option<&str>, new: Option<&str>) -> bool {
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<f64>().ok());
    match (number(old), number(new)) {
        // Both have two digits, so half a digit is the error of their difference.
        (Some(old), Some(new)) => (old - new).abs() + 0.001 >= MOVED * old.abs().max(1.0),
        (old, new) => old.is_some() != new.is_some(),
    }
}

fn signals(status: &AutoscalingStatus) -> Vec<&str> {
    let mut signals: Vec<&str> = status.terms.iter().map(|t| t.signal.as_str()).collect();
    signals.sort_unstable();
    signals
}

/// Extremes of what was recommended: a window's maximum holds a scale-down, and a new leader has to know it.
fn window(status: &AutoscalingStatus) -> (Option<i32>, Option<i32>) {
    let all = &status.recommendations;
    (all.iter().map(|r| r.min).min(), all.iter().map(|r| r.max).max())
}

/// Without what moves all the time, for the comparison of statuses that wait to be written.
pub(super) fn at_rest(status: &AutoscalingStatus) -> AutoscalingStatus {
    let AutoscalingStatus {
        effective_actuator,
        current_replicas,
        head_start,
        desired_replicas,
        reason,
        limited_by,
        ..
    } = status.clone();
    AutoscalingStatus {
        effective_actuator,
        current_replicas,
        head_start,
        desired_replicas,
        reason,
        limited_by,
        ..AutoscalingStatus::default()
    }
}

#[cfg(test)]
mod tests;
