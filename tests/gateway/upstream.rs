//! Connections to servers: plain answers and chunked ones are read by the request itself, every other one by hyper on
//! the same connection. Whatever shape an answer has and however it is cut, the client gets it whole, and a connection is
//! used again if and only if nothing is left on it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest},
    net::TcpSocket,
    time::{sleep, timeout},
};

use crate::{
    client::{MODERN, modern, soon, text, until},
    pod::{Out, Pod, Speaks},
    world::Alone,
};

const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"scripted"}]}}"#;

type Answer = fn(Out) -> BoxFuture<'static, ()>;

/// The head of an answer in chunks.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n";

fn call(name: &str) -> Value {
    modern(1, "tools/call", json!({"name": name}))
}

/// One pod that answers a call of each name as `answers` says, behind one gateway.
async fn scripted(answers: &'static [(&'static str, Answer)]) -> (Alone, Pod) {
    let pod = Pod::start("one", Speaks::Both).await;
    pod.script(move |seen, out| {
        let (_, answer) = answers.iter().find(|(name, _)| *name == seen.tool())?;
        Some(answer(out.clone()))
    });
    (Alone::new(std::slice::from_ref(&pod), json!({})).await, pod)
}

fn plain(more: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{more}\r\n{BODY}",
        BODY.len()
    )
}

/// An answer in two chunks, with more lines in its head, behind the size of its chunks and in its trailer.
fn chunked(head: &str, extension: &str, trailer: &str) -> String {
    let (one, two) = BODY.split_at(20);
    let (m, n) = (one.len(), two.len());
    format!(
        "{CHUNKED}{head}\r\n{m:x}{extension}\r\n{one}\r\n{n:04X}{extension}\r\n{two}\r\n0{extension}\r\n{trailer}\r\n"
    )
}

/// Connections on which calls of `tool` came, in their order.
fn connections(pod: &Pod, tool: &str) -> Vec<usize> {
    pod.calls(tool).iter().map(|seen| seen.connection).collect()
}

async fn scripted_text(world: &Alone, name: &str) {
    let mut reply = world.gateway.modern(&call(name)).await;
    assert_eq!(reply.status, 200, "{name}");
    assert_eq!(text(&reply.json().await), "scripted", "{name}");
}

#[tokio::test]
async fn an_answer_in_any_shape_arrives_whole_and_leaves_its_connection_usable() {
    let (world, pod) = scripted(&[
        ("at once", |out| async move { out.raw(plain("")).await }.boxed()),
        ("head first", |out| {
            async move {
                let answer = plain("");
                let (head, body) = answer.split_at(answer.len() - BODY.len());
                out.raw(head).await;
                sleep(Duration::from_millis(20)).await;
                out.raw(body).await;
            }
            .boxed()
        }),
        ("dripping", |out| {
            async move {
                for byte in plain("x-note: slow\r\n").as_bytes().chunks(7) {
                    out.raw(byte).await;
                    sleep(Duration::from_millis(1)).await;
                }
            }
            .boxed()
        }),
        ("chunked", |out| {
            async move {
                out.raw(format!("{CHUNKED}\r\n")).await;
                let (one, two) = BODY.split_at(20);
                out.chunk(one).await;
                sleep(Duration::from_millis(5)).await;
                out.chunk(two).await;
                out.finish().await;
            }
            .boxed()
        }),
        ("chunked at once", |out| async move { out.raw(chunked("", "", "")).await }.boxed()),
        ("chunked with more", |out| {
            async move { out.raw(chunked("", " ;a=\"b\"", "X-Sum: 1\r\nx: y\r\n")).await }.boxed()
        }),
        ("chunked and dripping", |out| {
            async move {
                for byte in chunked("x-note: slow\r\n", ";e", "x: y\r\n").as_bytes().chunks(3) {
                    out.raw(byte).await;
                    sleep(Duration::from_millis(1)).await;
                }
            }
            .boxed()
        }),
        ("interim", |out| {
            async move {
                out.raw("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n").await;
                sleep(Duration::from_millis(5)).await;
                out.raw(plain("")).await;
            }
            .boxed()
        }),
    ])
    .await;
    let early = ["at once", "head first", "dripping", "chunked", "at once"];
    let more = ["chunked at once", "chunked with more", "chunked and dripping"];
    // From the interim answer on the connection is hyper's.
    let late = ["interim", "chunked", "at once"];
    let names: Vec<&str> = [&early[..], &more, &late, &more].concat();
    for name in &names {
        scripted_text(&world, name).await;
    }
    let different: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    let all: Vec<usize> = different.iter().flat_map(|n| connections(&pod, n)).collect();
    assert_eq!(all.len(), names.len());
    // hyper believes that it has sent what it is handed the answer to; the server must not hear of that.
    assert!(pod.all().iter().all(|seen| seen.path == "/mcp"), "{:?}", pod.all());
    // Two threads at most have opened one each.
    let first: std::collections::BTreeSet<usize> = all.into_iter().collect();
    assert!(first.len() <= 2, "{first:?}");
}

