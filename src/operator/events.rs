//! What of a pass is worth an event on the fleet: what a user would ask about. Pure; `recorder` publishes.

use serde_json::Value;

use super::{children::ChildKind, desired::Desired, observe::LiveChild, plan::Because, status::condition};
use crate::api::{
    conditions::types,
    v1alpha1::{AutoscalingStatus, McpFleetStatus, TermStatus},
};

/// Signals that one event names at most.
const MAX_TERMS: usize = 4;
/// Why the scale changed, where nothing of ours was on the way there.
const NOT_ASKED: &str = "not decided by this replica: set by hand, or on what another replica said";
/// Words of the condition ScalingLimited for a step that was cut by bounds or a rate.
const CUTS: [&str; 4] = ["ScaleUpLimit", "ScaleDownLimit", "TooManyReplicas", "TooFewReplicas"];

/// Something worth an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A warning asks a person to act.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub text: String,
}

impl Note {
    fn normal(reason: &'static str, text: String) -> Self {
        Self { warning: false, reason, text }
    }

    /// A scale that could not be written.
    pub fn failed_rescale(from: i32, to: i32, error: &dyn std::fmt::Display) -> Self {
        Self { warning: true, reason: "FailedRescale", text: format!("{from}→{to}: {error}") }
    }

    /// An applied child: what changed, as far as a user would ask. `told`: a change of the scale has an event of its
    /// own already, with the reason.
    pub fn of_apply(
        desired: &Desired,
        because: &Because,
        before: Option<&LiveChild>,
        told: bool,
    ) -> Option<Self> {
        if let Because::Drift(field) = because {
            let text = format!(
                "{} {}: {field} was changed by somebody else and is set back",
                desired.kind, desired.name
            );
            return Some(Self::normal("DriftReverted", text));
        }
        if desired.kind != ChildKind::Deployment {
            return None;
        }
        let before = before?.value();
        let at = |value: &Value, path: &str| value.pointer(path).cloned().unwrap_or_default();
        if at(&before, "/metadata/annotations/mcpfleet.io~1pod-template")
            != at(&desired.object, "/metadata/annotations/mcpfleet.io~1pod-template")
        {
            let image = at(&desired.object, "/spec/template/spec/containers/0/image");
            let text =
                format!("Rolling out a new pod template, image {}", image.as_str().unwrap_or("unknown"));
            return Some(Self::normal("RolloutStarted", text));
        }
        let (from, to) = (at(&before, "/spec/replicas"), at(&desired.object, "/spec/replicas"));
        (from != to && !told).then(|| Self::normal("Scaled", format!("{from} → {to} replicas")))
    }

    /// A deleted child.
    pub fn of_delete(kind: ChildKind, name: &str, because: &Because) -> Self {
        let why = match because {
            Because::Immutable(field) => format!("to be made anew: {field} cannot be changed in place"),
            _ => "no longer asked for".to_owned(),
        };
        Self::normal("ChildDeleted", format!("{kind} {name} deleted, {why}"))
    }
}

/// What the step from one status to the next is worth saying. `cause`: the decision that led to the scale.
pub fn transitions(
    old: &McpFleetStatus,
    new: &McpFleetStatus,
    cause: Option<&AutoscalingStatus>,
) -> Vec<Note> {
    let mut notes: Vec<Note> = rescale(old, new, cause).into_iter().chain(actuator(old, new)).collect();
    for type_ in
        [types::ACCEPTED, types::READY, types::PROGRESSING, types::ABLE_TO_SCALE, types::SCALING_ACTIVE]
    {
        let (Some(new), old) = (condition(new, type_), condition(old, type_)) else { continue };
        if old.is_some_and(|old| old.status == new.status && old.reason == new.reason) {
            continue;
        }
        let said = notes.iter().any(|n: &Note| n.text == new.message);
        if let Some(reason) = worth_saying(type_, &new.status, &new.reason)
            && !said
        {
            notes.push(Note { warning: new.status == "False", reason, text: new.message.clone() });
        }
    }
    notes
}

/// One line for a change of the scale: `4→7: concurrency 93/14=6.7, cpu 2.1, limitedBy=ScaleUpLimit`. `cause`: the
/// decision that asked for it; the newest one was made at the new scale already, and says nothing of the step.
fn rescale(old: &McpFleetStatus, new: &McpFleetStatus, cause: Option<&AutoscalingStatus>) -> Option<Note> {
    let scaling = new.autoscaling.as_ref()?;
    let (from, to) = (old.autoscaling.as_ref()?.current_replicas?, scaling.current_replicas?);
    if from == to || scaling.effective_actuator == "Off" {
        return None;
    }
    let because = cause.map_or_else(|| NOT_ASKED.to_owned(), |cause| explained(cause, to, new));
    Some(Note::normal("SuccessfulRescale", format!("{from}→{to}: {because}")))
}

