//! Before a Deployment loses replicas: the pods that shall go get the lowest deletion cost.
//!
//! Best effort, and one second at most: it races the ReplicaSet controller's cache, and a pod that goes drains all the
//! same (autoscaling.md section 9).

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, stream};
use tokio::time::timeout;

use crate::{
    autoscale::{
        load::Load,
        policy::Windows,
        snapshot::PodUid,
        victims::{Candidate, choose_victims},
    },
    domain::FleetKey,
    operator::{
        gateways::{
            cost::{PodCost, below_others},
            write_cost,
        },
        pods::PodFacts,
        reconcile::Context,
    },
};

/// Longest time for all of them.
const LONGEST: Duration = Duration::from_secs(1);
/// Costs that are written at the same time.
const AT_ONCE: usize = 16;
/// Most victims that are marked; of more, any may go.
const MOST: usize = 100;

/// Marks the pods of a fleet that go when `target` remain.
pub async fn mark(ctx: &Context, key: &FleetKey, uid: &str, target: i32) {
    let scaler = &ctx.scaler;
    let load = scaler.ledger.lock().load(uid, &Windows::default(), scaler.gateways(), scaler.clock.now());
    let Some(load) = load else { return };
    let costs =
        ctx.caches.pods.with(key, |pods| pods.map(|pods| costs(pods, target, &load)).unwrap_or_default());
    if costs.is_empty() {
        return;
    }
    let write = |cost| async move { write_cost(ctx, key, &cost).await };
    let writes = stream::iter(costs).map(write).buffer_unordered(AT_ONCE);
    if timeout(LONGEST, writes.collect::<Vec<_>>()).await.is_err() {
        tracing::debug!(fleet = %key, "not all deletion costs were written in time");
    }
}

/// What is written. Nothing where no pod holds anything: then Kubernetes' own choice, which looks at nodes, is better.
fn costs(pods: &BTreeMap<String, PodFacts>, target: i32, load: &Load) -> Vec<PodCost> {
    let live: Vec<(PodUid, &PodFacts)> = pods
        .values()
        .filter(|p| !p.terminating && !p.load.ended)
        .filter_map(|p| Some((p.load.uid?, p)))
        .collect();
    let holds = |uid: &PodUid| {
        let window = load.panic.pods.get(uid).or_else(|| load.stable.pods.get(uid));
        window.is_some_and(|w| w.sessions + w.in_flight + w.streams > 0.0)
    };
    if !live.iter().any(|(uid, _)| holds(uid)) {
        return Vec::new();
    }
    let candidate = |(uid, pod): &(PodUid, &PodFacts)| Candidate {
        uid: *uid,
        ready: pod.load.ready_since.is_some(),
        created_at: pod.load.created.unwrap_or_default(),
    };
    let candidates: Vec<Candidate> = live.iter().map(candidate).collect();
    let mut victims = choose_victims(target, &candidates, Some(load));
    victims.truncate(MOST);
    let cost =
        |pod: &PodFacts| PodCost { name: pod.name.clone(), uid: pod.uid.clone(), cost: pod.deletion_cost };
    let (go, stay): (Vec<_>, Vec<_>) = live.iter().partition(|(uid, _)| victims.contains(uid));
    let all =
        |pods: Vec<&(PodUid, &PodFacts)>| pods.into_iter().map(|(_, pod)| cost(pod)).collect::<Vec<_>>();
    below_others(&all(go), &all(stay))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{autoscale::load::PodWindow, operator::pods::PodLoadFacts};

    fn pod(n: u128, cost: Option<i32>) -> (String, PodFacts) {
        let facts = PodFacts {
            name: format!("p{n}"),
            uid: n.to_string(),
            deletion_cost: cost,
            terminating: false,
            pending: false,
            problem: None,
            load: PodLoadFacts {
                uid: Some(PodUid(n)),
                ready_since: Some(0),
                created: Some(0),
                ..PodLoadFacts::default()
            },
        };
        (facts.name.clone(), facts)
    }

    fn written(pods: &[(u128, Option<i32>)], in_flight: &[(u128, f64)], target: i32) -> Vec<(String, i32)> {
        let pods = pods.iter().map(|(n, cost)| pod(*n, *cost)).collect();
        let mut load = Load::default();
        for (n, in_flight) in in_flight {
            load.panic.pods.insert(PodUid(*n), PodWindow { in_flight: *in_flight, ..PodWindow::default() });
        }
        costs(&pods, target, &load).into_iter().map(|c| (c.name, c.cost.unwrap_or_default())).collect()
    }

    #[test]
    fn the_emptiest_go_and_nobody_else_is_written() {
        let three = [(1, None), (2, None), (3, None)];
        let busy = [(1, 5.0), (2, 0.0), (3, 2.0)];
        assert_eq!(written(&three, &busy, 2), [("p2".into(), -1)]);
        assert_eq!(written(&three, &busy, 1), [("p2".into(), -1), ("p3".into(), -1)]);
        assert_eq!(written(&three, &busy, 3), []);
        assert_eq!(written(&three, &[], 1), [], "all idle: Kubernetes chooses");
        assert_eq!(
            written(&[(1, Some(7)), (2, Some(3)), (3, Some(4))], &busy, 2),
            [],
            "it is the cheapest already"
        );
        assert_eq!(written(&[(1, Some(2)), (2, Some(9)), (3, Some(4))], &busy, 2), [("p2".into(), 1)]);
    }
}
