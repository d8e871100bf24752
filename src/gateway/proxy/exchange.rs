//! One request to one endpoint, up to an answer that can be passed on.

use std::{
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header, response};
use tokio::{task::spawn_local, time::timeout};

use super::{
    admit::Permit,
    coming::Coming,
    relay::read_on,
    upstream::{Answered, Outgoing, SendError},
    worker::Worker,
};
use crate::gateway::{balance::nanos, session::is_event_stream};

/// Answers up to this size are read whole if they say how long they are: cheaper than relaying them.
pub(crate) const SMALL: u64 = 64 * 1024;
/// Results up to this size are read whole to be looked into; larger ones pass as they are.
pub(crate) const LARGEST_RESULT: u64 = 8 << 20;

/// An answer of a server.
pub(crate) enum Arrived {
    /// Read to its end.
    Whole {
        /// Status and headers.
        head: response::Parts,
        /// Body.
        body: Bytes,
        /// Its place, free again as soon as this is dropped.
        permit: Permit,
    },
    /// It goes on.
    Stream {
        /// Status and headers.
        head: response::Parts,
        /// What was read already.
        first: Bytes,
        /// The rest.
        rest: Box<Coming>,
        /// Its place.
        permit: Permit,
    },
}

impl Arrived {
    /// Status and headers.
    pub(crate) fn head(&self) -> &response::Parts {
        match self {
            Self::Whole { head, .. } | Self::Stream { head, .. } => head,
        }
    }

    /// Status.
    pub(crate) fn status(&self) -> StatusCode {
        self.head().status
    }

    /// Its place.
    pub(crate) fn permit(&self) -> &Permit {
        match self {
            Self::Whole { permit, .. } | Self::Stream { permit, .. } => permit,
        }
    }
}

/// There is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The pod took no connection, or gave the request back: not a byte was delivered.
    Undelivered(Box<Request<Outgoing>>),
    /// The connection ended before the answer; the pod may have seen the request.
    Broken,
    /// No head in time.
    TimedOut,
}

/// How much of an answer is read before it is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gather {
    /// What is small.
    Small,
    /// All of it, unless it is a stream of events or very large.
    Result,
    /// Nothing.
    Nothing,
}

/// Sends a request to the endpoint of `permit`. `within` bounds the time from the permit to the head of the answer.
pub(crate) async fn exchange(
    worker: Rc<Worker>,
    permit: Permit,
    request: Box<Request<Outgoing>>,
    connect: Duration,
    within: Option<Duration>,
    gather: Gather,
) -> Result<Arrived, Failure> {
    let longest = match gather {
        Gather::Nothing => 0,
        Gather::Small => SMALL,
        Gather::Result => LARGEST_RESULT,
    };
    let answer = {
        let started = permit.started();
        let sent = pin!(worker.pool.send(&permit.endpoint, request, connect, longest, started));
        match within {
            Some(within) => worker.deadlines.within(started.saturating_add(nanos(within)), sent).await,
            None => Some(sent.await),
        }
    };
    let answered = match answer {
        None => {
            permit.failed();
            return Err(Failure::TimedOut);
        }
        Some(Err(SendError::Connect(request))) => {
            permit.failed();
            return Err(Failure::Undelivered(request));
        }
        Some(Err(SendError::Broken)) => {
            permit.failed();
            return Err(Failure::Broken);
        }
        Some(Ok(answered)) => answered,
    };
    let status = answered.status();
    match answered {
        Answered::Plain(begun) => {
            // An overloaded server says in its head for how long.
            let waits = is_overload(status);
            if !waits {
                permit.answered(status, None);
            }
            let came = permit.started() + permit.head_after().unwrap_or_default();
            let Some((head, body)) = worker.pool.finish(&permit.endpoint, *begun, came).await else {
                permit.failed();
                return Err(Failure::Broken);
            };
            if waits {
                permit.answered(status, retry_after(&head.headers));
            }
            Ok(Arrived::Whole { head, body, permit })
        }
        Answered::Coming(head, rest) => {
            permit.answered(status, is_overload(status).then(|| retry_after(&head.headers)).flatten());
            Box::pin(read(*head, rest, permit, gather)).await
        }
    }
}

/// Statuses by which a server asks for time.
fn is_overload(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 503)
}

async fn read(
    head: response::Parts,
    mut rest: Box<Coming>,
    permit: Permit,
    gather: Gather,
) -> Result<Arrived, Failure> {
    let length = rest.size_hint().exact();
    let whole = match gather {
        Gather::Nothing => length == Some(0),
        Gather::Small => length.is_some_and(|n| n <= SMALL),
        Gather::Result => !is_event_stream(&head.headers) && length.is_none_or(|n| n <= LARGEST_RESULT),
    };
    if !whole {
        return Ok(Arrived::Stream { head, first: Bytes::new(), rest, permit });
    }
    let mut first = Bytes::new();
    let mut joined: Option<BytesMut> = None;
    while let Some(data) = rest.data().await {
        let Ok(data) = data else {
            permit.failed();
            return Err(Failure::Broken);
        };
        match &mut joined {
            None if first.is_empty() => first = data,
            None => {
                let mut all =
                    BytesMut::with_capacity(length.unwrap_or(0) as usize + first.len() + data.len());
                all.extend_from_slice(&first);
                all.extend_from_slice(&data);
                joined = Some(all);
            }
            Some(all) => all.extend_from_slice(&data),
        }
        if joined.as_ref().is_some_and(|all| all.len() as u64 > LARGEST_RESULT) {
            let first = joined.take().unwrap_or_default().freeze();
            return Ok(Arrived::Stream { head, first, rest, permit });
        }
    }
    rest.give_back();
    let body = joined.map_or(first, BytesMut::freeze);
    Ok(Arrived::Whole { head, body, permit })
}

fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

type Running = Pin<Box<dyn Future<Output = Result<Arrived, Failure>>>>;

/// A call that goes on when its client leaves (G16): the pod works on it, so its place stays taken until the
/// pod is done or the time is over. `kept` goes with it, and comes back with its end.
pub(crate) struct Outliving<K: Unpin + 'static> {
    running: Option<(Running, K)>,
    within: Duration,
}

impl<K: Unpin + 'static> Outliving<K> {
    /// Keeps `running` alive for `within` after its client has left.
    pub(crate) fn new(
        running: impl Future<Output = Result<Arrived, Failure>> + 'static,
        within: Duration,
        kept: K,
    ) -> Self {
        Self { running: Some((Box::pin(running), kept)), within }
    }
}

impl<K: Unpin + 'static> Future for Outliving<K> {
    type Output = (Result<Arrived, Failure>, K);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((mut running, kept)) = self.running.take() else { return Poll::Pending };
        match running.as_mut().poll(context) {
            Poll::Ready(ended) => Poll::Ready((ended, kept)),
            Poll::Pending => {
                self.running = Some((running, kept));
                Poll::Pending
            }
        }
    }
}

impl<K: Unpin + 'static> Drop for Outliving<K> {
    fn drop(&mut self) {
        let Some((running, kept)) = self.running.take() else { return };
        let within = self.within;
        spawn_local(async move {
            if let Ok(Ok(Arrived::Stream { rest, permit, .. })) = timeout(within, running).await {
                read_on(rest, permit, within).await;
            }
            drop(kept);
        });
    }
}
