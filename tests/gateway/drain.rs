//! The end of a pod and the end of a gateway: nothing that runs is cut, nothing new begins (G31, G18, G21).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    client::{LEGACY, MCP, MODERN, modern, send, soon, text, tool, try_send, until},
    pod::{Pod, Speaks},
    world::World,
};

async fn two() -> [Pod; 2] {
    [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await]
}

/// The pod of the only session, and the other.
fn owner_and_other(pods: &[Pod; 2]) -> (&Pod, &Pod) {
    if pods[0].seen("initialize").is_empty() { (&pods[1], &pods[0]) } else { (&pods[0], &pods[1]) }
}

/// A session that was opened on this pod.
async fn session_on(world: &World, pod: &Pod) -> String {
    loop {
        let before = pod.seen("initialize").len();
        let session = world.a.open_session().await;
        if pod.seen("initialize").len() > before {
            return session;
        }
    }
}

// G31, gateway.md section 3: each kind of work at a pod that leaves the list.
#[tokio::test]
async fn a_pod_that_leaves_finishes_its_calls_and_gets_nothing_new() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let (leaving, staying) = (&pods[0], &pods[1]);
    let idle = session_on(&world, leaving).await;
    let busy = session_on(&world, leaving).await;
    assert_eq!((world.a.count(&idle).await, world.b.count(&idle).await), (1, 2));
    let running = tokio::spawn({
        let (port, busy) = (world.a.port, busy.clone());
        async move {
            let headers = [
                ("content-type", "application/json"),
                ("accept", "application/json, text/event-stream"),
                ("mcp-session-id", &*busy),
                ("mcp-protocol-version", LEGACY),
            ];
            send(port, "POST", MCP, &headers, tool(1, "slow").to_string().into_bytes()).await
        }
    });
    until("a running call", || leaving.calls("slow").len() == 1).await;
    world.list(&[staying], &[leaving]).await;
    let asked = leaving.all().len();

    // Nothing new, of either era.
    for i in 0..6 {
        world.both()[i % 2].open_session().await;
        let mut reply = world.both()[i % 2].modern(&modern(i, "tools/call", json!({"name": "whoami"}))).await;
        assert_eq!(text(&reply.json().await), staying.name());
    }
    assert_eq!(leaving.all().len(), asked, "not even a probe");
    // An idle session moves on its next call, and its old place is given up.
    assert_eq!((world.b.count(&idle).await, world.a.count(&idle).await), (1, 2));
    until("the end of the old session", || leaving.seen("DELETE").len() == 1).await;
    // One that is busy stays with its call, through the other gateway too.
    for gateway in world.both() {
        let mut reply = gateway.on(&busy, &tool(2, "whoami")).await;
        assert_eq!(text(&reply.json().await), leaving.name());
    }
    leaving.release(1);
    let mut reply = soon("the running call", running).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(text(&reply.json().await), leaving.name());
    assert_eq!((world.a.count(&busy).await, world.b.count(&busy).await), (1, 2), "then it moves, once");
    // And nobody holds a connection any more.
    let began = Instant::now();
    until("no connection", || leaving.open() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

// G19, gateway.md section 3, Anchor: a task holds its pod with a connection on which nothing was ever sent.
#[tokio::test]
async fn a_live_task_anchors_its_pod_until_it_is_terminal() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let body = world.a.modern(&modern(1, "tools/call", json!({"name": "task"}))).await.json().await;
    let token = body["result"]["taskId"].as_str().unwrap().to_owned();
    let (leaving, staying) =
        if pods[0].calls("task").is_empty() { (&pods[1], &pods[0]) } else { (&pods[0], &pods[1]) };
    world.list(&[staying], &[leaving]).await;
    let get = modern(2, "tasks/get", json!({"taskId": token}));
    for gateway in world.both() {
        assert_eq!(gateway.modern(&get).await.json().await["result"]["status"], "working");
    }
    until("an anchor of each gateway that knows of it", || leaving.untouched() == 2).await;
    // Longer than a list without the pod is remembered for nothing.
    let until_then = Instant::now() + Duration::from_millis(6500);
    while Instant::now() < until_then {
        assert!(leaving.untouched() >= 1, "let go of");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(world.a.metric("mcp_fleet_gateway_drain_anchors", &[]).await > 0.5);
    leaving.complete_tasks();
    for gateway in world.both() {
        assert_eq!(gateway.modern(&get).await.json().await["result"]["status"], "completed");
    }
    let began = Instant::now();
    until("no connection", || leaving.open() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

// G20, gateway.md section 3, Anchor: who was asked something comes back to the pod that asked, so it may not end yet.
#[tokio::test]
async fn an_open_request_state_anchors_its_pod() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let ask = |state: Option<&Value>| {
        let mut params = json!({"name": "ask"});
        if let Some(state) = state {
            params["requestState"] = state.clone();
            params["inputResponses"] = json!({"q": {"action": "accept"}});
        }
        modern(1, "tools/call", params)
    };
    let first = world.a.modern(&ask(None)).await.json().await;
    let (leaving, staying) =
        if pods[0].calls("ask").is_empty() { (&pods[1], &pods[0]) } else { (&pods[0], &pods[1]) };
    world.list(&[staying], &[leaving]).await;
    until("an anchor of the gateway that knows of it", || leaving.untouched() == 1).await;
    assert!(world.a.metric("mcp_fleet_gateway_drain_anchors", &[]).await > 0.5);
    assert!(world.b.metric("mcp_fleet_gateway_drain_anchors", &[]).await < 0.5);
    let until_then = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until_then {
        assert!(leaving.untouched() >= 1, "let go of");
        sleep(Duration::from_millis(50)).await;
    }
    let second = world.b.modern(&ask(Some(&first["result"]["requestState"]))).await.json().await;
    assert_eq!(second["result"]["resultType"], "input_required", "{second}");
    let third = world.a.modern(&ask(Some(&second["result"]["requestState"]))).await.json().await;
    assert_eq!(text(&third), leaving.name());
}

// gateway.md section 2, Streams: a go client whose GET ends may end its session.
#[tokio::test]
async fn a_get_stream_moves_with_its_session_and_does_not_end() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let (leaving, staying) = owner_and_other(&pods);
    let mut get = world.a.bare("GET", &session).await;
    until("the stream", || leaving.gets().len() == 1).await;
    leaving.push("id: 4\ndata: old\n\n").await;
    assert_eq!(get.event().await.unwrap(), "id: 4\ndata: old\n\n");
    world.list(&[staying], &[leaving]).await;
    until("the stream at the other pod", || staying.gets().len() == 1 && leaving.gets().is_empty()).await;
    staying.push("id: 4\ndata: new\n\n").await;
    let event = get.event().await.unwrap();
    assert!(event.ends_with("4\ndata: new\n\n"), "{event}");
    let id = event.strip_prefix("id: ").unwrap().lines().next().unwrap().to_owned();
    assert_ne!(id, "4", "an id of the new pod is told from one of the old");
    assert_eq!((world.b.count(&session).await, world.a.count(&session).await), (1, 2));
    assert_eq!(
        staying.calls("counter")[0].header("mcp-session-id"),
        Some(&*staying.gets()[0]),
        "one session"
    );
    drop(get);
    // Who resumes gets on at the new pod, and never asks it for events of the old one.
    for (last, upstream) in [(&*id, Some("4")), ("4", None)] {
        let before = staying.seen("GET").len();
        let headers = [
            ("accept", "text/event-stream"),
            ("mcp-session-id", &*session),
            ("mcp-protocol-version", LEGACY),
            ("last-event-id", last),
        ];
        let reply = send(world.b.port, "GET", MCP, &headers, Vec::new()).await;
        assert_eq!((reply.status, reply.header("mcp-session-id")), (200, Some(&*session)));
        assert_eq!(staying.seen("GET")[before].header("last-event-id"), upstream, "{last}");
    }
}

// G8: the same without a warning.
#[tokio::test]
async fn a_get_stream_survives_the_death_of_its_pod() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let (dying, staying) = owner_and_other(&pods);
    let mut get = world.a.bare("GET", &session).await;
    until("the stream", || dying.gets().len() == 1).await;
    dying.kill();
    until("the stream at the other pod", || staying.gets().len() == 1).await;
    staying.push("data: new\n\n").await;
    assert_eq!(get.event().await.unwrap(), "data: new\n\n");
    assert_eq!((world.b.count(&session).await, world.a.count(&session).await), (1, 2));
    assert_eq!(staying.seen("initialize").len(), 1, "one session for the stream and the calls");
}

