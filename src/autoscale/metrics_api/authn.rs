//! Who asks: the aggregation layer's word for it, believed only behind its own client certificate.
//!
//! `k8s.io/apiserver pkg/authentication/request/headerrequest`: the certificate must come from one of the CAs in
//! ConfigMap kube-system/extension-apiserver-authentication and have one of the names there; then, and only then,
//! the headers that are named there say who the caller is. TLS has proved that the peer holds the certificate's key.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use parking_lot::Mutex;
use rustls::{
    RootCertStore,
    crypto::ring::default_provider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::url;

/// After so long a certificate of an open connection is looked at again: it may have ended.
const RECHECK: Duration = Duration::from_secs(60);
/// Most groups, and most values of extras, that are believed.
const MAX_VALUES: usize = 1024;

/// A caller, as the aggregation layer names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    /// User name, never empty.
    pub(super) user: String,
    /// UID, if it is told.
    pub(super) uid: Option<String>,
    /// Groups.
    pub(super) groups: Vec<String>,
    /// Anything else that an authenticator has added.
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

/// Why nobody is believed. Told in the answer: it is the operator of the cluster who needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// The connection has no client certificate.
    NoCertificate,
    /// ConfigMap kube-system/extension-apiserver-authentication was not read yet, or has no CA.
    NoTrust,
    /// Not from one of its CAs, or it has ended.
    Untrusted,
    /// Its name is not among the allowed ones.
    WrongName,
    /// The headers name nobody.
    NoUser,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "this API answers the aggregation layer of the API server only, which shows a client certificate",
            Self::NoTrust => "the CA of the aggregation layer is not known: requestheader-client-ca-file in ConfigMap kube-system/extension-apiserver-authentication was not read yet, or is missing",
            Self::Untrusted => "the client certificate does not come from a CA in requestheader-client-ca-file, or has ended",
            Self::WrongName => "the common name of the client certificate is not among requestheader-allowed-names",
            Self::NoUser => "the request names no user",
        })
    }
}

/// What the ConfigMap says.
pub(super) struct Trust {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
    users: Vec<String>,
    uids: Vec<String>,
    groups: Vec<String>,
    extras: Vec<String>,
}

/// A ConfigMap from which no trust can be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {key} in ConfigMap kube-system/extension-apiserver-authentication: {reason}")]
pub(super) struct TrustError {
    key: &'static str,
    reason: String,
}

