//! The HPA controller of Kubernetes, ported (autoscaling.md sections 6.1 to 6.3): what our own recommendation becomes
//! there, and a baseline of simulations. Written apart from `behavior`, with the plain histories that the controller
//! keeps, so that each can be held against the other; both are held against a real kube-controller-manager in the tests.
//! Pure.

mod limits;
mod pods;
mod proposals;
#[cfg(test)]
mod tests;

pub use pods::{PodMetric, PodView};

use super::{behavior::Behavior, decision::LimitedBy, time::Millis};

/// An autoscaler's spec, with behavior written out.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Fewest replicas, at least 1.
    pub min: i32,
    /// Most replicas.
    pub max: i32,
    /// What is looked at; at least one.
    pub metrics: Vec<Metric>,
    /// Windows and policies.
    pub behavior: Behavior,
    /// How far from 1 a ratio may be without any effect, upwards; 0.1 unless the spec says otherwise.
    pub tolerance_up: f64,
    /// The same downwards.
    pub tolerance_down: f64,
}

impl Spec {
    /// One metric, and Kubernetes' defaults for all that can be left out.
    pub fn of(min: i32, max: i32, metric: Metric) -> Self {
        Self {
            min,
            max,
            metrics: vec![metric],
            behavior: Behavior::default(),
            tolerance_up: 0.1,
            tolerance_down: 0.1,
        }
    }
}

/// A metric of the spec. Values are in thousandths, as `Quantity.MilliValue` gives them; see [`milli`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Object or External with a target for each pod: what we generate.
    AverageValue(i64),
    /// Object with a target for the whole.
    Value(i64),
    /// Pods: the mean of the pods' own values.
    Pods(i64),
    /// Resource or `ContainerResource`, CPU: percent of the request.
    Cpu(i32),
    /// Resource or `ContainerResource`, any other: percent of the request.
    Resource(i32),
}

/// What a query for one metric brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// The value of the object.
    Object(i64),
    /// Values of the pods, in the order of [`Inputs::pods`].
    Pods(Vec<Option<PodMetric>>),
    /// An error, 404 and 503 among them.
    Failed,
}

/// The world at one sync.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inputs<'a> {
    /// `spec.replicas` of the scale.
    pub spec_replicas: i32,
    /// `status.replicas` of the scale.
    pub status_replicas: i32,
    /// The pods of the scale's selector.
    pub pods: &'a [PodView],
    /// One for each metric of the spec, in its order; a missing one failed.
    pub samples: &'a [Sample],
}

/// What a sync came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `spec.replicas` afterwards.
    pub replicas: i32,
    /// The scale was written.
    pub rescaled: bool,
    /// Condition `ScalingActive`.
    pub active: Active,
    /// What the metrics asked for, before windows, policies and bounds.
    pub proposed: Option<i32>,
    /// Condition `AbleToScale`: which window held it; `None` is `ReadyForNewScale`.
    pub able: Option<LimitedBy>,
    /// Condition `ScalingLimited`: what held it; `None` is `DesiredWithinRange`.
    pub limited: Option<LimitedBy>,
}

/// Condition `ScalingActive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// True, `ValidMetricFound`.
    Valid,
    /// False, `ScalingDisabled`: the scale is 0.
    Disabled,
    /// False: no metric, or too few to scale down.
    Failed,
    /// Unchanged: the scale was out of bounds, and no metric was looked at.
    Unlooked,
}

/// Memory of the controller for one autoscaler; gone when its process ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Controller {
    /// `None` until the first sync.
    recommendations: Option<Vec<(Millis, i32)>>,
    ups: Vec<Event>,
    downs: Vec<Event>,
}

/// A change of the scale that this autoscaler made; `amount` is positive in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    at: Millis,
    amount: i32,
}

/// `Quantity.MilliValue`: thousandths, rounded up.
pub fn milli(value: f64) -> i64 {
    (value * 1000.0).ceil() as i64
}

impl Controller {
    /// One sync, every 15 s by default. The write of the scale is taken as done.
    pub fn sync(&mut self, spec: &Spec, inputs: &Inputs<'_>, now: Millis) -> Outcome {
        let current = inputs.spec_replicas;
        self.recommendations.get_or_insert_with(|| vec![(now, current)]);
        let mut outcome = Outcome {
            replicas: current,
            rescaled: false,
            active: Active::Unlooked,
            proposed: None,
            able: None,
            limited: None,
        };
        if current == 0 && spec.min != 0 {
            outcome.active = Active::Disabled;
            return outcome;
        }
        if current > spec.max {
            outcome.replicas = spec.max;
        } else if current < spec.min {
            outcome.replicas = spec.min;
        } else {
            let Some(proposed) = proposals::greatest(spec, inputs, now) else {
                outcome.active = Active::Failed;
                return outcome;
            };
            outcome.active = Active::Valid;
            outcome.proposed = Some(proposed);
            self.normalise(spec, &mut outcome, proposed.max(0), now);
        }
        outcome.rescaled = outcome.replicas != current;
        if outcome.rescaled {
            self.store(&spec.behavior, current, outcome.replicas, now);
        }
        outcome
    }

    /// `normalizeDesiredReplicasWithBehaviors`.
    fn normalise(&mut self, spec: &Spec, outcome: &mut Outcome, proposed: i32, now: Millis) {
        let current = outcome.replicas;
        let stabilized = self.stabilise(&spec.behavior, current, proposed, now);
        if stabilized != proposed {
            outcome.able = Some(if proposed >= current {
                LimitedBy::ScaleUpStabilized
            } else {
                LimitedBy::ScaleDownStabilized
            });
        }
        let (replicas, reason) = limits::convert(spec, current, stabilized, &self.ups, &self.downs, now);
        outcome.replicas = replicas;
        outcome.limited = if replicas == stabilized { None } else { reason };
    }

    /// `stabilizeRecommendationWithBehaviors`: records the proposal as it came, over an entry that no window needs any
    /// more where there is one.
    fn stabilise(&mut self, behavior: &Behavior, current: i32, proposed: i32, now: Millis) -> i32 {
        let up_cutoff = now - behavior.up.stabilization;
        let down_cutoff = now - behavior.down.stabilization;
        let (mut up, mut down, mut old) = (proposed, proposed, None);
        let recommendations = self.recommendations.get_or_insert_default();
        for (i, (at, replicas)) in recommendations.iter().enumerate() {
            if *at > up_cutoff {
                up = up.min(*replicas);
            }
            if *at > down_cutoff {
                down = down.max(*replicas);
            }
            if *at < up_cutoff && *at < down_cutoff {
                old = Some(i);
            }
        }
        match old {
            Some(i) => recommendations[i] = (now, proposed),
            None => recommendations.push((now, proposed)),
        }
        let mut stabilized = current;
        if stabilized < up {
            stabilized = up;
        }
        if stabilized > down {
            stabilized = down;
        }
        stabilized
    }

    /// `storeScaleEvent`. Like the controller it writes over an event that the policies of its own direction need no
    /// more, even where one of the other direction has a longer period.
    fn store(&mut self, behavior: &Behavior, from: i32, to: i32, now: Millis) {
        let (events, rules) =
            if to > from { (&mut self.ups, &behavior.up) } else { (&mut self.downs, &behavior.down) };
        let longest = rules.policies.iter().map(|p| p.period).max().unwrap_or(0);
        let event = Event { at: now, amount: (to - from).abs() };
        match events.iter().rposition(|e| e.at < now - longest) {
            Some(i) => events[i] = event,
            None => events.push(event),
        }
    }
}
