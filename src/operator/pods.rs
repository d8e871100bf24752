//! What a pod tells about its fleet: whether it is ready, and what keeps it from it. Pure.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use crate::api::{conditions::reasons, names};

/// Exit code of a process that was ended by SIGKILL for its memory comes with this reason.
const OOM_KILLED: &str = "OOMKilled";

/// Why something does not run: a reason for the condition, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What was seen, and where.
    pub message: String,
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Its deletion cost.
    pub deletion_cost: Option<i32>,
    /// It is being deleted.
    pub terminating: bool,
    /// Its containers have not started yet.
    pub pending: bool,
    /// What keeps it from running.
    pub problem: Option<Problem>,
}

/// Reads a pod.
pub fn facts(pod: &Pod) -> PodFacts {
    let status = pod.status.as_ref();
    PodFacts {
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        deletion_cost: deletion_cost(pod),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        pending: status.and_then(|s| s.phase.as_deref()).is_none_or(|phase| phase == "Pending"),
        problem: problem(pod),
    }
}

fn deletion_cost(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(names::ANNOTATION_DELETION_COST)?.parse().ok()
}

fn problem(pod: &Pod) -> Option<Problem> {
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Some(scheduled) =
        status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")
    {
        let message = format!(
            "pod {name}: {}; free capacity, add nodes, or relax requests, nodeSelector, affinity and tolerations",
            scheduled.message.as_deref().unwrap_or("no node takes it")
        );
        return Some(Problem { reason: reasons::UNSCHEDULABLE, message });
    }
    let init = status.init_container_statuses.iter().flatten();
    let main = status.container_statuses.iter().flatten();
    init.chain(main).find_map(|container| container_problem(name, container))
}

fn container_problem(pod: &str, container: &ContainerStatus) -> Option<Problem> {
    let whose = match container.name.as_str() {
        names::CONTAINER_SERVER => format!("pod {pod}"),
        other => format!("pod {pod}, container {other}"),
    };
    let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref())?;
    let said = waiting.message.as_deref().unwrap_or_default();
    let (reason, message) = match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable" => (
            reasons::IMAGE_PULL_FAILED,
            format!(
                "{whose}: image {} cannot be pulled: {said}; check spec.server.image and imagePullSecrets",
                container.image
            ),
        ),
        "CreateContainerConfigError" => (
            reasons::MISSING_REFERENCE,
            format!("{whose}: {said}; create it in this namespace, or correct spec.server.env and envFrom"),
        ),
        "CrashLoopBackOff" => return Some(crash(&whose, container)),
        "CreateContainerError" | "RunContainerError" | "PostStartHookError" => (
            reasons::CONTAINER_NOT_STARTED,
            format!(
                "{whose}: the container cannot be started: {said}; check spec.server.command, user and mounts"
            ),
        ),
        _ => return None,
    };
    Some(Problem { reason, message })
}

fn crash(whose: &str, container: &ContainerStatus) -> Problem {
    let ended = |state: &ContainerState| state.terminated.clone();
    let Some(last) = container.last_state.as_ref().and_then(ended) else {
        return Problem {
            reason: reasons::CRASH_LOOP,
            message: format!("{whose}: the server ends again and again"),
        };
    };
    if last.reason.as_deref() == Some(OOM_KILLED) {
        let message = format!(
            "{whose}: the server was ended for its memory, {} restarts so far; raise spec.server.resources.limits.memory",
            container.restart_count
        );
        return Problem { reason: reasons::OUT_OF_MEMORY, message };
    }
    let message = format!(
        "{whose}: the server ended with exit code {}, {} restarts so far; see kubectl logs --previous {}",
        last.exit_code,
        container.restart_count,
        whose.split_whitespace().nth(1).unwrap_or_default().trim_end_matches(','),
    );
    Problem { reason: reasons::CRASH_LOOP, message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problem_of(status: &Value) -> Option<Problem> {
        let pod = json!({"metadata": {"name": "weather-1"}, "status": status});
        facts(&serde_json::from_value(pod).expect("a pod")).problem
    }

    fn server(state: &Value, last: &Value) -> Value {
        json!({"containerStatuses": [{"name": "server", "image": "a:1", "imageID": "", "ready": false,
            "restartCount": 3, "state": state, "lastState": last}]})
    }

    #[test]
    fn each_trouble_has_its_reason_and_says_what_to_do() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "told"}});
        let ended = |reason: &str| json!({"terminated": {"reason": reason, "exitCode": 137}});
        for (state, last, reason, advice) in [
            (waiting("ImagePullBackOff"), json!({}), "ImagePullFailed", "spec.server.image"),
            (waiting("CreateContainerConfigError"), json!({}), "MissingReference", "create it"),
            (
                waiting("CrashLoopBackOff"),
                ended("Error"),
                "CrashLoopBackOff",
                "kubectl logs --previous weather-1",
            ),
            (waiting("CrashLoopBackOff"), ended("OOMKilled"), "OutOfMemory", "limits.memory"),
            (waiting("RunContainerError"), json!({}), "ContainerNotStarted", "command"),
        ] {
            let problem = problem_of(&server(&state, &last)).expect("a problem");
            assert_eq!(problem.reason, reason);
            assert!(problem.message.contains(advice), "{}", problem.message);
        }
    }

    #[test]
    fn a_pod_that_comes_up_has_none() {
        assert_eq!(
            problem_of(&server(&json!({"waiting": {"reason": "ContainerCreating"}}), &json!({}))),
            None
        );
        assert_eq!(problem_of(&server(&json!({"running": {}}), &json!({}))), None);
        assert_eq!(problem_of(&json!({})), None);
    }

    #[test]
    fn no_node_takes_it() {
        let status =
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]});
        assert_eq!(problem_of(&status).map(|p| p.reason), Some("Unschedulable"));
    }
}
