//! An HPA on calls, as KEDA or a metrics adapter feeds it: running and waiting calls over a quarter of a minute, target
//! per pod, Kubernetes' defaults for all else.

use super::{Period, Scaler, View};
use crate::{
    autoscale::hpa::{self, Controller, Inputs, Metric, Sample, Spec},
    simulate::world::{Micros, SECOND},
};

/// The HPA.
pub(super) struct HpaConcurrency {
    spec: Spec,
    controller: Controller,
    sync: Period,
    score: Option<f64>,
}

impl HpaConcurrency {
    pub(super) fn new(min: i32, max: i32, per_pod: f64, phase: Micros) -> Self {
        let spec = Spec::of(min, max, Metric::AverageValue(hpa::milli(per_pod)));
        Self { spec, controller: Controller::default(), sync: Period::new(phase, 15 * SECOND), score: None }
    }
}

impl Scaler for HpaConcurrency {
    fn tick(&mut self, view: &View<'_>) -> Option<i32> {
        if !self.sync.due(view.now) {
            return None;
        }
        // A scrape sees a gauge; over the short window it is the kinder of the two.
        let total = view.load.map(|load| load.panic.in_flight + load.panic.queue);
        let Metric::AverageValue(target) = self.spec.metrics[0] else { return None };
        self.score = total.map(|t| 1000.0 * t / target as f64 / f64::from(view.replicas.max(1)));
        let inputs = Inputs {
            spec_replicas: view.replicas,
            status_replicas: view.status_replicas(),
            pods: &[],
            samples: &[total.map_or(Sample::Failed, |t| Sample::Object(hpa::milli(t)))],
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
