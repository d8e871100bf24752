//! The guard: an I/O wrapper between a client's socket and hyper's HTTP/1 server connection.
//!
//! hyper gets a head only when it is complete and passed the strict check of `head`, gets a body only
//! as far as it belongs to that request, and gets nothing of the next request before this one is
//! answered. Three things follow from the last point:
//!
//! - hyper's own buffer is empty while an answer runs, so a client's leaving is always seen at once;
//!   hyper alone is blind as soon as one pipelined byte lies there. What a client pipelines is kept
//!   aside, up to [`HOLD_BYTES`]; behind more than that the socket is asked now and then ([`Peer`]).
//! - When a head is refused, nothing else is under way: hyper sees an ordinary end of input, closes,
//!   and [`Guard::finish`] writes the refusal in its proper place.
//! - An answer counts as finished when its body was dropped *and* hyper has flushed it.
//!
//! In the common case (one request per read) bytes go from the socket through a buffer of the thread
//! to hyper; an idle connection owns no buffer.
//!
//! As long as requests and answers are usual ones, hyper is not there yet: see `usual` and `stream`.
//!
//! It must not know what a request means: that is the service's business.

mod stream;
mod usual;

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};

use super::framing::{self, Fault, Phase};
use super::head::HeadScan;
use super::reject::Reject;
use super::tls::Stream;

pub(crate) use stream::{AnswerBody, Streaming};
pub(crate) use usual::Next;

/// Most bytes kept of what a client sends before the current answer has finished.
pub const HOLD_BYTES: usize = 16 * 1024;

/// Bytes taken from a socket at a time, into one buffer per thread.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;

/// Bytes read to learn what a client speaks; a usual first request fits.
const FIRST_BYTES: usize = 4 * 1024;

/// First bytes of an HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Time between two looks at the socket of a client that has pipelined more than is kept.
const LOOK: Duration = Duration::from_millis(5);

/// How long and how much a closed connection is still read, so that the client gets the answer and
/// the end of it instead of a reset.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// How long the client may take to accept a refusal.
const REFUSE: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// A socket that knows of its peer's leaving while bytes from before still wait in it.
pub trait Peer {
    /// Whether the peer has ended its side. Beyond what fits into the kernel's receive window nobody can
    /// know: the end waits in the peer's kernel behind bytes that we do not take.
    fn has_left(&self) -> bool;
}

impl Peer for TcpStream {
    /// The kernel reports the end beside the data (`EPOLLRDHUP`); tokio keeps that as readiness, and
    /// only the interest in urgent data shows it without the ordinary readability.
    fn has_left(&self) -> bool {
        let ready = pin!(self.ready(Interest::PRIORITY));
        let ready = ready.poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }
}

impl Peer for Stream {
    fn has_left(&self) -> bool {
        self.tcp().has_left()
    }
}

/// Bounds of one connection; the defaults are those of the data plane's design.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest head, in bytes.
    pub head_bytes: usize,
    /// From accept to the first byte.
    pub first: Duration,
    /// From a head's first byte to its last.
    pub head: Duration,
    /// Between two arrivals of bytes of a body that is waited for.
    pub body: Duration,
    /// Between an answer and the next request.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            first: Duration::from_secs(30),
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(75),
        }
    }
}

/// What a connection speaks, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1; the guard judges.
    Http1,
    /// HTTP/2; the guard lets everything through.
    Http2,
    /// The client left, or sent nothing in time.
    Closed,
}

/// Why a request's body ended in an error. All of these are the client's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// The chunked coding is broken: answer 400.
    Malformed,
    /// Nothing came for [`Limits::body`]: answer 408.
    Timeout,
    /// The client left.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exchange {
    /// No request is under way.
    Idle,
    /// A head was handed over, its answer has not ended.
    Open,
    /// The answer's body has ended, some of it may not be out.
    Flushing,
}

#[derive(Debug)]
struct Shared {
    exchange: Cell<Exchange>,
    /// Number of the current request; a late [`Answering`] of an earlier one means nothing.
    serial: Cell<u64>,
    fault: Cell<Option<BodyFault>>,
    read: Cell<u64>,
    written: Cell<u64>,
    /// Set only while pipelined bytes wait for the answer's end.
    waker: RefCell<Option<Waker>>,
}

/// The service's view of its connection's guard.
#[derive(Debug, Clone)]
pub struct GuardHandle(Rc<Shared>);

