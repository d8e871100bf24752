//! What may be sent to a second pod, and what may not (G17).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::FutureExt as _;
use serde_json::{Value, json};

use crate::{
    client::{modern, text},
    pod::{Pod, Speaks},
    world::Alone,
};

async fn two() -> [Pod; 2] {
    [Pod::start("one", Speaks::Modern).await, Pod::start("two", Speaks::Modern).await]
}

/// What becomes of the first request of a method, at whichever pod; later ones are answered.
#[derive(Clone, Copy)]
enum First {
    Cut,
    Status(u16),
}

fn first(pods: &[Pod], what: First) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    for pod in pods {
        let count = Arc::clone(&count);
        pod.script(move |seen, out| {
            let is_client = seen.header("user-agent").is_none();
            if !is_client || count.fetch_add(1, Ordering::SeqCst) > 0 {
                return None;
            }
            let out = out.clone();
            Some(
                async move {
                    match what {
                        First::Cut => out.cut(),
                        First::Status(status) => out.json(status, &[], &json!({"own": "words"})).await,
                    }
                }
                .boxed(),
            )
        });
    }
    count
}

fn total(pods: &[Pod], method: &str) -> usize {
    pods.iter().map(|p| p.seen(method).len()).sum()
}

const SAFE: [(&str, &str, &str); 6] = [
    ("server/discover", "", ""),
    ("tools/list", "", ""),
    ("prompts/list", "", ""),
    ("resources/templates/list", "", ""),
    ("resources/read", "uri", "test://x"),
    ("prompts/get", "name", "p"),
];

fn params((_, key, value): (&str, &str, &str)) -> Value {
    if key.is_empty() { json!({}) } else { json!({key: value}) }
}

// G17: these only read; a client must not see that one of its pods broke off.
#[tokio::test]
async fn reading_methods_are_sent_to_another_pod() {
    let pods = two().await;
    let alone = Alone::new(&pods, json!({"circuitBreaker": {"failureThreshold": 100}})).await;
    for what in [First::Cut, First::Status(500), First::Status(503)] {
        for safe in SAFE {
            first(&pods, what);
            let before = [pods[0].seen(safe.0).len(), pods[1].seen(safe.0).len()];
            let mut reply = alone.gateway.modern(&modern("keep-7", safe.0, params(safe))).await;
            assert_eq!(reply.status, 200, "{}", safe.0);
            assert_eq!(reply.json().await["id"], "keep-7", "the client's own id");
            let after = [pods[0].seen(safe.0).len(), pods[1].seen(safe.0).len()];
            assert_eq!([after[0] - before[0], after[1] - before[1]], [1, 1], "{}: once at each", safe.0);
            let bodies: Vec<_> = pods.iter().map(|p| p.seen(safe.0).pop().unwrap().raw).collect();
            assert_eq!(bodies[0], bodies[1], "the same request");
        }
    }
}

// G17: a tool may have done its work before its pod broke off.
#[tokio::test]
async fn a_tool_that_was_called_is_never_called_again() {
    let pods = two().await;
    let alone = Alone::new(&pods, json!({"circuitBreaker": {"failureThreshold": 100}})).await;
    for (i, what) in
        [First::Cut, First::Status(500), First::Status(502), First::Status(503)].into_iter().enumerate()
    {
        let count = first(&pods, what);
        let mut reply = alone.gateway.modern(&modern("t", "tools/call", json!({"name": "whoami"}))).await;
        let body = reply.json().await;
        match what {
            First::Cut => {
                assert_eq!((reply.status, &body["id"]), (503, &json!("t")));
                assert_eq!(body["error"]["data"]["source"], "gateway");
            }
            First::Status(status) => {
                assert_eq!((reply.status, &body), (status, &json!({"own": "words"})), "the pod's own answer");
            }
        }
        assert_eq!((count.load(Ordering::SeqCst), total(&pods, "tools/call")), (1, i + 1));
    }
    first(&pods, First::Cut);
    let before = total(&pods, "completion/x");
    let reply = alone.gateway.modern(&modern("t", "vendor/method", json!({}))).await;
    assert_eq!((reply.status, total(&pods, "vendor/method")), (503, 1), "nor what nobody knows");
    assert_eq!(before, 0);
}

