//! Connections to endpoints: one pool per thread, last in first out, so that idle ones age and go.
//!
//! A request is written once. It is written again only on proof that no byte of it left (a failed connect, or a
//! connection that handed it back); every other decision to repeat is its caller's (G17).

use std::{
    cell::RefCell,
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, response};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::SendRequest,
};
use tokio::{task::yield_now, time::timeout};

use super::{
    coming::Coming,
    direct::{Asked, Begun, Direct},
    handover::Shared,
};
use crate::gateway::{
    balance::Nanos,
    conn::wire,
    fleet::{Clock, Endpoint, Phase},
    metrics::Metrics,
};

/// Idle connections are closed before servers close them: uvicorn does after 5 s, node after 6 s.
const IDLE: Duration = Duration::from_secs(4);
/// Most idle connections per endpoint and thread.
const MOST_IDLE: usize = 256;

/// Body of a request to a server: read whole before it is sent.
#[derive(Debug, Default)]
pub(crate) struct Outgoing(Bytes);

impl Outgoing {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// No connection, or one that had ended: not a byte was sent. The request comes back.
    Connect(Box<Request<Outgoing>>),
    /// The connection ended before an answer; the server may have seen the request.
    Broken,
}

/// A connection that nobody uses.
pub(crate) enum Way {
    /// Its requests drive it.
    Direct(Direct),
    /// It has carried something that its requests do not write or read themselves, and is hyper's since then.
    Shared(Shared),
}

impl Way {
    fn is_closed(&self) -> bool {
        match self {
            Self::Direct(connection) => connection.is_closed(),
            Self::Shared(connection) => connection.sender.is_closed(),
        }
    }
}

struct Idle {
    way: Way,
    /// When it is too old to be used again.
    until: Nanos,
}

/// The pools of one thread.
pub(crate) struct Pool {
    metrics: Arc<Metrics>,
    clock: Clock,
    idle: RefCell<HashMap<u64, Vec<Idle>, foldhash::fast::RandomState>>,
}

/// The beginning of an answer.
pub(crate) enum Answered {
    /// It says how long it is, and is short.
    Plain(Box<Begun>),
    /// Any other: its head, and the rest.
    Coming(Box<response::Parts>, Box<Coming>),
}

