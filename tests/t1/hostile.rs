//! R18, R19: nonsense and malice in a specification are refused or contained, and one broken fleet does not
//! hold up the others.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
};
use libtest_mimic::Failed;
use mcp_fleet::api::{names, v1alpha1::McpFleet};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    common,
    samples::{FULL, parse},
    schema::{self, Leaf},
    support::{Suite, TestResult, wait},
};

/// One for all runs: what is found once is found again.
const SEED: u64 = 18;
const CASES: usize = 2000;
/// How long the accepted ones, some hundreds, may take on a busy machine.
const BACKLOG: Duration = Duration::from_secs(180);
/// How long the children of a plain fleet may take meanwhile and afterwards.
const NORMAL: Duration = Duration::from_secs(10);

/// Texts that have broken other programs.
fn text(random: &mut StdRng) -> String {
    let odd = [
        "",
        " ",
        "\u{0}",
        "\u{202e}abc",
        "é",
        "🦀",
        "a\nb: c",
        "{{.Values}}",
        "$(HOME)",
        "../../etc/passwd",
        "-1",
        "0x10",
        "1e400",
        "NaN",
        "null",
        "true",
        "%s%n",
        "'; DROP",
        "{\"a\":1}",
        "mcpfleet.io/fleet",
        "kube-system",
        "\u{feff}",
        "a.b.c/d/e",
        "1Ei",
        "99999999999999999999",
    ];
    match random.random_range(0..20) {
        0 => "x".repeat(1 << random.random_range(8..20)),
        1 => "日本語".repeat(random.random_range(1..400)),
        2 => (0..random.random_range(1..40)).map(|_| char::from(random.random_range(1..=255_u8))).collect(),
        _ => odd[random.random_range(0..odd.len())].to_owned(),
    }
}

fn number(random: &mut StdRng) -> Value {
    let odd = [
        json!(0),
        json!(-1),
        json!(1),
        json!(i32::MAX),
        json!(i32::MIN),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(65535),
        json!(65536),
        json!(1e300),
        json!(0.5),
        json!(1001),
    ];
    odd[random.random_range(0..odd.len())].clone()
}

/// Anything at all.
fn anything(random: &mut StdRng, depth: u8) -> Value {
    match random.random_range(0..if depth == 0 { 4 } else { 7 }) {
        0 => json!(text(random)),
        1 => number(random),
        2 => json!(random.random::<bool>()),
        3 => Value::Null,
        4 => (0..random.random_range(0..4)).map(|_| anything(random, depth - 1)).collect(),
        5 => Value::Array(vec![anything(random, 0); 1000]),
        _ => (0..random.random_range(0..4)).map(|_| (text(random), anything(random, depth - 1))).collect(),
    }
}

/// Within what the schema says of the type, so that more gets past it.
fn plausible(random: &mut StdRng, leaf: &Leaf) -> Value {
    if let Some(words) = leaf.schema["enum"].as_array() {
        return words[random.random_range(0..words.len())].clone();
    }
    match leaf.schema["type"].as_str() {
        Some("integer") => {
            let (min, max) = (
                leaf.schema["minimum"].as_f64().unwrap_or(0.0) as i64,
                leaf.schema["maximum"].as_f64().unwrap_or(1e9) as i64,
            );
            json!([min, max, min + 1, random.random_range(min..=max)][random.random_range(0..4)])
        }
        Some("boolean") => json!(random.random::<bool>()),
        Some("string") => json!(text(random)),
        _ => json!(["1", "50%", "0", "1k", "1e2", "0.0001", "99E", "1n"][random.random_range(0..8)]),
    }
}

/// A specification with one to four things wrong, odd or merely unusual.
fn specification(random: &mut StdRng, leaves: &[Leaf], full: &Value) -> Value {
    let mut spec = if random.random::<bool>() { full.clone() } else { json!({"server": {"image": "a"}}) };
    for _ in 0..random.random_range(1..=4) {
        let leaf = &leaves[random.random_range(0..leaves.len())];
        let places = schema::places(&spec, &leaf.path);
        let value = if random.random_range(0..3) > 0 { plausible(random, leaf) } else { anything(random, 3) };
        if let Some(place) = places.get(random.random_range(0..places.len().max(1))) {
            *spec.pointer_mut(place).expect("a place") = value;
        } else {
            let key = text(random);
            let block = ["server", "service", "rollout", "autoscaling", "networkPolicy", "disruption"]
                [random.random_range(0..6)];
            match spec.get_mut(block).and_then(Value::as_object_mut) {
                Some(map) => drop(map.insert(key, value)),
                None => spec[block] = value,
            }
        }
    }
    spec
}

