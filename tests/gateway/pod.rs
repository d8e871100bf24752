//! A scripted MCP server on a bare socket: speaks either era or both, records every request, and answers what
//! the test says, or else what a server of its kind would.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{Shutdown, SocketAddr},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    select,
    sync::Semaphore,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{client::MODERN, world::free_port};

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Legacy,
    Modern,
    Both,
}

/// A request that reached the server.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) http: String,
    pub(crate) path: String,
    headers: Vec<(String, Vec<u8>)>,
    pub(crate) raw: Vec<u8>,
    /// Body as JSON; null where it is none.
    pub(crate) body: Value,
    /// Which connection it came on.
    pub(crate) connection: usize,
    /// When the gateway closed the connection before the answer was complete.
    pub(crate) left: Option<Instant>,
    /// The answer is complete.
    pub(crate) answered: bool,
}

impl Seen {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name)?;
        Some(std::str::from_utf8(&found.1).unwrap())
    }

    /// JSON-RPC method.
    pub(crate) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    /// Name of the tool that is called.
    pub(crate) fn tool(&self) -> &str {
        self.body["params"]["name"].as_str().unwrap_or_default()
    }

    /// Whether a probe of a gateway asks.
    fn is_probe(&self) -> bool {
        self.header("user-agent").is_some_and(|a| a.starts_with("mcp-fleet-gateway/"))
    }
}

/// Answers in place of the server's own; `None` leaves it to the server.
pub(crate) type Script = Arc<dyn Fn(&Seen, &Out) -> Option<BoxFuture<'static, ()>> + Send + Sync>;

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    sessions: HashMap<String, u64>,
    tasks: HashMap<String, &'static str>,
    listens: Vec<(Out, Value)>,
    gets: Vec<(Out, String)>,
    script: Option<Script>,
    /// The revision that an `initialize` of another one gets.
    negotiates: Option<&'static str>,
    /// Connections that are open, and whether a byte came on them.
    open: HashMap<usize, bool>,
    /// All sockets, to be closed on the spot.
    sockets: HashMap<usize, std::net::TcpStream>,
}

struct Inner {
    name: &'static str,
    speaks: Speaks,
    address: SocketAddr,
    state: Mutex<State>,
    /// Calls of the tool `slow` wait for a permit.
    gate: Semaphore,
    minted: AtomicU64,
    connections: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
    alive: Mutex<CancellationToken>,
}

/// See the module. All clones are one server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Pod(Arc<Inner>);

/// Where an answer goes.
#[derive(Clone)]
pub(crate) struct Out {
    writer: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
    cut: CancellationToken,
}

impl Out {
    /// Bytes as they are.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) {
        let _ = self.writer.lock().await.write_all(bytes.as_ref()).await;
    }

    /// An answer with a length.
    pub(crate) async fn whole(&self, status: u16, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        self.raw([head.as_bytes(), body].concat()).await;
    }

    /// A JSON answer.
    pub(crate) async fn json(&self, status: u16, headers: &[(&str, &str)], body: &Value) {
        let headers = [headers, &[("Content-Type", "application/json")]].concat();
        self.whole(status, &headers, body.to_string().as_bytes()).await;
    }

    /// The head of a stream of events.
    pub(crate) async fn stream(&self, headers: &[(&str, &str)]) {
        let mut head =
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n".to_owned();
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        self.raw(head + "\r\n").await;
    }

    /// Part of a stream.
    pub(crate) async fn chunk(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.raw([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()).await;
    }

    /// A message as an event.
    pub(crate) async fn event(&self, message: &Value) {
        self.chunk(format!("event: message\ndata: {message}\n\n")).await;
    }

    /// The end of a stream.
    pub(crate) async fn finish(&self) {
        self.raw("0\r\n\r\n").await;
    }

    /// Breaks the connection.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
}