impl Answered {
    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Plain(begun) => begun.status(),
            Self::Coming(head, _) => head.status,
        }
    }
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(clock: Clock, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Self { metrics, clock, idle: RefCell::default() })
    }

    /// Closes what idled too long, and all idle connections to endpoints that `is_gone` names.
    pub(crate) fn sweep(&self, is_gone: impl Fn(u64) -> bool) {
        let now = self.clock.now();
        self.idle.borrow_mut().retain(|serial, connections| {
            if is_gone(*serial) {
                return false;
            }
            connections.retain(|c| c.until > now && !c.way.is_closed());
            !connections.is_empty()
        });
    }

    fn reuse(&self, endpoint: &Endpoint, now: Nanos) -> Option<Way> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&endpoint.serial)?;
        while let Some(found) = connections.pop() {
            if found.until > now && !found.way.is_closed() {
                return Some(found.way);
            }
        }
        None
    }

    /// Keeps a connection that is free again for as long as `keep`.
    pub(crate) fn put(&self, endpoint: &Endpoint, way: Way, keep: Duration) {
        self.put_at(endpoint, way, keep, self.clock.now());
    }

    /// A pod that leaves gets no idle connection, for it waits until there is none.
    fn put_at(&self, endpoint: &Endpoint, way: Way, keep: Duration, now: Nanos) {
        if !matches!(endpoint.phase(), Phase::Ready | Phase::NotReady) {
            return;
        }
        let until = now + keep.as_nanos() as Nanos;
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(endpoint.serial).or_default();
        if connections.len() < MOST_IDLE {
            connections.push(Idle { way, until });
        }
    }

    /// Sends a request to an endpoint at `now` and waits for the head of the answer. `longest`: as of
    /// [`Direct::ask`].
    pub(crate) async fn send(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        mut request: Box<Request<Outgoing>>,
        connect: Duration,
        longest: u64,
        now: Nanos,
    ) -> Result<Answered, SendError> {
        loop {
            let (way, is_fresh) = match self.reuse(endpoint, now) {
                Some(way) => (way, false),
                None => match Box::pin(timeout(connect, Direct::open(endpoint))).await {
                    Ok(Ok(connection)) => {
                        self.metrics.upstream_opened.inc();
                        (Way::Direct(connection), true)
                    }
                    _ => return Err(SendError::Connect(request)),
                },
            };
            match self.send_by(way, endpoint, request, longest).await {
                // It had ended while it idled.
                Err(SendError::Connect(back)) if !is_fresh => request = back,
                sent => return sent,
            }
        }
    }

    /// Sends a request on a connection. All but the way of a plain answer lies behind pointers: each request owns, and
    /// moves, the memory of this future.
    async fn send_by(
        self: &Rc<Self>,
        way: Way,
        endpoint: &Arc<Endpoint>,
        request: Box<Request<Outgoing>>,
        longest: u64,
    ) -> Result<Answered, SendError> {
        let way = match way {
            Way::Direct(connection) if Direct::takes(&request) => {
                return match connection.ask(request, longest).await {
                    Asked::Plain(begun) => Ok(Answered::Plain(begun)),
                    Asked::Unsent(request) => Err(SendError::Connect(request)),
                    Asked::Broken => Err(SendError::Broken),
                    Asked::Chunked(answer) => {
                        let (head, keep_alive, body) = *answer;
                        let (pool, endpoint) = (Rc::clone(self), Arc::clone(endpoint));
                        let rest = Coming::chunked(pool, endpoint, kept_for(keep_alive), body);
                        Ok(Answered::Coming(Box::new(head), rest))
                    }
                    Asked::Other(connection, method, first) => {
                        let answered = Box::pin(connection.into_answered(method, first)).await;
                        let (connection, answer) = answered.map_err(|_| SendError::Broken)?;
                        Ok(self.shared(endpoint, connection, answer))
                    }
                };
            }
            way => way,
        };
        Box::pin(self.send_shared(way, endpoint, request)).await
    }

    async fn send_shared(
        self: &Rc<Self>,
        way: Way,
        endpoint: &Arc<Endpoint>,
        request: Box<Request<Outgoing>>,
    ) -> Result<Answered, SendError> {
        let connection = match way {
            Way::Direct(connection) => connection.into_shared().await.ok(),
            Way::Shared(connection) => is_free(&connection.sender).await.then_some(connection),
        };
        let Some(mut connection) = connection else { return Err(SendError::Connect(request)) };
        if connection.sender.ready().await.is_err() {
            return Err(SendError::Connect(request));
        }
        match connection.sender.try_send_request(*request).await {
            Ok(answer) => Ok(self.shared(endpoint, connection, answer)),
            Err(mut error) => {
                let back = error.take_message().map(Box::new);
                Err(back.map_or(SendError::Broken, SendError::Connect))
            }
        }
    }

    fn shared(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        connection: Shared,
        answer: Response<Incoming>,
    ) -> Answered {
        let keep = kept_for(wire::keep_alive(answer.headers()));
        let (head, body) = answer.into_parts();
        let rest = Coming::shared(Rc::clone(self), Arc::clone(endpoint), keep, body, connection);
        Answered::Coming(Box::new(head), rest)
    }

    /// Reads a plain answer, which came at `now`, to its end; its connection is free again. `None`: it ended before that.
    pub(crate) async fn finish(
        &self,
        endpoint: &Arc<Endpoint>,
        begun: Begun,
        now: Nanos,
    ) -> Option<(response::Parts, Bytes)> {
        let whole = begun.whole().await?;
        if let Some(connection) = whole.connection {
            self.put_at(endpoint, Way::Direct(connection), kept_for(whole.keep_alive), now);
        }
        Some((whole.head, whole.body))
    }
}

/// Whether a request can be sent at once. A connection whose answer came before its request was read still writes that
/// one, perhaps for ever.
async fn is_free(sender: &SendRequest<Outgoing>) -> bool {
    if !sender.is_ready() {
        // Its task may only not have run since the answer before ended.
        yield_now().await;
    }
    sender.is_ready()
}

/// How long a connection is kept: what the server says, in seconds, less one for the way.
fn kept_for(told: Option<u64>) -> Duration {
    told.map_or(IDLE, |seconds| Duration::from_secs(seconds.saturating_sub(1).min(60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_ends_before_its_server_ends_it() {
        assert_eq!(kept_for(Some(5)), Duration::from_secs(4));
        assert_eq!(kept_for(Some(0)), Duration::ZERO);
        assert_eq!(kept_for(Some(9999)), Duration::from_secs(60));
        assert_eq!(kept_for(None), IDLE);
    }
}
