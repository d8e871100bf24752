//! Legacy sessions: sealed once, echoed for ever, bound to their pod through every gateway.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::FutureExt as _;
use serde_json::{Value, json};

use crate::{
    client::{LEGACY, Reply, initialize, notification, on_session, request, send, text, tool},
    pod::{Pod, Speaks, error},
    world::{Alone, World, fleet},
};

async fn two() -> [Pod; 2] {
    [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await]
}

/// Nothing that a pod calls its own, in any header or in the body.
async fn leaks_nothing(reply: &mut Reply) {
    let headers = format!("{:?}", reply.headers);
    assert!(!headers.contains("raw-"), "{headers}");
    let body = String::from_utf8(reply.bytes().await).unwrap();
    assert!(!body.contains("raw-"), "{body}");
}

async fn is_gone(mut reply: Reply) {
    assert_eq!(reply.status, 404);
    let body = reply.json().await;
    assert_eq!(body["jsonrpc"], "2.0");
    assert_eq!(body.get("id"), Some(&Value::Null), "{body}");
    assert_eq!(body["error"]["data"]["source"], "gateway");
    assert!(body["error"]["code"].is_i64() && body["error"]["message"].is_string());
}

// G5, G6, G10: one token, the very same bytes on every answer of both gateways, one pod behind it.
#[tokio::test]
async fn a_session_is_sealed_once_and_echoed_to_the_byte_through_both_gateways() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    for part in session.trim_start_matches("mf1.").split('.') {
        let inside = URL_SAFE_NO_PAD.decode(part).unwrap();
        assert!(!inside.windows(4).any(|w| w == b"raw-"), "sealed, not only written otherwise");
    }
    for i in 1..=6 {
        let gateway = world.both()[i % 2];
        let mut reply = gateway.on(&session, &tool(1, "counter")).await;
        assert_eq!(reply.header("mcp-session-id"), Some(&*session));
        assert_eq!(text(&reply.json().await), i.to_string());
        let mut reply = gateway.on(&session, &notification("notifications/roots/list_changed")).await;
        assert_eq!((reply.status, reply.header("mcp-session-id")), (202, Some(&*session)));
        leaks_nothing(&mut reply).await;
        let answer = json!({"jsonrpc": "2.0", "id": "s-1", "result": {"roots": []}});
        assert_eq!(gateway.on(&session, &answer).await.status, 202);
        let reply = gateway.bare("GET", &session).await;
        assert_eq!((reply.status, reply.header("mcp-session-id")), (200, Some(&*session)));
    }
    let (owner, other) = if pods[0].seen("initialize").is_empty() { (1, 0) } else { (0, 1) };
    assert!(pods[other].seen("POST").is_empty() && pods[other].seen("GET").is_empty());
    let upstream: Vec<_> = pods[owner]
        .seen("tools/call")
        .iter()
        .chain(&pods[owner].seen("GET"))
        .map(|s| s.header("mcp-session-id").unwrap().to_owned())
        .collect();
    assert_eq!(upstream.len(), 12);
    assert!(upstream.iter().all(|id| *id == upstream[0] && id.starts_with("raw-")));
}

// G5: servers put a fresh, dead id on 4xx answers; a client that adopts it has lost its session.
#[tokio::test]
async fn raw_ids_never_come_through_on_bad_answers_either() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    for pod in &pods {
        pod.script(|seen, out| {
            let (out, status) = (
                out.clone(),
                match seen.tool() {
                    "not acceptable" => 406,
                    "bad" => 400,
                    "broken" => 500,
                    _ => return None,
                },
            );
            Some(
                async move {
                    out.json(status, &[("Mcp-Session-Id", "raw-phantom")], &error(&json!(1), -32600, "no"))
                        .await;
                }
                .boxed(),
            )
        });
    }
    for gateway in world.both() {
        for (name, status) in [("not acceptable", 406), ("bad", 400), ("broken", 500)] {
            let mut reply = gateway.on(&session, &tool(1, name)).await;
            assert_eq!((reply.status, reply.header("mcp-session-id")), (status, Some(&*session)));
            leaks_nothing(&mut reply).await;
        }
        let mut reply = gateway.post(&[], &tool(1, "whoami")).await;
        assert_eq!((reply.status, reply.header("mcp-session-id")), (400, None), "no session, no header");
        leaks_nothing(&mut reply).await;
        assert!(gateway.count(&session).await > 0, "and the session goes on");
    }
}

