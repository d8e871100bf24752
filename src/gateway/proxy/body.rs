//! Bodies: those of requests are read whole before an endpoint is picked, those of answers are relayed.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{sync::Semaphore, time::timeout};

use super::{admit::Permit, pipe, record::Record, relay::Relay};
use crate::gateway::{
    conn::guard::{AnswerBody, Answering},
    metrics::FleetMetrics,
};

/// All bodies of requests together, in KiB (gateway.md section 4). Small ones are not counted: connections are
/// limited.
const BUDGET: u32 = 256 * 1024;
/// Bodies up to this are not charged to the budget, in bytes.
const SMALL: usize = 64 * 1024;
/// A client that sends nothing of its body for so long has gone.
const STALLED: Duration = Duration::from_secs(30);

static BODIES: Semaphore = Semaphore::const_new(BUDGET as usize);

/// A body, and its place in the budget of all.
pub(crate) struct Collected {
    /// The whole body.
    pub(crate) bytes: Bytes,
    /// Given back when the request is forgotten.
    pub(crate) _charged: Option<tokio::sync::SemaphorePermit<'static>>,
}

impl Collected {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self { bytes: Bytes::new(), _charged: None }
    }
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadBody {
    /// Larger than `limits.maxBodyBytes`.
    TooLarge,
    /// Broken framing or a client that went: its own fault, never the pod's.
    Broken,
    /// Nothing came for 30 s.
    Stalled,
}

/// The body of a request.
pub enum Given {
    /// It came with its head, and is small.
    Whole(Bytes),
    /// hyper reads it.
    Incoming(Incoming),
}

/// Reads a body up to `limit` bytes.
pub(crate) async fn collect(body: Given, limit: usize) -> Result<Collected, BadBody> {
    let mut body = match body {
        Given::Whole(bytes) if bytes.len() > limit => return Err(BadBody::TooLarge),
        Given::Whole(bytes) => return Ok(Collected { bytes, _charged: None }),
        Given::Incoming(body) => body,
    };
    let announced = body.size_hint().exact().map(|n| n as usize);
    if announced.is_some_and(|n| n > limit) {
        return Err(BadBody::TooLarge);
    }
    let mut charged = None;
    if let Some(n) = announced.filter(|n| *n > SMALL) {
        charged = Some(charge(n).await?);
    }
    let Some(first) = next(&mut body).await? else {
        return Ok(Collected { bytes: Bytes::new(), _charged: charged });
    };
    if body.is_end_stream() || announced == Some(first.len()) {
        return Ok(Collected { bytes: first, _charged: charged });
    }
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(first.len() * 2).min(limit));
    bytes.extend_from_slice(&first);
    while let Some(chunk) = next(&mut body).await? {
        if bytes.len() + chunk.len() > limit {
            return Err(BadBody::TooLarge);
        }
        if charged.is_none() && bytes.len() + chunk.len() > SMALL {
            // How long it will be is not known: the most it may be.
            charged = Some(charge(limit).await?);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Collected { bytes: bytes.freeze(), _charged: charged })
}