impl Pod {
    /// Starts a server of this name, which is part of every identifier that it mints.
    pub(crate) async fn start(name: &'static str, speaks: Speaks) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let pod = Self(Arc::new(Inner {
            name,
            speaks,
            address,
            state: Mutex::default(),
            gate: Semaphore::new(0),
            minted: AtomicU64::new(1),
            connections: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            alive: Mutex::new(CancellationToken::new()),
        }));
        pod.revive().await;
        pod
    }

    /// Listens, with nothing known of what was before: what a container that restarted is like.
    pub(crate) async fn revive(&self) {
        // The old listener ends a moment after it was told to.
        let listener = crate::client::soon("the address", async {
            loop {
                match TcpListener::bind(self.0.address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        self.0.state.lock().sockets.insert(LISTENER, twin(&listener));
        let alive = CancellationToken::new();
        *self.0.alive.lock() = alive.clone();
        self.forget_sessions();
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            while let Some(Ok((socket, _))) = alive.run_until_cancelled(listener.accept()).await {
                let (inner, alive) = (Arc::clone(&inner), alive.clone());
                tokio::spawn(async move { connection(&inner, socket, &alive).await });
            }
        });
    }

    /// Ends at once, with all its connections: when this returns, a connection is refused.
    pub(crate) fn kill(&self) {
        // The last handle of the listener has to go for its address to be free.
        for (_, socket) in self.0.state.lock().sockets.drain() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.0.alive.lock().cancel();
    }

    /// Loses its sessions and stays up.
    pub(crate) fn forget_sessions(&self) {
        self.0.state.lock().sessions.clear();
    }

    pub(crate) fn name(&self) -> &'static str {
        self.0.name
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Answers from now on what `script` says, where it says something.
    pub(crate) fn script(
        &self,
        script: impl Fn(&Seen, &Out) -> Option<BoxFuture<'static, ()>> + Send + Sync + 'static,
    ) {
        self.0.state.lock().script = Some(Arc::new(script));
    }

    /// Answers every `initialize` with this revision.
    pub(crate) fn negotiate(&self, version: &'static str) {
        self.0.state.lock().negotiates = Some(version);
    }

    /// Lets `n` calls of the tool `slow` go on.
    pub(crate) fn release(&self, n: usize) {
        self.0.gate.add_permits(n);
    }

    /// A task reaches its end.
    pub(crate) fn complete_tasks(&self) {
        self.0.state.lock().tasks.values_mut().for_each(|s| *s = "completed");
    }

    /// Everything that came but for probes, by JSON-RPC method, or by HTTP method where there is none.
    pub(crate) fn seen(&self, method: &str) -> Vec<Seen> {
        let state = self.0.state.lock();
        let wanted = |s: &&Seen| !s.is_probe() && (s.method() == method || s.http == method);
        state.seen.iter().filter(wanted).cloned().collect()
    }

    /// Calls of a tool.
    pub(crate) fn calls(&self, tool: &str) -> Vec<Seen> {
        self.seen("tools/call").into_iter().filter(|s| s.tool() == tool).collect()
    }

    /// Everything, probes included.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.state.lock().seen.clone()
    }

    /// Most calls of tools that ran at the same time.
    pub(crate) fn most_running(&self) -> usize {
        self.0.most_running.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.0.state.lock().open.len()
    }

    /// Of these, those on which not a byte came.
    pub(crate) fn untouched(&self) -> usize {
        self.0.state.lock().open.values().filter(|touched| !**touched).count()
    }

    /// Open listens, with their requests.
    pub(crate) fn listens(&self) -> Vec<Value> {
        self.0.state.lock().listens.iter().map(|(_, request)| request.clone()).collect()
    }

    /// Sends a notification to all listens.
    pub(crate) async fn publish(&self, method: &str, params: Value) {
        let listens = self.0.state.lock().listens.clone();
        for (out, request) in listens {
            let mut params = params.clone();
            params["_meta"] = json!({"io.modelcontextprotocol/subscriptionId": request["id"]});
            out.event(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
        }
    }

    /// Sessions whose GET stream is open.
    pub(crate) fn gets(&self) -> Vec<String> {
        self.0.state.lock().gets.iter().map(|(_, session)| session.clone()).collect()
    }

    /// Sends bytes to all GET streams.
    pub(crate) async fn push(&self, bytes: &str) {
        let gets = self.0.state.lock().gets.clone();
        for (out, _) in gets {
            out.chunk(bytes).await;
        }
    }
}

/// Place of the listener among the sockets.
const LISTENER: usize = usize::MAX;

/// A second handle of a socket, which can end it while the first is in use.
fn twin(socket: &impl AsFd) -> std::net::TcpStream {
    socket.as_fd().try_clone_to_owned().unwrap().into()
}

/// A JSON-RPC answer.
pub(crate) fn result(request: &Value, mut result: Value, modern: bool) -> Value {
    if modern && result.get("resultType").is_none() {
        result["resultType"] = json!("complete");
    }
    json!({"jsonrpc": "2.0", "id": request["id"], "result": result})
}

/// A JSON-RPC error.
pub(crate) fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}

