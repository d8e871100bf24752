//! Which era a request belongs to, and which pods may see it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    client::{LEGACY, MCP, MODERN, initialize, modern, notification, on_session, request, send, text, tool},
    pod::{Pod, Speaks},
    world::{Alone, World},
};

fn whoami() -> serde_json::Value {
    modern(1, "tools/call", json!({"name": "whoami", "arguments": {}}))
}

// G1, G3: a choice that looks at load alone sends some of these to the wrong era.
#[tokio::test]
async fn each_era_of_a_mixed_fleet_reaches_its_own_pods_only() {
    let pods = [Pod::start("old", Speaks::Legacy).await, Pod::start("new", Speaks::Modern).await];
    let world = World::new(&pods, json!({})).await;
    for i in 0..12 {
        let gateway = world.both()[i % 2];
        assert_eq!(text(&gateway.modern(&whoami()).await.json().await), "new");
        assert_eq!(gateway.modern(&modern(2, "server/discover", json!({}))).await.status, 200);
        let token = gateway.open_session().await;
        assert_eq!(gateway.count(&token).await, 1);
    }
    assert_eq!(pods[0].seen("server/discover").len(), 0);
    assert_eq!((pods[0].calls("whoami").len(), pods[1].calls("whoami").len()), (0, 12));
    assert_eq!((pods[0].seen("initialize").len(), pods[1].seen("initialize").len()), (12, 0));
}

// G3, G4: a rolled-out pod that dies must not turn its clients into legacy ones.
#[tokio::test]
async fn a_modern_call_without_a_modern_pod_is_503_and_discover_is_answered_from_the_probe() {
    let pods = [Pod::start("old", Speaks::Legacy).await, Pod::start("new", Speaks::Modern).await];
    let settings = json!({"queue": {"timeoutSeconds": 1}, "timeouts": {"activationSeconds": 1}});
    let world = World::new(&pods, settings).await;
    pods[1].kill();
    for gateway in world.both() {
        let mut reply = gateway.modern(&modern("call-1", "tools/call", json!({"name": "whoami"}))).await;
        let body = reply.json().await;
        assert_eq!((reply.status, &body["id"]), (503, &json!("call-1")));
        assert_eq!(body["error"]["data"]["source"], "gateway");
        let mut reply = gateway.modern(&modern("d", "server/discover", json!({}))).await;
        let body = reply.json().await;
        assert_eq!((reply.status, &body["id"]), (200, &json!("d")));
        assert_eq!(body["result"]["supportedVersions"], json!([MODERN]));
        assert_eq!(body["result"]["serverInfo"]["name"], "scripted");
    }
    let old = &pods[0];
    assert_eq!((old.seen("tools/call").len(), old.seen("server/discover").len()), (0, 0));
}

// G3: the whole fleet gone, not only the modern part of it.
#[tokio::test]
async fn discover_is_answered_while_every_pod_is_down() {
    let pods = [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({"timeouts": {"activationSeconds": 1}})).await;
    pods.iter().for_each(Pod::kill);
    for id in 0..8 {
        let mut reply = alone.gateway.modern(&modern(id, "server/discover", json!({}))).await;
        let body = reply.json().await;
        assert_eq!((reply.status, &body["id"]), (200, &json!(id)), "{body}");
        assert_eq!(body["result"]["supportedVersions"], json!([MODERN]));
    }
}

// G3: a fleet that knows no modern revision: its own judgement, or -32022.
#[tokio::test]
async fn a_legacy_fleet_refuses_modern_requests_with_400_and_serves_on() {
    let pods = [Pod::start("old", Speaks::Legacy).await];
    let alone = Alone::new(&pods, json!({})).await;
    let mut reply = alone.gateway.modern(&modern(5, "server/discover", json!({}))).await;
    let body = reply.json().await;
    assert_eq!((reply.status, &body["id"]), (400, &json!(5)));
    assert!([json!(-32000), json!(-32022)].contains(&body["error"]["code"]), "{body}");
    let token = alone.gateway.open_session().await;
    assert_eq!(alone.gateway.count(&token).await, 1);
}

