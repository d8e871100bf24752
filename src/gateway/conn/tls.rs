//! TLS of the client side: certificates by host name, swapped while running.
//!
//! Files are read here and nowhere on a data thread: [`Certificates::load`] at the start,
//! [`Certificates::reload`] on the control thread. A reload that fails changes nothing.
//! TLS 1.2 and 1.3 with ring; ALPN offers `h2` and `http/1.1`; no 0-RTT, which would replay POSTs.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::socket;

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(5);

/// One certificate and the names it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Host names, `*.` for one label; empty: for clients that name no other entry's host.
    pub hosts: Vec<String>,
    /// PEM file with the chain, own certificate first.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// Why certificates could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read {path}: {source}; check that it is mounted and readable for this user")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// No certificate in the file.
    #[error("no usable certificate in {path}: {detail}; it must hold PEM blocks `BEGIN CERTIFICATE`")]
    Certificate {
        /// The file.
        path: String,
        /// What the parser said.
        detail: String,
    },
    /// No key in the file.
    #[error("no usable private key in {path}: {detail}; it must hold one unencrypted PEM key")]
    Key {
        /// The file.
        path: String,
        /// What the parser said.
        detail: String,
    },
    /// Certificate and key do not fit.
    #[error("certificate {cert} and key {key} do not work together: {source}; replace both at once")]
    Pair {
        /// The certificate's file.
        cert: String,
        /// The key's file.
        key: String,
        /// Why.
        source: rustls::Error,
    },
    /// Nothing to serve with.
    #[error("TLS needs at least one certificate")]
    Empty,
    /// The provider offers none of the protocol versions.
    #[error("failed to set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// The certificates in use and the acceptor over them; shared by all threads.
#[derive(Debug)]
pub struct Certificates {
    table: Arc<Table>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Table(ArcSwap<Loaded>);

#[derive(Debug)]
struct Loaded {
    entries: Vec<Entry>,
    /// SHA-256 over all files, to see changes whatever the file times say.
    digest: Vec<u8>,
    /// Exact names in lower case.
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// What stands behind `*` of a wildcard, with its dot.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    fallback: Option<Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
}

impl Certificates {
    /// Reads all files; blocks.
    pub fn load(entries: Vec<Entry>) -> Result<Self, TlsError> {
        let table = Arc::new(Table(ArcSwap::from_pointee(Loaded::read(entries)?)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&table) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { table, config: Arc::new(config) })
    }

    /// Reads the files again; blocks. `true`: something has changed and is in use from now on. After an
    /// error the old ones stay.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.replace(self.table.0.load().entries.clone())
    }

    /// As [`Certificates::reload`], with other entries.
    pub fn replace(&self, entries: Vec<Entry>) -> Result<bool, TlsError> {
        let loaded = Loaded::read(entries)?;
        let old = self.table.0.load();
        if old.digest == loaded.digest && old.entries == loaded.entries {
            return Ok(false);
        }
        self.table.0.store(Arc::new(loaded));
        Ok(true)
    }

    /// Looks at the files for ever and takes what changed; for the control thread. A failure is said
    /// once, not at every look.
    pub async fn watch(self: Arc<Self>) {
        let mut said = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let certificates = Arc::clone(&self);
            let Ok(result) = tokio::task::spawn_blocking(move || certificates.reload()).await else { return };
            match result {
                Ok(changed) => {
                    said = None;
                    if changed {
                        tracing::info!("certificates reloaded");
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    if said.as_ref() != Some(&text) {
                        tracing::error!(error = %text, "certificates not reloaded; the old ones stay in use");
                        said = Some(text);
                    }
                }
            }
        }
    }

    /// Shakes hands, within 10 s.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let accepting = TlsAcceptor::from(Arc::clone(&self.config)).accept(tcp);
        match tokio::time::timeout(HANDSHAKE, accepting).await {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream?))),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "TLS handshake took too long")),
        }
    }
}

impl Loaded {
    fn read(entries: Vec<Entry>) -> Result<Self, TlsError> {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        let (mut fallback, mut first) = (None, None);
        for entry in &entries {
            let (cert, key) = (read_file(&entry.cert)?, read_file(&entry.key)?);
            for part in [&cert, &key] {
                digest.update(&(part.len() as u64).to_be_bytes());
                digest.update(part);
            }
            let certified = Arc::new(certified(entry, &cert, &key)?);
            first.get_or_insert_with(|| Arc::clone(&certified));
            for host in &entry.hosts {
                let host = host.to_ascii_lowercase();
                // The first entry that names a host has it.
                match host.strip_prefix('*') {
                    Some(suffix) => {
                        wildcard.entry(suffix.to_owned()).or_insert_with(|| Arc::clone(&certified))
                    }
                    None => exact.entry(host).or_insert_with(|| Arc::clone(&certified)),
                };
            }
            if entry.hosts.is_empty() && fallback.is_none() {
                fallback = Some(certified);
            }
        }
        let first = first.ok_or(TlsError::Empty)?;
        let digest = digest.finish().as_ref().to_vec();
        Ok(Self { entries, digest, exact, wildcard, fallback, first })
    }

    /// The certificate for a name; a client without a name gets the fallback, else the first.
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else { return Some(self.fallback.as_ref().unwrap_or(&self.first).clone()) };
        let name = name.to_ascii_lowercase();
        let by_suffix = || self.wildcard.get(&name[name.find('.')?..]);
        self.exact.get(&name).or_else(by_suffix).or(self.fallback.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Table {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().find(hello.server_name())
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.display().to_string(), source })
}

fn certified(entry: &Entry, cert: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let (cert_path, key_path) = (entry.cert.display().to_string(), entry.key.display().to_string());
    let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => return Err(TlsError::Certificate { path: cert_path, detail: "none found".into() }),
        Err(error) => return Err(TlsError::Certificate { path: cert_path, detail: error.to_string() }),
    };
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| TlsError::Key { path: key_path.clone(), detail: error.to_string() })?;
    CertifiedKey::from_der(chain, key, &default_provider()).map_err(|source| TlsError::Pair {
        cert: cert_path,
        key: key_path,
        source,
    })
}

/// A client's connection, with or without TLS.
#[derive(Debug)]
pub enum Stream {
    /// Cleartext.
    Plain(TcpStream),
    /// TLS; boxed, for its state is a kilobyte.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether ALPN has settled on HTTP/2.
    pub fn is_h2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// The host that the client named in the handshake: where it leads to another fleet than the
    /// request's authority, the answer is 421.
    pub fn server_name(&self) -> Option<&str> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.server_name(),
        }
    }

    /// The TCP socket.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(stream) => match Pin::new(stream).poll_read(cx, buffer) {
                // Many clients leave without TLS's own farewell. HTTP frames every message itself, so
                // nothing can be cut unnoticed: an ordinary end.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                other => other,
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => socket::poll_write_joined(Pin::new(tcp), cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
