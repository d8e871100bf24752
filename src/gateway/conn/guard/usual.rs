//! Usual exchanges, which the guard carries out itself: see `conn::usual`. At the first other one the connection
//! becomes hyper's, with every byte that was read.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{request, response};
use hyper::rt::ReadBuf;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{BodyFault, Exchange, Guard, HOLD_BYTES, Peer, SCRATCH_BYTES, Waiting, poll_scratch};
use crate::gateway::conn::{
    date,
    framing::Phase,
    usual::{self, Usual},
};

/// Answers up to this are copied behind their head, and both go out in one piece.
pub(super) const JOINED: usize = 8 * 1024;

/// What hyper reads in place of a request that was read here, and whose answer is no usual one.
const STAND_IN: &[u8] = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";

thread_local! {
    pub(super) static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is left to write of an answer, in its order.
#[derive(Debug, Default)]
pub(crate) struct Rest(pub(super) [Bytes; 3]);

/// What a connection brings next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A usual request: it is being answered from now on.
    Request(Box<request::Parts>, Bytes),
    /// Anything else, or the end: hyper has to see it.
    Other,
}

impl<IO> Guard<IO>
where
    IO: AsyncRead + AsyncWrite + Peer + Unpin,
{
    /// Waits for the next request. Only while none is being answered.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        while !self.ended {
            if !self.kept.is_empty()
                && self.kept.len() >= self.needed
                && let Some(next) = self.look()
            {
                return Poll::Ready(next);
            }
            let kept = &mut self.kept;
            let read = poll_scratch(&mut self.io, cx, SCRATCH_BYTES, |bytes| {
                kept.extend_from_slice(bytes);
                bytes.len()
            });
            match read {
                Poll::Ready(Ok(n @ 1..)) => {
                    self.shared.read.set(self.shared.read.get() + n as u64);
                    self.waiting = Waiting::Nothing;
                }
                Poll::Ready(_) => self.give_up(BodyFault::Closed),
                Poll::Pending => {
                    let waiting = if self.kept.is_empty() { self.waits_for() } else { Waiting::Body };
                    ready!(self.poll_limit(waiting, cx));
                    self.give_up(BodyFault::Timeout);
                }
            }
        }
        Poll::Ready(Next::Other)
    }

    /// Looks at what is kept. `None`: the rest of a body is to be waited for.
    fn look(&mut self) -> Option<Next> {
        let bytes = Bytes::from(mem::take(&mut self.kept));
        match usual::look(&bytes, self.limits.head_bytes) {
            Usual::Whole { head, body, len } if len == bytes.len() => {
                self.begin();
                return Some(Next::Request(head, body));
            }
            Usual::Whole { len, .. } => {
                self.kept = bytes[len..].to_vec();
                // What follows must not live as long as this request, which may open a stream for days.
                let own = Bytes::copy_from_slice(&bytes[..len]);
                if let Usual::Whole { head, body, .. } = usual::look(&own, self.limits.head_bytes) {
                    self.begin();
                    return Some(Next::Request(head, body));
                }
                self.kept = bytes.into();
            }
            Usual::Begun(len) if len <= HOLD_BYTES => {
                self.needed = len;
                self.kept = bytes.into();
                return None;
            }
            Usual::Begun(_) | Usual::Other => self.kept = bytes.into(),
        }
        Some(Next::Other)
    }

    /// Not a byte of a request is there.
    pub(crate) fn is_idle(&self) -> bool {
        self.kept.is_empty()
    }

    fn begin(&mut self) {
        self.needed = 0;
        self.phase = Phase::Hold;
        self.waiting = Waiting::Nothing;
        self.shared.exchange.set(Exchange::Open);
        self.shared.serial.set(self.shared.serial.get() + 1);
        self.shared.fault.set(None);
    }

    /// Nothing more comes. hyper gets what there is of a body, and learns why it ends.
    fn give_up(&mut self, fault: BodyFault) {
        self.judge_kept();
        if !self.ended && !self.kept.is_empty() {
            self.shared.fault.set(Some(fault));
        }
        self.ended = true;
    }

    /// Ready when the client has left, while its request is being answered. What it sends meanwhile is kept.
    pub(crate) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.ended {
            match self.poll_fill(cx, &mut ReadBuf::new(&mut []).unfilled()) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.ended = true,
                Poll::Pending => {
                    ready!(self.poll_limit(self.waits_for(), cx));
                    self.expire();
                }
            }
        }
        Poll::Ready(())
    }

    /// Writes a whole answer as far as the socket takes it at once; the rest is for [`Self::poll_rest`]. `ends`, and
    /// the flag: as of [`usual::write_head`].
    pub(crate) fn answer(
        &mut self,
        cx: &mut Context<'_>,
        head: &response::Parts,
        body: Bytes,
        ends: bool,
    ) -> (Rest, bool) {
        OUT.with_borrow_mut(|out| {
            out.clear();
            let closes = usual::write_head(out, head, usual::Framing::Sized(body.len()), &date::now(), ends);
            let body = if body.len() <= JOINED {
                out.extend_from_slice(&body);
                Bytes::new()
            } else {
                body
            };
            let slices = [IoSlice::new(out), IoSlice::new(&body)];
            let slices = &slices[..if body.is_empty() { 1 } else { 2 }];
            let n = self.try_write(cx, slices);
            let of_head = n.min(out.len());
            let rest = [Bytes::copy_from_slice(&out[of_head..]), body.slice(n - of_head..), Bytes::new()];
            (Rest(rest), closes)
        })
    }

    /// Writes as far as the socket takes it at once; how many bytes. Of an error the next write knows, too.
    pub(super) fn try_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> usize {
        let n = match Pin::new(&mut self.io).poll_write_vectored(cx, slices) {
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        self.shared.written.set(self.shared.written.get() + n as u64);
        n
    }

    /// Writes what is left of an answer. Then the next request may come.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>, rest: &mut Rest) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx, rest))?;
        self.shared.exchange.set(Exchange::Idle);
        Poll::Ready(Ok(()))
    }

    /// Writes what is left.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>, rest: &mut Rest) -> Poll<io::Result<()>> {
        for part in &mut rest.0 {
            while !part.is_empty() {
                let n = ready!(Pin::new(&mut self.io).poll_write(cx, part))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.shared.written.set(self.shared.written.get() + n as u64);
                part.advance(n);
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Before hyper takes over in the middle of an exchange: it believes that it has read the request itself.
    pub(crate) fn stand_in(&mut self) {
        let behind = mem::take(&mut self.kept);
        self.kept = [STAND_IN, &behind].concat();
        self.cleared = STAND_IN.len();
    }
}
