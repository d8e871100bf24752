//! Who gets load reports, and what is needed to be believed there: a bearer token, and the CA of the receivers.
//! Both are files that others write and change while this process runs, and that may come later than it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{io::AsyncReadExt as _, time::interval};
use tokio_rustls::TlsConnector;

/// How often the CA file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Most certificates of one key of a ConfigMap.
const MAX_CAS: usize = 64;
/// Longest token or CA file, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Who gets reports.
#[derive(Clone)]
pub struct Receivers {
    pub(super) all: Vec<Receiver>,
    pub(super) access: Arc<Access>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    pub(super) uri: Uri,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// What all need.
#[derive(Default)]
pub(super) struct Access {
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    /// Trusts what the CA file, or who watches it, said last; `None`: there was no good one yet.
    connector: ArcSwapOption<Trust>,
    /// What was told to [`Authority::learn`]; from then on the file does not count.
    learnt: Mutex<HashSet<CertificateDer<'static>>>,
}

/// Tells the couriers whom to trust, where that is known sooner than from a file.
#[derive(Clone)]
pub struct Authority(Arc<Access>);

/// Trust in one version of the CA file. A connection belongs to the one it was made with.
pub(super) struct Trust(pub(super) TlsConnector);

/// A receiver that cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum ReceiversError {
    /// Not a URL of ours.
    #[error("'{0}' is no receiver of load reports; write a URL such as https://host:port/path")]
    Url(String),
    /// https without a CA.
    #[error(
        "the receiver '{0}' needs a file with the certificates of its CA; name it with --reports-ca-file"
    )]
    NoCa(String),
}

