use super::*;
use crate::{
    autoscale::{
        board::Board,
        metrics_api::{Parts, test_support::Stub},
        time::Now,
    },
    runtime::lease::Leadership,
};
use futures::FutureExt as _;
use http::header;
use http_body_util::Full;
use serde_json::Value;
use tokio::time::advance;

const USER: &str = "system:serviceaccount:sys:mcp-fleet-gateway";
const AUDIENCE: &str = "mcp-fleet-operator";

fn parts(reviews: &Stub) -> Parts {
    let now = 1_795_208_400_000;
    Parts {
        client: reviews.client(),
        leadership: Leadership::fixed(None),
        board: Arc::new(Board::default()),
        ledger: Arc::default(),
        urgent: Arc::default(),
        clock: Arc::new(move || Now { mono: 0, wall: now }),
        labels: Arc::new(|_| None),
        dropped: SamplesDropped::default(),
    }
}

fn by_review(reviews: &Stub) -> (Loads, Parts) {
    let parts = parts(reviews);
    let metrics = ApiMetrics::default();
    let review = Review::new(parts.client.clone(), USER.into(), AUDIENCE.into(), metrics.clone());
    (Loads::new(Gate::Review(Box::new(review)), &parts, metrics), parts)
}

fn review_of(token: &str) -> Value {
    let user = |name: &str, audience: &str| json!({"authenticated": true, "user": {"username": name}, "audiences": [audience]});
    match token {
        "good" => user(USER, AUDIENCE),
        "bound" => json!({"authenticated": true, "audiences": [AUDIENCE], "user": {"username": USER,
            "extra": {"authentication.kubernetes.io/pod-name": ["gw-0"]}}}),
        "bound-to-another" => {
            json!({"authenticated": true, "audiences": [AUDIENCE], "user": {"username": USER,
            "extra": {"authentication.kubernetes.io/pod-name": ["gw-1"]}}})
        }
        "other-user" => user("system:serviceaccount:sys:default", AUDIENCE),
        "other-namespace" => user("system:serviceaccount:evil:mcp-fleet-gateway", AUDIENCE),
        "other-audience" => user(USER, "https://kubernetes.default.svc.cluster.local"),
        "no-audience" => json!({"authenticated": true, "user": {"username": USER}}),
        _ => json!({"authenticated": false, "error": "invalid bearer token"}),
    }
}

fn reviews() -> Stub {
    Stub::answering(|review| {
        assert_eq!(review["spec"]["audiences"], json!([AUDIENCE]));
        (201, review_of(review["spec"]["token"].as_str().unwrap()))
    })
}

fn report(ready: u64, queue: f64) -> Value {
    json!({"version": 1, "gateway": "gw-0", "epoch": 1, "sequence": 1, "time": "2026-11-20T21:00:00.000Z", "fleets": [
        {"namespace": "a", "name": "b", "uid": "u", "ready": ready, "queue": queue}]})
}