// G5: only an initialize that went well binds.
#[tokio::test]
async fn an_initialize_that_fails_or_keeps_no_session_gives_none() {
    let pods = [Pod::start("one", Speaks::Legacy).await];
    let alone = Alone::new(&pods, json!({})).await;
    pods[0].script(|seen, out| {
        let (out, id) = (out.clone(), seen.body["id"].clone());
        (seen.method() == "initialize").then(|| {
            async move {
                out.json(406, &[("Mcp-Session-Id", "raw-phantom")], &error(&id, -32600, "no")).await;
            }
            .boxed()
        })
    });
    let mut reply = alone.gateway.post(&[], &initialize(LEGACY)).await;
    assert_eq!((reply.status, reply.header("mcp-session-id")), (406, None));
    leaks_nothing(&mut reply).await;
    pods[0].script(|seen, out| {
        let (out, request) = (out.clone(), seen.body.clone());
        (seen.method() == "initialize").then(|| {
            async move {
                let result = json!({"protocolVersion": LEGACY, "capabilities": {}});
                out.json(200, &[], &crate::pod::result(&request, result, false)).await;
            }
            .boxed()
        })
    });
    let mut reply = alone.gateway.post(&[], &initialize(LEGACY)).await;
    assert_eq!((reply.status, reply.header("mcp-session-id")), (200, None), "a server without sessions");
    assert_eq!(reply.json().await["result"]["protocolVersion"], LEGACY);
}

// G5, go servers: the answer to initialize comes as a stream of events, and binds as well.
#[tokio::test]
async fn an_initialize_that_is_answered_as_events_binds_and_can_move() {
    let pods = two().await;
    for pod in &pods {
        let name = pod.name();
        pod.script(move |seen, out| {
            let (out, request) = (out.clone(), seen.body.clone());
            match seen.method() {
                "initialize" => Some(
                    async move {
                        out.stream(&[("Mcp-Session-Id", "raw-go")]).await;
                        let result = json!({"protocolVersion": LEGACY, "capabilities": {}});
                        let message = crate::pod::result(&request, result, false);
                        out.chunk(format!("id: 1\nevent: message\ndata: {message}\n\n")).await;
                        out.finish().await;
                    }
                    .boxed(),
                ),
                "tools/call" => Some(
                    async move {
                        out.json(200, &[], &crate::pod::result(&request, crate::pod::says(name), false))
                            .await;
                    }
                    .boxed(),
                ),
                "notifications/initialized" => Some(async move { out.whole(202, &[], b"").await }.boxed()),
                _ => None,
            }
        });
    }
    let world = World::new(&pods, json!({})).await;
    let mut reply = world.a.post(&[], &initialize(LEGACY)).await;
    let session = reply.header("mcp-session-id").unwrap().to_owned();
    assert!(reply.event().await.unwrap().starts_with("id: 1\n"), "passed on from its beginning");
    assert!(!session.contains("raw"));
    let owner = pods.iter().position(|p| !p.seen("initialize").is_empty()).unwrap();
    let mut reply = world.b.on(&session, &tool(1, "whoami")).await;
    assert_eq!(text(&reply.json().await), pods[owner].name());
    pods[owner].kill();
    let mut reply = world.b.on(&session, &tool(1, "whoami")).await;
    assert_eq!(text(&reply.json().await), pods[1 - owner].name(), "the handshake is in the token");
}

