//! Tasks and multi-round requests: identifiers that lead back to the pod that minted them, through any gateway.

use futures::FutureExt as _;
use serde_json::{Value, json};

use crate::{
    client::{Reply, modern, text},
    pod::{Pod, Speaks, result},
    world::{Gateway, World},
};

async fn two() -> [Pod; 2] {
    [Pod::start("one", Speaks::Modern).await, Pod::start("two", Speaks::Modern).await]
}

fn task(id: &str) -> Value {
    modern(3, "tasks/get", json!({"taskId": id}))
}

fn ask(state: Option<&str>) -> Value {
    let mut params = json!({"name": "ask", "arguments": {"n": 1.50}});
    if let Some(state) = state {
        params["requestState"] = json!(state);
        params["inputResponses"] = json!({"q": {"action": "accept"}});
    }
    modern(4, "tools/call", params)
}

/// The token of a task that was just made, and the pod that made it.
async fn new_task<'a>(gateway: &Gateway, pods: &'a [Pod]) -> (String, &'a Pod) {
    let before: Vec<_> = pods.iter().map(|p| p.calls("task").len()).collect();
    let mut reply = gateway.modern(&modern(1, "tools/call", json!({"name": "task"}))).await;
    let body = reply.json().await;
    assert_eq!(body["result"]["resultType"], "task", "{body}");
    let token = body["result"]["taskId"].as_str().unwrap().to_owned();
    assert!(!body.to_string().contains("raw-"), "{body}");
    let maker = pods.iter().zip(before).find(|(p, n)| p.calls("task").len() > *n).unwrap().0;
    (token, maker)
}

fn refused(reply: &Reply, body: &Value, status: u16, code: i64) {
    assert_eq!((reply.status, &body["error"]["code"]), (status, &json!(code)), "{body}");
}

// G19: sealed where it is made, the same bytes ever after, and the pod's own name upstream, in body and header.
#[tokio::test]
async fn a_task_is_found_at_its_pod_through_either_gateway() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    for i in 0..4 {
        let (token, maker) = new_task(world.both()[i % 2], &pods).await;
        for gateway in world.both() {
            for method in ["tasks/get", "tasks/cancel"] {
                let before = maker.seen(method).len();
                let body = modern("x", method, json!({"taskId": token}));
                let mut reply = gateway.modern(&body).await;
                let answer = reply.json().await;
                assert_eq!((reply.status, &answer["id"]), (200, &json!("x")), "{answer}");
                assert_eq!(answer["result"]["taskId"], *token, "the token of the client, to the byte");
                let seen = maker.seen(method);
                assert_eq!(seen.len(), before + 1);
                let raw = seen[before].body["params"]["taskId"].as_str().unwrap();
                assert!(raw.starts_with(&format!("raw-task-{}", maker.name())), "{raw}");
                assert_eq!(seen[before].header("mcp-name"), Some(raw), "header and body together");
                let expected = body.to_string().replace(&token, raw);
                assert_eq!(String::from_utf8_lossy(&seen[before].raw), expected, "nothing else is touched");
            }
        }
    }
}

