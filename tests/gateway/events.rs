//! HTTP+SSE, the transport of 2024-11-05 (G25), and what OAuth clients look for (G26).

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    client::{Reply, modern, send, tool, until},
    pod::{Out, Pod, Speaks},
    world::{Alone, Gateway, World},
};

/// A server of the old transport, whose endpoint event is `event` with `{}` for its session.
fn speaks_sse(pod: &Pod, event: &'static str) {
    let stream: Arc<Mutex<Option<Out>>> = Arc::default();
    let session = format!("raw-sse-{}", pod.name());
    pod.script(move |seen, out| {
        let (stream, out, session) = (Arc::clone(&stream), out.clone(), session.clone());
        let (path, body) = (seen.path.clone(), seen.raw.clone());
        Some(
            async move {
                if path.starts_with("/sse") {
                    out.stream(&[]).await;
                    out.chunk(event.replace("{}", &session)).await;
                    *stream.lock() = Some(out);
                    return std::future::pending().await;
                }
                let held = stream.lock().clone();
                let (true, Some(held)) = (path.contains(&session), held) else {
                    return out.whole(404, &[], b"Could not find session").await;
                };
                out.whole(202, &[], b"Accepted").await;
                held.chunk([b": echo\r\ndata: ", &body[..], b"\r\n\r\n"].concat()).await;
            }
            .boxed(),
        )
    });
}

const PLAIN: &str = "event: endpoint\ndata: /messages/?session_id={}&x=1\n\n";

fn sse(fleet: &mut serde_json::Value) {
    fleet["transport"] = json!("SSE");
    fleet["path"] = json!("/sse");
}

async fn open(gateway: &Gateway) -> Reply {
    let reply =
        send(gateway.port, "GET", "/tools/demo/sse", &[("accept", "text/event-stream")], Vec::new()).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    reply
}

