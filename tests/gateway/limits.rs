//! Overload, limits, and who may call at all.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    client::{MCP, MODERN, Stopwatch, initialize, modern, send, text, tool, until},
    pod::{Pod, Speaks},
    world::{Alone, World},
};

fn slow(id: impl Into<Value>) -> Value {
    modern(id, "tools/call", json!({"name": "slow"}))
}

// G18: a limit of the pod is one at the pod.
#[tokio::test]
async fn max_requests_per_pod_is_kept_and_who_waits_is_served() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({"maxRequestsPerPod": 2})).await;
    let gateway = &alone.gateway;
    let session = gateway.open_session().await;
    let modern: Vec<_> = (0..4).map(slow).collect();
    let legacy = tool("l", "slow");
    let calls = modern.iter().map(|body| gateway.modern(body));
    let (replies, one, ()) =
        tokio::join!(futures::future::join_all(calls), gateway.on(&session, &legacy), async {
            until("two calls", || pods[0].calls("slow").len() == 2).await;
            sleep(Duration::from_millis(150)).await;
            assert_eq!(pods[0].calls("slow").len(), 2);
            pods[0].release(5);
        });
    for mut reply in replies.into_iter().chain([one]) {
        assert_eq!(reply.status, 200);
        assert_eq!(text(&reply.json().await), "one");
    }
    assert_eq!((pods[0].most_running(), pods[0].calls("slow").len()), (2, 5));
    assert!(gateway.metric("mcp_fleet_gateway_queue_wait_seconds_count", &[]).await >= 3.0);
}

// gateway.md section 4: the limit is the fleet's, and gateways share it.
#[tokio::test]
async fn two_gateways_share_the_limit_of_a_pod() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let world = World::new(&pods, json!({"maxRequestsPerPod": 2})).await;
    let bodies: Vec<_> = (0..6).map(slow).collect();
    let calls = bodies.iter().enumerate().map(|(i, body)| world.both()[i % 2].modern(body));
    let (replies, ()) = tokio::join!(futures::future::join_all(calls), async {
        until("two calls", || pods[0].calls("slow").len() == 2).await;
        sleep(Duration::from_millis(150)).await;
        pods[0].release(6);
    });
    assert!(replies.iter().all(|r| r.status == 200));
    assert_eq!(pods[0].most_running(), 2);
}

// G18, G4: the queue is bounded in length and in time, and says 503 as JSON-RPC with the call's own id.
#[tokio::test]
async fn a_full_queue_and_a_long_wait_are_503_with_the_id() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let settings = json!({"maxRequestsPerPod": 1, "queue": {"capacity": 1, "timeoutSeconds": 1}});
    let alone = Alone::new(&pods, settings).await;
    let gateway = &alone.gateway;
    let (first, second, third) = (slow("first"), slow("second"), slow("third"));
    let (mut first, (), ()) = tokio::join!(
        gateway.modern(&first),
        async {
            until("the first", || pods[0].calls("slow").len() == 1).await;
            let watch = Stopwatch::start();
            let mut reply = gateway.modern(&second).await;
            assert!((800..2500).contains(&watch.ms()), "waited {} ms", watch.ms());
            overloaded(&mut reply, "second").await;
            pods[0].release(1);
        },
        async {
            until("the first", || pods[0].calls("slow").len() == 1).await;
            sleep(Duration::from_millis(300)).await;
            let watch = Stopwatch::start();
            let mut reply = gateway.modern(&third).await;
            assert!(watch.ms() < 400, "refused at once, not after {} ms", watch.ms());
            overloaded(&mut reply, "third").await;
        }
    );
    assert_eq!(text(&first.json().await), "one");
    assert_eq!(pods[0].calls("slow").len(), 1);
    let full = gateway.metric("mcp_fleet_gateway_shed_total", &["reason=\"queue_full\""]).await;
    assert!((full - 1.0).abs() < 0.1, "{full}");
}

async fn overloaded(reply: &mut crate::client::Reply, id: &str) {
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let body = reply.json().await;
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &json!(id)));
    let error = &body["error"];
    assert_eq!(
        (&error["data"]["source"], &error["data"]["reason"]),
        (&json!("gateway"), &json!("overloaded"))
    );
    let code = error["code"].as_i64().unwrap();
    assert!(!(-32768..=-32000).contains(&code), "not one of the protocol's: {code}");
}

// G18: clients of either era whose fleet is empty are held, and then told in a way that they survive.
#[tokio::test]
async fn a_fleet_without_a_pod_holds_calls_until_one_comes() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let settings = json!({"timeouts": {"activationSeconds": 5}});
    let mut alone = Alone::with(&[], settings, |_| {}).await;
    let watch = Stopwatch::start();
    let pod = &pods[0];
    alone.gateway.list(&[pod]);
    let call = modern(1, "tools/call", json!({"name": "whoami"}));
    let (call, opened) = tokio::join!(alone.gateway.modern(&call), alone.gateway.open_session());
    assert_eq!(call.status, 200, "held for {} ms", watch.ms());
    assert_eq!(alone.gateway.count(&opened).await, 1);
}

