//! This replica's authority and serving certificate, in memory only.
//!
//! The key of the authority lives as long as the process. Every twelve hours its certificate and the serving
//! certificate are made anew: same key, same name, a later end. A client that knows an earlier certificate of the
//! authority accepts what it signs now, so a renewal needs nobody's cooperation; the earlier one ends only 36 hours
//! later, and the later one is published at once.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    crypto::ring::default_provider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::time::ASN1Time;

/// Life of the serving certificate.
const SERVING_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Life of the authority's certificate.
const AUTHORITY_LIFE: Duration = Duration::from_secs(48 * 3600);
/// Age at which both are made anew.
const RENEWAL: Duration = Duration::from_secs(12 * 3600);
/// Clocks of clients may be so far behind.
const BACKDATED: Duration = Duration::from_secs(3600);

/// Certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// Key or signature.
    #[error("failed to make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// What was made cannot be served.
    #[error("failed to use the new certificate: {0}")]
    Use(#[from] rustls::Error),
    /// A clock before 1950 or after 9999.
    #[error("the clock says {0} s since 1970, for which there is no certificate; set it")]
    Clock(i64),
}

/// Signs this replica's certificates.
pub(super) struct Authority {
    name: String,
    key: KeyPair,
    hosts: Vec<String>,
}

/// What was signed.
#[derive(Clone)]
pub(super) struct Issued {
    /// The authority's certificate, PEM.
    pub(super) authority_pem: String,
    /// When it should be done again, in seconds since the Unix epoch.
    pub(super) renew_at: i64,
    /// End of the serving certificate, in seconds since the Unix epoch.
    pub(super) expires_at: i64,
    certified: Arc<CertifiedKey>,
}

impl Authority {
    /// A new key. `pod` tells authorities apart; `hosts` are what clients call this replica.
    pub(super) fn new(pod: &str, hosts: Vec<String>) -> Result<Self, CertError> {
        let name =
            format!("mcp-fleet {} {:08x}", pod.chars().take(40).collect::<String>(), rand::random::<u32>());
        Ok(Self { name, key: KeyPair::generate()?, hosts })
    }

    /// Signs both certificates. `now` in seconds since the Unix epoch.
    pub(super) fn issue(&self, now: i64) -> Result<Issued, CertError> {
        let authority_params = self.authority_params(now)?;
        let authority = authority_params.self_signed(&self.key)?;
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_params(&authority_params, &self.key);
        let serving = self.serving_params(now)?.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified = CertifiedKey::from_der(vec![serving.der().clone()], key, &default_provider())?;
        Ok(Issued {
            authority_pem: super::bundle::pem(authority.der()),
            renew_at: now.saturating_add_unsigned(RENEWAL.as_secs()),
            expires_at: now.saturating_add_unsigned(SERVING_LIFE.as_secs()),
            certified: Arc::new(certified),
        })
    }

    fn authority_params(&self, now: i64) -> Result<CertificateParams, CertError> {
        let mut params = params(&self.name, now, AUTHORITY_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(params)
    }

    fn serving_params(&self, now: i64) -> Result<CertificateParams, CertError> {
        let name = self.hosts.first().map_or("mcp-fleet", String::as_str);
        // A common name has at most 64 characters; clients read the alternative names anyway.
        let name: String = name.chars().take(64).collect();
        let mut params = params(&name, now, SERVING_LIFE)?;
        params.subject_alt_names = CertificateParams::new(self.hosts.clone())?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn params(name: &str, now: i64, life: Duration) -> Result<CertificateParams, CertError> {
    let at = |seconds: i64| {
        ASN1Time::from_timestamp(seconds).map(|t| t.to_datetime()).map_err(|_| CertError::Clock(now))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(name.to_owned()));
    params.not_before = at(now.saturating_sub_unsigned(BACKDATED.as_secs()))?;
    params.not_after = at(now.saturating_add_unsigned(life.as_secs()))?;
    Ok(params)
}

/// What a Service's clients call the replicas behind it.
pub(super) fn hosts<'a>(services: impl IntoIterator<Item = &'a str>, namespace: &str) -> Vec<String> {
    let of_service = |service: &str| {
        [
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}"),
            service.to_owned(),
        ]
    };
    services.into_iter().flat_map(of_service).collect()
}

/// The certificate of now, for the handshakes to come.
#[derive(Default)]
pub(super) struct Serving(ArcSwapOption<Issued>);

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Serving")
    }
}

impl Serving {
    /// From now on this one is shown.
    pub(super) fn set(&self, issued: Issued) {
        self.0.store(Some(Arc::new(issued)));
    }

    /// The one that is shown.
    pub(super) fn get(&self) -> Option<Arc<Issued>> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get().map(|issued| Arc::clone(&issued.certified))
    }
}

/// Own certificate first.
#[cfg(test)]
pub(super) fn chain(issued: &Issued) -> Vec<rustls_pki_types::CertificateDer<'static>> {
    issued.certified.cert.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscale::metrics_api::bundle;
    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    };
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};

    const NOW: i64 = 1_795_208_400;
    const HOUR: i64 = 3600;

    fn accepts(authority: &str, issued: &Issued, host: &str, at: i64) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
                .build()
                .unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at as u64));
        let name = ServerName::try_from(host.to_owned()).unwrap();
        verifier.verify_server_cert(&chain(issued)[0], &[], &name, &[], at).is_ok()
    }

    #[test]
    fn the_api_server_and_the_gateways_accept_it_by_its_names() {
        let hosts = hosts(["op-api", "op-load"], "sys");
        let authority = Authority::new("op-0", hosts).unwrap();
        let issued = authority.issue(NOW).unwrap();
        let pem = &issued.authority_pem;
        for host in ["op-api.sys.svc", "op-api.sys.svc.cluster.local", "op-api", "op-load.sys.svc", "op-load"]
        {
            assert!(accepts(pem, &issued, host, NOW), "{host}");
        }
        assert!(!accepts(pem, &issued, "op-api.other.svc", NOW));
        assert!(accepts(pem, &issued, "op-api", NOW - HOUR + 1), "a client's clock may be late");
        assert!(!accepts(pem, &issued, "op-api", NOW + 24 * HOUR + 1));
        assert_eq!(issued.expires_at, NOW + 24 * HOUR);
        assert_eq!(bundle::read(pem, NOW)[0].not_after, NOW + 48 * HOUR);
    }

    #[test]
    fn a_renewal_needs_nobody() {
        let authority = Authority::new("op-0", hosts(["op-api"], "sys")).unwrap();
        let first = authority.issue(NOW).unwrap();
        assert_eq!(first.renew_at, NOW + 12 * HOUR);
        let later = authority.issue(first.renew_at).unwrap();
        let at = first.renew_at;
        assert!(accepts(&first.authority_pem, &later, "op-api", at), "who knows the earlier certificate");
        assert!(accepts(&later.authority_pem, &first, "op-api", at), "who knows the later one already");
        assert_ne!(first.authority_pem, later.authority_pem);
    }

    #[test]
    fn one_authority_does_not_vouch_for_another() {
        let make = || Authority::new("op-0", hosts(["op-api"], "sys")).unwrap().issue(NOW).unwrap();
        let (one, other) = (make(), make());
        assert!(!accepts(&one.authority_pem, &other, "op-api", NOW));
    }

    #[test]
    fn a_clock_out_of_bounds_is_told() {
        let authority = Authority::new("op-0", hosts(["op-api"], "sys")).unwrap();
        assert!(authority.issue(i64::MAX).is_err());
    }
}
