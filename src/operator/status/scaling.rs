//! The conditions about scaling: who computes the scale, whether it may change, what cuts it, and how it stands with
//! the metrics API. All pure.
//!
//! Of a fleet that Kubernetes' own autoscaler scales on CPU, its words are passed on. Where we decide, what we know comes
//! first, and what only the HPA knows (windows, rate policies, writes that fail) is added. Messages are made of what
//! `status.autoscaling` says, so that they change no more often.

use serde_json::Value;

use super::{Verdict, condition, verdict};
use crate::{
    api::{
        conditions::{reasons, types},
        v1alpha1::{Actuator, AutoscalingStatus, McpFleetStatus},
    },
    autoscale::policy::Policy,
    operator::{
        children::ChildKind,
        observe::{ForeignAutoscaler, LiveChild, Observed},
        scaling::{ApiState, EffectiveActuator, Scaled},
        validate::{McpScaling, Scaling, ValidatedFleet},
    },
};

/// What the status needs to know of scaling beside what is observed.
#[derive(Clone, Debug, Default)]
pub struct ScalingFacts<'a> {
    /// The newest decision; `None`: none yet, or not ours to make.
    pub scaled: Option<&'a Scaled>,
    /// How it stands with the metrics API.
    pub api: ApiState,
    /// Who holds `spec.replicas` although the autoscaler should, if anybody.
    pub holder: Option<String>,
}

/// All that the conditions are made of.
pub(super) struct View<'a> {
    pub(super) fleet: &'a ValidatedFleet,
    pub(super) observed: &'a Observed,
    pub(super) facts: &'a ScalingFacts<'a>,
    /// As it will be written.
    pub(super) autoscaling: Option<&'a AutoscalingStatus>,
    /// As it was written last.
    pub(super) old: &'a McpFleetStatus,
}

