//! A scripted MCP server on a bare socket: speaks either era or both, records every request, and answers what
//! the test says, or else what a server of its kind would.

mod server;

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

use crate::world::free_port;

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
            () = server::answer(inner, &seen, &out) => true,
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
