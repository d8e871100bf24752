//! The port as a whole, over real TLS, before an API server that the test plays.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    test_support::{APISERVICES, Stub},
    *,
};
use crate::autoscale::board::{Published, Value as Number};

/// What the port's clock says at first, in ms since the Unix epoch, to the second. Clients judge certificates by the
/// real clock, which has to lie within the day of the first one and of the one that follows twelve hours later.
static NOW: LazyLock<i64> = LazyLock::new(|| (jiff::Timestamp::now().as_second() - 12 * 3600) * 1000);
const MAP: &str = "/api/v1/namespaces/sys/configmaps/op-ca";
const AUTHENTICATION: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
const OURS: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta2.custom.metrics.k8s.io";
const THEIRS: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.custom.metrics.k8s.io";
const GROUP: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const GITHUB: &str =
    "/apis/custom.metrics.k8s.io/v1beta2/namespaces/team-a/mcpfleets.mcpfleet.io/github/mcp_desired_replicas";
const USER: &str = "system:serviceaccount:sys:mcp-fleet-gateway";
const HPA: &[(&str, &str)] =
    &[("x-remote-user", "system:serviceaccount:kube-system:horizontal-pod-autoscaler")];

/// The same as text.
fn time() -> String {
    jiff::Timestamp::from_millisecond(*NOW).unwrap().to_string()
}

/// A CA of the aggregation layer.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A client certificate with its key.
type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn ca() -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "front-proxy-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { pem, issuer: Issuer::new(params, key) }
}

impl Ca {
    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        (signed.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn trusted(&self, stub: &Stub) {
        trust(stub, &self.pem);
    }
}

fn trust(stub: &Stub, pem: &str) {
    let data = json!({
        "requestheader-client-ca-file": pem,
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
    });
    stub.put(AUTHENTICATION, json!({"metadata": {"namespace": "kube-system"}, "data": data}));
}

/// The port, and everything around it.
struct Port {
    stub: Stub,
    front_proxy: Ca,
    board: Arc<Board>,
    readiness: Readiness,
    state: watch::Receiver<ApiState>,
    address: SocketAddr,
    /// What clients call it.
    host: &'static str,
    /// In ms since the Unix epoch.
    wall: Arc<AtomicI64>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

fn value(desired: i32, sampled_at: i64) -> Published {
    let utilization = 1.12;
    Published::Value(Number { desired, utilization, sampled_at, window_seconds: 60, max_age_seconds: 30 })
}

fn reviews(review: &Value) -> (u16, Value) {
    if review["kind"] == "TokenReview" {
        let user = json!({"username": USER});
        let good = review["spec"]["token"] == "good";
        return (201, json!({"authenticated": good, "user": user, "audiences": ["mcp-fleet-operator"]}));
    }
    (201, json!({"allowed": review["spec"]["user"] == HPA[0].1, "reason": "not in the test's list"}))
}

async fn start(leads: bool) -> Port {
    start_with(leads, Stub::answering(reviews), ca()).await
}

async fn start_with(leads: bool, stub: Stub, front_proxy: Ca) -> Port {
    start_as(leads, stub, front_proxy, |_| {}).await
}

async fn start_as(leads: bool, stub: Stub, front_proxy: Ca, change: impl FnOnce(&mut Config)) -> Port {
    front_proxy.trusted(&stub);
    let board = Arc::new(Board::default());
    board.set(FleetKey::new("team-a", "github"), value(7, *NOW));
    board.set(FleetKey::new("team-a", "old"), value(7, *NOW - 31_000));
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        namespace: "sys".into(),
        pod_name: "op-0".into(),
        metrics_api_service: Some("op-api".into()),
        load_service: Some("op-load".into()),
        ca_config_map: "op-ca".into(),
        gateway_user: Some(USER.into()),
        audience: "mcp-fleet-operator".into(),
        load_token_file: None,
    };
    change(&mut config);
    let host = if config.metrics_api_service.is_some() { "op-api.sys.svc" } else { "op-load.sys.svc" };
    let wall = Arc::new(AtomicI64::new(*NOW));
    let clock = Arc::clone(&wall);
    let term = leads.then(|| Instant::now() + Duration::from_secs(3600));
    let parts = Parts {
        client: stub.client(),
        leadership: Leadership::fixed(term),
        board: Arc::clone(&board),
        ledger: Arc::default(),
        urgent: Arc::default(),
        clock: Arc::new(move || Now { mono: 0, wall: clock.load(SeqCst) }),
        labels: Arc::new(|key| Some(BTreeMap::from([("app".to_owned(), key.name.clone())]))),
        dropped: SamplesDropped::default(),
    };
    let readiness = Readiness::default();
    let api = MetricsApi::bind(config, parts, &readiness, &mut Registry::default()).await.unwrap();
    let (address, state, stop) = (api.local_addr().unwrap(), api.state(), CancellationToken::new());
    let running = tokio::spawn(api.run(stop.clone()));
    let port = Port { stub, front_proxy, board, readiness, state, address, host, wall, stop, running };
    port.until("the certificate", || port.published().is_some()).await;
    port
}

impl Port {
    /// Waits for something, for ten seconds of the real clock.
    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..1000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain for {what}; state {:?}", *self.state.borrow());
    }

