//! Answers on their way: byte for byte and at once, and what becomes of them when either side leaves.

use std::time::Duration;

use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    client::{MCP, modern, on_session, text, tool, until},
    pod::{Pod, Speaks, result, says},
    world::{Alone, World},
};

/// Everything that an event may be written with.
const EVENTS: &str = ": priming\n\nid: 1/a\nretry: 3000\ndata:\n\nevent: message\r\ndata: {\"jsonrpc\":\"2.0\",\r\n\
    data:  \"method\":\"notifications/message\",\"params\":{\"data\":\"\u{fc}\"}}\r\nid: 2\r\n\r\n:\r\n\r\n\
    data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[],\"note\":\"no \\\"taskId\\\" here\"}}\n\n";

/// A server that sends [`EVENTS`] in pieces of as many bytes as the tool's name says.
fn in_pieces(pod: &Pod) {
    pod.script(|seen, out| {
        let size: usize = if seen.http == "GET" { 3 } else { seen.tool().parse().ok()? };
        let out = out.clone();
        Some(
            async move {
                out.stream(&[]).await;
                for piece in EVENTS.as_bytes().chunks(size) {
                    out.chunk(piece).await;
                    tokio::task::yield_now().await;
                }
                out.finish().await;
            }
            .boxed(),
        )
    });
}

// G13: whatever the pieces, what comes out is what went in; the modern path looks into each event.
#[tokio::test]
async fn events_pass_byte_for_byte_in_pieces_of_any_size() {
    let pods = [Pod::start("one", Speaks::Both).await];
    in_pieces(&pods[0]);
    let alone = Alone::new(&pods, json!({})).await;
    let session = alone.gateway.open_session().await;
    for size in ["1", "2", "7", "64", "4096"] {
        let mut legacy = alone.gateway.on(&session, &tool(1, size)).await;
        assert_eq!(String::from_utf8(legacy.bytes().await).unwrap(), EVENTS, "legacy, {size}");
        let mut modern = alone.gateway.modern(&modern(1, "tools/call", json!({"name": size}))).await;
        assert_eq!(String::from_utf8(modern.bytes().await).unwrap(), EVENTS, "modern, {size}");
        for reply in [&legacy, &modern] {
            assert_eq!(reply.header("x-accel-buffering"), Some("no"));
            assert_eq!(reply.header("content-type"), Some("text/event-stream"));
            assert_eq!(reply.header("content-encoding"), None);
        }
    }
    let mut get = alone.gateway.bare("GET", &session).await;
    assert_eq!(get.header("x-accel-buffering"), Some("no"));
    assert_eq!(String::from_utf8(get.bytes().await).unwrap(), EVENTS, "GET");
}

// G13: a server's own wish on buffering stays.
#[tokio::test]
async fn x_accel_buffering_of_the_server_stays() {
    let pods = [Pod::start("one", Speaks::Both).await];
    pods[0].script(|seen, out| {
        let out = out.clone();
        (seen.tool() == "x").then(|| {
            async move {
                out.stream(&[("X-Accel-Buffering", "yes")]).await;
                out.finish().await;
            }
            .boxed()
        })
    });
    let alone = Alone::new(&pods, json!({})).await;
    let reply = alone.gateway.modern(&modern(1, "tools/call", json!({"name": "x"}))).await;
    assert_eq!(reply.header("x-accel-buffering"), Some("yes"));
}

// G13: unbuffered; the go client waits for the head of its GET before it says anything else.
#[tokio::test]
async fn heads_and_events_come_before_there_is_more() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    let session = alone.gateway.open_session().await;
    let mut get = alone.gateway.bare("GET", &session).await;
    assert_eq!(get.status, 200, "a head without an event");
    until("the stream at the pod", || pods[0].gets().len() == 1).await;
    for i in 0..3 {
        pods[0].push(&format!("id: {i}\ndata: x\n\n")).await;
        assert_eq!(get.event().await.unwrap(), format!("id: {i}\ndata: x\n\n"));
    }
    pods[0].script(|seen, out| {
        let (out, request) = (out.clone(), seen.body.clone());
        (seen.tool() == "progress").then(|| {
            async move {
                out.stream(&[]).await;
                out.event(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}})).await;
                sleep(Duration::from_millis(300)).await;
                out.event(&result(&request, says("done"), true)).await;
                out.finish().await;
            }
            .boxed()
        })
    });
    let began = Instant::now();
    let mut call = alone.gateway.modern(&modern(1, "tools/call", json!({"name": "progress"}))).await;
    assert_eq!(call.message().await.unwrap()["method"], "notifications/progress");
    assert!(began.elapsed() < Duration::from_millis(250), "held back for {:?}", began.elapsed());
    assert_eq!(text(&call.message().await.unwrap()), "done");
    assert!(call.event().await.is_none());
}

