//! The answer of a server on its way to the client, as it comes: what one read brought goes on at once. Events are looked into
//! only where an identifier may have to be sealed (gateway.md section 1).
//!
//! A server that is cut never looks like one that ended: a call's stream of events that stops between two
//! events is completed with an error for the call; anything else breaks the answer (dataplane.md section 7.2).

use std::{
    collections::VecDeque,
    future::Future as _,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::SizeHint;
use memchr::memmem::Finder;
use serde_json::value::RawValue;
use tokio::{
    task::spawn_local,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{admit::Permit, body::CutAnswer, coming::Coming, context::SessionCall, sealing::Sealing};
use crate::gateway::{
    mcp::{
        answers::{self, Fault},
        sse,
    },
    proxy::record::Facts,
};

/// After so long a silence a comment tells everybody on the way that the stream lives (G13).
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The comment.
pub(crate) const COMMENT: Bytes = Bytes::from_static(sse::KEEP_ALIVE);
/// Largest event that is looked into, in bytes; a larger one passes as it is.
pub(crate) const LARGEST_EVENT: usize = 8 << 20;

/// How an answer passes.
pub(crate) enum Mode {
    /// Bytes.
    Raw,
    /// Events, byte for byte; the boundaries are watched.
    Events(sse::Boundary),
    /// Events, each looked into.
    Sealed(Box<sse::Splitter>, Box<Sealing>),
}

/// What hangs on the answer until its end.
pub(crate) struct Carried {
    /// The place at the endpoint.
    pub(crate) permit: Permit,
    /// The JSON-RPC id of the call, to tell its end if the server cannot.
    pub(crate) id: Option<Box<RawValue>>,
    /// The call goes on without its client, for so long at most (G16).
    pub(crate) outlives: Option<Duration>,
    /// Longest silence of a call's stream.
    pub(crate) idle: Duration,
    /// When the stream has to end; looked at when it is silent.
    pub(crate) end: Option<Instant>,
    /// The call belongs to a session, and the server may ask its client for something.
    pub(crate) session: Option<SessionCall>,
}

/// See the module.
pub(crate) struct Relay {
    upstream: Option<Box<Coming>>,
    carried: Option<Rest>,
    mode: Mode,
    out: VecDeque<Bytes>,
    ended: bool,
    silence: Option<Silence>,
    /// Moved only when it fires, and not for every event.
    timer: Option<Pin<Box<Sleep>>>,
    pub(crate) facts: Facts,
}

/// Since when nothing came, and when that is a matter again: for a comment, or the end.
struct Silence {
    since: Instant,
    due: Instant,
}

struct Rest {
    permit: Permit,
    id: Option<Box<RawValue>>,
    outlives: Option<Duration>,
    idle: Duration,
    end: Option<Instant>,
    session: Option<SessionCall>,
}

impl Relay {
    pub(crate) fn new(upstream: Box<Coming>, mode: Mode, carried: Carried) -> Self {
        let Carried { permit, id, outlives, idle, end, session } = carried;
        Self {
            upstream: Some(upstream),
            carried: Some(Rest { permit, id, outlives, idle, end, session }),
            mode,
            out: VecDeque::new(),
            ended: false,
            silence: None,
            timer: None,
            facts: Facts::default(),
        }
    }

    /// What was read of the answer before its head went out.
    pub(crate) fn put_first(&mut self, chunk: Bytes) {
        self.take_in(chunk);
    }

    /// It carries events.
    pub(crate) fn is_stream(&self) -> bool {
        !matches!(self.mode, Mode::Raw)
    }

    /// The server has said all that it had to say, or what it had to is replaced.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended && self.out.is_empty()
    }

    /// What comes next was read already, or is the end.
    pub(crate) fn has_more(&self) -> bool {
        self.ended || !self.out.is_empty()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match (&self.mode, &self.upstream) {
            (Mode::Raw, Some(upstream)) if self.out.is_empty() => upstream.size_hint(),
            _ => SizeHint::default(),
        }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutAnswer>>> {
        loop {
            if let Some(chunk) = self.out.pop_front() {
                return Poll::Ready(Some(Ok(chunk)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Ready(None) };
            match upstream.poll_data(context) {
                Poll::Ready(Some(Ok(chunk))) => {
                    // Who reads the rest may stop at the announced length, and never ask for the end.
                    let is_last = upstream.is_ended();
                    self.take_in(chunk);
                    if is_last {
                        self.complete();
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    if !self.end_for_the_server(&Fault::UpstreamLost) {
                        return Poll::Ready(Some(Err(CutAnswer)));
                    }
                }
                Poll::Ready(None) => self.complete(),
                Poll::Pending => match self.poll_silence(context) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(Some(Err(CutAnswer))),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    fn take_in(&mut self, chunk: Bytes) {
        self.silence = None;
        let session = self.carried.as_ref().and_then(|c| c.session.as_ref());
        match &mut self.mode {
            Mode::Raw => self.out.push_back(chunk),
            Mode::Events(boundary) => {
                boundary.feed(&chunk);
                self.facts.look(&chunk);
                if let Some(session) = session
                    && asks_client(&chunk)
                {
                    session.entry.asked();
                }
                self.out.push_back(chunk);
            }
            Mode::Sealed(splitter, sealing) => {
                splitter.push(chunk);
                while let Some(event) = splitter.next_event() {
                    if event.oversize {
                        self.out.push_back(event.bytes);
                        continue;
                    }
                    self.out.push_back(sealing.event(event.bytes, &mut self.facts));
                }
            }
        }
    }

    /// The server has said all. Its connection may be used again.
    fn complete(&mut self) {
        if let Mode::Sealed(splitter, _) = &mut self.mode
            && let Some(rest) = splitter.finish()
        {
            self.out.push_back(rest);
        }
        if let Some(upstream) = self.upstream.take() {
            upstream.give_back();
        }
        self.ended = true;
        self.carried = None;
    }

    /// The server cannot end its answer: an error for the call does, where that is possible.
    fn end_for_the_server(&mut self, why: &Fault<'_>) -> bool {
        let between = match &self.mode {
            Mode::Raw => false,
            Mode::Events(boundary) => boundary.at_boundary(),
            // What is not complete has not been sent.
            Mode::Sealed(..) => true,
        };
        if let Some(rest) = &self.carried {
            rest.permit.failed();
        }
        let id = self.carried.as_ref().and_then(|c| c.id.clone());
        self.facts.upstream_failed = true;
        self.carried = None;
        self.upstream = None;
        self.ended = true;
        let Some(id) = id.filter(|_| between) else { return false };
        self.out.push_back(answers::error_event(Some(&*id), why));
        true
    }

    /// `Ready(false)`: the answer is broken.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let between = match &self.mode {
            Mode::Raw => return Poll::Pending,
            Mode::Events(boundary) => boundary.at_boundary(),
            Mode::Sealed(splitter, _) => splitter.at_boundary(),
        };
        let longest = self.carried.as_ref().map_or(Duration::MAX, |c| c.idle);
        let now = Instant::now();
        let silence =
            self.silence.get_or_insert_with(|| Silence { since: now, due: now + KEEP_ALIVE.min(longest) });
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(silence.due)));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        if now < silence.due {
            // It was set in an earlier silence.
            timer.as_mut().reset(silence.due);
            return Poll::Ready(true);
        }
        // For the next comment, or for the end, whichever comes first.
        let silent = now.duration_since(silence.since);
        silence.due = now + KEEP_ALIVE.min(longest.saturating_sub(silent));
        timer.as_mut().reset(silence.due);
        let over = self.carried.as_ref().and_then(|c| c.end).is_some_and(|end| now >= end);
        if over || silent >= longest {
            let ended = self.end_for_the_server(&Fault::UpstreamTimeout);
            return Poll::Ready(ended);
        }
        if between {
            self.out.push_back(COMMENT);
        }
        // Polls the timer again, or nobody wakes us.
        Poll::Ready(true)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let (Some(upstream), Some(rest)) = (self.upstream.take(), self.carried.take()) else { return };
        let Some(within) = rest.outlives else { return };
        spawn_local(read_on(upstream, rest.permit, within));
    }
}

/// Reads an answer that nobody waits for any more: the call runs to its end, and its place is taken until then.
pub(crate) async fn read_on(mut upstream: Box<Coming>, permit: Permit, within: Duration) {
    let whole = timeout(within, async {
        loop {
            match upstream.data().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
                None => return true,
            }
        }
    })
    .await;
    if whole == Ok(true) {
        upstream.give_back();
    }
    drop(permit);
}

/// Whether events carry a request of the server to its client.
pub(crate) fn asks_client(chunk: &[u8]) -> bool {
    static ASKS: LazyLock<[Finder<'static>; 3]> = LazyLock::new(|| {
        [&b"\"sampling/createMessage\""[..], b"\"elicitation/create\"", b"\"roots/list\""].map(Finder::new)
    });
    ASKS.iter().any(|ask| ask.find(chunk).is_some())
}
