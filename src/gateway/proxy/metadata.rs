//! Authorization metadata on its way through (G26): a server that only knows the Host which we send it names
//! that in its challenge, and the client needs the address that it called.

use http::{HeaderMap, HeaderValue, header};
use memchr::memmem;

use crate::gateway::fleet::FleetSpec;

/// Rewrites `resource_metadata="…"` of a `WWW-Authenticate` where its authority is the Host that we sent, to the
/// address that the client called.
pub(crate) fn rewrite_challenge(
    spec: &FleetSpec,
    called: Option<&HeaderValue>,
    proto: &str,
    headers: &mut HeaderMap,
) {
    if !headers.contains_key(header::WWW_AUTHENTICATE) {
        return;
    }
    let Some(called) = called.and_then(|host| host.to_str().ok()) else { return };
    let own = format!("resource_metadata=\"http://{}/", spec.upstream_host);
    let well_known = ".well-known/oauth-protected-resource";
    let name = called.split(':').next().unwrap_or_default();
    let by_host = spec.settings.hostnames.iter().any(|h| h == name);
    let challenges: Vec<_> = headers.get_all(header::WWW_AUTHENTICATE).iter().cloned().collect();
    headers.remove(header::WWW_AUTHENTICATE);
    for value in challenges {
        let changed = memmem::find(value.as_bytes(), own.as_bytes()).and_then(|at| {
            let bytes = value.as_bytes();
            let rest = &bytes[at + own.len()..];
            let end = memchr::memchr(b'"', rest)?;
            let path = std::str::from_utf8(&rest[..end]).ok()?;
            // A fleet without a host name of its own is called below its path.
            let path = if by_host { path.to_owned() } else { format!("{well_known}/{}/mcp", spec.key) };
            let new = format!("resource_metadata=\"{proto}://{called}/{path}");
            HeaderValue::from_bytes(&[&bytes[..at], new.as_bytes(), &rest[end..]].concat()).ok()
        });
        headers.append(header::WWW_AUTHENTICATE, changed.unwrap_or(value));
    }
}
