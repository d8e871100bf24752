//! Real load through the gateways, and what becomes of the scale: up and down again without a failed call, through an
//! outage, from a queue, and from zero. The numbers are those of the status, which says why it is as it is.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::api::ListParams;
use libtest_mimic::Failed;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::{
    lab,
    load::{Connections, Load},
    support::{Namespace, Suite, TestResult, wait},
};

/// Reports each second, windows of 10 s, a look every 5 s, the start of pods; the rest is for a busy machine.
const SCALING: Duration = Duration::from_secs(120);
/// Longer than the window, the stabilization and some looks together.
const OUTAGE: Duration = Duration::from_secs(35);
/// Longer than the window and a few looks.
const PHASE: Duration = Duration::from_secs(15);
/// What a held call may take after its pod serves; 300 ms on a quiet machine.
const AFTER_START: Duration = Duration::from_secs(3);

/// A fleet of the sample server with these fields of `spec.autoscaling`.
fn elastic(min: i32, max: i32, metrics: &Value) -> Value {
    let autoscaling = json!({
        "minReplicas": min,
        "maxReplicas": max,
        "metrics": metrics,
        "windows": {"stableSeconds": 10, "panicSeconds": 4, "maxSampleAgeSeconds": 10},
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
    });
    let mut spec = lab::with(lab::sample(1), "/autoscaling", autoscaling);
    // The autoscaler's, not the file's.
    spec.as_object_mut().map(|spec| spec.remove("replicas"));
    spec
}

async fn autoscaling(ns: &Namespace, fleet: &str) -> Result<Value, String> {
    let live = ns.get(fleet).await.map_err(|e| format!("{e:?}"))?;
    let status = serde_json::to_value(&live.status).map_err(|e| e.to_string())?;
    let mut told = status["autoscaling"].clone();
    told["spec"] = json!(live.spec.replicas);
    told["ready"] = status["readyReplicas"].clone();
    Ok(told)
}

/// Waits until the fleet wants and has so many replicas; what it then says of itself.
async fn scaled(ns: &Namespace, fleet: &str, n: std::ops::RangeInclusive<i64>) -> Result<Value, Failed> {
    wait::until(&format!("{fleet} at {n:?}"), SCALING, async || {
        let told = autoscaling(ns, fleet).await?;
        let seen = ["spec", "desiredReplicas", "ready"].map(|key| told[key].as_i64().unwrap_or(-1));
        if seen.iter().all(|m| *m == seen[0] && n.contains(m)) { Ok(told) } else { Err(told.to_string()) }
    })
    .await
}

/// A signal's part of the decision.
fn term<'a>(told: &'a Value, signal: &str) -> Option<&'a Value> {
    told["terms"].as_array()?.iter().find(|t| t["signal"] == signal)
}

fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}

/// Notes of the events that tell of changes of the scale.
async fn rescales(ns: &Namespace, fleet: &str) -> Result<Vec<String>, Failed> {
    let events = ns.api::<k8s_openapi::api::core::v1::Event>().list(&ListParams::default()).await?;
    let about = events.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(fleet));
    Ok(about
        .filter(|e| e.reason.as_deref() == Some("SuccessfulRescale"))
        .filter_map(|e| e.message)
        .filter(|m| m.contains('→'))
        .collect())
}

/// A fleet that serves through the gateway; its URL there.
async fn served(ns: &Namespace, fleet: &str, spec: &Value) -> Result<String, Failed> {
    lab::ready_fleet(ns, fleet, spec).await?;
    let url = ns.get(fleet).await?.status.and_then(|s| s.url).ok_or("no status.url")?;
    let mut n_tries = 0;
    wait::until(&format!("an answer of {url}"), lab::PODS, async || {
        n_tries += 1;
        let client = format!("first-{fleet}-{n_tries}");
        lab::call(ns, &client, &["--url", &url, "call", "whoami"]).await.map_err(|e| format!("{e:?}"))
    })
    .await?;
    Ok(url)
}

/// Calls that take so long that what a busy client does between two of them does not count.
const LONG: &str = r#"{"milliseconds":2000}"#;

/// So many calls at once, of so many milliseconds.
fn calls<'a>(concurrency: &'a str, arguments: &'a str) -> [&'a str; 6] {
    ["--tool", "sleep", "--arguments", arguments, "--concurrency", concurrency]
}

/// Waits until so many calls run at a time, and what is wanted is what was measured: a replica for three of them. A step
/// up comes before the window is full.
async fn three_calls_for_each(
    ns: &Namespace,
    fleet: &str,
    calls: std::ops::RangeInclusive<f64>,
) -> TestResult {
    wait::until(
        &format!("{calls:?} calls at a time of {fleet}, and what they ask for"),
        SCALING,
        async || {
            let told = autoscaling(ns, fleet).await?;
            let concurrency =
                term(&told, "concurrency").ok_or_else(|| format!("no concurrency in {told}"))?;
            let (total, demand) = (number(&concurrency["total"]), number(&concurrency["demand"]));
            if calls.contains(&total) && demand + 0.1 >= total / 3.0 { Ok(()) } else { Err(told.to_string()) }
        },
    )
    .await
}