fn name(random: &mut StdRng, number: usize) -> String {
    match random.random_range(0..30) {
        0 => format!("a{number:050}"),
        1 => format!("a{number:062}"),
        2 => format!("a{number:0252}"),
        3 => format!("a{number:049}"),
        4 => text(random),
        _ => format!("fuzz-{number}"),
    }
}

/// What became of them.
#[derive(Debug, Default)]
struct Tally {
    accepted: usize,
    refused: usize,
    other: Vec<String>,
}

pub async fn nonsense_is_refused_or_contained(_: Arc<Suite>) -> TestResult {
    let suite = common::quiet();
    let ns = suite.namespace("hostile").await?;
    let mut operator = common::own(&suite, &ns.name)?.start(&suite.cluster)?;
    let mut random = StdRng::seed_from_u64(SEED);
    let (leaves, mut full) = (schema::leaves(), parse(FULL));
    full["server"].as_object_mut().expect("server").remove("affinity");
    let api: Api<DynamicObject> =
        Api::namespaced_with(suite.client.clone(), &ns.name, &ApiResource::erase::<McpFleet>(&()));
    let objects: Vec<Value> = (0..CASES)
        .map(|i| {
            let spec = if random.random_range(0..50) == 0 { anything(&mut random, 4) } else { specification(&mut random, &leaves, &full) };
            json!({"apiVersion": names::API_VERSION, "kind": names::KIND, "metadata": {"name": name(&mut random, i)}, "spec": spec})
        })
        .collect();
    let create = async |object: Value| {
        let object: DynamicObject = serde_json::from_value(object).map_err(|e| e.to_string())?;
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                Ok(false)
            }
            Err(other) => Err(format!("{other:.200}")),
        }
    };
    let mut tally = Tally::default();
    let mut results = std::pin::pin!(stream::iter(objects).map(create).buffer_unordered(8));
    while let Some(result) = results.next().await {
        match result {
            Ok(true) => tally.accepted += 1,
            Ok(false) => tally.refused += 1,
            Err(other) => tally.other.push(other),
        }
    }
    eprintln!(
        "hostile: {} accepted, {} refused, others {:?}",
        tally.accepted,
        tally.refused,
        tally.other.iter().take(3).collect::<Vec<_>>()
    );
    assert!(
        tally.accepted > CASES / 100 && tally.refused > CASES / 10,
        "the generator is too tame or too wild: {tally:?}"
    );
    assert!(tally.other.len() <= CASES / 100, "the API server failed: {:?}", tally.other);
    // Every accepted one gets a status, good or bad: none is lost, and none is tried for ever.
    wait::until("a status of every fleet", BACKLOG, async || {
        let fleets = api.list(&<_>::default()).await.map_err(|e| e.to_string())?;
        let silent: Vec<_> = fleets
            .iter()
            .filter(|f| f.data.pointer("/status/observedGeneration").is_none())
            .filter_map(|f| f.metadata.name.clone())
            .collect();
        if silent.is_empty() {
            Ok(())
        } else {
            Err(format!("{} without: {:?}", silent.len(), silent.first()))
        }
    })
    .await?;
    // A new fleet has its status before its Deployment, which it gets once all others have had their first pass.
    wait::until("the end of the burst", BACKLOG, async || {
        match operator.metric("mcp_fleet_operator_fleets_held") {
            held if held <= 0.0 => Ok(()),
            held => Err(format!("{held} fleets are held")),
        }
    })
    .await?;
    let start = Instant::now();
    ns.fleet("good", "{server: {image: a}, autoscaling: {}}").await?;
    common::wait_children(&ns, &suite.client, "good", 7).await?;
    let took = start.elapsed();
    assert!(took < NORMAL, "a good fleet took {took:?}");
    assert_eq!(operator.try_wait(), None, "the operator ended: {}", operator.log());
    assert!(!operator.log().contains("panicked"), "{}", operator.log());
    assert!(operator.get("/livez").is_ok());
    eprintln!(
        "hostile: a good fleet afterwards: {took:?}; {} failed passes; {} MiB",
        operator.metric("mcp_fleet_operator_errors_total"),
        operator.rss_bytes() >> 20
    );
    // Its children bounded: as many as any fleet has.
    for (fleet, children) in common::children(&suite.client, &ns.name).await? {
        assert!(children.len() <= 7, "{fleet} has {} children", children.len());
    }
    Ok(())
}

/// Time until that many new fleets have all their children.
async fn time_of(suite: &Suite, ns: &crate::support::Namespace, fleets: usize) -> Result<Duration, Failed> {
    let start = Instant::now();
    for i in 0..fleets {
        ns.fleet(&format!("good-{i}"), "{server: {image: a}, autoscaling: {}}").await?;
    }
    for i in 0..fleets {
        common::wait_children(ns, &suite.client, &format!("good-{i}"), 7).await?;
    }
    Ok(start.elapsed())
}

