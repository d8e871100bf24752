//! The usual exchanges of a connection, one after another without hyper, which would take a fifth of the
//! instructions of a whole request.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http::{Response, StatusCode, header, request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::guard::{AnswerBody, Guard, Next, Peer, Streaming};

/// How usual exchanges end.
pub(crate) enum Turns<B> {
    /// The connection does, too: [`Guard::finish`] it.
    Ended,
    /// hyper has to go on. With an answer: the first request that it reads is one that was served already, and this is
    /// what to answer to it.
    Other(Option<Response<B>>),
}

/// Serves requests until one of them, or its answer, is no usual one. `is_ending`: no more are wanted; whoever makes
/// that true wakes the task.
pub(crate) async fn take_turns<IO, B, F>(
    guard: &mut Guard<IO>,
    is_ending: impl Fn() -> bool,
    serve: impl Fn(Box<request::Parts>, Bytes) -> F,
) -> Turns<B>
where
    IO: AsyncRead + AsyncWrite + Peer + Unpin,
    B: AnswerBody + Unpin,
    F: Future<Output = Response<B>>,
{
    loop {
        let next = poll_fn(|cx| match guard.poll_next(cx) {
            Poll::Pending if is_ending() && guard.is_idle() => Poll::Ready(None),
            next => next.map(Some),
        });
        let (head, body) = match next.await {
            None => return Turns::Ended,
            Some(Next::Other) => return Turns::Other(None),
            Some(Next::Request(head, body)) => (head, body),
        };
        let mut serving = pin!(serve(head, body));
        let served = poll_fn(|cx| match serving.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => guard.poll_left(cx).map(|()| None),
        });
        let Some(mut response) = served.await else { return Turns::Ended };
        let Some(body) = response.body_mut().take_whole() else {
            if !is_chunked(&response) {
                guard.stand_in();
                return Turns::Other(Some(response));
            }
            // Of what it needs most connections hold nothing.
            if !Box::pin(pass(guard, response, is_ending())).await {
                return Turns::Ended;
            }
            continue;
        };
        let (head, answered) = response.into_parts();
        let ends = is_ending();
        let (mut rest, closes) = poll_fn(|cx| Poll::Ready(guard.answer(cx, &head, body.clone(), ends))).await;
        // With it goes what counts the request and frees its place. Its client need not wait for that.
        drop(answered);
        if poll_fn(|cx| guard.poll_rest(cx, &mut rest)).await.is_err() || closes {
            return Turns::Ended;
        }
    }
}

/// Whether an answer is a stream of which nothing says how long it is.
fn is_chunked<B: AnswerBody>(response: &Response<B>) -> bool {
    response.body().is_stream()
        && response.status() == StatusCode::OK
        && !response.headers().contains_key(header::CONTENT_LENGTH)
}

/// Passes a stream on to its end. Whether the connection goes on.
async fn pass<IO, B>(guard: &mut Guard<IO>, response: Response<B>, ends: bool) -> bool
where
    IO: AsyncRead + AsyncWrite + Peer + Unpin,
    B: AnswerBody + Unpin,
{
    let (head, mut body) = response.into_parts();
    let (mut streaming, closes) = Streaming::new(&head, ends);
    drop(head);
    let whole = poll_fn(|cx| guard.poll_stream(cx, &mut streaming, &mut body)).await;
    // Its server learns of it, and what counts it.
    drop(body);
    guard.streamed();
    whole && !closes
}