pub async fn load_scales_up_and_down_and_no_call_fails(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("elastic").await?;
    let metrics = json!({"concurrency": {"target": {"averageValue": "3"}}});
    let url = served(&ns, "elastic", &elastic(1, 3, &metrics)).await?;
    // About four calls at a time and never more than six, all the way through: two replicas at most.
    let steady = Load::start_at(&suite, &ns, "steady", &url, "modern", Connections::PerCall).await?;
    let more = Load::start_with(&suite, &ns, "more", &url, &calls("9", LONG)).await?;
    scaled(&ns, "elastic", 3..=3).await?;
    three_calls_for_each(&ns, "elastic", 6.0..=16.0).await?;
    more.stop(&ns).await?;
    scaled(&ns, "elastic", 1..=2).await?;
    let report = steady.stop(&ns).await?;
    let told = rescales(&ns, "elastic").await?;
    // On a busy machine a leader that has just missed reports sees the step that a replica recommended.
    let says = |what: &str| told.iter().any(|note| note.contains(what));
    if !says("→3") || !(says("→2") || says("→1")) || !says(": concurrency") {
        return Err(format!("{told:?}").into());
    }
    eprintln!("autoscaling: {told:?}, {} calls meanwhile, none failed", report["calls"]);
    lab::delete_fleet(&ns, "elastic").await
}

