//! One function for each condition but those about scaling. All pure.

use std::collections::BTreeMap;

use super::{Rollout, Verdict, verdict};
use crate::{
    api::conditions::reasons,
    operator::{observe::Observed, plan::Blocked, pods::Problem},
};

pub(super) fn accepted(rollout: &Rollout, blocked: &[Blocked]) -> Verdict {
    match blocked.first() {
        None if !rollout.exists => verdict("True", reasons::ACCEPTED, "The specification is valid"),
        None => verdict("True", reasons::ACCEPTED, "The specification is valid and every object is written"),
        Some(first) => verdict("False", first.reason, all_messages(blocked)),
    }
}

fn all_messages(blocked: &[Blocked]) -> String {
    blocked.iter().map(|b| b.message.as_str()).collect::<Vec<_>>().join("; ")
}

pub(super) fn available(rollout: &Rollout, observed: &Observed) -> Verdict {
    let ready = observed.ready_endpoints;
    if ready > 0 {
        return verdict("True", reasons::ENDPOINTS_READY, format!("{} serve", count(ready, "endpoint")));
    }
    if rollout.exists && rollout.desired == 0 {
        return verdict("False", reasons::SCALED_TO_ZERO, "No replica is asked for");
    }
    match problem(rollout, observed) {
        Some(problem) => verdict("False", problem.reason, problem.message),
        None => verdict("False", reasons::NO_ENDPOINTS, "No endpoint serves yet"),
    }
}

pub(super) fn progressing(rollout: &Rollout, observed: &Observed) -> Verdict {
    let Rollout { exists, desired, updated, complete, stuck, .. } = rollout;
    if !exists {
        return verdict("Unknown", reasons::PENDING, "The Deployment does not exist yet");
    }
    if *complete {
        return verdict("True", reasons::ROLLOUT_COMPLETE, "All replicas run the present pod template");
    }
    let state = format!("{updated} of {} run the present pod template", count(*desired, "replica"));
    match (stuck, problem(rollout, observed)) {
        (true, Some(problem)) => {
            let message = format!("{state}; the old ones serve on. {}", problem.message);
            verdict("False", reasons::ROLLOUT_STUCK, message)
        }
        (true, None) => verdict("False", reasons::ROLLOUT_STUCK, format!("{state}; the old ones serve on")),
        (false, Some(problem)) => verdict("True", problem.reason, format!("{state}. {}", problem.message)),
        (false, None) => verdict("True", reasons::ROLLING_OUT, state),
    }
}

pub(super) fn ready(rollout: &Rollout, observed: &Observed, blocked: &[Blocked]) -> Verdict {
    if let Some(first) = blocked.first() {
        return verdict("False", first.reason, all_messages(blocked));
    }
    let ready = observed.ready_endpoints;
    if !rollout.exists {
        return verdict("False", reasons::PENDING, "The Deployment does not exist yet");
    }
    if rollout.desired == 0 && rollout.complete {
        return verdict("True", reasons::SCALED_TO_ZERO, "No replica is asked for, and none runs");
    }
    if rollout.complete && ready >= rollout.desired {
        return verdict("True", reasons::READY, format!("{} serve", count(ready, "replica")));
    }
    if let Some(problem) = problem(rollout, observed) {
        return verdict("False", problem.reason, problem.message);
    }
    if rollout.stuck {
        let message =
            "The rollout made no progress in spec.rollout.progressDeadlineSeconds; the old pods serve on";
        return verdict("False", reasons::ROLLOUT_STUCK, message);
    }
    if rollout.updated < rollout.desired && ready > 0 {
        let message = format!("{} of {} run the present pod template", rollout.updated, rollout.desired);
        return verdict("False", reasons::ROLLING_OUT, message);
    }
    let message = format!("{ready} of {} serve", count(rollout.desired, "replica"));
    verdict("False", reasons::REPLICAS_UNAVAILABLE, message)
}

/// What most of the pods in trouble suffer from; pods that end do not count.
fn problem(rollout: &Rollout, observed: &Observed) -> Option<Problem> {
    if let Some(message) = &rollout.failure {
        return Some(creation_problem(message));
    }
    let mut by_reason: BTreeMap<&'static str, Vec<&Problem>> = BTreeMap::new();
    let live = observed.pods.iter().filter(|p| !p.terminating);
    for problem in live.clone().filter_map(|p| p.problem.as_ref()) {
        by_reason.entry(problem.reason).or_default().push(problem);
    }
    if let Some(worst) = by_reason.into_values().max_by_key(Vec::len) {
        return worst.into_iter().min().cloned();
    }
    let waiting = |pod: &str| live.clone().any(|p| p.pending && p.name == pod);
    let failure = observed.mount_failures.iter().filter(|f| waiting(&f.pod)).min_by_key(|f| &f.pod)?;
    let message = format!(
        "pod {}: {}; create what is missing in this namespace, or correct spec.server.volumes",
        failure.pod, failure.message
    );
    Some(Problem { reason: reasons::VOLUME_NOT_MOUNTED, message })
}

/// The Deployment names no reason but `FailedCreate`; the words choose the advice, and nothing else.
fn creation_problem(message: &str) -> Problem {
    let (reason, advice) = if message.contains("exceeded quota") {
        (reasons::QUOTA_EXCEEDED, "raise the ResourceQuota or lower spec.server.resources or the replicas")
    } else if message.contains("service account") || message.contains("serviceaccount") {
        (reasons::SERVICE_ACCOUNT_MISSING, "create it, or leave out spec.server.serviceAccountName")
    } else {
        (reasons::PODS_REJECTED, "change what the message names")
    };
    Problem { reason, message: format!("pods cannot be created: {message}; {advice}") }
}

fn count(n: i32, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}
