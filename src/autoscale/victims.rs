//! Who goes when a fleet shrinks (autoscaling.md section 9). The operator gives them the lowest deletion cost just before
//! it lowers the Deployment's replicas; each of them then drains while it terminates.

use std::cmp::Reverse;

use super::{load::Load, snapshot::PodUid};

/// A pod that could go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its UID.
    pub uid: PodUid,
    /// Its endpoint serves.
    pub ready: bool,
    /// When it was made, in ms since the Unix epoch.
    pub created_at: i64,
}

/// What a pod holds that would have to drain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Held {
    sessions: f64,
    work: f64,
}

/// The pods that go so that `target` remain: unready ones without sessions first, then empty ones, then those with the
/// fewest sessions and calls, then the newest. In this order, most dispensable first; none if no more than `target`
/// are there. `load`: what the gateways said last; without it only readiness and age count.
pub fn choose_victims(target: i32, pods: &[Candidate], load: Option<&Load>) -> Vec<PodUid> {
    let surplus = pods.len().saturating_sub(target.max(0) as usize);
    let mut order: Vec<(&Candidate, Held)> = pods.iter().map(|pod| (pod, held(pod.uid, load))).collect();
    order.sort_by(|(a, holds_a), (b, holds_b)| {
        let rank = |pod: &Candidate, held: &Held| match () {
            () if !pod.ready && held.sessions <= 0.0 => 0,
            () if held.sessions + held.work <= 0.0 => 1,
            () => 2,
        };
        rank(a, holds_a)
            .cmp(&rank(b, holds_b))
            .then(holds_a.sessions.total_cmp(&holds_b.sessions))
            .then(holds_a.work.total_cmp(&holds_b.work))
            .then(Reverse(a.created_at).cmp(&Reverse(b.created_at)))
            .then(a.uid.cmp(&b.uid))
    });
    order.into_iter().take(surplus).map(|(pod, _)| pod.uid).collect()
}

/// A number that cannot be is infinitely many: such a pod goes last.
fn held(uid: PodUid, load: Option<&Load>) -> Held {
    let known = |v: f64| if v.is_finite() && v >= 0.0 { v } else { f64::INFINITY };
    let of = |pod: &super::load::PodWindow| Held {
        sessions: known(pod.sessions),
        work: known(pod.in_flight) + known(pod.streams),
    };
    // The short window is nearer to now; a pod that it does not know yet may be in the other.
    load.and_then(|l| l.panic.pods.get(&uid).or_else(|| l.stable.pods.get(&uid))).map_or(Held::default(), of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::autoscale::load::PodWindow;

    fn pod(uid: u128, ready: bool, created_at: i64) -> Candidate {
        Candidate { uid: PodUid(uid), ready, created_at }
    }

    fn load(held: &[(u128, f64, f64)]) -> Load {
        let mut load = Load::default();
        for (uid, sessions, in_flight) in held {
            let window = PodWindow { sessions: *sessions, in_flight: *in_flight, ..PodWindow::default() };
            load.panic.pods.insert(PodUid(*uid), window);
        }
        load
    }

    fn ids(victims: &[PodUid]) -> Vec<u128> {
        victims.iter().map(|uid| uid.0).collect()
    }

    #[test]
    fn unready_then_empty_then_least_then_newest() {
        let pods = [
            pod(1, true, 10),
            pod(2, true, 20),
            pod(3, false, 5),
            pod(4, false, 6),
            pod(5, true, 1),
            pod(6, true, 30),
            pod(7, true, 40),
        ];
        // 3 is unready and empty, 4 unready with a session, 5 empty, 1 and 2 alike but for their age, 6 calls only.
        let load =
            load(&[(1, 2.0, 1.0), (2, 2.0, 1.0), (3, 0.0, 0.0), (4, 1.0, 0.0), (6, 0.0, 3.0), (7, 2.0, 0.5)]);
        assert_eq!(ids(&choose_victims(0, &pods, Some(&load))), [3, 5, 6, 4, 7, 2, 1]);
        assert_eq!(ids(&choose_victims(5, &pods, Some(&load))), [3, 5]);
        assert!(choose_victims(7, &pods, Some(&load)).is_empty());
        assert!(choose_victims(9, &pods, Some(&load)).is_empty());
    }

    #[test]
    fn without_a_load_the_newest_go() {
        let pods = [pod(1, true, 10), pod(2, true, 30), pod(3, true, 20)];
        assert_eq!(ids(&choose_victims(1, &pods, None)), [2, 3]);
    }

    #[test]
    fn a_number_that_cannot_be_protects() {
        let pods = [pod(1, true, 10), pod(2, true, 20)];
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            let load = load(&[(1, 5.0, 5.0), (2, bad, 0.0)]);
            assert_eq!(ids(&choose_victims(1, &pods, Some(&load))), [1], "{bad}");
        }
    }

    proptest! {
        #[test]
        fn as_many_as_are_too_many_in_any_order(
            pods in prop::collection::vec((any::<bool>(), 0_i64..5, 0_u8..3, 0_u8..3), 0..12),
            target in -1_i32..14,
            turn in 0_usize..12,
        ) {
            let candidates: Vec<Candidate> =
                pods.iter().enumerate().map(|(i, p)| pod(i as u128, p.0, p.1)).collect();
            let held: Vec<_> = pods
                .iter()
                .enumerate()
                .map(|(i, p)| (i as u128, f64::from(p.2), f64::from(p.3)))
                .collect();
            let load = load(&held);
            let victims = choose_victims(target, &candidates, Some(&load));
            prop_assert_eq!(victims.len(), pods.len().saturating_sub(target.max(0) as usize));
            let mut turned = candidates.clone();
            turned.rotate_left(if pods.is_empty() { 0 } else { turn % pods.len() });
            prop_assert_eq!(choose_victims(target, &turned, Some(&load)), victims);
        }
    }
}
