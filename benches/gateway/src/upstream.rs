//! The server behind every target: answers MCP over HTTP/1.1 for as little processor time as can be, so that what
//! is measured is the target. A process of its own, one thread; each listener is one replica. It notes when a
//! client leaves. Not a server for anything else: it trusts what it reads.
//!
//! Tools: `answer` (1 KB of JSON at once), `slot` (takes one of the replica's slots for a random time), `tick` (one
//! event a second, with its send time), `quiet` (a stream that says nothing until woken), `hang` (never answers).

use std::{
    cell::{Cell, RefCell},
    io::{self, Write as _},
    rc::Rc,
    time::Duration,
};

use memchr::memmem;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::{LocalSet, spawn_local},
    time::sleep,
};

use crate::{machine::now, wire};

/// Calls that a replica runs at once.
const SLOTS: usize = 4;
/// Mean of the random time of a call of `slot`.
const SERVICE: Duration = Duration::from_millis(20);
/// Between two events of a `tick` stream.
const TICK: Duration = Duration::from_secs(1);

struct Replica {
    slots: Semaphore,
    slow: Cell<f64>,
    fails: Cell<bool>,
    served: Cell<u64>,
}

struct Shared {
    replicas: Vec<Rc<Replica>>,
    /// Requests that run: streams and pending calls too.
    open: Cell<usize>,
    sessions: Cell<u64>,
    events: Cell<u64>,
    gone: RefCell<Vec<(u64, u64)>>,
    wake: watch::Sender<u64>,
}

/// Listens with `n` replicas and a control port, prints the ports on one line, and runs until its input closes.
pub fn run(n: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let replica = || Replica {
            slots: Semaphore::new(SLOTS),
            slow: Cell::new(1.0),
            fails: Cell::new(false),
            served: Cell::new(0),
        };
        let shared = Rc::new(Shared {
            replicas: (0..n).map(|_| Rc::new(replica())).collect(),
            open: Cell::new(0),
            sessions: Cell::new(0),
            events: Cell::new(0),
            gone: RefCell::default(),
            wake: watch::Sender::new(0),
        });
        let control = TcpListener::bind("127.0.0.1:0").await?;
        let mut ports = vec![control.local_addr()?.port().to_string()];
        for replica in &shared.replicas {
            // Room for a burst of a thousand streams: a connection that does not fit comes back after a second.
            let socket = TcpSocket::new_v4()?;
            socket.bind(([127, 0, 0, 1], 0).into())?;
            let listener = socket.listen(4096)?;
            ports.push(listener.local_addr()?.port().to_string());
            spawn_local(accept(listener, replica.clone(), shared.clone()));
        }
        writeln!(io::stdout(), "{}", ports.join(" "))?;
        let (stream, _) = control.accept().await?;
        commands(stream, &shared).await?;
        Ok(())
    })
}

async fn accept(listener: TcpListener, replica: Rc<Replica>, shared: Rc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (replica, shared) = (replica.clone(), shared.clone());
        spawn_local(async move {
            let _ = serve(stream, &replica, &shared).await;
        });
    }
}

/// One command a line, one line back: `stats`, `gone`, `wake`, `slow REPLICA FACTOR`, `fail REPLICA 0|1`.
async fn commands(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0);
        let replica = shared.replicas.get(number(1) as usize);
        let back = match (words.first().copied(), replica) {
            (Some("gone"), _) => {
                let gone = shared.gone.take();
                gone.iter().map(|(key, at)| format!("{key}:{at} ")).collect::<Vec<_>>().concat()
            }
            (Some("slow"), Some(replica)) => {
                replica.slow.set(number(2));
                String::new()
            }
            (Some("fail"), Some(replica)) => {
                replica.fails.set(number(2) > 0.0);
                String::new()
            }
            (Some("wake"), _) => {
                shared.wake.send_modify(|n| *n += 1);
                String::new()
            }
            _ => {
                let served: Vec<_> = shared.replicas.iter().map(|r| r.served.get().to_string()).collect();
                let open = shared.open.get();
                format!("{open} {} {}", shared.events.get(), served.join(" "))
            }
        };
        lines.write_all(format!("{back}\n").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

/// What a request asks for.
enum Wanted {
    Answer,
    Slot,
    Stream { ticks: bool },
    Hang,
    Fixed(String),
}

async fn serve(mut stream: TcpStream, replica: &Replica, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = Vec::with_capacity(4096);
    let mut out = Vec::with_capacity(2048);
    loop {
        let len = loop {
            if let Some(len) = whole(&buf) {
                break len;
            }
            if stream.read_buf(&mut buf).await? == 0 {
                return Ok(());
            }
        };
        shared.open.update(|n| n + 1);
        let done = one(&mut stream, &buf[..len], replica, shared, &mut out).await;
        shared.open.update(|n| n - 1);
        if !done? {
            return Ok(());
        }
        buf.drain(..len);
    }
}

/// One request; false: its client has left.
async fn one(
    stream: &mut TcpStream,
    request: &[u8],
    replica: &Replica,
    shared: &Shared,
    out: &mut Vec<u8>,
) -> io::Result<bool> {
    out.clear();
    let id = between(request, b"\"id\":", b",}").unwrap_or("null");
    match wanted(request, id, shared) {
        Wanted::Fixed(answer) => out.extend_from_slice(answer.as_bytes()),
        Wanted::Answer if !replica.fails.get() => {
            replica.served.update(|n| n + 1);
            call_result(out, id);
        }
        Wanted::Slot if !replica.fails.get() => {
            replica.served.update(|n| n + 1);
            if let Ok(_slot) = replica.slots.acquire().await {
                let mean = SERVICE.as_secs_f64() * replica.slow.get();
                sleep(Duration::from_secs_f64(-mean * (1.0 - fastrand::f64()).ln())).await;
            }
            call_result(out, id);
        }
        Wanted::Stream { ticks } => {
            let key = key(request);
            let _ = events(stream, shared, ticks).await;
            shared.gone.borrow_mut().push((key, now()));
            return Ok(false);
        }
        Wanted::Hang => {
            let key = key(request);
            let mut more = [0_u8; 512];
            while matches!(stream.read(&mut more).await, Ok(n) if n > 0) {}
            shared.gone.borrow_mut().push((key, now()));
            return Ok(false);
        }
        Wanted::Answer | Wanted::Slot => {
            replica.served.update(|n| n + 1);
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"out of order"}}}}"#
            );
            out.extend_from_slice(json("500 Internal Server Error", "", &body).as_bytes());
        }
    }
    stream.write_all(out).await?;
    Ok(true)
}