/// A fleet whose every pass fails: a webhook that nobody answers stands before its Services.
pub async fn a_broken_fleet_does_not_slow_the_others(_: Arc<Suite>) -> TestResult {
    let suite = common::quiet();
    let (ns, calm) = (suite.namespace("poisoned").await?, suite.namespace("calm").await?);
    let undisturbed = common::own(&suite, &calm.name)?.start(&suite.cluster)?;
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": ns.name},
        "webhooks": [{
            "name": "nobody.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail", "timeoutSeconds": 1,
            "clientConfig": {"url": "https://127.0.0.1:9/"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}},
            "objectSelector": {"matchLabels": {"mcpfleet.io/fleet": "broken"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["services"]}],
        }],
    });
    suite.cluster.apply(&webhook.to_string())?;
    let operator = common::own(&suite, &ns.name)?.start(&suite.cluster)?;
    ns.fleet("broken", "{server: {image: a}}").await?;
    wait::until("a back-off", wait::LIMIT, async || {
        let (waiting, failures) = (
            operator.metric("mcp_fleet_operator_fleets_backing_off"),
            operator.metric("mcp_fleet_operator_errors_total"),
        );
        if waiting == 1.0 && failures >= 2.0 {
            Ok(())
        } else {
            Err(format!("{waiting} waiting, {failures} failures: {}", operator.log()))
        }
    })
    .await?;
    let before = operator.metric("mcp_fleet_operator_errors_total");
    let start = Instant::now();
    // Side by side, so that whatever else this machine does meanwhile slows both.
    let (without, with) = tokio::join!(time_of(&suite, &calm, 10), time_of(&suite, &ns, 10));
    let (without, with) = (without?, with?);
    eprintln!("broken: 10 fleets take {without:?} without, {with:?} with a broken one");
    assert_eq!(undisturbed.metric("mcp_fleet_operator_fleets_backing_off"), 0.0, "{}", undisturbed.log());
    assert!(with < without * 2 + Duration::from_secs(2), "{with:?} with a broken fleet, {without:?} without");
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Half a second, one, two, four …: a few tries, and not a loop.
    let tries = operator.metric("mcp_fleet_operator_errors_total") - before;
    assert!(tries <= 3.0 + start.elapsed().as_secs_f64(), "{tries} tries in {:?}", start.elapsed());
    suite.kubectl(&["delete", "validatingwebhookconfiguration", &ns.name])?;
    // An edit overtakes the back-off; here the wait itself must end.
    common::wait_children(&ns, &suite.client, "broken", 6).await?;
    wait::until("the end of the back-off", wait::LIMIT, async || {
        match operator.metric("mcp_fleet_operator_fleets_backing_off") {
            0.0 => Ok(()),
            n => Err(n.to_string()),
        }
    })
    .await
}

/// What the API server refuses for good is a state, told once, and not an error tried again and again.
pub async fn a_refused_child_is_told_and_mended(_: Arc<Suite>) -> TestResult {
    let suite = common::quiet();
    let ns = suite.namespace("refused").await?;
    let meta = json!({"name": ns.name});
    suite.cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": meta, "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}},
            "validations": [{"expression": "false", "message": "no Services in this namespace"}],
        }},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": meta, "spec": {"policyName": ns.name, "validationActions": ["Deny"]}},
    ]}).to_string())?;
    // A policy counts a moment after it is there.
    wait::until("the policy", wait::LIMIT, async || {
        let mut kubectl = suite.cluster.kubectl();
        let done = kubectl
            .args(["create", "service", "clusterip", "probe", "--tcp=80", "-n", &ns.name, "--dry-run=server"])
            .output()
            .map_err(|e| e.to_string())?;
        if done.status.success() { Err("not yet".into()) } else { Ok(()) }
    })
    .await?;
    let operator = common::own(&suite, &ns.name)?.start(&suite.cluster)?;
    ns.fleet("weather", "{server: {image: a}}").await?;
    let fleet = ns.condition("weather", "Accepted", "False", "ChildRejected").await?;
    let text = serde_json::to_string(&fleet.status)?;
    assert!(text.contains("no Services in this namespace"), "{text}");
    common::wait_children(&ns, &suite.client, "weather", 4).await?;
    assert_eq!(operator.metric("mcp_fleet_operator_errors_total"), 0.0, "{}", operator.log());
    let bindings = ["delete", "validatingadmissionpolicybinding", &ns.name];
    suite.kubectl(&bindings)?;
    ns.condition("weather", "Accepted", "True", "Accepted").await?;
    let fleets: Api<McpFleet> = ns.api();
    fleets.delete("weather", &DeleteParams::default()).await?;
    Ok(())
}
