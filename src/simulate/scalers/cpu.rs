//! An HPA on CPU: 70 % of the request, Kubernetes' defaults for all else, with its rules for pods that are missing or
//! not ready.

use super::{Period, Scaler, View};
use crate::{
    autoscale::hpa::{Controller, Inputs, Metric, PodMetric, PodView, Sample, Spec},
    simulate::world::{Micros, SECOND},
};

/// Percent of the request.
const TARGET: i32 = 70;

/// The HPA.
pub(super) struct HpaCpu {
    spec: Spec,
    controller: Controller,
    sync: Period,
    score: Option<f64>,
}

impl HpaCpu {
    pub(super) fn new(min: i32, max: i32, phase: Micros) -> Self {
        let spec = Spec::of(min, max, Metric::Cpu(TARGET));
        Self { spec, controller: Controller::default(), sync: Period::new(phase, 15 * SECOND), score: None }
    }
}

impl Scaler for HpaCpu {
    fn tick(&mut self, view: &View<'_>) -> Option<i32> {
        if !self.sync.due(view.now) {
            return None;
        }
        let pods: Vec<PodView> = view
            .pods
            .iter()
            .map(|pod| PodView {
                ignored: false,
                pending: false,
                ready: pod.ready,
                started: pod.created / 1000,
                turned: pod.turned / 1000,
                request: 1000,
            })
            .collect();
        let metric = |(at, share): (Micros, f64)| PodMetric {
            value: (share * 1000.0) as i64,
            at: at / 1000,
            window: 15_000,
        };
        let values: Vec<Option<PodMetric>> = view.pods.iter().map(|pod| pod.cpu.map(metric)).collect();
        let used: Vec<f64> = view.pods.iter().filter_map(|pod| pod.cpu.map(|(_, share)| share)).collect();
        let mean = used.iter().sum::<f64>() / used.len() as f64;
        self.score = (!used.is_empty()).then(|| 100.0 * mean / f64::from(TARGET));
        let inputs = Inputs {
            spec_replicas: view.replicas,
            status_replicas: view.status_replicas(),
            pods: &pods,
            samples: &[Sample::Pods(values)],
        };
        let outcome = self.controller.sync(&self.spec, &inputs, view.now / 1000);
        outcome.rescaled.then_some(outcome.replicas)
    }

    fn restart(&mut self, _: Micros) {
        self.controller = Controller::default();
    }

    fn score(&self) -> Option<f64> {
        self.score
    }
}
