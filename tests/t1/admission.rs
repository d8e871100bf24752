//! What the API server accepts, refuses and fills in, and what `kubectl` shows of it.

use std::sync::Arc;

use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
};
use libtest_mimic::Failed;
use mcp_fleet::api::{names, v1alpha1::McpFleet};
use serde_json::{Value, json};

use crate::{
    admission_table::{BAD, BAD_NAMES, GOOD, GOOD_NAMES},
    common,
    samples::{self, FULL, MINIMAL, parse},
    schema,
    support::{Suite, TestResult, wait},
};

/// Fields that cannot stand beside those of [`FULL`].
const BESIDE: &str =
    "{server: {image: a}, service: {type: LoadBalancer, nodePort: 30999, loadBalancerClass: example.com/lb}}";

/// Creates for show; the error's message where it is refused as invalid.
async fn refusal(
    client: &Client,
    namespace: &str,
    name: &str,
    spec: Value,
) -> Result<Option<String>, Failed> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<McpFleet>(&()));
    let object = json!({"apiVersion": names::API_VERSION, "kind": names::KIND, "metadata": {"name": name}, "spec": spec});
    let params = PostParams { dry_run: true, field_manager: None };
    match api.create(&params, &serde_json::from_value(object)?).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(Some(status.message.clone())),
        Err(other) => Err(other.into()),
    }
}

pub async fn each_rule_refuses_with_its_message(suite: Arc<Suite>) -> TestResult {
    let ns = suite.namespace("rules").await?;
    for bad in BAD {
        let message = refusal(&suite.client, &ns.name, "weather", parse(bad.spec))
            .await?
            .ok_or_else(|| format!("accepted: {}", bad.spec))?;
        let field = match bad.at {
            "" => "spec:".to_owned(),
            at => format!("spec.{}", at.replace("[]", "[0]")),
        };
        if !message.contains(bad.says) || !message.contains(&field) {
            return Err(format!("{}\n  expected {field}: …{}…\n  got {message}", bad.spec, bad.says).into());
        }
    }
    for name in BAD_NAMES {
        let message = refusal(&suite.client, &ns.name, name, parse(MINIMAL))
            .await?
            .ok_or_else(|| format!("accepted: {name}"))?;
        assert!(message.contains("at most 50 characters"), "{name}: {message}");
    }
    Ok(())
}

pub async fn good_specifications_are_accepted(suite: Arc<Suite>) -> TestResult {
    let ns = suite.namespace("good").await?;
    for spec in GOOD.iter().chain([&FULL, &MINIMAL, &BESIDE]) {
        if let Some(message) = refusal(&suite.client, &ns.name, "weather", parse(spec)).await? {
            return Err(format!("{spec}: {message}").into());
        }
    }
    for name in GOOD_NAMES {
        assert_eq!(refusal(&suite.client, &ns.name, name, parse(MINIMAL)).await?, None, "{name}");
    }
    Ok(())
}

/// A specification that breaks one bound, and the field that the refusal must name.
struct Broken {
    what: String,
    field: String,
    spec: Value,
}

/// Breaks each bound of each field, one at a time.
fn broken() -> Vec<Broken> {
    let mut all = Vec::new();
    for base in [parse(FULL), parse(BESIDE)] {
        for leaf in schema::leaves() {
            let Some(place) = schema::places(&base, &leaf.path).into_iter().next() else { continue };
            for (why, value) in breaking(&leaf.schema) {
                let mut spec = base.clone();
                *spec.pointer_mut(&place).expect("a place") = value;
                all.push(Broken { what: format!("{}: {why}", leaf.name()), field: field_name(&place), spec });
            }
            if leaf.required {
                let mut spec = base.clone();
                schema::remove(&mut spec, &place);
                all.push(Broken {
                    what: format!("{}: missing", leaf.name()),
                    field: field_name(&place),
                    spec,
                });
            }
        }
        collections(&base, &mut all);
    }
    all
}

/// Values that a leaf may not have.
fn breaking(schema: &Value) -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    let number = |key: &str| schema[key].as_f64().map(|n| n as i64);
    match schema["type"].as_str() {
        Some("integer") => {
            all.extend(number("minimum").map(|n| ("below the minimum", json!(n - 1))));
            all.extend(number("maximum").map(|n| ("above the maximum", json!(n + 1))));
            all.push(("text", json!("many")));
            all.push(("a fraction", json!(1.5)));
        }
        Some("boolean") => all.push(("text", json!("perhaps"))),
        Some("string") => {
            if schema["enum"].is_array() {
                all.push(("an unknown word", json!("Nonsense")));
            }
            if schema["pattern"].is_string() {
                all.push(("against the pattern", json!(" x ")));
            }
            if let Some(n) = number("maxLength") {
                all.push(("too long", json!(format!("/{}", "a".repeat(n as usize)))));
            }
            if number("minLength").is_some_and(|n| n > 0) {
                all.push(("empty", json!("")));
            }
            all.push(("a number", json!(1)));
        }
        _ if schema["x-kubernetes-int-or-string"] == true => {
            all.push(("against the pattern", json!("much")));
            all.push(("too long", json!("1".repeat(40))));
            all.push(("a list", json!([1])));
            all.extend(number("minimum").map(|n| ("below the minimum", json!(n - 1))));
            all.extend(number("maximum").map(|n| ("above the maximum", json!(n + 1))));
        }
        _ => all.push(("text", json!("x"))),
    }
    all
}

