//! Metrics → proposals: `computeReplicasForMetrics` and the replica calculator (autoscaling.md section 6.2).

use super::{
    Inputs, Metric, Sample, Spec,
    pods::{self, Kind},
};
use crate::autoscale::time::Millis;

/// The greatest proposal. `None` where all failed, or where some failed and the others ask for fewer than there are.
pub(super) fn greatest(spec: &Spec, inputs: &Inputs<'_>, now: Millis) -> Option<i32> {
    let proposals: Vec<Option<i32>> = spec
        .metrics
        .iter()
        .enumerate()
        .map(|(i, metric)| one(spec, *metric, inputs.samples.get(i)?, inputs, now))
        .collect();
    let greatest = proposals.iter().flatten().copied().max()?;
    let some_failed = proposals.iter().any(Option::is_none);
    (!some_failed || greatest >= inputs.spec_replicas).then_some(greatest)
}

fn one(spec: &Spec, metric: Metric, sample: &Sample, inputs: &Inputs<'_>, now: Millis) -> Option<i32> {
    match (metric, sample) {
        (Metric::AverageValue(target), Sample::Object(value)) => {
            let (value, target) = (*value as f64, target as f64);
            // From status, not from spec: inside the tolerance that is what is proposed.
            let ratio = value / (target * f64::from(inputs.status_replicas));
            Some(if within(spec, ratio) { inputs.status_replicas } else { (value / target).ceil() as i32 })
        }
        (Metric::Value(target), Sample::Object(value)) => {
            let ratio = *value as f64 / target as f64;
            Some(if inputs.spec_replicas == 0 {
                ratio.ceil() as i32
            } else if within(spec, ratio) {
                inputs.spec_replicas
            } else {
                (ratio * f64::from(pods::ready(inputs.pods))).ceil() as i32
            })
        }
        (Metric::Pods(target), Sample::Pods(values)) => {
            by_pods(spec, Kind::Plain(target), values, inputs, now)
        }
        (Metric::Cpu(percent), Sample::Pods(values)) => {
            by_pods(spec, Kind::Cpu(percent), values, inputs, now)
        }
        (Metric::Resource(percent), Sample::Pods(values)) => {
            by_pods(spec, Kind::Resource(percent), values, inputs, now)
        }
        _ => None,
    }
}

fn by_pods(
    spec: &Spec,
    kind: Kind,
    values: &[Option<super::PodMetric>],
    inputs: &Inputs<'_>,
    now: Millis,
) -> Option<i32> {
    let current = inputs.spec_replicas;
    let mut groups = pods::group(inputs.pods, values, kind, now);
    let ratio = groups.ratio(kind)?;
    let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        return Some(if within(spec, ratio) {
            current
        } else {
            (ratio * groups.measured.len() as f64).ceil() as i32
        });
    }
    if ratio < 1.0 {
        groups.count_missing_as_busy(kind);
    } else if ratio > 1.0 || matches!(kind, Kind::Plain(_)) {
        groups.count_missing_as_idle();
    }
    if up_with_unready {
        groups.count_unready_as_idle();
    }
    let again = groups.ratio(kind)?;
    let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
    if within(spec, again) || turned {
        return Some(current);
    }
    let proposed = (again * groups.measured.len() as f64).ceil() as i32;
    let reversed = (again < 1.0 && proposed > current) || (again > 1.0 && proposed < current);
    Some(if reversed { current } else { proposed })
}

/// No change for a ratio so close to 1.
fn within(spec: &Spec, ratio: f64) -> bool {
    1.0 - spec.tolerance_down <= ratio && ratio <= 1.0 + spec.tolerance_up
}
