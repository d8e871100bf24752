//! Answers that are streams, which the guard writes itself, in chunks (RFC 9112 section 7.1): what its server has sent
//! goes out in one write. Of a client that does not take that, as much again is waited for at most: a call that has
//! ended meanwhile gives its place back.

use std::io::IoSlice;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::response;
use hyper::body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::usual::{JOINED, OUT, Rest};
use super::{Exchange, Guard, Peer};
use crate::gateway::conn::{date, usual};

/// The body of an answer, of which more is known than its bytes.
pub(crate) trait AnswerBody: Body<Data = Bytes> {
    /// Takes all of it, where it is at hand as a whole. `None`: it is still to come.
    fn take_whole(&mut self) -> Option<Bytes>;

    /// It is a stream of events, which go on as they come.
    fn is_stream(&self) -> bool;

    /// What follows is at hand, so that it can go out with what was just taken. What has to be read first cannot.
    fn has_more(&self) -> bool;
}

/// A stream on its way to the client.
#[derive(Debug)]
pub(crate) struct Streaming {
    /// To be sent before anything else.
    head: Vec<u8>,
    rest: Rest,
    /// Nothing follows; whether it ended as it should.
    end: Option<bool>,
}

impl Streaming {
    /// One with this head, which goes out with the first of it, and whether the connection ends after it. `ends`: as of
    /// [`usual::write_head`].
    pub(crate) fn new(head: &response::Parts, ends: bool) -> (Self, bool) {
        let mut out = Vec::with_capacity(512);
        let closes = usual::write_head(&mut out, head, usual::Framing::Chunked, &date::now(), ends);
        (Self { head: out, rest: Rest::default(), end: None }, closes)
    }
}

impl<IO> Guard<IO>
where
    IO: AsyncRead + AsyncWrite + Peer + Unpin,
{
    /// Passes `body` on to its end. `Ready(false)`: it was cut, or the client has left, and the connection has to end.
    pub(crate) fn poll_stream<B>(
        &mut self,
        cx: &mut Context<'_>,
        streaming: &mut Streaming,
        body: &mut B,
    ) -> Poll<bool>
    where
        B: AnswerBody + Unpin,
    {
        let mut waits = false;
        loop {
            let stuck = match self.poll_out(cx, &mut streaming.rest) {
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => true,
            };
            match streaming.end {
                Some(whole) if !stuck => return Poll::Ready(whole),
                None if !waits && (!stuck || streaming.rest.has_room()) => {
                    waits = self.pass_on(cx, streaming, body, stuck);
                }
                _ => return self.poll_left(cx).map(|()| false),
            }
        }
    }

    /// Takes what there is of `body`, about [`JOINED`] bytes of it, and writes as much of it as the socket takes at once,
    /// unless that is `stuck`. Whether there is no more for now.
    fn pass_on<B>(
        &mut self,
        cx: &mut Context<'_>,
        streaming: &mut Streaming,
        body: &mut B,
        stuck: bool,
    ) -> bool
    where
        B: AnswerBody + Unpin,
    {
        let mut out = OUT.take();
        out.clear();
        out.extend_from_slice(&mem::take(&mut streaming.head));
        let (mut large, mut waits) = (Bytes::new(), false);
        while !waits && streaming.end.is_none() && large.is_empty() && out.len() < JOINED {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => waits = true,
                Poll::Ready(None) => {
                    out.extend_from_slice(b"0\r\n\r\n");
                    streaming.end = Some(true);
                }
                Poll::Ready(Some(Err(_))) => streaming.end = Some(false),
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    large = push_chunk(&mut out, data);
                    if !body.has_more() {
                        break;
                    }
                }
            }
        }
        if stuck {
            streaming.rest.push(&out, large);
        } else {
            streaming.rest = self.write_now(cx, &out, large);
        }
        OUT.set(out);
        waits
    }

    fn write_now(&mut self, cx: &mut Context<'_>, out: &[u8], mut large: Bytes) -> Rest {
        let end = line_end(&large);
        let slices = [IoSlice::new(out), IoSlice::new(&large), IoSlice::new(end)];
        let slices = match (out.is_empty(), large.is_empty()) {
            (true, _) => return Rest::default(),
            (false, true) => &slices[..1],
            (false, false) => &slices[..],
        };
        let n = self.try_write(cx, slices);
        let of_out = n.min(out.len());
        let of_large = (n - of_out).min(large.len());
        let of_end = n - of_out - of_large;
        large.advance(of_large);
        Rest([Bytes::copy_from_slice(&out[of_out..]), large, Bytes::from_static(&end[of_end..])])
    }

    /// The stream is out, and was dropped: the next request may come.
    pub(crate) fn streamed(&self) {
        self.shared.exchange.set(Exchange::Idle);
    }
}

impl Rest {
    /// Little enough is left that more may be added.
    fn has_room(&self) -> bool {
        self.0[0].len() < JOINED && self.0[1].is_empty() && self.0[2].is_empty()
    }

    /// Adds more, where there is room.
    fn push(&mut self, out: &[u8], large: Bytes) {
        if !out.is_empty() {
            let end = Bytes::from_static(line_end(&large));
            self.0 = [[&self.0[0], out].concat().into(), large, end];
        }
    }
}

/// What follows the data of a chunk that is not copied.
fn line_end(large: &Bytes) -> &'static [u8] {
    if large.is_empty() { b"" } else { b"\r\n" }
}

/// Appends a chunk. Data that is not to be copied comes back: it follows, and then the end of its line.
fn push_chunk(out: &mut Vec<u8>, data: Bytes) -> Bytes {
    // An empty one would be the end.
    if data.is_empty() {
        return data;
    }
    push_hex(out, data.len());
    out.extend_from_slice(b"\r\n");
    if data.len() > JOINED {
        return data;
    }
    out.extend_from_slice(&data);
    out.extend_from_slice(b"\r\n");
    Bytes::new()
}

fn push_hex(out: &mut Vec<u8>, number: usize) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|at| DIGITS[number >> (4 * at) & 15]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_in_hex() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 4095, 4096, 65_536, usize::MAX] {
            let mut out = Vec::new();
            push_hex(&mut out, number);
            assert_eq!(out, format!("{number:X}").as_bytes());
        }
    }
}