fn wanted(request: &[u8], id: &str, shared: &Shared) -> Wanted {
    if request.starts_with(b"GET") {
        return Wanted::Stream { ticks: false };
    }
    if request.starts_with(b"DELETE") {
        return Wanted::Fixed(json("200 OK", "", ""));
    }
    let result = |result: String| {
        Wanted::Fixed(json("200 OK", "", &format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)))
    };
    match between(request, b"\"method\":\"", b"\"") {
        Some("tools/call") => {
            let params = memmem::find(request, b"\"params\"").unwrap_or(0);
            match between(&request[params..], b"\"name\":\"", b"\"") {
                Some("slot") => Wanted::Slot,
                Some("tick") => Wanted::Stream { ticks: true },
                Some("quiet") => Wanted::Stream { ticks: false },
                Some("hang") => Wanted::Hang,
                _ => Wanted::Answer,
            }
        }
        Some("initialize") => {
            shared.sessions.update(|n| n + 1);
            let session = format!("mcp-session-id: {:032x}\r\n", shared.sessions.get());
            let result = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"{}","capabilities":{{"tools":{{"listChanged":true}}}},"serverInfo":{{"name":"upstream","version":"1"}}}}}}"#,
                wire::LEGACY
            );
            Wanted::Fixed(json("200 OK", &session, &result))
        }
        Some("server/discover") => result(format!(
            r#"{{"resultType":"complete","supportedVersions":["{}"],"capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"upstream","version":"1"}}}}"#,
            wire::MODERN
        )),
        Some("tools/list") => {
            let tool = |name| format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}}}}"#);
            let tools = ["answer", "slot", "tick", "quiet", "hang"].map(tool).join(",");
            result(format!(r#"{{"resultType":"complete","tools":[{tools}]}}"#))
        }
        Some("ping") => result("{}".into()),
        Some(method) if method.starts_with("notifications/") => {
            Wanted::Fixed("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".into())
        }
        _ => {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"unknown method"}}}}"#
            );
            Wanted::Fixed(json("404 Not Found", "", &body))
        }
    }
}

/// A stream until its client leaves.
async fn events(stream: &mut TcpStream, shared: &Shared, ticks: bool) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
                x-accel-buffering: no\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut wake = shared.wake.subscribe();
    let mut more = [0_u8; 512];
    // The first event leaves at once, the second after a random part of the tick: phases are spread.
    if ticks {
        event(stream, shared).await?;
    }
    let mut pause = TICK.mul_f64(fastrand::f64());
    loop {
        tokio::select! {
            read = stream.read(&mut more) => if read? == 0 { return Ok(()) },
            _ = wake.changed() => event(stream, shared).await?,
            () = sleep(pause), if ticks => {
                event(stream, shared).await?;
                pause = TICK;
            }
        }
    }
}

async fn event(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    shared.events.update(|n| n + 1);
    let data = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"t","progress":1,"message":"@{:020}"}}}}"#,
        now()
    );
    let event = format!("event: message\ndata: {data}\n\n");
    stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await
}

/// The length of the request at the start of `buf`, once it is whole.
fn whole(buf: &[u8]) -> Option<usize> {
    let head = memmem::find(buf, b"\r\n\r\n")? + 4;
    let body = wire::header(&buf[..head], "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    (buf.len() >= head + body).then_some(head + body)
}

/// What the client calls this request in our notes.
fn key(request: &[u8]) -> u64 {
    wire::header(request, "x-bench-key").and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// The text after `start` up to the first of `ends`.
fn between<'a>(text: &'a [u8], start: &[u8], ends: &[u8]) -> Option<&'a str> {
    let rest = &text[memmem::find(text, start)? + start.len()..];
    let end = rest.iter().position(|b| ends.contains(b))?;
    std::str::from_utf8(&rest[..end]).ok()
}

fn json(status: &str, headers: &str, body: &str) -> String {
    let n = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {n}\r\n\r\n{body}"
    )
}

/// About 1 KB.
fn call_result(out: &mut Vec<u8>, id: &str) {
    const START: &str = r#"{"jsonrpc":"2.0","id":"#;
    const BEFORE: &str = r#","result":{"resultType":"complete","content":[{"type":"text","text":""#;
    const TEXT: &str = "The answer of a tool is mostly text that somebody reads. ";
    const AFTER: &str = r#""}],"isError":false}}"#;
    let len = START.len() + id.len() + BEFORE.len() + 16 * TEXT.len() + AFTER.len();
    let _ = write!(
        out,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{START}{id}{BEFORE}"
    );
    for _ in 0..16 {
        out.extend_from_slice(TEXT.as_bytes());
    }
    out.extend_from_slice(AFTER.as_bytes());
}
