//! The TLS listener: HTTP/1.1 and HTTP/2, every wait with an end, every number with a bound.
//!
//! Client certificates are asked for and not demanded: probes and gateways have none. The handshake proves that the
//! peer holds the key of what it shows; whose word that makes it is decided for each request (`authn`), since the
//! CAs change while connections are open.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{
        WebPkiSupportedAlgorithms, ring::default_provider, verify_tls12_signature, verify_tls13_signature,
    },
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{authn::Peer, certs::Serving, endpoints::Endpoints, metrics::ApiMetrics};

/// Connections at the same time. API servers keep a few each, gateways one each.
const MAX_CONNECTIONS: usize = 1024;
/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for a request's head; on a kept connection, for the next request.
const HEAD: Duration = Duration::from_secs(90);
/// Silence after which a connection is asked whether it lives, and how long it may think.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(10);
/// Most requests at the same time on one HTTP/2 connection. API servers send everybody's over one.
const MAX_STREAMS: u32 = 250;
/// Largest request head, in bytes: tokens and groups are long.
const MAX_HEAD: usize = 64 * 1024;
/// How long open requests may take once the process wants to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener.
pub(super) struct Server {
    pub(super) listener: TcpListener,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) metrics: ApiMetrics,
}

/// TLS as this port speaks it: 1.2 and 1.3, no early data, which would replay requests.
pub(super) fn tls(serving: Arc<Serving>, asks_for_certificates: bool) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier =
        AnyHolder { asks: asks_for_certificates, algorithms: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl Server {
    /// Answers until `stop`, then lets open requests end for five seconds.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Self { listener, tls, endpoints, metrics } = self;
        let acceptor = TlsAcceptor::from(tls);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        // The semaphore is never closed, so `acquire_owned` cannot fail.
        while let Some(Ok(slot)) = stop.run_until_cancelled(Arc::clone(&slots).acquire_owned()).await {
            let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection of the metrics API");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, endpoints, metrics, stop) =
                (acceptor.clone(), Arc::clone(&endpoints), metrics.clone(), stop.clone());
            connections.spawn(async move {
                let _slot = slot;
                metrics.connections.inc();
                match handshake(&acceptor, stream).await {
                    Ok(stream) => serve(stream, endpoints, stop).await,
                    Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                }
                metrics.connections.dec();
            });
        }
        drop(listener);
        connections.close();
        // Whoever is slower is cut off by the end of the process.
        let _ = timeout(STOP_TIMEOUT, connections.wait()).await;
    }
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    // Answers are small and wanted at once.
    stream.set_nodelay(true)?;
    timeout(HANDSHAKE, acceptor.accept(stream)).await?
}

async fn serve(stream: TlsStream<TcpStream>, endpoints: Arc<Endpoints>, stop: CancellationToken) {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Arc::new(Peer::new(chain.iter().map(|c| c.clone().into_owned()).collect()));
    let service = service_fn(move |request: Request<Incoming>| {
        let (endpoints, peer) = (Arc::clone(&endpoints), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(endpoints.answer(&peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection of the metrics API failed");
    }
}

/// Takes any client certificate whose key the peer holds. Whether it means something is `authn`'s to say.
#[derive(Debug)]
struct AnyHolder {
    asks: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyHolder {
    fn offer_client_auth(&self) -> bool {
        self.asks
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