/// A tool that sends one event and then nothing.
fn dangling(pod: &Pod) {
    pod.script(|seen, out| {
        let out = out.clone();
        (seen.tool() == "dangling").then(|| {
            async move {
                out.stream(&[]).await;
                out.chunk("data: {}\n\n").await;
                std::future::pending::<()>().await;
            }
            .boxed()
        })
    });
}

// G15: to a modern server, its client's leaving is the cancellation.
#[tokio::test]
async fn a_modern_client_that_leaves_closes_upstream_at_once() {
    let pods = [Pod::start("one", Speaks::Both).await];
    dangling(&pods[0]);
    let alone = Alone::new(&pods, json!({})).await;
    // Before the head of the answer.
    let body = modern(1, "tools/call", json!({"name": "slow"}));
    let waiting = async { alone.gateway.modern(&body).await };
    let left = {
        let mut waiting = Box::pin(waiting);
        tokio::select! {
            _ = &mut waiting => panic!("nothing lets it go on"),
            () = until("the call", || pods[0].calls("slow").len() == 1) => {}
        }
        Instant::now()
    };
    until("the end of the call", || pods[0].calls("slow")[0].left.is_some()).await;
    let took = pods[0].calls("slow")[0].left.unwrap() - left;
    assert!(took < Duration::from_millis(50), "{took:?}");
    // Inside of it.
    let mut reply = alone.gateway.modern(&modern(2, "tools/call", json!({"name": "dangling"}))).await;
    reply.event().await.unwrap();
    drop(reply);
    let left = Instant::now();
    until("the end of the stream", || pods[0].calls("dangling")[0].left.is_some()).await;
    let took = pods[0].calls("dangling")[0].left.unwrap() - left;
    assert!(took < Duration::from_millis(50), "{took:?}");
    until_idle(&alone, &pods[0]).await;
}

async fn until_idle(alone: &Alone, pod: &Pod) {
    alone.gateway.wait_for("an idle pod", pod, |e| e["inflight"] == 0).await;
}

// G15: servers answer 409 to a second GET while they hold the first.
#[tokio::test]
async fn a_get_whose_client_leaves_closes_upstream_at_once() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    let session = alone.gateway.open_session().await;
    for _ in 0..3 {
        let get = alone.gateway.bare("GET", &session).await;
        until("the stream at the pod", || pods[0].gets().len() == 1).await;
        drop(get);
        let left = Instant::now();
        until("its end", || pods[0].gets().is_empty()).await;
        assert!(left.elapsed() < Duration::from_millis(60), "{:?}", left.elapsed());
    }
    assert_eq!(alone.gateway.endpoint(&pods[0]).await["breaker"], "closed", "no failure of the pod");
}

// G16: legacy servers finish a tool whose client has left, and it is load until then.
#[tokio::test]
async fn a_legacy_call_runs_to_its_end_and_counts_until_then() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({"maxRequestsPerPod": 1})).await;
    let session = alone.gateway.open_session().await;
    let body = tool(1, "slow");
    {
        let mut waiting = Box::pin(alone.gateway.on(&session, &body));
        tokio::select! {
            _ = &mut waiting => panic!("nothing lets it go on"),
            () = until("the call", || pods[0].calls("slow").len() == 1) => {}
        }
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(pods[0].calls("slow")[0].left, None, "the exchange goes on");
    assert_eq!(alone.gateway.endpoint(&pods[0]).await["inflight"], 1);
    // Its place is taken: the next call waits for it, and not at the pod.
    let call = tool(2, "whoami");
    let (mut next, ()) = tokio::join!(alone.gateway.on(&session, &call), async {
        sleep(Duration::from_millis(150)).await;
        assert_eq!(pods[0].calls("whoami").len(), 0);
        pods[0].release(1);
    });
    assert_eq!(text(&next.json().await), "one");
    assert!(pods[0].calls("slow")[0].answered);
    until_idle(&alone, &pods[0]).await;
}

