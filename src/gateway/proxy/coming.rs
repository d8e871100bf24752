//! What is still to come of an answer, and the connection that it comes by. Dropped before its end, the connection
//! closes, which tells the server that nobody listens any more.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body as _, Incoming, SizeHint};

use super::{
    body::CutAnswer,
    direct::Direct,
    handover::Shared,
    upstream::{Pool, Way},
};
use crate::gateway::{
    conn::chunks::{Chunks, Progress},
    fleet::Endpoint,
};

/// See the module.
pub(crate) struct Coming {
    pool: Rc<Pool>,
    endpoint: Arc<Endpoint>,
    /// How long its server keeps the connection once it idles.
    keep: Duration,
    by: By,
}

enum By {
    /// hyper reads it.
    Shared(Incoming, Shared),
    /// It comes in chunks, which are read here: in the task that passes them on.
    Chunked(Chunked),
}

impl Coming {
    /// An answer that hyper reads.
    pub(crate) fn shared(
        pool: Rc<Pool>,
        endpoint: Arc<Endpoint>,
        keep: Duration,
        body: Incoming,
        connection: Shared,
    ) -> Box<Self> {
        Box::new(Self { pool, endpoint, keep, by: By::Shared(body, connection) })
    }

    /// An answer in chunks.
    pub(crate) fn chunked(
        pool: Rc<Pool>,
        endpoint: Arc<Endpoint>,
        keep: Duration,
        chunked: Chunked,
    ) -> Box<Self> {
        Box::new(Self { pool, endpoint, keep, by: By::Chunked(chunked) })
    }

    /// Its next bytes, never none of them; `None` at its end. Trailers are nobody's.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutAnswer>>> {
        match &mut self.by {
            By::Shared(body, _) => loop {
                match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(_)) => return Poll::Ready(Some(Err(CutAnswer))),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                        _ => {}
                    },
                }
            },
            By::Chunked(chunked) => chunked.poll_data(cx),
        }
    }

    /// As [`Self::poll_data`].
    pub(crate) async fn data(&mut self) -> Option<Result<Bytes, CutAnswer>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// Nothing follows, as is known already.
    pub(crate) fn is_ended(&self) -> bool {
        match &self.by {
            By::Shared(body, _) => body.is_end_stream(),
            By::Chunked(chunked) => chunked.read.is_over(),
        }
    }

    /// How much is to come, as far as the server has said.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.by {
            By::Shared(body, _) => body.size_hint(),
            By::Chunked(_) => SizeHint::default(),
        }
    }

    /// It was read to its end: somebody else may use the connection.
    pub(crate) fn give_back(self) {
        let way = match self.by {
            By::Shared(_, connection) if !connection.sender.is_closed() => Way::Shared(connection),
            By::Chunked(chunked) if chunked.keeps && chunked.read.state == State::Ended => {
                Way::Direct(chunked.connection)
            }
            By::Shared(..) | By::Chunked(_) => return,
        };
        self.pool.put(&self.endpoint, way, self.keep);
    }
}

/// A chunked body of which nothing but what can be passed on at once is held.
pub(crate) struct Chunked {
    connection: Direct,
    /// The connection may be used again after it.
    keeps: bool,
    read: Read,
}

/// What was read of it.
struct Read {
    chunks: Chunks,
    /// Not handed out.
    ready: Bytes,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    /// Ended, and more has come, which belongs to nothing that was asked.
    Overrun,
    /// Broken, or the connection ended first.
    Cut,
}

impl Chunked {
    /// A body of which `first` has come with its head. `keeps`: its connection may be used again.
    pub(crate) fn new(connection: Direct, keeps: bool, first: &[u8]) -> Self {
        let mut read = Read { chunks: Chunks::of_answer(), ready: Bytes::new(), state: State::Open };
        read.take(first);
        Self { connection, keeps, read }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CutAnswer>>> {
        let Self { connection, read, .. } = self;
        loop {
            if !read.ready.is_empty() {
                return Poll::Ready(Some(Ok(std::mem::take(&mut read.ready))));
            }
            match read.state {
                State::Open => {}
                State::Ended | State::Overrun => return Poll::Ready(None),
                State::Cut => return Poll::Ready(Some(Err(CutAnswer))),
            }
            if !ready!(connection.poll_read(cx, |bytes| read.take(bytes))).unwrap_or(false) {
                read.state = State::Cut;
            }
        }
    }
}

impl Read {
    fn is_over(&self) -> bool {
        self.ready.is_empty() && matches!(self.state, State::Ended | State::Overrun)
    }

    /// Takes chunks apart; all that came together goes on together. Whether there were any bytes.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let mut data = Vec::new();
        let (taken, progress) = self.chunks.advance(bytes, |piece| data.extend_from_slice(piece));
        self.ready = Bytes::from(data);
        self.state = match progress {
            Progress::More => State::Open,
            Progress::End if taken == bytes.len() => State::Ended,
            Progress::End => State::Overrun,
            Progress::Malformed => State::Cut,
        };
        !bytes.is_empty()
    }
}