impl View<'_> {
    pub(super) fn verdicts(&self) -> [(&'static str, Verdict); 4] {
        [
            (types::SCALING_ACTIVE, self.active()),
            (types::ABLE_TO_SCALE, self.able()),
            (types::SCALING_LIMITED, self.limited()),
            (types::METRICS_API_AVAILABLE, self.metrics_api()),
        ]
    }

    fn active(&self) -> Verdict {
        match (&self.fleet.scaling, &self.observed.foreign_autoscaler) {
            (Scaling::Fixed, _) => {
                verdict("False", reasons::AUTOSCALING_DISABLED, "There is no spec.autoscaling")
            }
            (Scaling::Off(_), _) => {
                verdict("False", reasons::ACTUATOR_OFF, "spec.autoscaling.actuator is Off")
            }
            (Scaling::Mcp(mcp), _) if mcp.actuator == Actuator::Off => verdict(
                "False",
                reasons::ACTUATOR_OFF,
                "spec.autoscaling.actuator is Off; status.autoscaling shows what we would do",
            ),
            (_, Some(foreign)) => verdict("False", reasons::FOREIGN_AUTOSCALER, foreign_message(foreign)),
            (Scaling::Native(_), None) => self.mirrored(types::SCALING_ACTIVE),
            (Scaling::Mcp(mcp), None) => self.decision_active(mcp),
        }
    }

    fn decision_active(&self, mcp: &McpScaling) -> Verdict {
        if let Some(missing) = &mcp.unserved {
            return verdict("False", reasons::GATEWAY_MISSING, missing);
        }
        let Some(reason) = self.autoscaling.and_then(|a| a.reason.as_deref()) else {
            return verdict("Unknown", reasons::PENDING, "Nothing has been decided yet");
        };
        match reason {
            "Paused" => {
                let message = "Paused by annotation: remove mcpfleet.io/paused and mcpfleet.io/paused-replicas to go on";
                return verdict("False", reasons::PAUSED, message);
            }
            "MetricsUnavailable" => {
                return verdict("False", reasons::METRICS_UNAVAILABLE, self.blind(mcp));
            }
            "Fallback" => {
                let message = format!("{}; spec.autoscaling.fallback holds", self.blind(mcp));
                return verdict("False", reasons::FALLBACK, message);
            }
            _ => {}
        }
        // Of an HPA that is inactive at zero, or that has not started, nothing follows.
        if let Some(refusal) = self.hpa_verdict(types::SCALING_ACTIVE).filter(|v| v.status == "False")
            && refusal.reason != "ScalingDisabled"
            && self.is_effective(EffectiveActuator::Hpa)
        {
            return refusal;
        }
        if reason == "WarmingUp" {
            return verdict("Unknown", "WarmingUp", "Not enough has been seen since the start");
        }
        let message = format!("The scale follows {}", names(&mcp.policy));
        verdict("True", reasons::VALID_METRIC_FOUND, message)
    }

    fn blind(&self, mcp: &McpScaling) -> String {
        let signals = names(&mcp.policy);
        let namespace = self.fleet.served_by.as_ref().map_or("its namespace", |s| s.namespace.as_str());
        format!(
            "No fresh sample of {signals}, so the scale stays: see whether the gateways in {namespace} run and reach the \
             operator's load port, and whether metrics.k8s.io serves where cpu or memory is followed"
        )
    }

    fn able(&self) -> Verdict {
        // Whoever sets spec.replicas, with or without autoscaling of ours, has to learn that it has no effect.
        let foreign = self.observed.foreign_autoscaler.as_ref();
        if let Some(foreign) = foreign.filter(|f| f.on_deployment) {
            return verdict("False", reasons::FOREIGN_AUTOSCALER, foreign_message(foreign));
        }
        if !self.fleet.scaling.is_ours() {
            return by_hand();
        }
        if let Some(holder) = &self.facts.holder {
            let message = format!(
                "spec.replicas is held by {holder} although autoscaling is on: each apply of that file resets \
                 the scale; remove replicas from it"
            );
            return verdict("False", reasons::REPLICAS_OVERRIDDEN, message);
        }
        match &self.fleet.scaling {
            _ if foreign.is_some() => by_hand(),
            Scaling::Mcp(_) => self.decision_able(),
            _ => self.mirrored(types::ABLE_TO_SCALE),
        }
    }

    fn decision_able(&self) -> Verdict {
        let Some(autoscaling) = self.autoscaling else {
            return verdict("Unknown", reasons::PENDING, "Nothing has been decided yet");
        };
        if self.is_unfollowed()
            && let Some(ahead) = autoscaling.head_start
        {
            let message = format!(
                "The Deployment got {} replicas ahead of its HorizontalPodAutoscaler, which has left spec.replicas at {} \
                 for over a minute: see kubectl describe hpa {}",
                ahead.replicas, ahead.spec_replicas, self.fleet.name
            );
            return verdict("False", reasons::HPA_NOT_FOLLOWING, message);
        }
        let until = autoscaling.cooldown_until.as_ref().map(|t| format!(" until {}", t.0));
        match autoscaling.limited_by.as_deref() {
            Some("Cooldown") => {
                let message = format!("At rest after a change of the scale{}", until.unwrap_or_default());
                verdict("False", "Cooldown", message)
            }
            Some("ScaleUpBlocked") => verdict(
                "False",
                "ScaleUpBlocked",
                "Pods wait for a place or cannot be made, and more of them would not help; see the Ready condition",
            ),
            Some("ActivationFailed") => verdict(
                "False",
                reasons::ACTIVATION_FAILED,
                "Pods of a fleet at zero were started and none became ready; the next try waits longer each time. See \
                 the Ready condition and the pods' log",
            ),
            Some(stabilized @ ("ScaleUpStabilized" | "ScaleDownStabilized")) => verdict(
                "True",
                stabilized,
                "The stabilization window of spec.autoscaling.behavior holds the scale",
            ),
            _ => {
                self.hpa_able().unwrap_or_else(|| verdict("True", "ReadyForNewScale", "The scale may change"))
            }
        }
    }

    /// A process that has just begun does not know yet, and says what was said before.
    fn is_unfollowed(&self) -> bool {
        let was =
            || condition(self.old, types::ABLE_TO_SCALE).map(|c| c.reason == reasons::HPA_NOT_FOLLOWING);
        self.facts.scaled.map_or_else(|| was().unwrap_or_default(), |s| s.unfollowed)
    }

    /// What only the HPA knows of it: windows, and reads and writes of the scale that fail.
    fn hpa_able(&self) -> Option<Verdict> {
        let said = self.hpa_verdict(types::ABLE_TO_SCALE)?;
        let worth_it = said.status == "False" || said.reason.ends_with("Stabilized");
        (self.is_effective(EffectiveActuator::Hpa) && worth_it).then_some(said)
    }

    fn limited(&self) -> Verdict {
        let nobody = || verdict("False", "NotScaled", "The fleet's own autoscaler is not at work");
        match (&self.fleet.scaling, &self.observed.foreign_autoscaler) {
            (Scaling::Native(_), None) => self.mirrored(types::SCALING_LIMITED),
            (Scaling::Mcp(_), None) => self.decision_limited().unwrap_or_else(nobody),
            _ => nobody(),
        }
    }

    fn decision_limited(&self) -> Option<Verdict> {
        let autoscaling = self.autoscaling?;
        if let Some(limit) = autoscaling.limited_by.as_deref()
            && let Some(message) = limit_message(limit)
        {
            return Some(verdict("True", limit, message));
        }
        if self.dropped_by_tolerance(autoscaling) {
            let message = "This cluster's HorizontalPodAutoscaler takes a change of up to 10 % for noise, because it does \
                           not know the field tolerance (feature gate HPAConfigurableTolerance); with \
                           spec.autoscaling.actuator: Direct the step is made";
            return Some(verdict("True", "HPATolerance", message));
        }
        if self.is_effective(EffectiveActuator::Hpa)
            && let Some(said) = self.hpa_verdict(types::SCALING_LIMITED).filter(|v| v.status == "True")
        {
            return Some(said);
        }
        Some(verdict("False", "DesiredWithinRange", "Nothing cuts the demand"))
    }

    /// A recommendation that the HPA will not follow: within 10 % of the replicas that it counts, on a server that
    /// dropped `tolerance` (autoscaling.md section 1.2).
    fn dropped_by_tolerance(&self, autoscaling: &AutoscalingStatus) -> bool {
        let (Some(n), Some(desired)) = (autoscaling.current_replicas, autoscaling.desired_replicas) else {
            return false;
        };
        self.is_effective(EffectiveActuator::Hpa)
            && n != desired
            && autoscaling.limited_by.is_none()
            // In whole replicas, since 11/10 is 1.1000000000000001 and still within.
            && 10 * (i64::from(desired) - i64::from(n)).abs() <= i64::from(n)
            && self.hpa().is_some_and(|hpa| hpa.coarse)
    }

    fn metrics_api(&self) -> Verdict {
        let reads = matches!(&self.fleet.scaling, Scaling::Mcp(mcp) if mcp.actuator == Actuator::HPA);
        if !reads {
            return verdict("Unknown", "NotUsed", "The fleet does not read the metrics API");
        }
        match &self.facts.api {
            ApiState::Serving => {
                verdict("True", "Serving", "The API server reaches the operator's metrics API")
            }
            ApiState::NotServing(why) => verdict(
                "False",
                "NotServing",
                format!("The operator's metrics API is not reached, so the HPA holds the scale: {why}"),
            ),
            ApiState::OwnedByOther(owners) => {
                let message = format!(
                    "The API group custom.metrics.k8s.io belongs to {}; the operator scales the fleet itself (Direct)",
                    owners.join(", ")
                );
                verdict("False", "OwnedByOther", message)
            }
            ApiState::Disabled => verdict(
                "False",
                "Disabled",
                "This operator runs without a metrics API; it scales the fleet itself (Direct)",
            ),
        }
    }

    fn is_effective(&self, actuator: EffectiveActuator) -> bool {
        self.autoscaling.is_some_and(|a| a.effective_actuator == actuator.as_str())
    }

    fn hpa(&self) -> Option<&LiveChild> {
        self.observed.child(ChildKind::HorizontalPodAutoscaler, self.fleet.name.as_str())
    }

    /// The HPA's own condition of that type, if there is one.
    fn hpa_verdict(&self, type_: &str) -> Option<Verdict> {
        let value = self.hpa()?.value();
        let all = value.pointer("/status/conditions").and_then(Value::as_array);
        let condition = all.into_iter().flatten().find(|c| c["type"] == type_)?;
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let status = match condition["status"].as_str() {
            Some("True") => "True",
            Some("False") => "False",
            _ => "Unknown",
        };
        Some(verdict(status, text("reason"), text("message")))
    }

    fn mirrored(&self, type_: &str) -> Verdict {
        self.hpa_verdict(type_).unwrap_or_else(|| {
            verdict("Unknown", reasons::PENDING, "The HorizontalPodAutoscaler has not said so yet")
        })
    }
}