// G19: a task may also be made at the end of a stream.
#[tokio::test]
async fn a_task_in_a_stream_of_events_is_sealed() {
    let pods = two().await;
    for pod in &pods {
        let name = pod.name();
        pod.script(move |seen, out| {
            let (out, request) = (out.clone(), seen.body.clone());
            (seen.tool() == "streamed").then(|| {
                async move {
                    out.stream(&[]).await;
                    out.chunk(
                        "id: 5\r\nevent: message\r\ndata: {\"method\":\"notifications/progress\"}\r\n\r\n",
                    )
                    .await;
                    let id = format!("raw-task-{name}");
                    let task =
                        json!({"resultType": "task", "taskId": id, "status": "working", "ttlMs": null});
                    let event = format!("event: message\nid: 6\ndata: {}\n\n", result(&request, task, true));
                    // In two halves: the identifier may lie across them.
                    let (one, two) = event.split_at(event.find("raw-").unwrap() + 6);
                    out.chunk(one).await;
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    out.chunk(two).await;
                    out.finish().await;
                }
                .boxed()
            })
        });
    }
    let world = World::new(&pods, json!({})).await;
    let mut reply = world.a.modern(&modern(1, "tools/call", json!({"name": "streamed"}))).await;
    let all = String::from_utf8(reply.bytes().await).unwrap();
    let (first, last) = all.split_at(all.find("event: message\nid: 6").unwrap());
    assert_eq!(first, "id: 5\r\nevent: message\r\ndata: {\"method\":\"notifications/progress\"}\r\n\r\n");
    assert!(!all.contains("raw-") && last.ends_with("\n\n"), "{all}");
    let data: Value =
        serde_json::from_str(last.lines().find_map(|l| l.strip_prefix("data: ")).unwrap()).unwrap();
    let token = data["result"]["taskId"].as_str().unwrap();
    world.b.modern(&task(token)).await;
    let maker = pods.iter().find(|p| !p.calls("streamed").is_empty()).unwrap();
    let seen = maker.seen("tasks/get");
    assert_eq!(seen[0].body["params"]["taskId"], format!("raw-task-{}", maker.name()));
}

// G19: what is not ours is for a pod to judge, as it was sent.
#[tokio::test]
async fn a_task_that_nobody_minted_is_answered_by_a_pod() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    for id in ["unknown", "raw-task-one-1", "mf1.AAAA", "=?x"] {
        let mut reply = world.a.modern(&task(id)).await;
        let body = reply.json().await;
        refused(&reply, &body, 200, -32602);
        let asked: Vec<_> = pods.iter().flat_map(|p| p.seen("tasks/get")).collect();
        assert!(asked.iter().any(|s| s.body["params"]["taskId"] == id), "{id}");
    }
}

// G19, mcp.md section 2.4: a pod that does not answer may come back; one that is no member will not.
#[tokio::test]
async fn a_task_whose_pod_is_gone_is_503_while_listed_and_32602_after() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let (token, maker) = new_task(&world.a, &pods).await;
    let other = pods.iter().find(|p| p.name() != maker.name()).unwrap();
    maker.kill();
    let mut reply = world.b.modern(&task(&token)).await;
    let body = reply.json().await;
    assert_eq!((reply.status, &body["id"]), (503, &json!(3)), "{body}");
    assert_eq!(body["error"]["data"]["source"], "gateway");
    // A gateway that starts with another list knows no pod of that name.
    world.b.list(&[other]);
    world.b.restart().await;
    let mut reply = world.b.modern(&task(&token)).await;
    let body = reply.json().await;
    refused(&reply, &body, 200, -32602);
    let mut undeclared = task(&token);
    undeclared["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let mut reply = world.b.modern(&undeclared).await;
    let body = reply.json().await;
    refused(&reply, &body, 400, -32021);
    assert!(other.seen("tasks/get").is_empty(), "no other pod can know it");
}

// G20: each round is sealed anew, leads to its pod, and arrives as the pod wrote it.
#[tokio::test]
async fn every_round_of_a_call_returns_to_the_pod_that_asked() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    for i in 0..4 {
        let mut reply = world.both()[i % 2].modern(&ask(None)).await;
        let mut body = reply.json().await;
        let mut states = Vec::new();
        for round in 1..=2 {
            assert_eq!(body["result"]["resultType"], "input_required", "{body}");
            assert!(!body.to_string().contains("raw-"), "{body}");
            let state = body["result"]["requestState"].as_str().unwrap().to_owned();
            let call = ask(Some(&state));
            let mut reply = world.both()[(i + round) % 2].modern(&call).await;
            body = reply.json().await;
            let raw = pods.iter().flat_map(|p| p.calls("ask")).map(|s| String::from_utf8(s.raw).unwrap());
            let expected =
                |pod: &Pod| call.to_string().replace(&state, &format!("raw-state-{}-{round}", pod.name()));
            let raw: Vec<_> = raw.collect();
            assert!(pods.iter().any(|p| raw.contains(&expected(p))), "spliced, and nothing else: {raw:?}");
            states.push(state);
        }
        assert_ne!(states[0], states[1]);
        assert_eq!(body["result"]["resultType"], "complete", "round {i}: {body}");
        assert!(["one", "two"].contains(&text(&body)));
    }
}