impl Receivers {
    /// `urls`: `http://` or `https://`. `token_file`: a bearer token, read anew for each report, since projected
    /// tokens are rotated. `ca_file`: PEM, needed for https; it may come later, and change.
    pub fn new(
        urls: &[String],
        token_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, ReceiversError> {
        let all = urls.iter().map(|url| receiver(url)).collect::<Result<Vec<_>, _>>()?;
        if let (Some(receiver), None) = (all.iter().find(|r| r.tls), &ca_file) {
            return Err(ReceiversError::NoCa(receiver.uri.to_string()));
        }
        Ok(Self { all, access: Arc::new(Access { token_file, ca_file, ..Access::default() }) })
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// For who watches the CA's certificates.
    pub fn authority(&self) -> Authority {
        Authority(Arc::clone(&self.access))
    }
}

impl Authority {
    /// These certificates are trusted, and no others. What is none is left out; if none is left, all stays as it is.
    pub fn learn<'a>(&self, pems: impl Iterator<Item = &'a str>) {
        let certificates: HashSet<CertificateDer<'static>> = pems
            .flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().take(MAX_CAS))
            .collect();
        let mut learnt = self.0.learnt.lock();
        if certificates == *learnt {
            return;
        }
        let mut roots = RootCertStore::empty();
        let (n, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if n == 0 {
            return;
        }
        match trust_in(roots) {
            Ok(trust) => {
                tracing::info!(certificates = n, "the CA of the receivers of load reports is known");
                self.0.connector.store(Some(Arc::new(trust)));
                *learnt = certificates;
            }
            Err(error) => tracing::error!(error, "failed to trust the receivers of load reports"),
        }
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

async fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(MAX_FILE).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

impl Access {
    /// The token as a header; `None` where no file is named. An error says what is wrong with the file.
    pub(super) async fn token(&self) -> Result<Option<HeaderValue>, String> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let wrong = |reason: &str| format!("no token in {}: {reason}", path.display());
        let bytes = read(path).await.map_err(|e| wrong(&e.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("it is not text"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
            .map_err(|_| wrong("a token is one line without blanks"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Trust in the receivers as the CA file says now.
    pub(super) fn trust(&self) -> Result<Arc<Trust>, String> {
        let path = || self.ca_file.as_deref().unwrap_or(Path::new("")).display();
        self.connector.load_full().ok_or_else(|| format!("{} holds no certificate of a CA yet", path()))
    }

    /// Whether trust is still what it was when a connection was made.
    pub(super) fn is_current(&self, trust: &Arc<Trust>) -> bool {
        self.connector.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, trust))
    }

    /// Looks at the CA file once. `judged` is what it held at the last look.
    pub(super) async fn look(&self, judged: &mut Option<Result<Vec<u8>, String>>) {
        let Some(path) = &self.ca_file else { return };
        if !self.learnt.lock().is_empty() {
            return;
        }
        let now = read(path).await.map_err(|e| e.to_string());
        if judged.as_ref() == Some(&now) {
            return;
        }
        match now.as_ref().map_err(Clone::clone).and_then(|pem| connector(pem)) {
            Ok(trust) => {
                tracing::info!(path = %path.display(), "the CA of the receivers of load reports is known");
                self.connector.store(Some(Arc::new(trust)));
            }
            Err(error) => tracing::warn!(
                path = %path.display(), error, in_use = self.connector.load().is_some(),
                "no CA of the receivers of load reports in this file; looking again until there is one"
            ),
        }
        *judged = Some(now);
    }

    /// Looks at the CA file for ever. A bad one, or one that goes, leaves the last good one in use.
    pub(super) async fn watch(&self, mut judged: Option<Result<Vec<u8>, String>>) {
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            self.look(&mut judged).await;
        }
    }
}

fn connector(pem: &[u8]) -> Result<Trust, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| e.to_string())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("it has no certificate".into());
    }
    trust_in(roots)
}

fn trust_in(roots: RootCertStore) -> Result<Trust, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Trust(TlsConnector::from(Arc::new(config))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_checked() {
        for bad in ["x", "ftp://a/", "//a", "https://"] {
            assert!(
                matches!(Receivers::new(&[bad.to_owned()], None, None), Err(ReceiversError::Url(_))),
                "{bad}"
            );
        }
        let https = ["https://a:1/".to_owned()];
        assert!(matches!(Receivers::new(&https, None, None), Err(ReceiversError::NoCa(_))));
        let later = PathBuf::from("/nonexistent/ca.pem");
        assert!(Receivers::new(&https, None, Some(later)).is_ok(), "it may come later");
        assert!(Receivers::new(&[], None, None).unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_watched_goes_before_the_file() {
        let certificate = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap().cert;
        let (old, new) = (certificate("old.example"), certificate("new.example"));
        let path = std::env::temp_dir().join(format!("mcp-fleet-ca-{}", std::process::id()));
        std::fs::write(&path, old.pem()).unwrap();
        let https = ["https://a:1/".to_owned()];
        let receivers = Receivers::new(&https, None, Some(path.clone())).unwrap();
        let (access, authority) = (&receivers.access, receivers.authority());
        authority.learn(["no certificate"].into_iter());
        assert!(access.trust().is_err(), "nothing is known");
        access.look(&mut None).await;
        let of_file = access.trust().unwrap();
        authority.learn([new.pem().as_str(), "garbage"].into_iter());
        assert!(!access.is_current(&of_file));
        let watched = access.trust().unwrap();
        access.look(&mut None).await;
        authority.learn([new.pem().as_str()].into_iter());
        authority.learn(std::iter::empty());
        assert!(access.is_current(&watched), "neither the file nor the same again changes it");
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_token_is_one_line() {
        let path = std::env::temp_dir().join(format!("mcp-fleet-token-{}", std::process::id()));
        let access = Access { token_file: Some(path.clone()), ..Access::default() };
        assert!(access.token().await.unwrap_err().contains("no token in"));
        std::fs::write(&path, "secret\n").unwrap();
        assert_eq!(access.token().await.unwrap().unwrap(), "Bearer secret");
        std::fs::write(&path, "two\nlines").unwrap();
        assert!(access.token().await.is_err());
        std::fs::remove_file(path).unwrap();
        assert_eq!(Access::default().token().await, Ok(None));
    }
}
