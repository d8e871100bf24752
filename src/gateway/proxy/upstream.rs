//! Connections to endpoints: one pool per thread, last in first out, so that idle ones age and go.
//!
//! A request is written once. It is written again only on proof that no byte of it left (a failed connect, or a
//! connection that handed it back); every other decision to repeat is its caller's (G17).

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::spawn_local, time::timeout};

use super::names;
use crate::gateway::{
    balance::Nanos,
    conn::socket,
    fleet::{Clock, Endpoint, Phase},
    metrics::Metrics,
};

/// Idle connections are closed before servers close them: uvicorn does after 5 s, node after 6 s.
const IDLE: Duration = Duration::from_secs(4);
/// Most idle connections per endpoint and thread.
const MOST_IDLE: usize = 256;

/// Body of a request to a server: read whole before it is sent.
pub(crate) type Outgoing = Full<Bytes>;

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// No connection: not a byte was sent. The request comes back.
    Connect(Box<Request<Outgoing>>),
    /// The connection ended before an answer; the server may have seen the request.
    Broken,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    /// When it is too old to be used again.
    until: Nanos,
}

/// The pools of one thread.
pub(crate) struct Pool {
    metrics: Arc<Metrics>,
    clock: Clock,
    idle: RefCell<HashMap<u64, Vec<Idle>>>,
}

/// A connection in use. Given back when its answer was read to the end; dropped, it closes.
pub(crate) struct Lease {
    pool: Rc<Pool>,
    endpoint: Arc<Endpoint>,
    sender: SendRequest<Outgoing>,
    keep: Duration,
}

impl Lease {
    /// Its answer was read to the end: somebody else may use it. A pod that leaves gets no idle connection, for
    /// it waits until there is none.
    pub(crate) fn give_back(self) {
        if self.sender.is_closed() || !matches!(self.endpoint.phase(), Phase::Ready | Phase::NotReady) {
            return;
        }
        let until = self.pool.clock.now() + self.keep.as_nanos() as Nanos;
        let mut idle = self.pool.idle.borrow_mut();
        let connections = idle.entry(self.endpoint.serial).or_default();
        if connections.len() < MOST_IDLE {
            connections.push(Idle { sender: self.sender, until });
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
            connections.retain(|c| c.until > now && !c.sender.is_closed());
            !connections.is_empty()
        });
    }

    fn reuse(&self, endpoint: &Endpoint) -> Option<SendRequest<Outgoing>> {
        let now = self.clock.now();
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&endpoint.serial)?;
        while let Some(found) = connections.pop() {
            if found.until > now && !found.sender.is_closed() {
                return Some(found.sender);
            }
        }
        None
    }

    /// Sends a request to an endpoint and waits for the head of the answer.
    pub(crate) async fn send(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        mut request: Request<Outgoing>,
        connect: Duration,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        while let Some(mut sender) = self.reuse(endpoint) {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(self.lease(endpoint, sender, answer)),
                Err(mut error) => match error.take_message() {
                    // Handed back: the connection had ended while it idled.
                    Some(back) => request = back,
                    None => return Err(SendError::Broken),
                },
            }
        }
        let Ok(Ok(mut sender)) = timeout(connect, self.connect(endpoint)).await else {
            return Err(SendError::Connect(Box::new(request)));
        };
        match sender.try_send_request(request).await {
            Ok(answer) => Ok(self.lease(endpoint, sender, answer)),
            Err(mut error) => {
                Err(error.take_message().map_or(SendError::Broken, |back| SendError::Connect(Box::new(back))))
            }
        }
    }

    fn lease(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        sender: SendRequest<Outgoing>,
        answer: Response<Incoming>,
    ) -> (Response<Incoming>, Lease) {
        let keep = keep_alive(answer.headers()).unwrap_or(IDLE);
        (answer, Lease { pool: Rc::clone(self), endpoint: Arc::clone(endpoint), sender, keep })
    }

    async fn connect(&self, endpoint: &Arc<Endpoint>) -> std::io::Result<SendRequest<Outgoing>> {
        let stream = TcpStream::connect(endpoint.address).await?;
        socket::tune(&stream)?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        let endpoint = Arc::clone(endpoint);
        self.metrics.upstream_opened.inc();
        endpoint.connections.fetch_add(1, Ordering::Relaxed);
        spawn_local(async move {
            // Its end is told to whoever waits for an answer on it.
            let _ = connection.await;
            endpoint.connections.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(sender)
    }
}

/// `Keep-Alive: timeout=n`, less one second for the way.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(names::KEEP_ALIVE)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    let seconds: u64 = seconds.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.saturating_sub(1).min(60)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_how_long_it_keeps_a_connection() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(names::KEEP_ALIVE, http::HeaderValue::from_static(value));
            keep_alive(&headers)
        };
        assert_eq!(of("timeout=5"), Some(Duration::from_secs(4)));
        assert_eq!(of("max=100, timeout=0"), Some(Duration::ZERO));
        assert_eq!(of("timeout=9999"), Some(Duration::from_secs(60)));
        assert_eq!(of("max=100"), None);
    }
}
