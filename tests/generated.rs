//! What is generated and committed must be what the code generates now; what is written by hand must fit it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test program")]

use std::{collections::BTreeSet, fs, path::Path};

use mcp_fleet::{
    api::{crd, v1alpha1::McpFleet},
    operator::{children::ChildKind, validate::validate},
};
use serde_json::{Value, json};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn documents(text: &str) -> Vec<Value> {
    text.split("\n---")
        .map(|d| serde_saphyr::from_str::<Value>(d).unwrap_or_else(|e| panic!("{e}: {d}")))
        .filter(Value::is_object)
        .collect()
}

fn samples() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/samples");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"));
    let all: Vec<_> = files
        .flat_map(|p| {
            let name = p.file_name().unwrap().to_str().unwrap().to_owned();
            documents(&fs::read_to_string(&p).unwrap()).into_iter().map(move |d| (name.clone(), d))
        })
        .filter(|(_, d)| d["kind"] == "McpFleet")
        .collect();
    assert!(all.len() >= 5, "the samples are gone");
    all
}

#[test]
fn the_committed_crd_is_the_generated_one() {
    let committed = read("crds/mcpfleets.yaml");
    assert!(committed == crd::mcpfleet_crd_yaml(), "crds/mcpfleets.yaml is out of date: run make generate");
}

#[test]
fn copies_of_the_crd_are_the_same_object() {
    let truth = serde_json::to_value(crd::mcpfleet_crd()).unwrap();
    for path in ["charts/mcp-fleet/files/crds/mcpfleets.yaml", "deploy/crd.yaml"] {
        let copy = documents(&read(path)).into_iter().next().unwrap();
        assert!(copy["spec"] == truth["spec"], "{path} is out of date: run make generate");
    }
}

/// Client-side `kubectl apply` keeps the whole object in an annotation of at most 262,144 bytes.
#[test]
fn the_crd_is_small_enough_for_kubectl_apply() {
    let bytes = serde_json::to_vec(&crd::mcpfleet_crd()).unwrap().len();
    assert!(bytes < 131_072, "{bytes} bytes; half of what kubectl apply takes");
}

#[test]
fn the_crd_has_no_formats_that_the_api_server_does_not_know() {
    let text = serde_json::to_string(&crd::mcpfleet_crd()).unwrap();
    for word in ["\"uint", "\"nullable\"", "\"enum\":[null", "preserve-unknown-fields"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn every_field_of_ours_is_documented() {
    fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if child["description"].as_str().is_none_or(str::is_empty) {
                missing.push(path.clone());
            }
            if name != "affinity" && name != "conditions" {
                walk(&path, child, missing);
                walk(&format!("{path}[]"), &child["items"], missing);
            }
        }
    }
    let crd = serde_json::to_value(crd::mcpfleet_crd()).unwrap();
    let mut missing = Vec::new();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    walk("spec", &schema["properties"]["spec"], &mut missing);
    walk("status", &schema["properties"]["status"], &mut missing);
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn samples_are_valid_and_leave_the_scale_to_the_autoscaler() {
    for (file, sample) in samples() {
        let mut fleet: McpFleet =
            serde_json::from_value(sample.clone()).unwrap_or_else(|e| panic!("{file}: {e}"));
        fleet.validate_cel().unwrap_or_else(|e| panic!("{file}: {e:?}"));
        fleet.metadata.namespace.get_or_insert("default".into());
        fleet.metadata.uid = Some("u".into());
        fleet.metadata.generation = Some(1);
        validate(&fleet).unwrap_or_else(|e| panic!("{file}: {e}"));
        let scaled = !sample["spec"]["autoscaling"].is_null();
        assert!(
            !scaled || sample["spec"]["replicas"].is_null(),
            "{file}: replicas would reset the scale at each apply"
        );
        // What a typo would lose: every field of the file must come back out of the types.
        let known = serde_json::to_value(&fleet).unwrap();
        assert_eq!(unknown("spec", &sample["spec"], &known["spec"]), Vec::<String>::new(), "{file}");
    }
}

fn unknown(path: &str, given: &Value, known: &Value) -> Vec<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given
            .iter()
            .flat_map(|(k, v)| match known.get(k) {
                None if v.as_object().is_some_and(serde_json::Map::is_empty) => Vec::new(),
                None => vec![format!("{path}.{k}")],
                Some(inner) => unknown(&format!("{path}.{k}"), v, inner),
            })
            .collect(),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .flat_map(|(i, (g, k))| unknown(&format!("{path}[{i}]"), g, k))
            .collect(),
        _ => Vec::new(),
    }
}

