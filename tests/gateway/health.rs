//! Pods that change under a fleet: other revisions, no answers, bad answers, slow answers (G3, G28, G14).

use std::time::Duration;

use futures::FutureExt as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    client::{LEGACY, initialize, modern, text, tool, until},
    pod::{Pod, Speaks, error, says},
    world::{Alone, World},
};

// G3: a pod that was rolled back in place is legacy from the next probe on.
#[tokio::test]
async fn a_pod_that_is_rolled_back_gets_no_modern_requests_any_more() {
    let pods = [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await];
    let check = json!({"healthCheck": {"intervalSeconds": 1, "timeoutSeconds": 1}});
    let alone = Alone::new(&pods, check).await;
    pods[0].script(|seen, out| {
        let (out, id) = (out.clone(), seen.body["id"].clone());
        seen.header("mcp-protocol-version").is_some_and(|v| v > LEGACY).then(|| {
            async move { out.json(400, &[], &error(&id, -32000, "Bad Request: no session")).await }.boxed()
        })
    });
    alone.gateway.wait_for("the new list", &pods[0], |e| e["capability"]["modern"] == json!([])).await;
    let before = pods[0].calls("whoami").len();
    for i in 0..10 {
        let mut reply = alone.gateway.modern(&modern(i, "tools/call", json!({"name": "whoami"}))).await;
        assert_eq!(text(&reply.json().await), "two");
    }
    assert_eq!(pods[0].calls("whoami").len(), before);
    while pods[0].seen("initialize").is_empty() {
        alone.gateway.open_session().await;
    }
}

// G28, G30: a pod that takes connections and says nothing is found by probes and passed over; it comes back.
#[tokio::test]
async fn a_pod_that_hangs_is_passed_over_until_it_answers_again() {
    let pods = [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await];
    let check = json!({"healthCheck": {
        "intervalSeconds": 1, "timeoutSeconds": 1, "unhealthyThreshold": 1, "healthyThreshold": 1}});
    let alone = Alone::new(&pods, check).await;
    let session = loop {
        let session = alone.gateway.open_session().await;
        if !pods[0].seen("initialize").is_empty() {
            break session;
        }
    };
    pods[0].script(|_, _| Some(std::future::pending().boxed()));
    alone.gateway.wait_for("an unhealthy pod", &pods[0], |e| e["healthy"] == false).await;
    for i in 0..8 {
        let mut reply = alone.gateway.modern(&modern(i, "tools/call", json!({"name": "whoami"}))).await;
        assert_eq!(text(&reply.json().await), "two");
    }
    assert_eq!(alone.gateway.count(&session).await, 1, "G8: its sessions go on elsewhere");
    pods[0].script(|_, _| None);
    alone.gateway.wait_for("a healthy pod", &pods[0], |e| e["healthy"] == true).await;
    for i in 0..40 {
        alone.gateway.modern(&modern(i, "tools/call", json!({"name": "back"}))).await;
    }
    assert!(!pods[0].calls("back").is_empty());
}

// G28: a breaker counts failures of the pod, never faults of its clients.
#[tokio::test]
async fn client_faults_leave_the_breaker_closed_and_failures_open_it() {
    let pods = [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await];
    let alone =
        Alone::new(&pods, json!({"circuitBreaker": {"failureThreshold": 3, "recoverySeconds": 60}})).await;
    for pod in &pods {
        let name = pod.name();
        pod.script(move |seen, out| {
            let (out, request) = (out.clone(), seen.body.clone());
            let status: u16 = seen.tool().parse().ok()?;
            let status = if status == 500 && name == "two" { 200 } else { status };
            Some(
                async move {
                    match status {
                        200 => out.json(200, &[], &crate::pod::result(&request, says(name), true)).await,
                        _ => out.json(status, &[], &error(&request["id"], -32602, "no")).await,
                    }
                }
                .boxed(),
            )
        });
    }
    let call =
        async |name: &str| alone.gateway.modern(&modern(1, "tools/call", json!({"name": name}))).await.status;
    for _ in 0..8 {
        for status in [400, 401, 403, 404] {
            assert_eq!(call(&status.to_string()).await, status);
        }
        assert_eq!(call("failing").await, 200);
    }
    for pod in &pods {
        let endpoint = alone.gateway.endpoint(pod).await;
        assert_eq!((&endpoint["breaker"], &endpoint["ejected"]), (&json!("closed"), &json!(false)));
    }
    // On a session, for the balancer would turn away from the pod at the first of them.
    let session = loop {
        let session = alone.gateway.open_session().await;
        if !pods[0].seen("initialize").is_empty() {
            break session;
        }
    };
    for _ in 0..3 {
        assert_eq!(alone.gateway.on(&session, &tool(1, "500")).await.status, 500);
    }
    let endpoint = alone.gateway.endpoint(&pods[0]).await;
    assert_eq!((&endpoint["breaker"], &endpoint["ejected"]), (&json!("open"), &json!(true)));
    for _ in 0..6 {
        assert_eq!(call("500").await, 200, "by the other pod");
    }
}

