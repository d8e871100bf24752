//! How far the Deployment is.

use serde_json::Value;

use crate::operator::observe::LiveChild;

/// Numbers of the Deployment, and whether its rollout is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// There is a Deployment.
    pub exists: bool,
    /// Replicas asked for.
    pub desired: i32,
    /// Replicas without surge pods: what an autoscaler divides by.
    pub counted: i32,
    /// Replicas of the present template.
    pub updated: i32,
    /// Pods that end, where the cluster counts them.
    pub terminating: Option<i32>,
    /// Everything runs on the present template, and nothing else does.
    pub complete: bool,
    /// The Deployment gave up waiting.
    pub stuck: bool,
    /// Why pods cannot even be created.
    pub failure: Option<String>,
}

impl Rollout {
    /// Reads a Deployment.
    pub fn of(deployment: Option<&LiveChild>) -> Self {
        let Some(deployment) = deployment else { return Self::default() };
        let value = deployment.value();
        let number = |path: &str| value.pointer(path).and_then(Value::as_i64).unwrap_or_default() as i32;
        let desired = value.pointer("/spec/replicas").map_or(1, |_| number("/spec/replicas"));
        let (replicas, updated, available) = (
            number("/status/replicas"),
            number("/status/updatedReplicas"),
            number("/status/availableReplicas"),
        );
        // Numbers of an older generation say nothing of this one.
        let seen = number("/status/observedGeneration") >= number("/metadata/generation");
        let condition = |type_: &str| {
            let all = value.pointer("/status/conditions").and_then(Value::as_array);
            all.into_iter().flatten().find(|c| c["type"] == type_).cloned()
        };
        Self {
            exists: true,
            desired,
            counted: desired.min(replicas),
            updated: if seen { updated } else { 0 },
            terminating: value
                .pointer("/status/terminatingReplicas")
                .and_then(Value::as_i64)
                .map(|n| n as i32),
            complete: seen && updated >= desired && replicas <= updated && available >= desired,
            stuck: seen
                && condition("Progressing").is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded"),
            failure: condition("ReplicaFailure")
                .filter(|c| c["status"] == "True")
                .map(|c| c["message"].as_str().unwrap_or_default().to_owned()),
        }
    }
}