impl GuardHandle {
    /// To be taken once when the service is called, and kept *inside the response body*: its drop is
    /// the end of the answer.
    pub fn answering(&self) -> Answering {
        Answering { shared: Rc::clone(&self.0), serial: self.0.serial.get() }
    }

    /// The current answer has ended. Only for those who hold no [`Answering`].
    pub fn response_finished(&self) {
        self.0.finished();
    }

    /// Why the current request's body ended in an error; `None` if hyper found a fault of its own
    /// (a malformed trailer), which is the client's too.
    pub fn body_fault(&self) -> Option<BodyFault> {
        self.0.fault.get()
    }

    /// Bytes read from the client so far, after TLS.
    pub fn bytes_read(&self) -> u64 {
        self.0.read.get()
    }

    /// Bytes written to the client so far, before TLS.
    pub fn bytes_written(&self) -> u64 {
        self.0.written.get()
    }

    /// HTTP/1 requests that passed the head check so far.
    pub fn requests(&self) -> u64 {
        self.0.serial.get()
    }
}

/// While it lives, its request is being answered. Dropped on the thread of its connection.
#[derive(Debug)]
#[must_use = "belongs into the response body: dropping it ends the answer"]
pub struct Answering {
    shared: Rc<Shared>,
    serial: u64,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.serial == self.shared.serial.get() {
            self.shared.finished();
        }
    }
}