/// What a tool answers.
pub(crate) fn says(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

async fn read(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>, touched: impl Fn()) -> Option<Seen> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Request::new(&mut headers);
            assert!(head.parse(buffer).unwrap().is_complete());
            let headers: Vec<_> =
                head.headers.iter().map(|h| (h.name.to_ascii_lowercase(), h.value.to_vec())).collect();
            let (http, path) = (head.method.unwrap().to_owned(), head.path.unwrap().to_owned());
            let length = headers.iter().find(|(n, _)| n == "content-length");
            let length = length.map_or(0, |(_, v)| std::str::from_utf8(v).unwrap().parse().unwrap());
            while buffer.len() < end + 4 + length {
                more(reader, buffer).await?;
            }
            let raw = buffer[end + 4..end + 4 + length].to_vec();
            buffer.drain(..end + 4 + length);
            let body = serde_json::from_slice(&raw).unwrap_or_default();
            return Some(Seen { http, path, headers, raw, body, connection: 0, left: None, answered: false });
        }
        more(reader, buffer).await?;
        touched();
    }
}

async fn more(reader: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<()> {
    let n = reader.read_buf(buffer).await.unwrap_or(0);
    (n > 0).then_some(())
}

async fn connection(inner: &Arc<Inner>, socket: TcpStream, alive: &CancellationToken) {
    let id = inner.connections.fetch_add(1, Ordering::SeqCst);
    {
        let mut state = inner.state.lock();
        state.open.insert(id, false);
        state.sockets.insert(id, twin(&socket));
    }
    let (mut reader, writer) = socket.into_split();
    let out = Out { writer: Arc::new(tokio::sync::Mutex::new(writer)), cut: CancellationToken::new() };
    let mut buffer = Vec::new();
    let touched = || {
        inner.state.lock().open.insert(id, true);
    };
    loop {
        let seen = select! {
            seen = read(&mut reader, &mut buffer, touched) => seen,
            () = alive.cancelled() => None,
            () = out.cut.cancelled() => None,
        };
        let Some(mut seen) = seen else { break };
        seen.connection = id;
        let index = {
            let mut state = inner.state.lock();
            state.seen.push(seen.clone());
            state.seen.len() - 1
        };
        let answered = select! {
            () = answer(inner, &seen, &out) => true,
            () = async { while more(&mut reader, &mut buffer).await.is_some() {} } => false,
            () = alive.cancelled() => break,
            () = out.cut.cancelled() => break,
        };
        let mut state = inner.state.lock();
        let seen = &mut state.seen[index];
        seen.answered = answered;
        if !answered {
            seen.left = Some(Instant::now());
            break;
        }
    }
    // A script may hold the other half.
    let _ = out.writer.lock().await.shutdown().await;
    let mut state = inner.state.lock();
    state.open.remove(&id);
    state.sockets.remove(&id);
    let same = |other: &Out| Arc::ptr_eq(&other.writer, &out.writer);
    state.listens.retain(|(other, _)| !same(other));
    state.gets.retain(|(other, _)| !same(other));
}

async fn answer(inner: &Arc<Inner>, seen: &Seen, out: &Out) {
    let script = inner.state.lock().script.clone();
    if let Some(scripted) = script.and_then(|script| script(seen, out)) {
        return scripted.await;
    }
    let is_modern = seen.header("mcp-protocol-version").is_some_and(|v| v.starts_with('2') && v >= MODERN);
    match (is_modern, inner.speaks) {
        (true, Speaks::Legacy) => out.json(400, &[], &error(&seen.body["id"], -32000, "no session")).await,
        (true, _) => modern(inner, seen, out).await,
        (false, Speaks::Modern) => {
            let mut body = error(&seen.body["id"], -32022, "Unsupported protocol version");
            body["error"]["data"] = json!({"supported": [MODERN], "requested": "?"});
            out.json(400, &[], &body).await;
        }
        (false, _) => legacy(inner, seen, out).await,
    }
}

/// Counts a call while it runs.
struct Running<'a>(&'a Inner);

