//! The client's side: requests as an SDK sends them, and answers read as slowly or as fast as a test wants.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::world::Gateway;

/// The newest revision with sessions.
pub(crate) const LEGACY: &str = "2025-11-25";
/// The first without.
pub(crate) const MODERN: &str = "2026-07-28";
/// Where the fleet of the tests is.
pub(crate) const MCP: &str = "/tools/demo/mcp";
/// Longest wait for anything that has to happen.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for what has to happen; says what did not.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("in vain waited for {what}"))
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer. Dropped, its connection closes: the client has left.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    /// What was read of the body and not taken.
    read: Vec<u8>,
    _connection: Connection,
}

impl Reply {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    /// The next bytes; `None` at a clean end, an error where the answer was cut.
    async fn more(&mut self) -> Option<Result<(), hyper::Error>> {
        let frame = soon("more of an answer", self.body.frame()).await?;
        Some(frame.map(|f| self.read.extend_from_slice(&f.into_data().unwrap_or_default())))
    }

    /// The whole body; it has to end as it should.
    pub(crate) async fn bytes(&mut self) -> Vec<u8> {
        while let Some(more) = self.more().await {
            more.expect("an answer that was not cut");
        }
        std::mem::take(&mut self.read)
    }

    /// Whether the rest was cut, with what came before.
    pub(crate) async fn broken(&mut self) -> (bool, Vec<u8>) {
        loop {
            match self.more().await {
                None => return (false, std::mem::take(&mut self.read)),
                Some(Err(_)) => return (true, std::mem::take(&mut self.read)),
                Some(Ok(())) => {}
            }
        }
    }

    /// The body as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        let bytes = self.bytes().await;
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&bytes)))
    }

    /// The next event, with its lines ended by `\n`; `None` when the stream has ended as it should.
    pub(crate) async fn event(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|w| w == b"\n\n") {
                let event = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8(event).unwrap());
            }
            self.more().await?.expect("a stream that was not cut");
        }
    }

    /// The JSON-RPC message in the next event that has one.
    pub(crate) async fn message(&mut self) -> Option<Value> {
        loop {
            let event = self.event().await?;
            let data = event.lines().filter_map(|l| l.strip_prefix("data: ")).collect::<String>();
            if !data.is_empty() {
                return Some(serde_json::from_str(&data).unwrap());
            }
        }
    }

    /// The next bytes, as many as asked for.
    pub(crate) async fn exactly(&mut self, n: usize) -> String {
        while self.read.len() < n {
            self.more().await.expect("more of a stream").expect("a stream that was not cut");
        }
        String::from_utf8(self.read.drain(..n).collect()).unwrap()
    }

    /// Whether nothing comes for a while, and the stream stays open.
    pub(crate) async fn is_silent(&mut self, for_: Duration) -> bool {
        self.read.is_empty() && timeout(for_, self.body.frame()).await.is_err()
    }
}

/// Sends a request on a connection of its own, and waits for the head of the answer.
pub(crate) async fn send(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Reply {
    soon("an answer", try_send(port, method, path, headers, body))
        .await
        .unwrap_or_else(|e| panic!("{method} {path}: {e}"))
}

/// The same, where the gateway may have gone.
pub(crate) async fn try_send(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = Connection(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", format!("127.0.0.1:{port}"));
    }
    for (name, value) in headers {
        request = request.header(*name, http::HeaderValue::from_bytes(value.as_bytes())?);
    }
    let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
    let (head, body) = answer.into_parts();
    Ok(Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        read: Vec::new(),
        _connection: connection,
    })
}

/// A JSON-RPC request.
#[expect(clippy::needless_pass_by_value, reason = "written out at the place of the call")]
pub(crate) fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

/// A JSON-RPC notification.
pub(crate) fn notification(method: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": method})
}

/// A call of a tool.
pub(crate) fn tool(id: impl Into<Value>, name: &str) -> Value {
    request(id, "tools/call", json!({"name": name, "arguments": {}}))
}

/// The `initialize` of the tests' client.
pub(crate) fn initialize(version: &str) -> Value {
    let client = json!({"name": "blackbox", "version": "1", "icons": [{"src": "data:,x"}]});
    request(
        "init",
        "initialize",
        json!({"protocolVersion": version, "capabilities": {"roots": {}}, "clientInfo": client}),
    )
}

/// A modern request, with what its revision wants in `_meta`.
pub(crate) fn modern(id: impl Into<Value>, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    });
    request(id, method, params)
}

/// The text that a tool answered.
pub(crate) fn text(message: &Value) -> &str {
    message["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {message}"))
}

impl Gateway {
    /// POST with the headers that every client sends.
    pub(crate) async fn post(&self, headers: &[(&str, &str)], body: &Value) -> Reply {
        self.post_bytes(headers, body.to_string().into_bytes()).await
    }

    /// The same with a body as it is.
    pub(crate) async fn post_bytes(&self, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        send(self.port, "POST", MCP, &with_usual(headers), body).await
    }

    /// POST on a session.
    pub(crate) async fn on(&self, session: &str, body: &Value) -> Reply {
        self.post(&on_session(session), body).await
    }

    /// GET or DELETE on a session.
    pub(crate) async fn bare(&self, method: &str, session: &str) -> Reply {
        let headers =
            [("accept", "text/event-stream"), ("mcp-session-id", session), ("mcp-protocol-version", LEGACY)];
        send(self.port, method, MCP, &headers, Vec::new()).await
    }

    /// A modern POST, with the routing headers that its body wants.
    pub(crate) async fn modern(&self, body: &Value) -> Reply {
        self.modern_with(&[], body).await
    }

    /// The same with more headers.
    pub(crate) async fn modern_with(&self, more: &[(&str, &str)], body: &Value) -> Reply {
        let params = &body["params"];
        let name = ["name", "uri", "taskId"].iter().find_map(|n| params[n].as_str());
        let mut headers =
            vec![("mcp-protocol-version", MODERN), ("mcp-method", body["method"].as_str().unwrap())];
        headers.extend(name.map(|n| ("mcp-name", n)));
        headers.extend_from_slice(more);
        self.post(&headers, body).await
    }

    /// Opens a session; its token.
    pub(crate) async fn open_session(&self) -> String {
        let mut reply = self.post(&[("authorization", "Bearer first")], &initialize(LEGACY)).await;
        assert_eq!(reply.status, 200, "initialize");
        let token = reply.header("mcp-session-id").expect("a session").to_owned();
        assert_eq!(reply.json().await["result"]["protocolVersion"], LEGACY);
        let ready = self.on(&token, &notification("notifications/initialized")).await;
        assert_eq!(ready.status, 202);
        token
    }

    /// The next number of the session's counter at its server.
    pub(crate) async fn count(&self, session: &str) -> u64 {
        let mut reply = self.on(session, &tool(7, "counter")).await;
        assert_eq!(reply.status, 200, "a call on the session");
        let message = reply.json().await;
        text(&message).parse().unwrap()
    }
}

/// Headers of a request on a session.
pub(crate) fn on_session(session: &str) -> [(&'static str, &str); 3] {
    [("mcp-session-id", session), ("mcp-protocol-version", LEGACY), ("authorization", "Bearer second")]
}

fn with_usual<'a>(headers: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let usual = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    usual.iter().copied().chain(headers.iter().copied()).collect()
}

/// How long something took.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn ms(&self) -> u128 {
        self.0.elapsed().as_millis()
    }
}
