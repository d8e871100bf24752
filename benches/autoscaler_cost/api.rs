//! The metrics API as the API server meets it: HTTP/2 over kept TLS connections, a client certificate of the
//! aggregation layer, a review for each new question. Open loop: each request has its moment, and its latency counts
//! from there, so that a stall shows in all that it delays.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mcp_fleet::{
    autoscale::{
        board::{Board, Published, Value},
        metrics_api::{Config, MetricsApi, Parts, SamplesDropped},
        time::Now,
    },
    domain::FleetKey,
    runtime::{admin::Readiness, lease::Leadership},
};
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject as _};
use serde_json::json;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

#[path = "../../src/autoscale/metrics_api/test_support.rs"]
#[allow(dead_code, reason = "the unit tests use the rest")]
mod stub;

use crate::report::Report;
use stub::Stub;

const MAP: &str = "/api/v1/namespaces/sys/configmaps/op-ca";
const AUTHENTICATION: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
/// Connections that are kept, as by a few API servers.
const CONNECTIONS: usize = 8;
/// Fleets that are asked for in turn.
const FLEETS: usize = 500;

/// Rate and length of the run.
const PER_SECOND: u32 = 1_000;
const SECONDS: u32 = 20;
/// The goal, in milliseconds.
const P99_MS: f64 = 5.0;

/// What came out.
struct Figures {
    failed: usize,
    p50: Duration,
    p99: Duration,
    max: Duration,
    reviews: usize,
}

/// Server and clients in one process, on a runtime as the operator has one.
pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let figures = tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())?;
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let Figures { failed, p50, p99, max, reviews } = figures;
    report.at_most(
        "metrics API: p99 at 1,000 requests/s over kept TLS connections",
        P99_MS,
        ms(p99),
        "ms",
        2,
    );
    report.zero("metrics API: requests that failed", failed, "");
    let rest = format!("{:.2} ms, {:.2} ms, {reviews} ({FLEETS} fleets, {SECONDS} s)", ms(p50), ms(max));
    report.row("metrics API: median, longest, reviews asked of the API server", rest);
    Ok(())
}

async fn run() -> anyhow::Result<Figures> {
    let stub = Stub::answering(|_| (201, json!({"allowed": true})));
    let (ca, identity) = front_proxy()?;
    let names = json!({
        "requestheader-client-ca-file": ca,
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
    });
    stub.put(AUTHENTICATION, json!({"metadata": {"namespace": "kube-system"}, "data": names}));
    let stop = CancellationToken::new();
    let api = api(&stub).await?;
    let address = api.local_addr()?;
    let serving = tokio::spawn(api.run(stop.clone()));
    let published = published(&stub).await?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(connect(address, &published, &identity).await?);
    }
    trusted(&mut connections[0]).await?;
    let before = stub.n();
    let latencies = drive(&connections).await;
    let reviews = stub.n() - before;
    stop.cancel();
    serving.await?;
    Ok(figures(&latencies, reviews))
}

fn front_proxy() -> anyhow::Result<(String, (CertificateDer<'static>, Vec<u8>))> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "front-proxy-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "front-proxy-client");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer)?.der().clone();
    Ok((ca, (certificate, key.serialize_der())))
}

async fn api(stub: &Stub) -> anyhow::Result<MetricsApi> {
    let start = Instant::now();
    let wall = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    let board = Board::default();
    for n in 0..FLEETS {
        let value = Value {
            desired: 7,
            utilization: 1.12,
            sampled_at: wall(),
            window_seconds: 60,
            max_age_seconds: 3600,
        };
        board.set(FleetKey::new("team-a", format!("fleet-{n}")), Published::Value(value));
    }
    let config = Config {
        listen: "127.0.0.1:0".parse()?,
        namespace: "sys".into(),
        pod_name: "op-0".into(),
        metrics_api_service: Some("op-api".into()),
        load_service: None,
        ca_config_map: "op-ca".into(),
        gateway_user: None,
        audience: "mcp-fleet-operator".into(),
        load_token_file: None,
    };
    let parts = Parts {
        client: stub.client(),
        leadership: Leadership::fixed(None),
        board: Arc::new(board),
        ledger: Arc::default(),
        urgent: Arc::default(),
        clock: Arc::new(move || Now { mono: start.elapsed().as_millis() as i64, wall: wall() }),
        labels: Arc::new(|_| Some(BTreeMap::new())),
        dropped: SamplesDropped::default(),
    };
    Ok(MetricsApi::bind(config, parts, &Readiness::default(), &mut Registry::default()).await?)
}

/// The certificate by which the port lets itself be known.
async fn published(stub: &Stub) -> anyhow::Result<String> {
    for _ in 0..500 {
        if let Some(text) = stub.get(MAP).and_then(|map| Some(map["data"]["op-0.crt"].as_str()?.to_owned())) {
            return Ok(text);
        }
        sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("no certificate was published within 5 s")
}

async fn connect(
    address: std::net::SocketAddr,
    published: &str,
    identity: &(CertificateDer<'static>, Vec<u8>),
) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(published.as_bytes()).context("the published certificate")?)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![identity.0.clone()],
            PrivatePkcs8KeyDer::from(identity.1.clone()).into(),
        )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("op-api.sys.svc")?, stream).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Waits until the port knows the aggregation layer.
async fn trusted(sender: &mut SendRequest<Full<Bytes>>) -> anyhow::Result<()> {
    for _ in 0..500 {
        if ask(sender, 0).await {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("the port did not answer with 200 within 5 s")
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, n: usize) -> bool {
    let fleet = n % FLEETS;
    let uri = format!(
        "https://op-api.sys.svc/apis/custom.metrics.k8s.io/v1beta2/namespaces/team-a/mcpfleets.mcpfleet.io/fleet-{fleet}/mcp_desired_replicas"
    );
    let request = Request::get(uri)
        .header("x-remote-user", "system:serviceaccount:kube-system:horizontal-pod-autoscaler")
        .header("x-remote-group", "system:authenticated")
        .header(header::ACCEPT, "application/vnd.kubernetes.protobuf, */*");
    let Ok(request) = request.body(Full::default()) else { return false };
    let Ok(reply) = sender.send_request(request).await else { return false };
    let is_ok = reply.status() == 200;
    reply.into_body().collect().await.is_ok() && is_ok
}

/// Latency of each request, `None` for a failure.
async fn drive(connections: &[SendRequest<Full<Bytes>>]) -> Vec<Option<Duration>> {
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for n in 0..PER_SECOND * SECONDS {
        let at = start + Duration::from_secs(1) * n / PER_SECOND;
        sleep_until(at).await;
        let mut sender = connections[n as usize % connections.len()].clone();
        tasks.spawn(async move { ask(&mut sender, n as usize).await.then(|| at.elapsed()) });
    }
    tasks.join_all().await
}

fn figures(latencies: &[Option<Duration>], reviews: usize) -> Figures {
    let mut good: Vec<Duration> = latencies.iter().flatten().copied().collect();
    good.sort_unstable();
    let at = |share: f64| {
        let place = (good.len() as f64 * share).ceil() as usize;
        good.get(place.saturating_sub(1)).copied().unwrap_or_default()
    };
    Figures { failed: latencies.len() - good.len(), p50: at(0.5), p99: at(0.99), max: at(1.0), reviews }
}
