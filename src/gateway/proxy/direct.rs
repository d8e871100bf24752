//! A connection to an endpoint that its request writes and reads itself, without a task and without channels: a
//! sixth of the instructions of a whole request less than over one that hyper drives. It reads answers whose head
//! tells their length, which is what MCP servers send in JSON, and chunked ones (`coming`), which their streams of
//! events are; at the first other one it becomes hyper's, with what was read of it
//! (`handover`).

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, ErrorKind},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, response};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{coming::Chunked, upstream::Outgoing};
use crate::gateway::{
    conn::{
        guard::{SCRATCH_BYTES, poll_scratch},
        socket, wire,
    },
    fleet::Endpoint,
};

/// Larger requests are written while the answer is read, since a server may refuse them before their end.
const LARGEST: usize = 16 * 1024;

thread_local! {
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Counts a connection of an endpoint as long as it is open.
pub(super) struct Open(Arc<Endpoint>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module.
pub(crate) struct Direct {
    pub(super) stream: TcpStream,
    pub(super) open: Open,
}

/// The head of an answer, and as much of its body as came with it.
pub(crate) struct Begun {
    connection: Direct,
    bytes: BytesMut,
    head: wire::Head,
    body_len: usize,
}

/// A whole answer, and its connection where it can be used again.
pub(crate) struct Whole {
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
    pub(crate) connection: Option<Direct>,
    /// Seconds for which its server keeps the connection, where it says so.
    pub(crate) keep_alive: Option<u64>,
}

/// What became of a request.
pub(crate) enum Asked {
    /// A plain answer.
    Plain(Box<Begun>),
    /// One in chunks: its head, for how many seconds its server keeps the connection, where it says so, and its body.
    Chunked(Box<(response::Parts, Option<u64>, Chunked)>),
    /// Another one, to a request of this method, of which these bytes were read.
    Other(Direct, Method, Bytes),
    /// Not a byte was delivered.
    Unsent(Box<Request<Outgoing>>),
    /// The connection ended; the server may have seen the request.
    Broken,
}

impl Direct {
    /// Opens one. The caller bounds the time.
    pub(crate) async fn open(endpoint: &Arc<Endpoint>) -> io::Result<Self> {
        let stream = socket::connect(endpoint.address).await?;
        endpoint.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Self { stream, open: Open(Arc::clone(endpoint)) })
    }

    /// Whether a request is one for it: small, and no `HEAD`, whose answer's head tells of a body that does not come.
    pub(crate) fn takes(request: &Request<Outgoing>) -> bool {
        request.body().bytes().len() <= LARGEST && *request.method() != Method::HEAD
    }

    /// Whether an idle one is of no use any more: its server has ended it, or said what nobody asked for. Costs a
    /// system call only where the kernel has reported something.
    pub(crate) fn is_closed(&self) -> bool {
        !matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the head of its answer, whose body is taken if it has `longest` bytes at most.
    pub(crate) async fn ask(mut self, request: Box<Request<Outgoing>>, longest: u64) -> Asked {
        match self.write(&request).await {
            Ok(()) => {}
            Err(delivered) => return if delivered { Asked::Broken } else { Asked::Unsent(request) },
        }
        let method = request.method().clone();
        // While its server is at it, and not when the client waits for its answer.
        drop(request);
        let mut bytes = BytesMut::new();
        loop {
            if !self.read(&mut bytes).await {
                return Asked::Broken;
            }
            match wire::scan(&bytes, longest) {
                wire::Scan::Partial => {}
                wire::Scan::Plain(head, body_len) => {
                    return Asked::Plain(Box::new(Begun { connection: self, bytes, head, body_len }));
                }
                wire::Scan::Chunked(head) => {
                    let bytes = bytes.freeze();
                    let Some(parts) = head.parts(&bytes) else { return Asked::Broken };
                    let body = Chunked::new(self, head.keeps, &bytes[head.len..]);
                    return Asked::Chunked(Box::new((parts, head.keep_alive, body)));
                }
                wire::Scan::Other => return Asked::Other(self, method, bytes.freeze()),
            }
        }
    }

    /// The error says whether any of it may have been delivered.
    async fn write(&mut self, request: &Request<Outgoing>) -> Result<(), bool> {
        let body = request.body().bytes();
        let rest = OUT.with_borrow_mut(|out| {
            out.clear();
            wire::write_head(out, request, body.len());
            out.extend_from_slice(body);
            match self.stream.try_write(out) {
                Ok(n) if n == out.len() => Ok(None),
                Ok(n) => Ok(Some((n > 0, out[n..].to_vec()))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Some((false, out.clone()))),
                Err(_) => Err(false),
            }
        })?;
        let Some((mut delivered, rest)) = rest else { return Ok(()) };
        let mut rest = &*rest;
        while !rest.is_empty() {
            match self.stream.write(rest).await {
                Ok(n @ 1..) => rest = &rest[n..],
                _ => return Err(delivered),
            }
            delivered = true;
        }
        Ok(())
    }

    /// Reads once, and hands what came to `take`: nothing where the server has ended it.
    pub(crate) fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        poll_scratch(&mut self.stream, cx, SCRATCH_BYTES, take)
    }

    /// Whether anything came.
    async fn read(&mut self, into: &mut BytesMut) -> bool {
        let came = poll_fn(|cx| {
            self.poll_read(cx, |bytes| {
                into.extend_from_slice(bytes);
                !bytes.is_empty()
            })
        });
        came.await.unwrap_or(false)
    }
}

impl Begun {
    /// Status of the answer.
    pub(crate) fn status(&self) -> http::StatusCode {
        self.head.status
    }

    /// Reads the body to its end; `None` where the connection ended first, or the head cannot be passed on.
    pub(crate) async fn whole(self) -> Option<Whole> {
        let Self { mut connection, mut bytes, head, body_len } = self;
        let end = head.len + body_len;
        bytes.reserve(end.saturating_sub(bytes.len()));
        while bytes.len() < end {
            if !connection.read(&mut bytes).await {
                return None;
            }
        }
        // Bytes behind the answer belong to nothing that was asked.
        let keeps = head.keeps && bytes.len() == end;
        let bytes = bytes.freeze();
        Some(Whole {
            body: bytes.slice(head.len..end),
            connection: keeps.then_some(connection),
            keep_alive: head.keep_alive,
            head: head.parts(&bytes)?,
        })
    }
}