/// Lists and maps with one entry too many.
fn collections(base: &Value, all: &mut Vec<Broken>) {
    schema::visit(&schema::spec(), "", &mut |path, schema| {
        if path.contains("affinity") {
            return;
        }
        let place = path.replace("[]", "/0").replace('.', "/");
        let Some(present) = base.pointer(&place) else { return };
        let (bound, grown) = match (present, schema["maxItems"].as_u64(), schema["maxProperties"].as_u64()) {
            (Value::Array(items), Some(max), _) => {
                (max, Value::Array(items.iter().cycle().take(max as usize + 1).cloned().collect()))
            }
            (Value::Object(map), _, Some(max)) => {
                let value = map.values().next().cloned().unwrap_or_default();
                (max, (0..=max).map(|i| (format!("key-{i}"), value.clone())).collect())
            }
            _ => return,
        };
        let mut spec = base.clone();
        *spec.pointer_mut(&place).expect("a place") = grown;
        all.push(Broken { what: format!("{path}: more than {bound}"), field: field_name(&place), spec });
    });
}

/// `spec.server.env[0].name` of a pointer. The keys of maps may hold anything, so there the map counts.
fn field_name(place: &str) -> String {
    let mut name = "spec".to_owned();
    for key in place.split('/').skip(1) {
        match key.parse::<usize>() {
            Ok(index) => name.push_str(&format!("[{index}]")),
            Err(_) if key.contains('~') || key.contains('.') => break,
            Err(_) => name.push_str(&format!(".{key}")),
        }
    }
    name
}

