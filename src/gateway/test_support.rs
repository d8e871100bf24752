//! A gateway in memory, and servers that say what a test wants, for the unit tests of this module.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::{
    control::dns,
    fleet::{EndpointSpec, FleetSpec, Transport},
    routing::Routes,
    seal::KeyRing,
    settings::Settings,
    shared::{Gateway, Options, Snapshot},
};
use crate::{api::v1alpha1::Sessions, domain::FleetKey};

/// A gateway that serves nothing.
pub(crate) fn gateway() -> Arc<Gateway> {
    Arc::new(Gateway {
        clock: super::fleet::Clock::start(),
        options: Options { name: "gateway-1".into(), ..Options::default() },
        snapshot: arc_swap::ArcSwap::from_pointee(Snapshot { fleets: Vec::new(), routes: Routes::default() }),
        hosts: arc_swap::ArcSwap::default(),
        keys: arc_swap::ArcSwap::from_pointee(KeyRing::ephemeral().expect("random bytes")),
        peers: arc_swap::ArcSwap::default(),
        own: arc_swap::ArcSwap::default(),
        metrics: Arc::default(),
        urgent: Arc::default(),
        ending: std::sync::atomic::AtomicBool::new(false),
        closing: tokio_util::sync::CancellationToken::new(),
        writing: Mutex::new(()),
    })
}

/// A fleet in the namespace `tools`.
pub(crate) fn fleet(name: &str) -> FleetSpec {
    FleetSpec {
        key: FleetKey::new("tools", name),
        uid: format!("uid-{name}"),
        path: "/mcp".into(),
        transport: Transport::StreamableHttp,
        sessions: Sessions::Auto,
        upstream_host: "localhost:8080".into(),
        host_header: HeaderValue::from_static("localhost:8080"),
        settings: Settings::default(),
        scalable: false,
    }
}

/// A ready endpoint.
pub(crate) fn endpoint(address: SocketAddr) -> EndpointSpec {
    dns::endpoint(address, 1, true)
}

/// A request as a server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// The body as JSON; null where it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Its JSON-RPC method, else its HTTP method.
    pub(crate) fn name(&self) -> String {
        self.json()["method"].as_str().map_or_else(|| self.method.to_string(), str::to_owned)
    }
}

/// A server on loopback.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Answers as `answer` says, until it is dropped.
    pub(crate) async fn start(answer: impl Fn(&Asked) -> Response<String> + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer).await
    }

    /// The same at a certain address.
    pub(crate) async fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Asked) -> Response<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                    async move {
                        let (head, body) = request.into_parts();
                        let body =
                            body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                        let path = head.uri.path().to_owned();
                        let asked = Asked { method: head.method, path, headers: head.headers, body };
                        log.lock().push(asked.clone());
                        Ok::<_, Infallible>(answer(&asked).map(|text| Full::new(Bytes::from(text))))
                    }
                });
                tokio::spawn(async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, asked, task }
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// Names of what it was asked so far.
    pub(crate) fn names(&self) -> Vec<String> {
        self.asked().iter().map(Asked::name).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer of a status, with a JSON body where there is one.
pub(crate) fn answer(status: u16, body: &str) -> Response<String> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body.to_owned())
        .expect("an answer")
}

/// Waits until `test` holds, at most 10 s.
pub(crate) async fn until(what: &str, mut test: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if test() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}