// G16: the same once events have begun to flow.
#[tokio::test]
async fn a_legacy_stream_of_a_call_is_read_to_its_end_without_its_client() {
    let pods = [Pod::start("one", Speaks::Both).await];
    pods[0].script(|seen, out| {
        let out = out.clone();
        (seen.tool() == "long").then(|| {
            async move {
                out.stream(&[]).await;
                for _ in 0..30 {
                    out.chunk("data: {}\n\n").await;
                    sleep(Duration::from_millis(10)).await;
                }
                out.finish().await;
            }
            .boxed()
        })
    });
    let alone = Alone::new(&pods, json!({})).await;
    let session = alone.gateway.open_session().await;
    let mut reply = alone.gateway.on(&session, &tool(1, "long")).await;
    reply.event().await.unwrap();
    drop(reply);
    sleep(Duration::from_millis(60)).await;
    assert_eq!(alone.gateway.endpoint(&pods[0]).await["inflight"], 1);
    until("the end of the call", || pods[0].calls("long")[0].answered).await;
    until_idle(&alone, &pods[0]).await;
}

/// Sends `bytes` of a stream and breaks off.
fn breaks_off(pod: &Pod) {
    pod.script(|seen, out| {
        let bytes = match seen.tool() {
            "between" => "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n",
            "inside" => "data: {\"jsonrpc\":\"2.0\",\"meth",
            "json" => "",
            _ => return None,
        };
        let out = out.clone();
        Some(
            async move {
                if bytes.is_empty() {
                    out.raw(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
                    )
                    .await;
                } else {
                    out.stream(&[]).await;
                    out.chunk(bytes).await;
                }
                sleep(Duration::from_millis(50)).await;
                out.cut();
                std::future::pending::<()>().await;
            }
            .boxed(),
        )
    });
}

// dataplane.md section 7.2, G18: a server that is cut never looks like one that ended.
#[tokio::test]
async fn an_answer_that_the_server_breaks_off_is_ended_with_an_error_or_broken_too() {
    let pods = [Pod::start("one", Speaks::Both).await];
    breaks_off(&pods[0]);
    let alone =
        Alone::new(&pods, json!({"circuitBreaker": {"failureThreshold": 100, "minRequests": 1000}})).await;
    let session = alone.gateway.open_session().await;
    for is_modern in [false, true] {
        let call = async |name: &str| {
            if is_modern {
                alone.gateway.modern(&modern("x", "tools/call", json!({"name": name}))).await
            } else {
                alone.gateway.on(&session, &tool("x", name)).await
            }
        };
        let mut between = call("between").await;
        assert_eq!(between.message().await.unwrap()["method"], "notifications/message");
        let end = between.message().await.unwrap();
        assert_eq!((&end["id"], &end["error"]["data"]["source"]), (&json!("x"), &json!("gateway")));
        assert!(between.event().await.is_none(), "and the stream ends as it should");
        // What is incomplete was sent (legacy: the answer is broken), or was not (modern: an error instead).
        let (broken, came) = call("inside").await.broken().await;
        let came = String::from_utf8(came).unwrap();
        assert!(broken || came.contains("\"source\":\"gateway\"") && !came.contains("\"meth"), "{came}");
        let mut json = call("json").await;
        assert_eq!(json.status, if is_modern { 503 } else { 200 });
        let body = json.json().await;
        assert_eq!((&body["id"], &body["error"]["data"]["source"]), (&json!("x"), &json!("gateway")));
    }
    assert_eq!(pods[0].seen("tools/call").len(), 6, "G17: and nothing was sent twice");
    assert_eq!(alone.gateway.count(&session).await, 1);
}

