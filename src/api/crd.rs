//! The CustomResourceDefinition as it is committed and served: derived from the types, then made small
//! and strict.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value};

use super::v1alpha1::McpFleet;

/// Fields that embed Kubernetes' own types: their prose is most of a CRD's bytes, and `kubectl explain`
/// shows it on the pod.
const EMBEDDED: [&str; 1] = ["affinity"];

/// The definition of `McpFleet`.
///
/// # Panics
/// Never: the derived definition is JSON, and a test renders it.
pub fn mcpfleet_crd() -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(McpFleet::crd()).expect("a derived CRD is JSON");
    tidy(&mut crd);
    serde_json::from_value(crd).expect("a tidied CRD is a CRD")
}

/// As YAML with a head that says where it comes from.
///
/// # Panics
/// Never, as [`mcpfleet_crd`].
pub fn mcpfleet_crd_yaml() -> String {
    let yaml = serde_saphyr::to_string(&mcpfleet_crd()).expect("a CRD is YAML");
    format!("# Generated from src/api by `mcp-fleet crds`; do not edit.\n{yaml}")
}

/// Removes what the derive adds and Kubernetes does not want: `nullable` (an explicit `null` would be
/// stored and not defaulted), the `null` among enum values, `format`s that the API server does not know,
/// and prose below embedded types.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            tidy_schema(map);
            for (key, child) in map.iter_mut() {
                if EMBEDDED.contains(&key.as_str()) {
                    strip_prose(child);
                }
                tidy(child);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn tidy_schema(map: &mut Map<String, Value>) {
    if map.get("nullable").is_some_and(Value::is_boolean) {
        map.remove("nullable");
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
    // Doc comments are wrapped for the editor; `kubectl explain` wraps by itself.
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.replace("\n\n", "\u{0}").replace('\n', " ").replace('\u{0}', "\n\n").replace('`', "");
    }
}

fn strip_prose(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let own = map.get("description").cloned();
            map.values_mut().for_each(strip_all);
            if let Some(own) = own {
                map.insert("description".into(), own);
            }
        }
        other => strip_all(other),
    }
}

fn strip_all(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("description").is_some_and(Value::is_string) {
                map.remove("description");
            }
            map.values_mut().for_each(strip_all);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_all),
        _ => {}
    }
}
