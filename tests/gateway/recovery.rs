//! Sessions whose pod is gone, or has forgotten them (G8; gateway.md section 2).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::FutureExt as _;
use serde_json::{Value, json};

use crate::{
    client::{LEGACY, Reply, initialize, notification, on_session, text, tool},
    pod::{Pod, Speaks, error},
    world::{Alone, World},
};

async fn three() -> [Pod; 3] {
    [
        Pod::start("one", Speaks::Both).await,
        Pod::start("two", Speaks::Both).await,
        Pod::start("three", Speaks::Both).await,
    ]
}

fn initialized(pods: &[Pod]) -> usize {
    pods.iter().map(|p| p.seen("initialize").len()).sum()
}

/// The pod on which a session was opened; the only one with an `initialize`.
fn owner(pods: &[Pod]) -> &Pod {
    pods.iter().find(|p| !p.seen("initialize").is_empty()).unwrap()
}

async fn is_gone(mut reply: Reply) {
    let body = reply.json().await;
    assert_eq!((reply.status, body.get("id")), (404, Some(&Value::Null)), "{body}");
}

// G8: the same token goes on, made again once for both gateways: a counter of the session never skips.
#[tokio::test]
async fn a_session_whose_pod_dies_goes_on_elsewhere_once_for_both_gateways() {
    let pods = three().await;
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let first = owner(&pods).clone();
    assert_eq!((world.a.count(&session).await, world.b.count(&session).await), (1, 2));
    first.kill();
    let counts = [
        world.b.count(&session).await,
        world.a.count(&session).await,
        world.b.count(&session).await,
        world.a.count(&session).await,
    ];
    assert_eq!(counts, [1, 2, 3, 4], "two sessions behind one id would read 1, 1, 2, 2");
    assert_eq!(initialized(&pods), 2);
    let second = pods.iter().find(|p| p.name() != first.name() && !p.seen("initialize").is_empty()).unwrap();
    let mut reply = world.a.on(&session, &tool(3, "whoami")).await;
    assert_eq!(reply.header("mcp-session-id"), Some(&*session), "the token of the client stays");
    assert_eq!(text(&reply.json().await), second.name());
    // And again.
    second.kill();
    let counts = [world.a.count(&session).await, world.b.count(&session).await];
    assert_eq!((counts, initialized(&pods)), ([1, 2], 3));
    let moved = world.a.metric("mcp_fleet_gateway_sessions_moved_total", &[]).await
        + world.b.metric("mcp_fleet_gateway_sessions_moved_total", &[]).await;
    assert!((moved - 2.0).abs() < 0.1, "counted once each: {moved}");
}

// G8: what the new pod gets: the negotiated version, the credential of now, and the rest of the handshake.
#[tokio::test]
async fn the_handshake_is_replayed_with_the_negotiated_version_and_the_current_credential() {
    let pods = three().await;
    for pod in &pods {
        pod.negotiate("2025-06-18");
    }
    let world = World::new(&pods, json!({})).await;
    let reply = world.a.post(&[("authorization", "Bearer first")], &initialize(LEGACY)).await;
    let session = reply.header("mcp-session-id").unwrap().to_owned();
    let first = owner(&pods).clone();
    first.kill();
    // Not the credential of `initialize`, which may have expired.
    let call = world.b.on(&session, &tool(1, "counter")).await;
    assert_eq!(call.status, 200);
    let second = pods.iter().find(|p| p.name() != first.name() && !p.seen("initialize").is_empty()).unwrap();
    let seen = second.seen("POST");
    let methods: Vec<_> = seen.iter().map(|s| s.method().to_owned()).collect();
    assert_eq!(methods, ["initialize", "notifications/initialized", "tools/call"]);
    let params = &seen[0].body["params"];
    assert_eq!(params["protocolVersion"], "2025-06-18", "negotiated, not the one asked for");
    assert_eq!(params["capabilities"], json!({"roots": {}}));
    assert_eq!(params["clientInfo"], json!({"name": "blackbox", "version": "1"}), "without what is long");
    assert!(seen.iter().all(|s| s.header("authorization") == Some("Bearer second")));
    assert_eq!(seen[0].header("mcp-session-id"), None);
    let new = seen[1].header("mcp-session-id").unwrap();
    assert!(new.starts_with("raw-") && seen[2].header("mcp-session-id") == Some(new));
    assert_eq!(seen[1].header("mcp-protocol-version"), Some("2025-06-18"));
}

// G8: single-flight. Without it, each of these makes a session of its own.
#[tokio::test]
async fn calls_at_the_same_time_make_one_new_session() {
    let pods = three().await;
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    owner(&pods).kill();
    let calls = (0..10).map(|i| world.both()[i % 2].count(&session));
    let mut counts = futures::future::join_all(calls).await;
    counts.sort_unstable();
    assert_eq!(counts, (1..=10).collect::<Vec<_>>());
    assert_eq!(initialized(&pods), 2);
}