// G8, gateway.md section 2: while the server waits for its client, the session stays, for every gateway.
#[tokio::test]
async fn a_session_whose_server_waits_for_its_client_stays() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let (leaving, staying) = owner_and_other(&pods);
    let mut get = world.a.bare("GET", &session).await;
    until("the stream", || leaving.gets().len() == 1).await;
    let asks = json!({"jsonrpc": "2.0", "id": "s-1", "method": "sampling/createMessage", "params": {}});
    leaving.push(&format!("data: {asks}\n\n")).await;
    assert_eq!(get.message().await.unwrap(), asks);
    world.list(&[staying], &[leaving]).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!((world.b.count(&session).await, world.a.count(&session).await), (1, 2));
    assert_eq!((leaving.calls("counter").len(), leaving.gets().len()), (2, 1));
    let answer: Value = json!({"jsonrpc": "2.0", "id": "s-1", "result": {"role": "assistant"}});
    assert_eq!(world.a.on(&session, &answer).await.status, 202);
    let delivered = leaving.seen("POST").into_iter().any(|s| s.body == answer);
    assert!(delivered && !staying.seen("POST").iter().any(|s| s.body == answer), "the answer, to who asked");
    until("the stream at the other pod", || staying.gets().len() == 1).await;
    assert_eq!((world.b.count(&session).await, world.a.count(&session).await), (1, 2), "then it moves");
}

