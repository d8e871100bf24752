//! The load: closed loop for throughput and processor time, open loop for latency. Latency counts from the moment
//! at which a request was meant to leave, so that a target that stalls cannot hide it.

use std::{
    cell::Cell,
    collections::VecDeque,
    io::{self, Write as _},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{LocalSet, spawn_local},
};

use crate::{
    hist::Hist,
    machine,
    wire::{self, Era},
};

/// Runs on one thread, as all of the load does.
pub fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, work))
}

/// One keep-alive connection.
pub struct Client {
    /// The socket.
    pub stream: TcpStream,
    /// What has been read and not been used.
    pub buf: Vec<u8>,
}

impl Client {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buf: Vec::with_capacity(4096) })
    }

    /// Sends a request and reads the whole answer: its status.
    pub async fn call(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        let (status, len) = self.until(wire::answer).await?;
        self.buf.drain(..len);
        Ok(status)
    }

    /// Sends a request and reads the head of the answer, which is left out of `buf`.
    pub async fn open(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        let head = self.until(wire::Head::parse).await?;
        self.buf.drain(..head.len);
        Ok(head.status)
    }

    async fn until<T>(&mut self, found: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        loop {
            if let Some(found) = found(&self.buf) {
                return Ok(found);
            }
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Opens a legacy session: its id as this client sees it.
    pub async fn session(&mut self) -> io::Result<String> {
        self.stream.write_all(&wire::initialize()).await?;
        let (status, len) = self.until(wire::answer).await?;
        let session = wire::header(&self.buf[..len], "mcp-session-id").map(str::to_owned);
        let session = session.ok_or_else(|| io::Error::other(format!("no session: status {status}")))?;
        self.buf.drain(..len);
        match self.call(&wire::initialized(&session)).await? {
            202 => Ok(session),
            status => Err(io::Error::other(format!("notifications/initialized: status {status}"))),
        }
    }

    /// The bytes of a call that this connection makes over and over.
    pub async fn prepare(&mut self, era: Era, tool: &str) -> io::Result<Vec<u8>> {
        Ok(match era {
            Era::Modern => wire::modern_call(tool, 0),
            Era::Legacy => wire::legacy_call(&self.session().await?, tool, 0),
        })
    }
}

/// What a closed loop brought.
pub struct Closed {
    /// Answers with status 200.
    pub answers: u64,
    /// All else.
    pub bad: u64,
    /// Seconds that were measured.
    pub seconds: f64,
    /// Seconds of processor time of the target.
    pub cpu: f64,
}

/// `connections` clients that call as fast as they are answered.
pub async fn closed(
    addr: SocketAddr,
    era: Era,
    connections: usize,
    warm: Duration,
    time: Duration,
    pids: &[u32],
) -> io::Result<Closed> {
    let answers = Rc::new(Cell::new(0_u64));
    let bad = Rc::new(Cell::new(0_u64));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let mut client = Client::connect(addr).await?;
        let request = client.prepare(era, "answer").await?;
        let (answers, bad) = (answers.clone(), bad.clone());
        tasks.push(spawn_local(async move {
            while let Ok(status) = client.call(&request).await {
                let count = if status == 200 { &answers } else { &bad };
                count.set(count.get() + 1);
            }
            bad.set(bad.get() + 1);
        }));
    }
    tokio::time::sleep(warm).await;
    let (start, before, first, cpu) = (Instant::now(), answers.get(), bad.get(), machine::cpu(pids));
    tokio::time::sleep(time).await;
    let closed = Closed {
        answers: answers.get() - before,
        bad: bad.get() - first,
        cpu: machine::cpu(pids) - cpu,
        seconds: start.elapsed().as_secs_f64(),
    };
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(closed)
}

/// An open loop's settings.
#[derive(Clone, Copy)]
pub struct Rate {
    /// Requests in a second.
    pub per_second: f64,
    /// Connections; one request at a time on each.
    pub connections: usize,
    /// Sent and not counted.
    pub warm: Duration,
    /// Counted.
    pub time: Duration,
    /// How long answers are waited for at the end.
    pub grace: Duration,
}

/// What an open loop brought.
#[derive(Clone, Default)]
pub struct Open {
    /// From the intended send to the last byte of the answer; requests that were never answered with their age.
    pub delays: Hist,
    /// Answers that were not 200, and cut connections.
    pub bad: u64,
    /// Requests without an answer at the end.
    pub lost: u64,
}

/// What the pacing thread and the readers share.
struct Pace {
    queues: Mutex<Queues>,
    slots: Vec<Slot>,
    sent_all: AtomicBool,
}

#[derive(Default)]
struct Queues {
    idle: VecDeque<usize>,
    /// Intended times of requests that found no idle connection.
    waiting: VecDeque<u64>,
}

struct Slot {
    socket: Mutex<std::net::TcpStream>,
    request: Vec<u8>,
    intended: AtomicU64,
}