/// The path that the endpoint event names.
async fn endpoint(reply: &mut Reply) -> String {
    let event = reply.event().await.unwrap();
    let path = event.strip_prefix("event: endpoint\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
    path.unwrap_or_else(|| panic!("{event}")).to_owned()
}

async fn post(gateway: &Gateway, path: &str) -> Reply {
    let headers = [("content-type", "application/json"), ("authorization", "Bearer second")];
    send(gateway.port, "POST", path, &headers, tool(1, "x").to_string().into_bytes()).await
}

// G25: a path without the prefix would lead past the gateway, a raw id to the wrong pod.
#[tokio::test]
async fn the_endpoint_event_leads_through_any_gateway_to_its_pod() {
    let pods = [Pod::start("one", Speaks::Legacy).await, Pod::start("two", Speaks::Legacy).await];
    for pod in &pods {
        speaks_sse(pod, PLAIN);
    }
    let world = World::with(&pods, json!({}), sse).await;
    for i in 0..4 {
        let mut reply = open(world.both()[i % 2]).await;
        let path = endpoint(&mut reply).await;
        assert!(
            path.starts_with("/tools/demo/messages/?session_id=mf1.") && path.ends_with("&x=1"),
            "{path}"
        );
        assert!(!path.contains("raw-"));
        let owner =
            pods.iter().find(|p| p.seen("GET").iter().any(|s| !s.answered && s.left.is_none())).unwrap();
        for gateway in world.both() {
            let before = owner.seen("POST").len();
            assert_eq!(post(gateway, &path).await.status, 202);
            let seen = &owner.seen("POST")[before];
            assert_eq!(seen.path, format!("/messages/?session_id=raw-sse-{}&x=1", owner.name()));
            assert_eq!(seen.header("authorization"), Some("Bearer second"));
            // The answer comes on the stream, to the byte.
            let expected = format!(": echo\r\ndata: {}\r\n\r\n", tool(1, "x"));
            assert_eq!(reply.exactly(expected.len()).await, expected);
        }
        drop(reply);
        until("the end upstream", || owner.seen("GET").iter().all(|s| s.left.is_some())).await;
    }
}

// G25: a URI may be absolute, relative to the host, with either name of the session; lines may end either way.
#[tokio::test]
async fn every_form_of_the_endpoint_event_is_rewritten() {
    let forms = [
        ("event: endpoint\ndata: http://localhost:9/message?sessionId={}\n\n", "/message?sessionId="),
        ("id: 1\r\nevent:endpoint\r\ndata:/messages/?session_id={}\r\n\r\n", "/messages/?session_id="),
    ];
    for (form, rest) in forms {
        let pods = [Pod::start("one", Speaks::Legacy).await];
        speaks_sse(&pods[0], form);
        let alone = Alone::with(&pods, json!({}), sse).await;
        let mut reply = open(&alone.gateway).await;
        let mut event = String::new();
        while !event.ends_with("\n\n") && !event.ends_with("\r\n\r\n") {
            event += &reply.exactly(1).await;
        }
        let start = event.find("/tools/demo/").unwrap_or_else(|| panic!("{event}"));
        let path = event[start..].trim_end();
        assert!(path.starts_with(&format!("/tools/demo{rest}mf1.")), "{event}");
        assert!(!event.contains("localhost") && event.starts_with(&form[..4]), "{event}");
        assert_eq!(post(&alone.gateway, path).await.status, 202);
    }
}

// G25: servers answer a foreign session with nothing at all; nobody is asked.
#[tokio::test]
async fn an_unknown_session_of_a_stream_is_404_at_once() {
    let pods = [Pod::start("one", Speaks::Legacy).await];
    speaks_sse(&pods[0], PLAIN);
    let world = World::with(&pods, json!({}), sse).await;
    let mut reply = open(&world.a).await;
    let path = endpoint(&mut reply).await;
    let token = path.split(['=', '&']).nth(1).unwrap();
    for bad in ["raw-sse-one", "nonsense", &token[..token.len() - 2]] {
        let mut reply = post(&world.b, &path.replace(token, bad)).await;
        assert_eq!(reply.status, 404, "{bad}");
        assert_eq!(reply.json().await["error"]["data"]["source"], "gateway");
    }
    assert!(pods[0].seen("POST").is_empty());
    // Its pod is gone: its stream ends, and its posts lead nowhere.
    pods[0].kill();
    let began = Instant::now();
    while reply.event().await.is_some() {}
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(post(&world.b, &path).await.status, 404);
}

// G25: closed on drain, so that its client begins anew elsewhere.
#[tokio::test]
async fn a_quiet_stream_of_a_pod_that_leaves_is_ended() {
    let pods = [Pod::start("one", Speaks::Legacy).await, Pod::start("two", Speaks::Legacy).await];
    for pod in &pods {
        speaks_sse(pod, PLAIN);
    }
    let mut alone = Alone::with(&pods, json!({}), sse).await;
    let mut reply = open(&alone.gateway).await;
    endpoint(&mut reply).await;
    let (owner, other) =
        if pods[0].seen("GET").is_empty() { (&pods[1], &pods[0]) } else { (&pods[0], &pods[1]) };
    alone.gateway.list(&[other]);
    assert!(reply.event().await.is_none(), "an end as it should be");
    let again = open(&alone.gateway).await;
    assert_eq!((owner.seen("GET").len(), other.seen("GET").len(), again.status), (1, 1, 200));
}

const RESOURCE: &str = "/.well-known/oauth-protected-resource";

fn authorized(pod: &Pod) {
    let port = pod.address().port();
    pod.script(move |seen, out| {
        let (out, path) = (out.clone(), seen.path.clone());
        let challenge = match seen.tool() {
            "own" => {
                format!("Bearer resource_metadata=\"http://localhost:{port}{RESOURCE}/mcp\", scope=\"a b\"")
            }
            "public" => format!("Bearer resource_metadata=\"https://mcp.example.com{RESOURCE}/mcp\""),
            "step" => "Bearer error=\"insufficient_scope\"".to_owned(),
            _ if path.starts_with("/.well-known") => {
                return Some(async move { out.json(200, &[], &json!({"path": path})).await }.boxed());
            }
            _ => return None,
        };
        let status = if seen.tool() == "step" { 403 } else { 401 };
        Some(async move { out.whole(status, &[("WWW-Authenticate", &challenge)], b"").await }.boxed())
    });
}

// G26: metadata by the fleet's path, and at the root only where the host is the fleet's own.
#[tokio::test]
async fn metadata_is_found_by_path_and_by_the_fleets_own_host() {
    let pods = [Pod::start("one", Speaks::Both).await];
    authorized(&pods[0]);
    let alone = Alone::with(&pods, json!({}), |fleet| fleet["hostnames"] = json!(["mcp.example.com"])).await;
    let own = [("host", "mcp.example.com")];
    let by_path = format!("{RESOURCE}/tools/demo/mcp");
    let found = [
        (&by_path[..], &[][..], format!("{RESOURCE}/mcp")),
        (RESOURCE, &own[..], RESOURCE.to_owned()),
        ("/.well-known/oauth-protected-resource/mcp", &own[..], format!("{RESOURCE}/mcp")),
        (
            "/.well-known/oauth-authorization-server",
            &own[..],
            "/.well-known/oauth-authorization-server".to_owned(),
        ),
    ];
    for (path, headers, upstream) in found {
        let mut reply = send(alone.gateway.port, "GET", path, headers, Vec::new()).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.json().await["path"], upstream, "{path}");
    }
    let before = pods[0].seen("GET").len();
    for path in [
        RESOURCE,
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource/tools/x/mcp",
    ] {
        assert_eq!(send(alone.gateway.port, "GET", path, &[], Vec::new()).await.status, 404, "{path}");
    }
    assert_eq!(pods[0].seen("GET").len(), before);
}

// G26: a server that knows only the Host that it was sent names it; its client cannot reach that.
#[tokio::test]
async fn a_challenge_names_the_address_that_the_client_called() {
    let pods = [Pod::start("one", Speaks::Both).await];
    authorized(&pods[0]);
    let alone = Alone::with(&pods, json!({}), |fleet| fleet["hostnames"] = json!(["mcp.example.com"])).await;
    let call = |name: &str| modern(1, "tools/call", json!({"name": name}));
    let reply = alone.gateway.modern(&call("own")).await;
    let port = alone.gateway.port;
    let own = format!(
        "Bearer resource_metadata=\"http://127.0.0.1:{port}{RESOURCE}/tools/demo/mcp\", scope=\"a b\""
    );
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some(&*own)));
    let reply = alone.gateway.modern_with(&[("host", "mcp.example.com")], &call("own")).await;
    let by_host = format!("Bearer resource_metadata=\"http://mcp.example.com{RESOURCE}/mcp\", scope=\"a b\"");
    assert_eq!(reply.header("www-authenticate"), Some(&*by_host));
    let reply = alone.gateway.modern(&call("public")).await;
    let public = format!("Bearer resource_metadata=\"https://mcp.example.com{RESOURCE}/mcp\"");
    assert_eq!(reply.header("www-authenticate"), Some(&*public), "what the server knows better stays");
    let reply = alone.gateway.modern(&call("step")).await;
    assert_eq!(
        (reply.status, reply.header("www-authenticate")),
        (403, Some("Bearer error=\"insufficient_scope\""))
    );
    let breaker = alone.gateway.endpoint(&pods[0]).await;
    assert_eq!((&breaker["breaker"], &breaker["failuresInRow"]), (&json!("closed"), &json!(0)), "G28");
}