// G17: unless the fleet's owner says that its tools bear it.
#[tokio::test]
async fn tools_that_may_be_called_twice_are_sent_to_another_pod() {
    let pods = two().await;
    let alone = Alone::new(&pods, json!({"retries": {"idempotentTools": true}})).await;
    first(&pods, First::Cut);
    let mut reply = alone.gateway.modern(&modern("t", "tools/call", json!({"name": "whoami"}))).await;
    assert_eq!((reply.status, &reply.json().await["id"]), (200, &json!("t")));
    assert!(pods.iter().all(|p| p.calls("whoami").len() == 1));
}

// G17: what was not delivered is nobody's, and goes on to the next pod, tools too.
#[tokio::test]
async fn a_pod_that_takes_no_connection_is_passed_over() {
    let pods = [
        Pod::start("one", Speaks::Both).await,
        Pod::start("two", Speaks::Both).await,
        Pod::start("three", Speaks::Both).await,
    ];
    let alone = Alone::new(&pods, json!({"retries": {"minConcurrency": 10}})).await;
    pods[0].kill();
    pods[2].kill();
    for i in 0..12 {
        let mut reply = alone.gateway.modern(&modern(i, "tools/call", json!({"name": "whoami"}))).await;
        assert_eq!(reply.status, 200, "call {i}");
        assert_eq!(text(&reply.json().await), "two");
        alone.gateway.open_session().await;
    }
    assert_eq!(pods[1].calls("whoami").len(), 12, "each of them once");
}

// G17: an idle connection that its server has closed meanwhile is no failure, and no second request.
#[tokio::test]
async fn a_pooled_connection_that_the_server_closed_does_no_harm() {
    let pods = [Pod::start("one", Speaks::Modern).await];
    let alone = Alone::new(&pods, json!({})).await;
    for i in 0..4 {
        let mut reply = alone.gateway.modern(&modern(i, "tools/call", json!({"name": "whoami"}))).await;
        assert_eq!(text(&reply.json().await), "one");
        pods[0].kill();
        pods[0].revive().await;
    }
    assert_eq!(pods[0].calls("whoami").len(), 4);
    // Between two of them one connection served: the pool is used at all.
    for i in 0..3 {
        alone.gateway.modern(&modern(i, "tools/call", json!({"name": "pooled"}))).await.json().await;
    }
    let calls = pods[0].calls("pooled");
    assert!(calls.iter().all(|c| c.connection == calls[0].connection));
}

// G17: retries of many calls that fail at once are bounded, and whoever gets none sees the failure.
#[tokio::test]
async fn the_budget_bounds_retries() {
    let pods = two().await;
    // Every first try fails, and every second one takes its time: retries pile up.
    for pod in &pods {
        pod.script(|seen, out| {
            let is_client = seen.header("user-agent").is_none();
            let out = out.clone();
            is_client.then(|| {
                async move {
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                    out.json(500, &[], &json!({"own": "words"})).await;
                }
                .boxed()
            })
        });
    }
    let settings = json!({"circuitBreaker": {"failureThreshold": 100, "minRequests": 1000},
                          "retries": {"budgetPercent": 0, "minConcurrency": 2}});
    let alone = Alone::new(&pods, settings).await;
    let bodies: Vec<_> = (0..20).map(|id| modern(id, "tools/list", json!({}))).collect();
    let calls = bodies.iter().map(|body| alone.gateway.modern(body));
    let replies = futures::future::join_all(calls).await;
    let statuses: Vec<u16> = replies.iter().map(|r| r.status).collect();
    assert_eq!(statuses, [500; 20], "the server's own failure passes");
    let tries = total(&pods, "tools/list");
    assert!((21..=26).contains(&tries), "{tries} tries of 20 calls");
    let refused = alone.gateway.metric("mcp_fleet_gateway_retries_total", &["no_budget"]).await;
    assert!(refused >= 15.0, "{refused}");
}
