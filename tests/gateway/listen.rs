//! `subscriptions/listen`: one stream of the client, one listen at every pod (G21).

use std::time::Duration;

use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    client::{Reply, modern, soon, until},
    pod::{Pod, Speaks},
    world::{Alone, Gateway, World},
};

const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
const TOOLS: &str = "notifications/tools/list_changed";

async fn listen(gateway: &Gateway, id: &str, notifications: Value) -> Reply {
    let reply =
        gateway.modern(&modern(id, "subscriptions/listen", json!({"notifications": notifications}))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    reply
}

async fn acknowledged(reply: &mut Reply) -> Value {
    let first = reply.message().await.unwrap();
    assert_eq!(first["method"], ACKNOWLEDGED, "{first}");
    first
}

async fn listened_to(pods: &[Pod]) {
    until("a listen at each pod", || pods.iter().all(|p| p.listens().len() == 1)).await;
}

// G21, G3: one listen at each modern pod, one acknowledgement before all else, and the events of all.
#[tokio::test]
async fn a_listen_hears_every_modern_pod_behind_one_acknowledgement() {
    let pods = [
        Pod::start("one", Speaks::Modern).await,
        Pod::start("two", Speaks::Both).await,
        Pod::start("old", Speaks::Legacy).await,
    ];
    let world = World::new(&pods, json!({})).await;
    let mut reply = listen(&world.a, "L-7", json!({"toolsListChanged": true})).await;
    let ack = acknowledged(&mut reply).await;
    assert_eq!(ack["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "L-7");
    assert_eq!(ack["params"]["notifications"], json!({"toolsListChanged": true}));
    listened_to(&pods[..2]).await;
    assert!(pods[2].seen("subscriptions/listen").is_empty());
    for pod in &pods[..2] {
        pod.publish(TOOLS, json!({"from": pod.name()})).await;
        let event = reply.message().await.unwrap();
        assert_eq!((&event["method"], &event["params"]["from"]), (&json!(TOOLS), &json!(pod.name())));
        assert_eq!(event["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "L-7");
    }
    assert!(reply.is_silent(Duration::from_millis(300)).await, "no second acknowledgement");
    assert!((world.a.metric("mcp_fleet_gateway_listens", &[]).await - 1.0).abs() < 0.1);
    // G15: who leaves, leaves all.
    drop(reply);
    let left = Instant::now();
    until("the end of all listens", || pods.iter().all(|p| p.listens().is_empty())).await;
    assert!(left.elapsed() < Duration::from_millis(60), "{:?}", left.elapsed());
    sleep(Duration::from_millis(400)).await;
    assert!(
        pods[..2].iter().all(|p| p.seen("subscriptions/listen").len() == 1),
        "and nobody opens them again"
    );
}

// gateway.md section 4: what not all pods honour is not promised.
#[tokio::test]
async fn the_acknowledgement_is_what_all_pods_honour() {
    let pods = [Pod::start("one", Speaks::Modern).await, Pod::start("two", Speaks::Modern).await];
    pods[1].script(|seen, out| {
        let (out, id) = (out.clone(), seen.body["id"].clone());
        (seen.method() == "subscriptions/listen").then(|| {
            async move {
                out.stream(&[]).await;
                // Later than the other, which must not be acknowledged alone.
                sleep(Duration::from_millis(300)).await;
                let honoured = json!({"toolsListChanged": true, "resourceSubscriptions": ["test://a"]});
                let meta = json!({"io.modelcontextprotocol/subscriptionId": id});
                let params = json!({"_meta": meta, "notifications": honoured});
                out.event(&json!({"jsonrpc": "2.0", "method": ACKNOWLEDGED, "params": params})).await;
                std::future::pending::<()>().await;
            }
            .boxed()
        })
    });
    let alone = Alone::new(&pods, json!({})).await;
    let wanted = json!({"toolsListChanged": true, "promptsListChanged": true,
                        "resourceSubscriptions": ["test://a", "test://b"]});
    for id in ["1", "2"] {
        let mut reply = listen(&alone.gateway, id, wanted.clone()).await;
        let ack = acknowledged(&mut reply).await;
        let honoured = json!({"toolsListChanged": true, "resourceSubscriptions": ["test://a"]});
        assert_eq!(ack["params"]["notifications"], honoured);
    }
}

// G19, G21: each pod hears of its own tasks, under its own names; the client under the names that it knows.
#[tokio::test]
async fn tasks_of_a_listen_are_split_among_their_pods() {
    let pods = [Pod::start("one", Speaks::Modern).await, Pod::start("two", Speaks::Modern).await];
    let world = World::new(&pods, json!({})).await;
    let mut tokens = Vec::new();
    while pods.iter().any(|p| p.calls("task").is_empty()) {
        let body = world.a.modern(&modern(1, "tools/call", json!({"name": "task"}))).await.json().await;
        tokens.push(body["result"]["taskId"].as_str().unwrap().to_owned());
    }
    let mut reply = listen(&world.b, "t", json!({"taskIds": tokens})).await;
    let ack = acknowledged(&mut reply).await;
    let mut honoured: Vec<String> =
        serde_json::from_value(ack["params"]["notifications"]["taskIds"].clone()).unwrap();
    honoured.sort_unstable();
    let mut sorted = tokens.clone();
    sorted.sort_unstable();
    assert_eq!(honoured, sorted, "the union, as the client wrote them");
    listened_to(&pods).await;
    for pod in &pods {
        let asked = pod.listens()[0]["params"]["notifications"]["taskIds"].clone();
        let asked: Vec<String> = serde_json::from_value(asked).unwrap();
        assert_eq!(asked.len(), pod.calls("task").len());
        assert!(asked.iter().all(|id| id.starts_with(&format!("raw-task-{}", pod.name()))), "{asked:?}");
        pod.publish("notifications/tasks", json!({"taskId": asked[0], "status": "working"})).await;
        let event = reply.message().await.unwrap();
        let told = event["params"]["taskId"].as_str().unwrap();
        assert!(tokens.iter().any(|t| t == told), "the very token: {told}");
        assert_eq!(event["params"]["status"], "working");
    }
}

// G21: pods come and go under a listen, and its client hears nothing of it.
#[tokio::test]
async fn a_listen_follows_the_pods_of_its_fleet() {
    let pods = [Pod::start("one", Speaks::Modern).await, Pod::start("two", Speaks::Modern).await];
    let mut alone = Alone::new(&pods[..1], json!({})).await;
    let mut reply = listen(&alone.gateway, "f", json!({"toolsListChanged": true})).await;
    acknowledged(&mut reply).await;
    alone.gateway.list(&[&pods[0], &pods[1]]);
    soon("a listen at the new pod", async {
        while pods[1].listens().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    pods[1].publish(TOOLS, json!({"from": "two"})).await;
    assert_eq!(
        reply.message().await.unwrap()["params"]["from"],
        "two",
        "no second acknowledgement before it"
    );
    // One dies.
    pods[0].kill();
    pods[1].publish(TOOLS, json!({"from": "two", "n": 2})).await;
    assert_eq!(reply.message().await.unwrap()["params"]["n"], 2);
    // It is there again, and heard again.
    pods[0].revive().await;
    until("a listen at the pod that is back", || pods[0].listens().len() == 1).await;
    pods[0].publish(TOOLS, json!({"from": "one"})).await;
    assert_eq!(reply.message().await.unwrap()["params"]["from"], "one");
    // It leaves, and is let go at once, for an open listen holds it.
    alone.gateway.list(&[&pods[1]]);
    until("no listen at the pod that leaves", || pods[0].listens().is_empty()).await;
    pods[1].publish(TOOLS, json!({"from": "two", "n": 3})).await;
    assert_eq!(reply.message().await.unwrap()["params"]["n"], 3);
}

// G21: a graceful end is a result, after which a client listens anew; a cut is an error to some.
#[tokio::test]
async fn a_gateway_that_ends_ends_its_listens_with_a_result() {
    let pods = [Pod::start("one", Speaks::Modern).await, Pod::start("two", Speaks::Modern).await];
    let mut world = World::new(&pods, json!({})).await;
    let mut reply = listen(&world.a, "bye", json!({"toolsListChanged": true})).await;
    acknowledged(&mut reply).await;
    world.a.terminate();
    let end = reply.message().await.unwrap();
    assert_eq!((&end["id"], &end["result"]["resultType"]), (&json!("bye"), &json!("complete")));
    assert_eq!(end["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "bye");
    assert!(reply.event().await.is_none(), "and the stream ends as it should");
    assert!(world.a.ended().await);
}

// G21: the option; a server that tells all pods of everything needs one listen only.
#[tokio::test]
async fn without_fan_out_one_pod_is_listened_to() {
    let pods = [Pod::start("one", Speaks::Modern).await, Pod::start("two", Speaks::Modern).await];
    let alone = Alone::new(&pods, json!({"listenFanOut": false})).await;
    let mut reply = listen(&alone.gateway, "one", json!({"toolsListChanged": true})).await;
    acknowledged(&mut reply).await;
    sleep(Duration::from_millis(600)).await;
    assert_eq!(pods.iter().map(|p| p.seen("subscriptions/listen").len()).sum::<usize>(), 1);
    // Its pod ends; the client does not notice.
    let held = pods.iter().find(|p| !p.listens().is_empty()).unwrap();
    let other = pods.iter().find(|p| p.listens().is_empty()).unwrap();
    held.kill();
    until("a listen at the other pod", || other.listens().len() == 1).await;
    other.publish(TOOLS, json!({"n": 1})).await;
    assert_eq!(reply.message().await.unwrap()["params"]["n"], 1);
}

// fm: a server that does not know the method says so, and its client may go without.
#[tokio::test]
async fn a_refusal_of_a_listen_is_passed_on() {
    let pods = [Pod::start("one", Speaks::Modern).await];
    pods[0].script(|seen, out| {
        let (out, id) = (out.clone(), seen.body["id"].clone());
        (seen.method() == "subscriptions/listen").then(|| {
            async move { out.json(404, &[], &crate::pod::error(&id, -32601, "Method not found")).await }
                .boxed()
        })
    });
    let alone = Alone::new(&pods, json!({})).await;
    let body = modern("r", "subscriptions/listen", json!({"notifications": {}}));
    let mut reply = alone.gateway.modern(&body).await;
    let body = reply.json().await;
    assert_eq!((reply.status, &body["id"], &body["error"]["code"]), (404, &json!("r"), &json!(-32601)));
}