// G4, mcp.md section 5: a deadline is an error for the call, in the form that its era survives.
#[tokio::test]
async fn a_call_that_takes_too_long_is_503_modern_and_200_legacy() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({"timeouts": {"requestSeconds": 1}})).await;
    let session = alone.gateway.open_session().await;
    let (slow_modern, slow_legacy) = (modern("m", "tools/call", json!({"name": "slow"})), tool("l", "slow"));
    let (mut modern, mut legacy) =
        tokio::join!(alone.gateway.modern(&slow_modern), alone.gateway.on(&session, &slow_legacy));
    assert_eq!((modern.status, legacy.status), (503, 200));
    for (reply, id) in [(&mut modern, "m"), (&mut legacy, "l")] {
        let body = reply.json().await;
        assert_eq!((&body["id"], &body["error"]["data"]["reason"]), (&json!(id), &json!("upstream_timeout")));
    }
    until("nothing left upstream", || pods[0].calls("slow").iter().all(|s| s.left.is_some())).await;
    assert_eq!(pods[0].calls("slow").len(), 2, "G17: not sent again");
    assert_eq!(alone.gateway.count(&session).await, 1);
}

// G14: no limit on streams but the one that is configured, at which they end as they should.
#[tokio::test]
async fn streams_end_at_their_maximum() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({"timeouts": {"streamMaxSeconds": 1, "requestSeconds": 1}})).await;
    let session = alone.gateway.open_session().await;
    let mut get = alone.gateway.bare("GET", &session).await;
    let listen = modern("l", "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut listen = alone.gateway.modern(&listen).await;
    let began = Instant::now();
    listen.message().await.unwrap();
    let end = listen.message().await.unwrap();
    assert_eq!((&end["id"], &end["result"]["resultType"]), (&json!("l"), &json!("complete")));
    assert!(listen.event().await.is_none() && get.event().await.is_none());
    assert!(began.elapsed() > Duration::from_millis(700), "{:?}", began.elapsed());
}

// G14: without one a stream lives, however short calls have to be.
#[tokio::test]
async fn a_stream_outlives_the_deadline_of_calls() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({"timeouts": {"requestSeconds": 1}})).await;
    let session = alone.gateway.open_session().await;
    let mut get = alone.gateway.bare("GET", &session).await;
    pods[0].script(|seen, out| {
        let (out, request) = (out.clone(), seen.body.clone());
        (seen.tool() == "long").then(|| {
            async move {
                out.stream(&[]).await;
                out.chunk(": working\n\n").await;
                sleep(Duration::from_millis(1800)).await;
                out.event(&crate::pod::result(&request, says("done"), true)).await;
                out.finish().await;
            }
            .boxed()
        })
    });
    let mut call = alone.gateway.modern(&modern(1, "tools/call", json!({"name": "long"}))).await;
    assert_eq!(text(&call.message().await.unwrap()), "done");
    pods[0].push("data: x\n\n").await;
    assert_eq!(get.event().await.unwrap(), "data: x\n\n");
}

// gateway.md section 1: a token that is too long for clients is made shorter; its session cannot move.
#[tokio::test]
async fn a_huge_handshake_is_left_out_of_the_token() {
    let pods = [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await];
    let world = World::new(&pods, json!({})).await;
    let mut body = initialize(LEGACY);
    body["params"]["capabilities"] = json!({"experimental": {"x": "y".repeat(6000)}});
    let reply = world.a.post(&[], &body).await;
    let session = reply.header("mcp-session-id").unwrap().to_owned();
    assert!(session.len() <= 3072, "{}", session.len());
    assert_eq!((world.a.count(&session).await, world.b.count(&session).await), (1, 2));
    pods.iter().find(|p| !p.seen("initialize").is_empty()).unwrap().kill();
    assert_eq!(world.b.on(&session, &tool(1, "counter")).await.status, 404);
}

// gateway.md section 2, One home: with the home gone, the next in the order is home, and knows what it was told.
#[tokio::test]
async fn sessions_move_and_stay_moved_when_a_gateway_dies_with_the_pod() {
    let pods = [
        Pod::start("one", Speaks::Both).await,
        Pod::start("two", Speaks::Both).await,
        Pod::start("three", Speaks::Both).await,
    ];
    let mut world = World::new(&pods, json!({})).await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(world.b.open_session().await);
    }
    let moved = pods.iter().find(|p| !p.seen("initialize").is_empty()).unwrap();
    moved.kill();
    let mut counts = Vec::new();
    for session in &sessions {
        counts.push(world.b.count(session).await);
    }
    let made: usize = pods.iter().map(|p| p.seen("initialize").len()).sum();
    world.b.kill();
    for (session, count) in sessions.iter().zip(&counts) {
        assert_eq!(world.a.count(session).await, count + 1, "known to the other, wherever it was made");
    }
    assert_eq!(pods.iter().map(|p| p.seen("initialize").len()).sum::<usize>(), made);
    // And alone it is home to all.
    let alive = pods.iter().filter(|p| p.name() != moved.name()).collect::<Vec<_>>();
    let second = alive.iter().find(|p| !p.calls("counter").is_empty()).unwrap();
    second.kill();
    let began = Instant::now();
    for session in &sessions {
        assert!(world.a.count(session).await > 0);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
