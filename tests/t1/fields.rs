//! R15: every field of the specification can be set, changed and removed again, and the way there leaves no
//! trace: a fleet that was changed equals one that was made so.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::{
    common,
    samples::{FULL, NATIVE, parse},
    schema::{self, Leaf},
    support::{Namespace, Suite, TestResult, wait},
};

/// Fields that are not walked here, each with its reason.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "service.loadBalancerClass",
        "cannot be changed in place: immutable::another_load_balancer_class_is_reported",
    ),
    ("replicas", "beside an autoscaler it is not to be set; walked by replicas_are_kept_when_removed"),
];

/// Another value where the schema alone cannot tell one: rules tie the field to others, or to a form.
fn sample(leaf: &str) -> Option<Value> {
    Some(match leaf {
        "server.image" => json!("registry.example.com/weather:2"),
        "server.path" => json!("/v2/mcp"),
        "server.resources.requests{}" => json!("90m"),
        "server.resources.limits{}" => json!("950Mi"),
        "server.env[].valueFrom.fieldRef.fieldPath" => json!("metadata.namespace"),
        "server.env[].valueFrom.resourceFieldRef.resource" => json!("requests.memory"),
        "server.env[].valueFrom.resourceFieldRef.divisor" => json!("1Ki"),
        "server.volumes[].emptyDir.sizeLimit" => json!("65Mi"),
        "server.priorityClassName" => json!("system-node-critical"),
        "server.volumeMounts[].mountPath" => json!("/elsewhere"),
        "server.volumeMounts[].name" => json!("scratch"),
        "server.topologySpread.topologyKeys[]" => json!("example.com/room"),
        "server.affinity" => json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 3, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "other"}}}},
        ]}}),
        "networkPolicy.allowFrom[].ipBlock.cidr" => json!("10.0.0.0/7"),
        "networkPolicy.allowFrom[].ipBlock.except[]" => json!("10.2.0.0/16"),
        "networkPolicy.egress.allow[].to[].ipBlock.cidr" => json!("192.168.0.0/15"),
        "networkPolicy.egress.allow[].to[].ipBlock.except[]" => json!("192.168.2.0/24"),
        "service.loadBalancerSourceRanges[]" => json!("172.16.0.0/12"),
        "server.transport" => json!("StreamableHTTP"),
        "server.sessions" => json!("Auto"),
        "gateway.hostnames[]" => json!("other.example.com"),
        "gateway.origins[]" => json!("https://other.example.com:8443"),
        "gateway.circuitBreaker.failureRatio" => json!("0.25"),
        // Only HTTP takes a path, so that goes together with it.
        "gateway.healthCheck.type" => json!("TCP"),
        "rollout.maxSurge" | "rollout.maxUnavailable" | "disruption.maxUnavailable" => json!("35%"),
        name if name.starts_with("server.probes.") && name.ends_with(".path") => json!("/health/other"),
        // TCP takes no path, so this one is changed together with it.
        name if name.starts_with("server.probes.") && name.ends_with(".type") => json!("TCP"),
        _ => return None,
    })
}

/// A valid value other than `present`.
fn another(leaf: &Leaf, present: &Value) -> Option<Value> {
    if let Some(sample) = sample(&leaf.name()) {
        return Some(sample);
    }
    let schema = &leaf.schema;
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().find(|word| *word != present).cloned();
    }
    match present {
        Value::Bool(is) => Some(json!(!is)),
        Value::Number(n) => {
            let (n, max) = (n.as_i64()?, schema["maximum"].as_f64().unwrap_or(f64::MAX));
            Some(json!(if ((n + 1) as f64) <= max { n + 1 } else { n - 1 }))
        }
        // Letters and digits fit every form that is left: names, keys, paths of files.
        Value::String(text) => Some(json!(format!("{text}2"))),
        _ => None,
    }
}

/// One way through the life of a field.
struct Walk {
    leaf: String,
    set: Value,
    changed: Option<Value>,
    removed: Value,
}

/// What has to go together with a field for the rest to stay valid.
fn tied(leaf: &str, spec: &mut Value) {
    if leaf == "server.volumes[].name" {
        let name = spec.pointer("/server/volumes/3/name").cloned();
        if let (Some(name), Some(mount)) = (name, spec.pointer_mut("/server/volumeMounts/0/name")) {
            *mount = name;
        }
    }
    if leaf == "gateway.enabled" && spec["gateway"]["enabled"] == json!(false) {
        // Nobody measures calls.
        spec["autoscaling"] = parse(NATIVE)["autoscaling"].clone();
    }
    if leaf == "autoscaling.scaleToZero.enabled" {
        // Who must keep more than one cannot go to zero.
        spec["autoscaling"]["minReplicas"] = json!(1);
    }
    let gone: &[&str] = match leaf {
        "autoscaling.combine" => &["/autoscaling/thresholds"],
        "service.type" => &["/service/externalTrafficPolicy", "/service/loadBalancerSourceRanges"],
        "server.tolerations[].effect" => &["/server/tolerations/0/tolerationSeconds"],
        "server.tolerations[].operator" => &["/server/tolerations/0/value"],
        "gateway.healthCheck.type" => &["/gateway/healthCheck/path"],
        "server.probes.startup.type" => &["/server/probes/startup/path"],
        "server.probes.readiness.type" => &["/server/probes/readiness/path"],
        "server.probes.liveness.type" => &["/server/probes/liveness/path"],
        _ => &[],
    };
    for place in gone {
        if spec.pointer(place).is_some() {
            schema::remove(spec, place);
        }
    }
}

