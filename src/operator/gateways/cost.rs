//! Which deletion costs make the emptiest pods go first. Pure.

use std::collections::BTreeMap;

/// A pod and its deletion cost; none counts as 0, as Kubernetes does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCost {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Its annotation `controller.kubernetes.io/pod-deletion-cost`.
    pub cost: Option<i32>,
}

/// What to write for pods with more load (sessions, calls and streams, by UID) to cost more. Nothing, as long as
/// the costs that stand order the pods as their load does: only the order decides.
pub fn changes(pods: &[PodCost], load: &BTreeMap<String, u64>) -> Vec<PodCost> {
    let wanted = |pod: &PodCost| coarse(load.get(&pod.uid).copied().unwrap_or_default());
    let mut order: Vec<(i32, i32)> = pods.iter().map(|p| (wanted(p), p.cost.unwrap_or_default())).collect();
    order.sort_unstable();
    // Whoever has less load must cost less: the greatest cost of all before is below the least of each group.
    let mut before = None;
    let ordered = order.chunk_by(|a, b| a.0 == b.0).all(|group| {
        let costs = group.iter().map(|(_, cost)| *cost);
        let fits = before.is_none_or(|before| costs.clone().min() > Some(before));
        before = costs.max().max(before);
        fits
    });
    if ordered {
        return Vec::new();
    }
    let differs = |pod: &&PodCost| pod.cost.unwrap_or_default() != wanted(pod);
    let with = |pod: &PodCost| PodCost { cost: Some(wanted(pod)), ..pod.clone() };
    pods.iter().filter(differs).map(with).collect()
}

/// What to write for some pods to cost less than all others.
pub fn below_others(some: &[PodCost], others: &[PodCost]) -> Vec<PodCost> {
    let cost = |pod: &PodCost| pod.cost.unwrap_or_default();
    let Some(least) = others.iter().map(cost).min() else { return Vec::new() };
    let dear = some.iter().filter(|pod| cost(pod) >= least);
    dear.map(|pod| PodCost { cost: Some(least.saturating_sub(1)), ..pod.clone() }).collect()
}

/// To three binary digits: a session more or less among hundreds changes no order.
fn coarse(load: u64) -> i32 {
    let spare = (u64::BITS - load.leading_zeros()).saturating_sub(3);
    i32::try_from(load >> spare << spare).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn pods(costs: &[Option<i32>]) -> Vec<PodCost> {
        let pod = |(i, cost): (usize, &Option<i32>)| PodCost {
            name: format!("p{i}"),
            uid: format!("u{i}"),
            cost: *cost,
        };
        costs.iter().enumerate().map(pod).collect()
    }

    fn loads(loads: &[u64]) -> BTreeMap<String, u64> {
        loads.iter().enumerate().map(|(i, load)| (format!("u{i}"), *load)).collect()
    }

    fn written(costs: &[Option<i32>], load: &[u64]) -> Vec<(String, i32)> {
        changes(&pods(costs), &loads(load))
            .into_iter()
            .map(|p| (p.name, p.cost.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn the_order_alone_decides() {
        assert_eq!(written(&[None, None], &[0, 0]), []);
        assert_eq!(written(&[None, None], &[3, 0]), [("p0".into(), 3)]);
        assert_eq!(written(&[Some(1), None], &[70, 0]), [], "it costs more already");
        assert_eq!(written(&[Some(5), Some(9)], &[7, 2]), [("p0".into(), 7), ("p1".into(), 2)]);
        assert_eq!(written(&[Some(5), Some(5)], &[1, 1]), [], "as good as each other");
        assert_eq!(written(&[Some(100), Some(101)], &[101, 100]), [], "hardly a difference");
        assert_eq!(written(&[None, Some(-3)], &[]), [], "what somebody set stays where there is no load");
    }

    #[test]
    fn absurd_loads_are_bounded() {
        assert_eq!(written(&[None, None], &[u64::MAX, 1]), [("p0".into(), i32::MAX), ("p1".into(), 1)]);
    }

    proptest! {
        /// After a write the order is right, and there is nothing more to write.
        #[test]
        fn one_write_is_enough(given in proptest::collection::vec((proptest::option::of(-9_i32..99), 0_u64..99), 0..9)) {
            let (costs, load): (Vec<_>, Vec<_>) = given.into_iter().unzip();
            let mut all = pods(&costs);
            let load = loads(&load);
            for change in changes(&all, &load) {
                let pod = all.iter_mut().find(|p| p.uid == change.uid).expect("one of them");
                pod.cost = change.cost;
            }
            prop_assert_eq!(changes(&all, &load), vec![]);
            for a in &all {
                for b in &all {
                    let less = coarse(load[&a.uid]) < coarse(load[&b.uid]);
                    prop_assert!(!less || a.cost.unwrap_or_default() < b.cost.unwrap_or_default());
                }
            }
        }
    }
}
