//! What the caches know of a fleet → [`Snapshot`]. Pure.

use std::collections::BTreeMap;

use super::usage::{Usage, shares};
use crate::{
    api::conditions::reasons,
    autoscale::{
        load::Load,
        snapshot::{Actuator, Pause, Pod, Snapshot},
        time::Now,
    },
    operator::pods::PodFacts,
};

/// A pod that waits longer for its place, in ms, keeps the fleet from growing: more of them would wait, too.
const BLOCKED_AFTER: i64 = 60_000;

/// Everything that goes into a snapshot.
pub struct Parts<'a> {
    /// N.
    pub replicas: i32,
    /// Pods by name.
    pub pods: Option<&'a BTreeMap<String, PodFacts>>,
    /// What they use, by name.
    pub usage: Option<&'a BTreeMap<String, Usage>>,
    /// What the gateways said.
    pub load: Option<Load>,
    /// Who acts.
    pub actuator: Actuator,
    /// What a person stopped.
    pub pause: Pause,
    /// Why the Deployment cannot make pods, and since when, in ms since the Unix epoch.
    pub failure: Option<(&'a str, i64)>,
}

/// Puts them together.
pub fn build(parts: Parts<'_>, now: Now) -> Snapshot {
    let Parts { replicas, pods, usage, load, actuator, pause, failure } = parts;
    let pods = || pods.into_iter().flatten().filter(|(_, p)| !p.terminating && !p.load.ended);
    let pod = |(name, facts): (&String, &PodFacts)| {
        let (cpu, memory) = shares(&facts.load, usage.and_then(|u| u.get(name)), now.wall);
        Some(Pod { uid: facts.load.uid?, ready: facts.load.ready_since.is_some(), cpu, memory })
    };
    Snapshot {
        replicas,
        pods: pods().filter_map(pod).collect(),
        load,
        actuator,
        pause,
        blocked: blocked(pods().map(|(_, p)| p), failure, now.wall),
    }
}

/// Why more pods would not help.
fn blocked<'a>(
    pods: impl Iterator<Item = &'a PodFacts>,
    failure: Option<(&str, i64)>,
    wall: i64,
) -> Option<String> {
    if let Some((message, since)) = failure
        && wall - since > BLOCKED_AFTER
    {
        return Some(format!("pods cannot be made: {message}"));
    }
    let waits = |p: &&PodFacts| p.pending && p.load.created.is_some_and(|at| wall - at > BLOCKED_AFTER);
    // The one that no node takes says most; else the first by name, so that the words rest.
    let unplaced = |p: &&PodFacts| p.problem.as_ref().is_some_and(|p| p.reason == reasons::UNSCHEDULABLE);
    let pod = pods.filter(waits).min_by_key(|p| !unplaced(p))?;
    Some(match &pod.problem {
        Some(problem) => problem.message.clone(),
        None => format!("pod {} has not started within {} s", pod.name, BLOCKED_AFTER / 1000),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        autoscale::snapshot::PodUid,
        operator::pods::{PodLoadFacts, Problem},
    };

    const NOW: Now = Now { mono: 0, wall: 200_000 };

    fn pod(name: &str, change: impl Fn(&mut PodFacts)) -> (String, PodFacts) {
        let mut facts = PodFacts {
            name: name.into(),
            uid: String::new(),
            deletion_cost: None,
            terminating: false,
            pending: false,
            problem: None,
            load: PodLoadFacts {
                uid: Some(PodUid(1)),
                ready_since: Some(0),
                created: Some(0),
                cpu_request: Some(1000),
                ..PodLoadFacts::default()
            },
        };
        change(&mut facts);
        (name.into(), facts)
    }

    fn parts<'a>(
        pods: &'a BTreeMap<String, PodFacts>,
        usage: &'a BTreeMap<String, Usage>,
        failure: Option<(&'a str, i64)>,
    ) -> Parts<'a> {
        Parts {
            replicas: 3,
            pods: Some(pods),
            usage: Some(usage),
            load: None,
            actuator: Actuator::Direct,
            pause: Pause::default(),
            failure,
        }
    }

    #[test]
    fn pods_that_end_or_ended_do_not_count() {
        let pods = [
            pod("a", |_| {}),
            pod("b", |p| p.terminating = true),
            pod("c", |p| p.load.ended = true),
            pod("d", |p| p.load.ready_since = None),
            pod("e", |p| p.load.uid = None),
        ]
        .into();
        let usage = [("a".into(), Usage { cpu: 700.0, memory: 1.0, at: 190_000, window: 15_000 })].into();
        let snapshot = build(parts(&pods, &usage, None), NOW);
        assert_eq!((snapshot.pods.len(), snapshot.ready()), (2, 1));
        assert_eq!((snapshot.pods[0].cpu, snapshot.pods[1].cpu), (Some(0.7), None));
        assert_eq!(snapshot.blocked, None);
    }

    #[test]
    fn a_fleet_whose_pods_find_no_place_is_blocked() {
        let blocked = |pods: &[(String, PodFacts)], failure| {
            build(parts(&pods.iter().cloned().collect(), &BTreeMap::new(), failure), NOW).blocked
        };
        let waiting = |name: &str, created| {
            pod(name, move |p| {
                p.pending = true;
                p.load.created = Some(created);
            })
        };
        let unplaced = pod("z", |p| {
            p.pending = true;
            p.problem = Some(Problem { reason: reasons::UNSCHEDULABLE, message: "no node".into() });
        });
        assert_eq!(blocked(&[waiting("a", 150_000)], None), None, "it may still find one");
        let slow = blocked(&[pod("a", |_| {}), waiting("b", 139_000)], None).expect("blocked");
        assert_eq!(slow, "pod b has not started within 60 s");
        assert_eq!(blocked(&[waiting("b", 0), unplaced], None).as_deref(), Some("no node"));
        assert_eq!(blocked(&[], Some(("exceeded quota", 150_000))), None);
        let quota = blocked(&[], Some(("exceeded quota", 100_000)));
        assert_eq!(quota.as_deref(), Some("pods cannot be made: exceeded quota"));
    }
}
