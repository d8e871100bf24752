//! What an earlier process, or the leader, left in `status.autoscaling`. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::{
    api::v1alpha1::AutoscalingStatus,
    autoscale::state::{MAX_RING, Persisted},
};

/// Reads it. Of a ring that is too long the newest entries count.
pub fn persisted(status: &AutoscalingStatus) -> Persisted {
    let ms = |time: &MicroTime| time.0.as_millisecond();
    let newest = |len: usize| len.saturating_sub(MAX_RING);
    let recommendations = &status.recommendations;
    let events = &status.scale_events;
    Persisted {
        replicas: status.current_replicas,
        last_up: status.last_scale_up_time.as_ref().map(ms),
        last_down: status.last_scale_down_time.as_ref().map(ms),
        baseline_hold_ms: status.baseline_hold_time_ms,
        recommendations: recommendations[newest(recommendations.len())..]
            .iter()
            .map(|r| (ms(&r.time), r.min, r.max))
            .collect(),
        scale_events: events[newest(events.len())..].iter().map(|e| (ms(&e.time), e.change)).collect(),
    }
}