// G13: a comment after 15 s, on every kind of stream; proxies in between cut at 30 s and less.
#[tokio::test]
async fn silent_streams_get_a_comment_after_15_seconds() {
    let pods = [Pod::start("one", Speaks::Both).await];
    dangling(&pods[0]);
    let alone = Alone::new(&pods, json!({})).await;
    let session = alone.gateway.open_session().await;
    let gateway = &alone.gateway;
    let began = Instant::now();
    let mut get = gateway.bare("GET", &session).await;
    let mut legacy = gateway.on(&session, &tool(1, "dangling")).await;
    let mut modern_call = gateway.modern(&modern(1, "tools/call", json!({"name": "dangling"}))).await;
    let listen = modern(2, "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut listen = gateway.modern(&listen).await;
    for stream in [&mut legacy, &mut modern_call, &mut listen] {
        stream.event().await.unwrap();
    }
    sleep(Duration::from_secs(12)).await;
    for stream in [&mut get, &mut legacy, &mut modern_call, &mut listen] {
        let event = stream.event().await.unwrap();
        assert!(event.starts_with(':') && event.ends_with("\n\n"), "{event}");
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(14) && took < Duration::from_secs(18), "{took:?}");
}

// G13, G14: what is larger than any buffer flows, and what a client does not read is not read from the pod.
#[tokio::test]
async fn large_answers_pass_whole() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let size = 9 << 20;
    pods[0].script(move |seen, out| {
        let (out, request) = (out.clone(), seen.body.clone());
        (seen.tool() == "large").then(|| {
            async move {
                let message = result(&request, says(&"\u{e4}".repeat(size / 2)), true);
                out.json(200, &[], &message).await;
            }
            .boxed()
        })
    });
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let mut reply = world.a.modern(&modern(1, "tools/call", json!({"name": "large"}))).await;
    assert_eq!(text(&reply.json().await).len(), size);
    let mut reply = world.b.post(&on_session(&session), &tool(1, "large")).await;
    assert_eq!(text(&reply.json().await).len(), size);
    assert!(MCP.starts_with('/') && reply.status == 200);
}

// A server that has fallen silent in the middle of a call's stream: the call ends with an error of its own, and
// what still talks is left alone.
#[tokio::test]
async fn a_silent_stream_of_a_call_ends_with_an_error_for_the_call() {
    let pods = [Pod::start("one", Speaks::Both).await];
    pods[0].script(|seen, out| {
        let (out, id) = (out.clone(), seen.body["id"].clone());
        let talks = seen.tool() == "talks";
        (talks || seen.tool() == "silent").then(|| {
            async move {
                let news = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
                out.stream(&[]).await;
                out.event(&news).await;
                if !talks {
                    sleep(Duration::from_millis(600)).await;
                    out.event(&news).await;
                    std::future::pending::<()>().await;
                }
                for _ in 0..5 {
                    sleep(Duration::from_millis(400)).await;
                    out.event(&news).await;
                }
                let call = json!({"id": id});
                out.event(&result(&call, says("done"), true)).await;
                out.finish().await;
            }
            .boxed()
        })
    });
    let alone = Alone::new(&pods, json!({"timeouts": {"streamIdleSeconds": 1}})).await;
    let talks = async {
        let mut reply = alone.gateway.modern(&modern("t", "tools/call", json!({"name": "talks"}))).await;
        let mut last = json!(null);
        while let Some(message) = reply.message().await {
            last = message;
        }
        assert_eq!(text(&last), "done", "it talks for 2 s");
    };
    let silent = async {
        let mut reply = alone.gateway.modern(&modern("s", "tools/call", json!({"name": "silent"}))).await;
        for _ in 0..2 {
            assert_eq!(reply.message().await.unwrap()["method"], "notifications/message");
        }
        let since = Instant::now();
        let end = reply.event().await.expect("an end");
        let took = since.elapsed();
        // No comment either: those are for longer silences than this one.
        let data = end.strip_prefix("data: ").or_else(|| end.split_once("\ndata: ").map(|(_, data)| data));
        let end: Value = serde_json::from_str(data.unwrap_or_else(|| panic!("no message: {end}"))).unwrap();
        assert!(took > Duration::from_millis(800) && took < Duration::from_secs(3), "{took:?} of silence");
        assert_eq!(end["id"], "s");
        assert!(end["error"]["code"].is_i64(), "{end}");
        assert_eq!(reply.message().await, None);
    };
    tokio::join!(talks, silent);
    until("the end at the pod", || pods[0].calls("silent")[0].left.is_some()).await;
    until_idle(&alone, &pods[0]).await;
}
