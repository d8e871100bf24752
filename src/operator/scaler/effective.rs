//! Who acts on a fleet's decision, in effect: what was asked for, unless the metrics API is somebody else's, or another
//! autoscaler is at work. Pure.

use crate::{
    api::v1alpha1::Actuator as Wanted,
    autoscale::{head_start::HeadStart, snapshot::Actuator},
    operator::{
        scaling::{ApiState, EffectiveActuator},
        validate::Scaling,
    },
};

/// `foreign`: somebody else's autoscaler targets the fleet or its Deployment.
pub fn effective(scaling: &Scaling, foreign: bool, api: &ApiState) -> EffectiveActuator {
    let wanted = match scaling {
        Scaling::Fixed | Scaling::Off(_) => return EffectiveActuator::Off,
        _ if foreign => return EffectiveActuator::Off,
        Scaling::Native(_) => return EffectiveActuator::Native,
        Scaling::Mcp(mcp) => mcp.actuator,
    };
    match (wanted, api) {
        (Wanted::Off, _) => EffectiveActuator::Off,
        // Ours and not reached: the HPA holds, and goes on when it is. Two writers in turn would be worse.
        (Wanted::HPA, ApiState::Serving | ApiState::NotServing(_)) => EffectiveActuator::Hpa,
        (Wanted::HPA, ApiState::OwnedByOther(_) | ApiState::Disabled) | (Wanted::Direct, _) => {
            EffectiveActuator::Direct
        }
    }
}

/// The same as a decision knows it.
pub fn actuator(effective: EffectiveActuator) -> Actuator {
    match effective {
        EffectiveActuator::Hpa => Actuator::Hpa,
        EffectiveActuator::Direct => Actuator::Direct,
        EffectiveActuator::Native | EffectiveActuator::Off => Actuator::Off,
    }
}

/// What to write as `McpFleet.spec.replicas`, if anything. `ours_stands`: the HPA that we generated exists still; it
/// writes 1..N where it is wanted, and has to be gone before we write those steps ourselves.
pub fn write(effective: EffectiveActuator, ours_stands: bool, replicas: i32, desired: i32) -> Option<i32> {
    let may = match effective {
        // An HPA does nothing at 0, and nothing at 1 with a recommendation of 1: there is no race for these steps.
        EffectiveActuator::Hpa => (replicas == 0 && desired > 0) || (replicas == 1 && desired == 0),
        EffectiveActuator::Direct => !ours_stands,
        EffectiveActuator::Native | EffectiveActuator::Off => false,
    };
    (may && desired != replicas && desired >= 0).then_some(desired)
}

/// What is wanted of the Deployment after a decision from N to `desired`, while `spec.replicas` is `spec`. Where we write
/// ourselves, that is what was ahead when we began to, until it is written.
pub fn ahead(
    effective: EffectiveActuator,
    follows: bool,
    spec: i32,
    (n, desired): (i32, i32),
    max: i32,
) -> HeadStart {
    match effective {
        EffectiveActuator::Hpa => HeadStart::decided(follows, spec, n, desired, max),
        EffectiveActuator::Direct => HeadStart::decided(false, spec, n, desired, max),
        EffectiveActuator::Native | EffectiveActuator::Off => HeadStart { over: spec, replicas: spec },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::test_support::served;

    fn scaling(spec: &str) -> Scaling {
        served(&format!("{{server: {{image: a}}, autoscaling: {spec}}}")).scaling
    }

    #[test]
    fn what_was_asked_for_as_far_as_it_can_be() {
        use ApiState::{Disabled, NotServing, OwnedByOther, Serving};
        use EffectiveActuator::{Direct, Hpa, Native, Off};
        let other = || OwnedByOther(vec!["monitoring/prometheus-adapter".into()]);
        for (spec, foreign, api, expected) in [
            ("{}", false, Serving, Hpa),
            ("{}", false, NotServing("not yet".into()), Hpa),
            ("{}", false, other(), Direct),
            ("{}", false, Disabled, Direct),
            ("{}", true, Serving, Off),
            ("{actuator: Direct}", false, Serving, Direct),
            ("{actuator: Direct}", true, Disabled, Off),
            ("{actuator: Off}", false, Serving, Off),
            ("{metrics: {cpu: {}}}", false, other(), Native),
            ("{metrics: {cpu: {}}}", true, Serving, Off),
        ] {
            assert_eq!(effective(&scaling(spec), foreign, &api), expected, "{spec} {foreign} {api:?}");
        }
        assert_eq!(effective(&Scaling::Fixed, false, &Serving), Off);
    }

    #[test]
    fn only_an_hpa_is_gone_ahead_of() {
        use EffectiveActuator::{Direct, Hpa, Native, Off};
        for (effective, n, desired, deployed) in [
            (Hpa, 2, 5, 5),
            (Hpa, 5, 7, 7),
            (Direct, 2, 5, 2),
            (Direct, 5, 7, 5),
            (Native, 5, 7, 2),
            (Off, 5, 7, 2),
        ] {
            let ahead = ahead(effective, true, 2, (n, desired), 10);
            assert_eq!(HeadStart::replicas(Some(ahead), 2), deployed, "{effective:?} {n} {desired}");
        }
    }

    #[test]
    fn beside_an_hpa_only_the_steps_from_and_to_zero_are_ours() {
        use EffectiveActuator::{Direct, Hpa, Native, Off};
        for (effective, stands, replicas, desired, written) in [
            (Hpa, true, 0, 3, Some(3)),
            (Hpa, true, 1, 0, Some(0)),
            (Hpa, true, 2, 0, None),
            (Hpa, true, 2, 5, None),
            (Hpa, true, 1, 1, None),
            (Direct, false, 2, 5, Some(5)),
            (Direct, false, 2, 0, Some(0)),
            (Direct, false, 2, 2, None),
            (Direct, true, 2, 5, None),
            (Direct, false, 2, -1, None),
            (Native, true, 0, 1, None),
            (Off, false, 2, 5, None),
        ] {
            assert_eq!(
                write(effective, stands, replicas, desired),
                written,
                "{effective:?} {replicas} → {desired}"
            );
        }
    }
}
