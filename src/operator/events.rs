//! What of a pass is worth an event on the fleet: what a user would ask about. Pure; `recorder` publishes.

use serde_json::Value;

use super::{children::ChildKind, desired::Desired, observe::LiveChild, plan::Because, status::condition};
use crate::api::{conditions::types, v1alpha1::McpFleetStatus};

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

    /// An applied child: what changed, as far as a user would ask.
    pub fn of_apply(desired: &Desired, because: &Because, before: Option<&LiveChild>) -> Option<Self> {
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
        (from != to).then(|| Self::normal("Scaled", format!("{from} → {to} replicas")))
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

/// What the step from one status to the next is worth saying.
pub fn transitions(old: &McpFleetStatus, new: &McpFleetStatus) -> Vec<Note> {
    let mut notes = Vec::new();
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
    const LOUD: [&str; 17] = [
        r::INVALID_SPEC,
        r::CHILD_CONFLICT,
        r::CHILD_REJECTED,
        r::IMMUTABLE_FIELD,
        r::ROLLOUT_STUCK,
        r::FOREIGN_AUTOSCALER,
        r::REPLICAS_OVERRIDDEN,
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
    ];
    match (type_, status) {
        (_, _) if QUIET.contains(&reason) => None,
        (types::READY, "True") => Some("Ready"),
        (_, "False") => LOUD.into_iter().find(|known| *known == reason),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;

    fn status(conditions: &[(&str, &str, &str)]) -> McpFleetStatus {
        let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
            type_: (*type_).into(),
            status: (*status).into(),
            reason: (*reason).into(),
            message: format!("{type_} {reason}"),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        McpFleetStatus { conditions: conditions.iter().map(condition).collect(), ..McpFleetStatus::default() }
    }

    #[test]
    fn only_what_a_user_would_ask_about() {
        let reasons = |old: &[(&str, &str, &str)], new: &[(&str, &str, &str)]| -> Vec<(&'static str, bool)> {
            transitions(&status(old), &status(new)).into_iter().map(|n| (n.reason, n.warning)).collect()
        };
        let pending = [("Ready", "False", "Pending")];
        let ready = [("Ready", "True", "Ready")];
        let broken = [("Ready", "False", "ImagePullFailed")];
        assert!(reasons(&[], &pending).is_empty());
        assert_eq!(reasons(&pending, &ready), [("Ready", false)]);
        assert!(reasons(&ready, &ready).is_empty());
        assert_eq!(reasons(&ready, &broken), [("ImagePullFailed", true)]);
        assert_eq!(
            reasons(&ready, &[("ScalingActive", "False", "ForeignAutoscaler")]),
            [("ForeignAutoscaler", true)]
        );
    }
}