impl<'a> Running<'a> {
    fn begin(inner: &'a Inner) -> Self {
        let now = inner.running.fetch_add(1, Ordering::SeqCst) + 1;
        inner.most_running.fetch_max(now, Ordering::SeqCst);
        Self(inner)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn tool(inner: &Inner, seen: &Seen, session: Option<&str>) -> Value {
    let _running = Running::begin(inner);
    match seen.tool() {
        "slow" => {
            inner.gate.acquire().await.unwrap().forget();
            says(inner.name)
        }
        "counter" => {
            let mut state = inner.state.lock();
            let count = state.sessions.get_mut(session.unwrap_or_default()).unwrap();
            *count += 1;
            says(&count.to_string())
        }
        "failing" => json!({"content": [], "isError": true}),
        "task" => {
            let id = format!("raw-task-{}-{}", inner.name, inner.minted.fetch_add(1, Ordering::SeqCst));
            inner.state.lock().tasks.insert(id.clone(), "working");
            json!({"resultType": "task", "taskId": id, "status": "working", "ttlMs": null, "pollIntervalMs": 100})
        }
        "ask" => {
            let round = |n: u32| format!("raw-state-{}-{n}", inner.name);
            match seen.body["params"]["requestState"].as_str() {
                None => asks(&round(1)),
                Some(state) if state == round(1) => asks(&round(2)),
                Some(state) if state == round(2) => says(inner.name),
                Some(_) => json!({"error": "Invalid or expired requestState"}),
            }
        }
        _ => says(inner.name),
    }
}

fn asks(state: &str) -> Value {
    json!({"resultType": "input_required", "inputRequests": {"q": {"method": "elicitation/create"}},
           "requestState": state})
}

async fn modern(inner: &Arc<Inner>, seen: &Seen, out: &Out) {
    let request = &seen.body;
    let found = match seen.method() {
        "server/discover" => json!({"supportedVersions": [MODERN], "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"}}),
        "tools/call" => tool(inner, seen, None).await,
        "tools/list" => json!({"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]}),
        "tasks/get" | "tasks/cancel" => {
            let id = request["params"]["taskId"].as_str().unwrap_or_default();
            let status = inner.state.lock().tasks.get(id).copied();
            match status {
                Some(status) if seen.header("mcp-name") == Some(id) => {
                    json!({"taskId": id, "status": status, "ttlMs": null, "pollIntervalMs": 100})
                }
                Some(_) => {
                    return out.json(400, &[], &error(&request["id"], -32020, "Mcp-Name differs")).await;
                }
                None => return out.json(200, &[], &error(&request["id"], -32602, "unknown task")).await,
            }
        }
        "subscriptions/listen" => return listen(inner, seen, out).await,
        _ => json!({"text": inner.name}),
    };
    if let Some(wrong) = found["error"].as_str() {
        return out.json(400, &[], &error(&request["id"], -32602, wrong)).await;
    }
    // A modern server has no sessions; one that says so all the same must not be heard.
    out.json(200, &[("Mcp-Session-Id", "raw-modern")], &result(request, found, true)).await;
}

async fn listen(inner: &Arc<Inner>, seen: &Seen, out: &Out) {
    out.stream(&[]).await;
    let request = seen.body.clone();
    let meta = json!({"io.modelcontextprotocol/subscriptionId": request["id"]});
    let params = json!({"_meta": meta, "notifications": request["params"]["notifications"]});
    let method = "notifications/subscriptions/acknowledged";
    out.event(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    inner.state.lock().listens.push((out.clone(), request));
    std::future::pending::<()>().await;
}

async fn legacy(inner: &Arc<Inner>, seen: &Seen, out: &Out) {
    let request = &seen.body;
    let session = seen.header("mcp-session-id").map(str::to_owned);
    if seen.method() == "initialize" {
        let id = format!("raw-{}-{}", inner.name, inner.minted.fetch_add(1, Ordering::SeqCst));
        inner.state.lock().sessions.insert(id.clone(), 0);
        let wanted = request["params"]["protocolVersion"].clone();
        let version = inner.state.lock().negotiates.map_or(wanted, |v| json!(v));
        let found = json!({"protocolVersion": version, "capabilities": {"tools": {}},
                           "serverInfo": {"name": "scripted", "version": "1"}});
        return out.json(200, &[("Mcp-Session-Id", &id)], &result(request, found, false)).await;
    }
    let known = session.as_ref().is_some_and(|s| inner.state.lock().sessions.contains_key(s));
    let Some(session) = session.filter(|_| known) else {
        // As py2 does: a fresh, dead session on the answer.
        let status = if seen.header("mcp-session-id").is_some() { 404 } else { 400 };
        let body = error(&json!("server-error"), -32600, "no such session");
        return out.json(status, &[("Mcp-Session-Id", "raw-phantom")], &body).await;
    };
    let own = [("Mcp-Session-Id", session.as_str())];
    match (seen.http.as_str(), seen.method()) {
        ("GET", _) => {
            out.stream(&own).await;
            inner.state.lock().gets.push((out.clone(), session));
            std::future::pending::<()>().await;
        }
        ("DELETE", _) => {
            inner.state.lock().sessions.remove(&session);
            out.whole(200, &own, b"").await;
        }
        (_, "tools/call") => {
            let found = tool(inner, seen, Some(&session)).await;
            out.json(200, &own, &result(request, found, false)).await;
        }
        (_, "tools/list") => {
            let tools = json!({"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]});
            out.json(200, &own, &result(request, tools, false)).await;
        }
        _ if request.get("id").is_none() || request.get("result").is_some() => {
            out.whole(202, &own, b"").await;
        }
        _ => out.json(200, &own, &result(request, json!({}), false)).await,
    }
}
