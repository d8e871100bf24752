//! The real `decide`, once a second, the port of the HPA controller that reads its number every 15 s, and the Deployment that
//! goes ahead of it.

use super::{Period, Scaler, View};
use crate::{
    autoscale::{
        decide::decide,
        head_start::{HeadStart, exported},
        hpa::{self, Inputs, Metric, Sample},
        policy::Policy,
        snapshot::{Actuator, Pause, Pod, PodUid, Snapshot},
        state::{Persisted, State},
        time::Now,
    },
    simulate::world::{BEGIN, Micros, SECOND},
};

/// A fleet with an MCP policy.
pub(super) struct Ours {
    policy: Policy,
    actuator: Actuator,
    state: State,
    /// What stands in the fleet's status: written when what is wanted changes.
    persisted: Persisted,
    written: Option<(Option<i32>, i32)>,
    score: Option<f64>,
    spec: hpa::Spec,
    controller: hpa::Controller,
    sync: Period,
    ahead: Option<HeadStart>,
}

impl Ours {
    pub(super) fn direct(policy: Policy) -> Self {
        Self::new(policy, Actuator::Direct, 0)
    }

    pub(super) fn through_hpa(policy: Policy, phase: Micros) -> Self {
        Self::new(policy, Actuator::Hpa, phase)
    }

    fn new(policy: Policy, actuator: Actuator, phase: Micros) -> Self {
        // The HPA that the operator generates (autoscaling.md section 1.2).
        let spec = hpa::Spec {
            min: policy.min.max(1),
            max: policy.max,
            metrics: vec![Metric::AverageValue(1000)],
            behavior: policy.of_hpa(false),
            tolerance_up: 0.0,
            tolerance_down: 0.0,
        };
        Self {
            policy,
            actuator,
            state: State::default(),
            persisted: Persisted::default(),
            written: None,
            score: None,
            spec,
            controller: hpa::Controller::default(),
            sync: Period::new(phase, 15 * SECOND),
            ahead: None,
        }
    }
}

impl Scaler for Ours {
    fn tick(&mut self, view: &View<'_>) -> Option<i32> {
        let now = clock(view.now);
        let n = HeadStart::replicas(self.ahead, view.replicas);
        let snapshot = Snapshot {
            replicas: n,
            pods: view
                .pods
                .iter()
                .map(|pod| Pod {
                    uid: PodUid(u128::from(pod.id) + 1),
                    ready: pod.ready,
                    cpu: pod.cpu.filter(|(at, _)| view.now - at <= 60 * SECOND).map(|(_, share)| share),
                    memory: None,
                })
                .collect(),
            load: view.load.cloned(),
            actuator: self.actuator,
            pause: Pause::default(),
            blocked: None,
        };
        let (decision, state) = decide(&self.policy, &snapshot, &self.state, now);
        self.state = state;
        self.score = decision.utilization;
        let shown = Some((decision.recommended, decision.desired));
        if self.written != shown {
            self.persisted = self.state.persist(now);
            self.written = shown;
        }
        if self.actuator != Actuator::Hpa {
            return Some(decision.desired);
        }
        let ahead = HeadStart::decided(true, view.replicas, n, decision.desired, self.policy.max);
        self.ahead = Some(ahead);
        if view.replicas == 0 || (view.replicas == 1 && decision.desired == 0) {
            return Some(decision.desired);
        }
        if !self.sync.due(view.now) {
            return None;
        }
        let number = exported(self.policy.preset_pace, &decision, view.replicas, ahead);
        let sample = number.map_or(Sample::Failed, |n| Sample::Object(i64::from(n) * 1000));
        let inputs = Inputs {
            spec_replicas: view.replicas,
            status_replicas: view.status_replicas(),
            pods: &[],
            samples: &[sample],
        };
        let outcome = self.controller.sync(&self.spec, &inputs, view.now / 1000);
        outcome.rescaled.then_some(outcome.replicas)
    }

    fn deployed(&self, spec: i32) -> i32 {
        HeadStart::replicas(self.ahead, spec)
    }

    /// Ours restarts, not the HPA controller; what stands in the status is all that is left.
    fn restart(&mut self, now: Micros) {
        self.state = State::restore(&self.persisted, clock(now));
        // What is ahead stands in the status, too.
    }

    fn score(&self) -> Option<f64> {
        self.score
    }
}

fn clock(now: Micros) -> Now {
    Now { mono: now / 1000, wall: BEGIN + now / 1000 }
}
