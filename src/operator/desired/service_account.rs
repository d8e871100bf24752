//! A ServiceAccount without rights and without a token in the pod.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::operator::validate::ValidatedFleet;

pub(super) fn build(fleet: &ValidatedFleet) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(fleet, fleet.name.service_account()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