async fn send(loads: &Loads, authorization: Option<&str>, body: impl Into<Bytes>) -> (u16, Value) {
    let mut headers = HeaderMap::new();
    if let Some(value) = authorization {
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
    }
    let reply = loads.take(&headers, Full::new(body.into())).await;
    let code = reply.status().as_u16();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn only_gateways_may_report() {
    let reviews = reviews();
    let (loads, _) = by_review(&reviews);
    for (authorization, code) in [
        (None, 401),
        (Some("Basic good"), 401),
        (Some("Bearer "), 401),
        (Some("Bearer bad"), 401),
        (Some("Bearer other-audience"), 401),
        (Some("Bearer no-audience"), 401),
        (Some("Bearer other-user"), 403),
        (Some("Bearer other-namespace"), 403),
        (Some("Bearer bound-to-another"), 403),
        (Some("Bearer bound"), 202),
        (Some("bearer good"), 202),
    ] {
        let (seen, body) = send(&loads, authorization, report(1, 0.0).to_string()).await;
        assert_eq!(seen, code, "{authorization:?}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_reviewed_once_a_minute() {
    let reviews = reviews();
    let (loads, _) = by_review(&reviews);
    for _ in 0..50 {
        send(&loads, Some("Bearer good"), report(1, 0.0).to_string()).await;
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(reviews.n(), 1);
    advance(Duration::from_secs(11)).await;
    send(&loads, Some("Bearer good"), report(1, 0.0).to_string()).await;
    assert_eq!(reviews.n(), 2);
}

#[tokio::test]
async fn without_the_api_servers_word_nobody_reports() {
    let reviews = Stub::answering(|_| (500, json!({})));
    let (loads, _) = by_review(&reviews);
    assert_eq!(send(&loads, Some("Bearer good"), report(1, 0.0).to_string()).await.0, 503);
}

#[tokio::test]
async fn calls_that_wait_at_an_empty_fleet_wake_the_scaler() {
    let reviews = reviews();
    let (loads, parts) = by_review(&reviews);
    let is_woken = || parts.urgent.notified().now_or_never().is_some();
    for (sequence, ready, queue, wakes) in [(1, 1, 5.0, false), (2, 0, 0.0, false), (3, 0, 1.0, true)] {
        let mut report = report(ready, queue);
        report["sequence"] = sequence.into();
        let (code, body) = send(&loads, Some("Bearer good"), report.to_string()).await;
        assert_eq!((code, &body["receipt"]), (202, &json!("accepted")));
        assert_eq!(is_woken(), wakes, "ready {ready}, queue {queue}");
    }
}

#[tokio::test]
async fn each_receipt_has_its_answer() {
    let reviews = reviews();
    let (loads, _) = by_review(&reviews);
    let with = |field: &str, value: Value| {
        let mut report = report(1, 0.0);
        report[field] = value;
        report.to_string()
    };
    for (body, code, receipt) in [
        (report(1, 0.0).to_string(), 202, "accepted"),
        (report(1, 0.0).to_string(), 202, "duplicate"),
        (with("time", "2020-01-01T00:00:00Z".into()), 422, "untimely"),
        (with("version", 99.into()), 400, "malformed"),
    ] {
        let (seen, answer) = send(&loads, Some("Bearer good"), body).await;
        assert_eq!((seen, answer["receipt"].as_str()), (code, Some(receipt)));
    }
}

#[tokio::test]
async fn what_is_no_report_is_refused_and_counted() {
    let mut registry = prometheus_client::registry::Registry::default();
    let reviews = reviews();
    let (mut loads, _) = by_review(&reviews);
    loads.dropped = SamplesDropped::register(&mut registry);
    for (body, code) in [
        (Bytes::from_static(b"{"), 400),
        (Bytes::from_static(b"[]"), 400),
        (Bytes::from(format!("[{}]", "1,".repeat(INLINE))), 400),
        (Bytes::from(vec![b' '; MAX_BODY + 1]), 413),
    ] {
        assert_eq!(send(&loads, Some("Bearer good"), body).await.0, code);
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("mcp_scaling_samples_dropped_total{cause=\"malformed\"} 4"), "{text}");
}

#[tokio::test]
async fn a_body_that_does_not_say_its_length_is_cut_off() {
    let reviews = reviews();
    let (loads, _) = by_review(&reviews);
    let chunk = Bytes::from(vec![b' '; 1024 * 1024]);
    let frames =
        futures::stream::repeat_with(move || Ok::<_, std::io::Error>(http_body::Frame::data(chunk.clone())));
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, "Bearer good".parse().unwrap());
    let reply = loads.take(&headers, http_body_util::StreamBody::new(frames)).await;
    assert_eq!(reply.status(), 413);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_does_not_hold_its_place() {
    let reviews = reviews();
    let (loads, _) = by_review(&reviews);
    let frames = futures::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>();
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, "Bearer good".parse().unwrap());
    let reply = loads.take(&headers, http_body_util::StreamBody::new(frames)).await;
    assert_eq!(reply.status(), 408);
}

#[tokio::test]
async fn a_shared_token_is_read_anew() {
    let file = std::env::temp_dir().join(format!("mcp-fleet-token-{:08x}", rand::random::<u32>()));
    let reviews = reviews();
    let parts = parts(&reviews);
    let shared = SharedToken::new(file.clone()).unwrap();
    let loads = Loads::new(Gate::Shared(Box::new(shared)), &parts, ApiMetrics::default());
    let forget = |loads: &Loads| {
        let Gate::Shared(shared) = &loads.gate else { unreachable!() };
        *shared.tag.lock() = None;
    };
    let body = || report(1, 0.0).to_string();
    assert_eq!(send(&loads, Some("Bearer secret"), body()).await.0, 503, "no file");
    std::fs::write(&file, " \n").unwrap();
    forget(&loads);
    assert_eq!(send(&loads, Some("Bearer secret"), body()).await.0, 503, "an empty token is none");
    std::fs::write(&file, "secret\n").unwrap();
    forget(&loads);
    assert_eq!(send(&loads, Some("Bearer secret"), body()).await.0, 202);
    assert_eq!(send(&loads, Some("Bearer secretx"), body()).await.0, 401);
    assert_eq!(send(&loads, Some("Bearer secre"), body()).await.0, 401);
    std::fs::write(&file, "next").unwrap();
    assert_eq!(send(&loads, Some("Bearer secret"), body()).await.0, 202, "read a moment ago");
    forget(&loads);
    assert_eq!(send(&loads, Some("Bearer secret"), body()).await.0, 401);
    std::fs::remove_file(&file).unwrap();
}