#[tokio::test]
async fn a_connection_with_something_left_on_it_is_not_used_again() {
    let (world, pod) = scripted(&[
        ("more", |out| async move { out.raw(plain("") + "HTTP/1.1 200 OK\r\n\r\n").await }.boxed()),
        ("later", |out| {
            async move {
                out.raw(plain("")).await;
                sleep(Duration::from_millis(20)).await;
                out.raw("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await;
            }
            .boxed()
        }),
        ("close", |out| async move { out.raw(plain("Connection: x, Close\r\n")).await }.boxed()),
        ("more than chunks", |out| {
            async move { out.raw(chunked("", "", "") + "HTTP/1.1 200 OK\r\n\r\n").await }.boxed()
        }),
        ("later than chunks", |out| {
            async move {
                out.raw(chunked("", "", "")).await;
                sleep(Duration::from_millis(20)).await;
                out.raw("0\r\n\r\n").await;
            }
            .boxed()
        }),
        ("close after chunks", |out| {
            async move { out.raw(chunked("connection: close\r\n", "", "")).await }.boxed()
        }),
        ("old", |out| async move { out.raw(plain("").replacen("1.1", "1.0", 1)).await }.boxed()),
    ])
    .await;
    let names =
        ["more", "later", "close", "more than chunks", "later than chunks", "close after chunks", "old"];
    for name in names {
        for _ in 0..6 {
            scripted_text(&world, name).await;
            sleep(Duration::from_millis(60)).await;
        }
        let used = connections(&pod, name);
        let different: std::collections::BTreeSet<usize> = used.iter().copied().collect();
        assert_eq!((used.len(), different.len()), (6, 6), "{name}: {used:?}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_early_fails_its_call_and_no_other() {
    let (world, _pod) = scripted(&[
        ("in the head", |out| {
            async move {
                out.raw("HTTP/1.1 200 OK\r\ncontent-le").await;
                out.cut();
            }
            .boxed()
        }),
        ("in the body", |out| {
            async move {
                let answer = plain("");
                out.raw(&answer[..answer.len() - 5]).await;
                out.cut();
            }
            .boxed()
        }),
        ("in a chunk", |out| {
            async move {
                out.raw(&chunked("", "", "")[..CHUNKED.len() + 12]).await;
                out.cut();
            }
            .boxed()
        }),
        ("before the last chunk", |out| {
            async move {
                out.raw(chunked("", "", "").strip_suffix("0\r\n\r\n").unwrap()).await;
                out.cut();
            }
            .boxed()
        }),
        ("in the trailer", |out| {
            async move {
                out.raw(chunked("", "", "x: y").strip_suffix("\r\n").unwrap()).await;
                out.cut();
            }
            .boxed()
        }),
        ("no size", |out| {
            async move { out.raw(format!("{CHUNKED}\r\nx{}", chunked("", "", ""))).await }.boxed()
        }),
        ("larger than its size", |out| {
            async move { out.raw(format!("{CHUNKED}\r\n5\r\n{BODY}\r\n0\r\n\r\n")).await }.boxed()
        }),
        ("no http", |out| async move { out.raw("SSH-2.0-OpenSSH_9.2\r\n\r\n").await }.boxed()),
        ("two lengths", |out| async move { out.raw(plain("content-length: 3\r\n")).await }.boxed()),
    ])
    .await;
    let chunked =
        ["in a chunk", "before the last chunk", "in the trailer", "no size", "larger than its size"];
    for name in [&["in the head", "in the body", "no http", "two lengths"][..], &chunked].concat() {
        let mut reply = world.gateway.modern(&call(name)).await;
        assert_eq!(reply.status, 503, "{name}");
        assert!(reply.json().await["error"]["code"].is_i64(), "{name}");
        assert_eq!(world.gateway.modern(&call("echo")).await.status, 200, "after {name}");
    }
}

/// Larger than what a request writes itself: hyper does, on a connection that may have been used before.
#[tokio::test]
async fn a_large_request_arrives_whole() {
    let (world, pod) = scripted(&[("at once", |out| async move { out.raw(plain("")).await }.boxed())]).await;
    scripted_text(&world, "at once").await;
    let large = modern(1, "tools/call", json!({"name": "at once", "arguments": {"x": "y".repeat(1 << 20)}}));
    for _ in 0..3 {
        let mut reply = world.gateway.modern(&large).await;
        assert_eq!((reply.status, text(&reply.json().await)), (200, "scripted"));
    }
    assert_eq!(
        pod.calls("at once").last().unwrap().body["params"]["arguments"]["x"].as_str().unwrap().len(),
        1 << 20
    );
}

/// A server that answers small requests as a modern one, and refuses a large one before it has read its body, which it
/// never does. Counts the connections of refused requests that are open.
fn refuses_early() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = TcpSocket::new_v4().unwrap();
    // The rest of a large body has to wait for a reader, and not in the kernel.
    socket.set_recv_buffer_size(8192).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(64).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |status: &str, more: &str, body: &Value| {
        let body = body.to_string();
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}content-length: {length}\r\n\r\n{body}"
        )
    };
    let refused = Arc::new(AtomicUsize::new(0));
    let stuck = Arc::clone(&refused);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stuck = Arc::clone(&stuck);
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut length = 0;
                    loop {
                        let mut line = String::new();
                        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                            return;
                        }
                        let line = line.trim().to_ascii_lowercase();
                        if let Some(n) = line.strip_prefix("content-length:") {
                            length = n.trim().parse().unwrap();
                        } else if line.is_empty() {
                            break;
                        }
                    }
                    if length > 1 << 20 {
                        let said = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": "too large"}});
                        let refusal = answer("413 Content Too Large", "", &said);
                        stuck.fetch_add(1, Ordering::SeqCst);
                        stream.write_all(refusal.as_bytes()).await.unwrap();
                        // The gateway's end shows without a read: as an error of the socket, or of its readiness.
                        let gone = stream.get_ref().ready(Interest::ERROR | Interest::PRIORITY);
                        let _ = timeout(Duration::from_secs(20), gone).await;
                        stuck.fetch_sub(1, Ordering::SeqCst);
                        return;
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await.unwrap();
                    let asked: Value = serde_json::from_slice(&body).unwrap();
                    let said = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"supportedVersions": [MODERN],
                        "capabilities": {"tools": {}}, "serverInfo": {"name": "strict", "version": "1"}}});
                    stream.write_all(answer("200 OK", "", &said).as_bytes()).await.unwrap();
                }
            });
        }
    });
    (address, refused)
}