impl Shared {
    fn finished(&self) {
        if self.exchange.get() == Exchange::Open {
            self.exchange.set(Exchange::Flushing);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// What the connection waits for, hence which limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// For nothing since the last arrival of bytes.
    Nothing,
    First,
    Idle,
    Head,
    Body,
    /// For the end of an answer: no limit of ours.
    Answer,
    /// For the same, with no room to read on: the socket is looked at instead.
    AnswerFull,
}

/// See the head of this file.
pub struct Guard<IO> {
    io: IO,
    limits: Limits,
    shared: Rc<Shared>,
    phase: Phase,
    /// HTTP/2: nothing is judged.
    transparent: bool,
    /// Bytes not yet with hyper: `kept[at..]`, of which the first `cleared` may go on.
    kept: Vec<u8>,
    at: usize,
    cleared: usize,
    /// So many bytes make `kept` a whole request, where its head has told.
    needed: usize,
    /// hyper gets no more bytes than those cleared.
    ended: bool,
    refusal: Option<Reject>,
    waiting: Waiting,
    deadline: Option<Instant>,
    /// One timer, moved only when it fires or when a nearer deadline appears.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<IO> std::fmt::Debug for Guard<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("phase", &self.phase)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

impl<IO> Guard<IO>
where
    IO: AsyncRead + AsyncWrite + Peer + Unpin,
{
    /// A guard over a fresh connection; inside a tokio runtime with time.
    pub fn new(io: IO, limits: Limits) -> Self {
        Self {
            io,
            limits,
            shared: Rc::new(Shared {
                exchange: Cell::new(Exchange::Idle),
                serial: Cell::new(0),
                fault: Cell::new(None),
                read: Cell::new(0),
                written: Cell::new(0),
                waker: RefCell::new(None),
            }),
            phase: Phase::Head(HeadScan::default()),
            transparent: false,
            kept: Vec::new(),
            at: 0,
            cleared: 0,
            needed: 0,
            ended: false,
            refusal: None,
            waiting: Waiting::First,
            deadline: Some(Instant::now() + limits.first),
            timer: None,
        }
    }

    /// The handle for the service of this connection.
    pub fn handle(&self) -> GuardHandle {
        GuardHandle(Rc::clone(&self.shared))
    }

    /// The socket underneath.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// Reads until it is clear what the client speaks. Lets everything through from then on if it is
    /// HTTP/2. Not needed where ALPN has said `h2`: see [`Guard::let_through`].
    pub async fn sniff(&mut self) -> io::Result<Protocol> {
        let deadline = Instant::now() + self.limits.first;
        loop {
            let known = self.kept.len().min(PREFACE.len());
            if self.kept[..known] != PREFACE[..known] {
                return Ok(Protocol::Http1);
            }
            if known == PREFACE.len() {
                self.let_through();
                return Ok(Protocol::Http2);
            }
            let Ok(read) = timeout_at(deadline, poll_fn(|cx| self.poll_keep(cx))).await else {
                return Ok(Protocol::Closed);
            };
            if read? == 0 {
                return Ok(Protocol::Closed);
            }
        }
    }

    /// Judges nothing from here on: HTTP/2 has framing, limits and timers of its own.
    pub fn let_through(&mut self) {
        self.transparent = true;
        self.cleared = self.kept.len() - self.at;
        self.deadline = None;
    }

    /// Ends the connection when hyper is done with it, whatever the reason: writes the refusal if
    /// there is one, sends the end of the stream, and reads on for a while what the client still
    /// sends, so that it gets an end and not a reset.
    pub async fn finish(mut self) {
        if let Some(refusal) = self.refusal.take() {
            let answer = refusal.answer();
            let written = timeout(REFUSE, self.io.write_all(&answer)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
        if !matches!(timeout(REFUSE, self.io.shutdown()).await, Ok(Ok(()))) {
            return;
        }
        let drain = async {
            let mut left = LINGER_BYTES;
            while left > 0 {
                match poll_fn(|cx| poll_scratch(&mut self.io, cx, SCRATCH_BYTES, <[u8]>::len)).await {
                    Ok(n) if n > 0 => left = left.saturating_sub(n),
                    _ => return,
                }
            }
        };
        // A client that neither closes nor stops sending is left to the kernel.
        let _ = timeout(LINGER, drain).await;
    }

    fn poll_keep(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let kept = &mut self.kept;
        let n = ready!(poll_scratch(&mut self.io, cx, FIRST_BYTES, |bytes| {
            kept.extend_from_slice(bytes);
            bytes.len()
        }))?;
        self.shared.read.set(self.shared.read.get() + n as u64);
        Poll::Ready(Ok(n))
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.shared.read.set(self.shared.read.get() + bytes.len() as u64);
        self.kept.extend_from_slice(bytes);
    }

    /// Moves cleared bytes to hyper; whether there were any.
    fn deliver(&mut self, out: &mut ReadBufCursor<'_>) -> bool {
        let n = self.cleared.min(out.remaining());
        if n == 0 {
            return false;
        }
        out.put_slice(&self.kept[self.at..self.at + n]);
        self.at += n;
        self.cleared -= n;
        if self.at == self.kept.len() {
            // An idle connection owns no buffer.
            self.kept = Vec::new();
            self.at = 0;
        }
        true
    }

    /// Judges `bytes`, the first that were not judged yet; how many of them may go on.
    fn judge(&mut self, bytes: &[u8]) -> usize {
        if self.transparent {
            return bytes.len();
        }
        if matches!(self.phase, Phase::Hold) && self.shared.exchange.get() == Exchange::Idle {
            self.phase = Phase::Head(HeadScan::default());
        }
        let judged = framing::judge(&mut self.phase, bytes, self.limits.head_bytes);
        if judged.head {
            self.shared.exchange.set(Exchange::Open);
            self.shared.serial.set(self.shared.serial.get() + 1);
            self.shared.fault.set(None);
        }
        match judged.fault {
            Some(Fault::Head(reject)) => self.refuse(reject),
            Some(Fault::Body) => self.break_body(BodyFault::Malformed),
            None => {}
        }
        judged.pass
    }

    fn judge_kept(&mut self) {
        if self.ended || self.at + self.cleared == self.kept.len() {
            return;
        }
        let kept = std::mem::take(&mut self.kept);
        self.cleared += self.judge(&kept[self.at + self.cleared..]);
        self.kept = kept;
    }

    fn refuse(&mut self, reject: Reject) {
        tracing::debug!(status = reject.status, reason = reject.reason, "request refused");
        self.refusal = Some(reject);
        self.ended = true;
    }

    fn break_body(&mut self, fault: BodyFault) {
        self.shared.fault.set(Some(fault));
        self.ended = true;
    }

    fn waits_for(&self) -> Waiting {
        match self.phase {
            _ if self.transparent => Waiting::Answer,
            Phase::Head(_) if !self.kept.is_empty() => Waiting::Head,
            Phase::Head(_) if self.shared.serial.get() == 0 => Waiting::First,
            Phase::Head(_) => Waiting::Idle,
            Phase::Hold if self.shared.exchange.get() == Exchange::Idle => Waiting::Idle,
            Phase::Sized(_) | Phase::Chunked(_) => Waiting::Body,
            Phase::Hold if self.hold_room() == 0 => Waiting::AnswerFull,
            Phase::Hold | Phase::Broken => Waiting::Answer,
        }
    }

    fn hold_room(&self) -> usize {
        HOLD_BYTES.saturating_sub(self.kept.len() - self.at)
    }

    /// Reads once; what may go on goes to `out`, the rest is kept.
    fn poll_fill(&mut self, cx: &mut Context<'_>, out: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let room = if matches!(self.phase, Phase::Hold) {
            self.hold_room()
        } else {
            out.remaining().min(SCRATCH_BYTES)
        };
        if room == 0 {
            self.ended = self.io.has_left();
            return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch[..room]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            self.arrived(buffer.filled(), out);
            Poll::Ready(Ok(()))
        })
    }

    fn arrived(&mut self, bytes: &[u8], out: &mut ReadBufCursor<'_>) {
        self.waiting = if self.waiting == Waiting::Head { Waiting::Head } else { Waiting::Nothing };
        if bytes.is_empty() {
            if matches!(self.phase, Phase::Sized(_) | Phase::Chunked(_)) {
                self.shared.fault.set(Some(BodyFault::Closed));
            }
            self.ended = true;
        } else if self.kept.is_empty() {
            self.shared.read.set(self.shared.read.get() + bytes.len() as u64);
            let pass = self.judge(bytes);
            let now = pass.min(out.remaining());
            out.put_slice(&bytes[..now]);
            self.cleared = pass - now;
            if now < bytes.len() && !(self.ended && self.cleared == 0) {
                self.kept.extend_from_slice(&bytes[now..]);
            }
        } else {
            self.keep(bytes);
        }
    }

    /// The socket has nothing: minds the limit of what is waited for. Ready: the limit is over.
    fn poll_limit(&mut self, waiting: Waiting, cx: &mut Context<'_>) -> Poll<()> {
        if waiting != self.waiting {
            self.waiting = waiting;
            let limit = match waiting {
                Waiting::First => Some(self.limits.first),
                Waiting::Idle => Some(self.limits.idle),
                Waiting::Head => Some(self.limits.head),
                Waiting::Body => Some(self.limits.body),
                Waiting::AnswerFull => Some(LOOK),
                Waiting::Answer | Waiting::Nothing => None,
            };
            self.deadline = limit.map(|limit| Instant::now() + limit);
        }
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn expire(&mut self) {
        match self.waiting {
            Waiting::Head => self.refuse(Reject::TIMEOUT),
            Waiting::Body => self.break_body(BodyFault::Timeout),
            Waiting::AnswerFull => self.waiting = Waiting::Nothing,
            _ => self.ended = true,
        }
    }

    /// Remembers whom to wake when the answer ends, if something waits for that.
    fn watch_answer(&self, cx: &Context<'_>) {
        if !self.kept.is_empty() && matches!(self.phase, Phase::Hold) {
            let mut waker = self.shared.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
    }
}

/// Reads once into the thread's buffer and hands what came to `take`: a future that holds no buffer.
pub(crate) fn poll_scratch<IO: AsyncRead + Unpin, T>(
    io: &mut IO,
    cx: &mut Context<'_>,
    room: usize,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(&mut scratch[..room]);
        ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(take(buffer.filled())))
    })
}

impl<IO> Read for Guard<IO>
where
    IO: AsyncRead + AsyncWrite + Peer + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = out.remaining();
        loop {
            if this.deliver(&mut out) || out.remaining() < room || this.ended {
                return Poll::Ready(Ok(()));
            }
            this.judge_kept();
            if this.cleared > 0 || this.ended {
                continue;
            }
            match this.poll_fill(cx, &mut out) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    this.watch_answer(cx);
                    ready!(this.poll_limit(this.waits_for(), cx));
                    this.expire();
                }
            }
        }
    }
}

impl<IO> Write for Guard<IO>
where
    IO: AsyncRead + AsyncWrite + Peer + Unpin,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
        this.shared.written.set(this.shared.written.get() + n as u64);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices))?;
        this.shared.written.set(this.shared.written.get() + n as u64);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes here only when it holds no more bytes itself: the point where an answer is out.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        if this.shared.exchange.get() == Exchange::Flushing {
            this.shared.exchange.set(Exchange::Idle);
            // hyper may not read again before it is woken: by what is kept, or by the idle limit.
            let idle = matches!(this.phase, Phase::Hold) && this.kept.is_empty();
            if !idle || this.poll_limit(this.waits_for(), cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// HTTP/1 is ended by [`Guard::finish`], which may have a last word to say.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.transparent {
            Pin::new(&mut this.io).poll_shutdown(cx)
        } else {
            Pin::new(&mut this.io).poll_flush(cx)
        }
    }
}

#[cfg(test)]
mod tests;
