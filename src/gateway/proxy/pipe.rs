//! A stream of bytes from one task to the body of an answer, on one thread: room for one chunk, so that a slow
//! client slows its server down, and both ends learn at once when the other is gone.

use std::{
    cell::RefCell,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

#[derive(Default)]
struct Shared {
    chunk: Option<Bytes>,
    /// `Some(true)`: cut, not ended.
    end: Option<bool>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Where chunks go in. Dropped without [`Writer::finish`], the stream is cut.
pub(crate) struct Writer(Rc<RefCell<Shared>>);

/// Where they come out.
pub(crate) struct Reader(Rc<RefCell<Shared>>);

/// The client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left;

/// The stream ended before its end.
#[derive(Debug, thiserror::Error)]
#[error("the stream was cut")]
pub(crate) struct Cut;

/// A new stream.
pub(crate) fn pipe() -> (Writer, Reader) {
    let shared = Rc::new(RefCell::new(Shared::default()));
    (Writer(Rc::clone(&shared)), Reader(shared))
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Writer {
    /// Hands a chunk over; waits until the one before it was taken.
    pub(crate) async fn send(&self, chunk: Bytes) -> Result<(), Left> {
        let mut chunk = Some(chunk);
        poll_fn(|context| {
            let mut shared = self.0.borrow_mut();
            if shared.reader_gone {
                return Poll::Ready(Err(Left));
            }
            if shared.chunk.is_some() {
                shared.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            shared.chunk = chunk.take();
            wake(&mut shared.reader);
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The client has left.
    pub(crate) async fn left(&self) {
        poll_fn(|context| {
            let mut shared = self.0.borrow_mut();
            if shared.reader_gone {
                return Poll::Ready(());
            }
            shared.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// This was all.
    pub(crate) fn finish(self) {
        self.0.borrow_mut().end = Some(false);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.end.get_or_insert(true);
        wake(&mut shared.reader);
    }
}

impl Reader {
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let mut shared = self.0.borrow_mut();
        if let Some(chunk) = shared.chunk.take() {
            wake(&mut shared.writer);
            return Poll::Ready(Some(Ok(chunk)));
        }
        match shared.end {
            Some(false) => Poll::Ready(None),
            Some(true) => Poll::Ready(Some(Err(Cut))),
            None => {
                shared.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.reader_gone = true;
        shared.chunk = None;
        wake(&mut shared.writer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(reader: &Reader) -> Option<Result<Bytes, Cut>> {
        poll_fn(|context| reader.poll(context)).await
    }

    #[tokio::test]
    async fn one_chunk_at_a_time_and_an_end() {
        let (writer, reader) = pipe();
        let write = async move {
            for chunk in ["a", "b", "c"] {
                writer.send(Bytes::from_static(chunk.as_bytes())).await.expect("somebody reads");
            }
            writer.finish();
        };
        let read = async {
            let mut all = Vec::new();
            while let Some(chunk) = next(&reader).await {
                all.extend_from_slice(&chunk.expect("no cut"));
            }
            all
        };
        let ((), all) = tokio::join!(write, read);
        assert_eq!(all, b"abc");
    }

    #[tokio::test]
    async fn each_end_learns_that_the_other_is_gone() {
        let (writer, reader) = pipe();
        drop(writer);
        assert!(matches!(next(&reader).await, Some(Err(Cut))));
        let (writer, reader) = pipe();
        writer.send(Bytes::from_static(b"a")).await.expect("room for one");
        let blocked = writer.send(Bytes::from_static(b"b"));
        let ((), sent) = tokio::join!(async move { drop(reader) }, blocked);
        assert_eq!(sent, Err(Left));
        writer.left().await;
    }
}