async fn charge(bytes: usize) -> Result<tokio::sync::SemaphorePermit<'static>, BadBody> {
    let kib = (bytes.div_ceil(1024) as u32).min(BUDGET);
    // Nobody closes it.
    BODIES.acquire_many(kib).await.map_err(|_| BadBody::Broken)
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, BadBody> {
    loop {
        let mut frame = body.frame();
        // What came with the head needs no timer.
        let ready = poll_fn(|context| Poll::Ready(Pin::new(&mut frame).poll(context))).await;
        let frame = match ready {
            Poll::Ready(frame) => frame,
            Poll::Pending => timeout(STALLED, frame).await.map_err(|_| BadBody::Stalled)?,
        };
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|_| BadBody::Broken)?;
        // Trailers are not for the server (RFC 9110 section 6.5.1).
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

enum Inner {
    Whole(Option<Bytes>),
    Relay(Box<Relay>),
    Pipe(pipe::Reader),
}

/// Body of an answer.
pub struct Answer {
    inner: Inner,
    /// Bytes of it that were taken. The record need not be touched for each event.
    sent: usize,
    /// Completes the metrics and the log line when the answer is done, or dropped.
    record: Option<Box<Record>>,
    /// Tells the connection that the next request may be read.
    finished: Option<Answering>,
    /// Counts it as long as it is open.
    gauge: Option<FleetMetrics>,
    /// The place of a call that is over: what is to be learnt of it and to be freed can wait until its answer is out.
    permit: Option<Permit>,
}

impl Answer {
    fn new(inner: Inner) -> Self {
        Self { inner, sent: 0, record: None, finished: None, gauge: None, permit: None }
    }

    /// A whole body.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::new(Inner::Whole(Some(bytes).filter(|b| !b.is_empty())))
    }

    /// What a server sends, as it comes.
    pub(crate) fn relay(relay: Relay) -> Self {
        Self::new(Inner::Relay(Box::new(relay)))
    }

    /// What a task of ours sends.
    pub(crate) fn pipe(reader: pipe::Reader) -> Self {
        Self::new(Inner::Pipe(reader))
    }

    /// Counts it as an open stream until its end.
    pub(crate) fn gauged(&mut self, metrics: FleetMetrics) {
        metrics.streams.inc();
        self.gauge = Some(metrics);
    }

    /// Holds the place of its call until it is done, or dropped.
    pub(crate) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Gives that place back now.
    pub(crate) fn release(&mut self) {
        self.permit = None;
    }

    /// Completes `record` at its end.
    pub(crate) fn recorded(&mut self, record: Box<Record>) {
        self.record = Some(record);
    }

    /// Ends `answering` with itself.
    pub(crate) fn tell(&mut self, answering: Answering) {
        self.finished = Some(answering);
    }
}

/// The answer ended before its end: the client must not take it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer of the server was cut")]
pub struct CutAnswer;

impl Body for Answer {
    type Data = Bytes;
    type Error = CutAnswer;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutAnswer>>> {
        let this = &mut *self;
        let polled = match &mut this.inner {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Inner::Relay(relay) => relay.poll(context),
            Inner::Pipe(reader) => reader.poll(context).map(|chunk| chunk.map(|c| c.map_err(|_| CutAnswer))),
        };
        match (&polled, &mut this.record) {
            (Poll::Ready(Some(Ok(bytes))), _) => this.sent += bytes.len(),
            (Poll::Ready(Some(Err(_))), Some(record)) => record.cut(),
            (Poll::Ready(None), Some(record)) => record.complete(),
            _ => {}
        }
        polled.map(|chunk| chunk.map(|c| c.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.inner, Inner::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Inner::Relay(relay) => relay.size_hint(),
            Inner::Pipe(_) => SizeHint::default(),
        }
    }
}

impl AnswerBody for Answer {
    /// It counts as sent then.
    fn take_whole(&mut self) -> Option<Bytes> {
        let Inner::Whole(bytes) = &mut self.inner else { return None };
        let bytes = bytes.take().unwrap_or_default();
        self.sent += bytes.len();
        Some(bytes)
    }

    fn is_stream(&self) -> bool {
        match &self.inner {
            Inner::Whole(_) => false,
            Inner::Relay(relay) => relay.is_stream(),
            Inner::Pipe(_) => true,
        }
    }

    fn has_more(&self) -> bool {
        matches!(&self.inner, Inner::Relay(relay) if relay.has_more())
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(metrics) = &self.gauge {
            metrics.streams.dec();
        }
        let Some(record) = &mut self.record else { return };
        record.sent(self.sent);
        match &self.inner {
            Inner::Whole(None) => record.complete(),
            Inner::Relay(relay) => {
                record.facts.merge(relay.facts);
                if relay.is_ended() {
                    record.complete();
                }
            }
            Inner::Whole(Some(_)) | Inner::Pipe(_) => {}
        }
    }
}
