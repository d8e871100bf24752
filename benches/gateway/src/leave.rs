//! Clients that leave: how soon the upstream knows, and what stays behind after thousands of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::spawn_local, time::sleep};

use crate::{
    hist::Hist,
    load::Client,
    machine::{self, now},
    upstream_process::Upstream,
    wire,
};

/// How a client leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    what: What,
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Pending,
    Stream,
    LegacyGet,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// The connection is closed.
    Close,
    /// The same, with a byte of a next request behind the first, which nobody reads.
    Pipelined,
    /// HTTP/2: the stream is reset, the connection stays.
    Reset,
}

impl Case {
    /// Row 9 of the data plane's targets.
    pub const ALL: [Self; 8] = [
        Self { what: What::Stream, how: How::Close },
        Self { what: What::Pending, how: How::Close },
        Self { what: What::LegacyGet, how: How::Close },
        Self { what: What::Stream, how: How::Pipelined },
        Self { what: What::Pending, how: How::Pipelined },
        Self { what: What::LegacyGet, how: How::Pipelined },
        Self { what: What::Stream, how: How::Reset },
        Self { what: What::Pending, how: How::Reset },
    ];

    /// In words.
    pub fn name(self) -> String {
        let what = match self.what {
            What::Pending => "pending modern call",
            What::Stream => "silent modern stream",
            What::LegacyGet => "legacy GET",
        };
        let how = match self.how {
            How::Close => "",
            How::Pipelined => ", a byte pipelined behind it",
            How::Reset => ", HTTP/2 reset",
        };
        format!("{what}{how}")
    }

    /// Whether every target of ours speaks what this case needs; the peers serve HTTP/1.1 here.
    pub fn needs_h2(self) -> bool {
        self.how == How::Reset
    }

    fn tool(self) -> &'static str {
        if self.what == What::Pending { "hang" } else { "quiet" }
    }
}

/// What leaves brought.
#[derive(Default)]
pub struct Leaves {
    /// From the client's close to the upstream's notice.
    pub delays: Hist,
    /// Never noticed.
    pub missed: usize,
}

/// A client that waits; dropping it is leaving.
enum Waiting {
    Connection(#[expect(dead_code, reason = "held until it is dropped")] Client),
    Stream(tokio::task::JoinHandle<()>),
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Self::Stream(task) = self {
            task.abort();
        }
    }
}

async fn over_h1(
    addr: SocketAddr,
    case: Case,
    key: u64,
    sessions: &mut Vec<String>,
) -> anyhow::Result<Waiting> {
    let mut client = Client::connect(addr).await?;
    let mut request = match case.what {
        What::LegacyGet => {
            let at = key as usize - 1;
            if at == sessions.len() {
                sessions.push(client.session().await?);
            }
            wire::legacy_get(&sessions[at], key)
        }
        What::Pending | What::Stream => wire::modern_call(case.tool(), key),
    };
    if case.how == How::Pipelined {
        request.push(b'P');
    }
    if case.what == What::Pending {
        client.stream.write_all(&request).await?;
    } else {
        let status = client.open(&request).await?;
        anyhow::ensure!(status == 200, "status {status} for a stream");
    }
    Ok(Waiting::Connection(client))
}

type Http2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn h2(addr: SocketAddr) -> anyhow::Result<Http2> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
    spawn_local(connection);
    Ok(send)
}

fn over_h2(mut send: Http2, addr: SocketAddr, case: Case, key: u64) -> anyhow::Result<Waiting> {
    let (headers, body) = wire::modern_parts(case.tool(), key);
    let mut request = http::Request::post(format!("http://localhost:{}{}", addr.port(), wire::PATH))
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    Ok(Waiting::Stream(spawn_local(async move {
        if let Ok(answer) = send.send_request(request).await {
            let mut body = answer.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
    })))
}

/// Opens `n` of a case and waits until the upstream has them all. Legacy streams belong to `sessions`, which are
/// opened once: a session that its client has not ended is remembered for half an hour, and that is no leak.
async fn gather(
    addr: SocketAddr,
    upstream: &mut Upstream,
    case: Case,
    n: usize,
    sessions: &mut Vec<String>,
) -> anyhow::Result<Vec<Waiting>> {
    let before = upstream.stats()?.open;
    let mut waiting = Vec::with_capacity(n);
    let send = if case.needs_h2() { Some(h2(addr).await.context("no HTTP/2 without TLS")?) } else { None };
    for key in 0..n {
        let key = key as u64 + 1;
        waiting.push(match &send {
            Some(send) => over_h2(send.clone(), addr, case, key)?,
            None => over_h1(addr, case, key, sessions).await?,
        });
    }
    let start = Instant::now();
    while upstream.stats()?.open < before + n {
        anyhow::ensure!(start.elapsed() < Duration::from_secs(10), "the upstream has not all {n} requests");
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(50)).await;
    Ok(waiting)
}

/// `n` clients leave one after the other.
pub async fn measure(
    addr: SocketAddr,
    upstream: &mut Upstream,
    case: Case,
    n: usize,
) -> anyhow::Result<Leaves> {
    let waiting = gather(addr, upstream, case, n, &mut Vec::new()).await?;
    upstream.gone()?;
    let mut left = BTreeMap::new();
    for (at, client) in waiting.into_iter().enumerate() {
        left.insert(at as u64 + 1, now());
        drop(client);
        sleep(Duration::from_millis(2)).await;
    }
    let mut leaves = Leaves::default();
    let start = Instant::now();
    while !left.is_empty() && start.elapsed() < Duration::from_secs(2) {
        sleep(Duration::from_millis(50)).await;
        for (key, seen) in upstream.gone()? {
            if let Some(at) = left.remove(&key) {
                leaves.delays.record(seen.saturating_sub(at));
            }
        }
    }
    leaves.missed = left.len();
    Ok(leaves)
}

/// What is left behind.
pub struct Leak {
    /// Requests that still run at the upstream.
    pub open: usize,
    /// File descriptors more than before.
    pub fds: i64,
    /// Resident memory in KiB after the first tenth (at least once each case), and after all.
    pub rss: (f64, f64),
}

/// `n` leaves of all cases but HTTP/2's in batches, then looks after what should be gone.
pub async fn leak(addr: SocketAddr, pids: &[u32], upstream: &mut Upstream, n: usize) -> anyhow::Result<Leak> {
    const BATCH: usize = 100;
    // Longer than any target keeps an idle connection that it may let go.
    const SETTLE: Duration = Duration::from_secs(6);
    let cases: Vec<Case> = Case::ALL.into_iter().filter(|c| !c.needs_h2()).collect();
    let batches = n.div_ceil(BATCH);
    let mut warm = (0, 0.0);
    let mut sessions = Vec::new();
    for at in 0..batches {
        let case = cases[at % cases.len()];
        drop(gather(addr, upstream, case, BATCH, &mut sessions).await?);
        let start = Instant::now();
        while upstream.stats()?.open > 0 && start.elapsed() < Duration::from_secs(2) {
            sleep(Duration::from_millis(5)).await;
        }
        upstream.gone()?;
        // Each case has been seen: what the first of its kind allocates is not a leak.
        if at + 1 == (batches / 10).max(cases.len()).min(batches) {
            sleep(SETTLE).await;
            warm = (machine::fds(pids), machine::rss_kib(pids));
        }
    }
    sleep(SETTLE).await;
    let fds = machine::fds(pids) as i64 - warm.0 as i64;
    Ok(Leak { open: upstream.stats()?.open, fds, rss: (warm.1, machine::rss_kib(pids)) })
}