#[tokio::test]
async fn a_refusal_arrives_before_a_large_request_was_read() {
    let (address, stuck) = refuses_early();
    let endpoints = json!([{"address": address.to_string()}]);
    let world = Alone::with(&[], json!({}), |fleet| fleet["endpoints"] = endpoints).await;
    soon("the probe", async {
        while world.gateway.modern(&call("small")).await.status != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let large = modern(1, "tools/call", json!({"name": "large", "arguments": {"x": "y".repeat(3 << 20)}}));
    for _ in 0..3 {
        let mut reply =
            timeout(Duration::from_secs(5), world.gateway.modern(&large)).await.expect("an answer");
        assert_eq!((reply.status, &reply.json().await["error"]["message"]), (413, &json!("too large")));
        assert_eq!(world.gateway.modern(&call("small")).await.status, 200, "others are served");
    }
    // What nobody reads would keep a pod that drains waiting.
    until("the end of the refused requests' connections", || stuck.load(Ordering::SeqCst) == 0).await;
}

/// The connection of a call whose client leaves is closed, so that the server notices.
#[tokio::test]
async fn a_client_that_leaves_before_the_head_closes_upstream() {
    let (world, pod) = scripted(&[("never", |_| futures::future::pending().boxed())]).await;
    let left = timeout(Duration::from_millis(300), world.gateway.modern(&call("never"))).await;
    assert!(left.is_err() && pod.calls("never").len() == 1);
    until("the end of the call's connection", || pod.calls("never")[0].left.is_some()).await;
}