/// Takes away the field, or the nearest thing around it that can be taken away.
fn removed(leaf: &Leaf, base: &Value, place: &str) -> Value {
    let mut spec = base.clone();
    // An HTTP probe without a path, a volume without a source, a metric without a target: the whole goes.
    let name = leaf.name();
    let levels = match name.as_str() {
        n if n.starts_with("server.probes.") && n.ends_with(".path") => 1,
        // Down to `/server/volumes/N`.
        n if n.starts_with("server.volumes[].") && leaf.required => place.matches('/').count() - 3,
        "server.tolerations[].key" | "gateway.healthCheck.path" => 1,
        n if n.starts_with("networkPolicy.") && (n.contains("ipBlock") || n.contains("Selector")) => {
            2 + usize::from(n.ends_with("[]") || n.ends_with("{}"))
        }
        n if n.starts_with("server.env[].valueFrom.") && leaf.required => 3,
        n if n.starts_with("server.envFrom[].") && n.ends_with("Ref.name") => 2,
        _ if leaf.required => 1,
        _ => 0,
    };
    let mut place = place.to_owned();
    for _ in 0..levels {
        place.truncate(place.rfind('/').unwrap_or_default());
    }
    schema::remove(&mut spec, &place);
    if place.starts_with("/server/volumes/") && place.matches('/').count() == 3 {
        // Its mount goes with it.
        schema::remove(&mut spec, "/server/volumeMounts");
    }
    tied(&name, &mut spec);
    spec
}

/// A fixed port of the nodes can be had once in a cluster.
fn special(leaf: &str) -> Option<Walk> {
    (leaf == "service.nodePort").then(|| Walk {
        leaf: leaf.into(),
        set: parse("{server: {image: a}, service: {type: NodePort, nodePort: 31517}}"),
        changed: None,
        removed: parse("{server: {image: a}, service: {type: ClusterIP}}"),
    })
}

/// The walks, and the leaves for which there is none.
fn walks() -> (Vec<Walk>, Vec<String>) {
    let mut base = parse(FULL);
    schema::remove(&mut base, "/replicas");
    let (mut walks, mut missing) = walks_from(&base);
    // The same fields mean something else where Kubernetes' own autoscaler follows them.
    walks.extend(walks_from(&parse(NATIVE)).0.into_iter().filter(|w| w.leaf.starts_with("autoscaling.")));
    missing.sort();
    (walks, missing)
}

fn walks_from(base: &Value) -> (Vec<Walk>, Vec<String>) {
    let (mut walks, mut missing) = (Vec::new(), Vec::new());
    for leaf in schema::leaves() {
        let name = leaf.name();
        if ELSEWHERE.iter().any(|(elsewhere, _)| *elsewhere == name) {
            continue;
        }
        if let Some(walk) = special(&name) {
            walks.push(walk);
            continue;
        }
        // Of several places, the last: lists are keyed, and a first entry often stands for the list.
        let Some(place) = schema::places(base, &leaf.path).pop() else {
            missing.push(name);
            continue;
        };
        let changed = another(&leaf, base.pointer(&place).expect("a place")).map(|value| {
            let mut spec = base.clone();
            *spec.pointer_mut(&place).expect("a place") = value;
            tied(&name, &mut spec);
            spec
        });
        // Without the image there is no fleet.
        let gone = if name == "server.image" { base.clone() } else { removed(&leaf, base, &place) };
        walks.push(Walk { leaf: name, set: base.clone(), changed, removed: gone });
    }
    (walks, missing)
}

/// Waits until two fleets have the same children, their names aside.
async fn equal(suite: &Suite, ns: &Namespace, walked: &str, fresh: &str) -> TestResult {
    for fleet in [walked, fresh] {
        common::wait_observed(ns, fleet).await?;
    }
    wait::until("equal children", common::CHILDREN, async || {
        let children = async |fleet: &str| {
            let live = common::children_of(&suite.client, &ns.name, fleet).await?;
            let mut children = common::comparable_children(&live, fleet);
            // The scale lives on: it is whoever scales that moves it. See replicas_are_kept_when_removed.
            if let Some(spec) = children.get_mut("Deployment FLEET").and_then(|d| d["spec"].as_object_mut()) {
                spec.remove("replicas");
            }
            Ok::<_, String>(children)
        };
        let (a, b) = (children(walked).await?, children(fresh).await?);
        if !a.keys().eq(b.keys()) || a.len() < 4 {
            return Err(format!("{:?} and {:?}", a.keys(), b.keys()));
        }
        let differ =
            a.iter().find_map(|(name, a)| common::difference(a, &b[name]).map(|how| format!("{name}{how}")));
        differ.map_or(Ok(()), Err)
    })
    .await
}

