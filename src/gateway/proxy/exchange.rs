//! One request to one endpoint, up to an answer that can be passed on.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header, response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::{task::spawn_local, time::timeout};

use super::{
    admit::Permit,
    relay::read_on,
    upstream::{Lease, Outgoing, SendError},
    worker::Worker,
};
use crate::gateway::session::is_event_stream;

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
        rest: Incoming,
        /// Its connection.
        lease: Lease,
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

/// Sends a request to the endpoint of `permit`. `within` bounds the time to the head of the answer.
pub(crate) async fn exchange(
    worker: Rc<Worker>,
    permit: Permit,
    request: Request<Outgoing>,
    connect: Duration,
    within: Option<Duration>,
    gather: Gather,
) -> Result<Arrived, Failure> {
    let sent = worker.pool.send(&permit.endpoint, request, connect);
    let answer = match within {
        Some(within) => timeout(within, sent).await,
        None => Ok(sent.await),
    };
    let (answer, lease) = match answer {
        Err(_) => {
            permit.failed();
            return Err(Failure::TimedOut);
        }
        Ok(Err(SendError::Connect(request))) => {
            permit.failed();
            return Err(Failure::Undelivered(request));
        }
        Ok(Err(SendError::Broken)) => {
            permit.failed();
            return Err(Failure::Broken);
        }
        Ok(Ok(answered)) => answered,
    };
    permit.answered(answer.status(), retry_after(answer.headers()));
    read(answer, lease, permit, gather).await
}

async fn read(
    answer: Response<Incoming>,
    lease: Lease,
    permit: Permit,
    gather: Gather,
) -> Result<Arrived, Failure> {
    let (head, mut rest) = answer.into_parts();
    let length = rest.size_hint().exact();
    let whole = match gather {
        Gather::Nothing => length == Some(0),
        Gather::Small => length.is_some_and(|n| n <= SMALL),
        Gather::Result => !is_event_stream(&head.headers) && length.is_none_or(|n| n <= LARGEST_RESULT),
    };
    if !whole {
        return Ok(Arrived::Stream { head, first: Bytes::new(), rest, lease, permit });
    }
    let mut first = Bytes::new();
    let mut joined: Option<BytesMut> = None;
    while let Some(frame) = rest.frame().await {
        let Ok(frame) = frame else {
            permit.failed();
            return Err(Failure::Broken);
        };
        let Ok(data) = frame.into_data() else { continue };
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
            return Ok(Arrived::Stream { head, first, rest, lease, permit });
        }
    }
    lease.give_back();
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
            if let Ok(Ok(Arrived::Stream { rest, lease, permit, .. })) = timeout(within, running).await {
                read_on(rest, Some(lease), permit, within).await;
            }
            drop(kept);
        });
    }
}