// G1: revisions are compared as dates; whoever knows a fixed list takes tomorrow's for legacy.
#[tokio::test]
async fn a_later_date_is_modern_and_no_date_is_legacy() {
    let pods = [Pod::start("old", Speaks::Legacy).await, Pod::start("new", Speaks::Modern).await];
    let alone = Alone::new(&pods, json!({})).await;
    let mut later = whoami();
    later["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2027-03-01");
    let headers =
        [("mcp-protocol-version", "2027-03-01"), ("mcp-method", "tools/call"), ("mcp-name", "whoami")];
    let mut reply = alone.gateway.post(&headers, &later).await;
    assert_eq!(text(&reply.json().await), "new");
    let session = alone.gateway.open_session().await;
    let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "DRAFT-2026-v1")];
    let mut reply = alone.gateway.post(&headers, &tool(1, "whoami")).await;
    assert_eq!(text(&reply.json().await), "old");
    let seen = &pods[0].calls("whoami")[0];
    assert_eq!(seen.header("mcp-protocol-version"), Some("DRAFT-2026-v1"), "passed on as it was");
}

// G2: a session id means nothing on a modern request, and none is added or let through.
#[tokio::test]
async fn a_modern_request_has_no_session() {
    let pods = [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await];
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    for id in [session.as_str(), "nonsense"] {
        for gateway in world.both() {
            let reply = gateway.modern_with(&[("mcp-session-id", id)], &whoami()).await;
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("mcp-session-id"), None);
        }
    }
    for seen in pods.iter().flat_map(|p| p.calls("whoami")) {
        assert_eq!(seen.header("mcp-session-id"), None);
    }
    // Pinned, all of them would be at one pod.
    for _ in 0..16 {
        world.a.modern_with(&[("mcp-session-id", &session)], &whoami()).await;
    }
    assert!(pods.iter().all(|p| !p.calls("whoami").is_empty()));
}

// mcp.md section 2.3: nothing to GET or DELETE in a modern server.
#[tokio::test]
async fn modern_get_and_delete_are_405_without_a_pod() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    for method in ["GET", "DELETE"] {
        let headers = [("mcp-protocol-version", MODERN), ("mcp-session-id", "x")];
        let reply = send(alone.gateway.port, method, MCP, &headers, Vec::new()).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
        assert!(pods[0].seen(method).is_empty());
    }
}

// G1, G22: every way to say one thing in the headers and another in the body.
#[tokio::test]
async fn headers_that_the_body_contradicts_are_400_and_reach_no_pod() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    let version = ("mcp-protocol-version", MODERN);
    let (method, name) = (("mcp-method", "tools/call"), ("mcp-name", "whoami"));
    let wrong: [(&str, &[(&str, &str)]); 8] = [
        ("no version", &[method, name]),
        ("another version", &[("mcp-protocol-version", "2027-01-01"), method, name]),
        ("no method", &[version, name]),
        ("another method", &[version, ("mcp-method", "tools/list"), name]),
        ("method in other case", &[version, ("mcp-method", "Tools/Call"), name]),
        ("no name", &[version, method]),
        ("another name", &[version, method, ("mcp-name", "delete_all")]),
        ("no base64", &[version, method, ("mcp-name", "=?base64?%%%?=")]),
    ];
    for (what, headers) in wrong {
        let mut reply = alone.gateway.post(headers, &whoami()).await;
        let body = reply.json().await;
        assert_eq!((reply.status, &body["error"]["code"]), (400, &json!(-32020)), "{what}");
        assert_eq!((&body["id"], &body["error"]["data"]["source"]), (&json!(1), &json!("gateway")), "{what}");
    }
    assert!(pods[0].seen("tools/call").is_empty());
    // The same name in its other form is no contradiction, and passes as the client wrote it.
    let encoded = format!("=?base64?{}?=", STANDARD.encode("whoami"));
    assert_eq!(alone.gateway.post(&[version, method, ("mcp-name", &encoded)], &whoami()).await.status, 200);
    assert_eq!(pods[0].seen("tools/call")[0].header("mcp-name"), Some(&*encoded));
    let umlaut = modern(2, "tools/call", json!({"name": "w\u{e4}hler"}));
    assert_eq!(
        alone.gateway.post(&[version, method, ("mcp-name", "w\u{e4}hler")], &umlaut).await.status,
        200
    );
    assert_eq!(pods[0].seen("tools/call")[1].header("mcp-name"), Some("w\u{e4}hler"), "as go sends it");
}

