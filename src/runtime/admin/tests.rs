//! Real requests over loopback.

use super::*;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

struct Fixture {
    address: SocketAddr,
    readiness: Readiness,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Fixture {
    async fn start() -> Self {
        let mut registry = Registry::default();
        let calls: Counter = Counter::default();
        registry.register("calls", "Calls", calls.clone());
        calls.inc();
        let readiness = Readiness::default();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = Admin::bind(any, Arc::new(registry), readiness.clone()).await.unwrap();
        let address = admin.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(admin.serve(stop.clone()));
        Self { address, readiness, stop, task }
    }

    /// The whole answer to `METHOD PATH`; the server closes the connection after it.
    async fn ask(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn ready_says_what_is_missing() {
    let admin = Fixture::start().await;
    let stores = admin.readiness.blocker("stores");
    let lease = admin.readiness.blocker("certificates");
    let answer = admin.ask("GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot ready; waiting for: stores, certificates\n"), "{answer}");
    // Alive all the same: a restart would not help.
    assert!(admin.ask("GET /livez").await.starts_with("HTTP/1.1 200 "));
    drop((stores, lease));
    let answer = admin.ask("GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let admin = Fixture::start().await;
    let answer = admin.ask("GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
    assert!(answer.contains("\ncalls_total 1\n") && answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn nothing_else_is_offered() {
    let admin = Fixture::start().await;
    for (line, status) in
        [("POST /livez", "405"), ("DELETE /metrics", "405"), ("GET /", "404"), ("GET /debug", "404")]
    {
        let answer = admin.ask(line).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
    }
}

#[tokio::test]
async fn a_port_in_use_says_so() {
    let admin = Fixture::start().await;
    let error = Admin::bind(admin.address, Arc::new(Registry::default()), Readiness::default()).await;
    let message = error.err().unwrap().to_string();
    assert!(message.starts_with(&format!("failed to listen on {} for the admin endpoints: ", admin.address)));
    assert!(message.ends_with("choose another address with --admin-listen"), "{message}");
}

#[tokio::test]
async fn silent_clients_are_sent_away() {
    let admin = Fixture::start().await;
    let mut silent = TcpStream::connect(admin.address).await.unwrap();
    silent.write_all(b"GET /livez HTT").await.unwrap();
    let mut rest = Vec::new();
    let closed = timeout(2 * CONNECTION_TIMEOUT, silent.read_to_end(&mut rest)).await;
    assert!(closed.is_ok());
}

#[tokio::test]
async fn it_stops_though_somebody_is_connected() {
    let admin = Fixture::start().await;
    let _silent = TcpStream::connect(admin.address).await.unwrap();
    assert!(admin.ask("GET /livez").await.starts_with("HTTP/1.1 200 "));
    let asked = Instant::now();
    admin.stop.cancel();
    admin.task.await.unwrap();
    assert!(asked.elapsed() < 2 * STOP_TIMEOUT);
    assert!(TcpStream::connect(admin.address).await.is_err());
}
