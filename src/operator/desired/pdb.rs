//! The PodDisruptionBudget.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};

use super::{int_or_string, label_selector, metadata};
use crate::operator::validate::ValidatedFleet;

pub(super) fn build(fleet: &ValidatedFleet) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(fleet, fleet.name.as_str()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(int_or_string(&fleet.disruption.max_unavailable)),
            selector: Some(label_selector(fleet)),
            // Else pods that crash in a loop would block node drains.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
