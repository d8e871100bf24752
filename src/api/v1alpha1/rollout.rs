//! `spec.rollout` and `spec.disruption`: how pods are replaced and taken.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IntOrPercent;

/// How a pod that ends waits for its running calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Drain {
    /// A small helper in the pod waits until nobody holds a connection to the server's port: an empty
    /// pod ends within seconds, a busy one when it is done.
    #[default]
    Await,
    /// The kubelet waits for the whole drain time. Nothing is put into the pod.
    Sleep,
    /// The server gets SIGTERM at once.
    None,
}

/// How pods are replaced, and how a pod that ends is drained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    cel,
    validation = Rule::new("!(string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])").message("rollout.maxSurge and rollout.maxUnavailable must not both be 0: no pod could ever be replaced")
)]
pub struct RolloutSpec {
    /// How many pods more than asked for may run during a rollout.
    #[serde(default = "default_max_surge")]
    pub max_surge: IntOrPercent,
    /// How many pods fewer than asked for may serve during a rollout.
    #[serde(default = "default_max_unavailable")]
    pub max_unavailable: IntOrPercent,
    /// `Await` (until the last connection closes), `Sleep` (the whole drain time) or `None`.
    #[serde(default)]
    pub drain: Drain,
    /// How long a pod that ends may wait for its running calls, in seconds. Defaults to 300 behind the
    /// gateway, which holds a pod only as long as there is work, and to 60 without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 86400))]
    pub drain_timeout_seconds: Option<i32>,
    /// Seconds without progress after which a rollout counts as stuck. The old pods serve on.
    #[serde(default = "default_progress_deadline")]
    #[schemars(range(min = 30, max = 86400))]
    pub progress_deadline_seconds: i32,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            max_surge: default_max_surge(),
            max_unavailable: default_max_unavailable(),
            drain: Drain::default(),
            drain_timeout_seconds: None,
            progress_deadline_seconds: default_progress_deadline(),
        }
    }
}

/// How many pods a voluntary disruption may take at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionSpec {
    /// A number or a percentage of the replicas.
    #[serde(default = "default_disruption")]
    pub max_unavailable: IntOrPercent,
}

impl Default for DisruptionSpec {
    fn default() -> Self {
        Self { max_unavailable: default_disruption() }
    }
}

fn default_max_surge() -> IntOrPercent {
    IntOrPercent::Percent("25%".into())
}

fn default_max_unavailable() -> IntOrPercent {
    IntOrPercent::Int(0)
}

fn default_progress_deadline() -> i32 {
    600
}

fn default_disruption() -> IntOrPercent {
    IntOrPercent::Int(1)
}