/// Rights: every generated kind can be managed, and nothing that the product promises not to touch is there.
#[test]
fn rights_cover_the_children_and_nothing_forbidden() {
    let rules: Vec<Value> = documents(&read("deploy/operator.yaml"))
        .into_iter()
        .filter(|d| {
            (d["kind"] == "ClusterRole" || d["kind"] == "Role")
                && d["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"].is_null()
        })
        .flat_map(|d| d["rules"].as_array().cloned().unwrap_or_default())
        .collect();
    let texts = |rule: &Value, field: &str| -> BTreeSet<String> {
        rule[field].as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect()
    };
    for rule in &rules {
        for field in ["verbs", "resources", "apiGroups"] {
            assert!(!texts(rule, field).contains("*"), "a wildcard: {rule}");
        }
        for forbidden in ["secrets", "roles", "rolebindings", "clusterroles", "pods/exec", "pods/attach"] {
            assert!(!texts(rule, "resources").contains(forbidden), "{forbidden}: {rule}");
        }
        // One ConfigMap, with certificates of our own; one API registration, our own.
        for (resource, own) in
            [("configmaps", "mcp-fleet-operator-ca"), ("apiservices", "v1beta2.custom.metrics.k8s.io")]
        {
            let limited = texts(rule, "resourceNames") == BTreeSet::from([own.to_owned()]);
            let harmless: BTreeSet<String> = match resource {
                "configmaps" => BTreeSet::from(["create".into()]),
                _ => ["create", "list", "watch"].map(Into::into).into(),
            };
            let open = texts(rule, "verbs").is_subset(&harmless);
            assert!(!texts(rule, "resources").contains(resource) || limited || open, "{resource}: {rule}");
        }
    }
    for kind in ChildKind::ALL {
        let resource = kind.api_resource();
        for verb in ["get", "list", "watch", "create", "patch", "delete"] {
            let granted = rules.iter().any(|r| {
                texts(r, "apiGroups").contains(&resource.group)
                    && texts(r, "resources").contains(&resource.plural)
                    && texts(r, "verbs").contains(verb)
            });
            assert!(granted, "{verb} {}", resource.plural);
        }
    }
}

/// The gateway reads fleets and addresses, and nothing else; it writes nothing.
#[test]
fn the_gateway_may_only_read() {
    let all = documents(&read("deploy/gateway.yaml"));
    let rules: Vec<&Value> = all
        .iter()
        .filter(|d| d["kind"] == "ClusterRole" || d["kind"] == "Role")
        .flat_map(|d| d["rules"].as_array().into_iter().flatten())
        .collect();
    let words = |field: &str| -> BTreeSet<&str> {
        rules
            .iter()
            .flat_map(|r| r[field].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect()
    };
    assert_eq!(words("resources"), BTreeSet::from(["configmaps", "endpointslices", "mcpfleets"]));
    let of_maps: Vec<_> = rules.iter().filter(|r| r["resources"] == json!(["configmaps"])).collect();
    assert_eq!(of_maps.len(), 1, "a rule for ConfigMaps alone");
    assert_eq!(of_maps[0]["resourceNames"], json!(["mcp-fleet-operator-ca"]), "one, by its name");
    assert_eq!(words("verbs"), BTreeSet::from(["get", "list", "watch"]));
    assert!(all.iter().all(|d| d["kind"] != "Secret"), "a committed key is everybody's key");
}

/// A dashboard of metrics that nobody counts shows nothing, and nobody notices.
#[test]
fn what_dashboards_and_docs_name_is_measured() {
    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, text);
            } else {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut code = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    let mut n_names = 0;
    for file in ["docs/dashboards/autoscaling.json", "docs/dashboards/alerts.yaml", "docs/autoscaling.md"] {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|w| w.starts_with("mcp_")).collect::<BTreeSet<_>>() {
            let base = ["_total", "_bucket"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
            // Registries add these.
            let prefixes = ["mcp_fleet_gateway_", "mcp_fleet_operator_api_", "mcp_fleet_operator_", ""];
            let known = prefixes
                .iter()
                .filter_map(|prefix| base.strip_prefix(prefix))
                .any(|rest| code.contains(&format!("\"{rest}\"")));
            assert!(known, "{file}: {name}");
            n_names += 1;
        }
    }
    assert!(n_names > 20, "{n_names}");
}