fn by_hand() -> Verdict {
    verdict("True", "ScaleSubresource", "kubectl scale mcpfleet and autoscalers may set spec.replicas")
}

/// `None`: it is no limit of this condition.
fn limit_message(limit: &str) -> Option<&'static str> {
    Some(match limit {
        "TooManyReplicas" => "The demand is greater than spec.autoscaling.maxReplicas",
        "TooFewReplicas" => "The demand is less than spec.autoscaling.minReplicas",
        "ScaleUpLimit" => "spec.autoscaling.behavior.scaleUp limits the step",
        "ScaleDownLimit" => "spec.autoscaling.behavior.scaleDown limits the step",
        "ErrorGuard" => "The servers fail, so nothing is taken away until they answer again",
        "LatencyGuard" => "Calls take longer than the objective, so nothing is taken away",
        "AllPodsUnready" => "No replica is ready, or too few are, so the scale stays",
        "HoldTimeDegraded" => {
            "Each call takes longer than it used to, as with a slow dependency; more replicas would not help it"
        }
        "PanicHold" => "Sudden load ended only now, so nothing is taken away yet",
        "MissingMetrics" => "A gateway or some pods say nothing, so nothing is taken away",
        "Paused" => "Paused by an annotation mcpfleet.io/paused, paused-scale-in or paused-scale-out",
        _ => return None,
    })
}

