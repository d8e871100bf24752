//! Load reports as the operator gets them: over TLS, with a token, from the first call to the orderly end; and what
//! the operator's ledger makes of them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mcp_fleet::autoscale::{
    ledger::{Ledger, Receipt},
    load::Load,
    policy::Windows,
    report::Report,
    time::Now,
};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::{net::TcpListener, time::sleep};
use tokio_rustls::TlsAcceptor;

use crate::{
    client::{Stopwatch, modern, until},
    pod::{Pod, Speaks},
    world::Alone,
};

/// Of the fleet, outside a cluster.
const UID: &str = "tools/demo";

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What came, and how.
#[derive(Clone)]
struct Came {
    connection: usize,
    path: String,
    token: String,
    report: Report,
    receipt: Receipt,
}

/// An operator, as far as gateways see it.
struct Receiver {
    port: u16,
    acceptor: Mutex<TlsAcceptor>,
    came: Mutex<Vec<Came>>,
    ledger: Mutex<Ledger>,
    connections: AtomicUsize,
}

fn now() -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64;
    Now { mono: wall - 1_700_000_000_000, wall }
}

impl Receiver {
    async fn start(ca: &Ca) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            acceptor: Mutex::new(ca.acceptor()),
            came: Mutex::default(),
            ledger: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let server = Arc::clone(&this);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, acceptor) = (Arc::clone(&server), server.acceptor.lock().clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let connection = server.connections.fetch_add(1, Ordering::SeqCst);
                    let service = service_fn(|request| server.take(connection, request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        this
    }

    async fn take(
        &self,
        connection: usize,
        request: http::Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let token = request.headers()["authorization"].to_str().unwrap().to_owned();
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let report: Report = serde_json::from_slice(&body).unwrap();
        let receipt = self.ledger.lock().accept(&report, now());
        self.came.lock().push(Came { connection, path, token, report, receipt });
        // With a body: the connection is kept only by who reads it.
        Ok(Response::new(Full::new(Bytes::from_static(b"{\"receipt\":\"Accepted\"}"))))
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/v1/load", self.port)
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().clone()
    }

    /// Waits for the next report that is so.
    async fn next(&self, what: &str, is_so: impl Fn(&Came) -> bool) -> Came {
        let from = self.came.lock().len();
        let found = || self.came.lock()[from..].iter().find(|came| is_so(came)).cloned();
        until(what, || found().is_some()).await;
        found().unwrap()
    }

    fn load(&self) -> Load {
        self.ledger.lock().load(UID, &Windows::default(), Some(1), now()).unwrap()
    }
}

#[tokio::test]
async fn reports_reach_a_receiver_whose_ca_comes_late_and_changes() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let (first, second) = (Ca::new(), Ca::new());
    let receiver = Receiver::start(&first).await;
    let mut alone = Alone::reporting(&pods, &[receiver.url()]).await;
    let failures = "mcp_fleet_gateway_report_pushes_total";
    while alone.gateway.metric(failures, &["failed"]).await < 1.0 {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(receiver.came().is_empty());
    alone.put("token", "one\n");
    alone.put("ca.crt", &first.pem);
    let came = receiver.next("a report of the fleet", |c| !c.report.fleets.is_empty()).await;
    assert_eq!((came.path.as_str(), came.token.as_str()), ("/v1/load", "Bearer one"));
    assert_eq!((came.report.version, came.receipt, came.report.last), (1, Receipt::Accepted, false));
    assert_eq!((came.report.fleets[0].uid.as_str(), came.report.fleets[0].ready), (UID, 1));

    // Real calls, far shorter than the time between two reports, and one that lasts.
    for id in 0..5 {
        assert_eq!(alone.gateway.modern(&tool_call(id, "whoami")).await.status, 200);
    }
    let slow = tool_call(9, "slow");
    let calls = async {
        let running = receiver.next("a call that runs", |c| in_flight(c) >= 1.0).await;
        assert!(running.report.fleets[0].pods[0].work.in_flight >= 1.0);
        pods[0].release(1);
    };
    let (reply, ()) = tokio::join!(alone.gateway.modern(&slow), calls);
    assert_eq!(reply.status, 200);
    let is_end = |c: &Came| c.report.fleets.iter().any(|f| f.work.completions.ok >= 6.0);
    receiver.next("the end of all calls", is_end).await;
    let load = receiver.load();
    // At rest it may have been left out of the reports before; nothing is missing for that.
    let counts = (load.stable.arrivals.round(), load.stable.completions.ok.round(), load.silent);
    assert_eq!(counts, (6.0, 6.0, 0), "{load:?}");
    assert!(load.complete, "all is known since the start of the process: {load:?}");
    assert!(load.stable.in_flight > 0.0 && load.stable.queue < 1.0, "{load:?}");
    until("eight reports", || receiver.came().len() >= 8).await;
    let connections = receiver.connections.load(Ordering::SeqCst);
    assert!(connections <= 2, "{connections} connections for eight reports and more");

    // Another token, another CA: a replica of the operator was replaced.
    alone.put("token", "two");
    receiver.next("the new token", |c| c.token == "Bearer two").await;
    *receiver.acceptor.lock() = second.acceptor();
    alone.put("ca.crt", &second.pem);
    receiver.next("a report to the new certificate", |c| c.connection >= connections).await;
    // A file that is being written, or spoilt, takes nothing away.
    alone.put("ca.crt", "-----BEGIN CERTIFICATE-----\n!\n");
    sleep(Duration::from_millis(1_500)).await;
    receiver.next("a report, the last good CA in use", |_| true).await;
    assert!(alone.gateway.log().contains("no CA of the receivers of load reports in this file"));

    alone.gateway.terminate();
    assert!(alone.gateway.ended().await);
    let came = receiver.came();
    let (last, before) = came.split_last().unwrap();
    assert!(last.report.last && before.iter().all(|c| !c.report.last));
    assert_eq!(receiver.ledger.lock().heard(now()), 0, "it has ended and is not missed");
}

fn tool_call(id: i32, name: &str) -> serde_json::Value {
    modern(id, "tools/call", json!({"name": name}))
}

fn in_flight(came: &Came) -> f64 {
    came.report.fleets.iter().map(|f| f.work.in_flight).sum()
}

#[tokio::test]
async fn a_call_to_a_fleet_at_zero_is_reported_at_once() {
    let ca = Ca::new();
    let receiver = Receiver::start(&ca).await;
    let mut alone = Alone::reporting(&[], &[receiver.url()]).await;
    alone.put("token", "one");
    alone.put("ca.crt", &ca.pem);
    let pod = Pod::start("one", Speaks::Both).await;
    for _ in 0..3 {
        receiver.next("a report", |_| true).await;
        // The next ordinary one is most of a second away.
        let call = tool_call(1, "whoami");
        let waited = Stopwatch::start();
        let mut call = Box::pin(alone.gateway.modern(&call));
        let report = receiver.next("a report of who waits", |c| {
            c.report.fleets.iter().any(|f| f.ready == 0 && f.queue >= 1.0)
        });
        tokio::select! {
            reply = &mut call => panic!("answered without a pod: {}", reply.status),
            _ = report => {}
        }
        assert!(waited.ms() < 800, "{} ms", waited.ms());
        assert_eq!(receiver.ledger.lock().fleets_waiting(now()).collect::<Vec<_>>(), [UID]);
        drop(call);
        receiver.next("that nobody waits", |c| c.report.fleets.iter().all(|f| f.queue < 1.0)).await;
        assert_eq!(receiver.ledger.lock().fleets_waiting(now()).count(), 0);
    }
    // A pod comes, and who waited is served.
    let call = tool_call(2, "whoami");
    alone.gateway.list(&[&pod]);
    assert_eq!(alone.gateway.modern(&call).await.status, 200);
    receiver.next("a ready pod", |c| c.report.fleets.iter().any(|f| f.ready == 1)).await;
}
