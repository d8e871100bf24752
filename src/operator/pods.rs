//! What a pod tells about its fleet: whether it is ready, and what keeps it from it. Pure.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition};

use super::cache::Meeting;
use crate::{
    api::{conditions::reasons, names},
    autoscale::snapshot::PodUid,
    domain::quantity_value,
};

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
    /// What the autoscaler looks at.
    pub load: PodLoadFacts,
}

/// What the autoscaler looks at. A change of it brings no pass: the scaler looks by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodLoadFacts {
    /// Its UID as a number; `None` where it is none.
    pub uid: Option<PodUid>,
    /// It ended, well or not, and is not started again.
    pub ended: bool,
    /// Since when it is ready, in ms since the Unix epoch; `None`: it is not.
    pub ready_since: Option<i64>,
    /// When it was made, in ms since the Unix epoch.
    pub created: Option<i64>,
    /// CPU that the server asked for, in thousandths of a core.
    pub cpu_request: Option<i64>,
    /// Memory that the server asked for, in bytes.
    pub memory_request: Option<i64>,
}

impl PodFacts {
    /// Whether a pass has to look: not where only the autoscaler's facts changed.
    pub fn meet(&self, new: &Self) -> Meeting {
        let same = Self { load: self.load, ..new.clone() };
        if same == *self { Meeting::Same } else { Meeting::News }
    }
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
        load: load(pod),
    }
}

fn load(pod: &Pod) -> PodLoadFacts {
    let status = pod.status.as_ref();
    let ready = status.and_then(|s| s.conditions.iter().flatten().find(|c| c.type_ == "Ready"));
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0.as_millisecond());
    let since = |c: &PodCondition| c.last_transition_time.as_ref().map(|t| t.0.as_millisecond()).or(created);
    let server =
        pod.spec.as_ref().and_then(|s| s.containers.iter().find(|c| c.name == names::CONTAINER_SERVER));
    let requests = server.and_then(|c| c.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let request = |name: &str, unit: f64| {
        let amount = quantity_value(&requests?.get(name)?.0).ok()? * unit;
        (amount >= 1.0 && amount < i64::MAX as f64).then_some(amount as i64)
    };
    PodLoadFacts {
        uid: pod.metadata.uid.as_deref().and_then(PodUid::parse),
        ended: status.and_then(|s| s.phase.as_deref()).is_some_and(|p| p == "Failed" || p == "Succeeded"),
        ready_since: ready.filter(|c| c.status == "True").map(|c| since(c).unwrap_or_default()),
        created,
        cpu_request: request("cpu", 1000.0),
        memory_request: request("memory", 1.0),
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
    fn what_the_autoscaler_looks_at() {
        let pod = json!({
            "metadata": {"name": "weather-1", "uid": "00000000-0000-0000-0000-0000000000ff",
                "creationTimestamp": "1970-01-01T00:00:10Z"},
            "spec": {"containers": [
                {"name": "sidecar", "resources": {"requests": {"cpu": "3"}}},
                {"name": "server", "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}}}]},
            "status": {"phase": "Running",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:20Z"}]},
        });
        let with = |change: &dyn Fn(&mut Value)| {
            let mut pod = pod.clone();
            change(&mut pod);
            facts(&serde_json::from_value(pod).expect("a pod"))
        };
        let ready = with(&|_| {});
        let expected = PodLoadFacts {
            uid: Some(PodUid(255)),
            ended: false,
            ready_since: Some(20_000),
            created: Some(10_000),
            cpu_request: Some(250),
            memory_request: Some(256 * 1024 * 1024),
        };
        assert_eq!(ready.load, expected);
        let unready = with(&|p| p["status"]["conditions"][0]["status"] = json!("False"));
        assert_eq!(unready.load.ready_since, None);
        assert_eq!(ready.meet(&unready), Meeting::Same, "readiness is told by the endpoints");
        let ended = with(&|p| p["status"]["phase"] = json!("Failed"));
        assert!(ended.load.ended);
        assert_eq!(ready.meet(&with(&|p| p["metadata"]["uid"] = json!("x"))), Meeting::News);
        let bare = with(&|p| p["spec"]["containers"][1]["resources"] = json!({}));
        assert_eq!((bare.load.cpu_request, bare.load.memory_request), (None, None));
    }

    #[test]
    fn no_node_takes_it() {
        let status =
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]});
        assert_eq!(problem_of(&status).map(|p| p.reason), Some("Unschedulable"));
    }
}
