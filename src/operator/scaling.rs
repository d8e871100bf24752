//! What the scaler knows of a fleet, as passes and the status need it. Pure.

pub use crate::autoscale::metrics_api::ApiState;

use crate::autoscale::{decision::Decision, head_start::HeadStart, state::Persisted};

/// Who acts on a fleet's decision, in effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EffectiveActuator {
    /// A generated HPA that reads our metrics API.
    Hpa,
    /// A generated HPA on CPU and memory alone, without us.
    Native,
    /// The operator itself.
    Direct,
    /// Nobody of ours.
    #[default]
    Off,
}

impl EffectiveActuator {
    /// The word in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hpa | Self::Native => "HPA",
            Self::Direct => "Direct",
            Self::Off => "Off",
        }
    }
}

/// What the scaler knows of a fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    /// The newest decision.
    pub decision: Decision,
    /// The last decision at another N, where it asked for a change: what led to this N.
    pub cause: Option<Decision>,
    /// What another process would need.
    pub persisted: Persisted,
    /// Who acts.
    pub effective: EffectiveActuator,
    /// N at the decision.
    pub replicas: i32,
    /// What the Deployment gets before `spec.replicas` says so.
    pub ahead: Option<HeadStart>,
    /// The HPA has not followed it for longer than several looks take.
    pub unfollowed: bool,
    /// When it was decided, in ms since the Unix epoch.
    pub at: i64,
    /// The end of the rest after a change, in ms since the Unix epoch, while it lasts.
    pub cooldown_until: Option<i64>,
}
