//! A custom metrics API of the test's own, in the cluster's network: discovery and one kind of question, in JSON
//! alone. It answers what a function says, and writes down who asked what when.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use libtest_mimic::Failed;
use mcp_fleet_cluster::Cluster;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::support::wait;

/// The group, in the version that wins over an older one of somebody else.
pub const GROUP_VERSION: &str = "custom.metrics.k8s.io/v1beta2";
/// The registration of that version.
pub const API_SERVICE: &str = "v1beta2.custom.metrics.k8s.io";
/// Where its Service is.
const NAMESPACE: &str = "default";

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A quantity.
    Value(String),
    /// An error with this HTTP status.
    Error(u16),
}

/// One question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When the answer was made, since 1970.
    pub at: Duration,
    /// What the asker would like to read.
    pub accept: String,
    /// What it got.
    pub answer: Answer,
}

/// Questions by `namespace/name`, oldest first.
pub type Book = Arc<Mutex<BTreeMap<String, Vec<Asked>>>>;

/// A running server. It ends with the value.
pub struct MetricsServer {
    /// All questions for a metric so far.
    pub book: Book,
    task: JoinHandle<()>,
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Now, since 1970: as the audit log counts.
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl MetricsServer {
    /// Starts it, registers it as `service` and waits until the API server calls it available. `answer` gets the
    /// namespace, the name and the metric.
    pub async fn start(
        cluster: &Cluster,
        service: &str,
        answer: impl Fn(&str, &str, &str) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, Failed> {
        let listener = cluster.listen(0)?;
        let port = listener.local_addr()?.port();
        let (config, authority) = certificate(cluster, service)?;
        let book = Book::default();
        let task = tokio::spawn(serve(listener, config, Arc::clone(&book), Arc::new(answer)));
        let server = Self { book, task };
        cluster.apply(&registration(cluster, service, port, &authority).to_string())?;
        wait::until("the test's metrics API", wait::LIMIT, async || {
            let path = format!("/apis/{GROUP_VERSION}");
            cluster.kubectl_ok(["get", "--raw", &path]).map(drop).map_err(|e| e.to_string())
        })
        .await?;
        Ok(server)
    }
}

/// A certificate that signs itself, and its PEM text.
fn certificate(cluster: &Cluster, service: &str) -> Result<(ServerConfig, String), Failed> {
    let file = |kind: &str| cluster.scratch().join(format!("{service}.{kind}"));
    let name = format!("subjectAltName=DNS:{service}.{NAMESPACE}.svc");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2", "-subj", "/CN=metrics", "-addext", &name]);
    let output = openssl.arg("-keyout").arg(file("key")).arg("-out").arg(file("crt")).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let certificates = CertificateDer::pem_file_iter(file("crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(file("key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    Ok((config, std::fs::read_to_string(file("crt"))?))
}

fn registration(cluster: &Cluster, service: &str, port: u16, authority: &str) -> Value {
    let meta = json!({"name": service, "namespace": NAMESPACE});
    let of_service =
        json!({"name": service, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": service}});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta,
         "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": of_service,
         "addressType": "IPv4", "ports": [{"name": "https", "port": port}],
         "endpoints": [{"addresses": [cluster.node_ip()], "conditions": {"ready": true}}]},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": API_SERVICE},
         "spec": {"group": "custom.metrics.k8s.io", "version": "v1beta2", "groupPriorityMinimum": 100,
                  "versionPriority": 200, "caBundle": STANDARD.encode(authority),
                  "service": {"name": service, "namespace": NAMESPACE, "port": 443}}},
    ]})
}

type Speaker = Arc<dyn Fn(&str, &str, &str) -> Answer + Send + Sync>;

async fn serve(listener: TcpListener, config: ServerConfig, book: Book, speaker: Speaker) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    let Ok(listener) = listener else { return };
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (acceptor, book, speaker) = (acceptor.clone(), Arc::clone(&book), Arc::clone(&speaker));
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let response = respond(&request, &book, &*speaker);
                std::future::ready(Ok::<_, std::convert::Infallible>(response))
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

fn respond(
    request: &Request<Incoming>,
    book: &Book,
    speaker: &dyn Fn(&str, &str, &str) -> Answer,
) -> Response<Full<Bytes>> {
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match path[..] {
        ["apis", "custom.metrics.k8s.io", "v1beta2"] => reply(StatusCode::OK, &resources()),
        [
            "apis",
            "custom.metrics.k8s.io",
            "v1beta2",
            "namespaces",
            namespace,
            "mcpfleets.mcpfleet.io",
            name,
            metric,
        ] => {
            let answer = speaker(namespace, name, metric);
            let response = match &answer {
                Answer::Value(value) => reply(StatusCode::OK, &metric_value(namespace, name, metric, value)),
                Answer::Error(code) => failure(*code),
            };
            let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok());
            let asked = Asked { at: now(), accept: accept.unwrap_or_default().to_owned(), answer };
            book.lock().entry(format!("{namespace}/{name}")).or_default().push(asked);
            response
        }
        _ => failure(404),
    }
}

fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": [
        {"name": "mcpfleets.mcpfleet.io/load", "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"]},
    ]})
}

fn metric_value(namespace: &str, name: &str, metric: &str, value: &str) -> Value {
    json!({"kind": "MetricValueList", "apiVersion": GROUP_VERSION, "metadata": {}, "items": [{
        "describedObject": {"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "namespace": namespace, "name": name},
        "metric": {"name": metric, "selector": null}, "timestamp": "2026-01-01T00:00:00Z", "value": value,
    }]})
}

/// Without `Retry-After`: with it the controller-manager's client would ask again itself, and its worker wait.
fn failure(code: u16) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = if code == 404 { "NotFound" } else { "ServiceUnavailable" };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": "the test says so"});
    reply(status, &body)
}

fn reply(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
