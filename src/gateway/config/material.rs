//! Files that a configuration names: whether they are there and are what they should be. Reads files, and keeps
//! nothing of them.

use std::path::Path;

use rustls::{crypto::ring, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::gateway::seal::KeyRing;

/// Greatest size of a file of keys, in bytes.
const MAX_KEYS: u64 = 1024 * 1024;

/// What is wrong with a certificate file.
pub(super) fn certificate(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable =
        |e: &dyn std::fmt::Display| format!("{} is not a PEM file with certificates: {e}", path.display());
    present(path)?;
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unreadable(&e))?;
    if chain.is_empty() { Err(unreadable(&"it has none")) } else { Ok(chain) }
}

/// What is wrong with a file of a private key, or with the pair of both.
pub(super) fn private_key(path: &Path, chain: Option<Vec<CertificateDer<'static>>>) -> Result<(), String> {
    present(path)?;
    let key = PrivateKeyDer::from_pem_file(path)
        .map_err(|e| format!("{} is not a PEM file with a private key: {e}", path.display()))?;
    let Some(chain) = chain else { return Ok(()) };
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map(drop)
        .map_err(|e| format!("{} does not go with the certificate: {e}", path.display()))
}

/// What is wrong with a key ring.
pub(super) fn keys(path: &Path) -> Result<(), String> {
    present(path)?;
    let failed = |e: std::io::Error| format!("failed to read {}: {e}", path.display());
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_KEYS {
        return Err(format!("{} has {size} bytes; a key ring has at most {MAX_KEYS}", path.display()));
    }
    let json = std::fs::read(path).map_err(failed)?;
    KeyRing::parse(&json)
        .map(drop)
        .map_err(|e| format!("{}: {e}; write [{{\"id\": …, \"key\": …, \"notBefore\": …}}]", path.display()))
}

fn present(path: &Path) -> Result<(), String> {
    match std::fs::File::open(path).and_then(|f| f.metadata()) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(format!("{} is not a file", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(format!(
            "{} does not exist; relative paths count from the folder of the configuration",
            path.display()
        )),
        Err(e) => Err(format!("failed to read {}: {e}", path.display())),
    }
}
