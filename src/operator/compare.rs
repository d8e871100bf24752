//! Does a live object still carry everything that we want of it? Pure.
//!
//! The live object has more than we applied: defaults, other managers' fields, injected sidecars. So each
//! wanted field must be there with its value, and what else is there does not count. Lists that the API
//! server merges by a key are compared by that key; other lists belong to one owner and must be equal in
//! length.

use serde_json::Value;

/// Lists that are merged by key on the objects that we generate (`x-kubernetes-list-map-keys`).
fn merge_keys(field: &str) -> Option<&'static [&'static str]> {
    Some(match field {
        "containers" | "initContainers" | "volumes" | "env" | "imagePullSecrets" => &["name"],
        "volumeMounts" => &["mountPath"],
        "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
        "ownerReferences" => &["uid"],
        // A container's ports; a Service's are keyed by `port`, which containers' lack.
        "ports" => &["containerPort", "port", "protocol"],
        _ => return None,
    })
}

/// Fields that older API servers, or those without the feature, drop on the way in: missing them for ever would write
/// for ever. `tolerance` of an HPA: gate `HPAConfigurableTolerance`, alpha in 1.33.
const MAY_BE_DROPPED: [&str; 1] = ["tolerance"];

/// The first wanted field that the live object lacks or has otherwise, as a path such as
/// `spec.ports[0].port`. `None`: nothing to write.
///
/// `apiVersion` and `kind` do not count: the items of a list come without them.
pub fn first_difference(wanted: &Value, live: &Value) -> Option<String> {
    let Value::Object(fields) = wanted else { return difference("", wanted, live) };
    let typeless = fields.iter().filter(|(key, _)| !["apiVersion", "kind"].contains(&key.as_str()));
    let typeless = typeless.map(|(key, value)| (key.clone(), value.clone())).collect();
    difference("", &Value::Object(typeless), live)
}

fn difference(field: &str, wanted: &Value, live: &Value) -> Option<String> {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().find_map(|(key, wanted)| {
            // What serialises to nothing is not sent either.
            if wanted.is_null() {
                return None;
            }
            let inner = match live.get(key) {
                Some(live) => difference(key, wanted, live),
                None if is_empty(wanted) || MAY_BE_DROPPED.contains(&key.as_str()) => None,
                None => Some(String::new()),
            };
            inner.map(|rest| join(key, &rest))
        }),
        (Value::Array(wanted), Value::Array(live)) => match merge_keys(field) {
            Some(keys) => by_key(keys, wanted, live),
            None if wanted.len() != live.len() => Some(String::new()),
            None => wanted.iter().zip(live).enumerate().find_map(|(i, (wanted, live))| {
                difference("", wanted, live).map(|rest| join(&format!("[{i}]"), &rest))
            }),
        },
        _ => (wanted != live).then(String::new),
    }
}

fn by_key(keys: &[&str], wanted: &[Value], live: &[Value]) -> Option<String> {
    wanted.iter().enumerate().find_map(|(i, wanted)| {
        let same =
            |live: &&Value| keys.iter().all(|k| wanted.get(k).is_none() || wanted.get(k) == live.get(k));
        let rest = match live.iter().find(same) {
            Some(live) => difference("", wanted, live),
            None => Some(String::new()),
        };
        rest.map(|rest| join(&format!("[{i}]"), &rest))
    })
}

/// The API server drops empty maps and lists.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        Value::Null => true,
        _ => false,
    }
}

fn join(head: &str, rest: &str) -> String {
    match rest {
        "" => head.to_owned(),
        rest if rest.starts_with('[') => format!("{head}{rest}"),
        rest => format!("{head}.{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn diff(wanted: &Value, live: &Value) -> Option<String> {
        first_difference(wanted, live)
    }

    #[test]
    fn foreign_fields_and_items_do_not_count() {
        let wanted = json!({"spec": {"containers": [{"name": "server", "image": "a"}]}});
        let live = json!({"spec": {"containers": [{"name": "mesh"}, {"name": "server", "image": "a", "tty": true}], "x": 1}});
        assert_eq!(diff(&wanted, &live), None);
    }

    #[test]
    fn items_of_a_list_come_without_their_type() {
        let wanted =
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"scaleTargetRef": {"kind": "A"}}});
        assert_eq!(diff(&wanted, &json!({"spec": {"scaleTargetRef": {"kind": "A"}}})), None);
        assert!(diff(&wanted, &json!({"spec": {"scaleTargetRef": {"kind": "B"}}})).is_some());
    }

    #[test]
    fn a_changed_or_missing_field_is_named() {
        for (wanted, live, path) in [
            (json!({"a": {"b": 1}}), json!({"a": {"b": 2}}), "a.b"),
            (json!({"a": {"b": 1}}), json!({"a": {}}), "a.b"),
            (json!({"env": [{"name": "A", "value": "1"}]}), json!({"env": [{"name": "B"}]}), "env[0]"),
            (json!({"env": [{"name": "A", "value": "1"}]}), json!({"env": [{"name": "A"}]}), "env[0].value"),
            (json!({"command": ["a"]}), json!({"command": ["a", "b"]}), "command"),
            (
                json!({"ports": [{"port": 80, "targetPort": "http"}]}),
                json!({"ports": [{"port": 80, "targetPort": 9}]}),
                "ports[0].targetPort",
            ),
        ] {
            assert_eq!(diff(&wanted, &live).as_deref(), Some(path), "{wanted} / {live}");
        }
    }

    #[test]
    fn what_the_api_server_drops_is_not_missed() {
        assert_eq!(diff(&json!({"a": {"b": {}}, "c": [], "d": null}), &json!({})), None);
        assert_eq!(diff(&json!({"emptyDir": {}}), &json!({"emptyDir": {}})), None);
    }

    #[test]
    fn what_servers_without_the_feature_drop_is_not_missed_and_another_value_is_seen() {
        let wanted = json!({"behavior": {"scaleUp": {"tolerance": "0", "selectPolicy": "Max"}}});
        assert_eq!(diff(&wanted, &json!({"behavior": {"scaleUp": {"selectPolicy": "Max"}}})), None);
        let other = json!({"behavior": {"scaleUp": {"tolerance": "100m", "selectPolicy": "Max"}}});
        assert_eq!(diff(&wanted, &other).as_deref(), Some("behavior.scaleUp.tolerance"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_object_has_all_of_itself(value in any_json()) {
            prop_assert_eq!(diff(&value, &value), None);
        }
    }
}
