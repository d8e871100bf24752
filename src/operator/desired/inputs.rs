//! Which of the fleet's fields the pod template is made of, as a hash that outlives versions.
//!
//! Only what differs from the default counts. So a field that a later version adds changes no hash as
//! long as nobody sets it; defaults never change within v1alpha1.

use serde_json::{Value, json};

use crate::{
    api::v1alpha1::ServerSpec,
    operator::{
        hash::digest,
        validate::{DRAIN_SECONDS, ValidatedFleet},
    },
};

/// Hash of the fields that pods are made of.
pub(super) fn digest_of(fleet: &ValidatedFleet) -> String {
    let mut server = serde_json::to_value(&fleet.server).unwrap_or_default();
    prune(&mut server, &defaults());
    let inputs = json!({
        "server": server,
        "resources": {"requests": fleet.resources.requests, "limits": fleet.resources.limits},
        "drain": fleet.drain.mode,
        // Not the default that holds: it is another one behind a gateway, and one that is installed later must
        // restart nobody. What is named and yet equal to this default is seen by `deployment::fits`.
        "drainTimeoutSeconds": fleet.drain_seconds_named.unwrap_or(DRAIN_SECONDS),
        "restartedAt": fleet.restarted_at,
    });
    // serde_json sorts the keys of a map, so equal values make equal text.
    digest(inputs.to_string().as_bytes())
}

/// The server of a fleet that names nothing but an image.
fn defaults() -> Value {
    let server: Option<ServerSpec> = serde_json::from_value(json!({"image": ""})).ok();
    server.and_then(|s| serde_json::to_value(s).ok()).unwrap_or_default()
}

/// Removes what equals the default, at every depth.
fn prune(value: &mut Value, default: &Value) {
    let (Value::Object(value), Value::Object(default)) = (value, default) else { return };
    value.retain(|key, child| {
        let Some(default) = default.get(key) else { return true };
        if child == default {
            return false;
        }
        prune(child, default);
        true
    });
    // Resources stand in canonical form beside it.
    value.remove("resources");
    // For the gateway alone; pods are the same with each of its words.
    value.remove("sessions");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::test_support::validated;

    #[test]
    fn spelling_out_a_default_changes_nothing() {
        let short = digest_of(&validated("server: {image: a}"));
        let long = digest_of(&validated(
            "{server: {image: a, port: 8080, resources: {requests: {cpu: 0.25}}, probes: {startup: {type: TCP}}}, rollout: {drain: Await, drainTimeoutSeconds: 60}}",
        ));
        assert_eq!(short, long);
    }

    #[test]
    fn what_is_not_of_the_pod_changes_nothing() {
        let one = digest_of(&validated("{server: {image: a}, replicas: 3}"));
        let two = digest_of(&validated(
            "{server: {image: a, sessions: Stateful}, autoscaling: {maxReplicas: 4}, service: {port: 81}, gateway: {class: other}}",
        ));
        assert_eq!(one, two);
    }

    #[test]
    fn what_is_of_the_pod_changes_it() {
        let base = digest_of(&validated("server: {image: a}"));
        for other in [
            "server: {image: b}",
            "server: {image: a, port: 1}",
            "server: {image: a, probes: {startup: {periodSeconds: 9}}}",
            "server: {image: a, resources: {limits: {cpu: 1}}}",
            "{server: {image: a}, rollout: {drain: Sleep}}",
            "{server: {image: a}, rollout: {drainTimeoutSeconds: 61}}",
        ] {
            assert_ne!(digest_of(&validated(other)), base, "{other}");
        }
    }
}
