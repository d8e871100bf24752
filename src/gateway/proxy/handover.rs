//! Connections to endpoints that are hyper's: from their first request that is not small, or their first answer that
//! [`Direct`] does not read, in the middle of that exchange too.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::spawn_local,
};
use tokio_util::task::AbortOnDropHandle;

use super::{direct::Direct, upstream::Outgoing};
use crate::gateway::conn::{socket, wire};

/// A connection that hyper drives. Dropped, it closes at once: hyper alone would go on with a request that its server has
/// answered and does not read, for as long as the server lets it.
pub(crate) struct Shared {
    pub(crate) sender: SendRequest<Outgoing>,
    _task: AbortOnDropHandle<()>,
}

impl Direct {
    /// Hands it to hyper.
    pub(crate) async fn into_shared(self) -> hyper::Result<Shared> {
        self.shared(Bytes::new(), Rc::default()).await
    }

    /// Hands it to hyper in the middle of an answer, of which `first` was read: hyper believes that it has sent the
    /// request itself.
    pub(crate) async fn into_answered(
        self,
        method: Method,
        first: Bytes,
    ) -> hyper::Result<(Shared, http::Response<hyper::body::Incoming>)> {
        let mute = Rc::new(Cell::new(true));
        let mut shared = self.shared(first, Rc::clone(&mute)).await?;
        let mut stand_in = Request::new(Outgoing::default());
        *stand_in.method_mut() = method;
        let answer = shared.sender.send_request(stand_in).await?;
        mute.set(false);
        Ok((shared, answer))
    }

    async fn shared(self, first: Bytes, mute: Rc<Cell<bool>>) -> hyper::Result<Shared> {
        let io = Replay { io: self.stream, first, mute, asked: false, reader: None, stuck: false };
        let (sender, connection) =
            http1::Builder::new().max_buf_size(wire::MAX_HEAD).handshake(TokioIo::new(io)).await?;
        let open = self.open;
        let task = spawn_local(async move {
            // Its end is told to whoever waits for an answer on it.
            let _ = connection.await;
            drop(open);
        });
        Ok(Shared { sender, _task: AbortOnDropHandle::new(task) })
    }
}

/// A socket from which some bytes were read already. While it is mute, what is written goes nowhere, and nothing
/// is read before something was: hyper takes an answer that it has not asked for as an error.
struct Replay {
    io: TcpStream,
    first: Bytes,
    mute: Rc<Cell<bool>>,
    asked: bool,
    reader: Option<Waker>,
    /// The socket takes no more of what is to be written.
    stuck: bool,
}

impl Drop for Replay {
    /// What its server does not read would hold the connection open behind our back, and a pod that drains with it.
    fn drop(&mut self) {
        if self.stuck {
            // It closes in any case.
            let _ = socket2::SockRef::from(&self.io).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Replay {
    /// Whether `bytes` go nowhere.
    fn swallows(&mut self, bytes: usize) -> bool {
        if self.mute.get() && bytes > 0 {
            self.asked = true;
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        self.mute.get()
    }
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.mute.get() && !self.asked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, out);
        }
        let n = self.first.len().min(out.remaining());
        out.put_slice(&self.first.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.swallows(bytes.len()) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.stuck = written.is_pending();
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        if self.swallows(total) {
            return Poll::Ready(Ok(total));
        }
        let written = socket::poll_write_joined(Pin::new(&mut self.io), cx, slices);
        self.stuck = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
