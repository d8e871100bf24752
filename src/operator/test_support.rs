//! Fixtures of the unit tests: tiny YAML through the real validation.

use kube::api::ObjectMeta;

use super::{
    gateway::Install,
    scaling::{EffectiveActuator, Scaled},
    validate::{ValidatedFleet, validate},
};
use crate::{
    api::v1alpha1::{McpFleet, McpFleetSpec},
    autoscale::{
        decision::{Decision, Guard, LimitedBy, Reason, Signal, Term},
        state::Persisted,
    },
};

/// A fleet called `weather` in the namespace `tools`; deliberately not a name of the product.
pub(crate) fn fleet(spec: &str) -> McpFleet {
    let spec: McpFleetSpec = serde_saphyr::from_str(spec).expect("test YAML");
    McpFleet {
        metadata: ObjectMeta {
            name: Some("weather".into()),
            namespace: Some("tools".into()),
            uid: Some("uid-1".into()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// The same, validated.
pub(crate) fn validated(spec: &str) -> ValidatedFleet {
    validate(&fleet(spec)).expect("a valid test fleet")
}

/// The same behind a gateway whose pods are in the namespace `gates`.
pub(crate) fn served(spec: &str) -> ValidatedFleet {
    let install = Install::new("http://gate.example.com", "gates".into(), vec!["default".into()]);
    Install::bind(install.ok().as_ref(), validated(spec))
}

/// A decision: 6 replicas, 7 are wanted, by an HPA.
pub(crate) fn scaled() -> Scaled {
    let term = |signal, total, target, demand, missing| Term {
        signal,
        total,
        target,
        demand,
        window: 60_000,
        missing,
    };
    Scaled {
        decision: Decision {
            recommended: Some(7),
            desired: 6,
            demand: Some(6.67),
            utilization: Some(1.12),
            reason: Reason::ScaleUp,
            limited_by: Some(LimitedBy::LatencyGuard),
            terms: vec![term(Signal::Concurrency, 93.4, 14.0, 6.67, 0), term(Signal::Cpu, 0.37, 0.7, 2.1, 1)],
            guards: vec![Guard::Latency],
            hold_until: None,
        },
        cause: None,
        persisted: Persisted {
            replicas: Some(6),
            last_up: Some(90_000_000),
            last_down: None,
            baseline_hold_ms: Some(250),
            recommendations: vec![(99_000_000, 5, 7)],
            scale_events: vec![(90_000_000, 2)],
        },
        effective: EffectiveActuator::Hpa,
        replicas: 6,
        ahead: None,
        unfollowed: false,
        at: 99_000_000,
        cooldown_until: Some(100_000_001),
    }
}
