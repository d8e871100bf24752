//! Streams: what one costs while events flow and while nothing does, how late its events are, and whether any
//! is lost.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use memchr::memmem;
use tokio::{
    io::AsyncReadExt as _,
    task::{JoinHandle, spawn_local},
    time::{sleep, timeout},
};

use crate::{
    hist::Hist,
    load::Client,
    machine::{self, now},
    upstream_process::Upstream,
    wire,
};

/// What many streams brought.
#[derive(Default)]
pub struct Streams {
    /// Proportional memory of the target for each.
    pub kib: f64,
    /// From the upstream's send to the client's read.
    pub delays: Hist,
    /// From the request to the first event, all opened in a burst.
    pub burst: Hist,
    /// From the request to the first event, one after the other.
    pub first: Hist,
    /// Processor time of the target for an event, in microseconds.
    pub micros: f64,
    /// Events that were sent and not read.
    pub lost: u64,
    /// Streams that ended by themselves, or never opened.
    pub cut: usize,
}

#[derive(Default)]
struct Seen {
    measuring: Cell<bool>,
    delays: RefCell<Hist>,
    burst: RefCell<Hist>,
    events: Cell<u64>,
    open: Cell<usize>,
    cut: Cell<usize>,
}

/// Reads a stream to its end; `sent` is when it was asked for.
async fn follow(mut client: Client, seen: Rc<Seen>, sent: u64) {
    let mut first = true;
    let mut buf = std::mem::take(&mut client.buf);
    loop {
        let mut used = 0;
        // "@" and the nanoseconds of the send, in 20 digits.
        while let Some(at) = memmem::find(&buf[used..], b"@").map(|at| used + at) {
            let Some(digits) = buf.get(at + 1..at + 21) else { break };
            let stamp: u64 = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok()).unwrap_or(0);
            seen.events.update(|n| n + 1);
            if first {
                first = false;
                seen.burst.borrow_mut().record(now() - sent);
            } else if seen.measuring.get() {
                seen.delays.borrow_mut().record(now().saturating_sub(stamp));
            }
            used = at + 21;
        }
        let keep = memmem::rfind(&buf[used..], b"@").map_or(buf.len(), |at| used + at);
        buf.drain(..keep);
        if !matches!(client.stream.read_buf(&mut buf).await, Ok(n) if n > 0) {
            seen.cut.update(|n| n + 1);
            return;
        }
    }
}

async fn opened(n: usize, seen: &Seen) {
    let start = Instant::now();
    while seen.open.get() + seen.cut.get() < n && start.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(20)).await;
    }
}

fn stop(tasks: &[JoinHandle<()>]) {
    tasks.iter().for_each(JoinHandle::abort);
}

/// `n` modern calls that are answered with one event a second each.
pub async fn ticking(
    addr: SocketAddr,
    pids: &[u32],
    upstream: &mut Upstream,
    n: usize,
    time: Duration,
) -> anyhow::Result<Streams> {
    let mut first = Hist::default();
    for _ in 0..50 {
        let mut client = Client::connect(addr).await?;
        // The connection and its way to the upstream are warm.
        client.call(&wire::modern_call("answer", 0)).await?;
        let start = now();
        client.open(&wire::modern_call("tick", 0)).await?;
        while memmem::find(&client.buf, b"@").is_none() {
            if client.stream.read_buf(&mut client.buf).await? == 0 {
                anyhow::bail!("the stream ended before its first event");
            }
        }
        first.record(now() - start);
    }
    sleep(Duration::from_millis(500)).await;
    let before = machine::pss_kib(pids);
    let earlier = upstream.stats()?.events;
    let seen = Rc::new(Seen::default());
    let mut tasks = Vec::new();
    for key in 0..n {
        let seen = seen.clone();
        tasks.push(spawn_local(async move {
            let sent = now();
            let client = async {
                let mut client = Client::connect(addr).await?;
                let status = client.open(&wire::modern_call("tick", key as u64)).await?;
                if status == 200 { Ok(client) } else { Err(std::io::Error::other("refused")) }
            };
            let Ok(client) = client.await else { return seen.cut.update(|n| n + 1) };
            seen.open.update(|n| n + 1);
            follow(client, seen, sent).await;
        }));
    }
    opened(n, &seen).await;
    sleep(Duration::from_secs(2)).await;
    let read = seen.events.get();
    let cpu = machine::cpu(pids);
    seen.measuring.set(true);
    sleep(time).await;
    seen.measuring.set(false);
    let read = seen.events.get() - read;
    let cpu = machine::cpu(pids) - cpu;
    let kib = (machine::pss_kib(pids) - before) / n as f64;
    // What was sent by now has been read a second later, or never will be.
    let sent = upstream.stats()?.events - earlier;
    sleep(Duration::from_secs(1)).await;
    let lost = sent.saturating_sub(seen.events.get());
    stop(&tasks);
    Ok(Streams {
        kib,
        first,
        delays: seen.delays.borrow().clone(),
        burst: seen.burst.borrow().clone(),
        micros: cpu * 1e6 / read.max(1) as f64,
        lost,
        cut: seen.cut.get(),
    })
}

/// `n` legacy sessions with their streams, on which nothing happens; at the end each gets one event.
pub async fn idle(
    addr: SocketAddr,
    pids: &[u32],
    upstream: &mut Upstream,
    n: usize,
    time: Duration,
) -> anyhow::Result<Streams> {
    let before = machine::pss_kib(pids);
    let seen = Rc::new(Seen::default());
    let mut tasks = Vec::new();
    for key in 0..n {
        let Ok(mut client) = Client::connect(addr).await else {
            seen.cut.update(|n| n + 1);
            continue;
        };
        let all = seen.clone();
        tasks.push(spawn_local(async move {
            let seen = all;
            let open = async {
                let session = client.session().await?;
                client.open(&wire::legacy_get(&session, key as u64)).await
            };
            if !matches!(timeout(Duration::from_secs(30), open).await, Ok(Ok(200))) {
                return seen.cut.update(|n| n + 1);
            }
            seen.open.update(|n| n + 1);
            follow(client, seen, now()).await;
        }));
        // As fast as they are taken, not faster: a full accept queue is not what is measured.
        while key + 1 > seen.open.get() + seen.cut.get() + 200 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    opened(n, &seen).await;
    sleep(time).await;
    let kib = (machine::pss_kib(pids) - before) / n as f64;
    let sent = upstream.stats()?.events;
    upstream.tell("wake")?;
    let start = Instant::now();
    while seen.events.get() < n as u64 && start.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(10)).await;
    }
    let sent = upstream.stats()?.events - sent;
    stop(&tasks);
    let lost = (n as u64).max(sent) - seen.events.get().min(n as u64);
    Ok(Streams { kib, lost, cut: seen.cut.get(), ..Streams::default() })
}
