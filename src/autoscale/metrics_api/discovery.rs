//! What the API says of itself, from memory. Pure.
//!
//! The aggregator asks for aggregated discovery first and takes the legacy form that is written here
//! (`kube-aggregator pkg/apiserver/handler_discovery.go`). OpenAPI documents must exist: a 404 makes its controller
//! log an error and try again for ever (`pkg/controllers/openapi`, 1.36), so they are valid and empty.

use serde_json::{Value, json};

/// The group.
pub(super) const GROUP: &str = "custom.metrics.k8s.io";
/// The version that is served.
pub(super) const VERSION: &str = "v1beta2";
/// How fleets are called in its paths.
pub(super) const RESOURCE: &str = "mcpfleets.mcpfleet.io";
/// The metrics.
pub(super) const METRICS: [&str; 2] = [DESIRED, UTILIZATION];
/// What the fleet should have, a whole number.
pub(super) const DESIRED: &str = "mcp_desired_replicas";
/// Demand over scale; 1 is at target.
pub(super) const UTILIZATION: &str = "mcp_utilization";

/// What a path of discovery answers; `None`: it is none of them.
pub(super) fn document(path: &str) -> Option<Value> {
    let path = path.strip_suffix('/').unwrap_or(path);
    match path {
        "/apis" => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})),
        "/apis/custom.metrics.k8s.io" => {
            let mut group = group();
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            Some(group)
        }
        "/apis/custom.metrics.k8s.io/v1beta2" => Some(resources()),
        "/openapi/v2" => Some(json!({
            "swagger": "2.0",
            "info": {"title": "McpFleet metrics", "version": env!("CARGO_PKG_VERSION")},
            "paths": {},
        })),
        "/openapi/v3" => Some(json!({"paths": {}})),
        "/version" => Some(json!({"gitVersion": concat!("v", env!("CARGO_PKG_VERSION"))})),
        _ => None,
    }
}

fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

fn resources() -> Value {
    let resources = METRICS.map(|metric| {
        json!({
            "name": format!("{RESOURCE}/{metric}"),
            "singularName": "",
            "namespaced": true,
            "kind": "MetricValueList",
            "verbs": ["get"],
        })
    });
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": resources,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIGroupList, APIResourceList};

    #[test]
    fn documents_are_what_clients_read() {
        let read = |path| document(path).unwrap();
        let groups: APIGroupList = serde_json::from_value(read("/apis")).unwrap();
        let group: APIGroup = serde_json::from_value(read("/apis/custom.metrics.k8s.io")).unwrap();
        assert_eq!(groups.groups[0].name, group.name);
        assert_eq!(group.preferred_version.as_ref().unwrap().group_version, "custom.metrics.k8s.io/v1beta2");
        assert_eq!(group.versions, [group.preferred_version.unwrap()]);
        let list: APIResourceList =
            serde_json::from_value(read("/apis/custom.metrics.k8s.io/v1beta2/")).unwrap();
        let names: Vec<&str> = list.resources.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(
            names,
            ["mcpfleets.mcpfleet.io/mcp_desired_replicas", "mcpfleets.mcpfleet.io/mcp_utilization"]
        );
        assert!(list.resources.iter().all(|r| r.namespaced && r.kind == "MetricValueList"));
        assert!(document("/openapi/v2").is_some() && document("/openapi/v3").is_some());
        for path in ["", "/", "/api", "/apis/custom.metrics.k8s.io/v1beta1", "/apis/other"] {
            assert_eq!(document(path), None, "{path}");
        }
    }
}