/// Signals of a policy, as `spec.autoscaling.metrics` names them.
fn names(policy: &Policy) -> String {
    let signals = &policy.signals;
    let all = [
        (signals.concurrency.is_some(), "concurrency"),
        (signals.queue.is_some(), "queueDepth"),
        (signals.connections.is_some(), "connections"),
        (signals.request_rate.is_some(), "requestRate"),
        (signals.cpu.is_some(), "cpu"),
        (signals.memory.is_some(), "memory"),
        (signals.latency.is_some(), "latency"),
        (signals.errors.is_some(), "errorRate"),
    ];
    all.into_iter().filter_map(|(on, name)| on.then_some(name)).collect::<Vec<_>>().join(", ")
}

fn foreign_message(foreign: &ForeignAutoscaler) -> String {
    let name = &foreign.name;
    if foreign.on_deployment {
        return format!(
            "HorizontalPodAutoscaler {name} scales the fleet's Deployment, so spec.replicas is not followed and no \
             autoscaler of the fleet's own runs: delete it, or let it scale the McpFleet with \
             spec.autoscaling.actuator: Off"
        );
    }
    format!(
        "HorizontalPodAutoscaler {name} scales the fleet, so the fleet's own stepped aside: delete it, or say \
         spec.autoscaling.actuator: Off"
    )
}

#[cfg(test)]
mod tests;