// G20: prompts and resources ask as well.
#[tokio::test]
async fn states_of_prompts_and_resources_return_to_their_pod_too() {
    let pods = two().await;
    for pod in &pods {
        let raw = format!("raw-state-{} \"\\ \u{fc}", pod.name());
        pod.script(move |seen, out| {
            let (out, request, raw) = (out.clone(), seen.body.clone(), raw.clone());
            matches!(seen.method(), "prompts/get" | "resources/read").then(|| {
                async move {
                    let found = match request["params"]["requestState"].as_str() {
                        None => json!({"resultType": "input_required", "requestState": raw}),
                        Some(state) => json!({"own": state == raw}),
                    };
                    out.json(200, &[], &result(&request, found, true)).await;
                }
                .boxed()
            })
        });
    }
    let world = World::new(&pods, json!({})).await;
    for (method, key) in [("prompts/get", "name"), ("resources/read", "uri")] {
        for _ in 0..3 {
            let mut params = json!({key: "test://x"});
            let body = world.a.modern(&modern(1, method, params.clone())).await.json().await;
            params["requestState"] = body["result"]["requestState"].clone();
            assert!(params["requestState"].as_str().unwrap().starts_with("mf1."));
            let body = world.b.modern(&modern(2, method, params)).await.json().await;
            assert_eq!(body["result"]["own"], true, "with every sign that JSON has to escape: {body}");
        }
    }
}

// G20: conformance has a tampered state refused by the server, which has to see it.
#[tokio::test]
async fn a_state_that_does_not_open_passes_as_it_is() {
    let pods = two().await;
    let world = World::new(&pods, json!({})).await;
    let body = world.a.modern(&ask(None)).await.json().await;
    let state = body["result"]["requestState"].as_str().unwrap();
    for bad in ["own", &format!("{state}x"), &state.replace("mf1.", "mf9.")] {
        let mut reply = world.b.modern(&ask(Some(bad))).await;
        let body = reply.json().await;
        refused(&reply, &body, 400, -32602);
        let seen: Vec<_> = pods.iter().flat_map(|p| p.calls("ask")).collect();
        assert!(seen.iter().any(|s| s.body["params"]["requestState"] == bad), "{bad}");
    }
}

// gateway.md section 1: servers may share the key of their states; the pod that asked is not needed then.
#[tokio::test]
async fn a_state_whose_pod_is_gone_goes_to_another_as_the_pod_wrote_it() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let body = world.a.modern(&ask(None)).await.json().await;
    let state = body["result"]["requestState"].as_str().unwrap();
    let (maker, other) =
        if pods[0].calls("ask").is_empty() { (&pods[1], &pods[0]) } else { (&pods[0], &pods[1]) };
    world.b.list(&[other]);
    world.b.restart().await;
    world.b.modern(&ask(Some(state))).await;
    let seen = &other.calls("ask")[0];
    assert_eq!(seen.body["params"]["requestState"], format!("raw-state-{}-1", maker.name()));
}

// gateway.md section 1, Keys: with a new key old tokens open; without the old one it may still come.
#[tokio::test]
async fn tokens_outlive_a_change_of_keys_and_wait_for_a_key_that_is_missing() {
    let pods = two().await;
    let mut world = World::new(&pods, json!({})).await;
    let (token, _) = new_task(&world.a, &pods).await;
    world.keys(&["k1", "k2"]);
    world.b.restart().await;
    assert_eq!(world.b.modern(&task(&token)).await.status, 200, "an old token");
    let (new, _) = new_task(&world.b, &pods).await;
    assert_ne!(new[..10], token[..10], "sealed with the newest key");
    world.keys(&["k2"]);
    world.b.restart().await;
    assert_eq!(world.b.modern(&task(&new)).await.status, 200);
    let mut reply = world.b.modern(&task(&token)).await;
    assert_eq!((reply.status, &reply.json().await["error"]["data"]["reason"]), (503, &json!("unknown_key")));
}