pub async fn the_schema_refuses_what_is_out_of_bounds(suite: Arc<Suite>) -> TestResult {
    let ns = suite.namespace("bounds").await?;
    let all = broken();
    assert!(all.len() > 300, "the generator makes {} cases only", all.len());
    let (client, namespace) = (&suite.client, &ns.name);
    let judge = async |broken: Broken| {
        let Broken { what, field, spec } = broken;
        match refusal(client, namespace, "weather", spec).await {
            Ok(Some(message)) if message.contains(&field) => None,
            Ok(Some(message)) => Some(format!("{what}: the refusal does not name {field}: {message:.300}")),
            Ok(None) => Some(format!("{what}: accepted")),
            Err(error) => Some(format!("{what}: {error:?}")),
        }
    };
    let wrong: Vec<String> =
        stream::iter(all).map(judge).buffer_unordered(8).filter_map(std::future::ready).collect().await;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

pub async fn defaults_are_filled_in(suite: Arc<Suite>) -> TestResult {
    let ns = suite.namespace("defaults").await?;
    // Straight from the server: the typed client would fill in its own.
    let api: Api<DynamicObject> =
        Api::namespaced_with(suite.client.clone(), &ns.name, &ApiResource::erase::<McpFleet>(&()));
    let object = json!({"apiVersion": names::API_VERSION, "kind": names::KIND, "metadata": {"name": "weather"}, "spec": parse(
        "{server: {image: a, volumes: [{name: x, secret: {secretName: s}}], env: [{name: A, valueFrom: {secretKeyRef: {name: a, key: b}}}]}, autoscaling: {}, networkPolicy: {egress: {allow: [{ports: [{port: 1}]}]}}}"
    )});
    let params = PostParams { dry_run: true, field_manager: None };
    let spec = api.create(&params, &serde_json::from_value(object)?).await?.data["spec"].clone();
    for (place, value) in [
        ("/server/port", json!(8080)),
        ("/server/path", json!("/mcp")),
        ("/server/transport", json!("StreamableHTTP")),
        ("/server/runAsUser", json!(65532)),
        ("/server/runAsGroup", json!(65532)),
        ("/server/readOnlyRootFilesystem", json!(true)),
        ("/server/shareProcessNamespace", json!(true)),
        ("/server/automountServiceAccountToken", json!(false)),
        ("/server/probes/startup/type", json!("TCP")),
        ("/server/probes/readiness/type", json!("TCP")),
        ("/server/probes/liveness/type", json!("TCP")),
        (
            "/server/topologySpread/topologyKeys",
            json!(["topology.kubernetes.io/zone", "kubernetes.io/hostname"]),
        ),
        ("/server/topologySpread/whenUnsatisfiable", json!("ScheduleAnyway")),
        ("/server/volumes/0/secret/optional", json!(false)),
        ("/server/env/0/valueFrom/secretKeyRef/optional", json!(false)),
        ("/autoscaling/actuator", json!("HPA")),
        ("/autoscaling/minReplicas", json!(2)),
        ("/autoscaling/maxReplicas", json!(10)),
        ("/service/type", json!("ClusterIP")),
        ("/service/port", json!(80)),
        ("/service/sessionAffinity", json!("None")),
        ("/rollout/maxSurge", json!("25%")),
        ("/rollout/maxUnavailable", json!(0)),
        ("/rollout/drain", json!("Await")),
        ("/rollout/progressDeadlineSeconds", json!(600)),
        ("/disruption/maxUnavailable", json!(1)),
        ("/networkPolicy/enabled", json!(true)),
        ("/networkPolicy/egress/allow/0/ports/0/protocol", json!("TCP")),
    ] {
        assert_eq!(spec.pointer(place), Some(&value), "{place} in {spec}");
    }
    // Owned by whoever scales; a default would take it from them.
    assert_eq!(spec.get("replicas"), None);
    Ok(())
}

pub async fn explain_reads_like_documentation(suite: Arc<Suite>) -> TestResult {
    let explain = |path: &str| suite.kubectl(&["explain", path]);
    let transport = explain("mcpfleet.spec.server.transport")?;
    for part in
        ["FIELD: transport", "ENUM:", "StreamableHTTP", "SSE", "How the server speaks MCP", "MCP 2024-11-05"]
    {
        assert!(transport.contains(part), "{part} is missing in:\n{transport}");
    }
    assert!(explain("mcpfleet.spec.replicas")?.contains("scale subresource"));
    assert!(explain("mcpfleet.spec.autoscaling.metrics.cpu")?.contains("70 %"));
    let mut bare = Vec::new();
    schema::visit(&schema::spec(), "spec", &mut |path, schema| {
        let described = schema["description"].as_str().is_some_and(|text| text.len() > 3);
        if !described && !path.contains("affinity") && !path.ends_with(['}', ']']) {
            bare.push(path.to_owned());
        }
    });
    assert!(bare.is_empty(), "fields without a description: {bare:?}");
    Ok(())
}

pub async fn columns_show_the_state(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("columns").await?;
    ns.fleet(
        "weather",
        "{server: {image: registry.example.com/weather:1}, autoscaling: {minReplicas: 3, maxReplicas: 7}}",
    )
    .await?;
    common::wait_observed(&ns, "weather").await?;
    let table = suite.kubectl(&["get", "mcpf", "-n", &ns.name])?;
    let mut lines = table.lines();
    let heads: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(heads, ["NAME", "READY", "DESIRED", "MIN", "MAX", "UTIL", "STATUS", "AGE"], "{table}");
    let row: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[..5], ["weather", "0", "3", "3", "7"], "{table}");
    assert!(["Pending", "ReplicasUnavailable"].contains(&row[5]), "{table}");
    let wide = suite.kubectl(&["get", "mcpfleets", "-n", &ns.name, "-o", "wide"])?;
    for part in
        ["URL", "IMAGE", &format!("http://weather.{}.svc/mcp", ns.name), "registry.example.com/weather:1"]
    {
        assert!(wide.contains(part), "{part} is missing in:\n{wide}");
    }
    assert!(
        suite.kubectl(&["get", "all", "-n", &ns.name])?.contains("mcpfleet.mcpfleet.io/weather"),
        "it is not in `all`"
    );
    Ok(())
}

pub async fn kubectl_scale_works(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("scale").await?;
    ns.fleet("weather", samples::MINIMAL).await?;
    let replicas = async || {
        let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = ns.api();
        let live = deployments.get("weather").await.map_err(|e| e.to_string())?;
        Ok::<_, String>(live.spec.and_then(|s| s.replicas))
    };
    let reaches = async |n: i32| {
        wait::until(&format!("{n} replicas"), common::CHILDREN, async || match replicas().await? {
            Some(live) if live == n => Ok(()),
            live => Err(format!("{live:?}")),
        })
        .await
    };
    reaches(2).await?;
    for n in [5, 0, 1] {
        suite.kubectl(&["scale", "mcpfleet", "weather", "-n", &ns.name, &format!("--replicas={n}")])?;
        reaches(n).await?;
    }
    let scale = ns.api::<McpFleet>().get_scale("weather").await?;
    assert_eq!(scale.spec.and_then(|s| s.replicas), Some(1));
    assert_eq!(scale.status.and_then(|s| s.selector).as_deref(), Some("mcpfleet.io/fleet=weather"));
    Ok(())
}