// G7: what no pod can know is not asked of one, and says so in a way that clients begin anew.
#[tokio::test]
async fn a_session_that_nobody_minted_is_404_with_id_null() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let mut forged = session.clone().into_bytes();
    forged[40] = if forged[40] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let other = fleet("other", &pods, &json!({}));
    for gateway in [&mut world.a, &mut world.b] {
        gateway.add_fleet(other.clone());
    }
    let before: usize = pods.iter().map(|p| p.seen("POST").len()).sum();
    for gateway in world.both() {
        for token in ["3f2a", "raw-one-1", &forged, "mf1.AAAA"] {
            is_gone(gateway.on(token, &tool(9, "whoami")).await).await;
            is_gone(gateway.bare("GET", token).await).await;
            is_gone(gateway.bare("DELETE", token).await).await;
        }
        crate::client::soon("another fleet", async {
            while gateway.debug("/admin/fleets").await["fleets"].as_array().unwrap().len() < 2 {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        // G10: the token is good, for its own fleet.
        let headers = [&on_session(&session)[..], &[("content-type", "application/json")]].concat();
        let body = tool(9, "whoami").to_string().into_bytes();
        is_gone(send(gateway.port, "POST", "/tools/other/mcp", &headers, body).await).await;
    }
    assert_eq!(pods.iter().map(|p| p.seen("POST").len()).sum::<usize>(), before, "no pod was asked");
    assert_eq!(world.b.count(&session).await, 1);
}

// G9: the owner decides, and what its client ended no gateway brings back.
#[tokio::test]
async fn delete_reaches_the_owner_only_and_ends_the_session_for_both_gateways() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    assert_eq!(world.a.count(&session).await, 1);
    let reply = world.b.bare("DELETE", &session).await;
    assert_eq!(reply.status, 200);
    let deletes = |pod: &Pod| pod.seen("DELETE");
    let owner = pods.iter().position(|p| !p.seen("initialize").is_empty()).unwrap();
    assert_eq!((deletes(&pods[owner]).len(), deletes(&pods[1 - owner]).len()), (1, 0));
    assert!(deletes(&pods[owner])[0].header("mcp-session-id").unwrap().starts_with("raw-"));
    for gateway in world.both() {
        is_gone(gateway.on(&session, &tool(1, "counter")).await).await;
        is_gone(gateway.bare("GET", &session).await).await;
        is_gone(gateway.bare("DELETE", &session).await).await;
    }
    let initialized: usize = pods.iter().map(|p| p.seen("initialize").len()).sum();
    assert_eq!(initialized, 1, "nobody made it again");
}

// G9: a server that allows no DELETE keeps its session.
#[tokio::test]
async fn delete_that_is_answered_405_keeps_the_session() {
    let pods = [Pod::start("one", Speaks::Legacy).await];
    let world = World::new(&pods, json!({})).await;
    pods[0].script(|seen, out| {
        let out = out.clone();
        (seen.http == "DELETE").then(|| async move { out.whole(405, &[], b"").await }.boxed())
    });
    let session = world.a.open_session().await;
    assert_eq!(world.a.count(&session).await, 1);
    assert_eq!(world.b.bare("DELETE", &session).await.status, 405);
    assert_eq!((world.a.count(&session).await, world.b.count(&session).await), (2, 3));
}

// G9: a session whose owner is gone is ended all the same, and is not made again to be ended.
#[tokio::test]
async fn delete_of_a_session_whose_pod_is_gone_ends_it() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let owner = pods.iter().position(|p| !p.seen("initialize").is_empty()).unwrap();
    pods[owner].kill();
    let status = world.b.bare("DELETE", &session).await.status;
    assert!((200..300).contains(&status), "{status}");
    for gateway in world.both() {
        is_gone(gateway.on(&session, &tool(1, "counter")).await).await;
    }
    assert!(pods[1 - owner].seen("initialize").is_empty() && pods[1 - owner].seen("DELETE").is_empty());
}

// G10: nothing that a session needs is in the process.
#[tokio::test]
async fn sessions_survive_a_restart_of_every_gateway() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let sessions = [world.a.open_session().await, world.b.open_session().await];
    for session in &sessions {
        assert_eq!(world.a.count(session).await, 1);
    }
    world.a.restart().await;
    world.b.restart().await;
    for session in &sessions {
        let mut reply = world.b.on(session, &tool(1, "counter")).await;
        assert_eq!(reply.header("mcp-session-id"), Some(&**session));
        assert_eq!(text(&reply.json().await), "2", "the same session at the same pod");
        assert_eq!(world.a.count(session).await, 3);
    }
    let initialized: usize = pods.iter().map(|p| p.seen("initialize").len()).sum();
    assert_eq!(initialized, 2);
}

// G6, mcp.md section 2.2: who resumes a stream of a session that has not moved names the pod's own event.
#[tokio::test]
async fn last_event_id_reaches_the_pod_as_it_was_sent() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    for last in ["17", "stream-1/42", "a:b:c"] {
        let headers =
            [("accept", "text/event-stream"), ("mcp-session-id", &*session), ("last-event-id", last)];
        assert_eq!(send(world.b.port, "GET", crate::client::MCP, &headers, Vec::new()).await.status, 200);
        let seen = pods.iter().flat_map(|p| p.seen("GET")).find(|s| s.header("last-event-id") == Some(last));
        assert!(seen.is_some(), "{last}");
    }
}

// G6: the pod of a session that is overlooked once in twenty is found by many sessions.
#[tokio::test]
async fn many_sessions_each_keep_to_their_pod() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    let mut sessions = Vec::new();
    for i in 0..16 {
        sessions.push(world.both()[i % 2].open_session().await);
    }
    for round in 1..=3 {
        for (i, session) in sessions.iter().enumerate() {
            assert_eq!(world.both()[(i + round) % 2].count(session).await, round as u64);
        }
    }
    assert!(pods.iter().all(|p| p.seen("initialize").len() > 2), "both pods have some");
    let ping = world.a.on(&sessions[0], &request(1, "ping", json!({}))).await;
    assert_eq!(ping.status, 200);
}