// G8, G10: where a moved session lives is not in its token; a gateway that starts asks the others.
#[tokio::test]
async fn a_gateway_that_starts_learns_where_moved_sessions_live() {
    let pods = three().await;
    let mut world = World::new(&pods, json!({})).await;
    let sessions = [world.a.open_session().await, world.a.open_session().await];
    let gone = pods.iter().find(|p| !p.seen("initialize").is_empty()).unwrap();
    gone.kill();
    let before = [world.b.count(&sessions[0]).await, world.b.count(&sessions[1]).await];
    let made = initialized(&pods);
    world.a.restart().await;
    for (session, count) in sessions.iter().zip(before) {
        assert_eq!(world.a.count(session).await, count + 1);
    }
    assert_eq!(initialized(&pods), made);
    world.b.restart().await;
    for (session, count) in sessions.iter().zip(before) {
        assert_eq!(world.b.count(session).await, count + 2);
    }
    assert_eq!(initialized(&pods), made, "a restart is no reason to make a session again");
}

// G8: the owner's own 404 proves that the call was not executed: once again, on a new session.
#[tokio::test]
async fn a_404_of_the_owner_makes_the_session_again_and_repeats_the_call_once() {
    let pods = [Pod::start("one", Speaks::Legacy).await];
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    assert_eq!(world.a.count(&session).await, 1);
    pods[0].forget_sessions();
    assert_eq!((world.b.count(&session).await, world.a.count(&session).await), (1, 2));
    assert_eq!((initialized(&pods), pods[0].calls("counter").len()), (2, 4), "one of them was refused");
    // A container that restarts keeps its address and nothing else.
    pods[0].kill();
    pods[0].revive().await;
    assert_eq!((world.a.count(&session).await, world.b.count(&session).await), (1, 2));
    // GET and notifications find it as well.
    pods[0].forget_sessions();
    let reply = world.b.bare("GET", &session).await;
    assert_eq!((reply.status, reply.header("mcp-session-id")), (200, Some(&*session)));
    pods[0].forget_sessions();
    assert_eq!(world.a.on(&session, &notification("notifications/cancelled")).await.status, 202);
    assert_eq!(world.a.count(&session).await, 1);
}

// G7, G8: once. A server that forgets whatever it is told ends it, with 404 and no id.
#[tokio::test]
async fn a_second_404_is_the_end() {
    let pods = [Pod::start("one", Speaks::Legacy).await];
    let alone = Alone::new(&pods, json!({})).await;
    let session = alone.gateway.open_session().await;
    pods[0].script(|seen, out| {
        let (out, id) = (out.clone(), seen.body["id"].clone());
        (seen.tool() == "counter").then(|| {
            async move {
                out.json(404, &[("Mcp-Session-Id", "raw-phantom")], &error(&id, -32600, "no session")).await;
            }
            .boxed()
        })
    });
    is_gone(alone.gateway.on(&session, &tool(4, "counter")).await).await;
    assert_eq!((pods[0].calls("counter").len(), initialized(&pods)), (2, 2));
}

// G8: server-everything says 400, which alone proves nothing; a ping does.
#[tokio::test]
async fn a_400_counts_as_forgotten_only_if_a_ping_says_so_too() {
    let pods = [Pod::start("one", Speaks::Legacy).await];
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    pods[0].script(|seen, out| {
        let (out, id) = (out.clone(), seen.body["id"].clone());
        (seen.tool() == "picky").then(|| {
            async move {
                out.json(400, &[], &error(&id, -32602, "a bad argument")).await;
            }
            .boxed()
        })
    });
    let mut reply = world.a.on(&session, &tool(4, "picky")).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json().await["error"]["message"], "a bad argument", "passed on as it was");
    assert_eq!((pods[0].calls("picky").len(), initialized(&pods)), (1, 1));
    let old = pods[0].calls("picky")[0].header("mcp-session-id").unwrap().to_owned();
    pods[0].script(move |seen, out| {
        let (out, id) = (out.clone(), seen.body["id"].clone());
        (seen.header("mcp-session-id") == Some(&*old)).then(|| {
            async move {
                out.json(400, &[], &error(&id, -32000, "Bad Request: No valid session ID provided")).await;
            }
            .boxed()
        })
    });
    assert_eq!((world.b.count(&session).await, world.a.count(&session).await), (1, 2));
    assert_eq!(initialized(&pods), 2);
}