    fn published(&self) -> Option<String> {
        Some(self.stub.get(MAP)?["data"]["op-0.crt"].as_str()?.to_owned())
    }

    /// As the aggregator does when it has reached the API.
    fn reached(&self) {
        let mut service = self.stub.get(OURS).unwrap();
        service["status"] = json!({"conditions": [{"type": "Available", "status": "True"}]});
        self.stub.put(OURS, service);
    }

    async fn connect(&self, identity: Option<Identity>, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.connect_trusting(&self.published().unwrap(), identity, protocol).await.unwrap()
    }

    async fn connect_trusting(
        &self,
        published: &str,
        identity: Option<Identity>,
        protocol: &[u8],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(published.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(self.host).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// A connection of its own, HTTP/1.1.
    async fn ask(&self, identity: Option<Identity>, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
        let stream = self.connect(identity, b"http/1.1").await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        read(sender.send_request(request).await.unwrap()).await
    }

    async fn aggregator(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        let identity = self.front_proxy.identity("front-proxy-client");
        self.ask(Some(identity), get(path, headers)).await
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.running).await.unwrap().unwrap();
    }
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    request("GET", path, headers, "")
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, "op-api.sys.svc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).unwrap()
}

async fn read(reply: http::Response<hyper::body::Incoming>) -> (StatusCode, Value) {
    let status = reply.status();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    let text = || Value::from(String::from_utf8_lossy(&body).into_owned());
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
}

const MASTERS: &[(&str, &str)] =
    &[("x-remote-user", "system:kube-aggregator"), ("x-remote-group", "system:masters")];
const ALONE: &[(&str, &str)] = &[("x-remote-user", "system:kube-aggregator")];

#[tokio::test]
async fn every_url_answers_as_the_aggregation_layer_expects() {
    let port = start(true).await;
    port.until("trust", || port.stub.get(OURS).is_some()).await;
    for (path, headers, code, kind) in [
        ("/apis", MASTERS, 200, "APIGroupList"),
        ("/apis", ALONE, 200, "APIGroupList"),
        ("/apis/custom.metrics.k8s.io", MASTERS, 200, "APIGroup"),
        (GROUP, MASTERS, 200, "APIResourceList"),
        (GROUP, ALONE, 200, "APIResourceList"),
        ("/apis/custom.metrics.k8s.io/v1beta1", MASTERS, 404, "Status"),
        ("/api", MASTERS, 404, "Status"),
        (GITHUB, HPA, 200, "MetricValueList"),
        (GITHUB, ALONE, 403, "Status"),
        (GITHUB, MASTERS, 200, "MetricValueList"),
        (&format!("{GITHUB}?metricLabelSelector=a%3Db"), HPA, 404, "Status"),
        (&GITHUB.replace("github", "%2A"), HPA, 200, "MetricValueList"),
        (
            &format!("{}?labelSelector=app%3Dgithub", GITHUB.replace("github", "*")),
            HPA,
            200,
            "MetricValueList",
        ),
        (&format!("{}?labelSelector=app%3Dnone", GITHUB.replace("github", "*")), HPA, 404, "Status"),
        (&format!("{}?labelSelector=(", GITHUB.replace("github", "*")), HPA, 400, "Status"),
        (&GITHUB.replace("github", "absent"), HPA, 404, "Status"),
        (&GITHUB.replace("desired_replicas", "other"), HPA, 404, "Status"),
        (&GITHUB.replace("github", "old"), HPA, 503, "Status"),
    ] {
        let (seen, body) = port.aggregator(path, headers).await;
        assert_eq!((seen.as_u16(), body["kind"].as_str()), (code, Some(kind)), "{path}: {body}");
        if kind == "Status" {
            assert_eq!(
                (body["status"].as_str(), body["code"].as_u64()),
                (Some("Failure"), Some(code.into()))
            );
        }
    }
    for path in ["/openapi/v2", "/openapi/v3"] {
        let (code, body) = port.aggregator(path, &[("x-remote-user", "system:aggregator")]).await;
        assert_eq!((code.as_u16(), &body["paths"]), (200, &json!({})), "{path}");
    }
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(port.ask(None, get(path, &[])).await, (StatusCode::OK, "ok".into()));
    }
    let identity = || Some(port.front_proxy.identity("front-proxy-client"));
    for method in ["POST", "DELETE", "PUT", "PATCH"] {
        let (code, _) = port.ask(identity(), request(method, GITHUB, HPA, "{}")).await;
        assert_eq!(code, 405, "{method}");
    }
    port.end().await;
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let port = start(true).await;
    let other = ca();
    let forged = [MASTERS, HPA].concat();
    for (identity, headers, code) in [
        (None, MASTERS, 401),
        (None, &forged, 401),
        (Some(other.identity("front-proxy-client")), MASTERS, 401),
        (Some(port.front_proxy.identity("somebody")), MASTERS, 401),
        (Some(port.front_proxy.identity("front-proxy-client")), &[][..], 401),
        (Some(port.front_proxy.identity("front-proxy-client")), MASTERS, 200),
    ] {
        for path in [GITHUB, GROUP, "/apis", "/openapi/v2", "/nothing"] {
            let code = if path == "/nothing" && code == 200 { 404 } else { code };
            let (seen, body) = port
                .ask(identity.as_ref().map(|(c, k)| (c.clone(), k.clone_key())), get(path, headers))
                .await;
            assert_eq!(seen.as_u16(), code, "{path}: {body}");
        }
    }
    port.end().await;
}