pub async fn an_outage_that_fails_fast_takes_nothing_away(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("outage").await?;
    let metrics =
        json!({"concurrency": {"target": {"averageValue": "3"}}, "errorRate": {"threshold": "0.1"}});
    let url = served(&ns, "outage", &elastic(1, 3, &metrics)).await?;
    let load = Load::start_with(&suite, &ns, "load", &url, &calls("16", r#"{"milliseconds":500}"#)).await?;
    scaled(&ns, "outage", 3..=3).await?;
    // Few calls, which all fail in next to no time: by concurrency alone one replica would do.
    let failing = ["--url", &url, "load", "--tool", "fail_http", "--concurrency", "4", "--rate", "4"];
    lab::start_client(&ns, "failing", &failing).await?;
    wait::until("the guard", SCALING, async || {
        let told = autoscaling(&ns, "outage").await?;
        let stands = told["guards"].as_array().is_some_and(|g| g.iter().any(|g| g == "Errors"));
        if stands { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    load.stop(&ns).await?;
    wait::holds("the scale in the outage", OUTAGE, async || {
        let told = autoscaling(&ns, "outage").await?;
        if told["spec"].as_i64() >= Some(3) { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    wait::until("the guard alone to hold the scale", SCALING, async || {
        let told = autoscaling(&ns, "outage").await?;
        let holds = told["limitedBy"] == "ErrorGuard" && told["spec"] == 3 && number(&told["demand"]) <= 2.0;
        if holds { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    lab::gone(&ns, "failing", lab::delete(&ns, "failing").await?).await?;
    // Over: now it may.
    scaled(&ns, "outage", 1..=1).await?;
    lab::delete_fleet(&ns, "outage").await
}

/// Two calls of this length each second, however long they take.
async fn paced(
    suite: &Suite,
    ns: &Namespace,
    pod: &str,
    url: &str,
    milliseconds: u32,
) -> Result<Load, Failed> {
    let arguments = json!({"milliseconds": milliseconds}).to_string();
    let args = [&calls("12", &arguments)[..], &["--rate", "2"]].concat();
    Load::start_with(suite, ns, pod, url, &args).await
}

pub async fn calls_that_slow_down_get_what_they_hold_and_keep_it(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("slow").await?;
    let metrics = json!({"concurrency": {"target": {"averageValue": "3"}},
        "latency": {"objectiveMilliseconds": 1500, "percentile": 95}});
    let url = served(&ns, "slow", &elastic(1, 4, &metrics)).await?;
    // The same two calls a second throughout: half a call at a time, then two, then five.
    for (pod, milliseconds) in [("quick", 250), ("slower", 1000)] {
        let load = paced(&suite, &ns, pod, &url, milliseconds).await?;
        wait::holds("one replica for less than three calls at a time", PHASE, async || {
            let told = autoscaling(&ns, "slow").await?;
            if told["spec"] == 1 { Ok(()) } else { Err(told.to_string()) }
        })
        .await?;
        load.stop(&ns).await?;
    }
    let slow = paced(&suite, &ns, "slow-calls", &url, 2500).await?;
    // Five at a time are two replicas of three each; a busy machine's own time may make them three.
    scaled(&ns, "slow", 2..=3).await?;
    three_calls_for_each(&ns, "slow", 3.0..=9.0).await?;
    // Hardly any calls are left, and they are slow: one replica would do, and nothing goes.
    let args = [&calls("3", r#"{"milliseconds":2500}"#)[..], &["--rate", "0.8"]].concat();
    let few = Load::start_with(&suite, &ns, "few", &url, &args).await?;
    slow.stop(&ns).await?;
    let held = wait::until("the latency alone to hold the scale", SCALING, async || {
        let told = autoscaling(&ns, "slow").await?;
        let holds = told["limitedBy"] == "LatencyGuard" && number(&told["demand"]) <= 1.0;
        if holds { Ok(told) } else { Err(told.to_string()) }
    })
    .await?;
    let n = held["spec"].as_i64();
    wait::holds("the scale while calls are slow", OUTAGE, async || {
        let told = autoscaling(&ns, "slow").await?;
        if told["spec"].as_i64() >= n && n >= Some(2) { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    few.stop(&ns).await?;
    let quick = paced(&suite, &ns, "quick-again", &url, 250).await?;
    scaled(&ns, "slow", 1..=1).await?;
    quick.stop(&ns).await?;
    lab::delete_fleet(&ns, "slow").await
}

pub async fn what_waits_in_the_gateway_asks_for_replicas(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("queue").await?;
    let metrics =
        json!({"concurrency": {"target": {"averageValue": "4"}}, "queueDepth": {"drainSeconds": 1}});
    let spec = lab::with(elastic(1, 3, &metrics), "/gateway/maxRequestsPerPod", json!(4));
    let url = served(&ns, "queue", &spec).await?;
    let load = Load::start_with(&suite, &ns, "load", &url, &calls("11", LONG)).await?;
    wait::until("what waits to be told", SCALING, async || {
        let told = autoscaling(&ns, "queue").await?;
        let waits = term(&told, "queueDepth").is_some_and(|t| number(&t["total"]) > 0.0);
        if waits || told["spec"] == 3 { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    scaled(&ns, "queue", 3..=3).await?;
    load.stop(&ns).await?;
    lab::delete_fleet(&ns, "queue").await
}

pub async fn the_first_call_wakes_a_fleet_at_zero(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("zero").await?;
    let metrics = json!({"concurrency": {"target": {"averageValue": "3"}}});
    let spec = lab::with(elastic(0, 2, &metrics), "/autoscaling/scaleToZero", json!({"idleSeconds": 10}));
    // It may be at zero before it was ever called.
    ns.fleet("sleepy", &spec.to_string()).await?;
    wait::until("the fleet at zero, and known to be idle", SCALING, async || {
        let told = autoscaling(&ns, "sleepy").await?;
        if told["spec"] == 0 && told["reason"] == "ScaledToZero" { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    lab::settled(&ns, "sleepy", 0, |_| true).await?;
    let fleet = ns.condition("sleepy", "Ready", "True", "ScaledToZero").await?;
    let url = fleet.status.and_then(|s| s.url).ok_or("no status.url")?;

    let gateway: Service =
        Namespace::existing(lab::SYSTEM, suite.client.clone()).api().get("mcp-fleet-gateway").await?;
    let address = gateway.spec.and_then(|s| s.cluster_ip).ok_or("no cluster IP")?;
    let forward = suite.cluster.forward(&format!("{address}:80"))?;
    let start = Instant::now();
    let answer = tokio::spawn(whoami(forward.port(), url));
    let serves = wait::until("an endpoint that serves", SCALING, async || {
        let params = ListParams::default().labels("mcpfleet.io/fleet=sleepy");
        let slices = ns.api::<EndpointSlice>().list(&params).await.map_err(|e| e.to_string())?;
        let endpoints = slices.items.iter().flat_map(|s| s.endpoints.iter().flatten());
        let ready =
            endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true))).count();
        if ready > 0 { Ok(Instant::now()) } else { Err("none".to_owned()) }
    })
    .await;
    let (said, answered) = answer.await??;
    if !said.starts_with("HTTP/1.1 200") || !said.contains("sleepy-") {
        return Err(format!("{said}\nthe fleet: {:?}, {serves:?}", autoscaling(&ns, "sleepy").await).into());
    }
    let serves = serves?;
    let (started, after) = (serves - start, answered.saturating_duration_since(serves));
    eprintln!(
        "autoscaling: 0 → 1, an endpoint served after {started:.2?}, the held call was answered {after:.2?} later"
    );
    if after > AFTER_START {
        return Err(format!("answered {after:?} after an endpoint served").into());
    }
    lab::delete_fleet(&ns, "sleepy").await
}

/// One call of a fleet, over a port that leads to the gateways; the whole answer, and when it was there. From here and
/// not from a pod: the start of a client's pod is not to be measured.
async fn whoami(port: u16, url: String) -> std::io::Result<(String, Instant)> {
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap_or_default();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "whoami", "arguments": {},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "t3", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    }})
    .to_string();
    let head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
         mcp-method: tools/call\r\nmcp-name: whoami\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((answer, Instant::now()))
}