impl Slot {
    fn send(&self, intended: u64) {
        self.intended.store(intended, Ordering::Release);
        // A few hundred bytes always fit into the buffer of an idle connection; where the write fails,
        // the reader sees the end of the connection and counts it.
        let _ = self.socket.lock().write_all(&self.request);
    }
}

/// Requests at a fixed rate, whatever the target does.
pub async fn open(addr: SocketAddr, era: Era, tool: &str, rate: Rate) -> anyhow::Result<Open> {
    let mut slots = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..rate.connections {
        let mut client = Client::connect(addr).await?;
        let request = client.prepare(era, tool).await?;
        let (socket, stream) = split(client.stream)?;
        slots.push(Slot { socket: Mutex::new(socket), request, intended: AtomicU64::new(0) });
        streams.push(stream);
    }
    let queues = Queues { idle: (0..rate.connections).collect(), waiting: VecDeque::new() };
    let pace = Arc::new(Pace { queues: Mutex::new(queues), slots, sent_all: AtomicBool::new(false) });
    let start = machine::now() + 20_000_000;
    let measured_from = start + rate.warm.as_nanos() as u64;
    let sum = Rc::new(std::cell::RefCell::new(Open::default()));
    let done = Rc::new(Cell::new(0_u64));
    let mut readers = Vec::new();
    for (at, stream) in streams.into_iter().enumerate() {
        let (pace, sum, done) = (pace.clone(), sum.clone(), done.clone());
        readers.push(spawn_local(read(at, stream, addr, pace, move |intended, ok| {
            if intended >= measured_from {
                let mut sum = sum.borrow_mut();
                sum.delays.record(machine::now().saturating_sub(intended));
                sum.bad += u64::from(!ok);
            }
            done.set(done.get() + 1);
        })));
    }
    let n = ((rate.warm + rate.time).as_secs_f64() * rate.per_second) as u64;
    let for_pacer = pace.clone();
    let thread = thread::spawn(move || send_all(&for_pacer, start, n, 1e9 / rate.per_second));
    while !pace.sent_all.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = thread.join();
    let end = Instant::now();
    while done.get() < n && end.elapsed() < rate.grace {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    readers.iter().for_each(tokio::task::JoinHandle::abort);
    let mut sum = sum.borrow().clone();
    let unanswered: Vec<u64> = {
        let queues = pace.queues.lock();
        let busy = pace.slots.iter().enumerate().filter(|(at, _)| !queues.idle.contains(at));
        let sent = busy.map(|(_, slot)| slot.intended.load(Ordering::Acquire));
        sent.chain(queues.waiting.iter().copied()).collect()
    };
    for intended in unanswered.into_iter().filter(|t| *t >= measured_from) {
        sum.delays.record(machine::now().saturating_sub(intended));
        sum.lost += 1;
    }
    Ok(sum)
}

fn split(stream: TcpStream) -> io::Result<(std::net::TcpStream, TcpStream)> {
    let socket = stream.into_std()?;
    Ok((socket.try_clone()?, TcpStream::from_std(socket)?))
}

/// Sends request after request, each at its time; the thread does nothing else.
fn send_all(pace: &Pace, start: u64, n: u64, gap: f64) {
    machine::wake_sharply();
    for i in 0..n {
        let due = start + (i as f64 * gap) as u64;
        let wait = due.saturating_sub(machine::now());
        if wait > 0 {
            thread::sleep(Duration::from_nanos(wait));
        }
        let mut queues = pace.queues.lock();
        let Some(at) = queues.idle.pop_front() else {
            queues.waiting.push_back(due);
            continue;
        };
        drop(queues);
        pace.slots[at].send(due);
    }
    pace.sent_all.store(true, Ordering::Release);
}

/// The answers of one connection, which is made anew where the target cuts it.
async fn read(at: usize, mut stream: TcpStream, addr: SocketAddr, pace: Arc<Pace>, done: impl Fn(u64, bool)) {
    let mut buf = Vec::with_capacity(4096);
    let slot = &pace.slots[at];
    loop {
        let read = stream.read_buf(&mut buf).await;
        let cut = !matches!(read, Ok(n) if n > 0);
        let answer = wire::answer(&buf);
        if !cut && answer.is_none() {
            continue;
        }
        let busy = slot.intended.swap(0, Ordering::AcqRel);
        if busy > 0 {
            done(busy, !cut && matches!(answer, Some((200, _))));
        }
        buf.clear();
        if cut {
            let Ok(Ok((socket, again))) = Client::connect(addr).await.map(|c| split(c.stream)) else {
                return;
            };
            *slot.socket.lock() = socket;
            stream = again;
        }
        if busy > 0 {
            let mut queues = pace.queues.lock();
            let Some(due) = queues.waiting.pop_front() else {
                queues.idle.push_back(at);
                continue;
            };
            drop(queues);
            slot.send(due);
        }
    }
}