// G32.
#[tokio::test]
async fn too_large_bodies_and_headers_are_413_and_431() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let limits = json!({"limits": {"maxBodyBytes": 2048, "maxHeaderBytes": 8192}});
    let alone = Alone::new(&pods, limits).await;
    let mut body = modern(1, "tools/call", json!({"name": "whoami", "arguments": {"x": "x".repeat(3000)}}));
    let reply = alone.gateway.modern(&body).await;
    assert_eq!(reply.status, 413);
    body["params"]["arguments"] = json!({"x": "x".repeat(500)});
    assert_eq!(alone.gateway.modern(&body).await.status, 200);
    let long = "y".repeat(20_000);
    let reply = alone.gateway.modern_with(&[("x-long", &long)], &body).await;
    assert_eq!(reply.status, 431);
    assert_eq!(pods[0].calls("whoami").len(), 1);
}

// G32: 4 MiB, as servers take it.
#[tokio::test]
async fn a_body_of_four_mebibytes_passes() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    let body =
        modern(1, "tools/call", json!({"name": "whoami", "arguments": {"x": "x".repeat((4 << 20) - 600)}}));
    assert_eq!(alone.gateway.modern(&body).await.status, 200);
    assert_eq!(pods[0].calls("whoami")[0].body, body);
    assert_eq!(alone.gateway.post_bytes(&[], vec![b' '; (4 << 20) + 1]).await.status, 413);
}

// G12: the gateway checks Host and Origin, since it hides the real ones from the server.
#[tokio::test]
async fn foreign_hosts_and_origins_are_403_and_reach_no_pod() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::with(&pods, json!({"origins": ["https://app.example.com"]}), |fleet| {
        fleet["hostnames"] = json!(["mcp.example.com"]);
    })
    .await;
    let body = modern(1, "tools/call", json!({"name": "whoami"}));
    for bad in [
        ("origin", "https://evil.example.com"),
        ("origin", "null"),
        ("origin", "https://app.example.com.evil.com"),
        ("host", "evil.example.com"),
    ] {
        assert_eq!(alone.gateway.modern_with(&[bad], &body).await.status, 403, "{bad:?}");
    }
    assert!(pods[0].calls("whoami").is_empty());
    let own = format!("http://127.0.0.1:{}", alone.gateway.port);
    for good in [("origin", "https://app.example.com"), ("origin", "http://localhost:3000"), ("origin", &own)]
    {
        let reply = alone.gateway.modern_with(&[good], &body).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(good.1)));
        let exposed = reply.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
        assert!(exposed.contains("mcp-session-id") && exposed.contains("www-authenticate"), "{exposed}");
    }
    assert_eq!(alone.gateway.modern_with(&[("host", "localhost")], &body).await.status, 200);
    let headers = [("origin", "https://app.example.com"), ("access-control-request-method", "POST")];
    let reply = send(alone.gateway.port, "OPTIONS", MCP, &headers, Vec::new()).await;
    assert_eq!(reply.status, 204);
    assert!(reply.header("access-control-allow-methods").unwrap().contains("DELETE"));
    assert!(pods[0].seen("OPTIONS").is_empty());
}

// mcp.md section 2.4, G4: a bare 404 tells a dual-era client that the server is a legacy one.
#[tokio::test]
async fn an_unknown_route_is_503_for_modern_and_404_for_legacy_clients() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    for path in ["/tools/nothing/mcp", "/mcp", "/tools/demo"] {
        let version = [("mcp-protocol-version", MODERN), ("content-type", "application/json")];
        let body = modern(1, "server/discover", json!({})).to_string().into_bytes();
        let mut reply = send(alone.gateway.port, "POST", path, &version, body).await;
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.json().await["error"]["data"]["source"], "gateway");
        let body = initialize("2025-11-25").to_string().into_bytes();
        assert_eq!(send(alone.gateway.port, "POST", path, &version[1..], body).await.status, 404, "{path}");
    }
}

// JSON-RPC: what is no message is refused here, with an answer that is one.
#[tokio::test]
async fn a_body_that_is_no_message_is_400_and_reaches_no_pod() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    for (body, code) in [("", -32700), ("{", -32700), ("{\"jsonrpc\":\"2.0\"", -32700)] {
        let mut reply = alone.gateway.post_bytes(&[], body.as_bytes().to_vec()).await;
        assert_eq!((reply.status, &reply.json().await["error"]["code"]), (400, &json!(code)), "{body:?}");
    }
    assert!(pods[0].seen("POST").is_empty());
}
