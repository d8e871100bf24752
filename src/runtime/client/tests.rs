//! The client's layers over a loopback server that misbehaves.

use super::*;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, WatchParams};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Answers the n-th connection with the n-th text, the last one for all that follow, and then leaves
/// the connection open.
struct Peer {
    url: http::Uri,
    n_requests: Arc<AtomicUsize>,
    last_head: Arc<parking_lot::Mutex<String>>,
}

impl Peer {
    async fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let n_requests = Arc::new(AtomicUsize::new(0));
        let last_head = Arc::new(parking_lot::Mutex::default());
        let (counter, head) = (Arc::clone(&n_requests), Arc::clone(&last_head));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (counter, head) = (Arc::clone(&counter), Arc::clone(&head));
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    let n_read = stream.read(&mut buffer).await.unwrap();
                    *head.lock() = String::from_utf8_lossy(&buffer[..n_read]).into_owned();
                    let number = counter.fetch_add(1, Ordering::SeqCst);
                    let answer = answers[number.min(answers.len() - 1)];
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { url, n_requests, last_head }
    }

    fn services(&self, retry: Retry, metrics: &CallMetrics) -> Api<Service> {
        let config = Config::new(self.url.clone());
        Api::namespaced(build_with(config, retry, metrics, LIMIT).unwrap(), "tools")
    }

    fn n_requests(&self) -> usize {
        self.n_requests.load(Ordering::SeqCst)
    }
}

/// Stands for [`CALL_TIMEOUT`]. Real time: a paused clock would run ahead of the sockets.
const LIMIT: Duration = Duration::from_millis(500);

const OK: &str =
    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 30\r\n\r\n{\"metadata\":{\"name\":\"github\"}}";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 33\r\n\r\n{\"metadata\":";
const STREAM: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const NOTHING: &str = "";

#[tokio::test]
async fn a_short_overload_is_ridden_out() {
    let peer = Peer::start(&[BUSY, BUSY, OK]).await;
    let services = peer.services(Retry::Few, &CallMetrics::default());
    let patch = Patch::Apply(serde_json::json!({}));
    let applied = services.patch("github", &PatchParams::apply("mcp-fleet"), &patch).await.unwrap();
    assert_eq!(applied.metadata.name.as_deref(), Some("github"));
    assert_eq!(peer.n_requests(), 3);
    assert!(peer.last_head.lock().contains(&format!("user-agent: {AGENT}\r\n")));
}

#[tokio::test]
async fn a_long_overload_is_reported_after_four_attempts() {
    let peer = Peer::start(&[BUSY]).await;
    let started = tokio::time::Instant::now();
    assert!(peer.services(Retry::Few, &CallMetrics::default()).get("github").await.is_err());
    assert_eq!(peer.n_requests(), 4);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_election_client_tries_once() {
    let peer = Peer::start(&[BUSY]).await;
    assert!(peer.services(Retry::Never, &CallMetrics::default()).get("github").await.is_err());
    assert_eq!(peer.n_requests(), 1);
}

#[tokio::test]
async fn a_watch_outlives_the_deadline_and_a_call_does_not() {
    let expired = async |answer: &'static [&'static str]| {
        let peer = Peer::start(answer).await;
        let metrics = CallMetrics::default();
        let error = peer.services(Retry::Few, &metrics).list(&ListParams::default()).await;
        let error = error.unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("DeadlineExceeded"), "{text}");
        assert_eq!(peer.n_requests(), 1);
    };
    let watching = async {
        let peer = Peer::start(&[STREAM]).await;
        let services = peer.services(Retry::Few, &CallMetrics::default());
        let events = services.watch(&WatchParams::default(), "0").await.unwrap();
        let mut events = std::pin::pin!(events);
        let next = futures::StreamExt::next(&mut events);
        assert!(tokio::time::timeout(3 * LIMIT, next).await.is_err());
    };
    let deaf_watch = async {
        let peer = Peer::start(&[NOTHING]).await;
        let services = peer.services(Retry::Few, &CallMetrics::default());
        assert!(services.watch(&WatchParams::default(), "0").await.is_err());
    };
    tokio::join!(expired(&[HALF]), expired(&[NOTHING]), watching, deaf_watch);
}

#[tokio::test]
async fn every_attempt_is_counted() {
    let peer = Peer::start(&[BUSY, OK]).await;
    let mut registry = Registry::default();
    let metrics = CallMetrics::register(&mut registry);
    peer.services(Retry::Few, &metrics).get("github").await.unwrap();
    let gone = Config::new("http://127.0.0.1:1".parse().unwrap());
    let gone = Api::<Service>::all(build(gone, Retry::Few, &metrics).unwrap());
    assert!(gone.list(&ListParams::default()).await.is_err());
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        "kube_api_calls_total{verb=\"get\",resource=\"services\",code=\"503\"} 1\n",
        "kube_api_calls_total{verb=\"get\",resource=\"services\",code=\"200\"} 1\n",
        "kube_api_calls_total{verb=\"list\",resource=\"services\",code=\"failed\"} 1\n",
        "kube_api_call_duration_seconds_count{verb=\"get\"} 2\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}