// G19: a task of 2025-11-25 lives in its session, and would be lost with it.
#[tokio::test]
async fn a_session_that_has_made_a_task_stays() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let (leaving, staying) = owner_and_other(&pods);
    let mut call = tool(1, "counter");
    call["params"]["task"] = json!({"ttl": 60000});
    assert_eq!(text(&world.a.on(&session, &call).await.json().await), "1");
    world.list(&[staying], &[leaving]).await;
    assert_eq!((world.a.count(&session).await, world.b.count(&session).await), (2, 3));
    assert!(staying.seen("initialize").is_empty());
    until("an anchor", || leaving.untouched() >= 1).await;
}

// G8: a fleet that wants no session made again keeps them where they are, and the pod with them.
#[tokio::test]
async fn without_recovery_a_session_stays_at_the_pod_that_leaves() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({"sessionRecovery": "Disabled"})).await;
    let session = world.a.open_session().await;
    let (leaving, staying) = owner_and_other(&pods);
    world.list(&[staying], &[leaving]).await;
    assert_eq!((world.a.count(&session).await, world.b.count(&session).await), (1, 2));
    until("an anchor", || leaving.untouched() >= 1).await;
    assert_eq!(leaving.calls("counter").len(), 2);
}

// DESIGN.md section 5: not ready at once, still serving while the news spreads, then to the end of what runs.
#[tokio::test]
async fn a_gateway_that_is_told_to_end_finishes_what_runs() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let mut get = world.a.bare("GET", &session).await;
    let call = tool("last", "slow");
    let slow = || pods.iter().map(|p| p.calls("slow").len()).sum::<usize>();
    let (mut reply, ()) = tokio::join!(world.a.on(&session, &call), async {
        until("a running call", || slow() == 1).await;
        world.a.terminate();
        let began = Instant::now();
        soon("not ready", async {
            while world.a.ready().await == Some(200) {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
        assert_eq!(world.a.ready().await, Some(503));
        assert_eq!(world.a.count(&session).await, 1, "still serving");
        // Past the delay: no new connections, and the call goes on.
        sleep(Duration::from_millis(1400)).await;
        for pod in &pods {
            pod.release(1);
        }
    });
    assert_eq!((reply.status, reply.header("mcp-session-id")), (200, Some(&*session)));
    assert_eq!(reply.json().await["id"], "last");
    while get.event().await.is_some() {}
    assert!(world.a.ended().await, "by itself, and well");
    assert_eq!(world.b.count(&session).await, 2, "the other gateway goes on with the session");
}

// DESIGN.md section 5: the deadline of a gateway's own end holds, and what it cuts is told.
#[tokio::test]
async fn what_does_not_end_is_cut_at_the_deadline_and_told() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let port = world.a.port;
    let call = tokio::spawn(async move {
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", MODERN),
            ("mcp-method", "tools/call"),
            ("mcp-name", "slow"),
        ];
        let body = modern(1, "tools/call", json!({"name": "slow"})).to_string().into_bytes();
        try_send(port, "POST", MCP, &headers, body).await.map(|reply| reply.status)
    });
    until("a running call", || pods.iter().any(|p| !p.calls("slow").is_empty())).await;
    let began = Instant::now();
    world.a.terminate();
    assert!(world.a.ended().await, "it was told to, and ended");
    // A second of delay, five of grace.
    let took = began.elapsed().as_secs_f64();
    assert!((5.5..9.0).contains(&took), "{took}");
    assert!(soon("the end of the call", call).await.unwrap().is_err(), "no answer was made up");
    let log = world.a.log();
    assert!(log.contains("cut at the deadline") && log.contains("cut=1"), "{log}");
}
