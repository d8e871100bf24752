//! A layer that gives every call an end: head and body for ordinary calls, the head for watches.
//!
//! A timeout around the response future alone would not do: the body comes after it, and an API
//! server that stalls in the middle of a list would hold its reader for ever.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::{BoxError, Layer, Service};

use super::call::Call;

/// The API server did not answer in time. A write may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API server did not answer within {0:?}")]
pub struct DeadlineExceeded(Duration);

/// Wraps a service into [`Deadline`].
#[derive(Debug, Clone, Copy)]
pub(super) struct DeadlineLayer(Duration);

impl DeadlineLayer {
    pub(super) fn new(limit: Duration) -> Self {
        Self(limit)
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, limit: self.0 }
    }
}

/// Ends calls that take longer than `limit`.
#[derive(Debug, Clone)]
pub(super) struct Deadline<S> {
    inner: S,
    limit: Duration,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Deadline<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<DeadlineBody<ResBody>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let is_watch = Call::of(&request).is_watch();
        let limit = self.limit;
        let deadline = Instant::now() + limit;
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = timeout_at(deadline, response).await.map_err(|_| DeadlineExceeded(limit))?;
            let end = (!is_watch).then(|| (Box::pin(sleep_until(deadline)), limit));
            Ok(response.map_err(Into::into)?.map(|inner| DeadlineBody { inner, end }))
        })
    }
}

/// A body that fails when its time is up.
#[derive(Debug)]
pub(super) struct DeadlineBody<B> {
    inner: B,
    end: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl<B> Body for DeadlineBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        // What is there already is delivered, even if late.
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match &mut self.end {
            Some((sleep, limit)) => {
                let limit = *limit;
                sleep.as_mut().poll(cx).map(|()| Some(Err(DeadlineExceeded(limit).into())))
            }
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