// G8, G17: bytes that were delivered are not sent again; the client gets an error that spares its transport.
#[tokio::test]
async fn a_call_that_was_delivered_is_never_sent_twice() {
    let pods = three().await;
    for pod in &pods {
        pod.script(|seen, out| {
            let out = out.clone();
            (seen.tool() == "pay").then(|| async move { out.cut() }.boxed())
        });
    }
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let first = owner(&pods).clone();
    for gateway in world.both() {
        let mut reply = gateway.on(&session, &tool("p-1", "pay")).await;
        let body = reply.json().await;
        assert_eq!((reply.status, &body["id"]), (200, &json!("p-1")), "{body}");
        assert_eq!(body["error"]["data"]["source"], "gateway");
    }
    let paid: usize = pods.iter().map(|p| p.calls("pay").len()).sum();
    assert_eq!((paid, initialized(&pods)), (2, 1), "once for each call of the client");
    assert_eq!((world.a.count(&session).await, world.b.count(&session).await), (1, 2), "its pod lives");
    // The pod dies under a call.
    let session = session.as_str();
    let call = tool(9, "slow");
    let (mut reply, ()) = tokio::join!(world.a.on(session, &call), async {
        crate::client::until("a running call", || first.calls("slow").len() == 1).await;
        first.kill();
    });
    let body = reply.json().await;
    assert_eq!((reply.status, &body["id"]), (200, &json!(9)), "{body}");
    let slow: usize = pods.iter().map(|p| p.calls("slow").len()).sum();
    assert_eq!(slow, 1);
    assert_eq!((world.b.count(session).await, world.a.count(session).await), (1, 2), "the next one moves it");
}

// G8: the opt-out. What was in the session is gone, and nobody pretends otherwise.
#[tokio::test]
async fn without_recovery_a_lost_session_is_404() {
    let pods = three().await;
    let world = World::new(&pods, json!({"sessionRecovery": "Disabled"})).await;
    let session = world.a.open_session().await;
    owner(&pods).forget_sessions();
    is_gone(world.b.on(&session, &tool(1, "counter")).await).await;
    owner(&pods).kill();
    for gateway in world.both() {
        is_gone(gateway.on(&session, &tool(1, "counter")).await).await;
        is_gone(gateway.bare("GET", &session).await).await;
    }
    assert_eq!(initialized(&pods), 1);
    let lost = world.a.metric("mcp_fleet_gateway_sessions_lost_total", &[]).await;
    assert!(lost >= 1.0, "counted: {lost}");
}

// gateway.md section 2: a client cannot be told that its revision has changed.
#[tokio::test]
async fn a_pod_that_negotiates_another_version_does_not_take_the_session() {
    let pods = [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await];
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let first = owner(&pods).name();
    let other = pods.iter().find(|p| p.name() != first).unwrap();
    other.negotiate("2025-03-26");
    owner(&pods).kill();
    is_gone(world.b.on(&session, &tool(1, "counter")).await).await;
    assert!(other.calls("counter").is_empty());
}

// G8: a pod that refuses the replayed handshake is not the last one.
#[tokio::test]
async fn a_session_that_one_pod_does_not_take_goes_to_the_next() {
    let pods = three().await;
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let refused = Arc::new(AtomicUsize::new(0));
    for pod in &pods {
        let refused = Arc::clone(&refused);
        pod.script(move |seen, out| {
            let out = out.clone();
            let first = seen.method() == "initialize" && refused.fetch_add(1, Ordering::SeqCst) == 0;
            first.then(|| async move { out.whole(503, &[], b"full").await }.boxed())
        });
    }
    owner(&pods).kill();
    assert_eq!((world.b.count(&session).await, world.a.count(&session).await), (1, 2));
    assert_eq!(refused.load(Ordering::SeqCst), 2);
}

// G27: recovery uses the credential of the request that needs it, also where another gateway is the home.
#[tokio::test]
async fn the_current_credential_travels_to_the_home_of_the_session() {
    let pods = three().await;
    let world = World::new(&pods, json!({})).await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(world.a.open_session().await);
    }
    let gone = pods.iter().find(|p| p.seen("initialize").len() > 1).unwrap();
    let known: usize = initialized(&pods);
    gone.kill();
    for session in &sessions {
        let mut headers = on_session(session).to_vec();
        headers[2].1 = "Bearer third";
        assert_eq!(world.b.post(&headers, &tool(1, "counter")).await.status, 200);
    }
    let replayed: Vec<_> = pods
        .iter()
        .flat_map(|p| p.seen("initialize"))
        .filter(|s| s.header("authorization") != Some("Bearer first"))
        .collect();
    assert!(!replayed.is_empty() && initialized(&pods) == known + replayed.len());
    assert!(replayed.iter().all(|s| s.header("authorization") == Some("Bearer third")));
}