/// The terms of a decision, what they do not say, and what cut the step to `to`. Terms that ask for nothing are left out,
/// unless that is why the scale goes down.
fn explained(cause: &AutoscalingStatus, to: i32, new: &McpFleetStatus) -> String {
    let mut parts: Vec<String> = cause.terms.iter().filter(|t| asks(t)).take(MAX_TERMS).map(term).collect();
    if parts.is_empty() && cause.reason.as_deref() == Some("ScaleDown") {
        parts.extend(cause.terms.first().map(term));
    }
    let says_more = |r: &str| ["Activation", "Idle", "Panic", "Fallback", "Paused"].contains(&r);
    if let Some(reason) = cause.reason.clone().filter(|r| parts.is_empty() || says_more(r)) {
        parts.insert(0, reason);
    }
    // An HPA says in its condition that it cut the step. The rest that follows each step cuts the next.
    let condition = condition(new, types::SCALING_LIMITED).filter(|c| c.status == "True");
    let cut = condition.map(|c| c.reason.clone()).filter(|r| CUTS.contains(&r.as_str()));
    let cut = cut.filter(|_| cause.desired_replicas.is_some_and(|wanted| wanted != to));
    // A window of the HPA's own may end some seconds before it does by our count: the step was made all the same.
    let made = cause.desired_replicas == Some(to);
    let limited_by = cause.limited_by.clone().filter(|limit| !(made && limit.ends_with("Stabilized")));
    if let Some(limit) = limited_by.or(cut) {
        parts.push(format!("limitedBy={limit}"));
    }
    parts.join(", ")
}

fn asks(term: &TermStatus) -> bool {
    term.demand.parse::<f64>().is_ok_and(|demand| demand > 0.0)
}

/// Of shares the demand alone: their total is a mean, which does not divide to it.
fn term(term: &TermStatus) -> String {
    let TermStatus { signal, total, target, demand, .. } = term;
    if signal == "cpu" || signal == "memory" {
        return format!("{signal} {demand}");
    }
    format!("{signal} {total}/{target}={demand}")
}

fn actuator(old: &McpFleetStatus, new: &McpFleetStatus) -> Option<Note> {
    let of =
        |s: &McpFleetStatus| s.autoscaling.as_ref().map(|a: &AutoscalingStatus| a.effective_actuator.clone());
    let (from, to) = (of(old)?, of(new)?);
    if from == to {
        return None;
    }
    let why = [types::SCALING_ACTIVE, types::METRICS_API_AVAILABLE].into_iter().find_map(|type_| {
        let was = condition(old, type_).map(|c| (c.status.clone(), c.reason.clone()));
        condition(new, type_).filter(|c| was != Some((c.status.clone(), c.reason.clone())))
    });
    let why = why.map_or_else(|| "the specification asks for it".to_owned(), |c| c.message.clone());
    Some(Note::normal("ActuatorChanged", format!("{from} → {to}: {why}")))
}

fn worth_saying(type_: &str, status: &str, reason: &str) -> Option<&'static str> {
    use crate::api::conditions::reasons as r;
    // Ordinary steps of a fleet that comes up or rolls are seen in its conditions.
    const QUIET: [&str; 6] = [
        r::PENDING,
        r::ROLLING_OUT,
        r::REPLICAS_UNAVAILABLE,
        r::AUTOSCALING_DISABLED,
        r::ACTUATOR_OFF,
        r::NO_ENDPOINTS,
    ];
    const LOUD: [&str; 21] = [
        r::INVALID_SPEC,
        r::CHILD_CONFLICT,
        r::CHILD_REJECTED,
        r::IMMUTABLE_FIELD,
        r::ROLLOUT_STUCK,
        r::FOREIGN_AUTOSCALER,
        r::REPLICAS_OVERRIDDEN,
        r::HPA_NOT_FOLLOWING,
        r::IMAGE_PULL_FAILED,
        r::MISSING_REFERENCE,
        r::VOLUME_NOT_MOUNTED,
        r::CONTAINER_NOT_STARTED,
        r::CRASH_LOOP,
        r::OUT_OF_MEMORY,
        r::UNSCHEDULABLE,
        r::QUOTA_EXCEEDED,
        r::SERVICE_ACCOUNT_MISSING,
        r::PODS_REJECTED,
        r::METRICS_UNAVAILABLE,
        r::GATEWAY_MISSING,
        r::ACTIVATION_FAILED,
    ];
    match (type_, status) {
        (_, "False") if reason == r::FALLBACK => Some("FallbackActive"),
        (_, _) if QUIET.contains(&reason) => None,
        (types::READY, "True") => Some("Ready"),
        (_, "False") => LOUD.into_iter().find(|known| *known == reason),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