#[tokio::test]
async fn the_ca_of_the_aggregation_layer_changes_under_open_connections() {
    let port = start(true).await;
    let next = ca();
    let open = async |ca: &Ca| {
        let stream = port.connect(Some(ca.identity("front-proxy-client")), b"h2").await;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    };
    let (mut old, mut new) = (open(&port.front_proxy).await, open(&next).await);
    let mut both = async |expected: (u16, u16)| {
        for _ in 0..500 {
            let first = read(old.send_request(get(GROUP, MASTERS)).await.unwrap()).await.0.as_u16();
            let second = read(new.send_request(get(GROUP, MASTERS)).await.unwrap()).await.0.as_u16();
            if (first, second) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {expected:?}");
    };
    both((200, 401)).await;
    trust(&port.stub, &format!("{}{}", port.front_proxy.pem, next.pem));
    both((200, 200)).await;
    next.trusted(&port.stub);
    both((401, 200)).await;
    trust(&port.stub, "broken");
    both((401, 401)).await;
    port.end().await;
}

#[tokio::test]
async fn http_2_answers_many_at_once() {
    let port = start(true).await;
    port.until("trust", || port.stub.get(OURS).is_some()).await;
    let stream = port.connect(Some(port.front_proxy.identity("front-proxy-client")), b"h2").await;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let before = port.stub.n();
    let answers = (0..100).map(|_| {
        let mut sender = sender.clone();
        async move { read(sender.send_request(get(GITHUB, HPA)).await.unwrap()).await.0 }
    });
    let answers = futures::future::join_all(answers).await;
    assert!(answers.iter().all(|code| *code == 200), "{answers:?}");
    assert_eq!(port.stub.n(), before + 1, "one review for all");
    port.end().await;
}

#[tokio::test]
async fn stale_and_unknown_become_503_and_come_back() {
    let port = start(true).await;
    port.until("trust", || port.stub.get(OURS).is_some()).await;
    let key = FleetKey::new("team-a", "github");
    for (published, code) in [
        (value(7, *NOW), 200),
        (Published::Unknown("all gateways are silent".into()), 503),
        (value(8, *NOW - 30_000), 200),
        (value(8, *NOW - 30_001), 503),
        (value(9, *NOW), 200),
    ] {
        port.board.set(key.clone(), published);
        assert_eq!(port.aggregator(GITHUB, HPA).await.0.as_u16(), code);
    }
    port.board.retain(|_| false);
    assert_eq!(port.aggregator(GITHUB, HPA).await.0, 404);
    port.end().await;
}

#[tokio::test]
async fn reports_come_over_the_same_port() {
    let port = start(true).await;
    let report =
        json!({"version": 1, "gateway": "gw-0", "epoch": 1, "sequence": 1, "time": time(), "fleets": []});
    for (token, code) in [("good", 202), ("bad", 401)] {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        let (seen, body) = port.ask(None, request("POST", "/v1/load", &headers, &report.to_string())).await;
        assert_eq!(seen.as_u16(), code, "{body}");
    }
    assert_eq!(port.ask(None, get("/v1/load", &[])).await.0, 405);
    port.end().await;
}

#[tokio::test]
async fn it_is_registered_and_ready_once_it_is_known() {
    let port = start(true).await;
    port.until("the APIService", || port.stub.get(OURS).is_some()).await;
    let service = port.stub.get(OURS).unwrap();
    assert_eq!(service["spec"]["service"], json!({"namespace": "sys", "name": "op-api", "port": 443}));
    let own = port.published().unwrap();
    port.until("the union", || port.stub.get(MAP).unwrap()["data"]["ca.crt"] == own.as_str()).await;
    port.until("readiness", || port.readiness.is_ready()).await;
    assert!(matches!(&*port.state.borrow(), ApiState::NotServing(_)));
    port.reached();
    port.until("the state", || *port.state.borrow() == ApiState::Serving).await;

    let mut drifted = port.stub.get(OURS).unwrap();
    drifted["spec"]["caBundle"] = "".into();
    port.stub.put(OURS, drifted);
    port.until("the mended bundle", || {
        port.stub.get(OURS).unwrap()["spec"]["caBundle"] == service["spec"]["caBundle"]
    })
    .await;
    port.end().await;
}

#[tokio::test]
async fn certificates_are_renewed_without_a_restart() {
    let port = start(true).await;
    port.until("the APIService", || port.stub.get(OURS).is_some()).await;
    let serial = async |trusted: &str| {
        let stream = port.connect_trusting(trusted, None, b"http/1.1").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = port.published().unwrap();
    let before = serial(&first).await;
    port.wall.fetch_add(12 * 3_600_000, SeqCst);
    port.until("the next certificate", || port.published().unwrap() != first).await;
    let second = port.published().unwrap();
    let after = serial(&first).await;
    assert_ne!(before, after, "who knows the first authority accepts what is served now");
    assert_eq!(serial(&second).await, after);
    let bundle = base64_of(&second);
    port.until("the bundle", || port.stub.get(OURS).unwrap()["spec"]["caBundle"] == bundle.as_str()).await;
    assert!(port.readiness.is_ready());
    port.end().await;
}

fn base64_of(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

#[tokio::test]
async fn a_standby_publishes_its_certificate_and_nothing_else() {
    let stub = Stub::answering(reviews);
    let bundle = "bm9uZQ==";
    let spec = json!({"group": "custom.metrics.k8s.io", "version": "v1beta2", "groupPriorityMinimum": 100, "versionPriority": 200,
        "caBundle": bundle, "service": {"namespace": "sys", "name": "op-api", "port": 443}});
    stub.put(OURS, json!({"metadata": {}, "spec": spec}));
    let port = start_with(false, stub, ca()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let map = port.stub.get(MAP).unwrap();
    assert_eq!(map["data"].as_object().unwrap().len(), 1, "{map}");
    assert_eq!(port.stub.get(OURS).unwrap()["spec"]["caBundle"], bundle);
    assert_eq!(port.readiness.missing(), ["the API server to know this replica's certificate"]);
    port.end().await;
}

#[tokio::test]
async fn a_strangers_group_is_left_to_them() {
    let stub = Stub::answering(reviews);
    let spec = json!({"group": "custom.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "service": {"namespace": "monitoring", "name": "adapter"}});
    stub.put(THEIRS, json!({"metadata": {}, "spec": spec}));
    let port = start_with(true, stub, ca()).await;
    let theirs = ApiState::OwnedByOther(vec!["monitoring/adapter".into()]);
    port.until("the state", || *port.state.borrow() == theirs).await;
    assert!(port.stub.get(OURS).is_none());
    port.until("readiness", || port.readiness.is_ready()).await;
    port.stub.remove(THEIRS);
    port.until("ours", || port.stub.get(OURS).is_some()).await;

    port.stub.put(THEIRS, json!({"metadata": {}, "spec": spec}));
    port.until("the state again", || *port.state.borrow() == theirs).await;
    assert!(port.stub.get(OURS).is_some(), "fleets leave first");
    assert!(port.stub.get(&format!("{APISERVICES}/v1beta1.custom.metrics.k8s.io")).is_some());
    port.end().await;
}

#[tokio::test]
async fn what_cleanup_removes_does_not_come_back() {
    let port = start(true).await;
    port.until("ours", || port.stub.get(OURS).is_some()).await;
    let mut said = Vec::new();
    let args = || cleanup::CleanupArgs {
        namespace: "sys".into(),
        metrics_api_service: Some("op-api".into()),
        ca_config_map: Some("op-ca".into()),
    };
    // The mark is in real time, and the port's clock stands still: so it is in the past, or in the future.
    let client = port.stub.client();
    let mut map = port.stub.get(MAP).unwrap();
    map["metadata"]["annotations"]["mcpfleet.io/retired-at"] = time().into();
    port.stub.put(MAP, map);
    port.until("the state", || {
        *port.state.borrow() == ApiState::NotServing("this operator is being removed".into())
    })
    .await;
    cleanup::clean(&client, args(), |line| said.push(line.to_owned())).await.unwrap();
    assert_eq!(
        said[1..],
        [
            "APIService v1beta2.custom.metrics.k8s.io: deleted".to_owned(),
            "ConfigMap sys/op-ca: deleted".to_owned()
        ]
    );
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(port.stub.get(OURS).is_none() && port.stub.get(MAP).is_none());
    let spec = json!({"group": "custom.metrics.k8s.io", "version": "v1beta2", "groupPriorityMinimum": 1, "versionPriority": 1,
        "service": {"namespace": "monitoring", "name": "adapter"}});
    port.stub.put(OURS, json!({"metadata": {}, "spec": spec}));
    said.clear();
    cleanup::clean(&client, args(), |line| said.push(line.to_owned())).await.unwrap();
    assert!(said[0].ends_with("belongs to somebody else, left alone"), "{said:?}");
    assert!(port.stub.get(OURS).is_some());
    port.end().await;
}

#[tokio::test]
async fn an_operator_of_one_namespace_takes_reports_and_nothing_else() {
    let file = std::env::temp_dir().join(format!("mcp-fleet-shared-{:08x}", rand::random::<u32>()));
    std::fs::write(&file, "secret").unwrap();
    let port = start_as(true, Stub::answering(reviews), ca(), |config| {
        config.metrics_api_service = None;
        config.gateway_user = None;
        config.load_token_file = Some(file.clone());
    })
    .await;
    assert_eq!(*port.state.borrow(), ApiState::Disabled);
    assert!(port.readiness.is_ready());
    for path in ["/apis", GROUP, GITHUB, "/openapi/v2"] {
        assert_eq!(port.aggregator(path, MASTERS).await.0, 404, "{path}");
    }
    let report =
        json!({"version": 1, "gateway": "gw-0", "epoch": 1, "sequence": 1, "time": time(), "fleets": []});
    for (token, code) in [("secret", 202), ("good", 401)] {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        let (seen, body) = port.ask(None, request("POST", "/v1/load", &headers, &report.to_string())).await;
        assert_eq!(seen.as_u16(), code, "{body}");
    }
    let union = || port.stub.get(MAP).is_some_and(|map| map["data"]["ca.crt"] == map["data"]["op-0.crt"]);
    port.until("the union for the gateways", union).await;
    assert!(port.stub.get(OURS).is_none());
    assert_eq!(port.stub.n(), 0, "no review without the right to it");
    std::fs::remove_file(&file).unwrap();
    port.end().await;
}

#[tokio::test]
async fn flags_that_let_nobody_report_are_refused() {
    let stub = Stub::answering(reviews);
    let parts = Parts {
        client: stub.client(),
        leadership: Leadership::fixed(None),
        board: Arc::default(),
        ledger: Arc::default(),
        urgent: Arc::default(),
        clock: Arc::new(|| Now { mono: 0, wall: *NOW }),
        labels: Arc::new(|_| None),
        dropped: SamplesDropped::default(),
    };
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        namespace: "sys".into(),
        pod_name: "op-0".into(),
        metrics_api_service: None,
        load_service: Some("op-load".into()),
        ca_config_map: "op-ca".into(),
        gateway_user: None,
        audience: "mcp-fleet-operator".into(),
        load_token_file: None,
    };
    let refused = MetricsApi::bind(config, parts, &Readiness::default(), &mut Registry::default()).await;
    assert!(refused.err().unwrap().to_string().contains("--gateway-service-account"));
}
