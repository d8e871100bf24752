//! Sends reports: one POST to each address of each receiver, all at once, at most a second each.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::{Either, select};
use http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::gateway::metrics::{Done, Metrics};

/// Longest time for one address, from the connection to the answer's head.
const PATIENCE: Duration = Duration::from_secs(1);
/// Addresses of one receiver that get the report.
const MAX_ADDRESSES: usize = 16;
/// Longest token file, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;

/// Who gets reports.
#[derive(Clone)]
pub struct Receivers {
    all: Vec<Receiver>,
    token_file: Option<PathBuf>,
    tls: Option<TlsConnector>,
}

#[derive(Clone, Debug)]
struct Receiver {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

/// A receiver that cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum ReceiversError {
    /// Not a URL of ours.
    #[error("'{0}' is no receiver of load reports; write a URL such as https://host:port/path")]
    Url(String),
    /// https without a CA.
    #[error("the receiver '{0}' needs a file with the certificates of its CA")]
    NoCa(String),
    /// The CA file.
    #[error("failed to read the CA certificates of the receivers from {path}: {reason}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Receivers {
    /// `urls`: `http://` or `https://`. `token_file`: a bearer token, read anew for each report, since projected
    /// tokens are rotated. `ca_file`: PEM, needed for https.
    pub fn new(
        urls: &[String],
        token_file: Option<PathBuf>,
        ca_file: Option<&Path>,
    ) -> Result<Self, ReceiversError> {
        let all = urls.iter().map(|url| receiver(url)).collect::<Result<Vec<_>, _>>()?;
        let tls = match (all.iter().find(|r| r.tls), ca_file) {
            (Some(_), Some(path)) => Some(connector(path)?),
            (Some(receiver), None) => return Err(ReceiversError::NoCa(receiver.uri.to_string())),
            (None, _) => None,
        };
        Ok(Self { all, token_file, tls })
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn token(&self) -> Option<HeaderValue> {
        use std::io::Read as _;
        let mut text = String::new();
        std::fs::File::open(self.token_file.as_ref()?)
            .ok()?
            .take(MAX_TOKEN)
            .read_to_string(&mut text)
            .ok()?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn receiver(url: &str) -> Result<Receiver, ReceiversError> {
    let wrong = || ReceiversError::Url(url.chars().take(200).collect());
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong()),
    };
    let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(Receiver { uri, host, port, tls })
}

fn connector(path: &Path) -> Result<TlsConnector, ReceiversError> {
    let wrong = |reason: String| ReceiversError::Ca { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
        roots.add(certificate.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it has no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What was said of each receiver last, so that each change is logged once.
#[derive(Default)]
pub(super) struct Pushes {
    failing: HashMap<String, String>,
}

impl Pushes {
    /// Sends to all, and waits for all.
    pub(super) async fn send(&mut self, receivers: &Receivers, json: Bytes, metrics: &Metrics) {
        let token = receivers.token();
        let sent = receivers.all.iter().map(|receiver| {
            let (json, token) = (json.clone(), token.clone());
            async move {
                (
                    receiver.uri.to_string(),
                    to_all(receiver, receivers.tls.as_ref(), &json, token.as_ref()).await,
                )
            }
        });
        for (receiver, results) in futures::future::join_all(sent).await {
            let failure = results.iter().find_map(|r| r.as_ref().err().cloned());
            for result in &results {
                metrics.reports.inc(if result.is_ok() { Done::Ok } else { Done::Failed });
            }
            self.tell(receiver, failure);
        }
    }

    fn tell(&mut self, receiver: String, failure: Option<String>) {
        match failure {
            None if self.failing.remove(&receiver).is_some() => {
                tracing::info!(receiver, "load reports arrive again");
            }
            None => {}
            Some(error) if self.failing.get(&receiver) == Some(&error) => {}
            Some(error) => {
                tracing::warn!(receiver, error, "load reports do not arrive");
                self.failing.insert(receiver, error);
            }
        }
    }
}

async fn to_all(
    receiver: &Receiver,
    tls: Option<&TlsConnector>,
    json: &Bytes,
    token: Option<&HeaderValue>,
) -> Vec<Result<(), String>> {
    let looked = timeout(PATIENCE, lookup_host((receiver.host.as_str(), receiver.port))).await;
    let addresses: Vec<SocketAddr> = match looked {
        Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect(),
        Ok(Err(error)) => return vec![Err(format!("failed to look up {}: {error}", receiver.host))],
        Err(_) => return vec![Err(format!("failed to look up {} in time", receiver.host))],
    };
    let sent = addresses.into_iter().map(|address| async move {
        match timeout(PATIENCE, post(receiver, address, tls, json.clone(), token)).await {
            Ok(result) => result,
            Err(_) => Err("no answer in time".to_owned()),
        }
    });
    futures::future::join_all(sent).await
}

async fn post(
    receiver: &Receiver,
    address: SocketAddr,
    tls: Option<&TlsConnector>,
    json: Bytes,
    token: Option<&HeaderValue>,
) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|e| format!("failed to connect: {e}"))?;
    let mut request = Request::post(receiver.uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(header::HOST, receiver.uri.authority().map_or("", |a| a.as_str()))
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token);
    }
    let request = request.body(Full::new(json)).map_err(|e| e.to_string())?;
    match tls.filter(|_| receiver.tls) {
        None => exchange(stream, request).await,
        Some(tls) => {
            let name = ServerName::try_from(receiver.host.clone()).map_err(|e| e.to_string())?;
            let stream = tls.connect(name, stream).await.map_err(|e| format!("failed to talk TLS: {e}"))?;
            exchange(stream, request).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(), String> {
    let failed = |e: hyper::Error| format!("failed to talk HTTP: {e}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answer = match select(std::pin::pin!(sender.send_request(request)), std::pin::pin!(connection)).await
    {
        Either::Left((answer, _)) => answer.map_err(failed)?,
        // It may have answered and closed at once.
        Either::Right((_, answer)) => answer.await.map_err(failed)?,
    };
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(format!("it answered {}", status.as_u16())) }
}
