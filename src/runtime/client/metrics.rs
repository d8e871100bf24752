//! A layer that counts every attempt, and measures how long the head of its answer took.
//!
//! Labels come from closed lists ([`Call`]) and from status codes, never from names.

use std::fmt::{self, Write as _};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

use super::call::Call;
use super::deadline::DeadlineExceeded;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Code {
    Status(StatusCode),
    /// No answer in time.
    Timeout,
    /// No answer at all: no connection, or a broken one.
    Failed,
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Status(status) => encoder.write_str(status.as_str()),
            Self::Timeout => encoder.write_str("timeout"),
            Self::Failed => encoder.write_str("failed"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    verb: &'static str,
    resource: &'static str,
    code: Code,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
}

/// What `/metrics` says about our calls to the API server.
#[derive(Debug, Clone)]
pub struct CallMetrics {
    calls: Family<CallLabels, Counter>,
    durations: Family<VerbLabels, Histogram>,
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self {
            calls: Family::default(),
            // 1 ms to 16 s: from a cached answer to the end of our patience.
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 8))),
        }
    }
}

impl CallMetrics {
    /// Creates the metrics and makes them known to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "kube_api_calls",
            "Calls to the Kubernetes API server, every attempt counted",
            metrics.calls.clone(),
        );
        registry.register_with_unit(
            "kube_api_call_duration",
            "Time from a call to the head of its answer",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        metrics
    }

    fn count(&self, call: Call, code: Code, took_seconds: f64) {
        let Call { verb, resource } = call;
        self.calls.get_or_create(&CallLabels { verb, resource, code }).inc();
        self.durations.get_or_create(&VerbLabels { verb }).observe(took_seconds);
    }
}

/// Wraps a service into [`Metered`].
#[derive(Debug, Clone)]
pub(super) struct MetricsLayer(CallMetrics);

impl MetricsLayer {
    pub(super) fn new(metrics: CallMetrics) -> Self {
        Self(metrics)
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, metrics: self.0.clone() }
    }
}

/// Counts the calls to `inner`.
#[derive(Debug, Clone)]
pub(super) struct Metered<S> {
    inner: S,
    metrics: CallMetrics,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Metered<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<ResBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let call = Call::of(&request);
        let metrics = self.metrics.clone();
        let started = Instant::now();
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            let code = match &response {
                Ok(response) => Code::Status(response.status()),
                Err(error) if error.is::<DeadlineExceeded>() => Code::Timeout,
                Err(_) => Code::Failed,
            };
            metrics.count(call, code, started.elapsed().as_secs_f64());
            response
        })
    }
}
