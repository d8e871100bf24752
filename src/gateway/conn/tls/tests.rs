//! Certificates by name, reloads good and bad, handshakes on loopback.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const A: (&str, &str) = (include_str!("testdata/a.cert.pem"), include_str!("testdata/a.key.pem"));
const B: (&str, &str) = (include_str!("testdata/b.cert.pem"), include_str!("testdata/b.key.pem"));

/// Files in a directory of their own that goes with the test.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("mcp-fleet-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn put(&self, name: &str, pair: (&str, &str)) {
        std::fs::write(self.0.join(format!("{name}.cert")), pair.0).unwrap();
        std::fs::write(self.0.join(format!("{name}.key")), pair.1).unwrap();
    }

    fn entry(&self, name: &str, hosts: &[&str]) -> Entry {
        Entry {
            hosts: hosts.iter().map(|&host| host.into()).collect(),
            cert: self.0.join(format!("{name}.cert")),
            key: self.0.join(format!("{name}.key")),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn der(pair: (&str, &str)) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap()
}

fn found(certificates: &Certificates, name: Option<&str>) -> Option<CertificateDer<'static>> {
    Some(certificates.table.0.load().find(name)?.cert[0].clone().into_owned())
}

#[test]
fn names_choose_the_certificate() {
    let files = Files::new("names");
    files.put("a", A);
    files.put("b", B);
    let entries = vec![files.entry("a", &["a.example", "*.a.example"]), files.entry("b", &["B.example"])];
    let certificates = Certificates::load(entries.clone()).unwrap();
    for (name, expected) in [
        (Some("a.example"), Some(A)),
        (Some("A.Example"), Some(A)),
        (Some("x.a.example"), Some(A)),
        (Some("x.y.a.example"), None),
        (Some("b.example"), Some(B)),
        (Some("c"), None),
        (None, Some(A)),
    ] {
        assert_eq!(found(&certificates, name), expected.map(der), "{name:?}");
    }
    let mut entries = entries;
    entries.push(files.entry("b", &[]));
    assert!(certificates.replace(entries).unwrap());
    assert_eq!(found(&certificates, Some("c")), Some(der(B)));
    assert_eq!(found(&certificates, None), Some(der(B)));
}

#[test]
fn a_bad_reload_keeps_the_old_and_says_which_file() {
    let files = Files::new("reload");
    files.put("x", A);
    let certificates = Certificates::load(vec![files.entry("x", &[])]).unwrap();
    assert!(!certificates.reload().unwrap());

    let key = files.0.join("x.key").display().to_string();
    let cert = files.0.join("x.cert").display().to_string();
    for (pair, expected) in [
        ((A.0, B.1), vec![&cert, &key]),
        (("", A.1), vec![&cert]),
        ((A.0, "no key"), vec![&key]),
        (("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", A.1), vec![&cert]),
    ] {
        files.put("x", pair);
        let text = certificates.reload().unwrap_err().to_string();
        assert!(expected.iter().all(|path| text.contains(path.as_str())), "{text}");
        assert_eq!(found(&certificates, None), Some(der(A)));
    }
    std::fs::remove_file(files.0.join("x.key")).unwrap();
    assert!(certificates.reload().unwrap_err().to_string().contains(&key));

    files.put("x", B);
    assert!(certificates.reload().unwrap());
    assert_eq!(found(&certificates, None), Some(der(B)));
}

#[test]
fn nothing_to_serve_with_is_an_error() {
    assert!(matches!(Certificates::load(Vec::new()), Err(TlsError::Empty)));
}

/// Takes every certificate: what is tested is which one comes.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn handshakes_carry_name_and_protocol_and_a_bare_close_is_an_end() {
    let files = Files::new("shake");
    files.put("a", A);
    files.put("b", B);
    let certificates =
        Certificates::load(vec![files.entry("a", &["a.example"]), files.entry("b", &["b.example"])]).unwrap();
    for (name, alpn, pair) in [("a.example", "h2", A), ("b.example", "http/1.1", B)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (accepted, connected) = tokio::join!(
            async { certificates.accept(listener.accept().await.unwrap().0).await.unwrap() },
            connector.connect(ServerName::try_from(name).unwrap(), tcp),
        );
        let (mut server, mut client) = (accepted, connected.unwrap());
        assert_eq!(client.get_ref().1.peer_certificates().unwrap()[0], der(pair));
        assert_eq!(server.server_name(), Some(name));
        assert_eq!(server.is_h2(), alpn == "h2");
        client.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        // Without close_notify.
        client.get_mut().0.shutdown().await.unwrap();
        assert_eq!(server.read(&mut got).await.unwrap(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_handshake_ends_after_ten_seconds() {
    let files = Files::new("silent");
    files.put("a", A);
    let certificates = Certificates::load(vec![files.entry("a", &[])]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let start = tokio::time::Instant::now();
    let error = certificates.accept(listener.accept().await.unwrap().0).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(start.elapsed() >= HANDSHAKE && start.elapsed() < HANDSHAKE + Duration::from_secs(1));
}
