//! The ConfigMap with the replicas' authorities: which certificates count, what their union is, and what can go.
//! Pure.
//!
//! A key `<pod>.crt` for each replica, written by itself, and `ca.crt`, their union, written by the leader. A
//! certificate lives 48 h and is renewed after 12 h, so one that has ended belongs to a replica that is gone.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Key of the union.
pub(super) const UNION: &str = "ca.crt";
/// End of the replicas' keys.
const SUFFIX: &str = ".crt";
/// Most replicas whose certificates are kept; those that end last. Many rollouts in two days leave many.
const MAX_KEYS: usize = 64;
/// Most certificates of one replica.
const MAX_CERTIFICATES: usize = 4;

/// Key of a replica.
pub(super) fn key(pod: &str) -> String {
    format!("{pod}{SUFFIX}")
}

/// A certificate of an authority.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Authority {
    /// As PEM, written anew.
    pub(super) pem: String,
    /// Its end, in seconds since the Unix epoch.
    pub(super) not_after: i64,
}

/// What the leader makes of the ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Union {
    /// All authorities that count, as PEM.
    pub(super) pem: String,
    /// Keys of replicas that are gone.
    pub(super) stale: Vec<String>,
}

/// The union of all keys, and the keys that can go. `now` in seconds since the Unix epoch.
pub(super) fn union(data: &BTreeMap<String, String>, now: i64) -> Union {
    let mut stale = Vec::new();
    let mut alive = Vec::new();
    for (key, text) in data {
        if key == UNION || !key.ends_with(SUFFIX) {
            continue;
        }
        let found = read(text, now);
        match found.iter().map(|a| a.not_after).max() {
            Some(end) => alive.push((end, key, found)),
            None => stale.push(key.clone()),
        }
    }
    alive.sort_by(|(a, k, _), (b, l, _)| b.cmp(a).then(k.cmp(l)));
    let rest = alive.split_off(alive.len().min(MAX_KEYS));
    stale.extend(rest.into_iter().map(|(_, key, _)| key.clone()));
    stale.sort();
    // By their text: the same for every leader, whatever the order of the keys.
    let all: BTreeSet<String> = alive.into_iter().flat_map(|(_, _, found)| found).map(|a| a.pem).collect();
    Union { pem: all.into_iter().collect(), stale }
}

/// Whether an authority's certificate is part of a bundle.
pub(super) fn contains(bundle: &str, authority: &str) -> bool {
    !authority.trim().is_empty() && bundle.contains(authority.trim())
}

/// The authorities in a text that have not ended. Anything else in it is left out.
pub(super) fn read(text: &str, now: i64) -> Vec<Authority> {
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok);
    certificates
        .take(MAX_CERTIFICATES)
        .filter_map(|der| authority(&der))
        .filter(|a| a.not_after > now)
        .collect()
}

fn authority(der: &CertificateDer<'_>) -> Option<Authority> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let not_after = certificate.validity().not_after.timestamp();
    certificate.is_ca().then(|| Authority { pem: pem(der), not_after })
}

/// A certificate as PEM: 64 characters a line, `\n` between them.
pub(super) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscale::metrics_api::certs::{self, Authority as Signer};

    const NOW: i64 = 1_795_208_400;
    const HOUR: i64 = 3600;

    fn issued(at: i64) -> certs::Issued {
        Signer::new("pod", certs::hosts(["api"], "ns")).unwrap().issue(at).unwrap()
    }

    fn data<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> BTreeMap<String, String> {
        fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }

    #[test]
    fn the_union_has_each_once_in_one_order() {
        let (a, b) = (issued(NOW).authority_pem, issued(NOW).authority_pem);
        let one = union(&data([("op-0.crt", a.clone()), ("op-1.crt", b.clone())]), NOW);
        let other = union(
            &data([
                ("x.crt", format!("{b}{a}")),
                ("y.crt", a.replace('\n', "\r\n")),
                (UNION, "old".into()),
                ("notes", "hello".into()),
            ]),
            NOW,
        );
        assert_eq!(one, other);
        assert!(one.stale.is_empty());
        assert_eq!(one.pem.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(contains(&one.pem, &a) && contains(&one.pem, &b));
        assert!(!contains(&one.pem, &issued(NOW).authority_pem));
        assert!(!contains("", ""));
    }

    #[test]
    fn who_has_not_renewed_for_two_days_is_gone() {
        let (old, new) = (issued(NOW - 47 * HOUR).authority_pem, issued(NOW).authority_pem);
        let both = data([("op-0.crt", old), ("op-1.crt", new.clone())]);
        assert!(union(&both, NOW).stale.is_empty());
        let later = union(&both, NOW + HOUR);
        assert_eq!(later, Union { pem: new, stale: vec!["op-0.crt".into()] });
    }

    #[test]
    fn only_authorities_count() {
        let issued = issued(NOW);
        let leaf = pem(&certs::chain(&issued)[0]);
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let mixed = format!("garbage\n{key}{leaf}{}", issued.authority_pem);
        let union =
            union(&data([("op-0.crt", mixed), ("leaf.crt", leaf), ("none.crt", "garbage".into())]), NOW);
        assert_eq!(union.pem, issued.authority_pem);
        assert_eq!(union.stale, ["leaf.crt", "none.crt"]);
    }

    #[test]
    fn it_stays_bounded() {
        let signer = Signer::new("pod", certs::hosts(["api"], "ns")).unwrap();
        let many = (0..MAX_KEYS + 3)
            .map(|i| (format!("op-{i:03}.crt"), signer.issue(NOW - i as i64).unwrap().authority_pem));
        let union = union(&many.collect(), NOW);
        assert_eq!(union.pem.matches("BEGIN").count(), MAX_KEYS);
        assert_eq!(union.stale, ["op-064.crt", "op-065.crt", "op-066.crt"], "those that end first");
    }
}