async fn walk(suite: &Suite, ns: &Namespace, number: usize, walk: Walk) -> TestResult {
    let [walked, changed, removed] = ["walked", "changed", "removed"].map(|what| format!("{what}-{number}"));
    let at = |step: &str, e: Failed| {
        Failed::from(format!("{} {step}: {:.600}", walk.leaf, e.message().unwrap_or_default()))
    };
    ns.fleet(&walked, &walk.set.to_string()).await.map_err(|e| at("set", e))?;
    common::wait_observed(ns, &walked).await.map_err(|e| at("set", e))?;
    if let Some(spec) = &walk.changed {
        ns.respec(&walked, &spec.to_string()).await.map_err(|e| at("changed", e))?;
        ns.fleet(&changed, &spec.to_string()).await.map_err(|e| at("made changed", e))?;
        equal(suite, ns, &walked, &changed).await.map_err(|e| at("changed", e))?;
    }
    ns.respec(&walked, &walk.removed.to_string()).await.map_err(|e| at("removed", e))?;
    ns.fleet(&removed, &walk.removed.to_string()).await.map_err(|e| at("made removed", e))?;
    equal(suite, ns, &walked, &removed).await.map_err(|e| at("removed", e))
}

pub async fn every_field_is_set_changed_and_removed(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("fields").await?;
    let (walks, missing) = walks();
    assert!(missing.is_empty(), "fields without a sample: set them in samples::FULL: {missing:?}");
    // One can be had once in a cluster, the others know one word.
    let alone =
        ["autoscaling.metrics.errorRate.role", "server.volumes[].emptyDir.medium", "service.nodePort"]
            .map(str::to_owned);
    let stands: BTreeSet<String> =
        walks.iter().filter(|w| w.changed.is_none()).map(|w| w.leaf.clone()).collect();
    assert_eq!(stands, BTreeSet::from(alone), "fields without another value");
    let n = walks.len();
    assert!(n > 120, "{n} fields only");
    let all = stream::iter(walks.into_iter().enumerate()).map(|(i, one)| walk(&suite, &ns, i, one));
    let wrong: Vec<String> = all
        .buffer_unordered(12)
        .filter_map(async |r| r.err().map(|e| e.message().unwrap_or_default().to_owned()))
        .collect()
        .await;
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{} of {n} fields:\n{}", wrong.len(), wrong.join("\n")).into())
    }
}

/// All at once: from nothing to everything and back.
pub async fn everything_at_once_and_back(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("atonce").await?;
    let mut full = parse(FULL);
    schema::remove(&mut full, "/replicas");
    let minimal = json!({"server": {"image": "a"}});
    let pairs = [
        ("up", minimal.clone(), full.clone()),
        ("down", full, json!({"server": {"image": "a"}, "replicas": 3})),
    ];
    stream::iter(pairs)
        .map(Ok)
        .try_for_each(async |(name, from, to): (&str, Value, Value)| {
            let fresh = format!("fresh-{name}");
            ns.fleet(name, &from.to_string()).await?;
            common::wait_observed(&ns, name).await?;
            ns.fleet(&fresh, &to.to_string()).await?;
            let mut to = to;
            // Named, for the scale stays when the specification no longer speaks of it.
            to["replicas"] = json!(3);
            ns.respec(name, &to.to_string()).await?;
            equal(&suite, &ns, name, &fresh).await
        })
        .await
}

/// Who leaves the replicas out of the file leaves them to whoever scales: they stay what they are.
pub async fn replicas_are_kept_when_removed(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("replicas").await?;
    let apply = |replicas: &str| {
        let text = format!(
            "{{apiVersion: mcpfleet.io/v1alpha1, kind: McpFleet, metadata: {{name: weather, namespace: {}}}, spec: {{{replicas} server: {{image: a}}}}}}",
            ns.name
        );
        suite.cluster.apply(&text)
    };
    let has = async |n: i32| {
        wait::until(&format!("{n} replicas"), common::CHILDREN, async || {
            let live =
                common::api(&suite.client, &ns.name, mcp_fleet::operator::children::ChildKind::Deployment)
                    .get("weather")
                    .await;
            match live.map_err(|e| e.to_string())?.data["spec"]["replicas"].clone() {
                live if live == n => Ok(()),
                live => Err(live.to_string()),
            }
        })
        .await
    };
    for n in [3, 5] {
        apply(&format!("replicas: {n},"))?;
        has(n).await?;
    }
    apply("")?;
    wait::until("a seed", common::CHILDREN, async || {
        match ns.get("weather").await.map_err(|e| format!("{e:?}"))?.spec.replicas {
            Some(5) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    has(5).await
}
