//! Pods come and go as the Deployment's replicas and a rollout ask, as a Deployment's controllers do.

use super::{Kind, Micros, Phase, Pod, SECOND, World};
use crate::autoscale::{
    load::Load,
    snapshot::PodUid,
    victims::{self, Candidate},
};

/// Who goes at a scale-down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VictimRule {
    /// Those that `choose_victims` names, by deletion cost.
    Chosen,
    /// As a ReplicaSet without deletion costs: not ready first, then the newest.
    Newest,
}

impl World<'_> {
    pub(super) fn create(&mut self) -> u32 {
        let id = self.pods.len() as u32;
        self.pods.push(Pod::new(self.now, self.revision));
        self.alive.push(id);
        id
    }

    /// Starts a pod: 15 to 25 s, one in twenty takes a minute.
    fn start(&mut self, id: u32) {
        let seconds = if self.random.chance(0.05) {
            self.random.uniform(40.0, 60.0)
        } else {
            self.random.uniform(15.0, 25.0)
        };
        let generation = self.pods[id as usize].generation;
        self.at(self.now + (seconds * 1e6) as Micros, Kind::PodReady { pod: id, generation });
    }

    pub(super) fn ready(&mut self, id: u32) {
        let now = self.now;
        let pod = &mut self.pods[id as usize];
        (pod.phase, pod.turned, pod.failures, pod.ejected_until) = (Phase::Ready, now, 0, 0);
        self.serving.push(id);
    }

    /// A pod is told to end: it drains, if it has anything.
    fn remove(&mut self, id: u32) {
        self.serving.retain(|other| *other != id);
        if self.pods[id as usize].phase == Phase::Starting {
            return self.end(id);
        }
        self.pods[id as usize].phase = Phase::Draining;
        self.at(self.now + self.limits.drain, Kind::DrainEnd { pod: id });
        self.drained(id);
    }

    /// A draining pod that holds nothing more is gone.
    pub(super) fn drained(&mut self, id: u32) {
        let pod = &self.pods[id as usize];
        if pod.phase == Phase::Draining && pod.in_flight == 0 && pod.streams == 0 {
            self.end(id);
        }
    }

    /// A pod is gone, with all that it still holds.
    pub(super) fn end(&mut self, id: u32) {
        if self.pods[id as usize].phase == Phase::Gone {
            return;
        }
        self.pods[id as usize].phase = Phase::Gone;
        self.alive.retain(|other| *other != id);
        self.drop_all(id);
    }

    /// A pod crashes, and starts anew.
    pub(super) fn crash(&mut self, id: u32) {
        self.serving.retain(|other| *other != id);
        (self.pods[id as usize].phase, self.pods[id as usize].turned) = (Phase::Starting, self.now);
        self.drop_all(id);
        self.start(id);
    }

    fn drop_all(&mut self, id: u32) {
        self.pods[id as usize].crash(self.now);
        if self.pods[id as usize].in_flight > 0 {
            self.lose(|pod, _| pod == id);
        }
        self.break_sessions(id);
    }

    /// All pods are to be replaced.
    pub(super) fn roll_out(&mut self) {
        self.revision += 1;
    }

    /// Brings the pods to the Deployment's replicas; during a rollout a quarter more, and no fewer ready.
    pub(super) fn reconcile(&mut self, rule: VictimRule, load: Option<&Load>) {
        let target = self.replicas.max(0) as usize;
        let of = |world: &Self, what: &dyn Fn(&Pod) -> bool| -> Vec<u32> {
            world.alive().filter(|(_, pod)| pod.wanted() && what(pod)).map(|(id, _)| id).collect()
        };
        let revision = self.revision;
        let old = of(self, &|pod| pod.revision < revision);
        let wanted = of(self, &|_| true);
        if old.is_empty() {
            for _ in wanted.len()..target {
                let pod = self.create();
                self.start(pod);
            }
            for id in self.victims(&wanted, target, rule, load) {
                self.remove(id);
            }
            return;
        }
        let surge = target.div_ceil(4).max(1);
        let n_new = wanted.len() - old.len();
        for _ in 0..(target + surge).saturating_sub(wanted.len()).min(target.saturating_sub(n_new)) {
            let pod = self.create();
            self.start(pod);
        }
        let n_ready = self.serving.len();
        let unready = old.iter().filter(|id| self.pods[**id as usize].phase != Phase::Ready).count();
        for id in self.victims(
            &old,
            old.len() - (unready + n_ready.saturating_sub(target)).min(old.len()),
            rule,
            load,
        ) {
            self.remove(id);
        }
    }

    /// Those of `pods` that go so that `target` remain.
    fn victims(&self, pods: &[u32], target: usize, rule: VictimRule, load: Option<&Load>) -> Vec<u32> {
        if pods.len() <= target {
            return Vec::new();
        }
        let candidate = |id: &u32| {
            let pod = &self.pods[*id as usize];
            let created_at = pod.created / SECOND * 1000;
            Candidate { uid: PodUid(u128::from(*id) + 1), ready: pod.phase == Phase::Ready, created_at }
        };
        let mut candidates: Vec<Candidate> = pods.iter().map(candidate).collect();
        let chosen = match rule {
            VictimRule::Chosen => victims::choose_victims(target as i32, &candidates, load),
            VictimRule::Newest => {
                candidates.sort_by_key(|c| (c.ready, std::cmp::Reverse((c.created_at, c.uid))));
                candidates.iter().take(pods.len() - target).map(|c| c.uid).collect()
            }
        };
        chosen.iter().map(|uid| (uid.0 - 1) as u32).collect()
    }
}