// G22: on a legacy request these headers are somebody's own, and route nothing.
#[tokio::test]
async fn routing_headers_of_a_legacy_request_are_not_believed() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    let session = alone.gateway.open_session().await;
    let headers = [&on_session(&session)[..], &[("mcp-method", "tasks/get"), ("mcp-name", "x")]].concat();
    let mut reply = alone.gateway.post(&headers, &tool(1, "whoami")).await;
    assert_eq!(text(&reply.json().await), "one");
    let twice = [&on_session(&session)[..], &[("mcp-session-id", "other")]].concat();
    assert_eq!(alone.gateway.post(&twice, &tool(1, "whoami")).await.status, 400, "which one is meant?");
}

// G11, G12: whatever a server may need arrives as it was sent; Host is the server's own.
#[tokio::test]
async fn headers_pass_as_they_are_and_host_does_not() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    let session = alone.gateway.open_session().await;
    let more = [
        ("mcp-param-region", "=?base64?w6Q=?="),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("last-event-id", "7/3"),
        ("origin", "http://localhost:5173"),
        ("accept-encoding", "gzip"),
        ("x-forwarded-for", "6.6.6.6"),
    ];
    let headers = [&on_session(&session)[..], &more].concat();
    assert_eq!(alone.gateway.post(&headers, &tool(1, "whoami")).await.status, 200);
    let seen = &pods[0].calls("whoami")[0];
    for (name, value) in &more[..4] {
        assert_eq!(seen.header(name), Some(*value), "{name}");
    }
    assert_eq!(seen.header("authorization"), Some("Bearer second"));
    assert_eq!(seen.header("accept"), Some("application/json, text/event-stream"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("accept-encoding"), None, "G13: answers have to be readable");
    assert_eq!(seen.header("host"), Some(&*format!("localhost:{}", pods[0].address().port())));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"), "not what a client makes of itself");
}

// G24: a batch of 2025-03-26 is one thing, and goes to the pod of its session to the byte.
#[tokio::test]
async fn a_batch_passes_whole_to_the_pod_of_its_session() {
    let pods = [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await];
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let owner = pods.iter().position(|p| !p.seen("initialize").is_empty()).unwrap();
    let batch = format!("[{},\n  {} , {}]", tool(1, "whoami"), tool("b", "whoami"), notification("x"));
    for gateway in world.both() {
        let headers = [("mcp-session-id", session.as_str())];
        assert_eq!(gateway.post_bytes(&headers, batch.clone().into_bytes()).await.status, 202);
    }
    let got = |pod: &Pod| pod.all().into_iter().filter(|s| s.body.is_array()).collect::<Vec<_>>();
    assert_eq!((got(&pods[owner]).len(), got(&pods[1 - owner]).len()), (2, 0));
    assert!(got(&pods[owner]).iter().all(|s| s.raw == batch.as_bytes()));
}

// G6: `initialize` opens a session wherever there is room, whatever header an old client still carries.
#[tokio::test]
async fn initialize_with_an_old_session_opens_a_new_one() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    let old = alone.gateway.open_session().await;
    let reply = alone.gateway.post(&[("mcp-session-id", &old)], &initialize(LEGACY)).await;
    assert_eq!(reply.status, 200);
    let new = reply.header("mcp-session-id").unwrap().to_owned();
    assert_ne!(new, old);
    assert!(pods[0].seen("initialize").iter().all(|s| s.header("mcp-session-id").is_none()));
    assert_eq!((alone.gateway.count(&old).await, alone.gateway.count(&new).await), (1, 1));
    assert_eq!(alone.gateway.on(&new, &request(2, "ping", json!({}))).await.status, 200);
}
