//! The admin endpoints: `/livez`, `/readyz` and `/metrics`.
//!
//! Plain HTTP for the kubelet and for Prometheus. Every connection carries one request and lives
//! 10 s at most, 64 live at a time, request bodies are not read: nobody who reaches this port can
//! hold the process. It must not offer anything that changes state.

mod readiness;

pub use readiness::{Blocker, Readiness};

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at the same time. Two probes and a scrape are all that there should be.
const MAX_CONNECTIONS: usize = 64;

/// From the start of a connection to the end of the request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// From the start of a connection to its end.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest request head, in bytes; hyper's smallest allowed value.
const MAX_HEAD: usize = 8 * 1024;

/// How long open connections may take once the process wants to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the exposition format is called; see version 1.0 of the `OpenMetrics` specification.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address} for {what}: {source}; choose another address with --{flag}-listen")]
pub struct AdminError {
    address: SocketAddr,
    what: &'static str,
    flag: &'static str,
    source: io::Error,
}

/// The admin endpoints, listening but not yet answering.
pub struct Admin {
    listener: TcpListener,
    router: Router,
}

#[derive(Clone)]
struct Shared {
    registry: Arc<Registry>,
    readiness: Readiness,
}

impl Admin {
    /// Opens the port. All metrics must be in `registry` by now.
    pub async fn bind(
        address: SocketAddr,
        registry: Arc<Registry>,
        readiness: Readiness,
    ) -> Result<Self, AdminError> {
        let router = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Shared { registry, readiness });
        Self::bind_router(address, router, "the admin endpoints", "admin").await
    }

    /// Opens the port for other questions, with the same limits. `what` and `flag` name them in the error:
    /// "failed to listen … for WHAT; choose another address with --FLAG-listen".
    pub async fn bind_router(
        address: SocketAddr,
        router: Router,
        what: &'static str,
        flag: &'static str,
    ) -> Result<Self, AdminError> {
        let failed = |source| AdminError { address, what, flag, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self { listener, router })
    }

    /// Where it listens; tells the port that was given for port 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop`, then lets open connections end for a second.
    pub async fn serve(self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        // The semaphore is never closed, so `acquire_owned` cannot fail.
        while let Some(Ok(slot)) = stop.run_until_cancelled(Arc::clone(&slots).acquire_owned()).await {
            let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await else { break };
            match accepted {
                Ok((stream, _)) => {
                    let router = self.router.clone();
                    connections.spawn(async move {
                        let _slot = slot;
                        serve_connection(stream, router).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept an admin connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        connections.close();
        // Whoever is slower is cut off by the end of the process.
        let _ = timeout(STOP_TIMEOUT, connections.wait()).await;
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
        tracing::debug!(%error, "an admin connection failed");
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let missing = shared.readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    let body = format!("not ready; waiting for: {}\n", missing.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &shared.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "failed to encode the metrics\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