impl Trust {
    /// Reads the ConfigMap's data. Every certificate of the bundle counts: CAs are changed by adding the next.
    pub(super) fn parse(data: &BTreeMap<String, String>) -> Result<Self, TrustError> {
        const CA: &str = "requestheader-client-ca-file";
        let wrong = |reason: String| TrustError { key: CA, reason };
        let pem = data.get(CA).ok_or_else(|| wrong("it is missing".into()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
                .build()
                .map_err(|e| wrong(e.to_string()))?;
        let list = |key: &'static str| match data.get(key) {
            Some(json) => serde_json::from_str::<Vec<String>>(json)
                .map_err(|e| TrustError { key, reason: e.to_string() }),
            None => Ok(Vec::new()),
        };
        Ok(Self {
            verifier,
            names: list("requestheader-allowed-names")?,
            users: list("requestheader-username-headers")?,
            uids: list("requestheader-uid-headers")?,
            groups: list("requestheader-group-headers")?,
            extras: list("requestheader-extra-headers-prefix")?,
        })
    }

    fn check(&self, chain: &[CertificateDer<'static>], now: UnixTime) -> Result<(), Stranger> {
        let (own, between) = chain.split_first().ok_or(Stranger::NoCertificate)?;
        self.verifier.verify_client_cert(own, between, now).map_err(|_| Stranger::Untrusted)?;
        if self.names.is_empty() {
            return Ok(());
        }
        let name = common_name(own).ok_or(Stranger::WrongName)?;
        if self.names.contains(&name) { Ok(()) } else { Err(Stranger::WrongName) }
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Stranger> {
        let first = |names: &[String]| {
            let values = names.iter().filter_map(|name| headers.get(name.as_str())?.to_str().ok());
            values.map(str::to_owned).find(|value| !value.is_empty())
        };
        let groups = self.groups.iter().flat_map(|name| headers.get_all(name.as_str()));
        let groups = groups.filter_map(|v| v.to_str().ok()).filter(|v| !v.is_empty()).take(MAX_VALUES);
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (header, value) in headers.iter().take(MAX_VALUES) {
            let strip = |prefix: &String| header.as_str().strip_prefix(&prefix.to_ascii_lowercase());
            let key = self.extras.iter().find_map(strip).filter(|key| !key.is_empty());
            if let (Some(key), Ok(value)) = (key.and_then(url::decode), value.to_str()) {
                extra.entry(key.to_ascii_lowercase()).or_default().push(value.to_owned());
            }
        }
        Ok(Caller {
            user: first(&self.users).ok_or(Stranger::NoUser)?,
            uid: first(&self.uids),
            groups: groups.map(str::to_owned).collect(),
            extra,
        })
    }
}

/// The last common name of the subject, as Go reads it.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().last()?;
    name.as_str().ok().map(str::to_owned)
}

/// The trust of now; replaced when the ConfigMap changes.
#[derive(Default)]
pub(super) struct FrontProxy(ArcSwapOption<Trust>);

impl FrontProxy {
    /// From now on this one counts, on open connections too.
    pub(super) fn set(&self, trust: Option<Trust>) {
        self.0.store(trust.map(Arc::new));
    }

    /// Who asks, if the peer may say so. `now` in wall time.
    pub(super) fn authenticate(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        now: UnixTime,
    ) -> Result<Caller, Stranger> {
        if peer.chain.is_empty() {
            return Err(Stranger::NoCertificate);
        }
        let trust = self.0.load_full().ok_or(Stranger::NoTrust)?;
        peer.check(&trust, now)?;
        trust.caller(headers)
    }
}

/// The other end of a connection: its certificates, and what was found out about them.
pub(super) struct Peer {
    chain: Vec<CertificateDer<'static>>,
    found: Mutex<Option<Found>>,
}

struct Found {
    trust: Arc<Trust>,
    at: Instant,
    result: Result<(), Stranger>,
}

impl Peer {
    /// `chain`: as TLS has it; the peer holds the key of the first.
    pub(super) fn new(chain: Vec<CertificateDer<'static>>) -> Self {
        Self { chain, found: Mutex::default() }
    }

    /// Checks once a minute, and after each change of the trust; signatures cost a tenth of a millisecond.
    fn check(&self, trust: &Arc<Trust>, now: UnixTime) -> Result<(), Stranger> {
        let mut found = self.found.lock();
        if let Some(found) = found.as_ref()
            && Arc::ptr_eq(&found.trust, trust)
            && found.at.elapsed() < RECHECK
        {
            return found.result;
        }
        let result = trust.check(&self.chain, now);
        *found = Some(Found { trust: Arc::clone(trust), at: Instant::now(), result });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    struct Ca {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca(name: &str) -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    impl Ca {
        fn client(&self, name: &str) -> Peer {
            let mut params = CertificateParams::default();
            params.distinguished_name.remove(DnType::CommonName);
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            let signed = params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap();
            Peer::new(vec![signed.der().clone()])
        }
    }

    fn trust(ca: &str, names: &str) -> Trust {
        let data = [
            ("requestheader-client-ca-file", ca),
            ("requestheader-allowed-names", names),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ];
        Trust::parse(&data.map(|(k, v)| (k.to_owned(), v.to_owned())).into()).unwrap()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    #[test]
    fn only_behind_the_right_certificate_the_headers_count() {
        let (ours, other) = (ca("front-proxy-ca"), ca("front-proxy-ca"));
        let headers = headers(&[("x-remote-user", "jane")]);
        let proxy = FrontProxy::default();
        let ask = |peer: &Peer| proxy.authenticate(peer, &headers, UnixTime::now()).map(|c| c.user);
        let (good, wrong_name) = (ours.client("front-proxy-client"), ours.client("someone"));
        assert_eq!(ask(&good), Err(Stranger::NoTrust));
        proxy.set(Some(trust(&ours.pem, r#"["front-proxy-client", "next"]"#)));
        assert_eq!(ask(&good), Ok("jane".into()));
        assert_eq!(ask(&wrong_name), Err(Stranger::WrongName));
        assert_eq!(ask(&other.client("front-proxy-client")), Err(Stranger::Untrusted));
        assert_eq!(ask(&Peer::new(Vec::new())), Err(Stranger::NoCertificate));
        proxy.set(Some(trust(&ours.pem, "[]")));
        assert_eq!(ask(&wrong_name), Ok("jane".into()), "no names: any");
    }

    #[test]
    fn a_change_of_the_ca_counts_on_open_connections() {
        let (old, new) = (ca("old"), ca("new"));
        let headers = headers(&[("x-remote-user", "jane")]);
        let proxy = FrontProxy::default();
        let ask = |peer: &Peer| proxy.authenticate(peer, &headers, UnixTime::now()).map(|_| ()).err();
        let (before, after) = (old.client("a"), new.client("a"));
        proxy.set(Some(trust(&old.pem, "[]")));
        assert_eq!((ask(&before), ask(&after)), (None, Some(Stranger::Untrusted)));
        proxy.set(Some(trust(&format!("{}{}", old.pem, new.pem), "[]")));
        assert_eq!((ask(&before), ask(&after)), (None, None));
        proxy.set(Some(trust(&new.pem, "[]")));
        assert_eq!((ask(&before), ask(&after)), (Some(Stranger::Untrusted), None));
        proxy.set(None);
        assert_eq!(ask(&after), Some(Stranger::NoTrust));
    }

    #[test]
    fn an_ended_certificate_is_not_believed() {
        let ours = ca("ca");
        let proxy = FrontProxy::default();
        proxy.set(Some(trust(&ours.pem, "[]")));
        let far = UnixTime::since_unix_epoch(Duration::from_secs(20_000_000_000 * 4));
        let headers = headers(&[("x-remote-user", "jane")]);
        assert_eq!(proxy.authenticate(&ours.client("a"), &headers, far), Err(Stranger::Untrusted));
    }

    #[test]
    fn all_that_the_headers_say() {
        let ours = ca("ca");
        let proxy = FrontProxy::default();
        proxy.set(Some(trust(&ours.pem, "[]")));
        let peer = ours.client("a");
        let ask =
            |fields: &[(&'static str, &str)]| proxy.authenticate(&peer, &headers(fields), UnixTime::now());
        let caller = ask(&[
            ("x-remote-user", "jane"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "system:authenticated"),
            ("x-remote-extra-scopes", "a"),
            ("x-remote-extra-scopes", "b"),
            ("x-remote-extra-acme.com%2fproject", "p"),
            ("x-other-user", "root"),
        ])
        .unwrap();
        assert_eq!((caller.user.as_str(), caller.uid), ("jane", None));
        assert_eq!(caller.groups, ["dev", "system:authenticated"]);
        let extra = [("acme.com/project", vec!["p"]), ("scopes", vec!["a", "b"])];
        let extra = extra.map(|(k, v)| (k.to_owned(), v.into_iter().map(str::to_owned).collect()));
        assert_eq!(caller.extra, BTreeMap::from(extra));
        assert_eq!(ask(&[("x-remote-group", "system:masters")]), Err(Stranger::NoUser));
        assert_eq!(ask(&[("x-remote-user", "")]), Err(Stranger::NoUser));
    }

    #[test]
    fn a_config_map_that_cannot_be_used_says_why() {
        let text = |data: &[(&str, &str)]| {
            let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Trust::parse(&data).err().unwrap().to_string()
        };
        assert!(text(&[]).contains("requestheader-client-ca-file"));
        assert!(text(&[("requestheader-client-ca-file", "no PEM")]).contains("requestheader-client-ca-file"));
        let ca = ca("ca").pem;
        let names = text(&[("requestheader-client-ca-file", &ca), ("requestheader-allowed-names", "a,b")]);
        assert!(names.contains("requestheader-allowed-names"), "{names}");
    }
}
