//! The kinds of object that the operator generates, in one table.

use kube::core::{ApiResource, GroupVersionKind};

use crate::domain::FleetName;

/// A generated kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChildKind {
    /// `v1` ServiceAccount.
    ServiceAccount,
    /// `v1` Service.
    Service,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy/v1` PodDisruptionBudget.
    PodDisruptionBudget,
    /// `apps/v1` Deployment.
    Deployment,
    /// `autoscaling/v2` HorizontalPodAutoscaler.
    HorizontalPodAutoscaler,
}

impl ChildKind {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 6] = [
        Self::ServiceAccount,
        Self::Service,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
    ];

    /// Name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Service => "Service",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Deployment => "Deployment",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
        }
    }

    /// Group, version and plural, as the client needs them.
    pub fn api_resource(self) -> ApiResource {
        let (group, version, plural) = match self {
            Self::ServiceAccount => ("", "v1", "serviceaccounts"),
            Self::Service => ("", "v1", "services"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "networkpolicies"),
            Self::PodDisruptionBudget => ("policy", "v1", "poddisruptionbudgets"),
            Self::Deployment => ("apps", "v1", "deployments"),
            Self::HorizontalPodAutoscaler => ("autoscaling", "v2", "horizontalpodautoscalers"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.as_str()), plural)
    }

    /// Whether a child of this kind of that fleet may have this name.
    pub fn is_name_of(self, fleet: &FleetName, name: &str) -> bool {
        match self {
            Self::ServiceAccount => name == fleet.service_account(),
            Self::Service => name == fleet.as_str() || name == fleet.headless(),
            Self::NetworkPolicy
            | Self::PodDisruptionBudget
            | Self::Deployment
            | Self::HorizontalPodAutoscaler => name == fleet.as_str(),
        }
    }

    /// Whether its `status` matters to us; else it is not kept in memory.
    pub fn keeps_status(self) -> bool {
        matches!(self, Self::Deployment | Self::HorizontalPodAutoscaler)
    }
}

impl std::fmt::Display for ChildKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
