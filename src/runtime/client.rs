//! The Kubernetes client as this product uses it.
//!
//! kube's defaults let one call hang for ever, and hide up to 164 s of retries in it. Here:
//!
//! - every call has an end: 15 s per attempt for head and body, and for the head of a watch (the
//!   watch itself lives on, its events are watched over by `kube::runtime`);
//! - 429, 503 and 504 are tried again three times, with what the server asks for in `Retry-After`;
//!   the leader election gets a client without any retry, since a late one could write after the
//!   leadership has moved on;
//! - every attempt is counted, by verb, resource and result.
//!
//! It must not know what the calls are for.

mod call;
mod deadline;
mod metrics;

pub use deadline::DeadlineExceeded;
pub use metrics::CallMetrics;

use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::client::ClientBuilder;
use kube::client::retry::{InvalidBackoff, RetryPolicy};
use kube::config::InferConfigError;
use kube::{Client, Config};
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;

use super::chain::Chain;
use deadline::DeadlineLayer;
use metrics::MetricsLayer;

/// How we show up in the API server's audit log.
const AGENT: &str = concat!("mcp-fleet/", env!("CARGO_PKG_VERSION"));

/// Longest time for one attempt, from the request to the last byte of the answer. The largest answers
/// are pages of 500 objects; an API server that needs longer is in trouble, and so would we be.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest time to get a connection, TLS included. Part of the call's time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// First and longest pause before another attempt, and how many there are.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// Calls that wait for the connection pool at the same time, as in kube's own client.
const BUFFER: usize = 1_024;

/// What happens to a call that the API server refuses for the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It is tried again a few times.
    Few,
    /// The caller decides.
    Never,
}

/// There is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither a kubeconfig nor a pod's service account.
    #[error("failed to find a cluster: {}; set KUBECONFIG, or run in a pod with a service account token", Chain(.0))]
    NoCluster(#[from] InferConfigError),
    /// The configuration was found, and is of no use.
    #[error("failed to create the Kubernetes client for {url}: {}", Chain(source.as_ref()))]
    Build {
        /// The API server.
        url: http::Uri,
        /// What is wrong.
        source: Box<kube::Error>,
    },
    /// Our own constants are wrong.
    #[error("failed to create the retry policy: {0}")]
    Policy(#[from] InvalidBackoff),
}

/// Finds the cluster: `KUBECONFIG`, `~/.kube/config`, or the service account of the pod.
pub async fn infer_config() -> Result<Config, ClientError> {
    Ok(Config::infer().await?)
}

/// Builds a client for `config`. Each has connections of its own.
///
/// Must be called inside the runtime, and after the TLS provider was installed.
pub fn build(config: Config, retry: Retry, metrics: &CallMetrics) -> Result<Client, ClientError> {
    build_with(config, retry, metrics, CALL_TIMEOUT)
}

fn build_with(
    mut config: Config,
    retry: Retry,
    metrics: &CallMetrics,
    call_timeout: Duration,
) -> Result<Client, ClientError> {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let url = config.cluster_url.clone();
    let builder = ClientBuilder::try_from(config)
        .map_err(|source| ClientError::Build { url, source: Box::new(source) })?
        // Retries need a service that can be cloned, and kube's own cannot.
        .with_layer(&BufferLayer::new(BUFFER))
        .with_layer(&DeadlineLayer::new(call_timeout))
        .with_layer(&MetricsLayer::new(metrics.clone()));
    Ok(match retry {
        Retry::Never => builder.build(),
        Retry::Few => {
            let policy = RetryPolicy::new(RETRY_MIN, RETRY_MAX, RETRIES, true)?;
            builder.with_layer(&RetryLayer::new(policy)).build()
        }
    })
}

#[cfg(test)]
mod tests;
