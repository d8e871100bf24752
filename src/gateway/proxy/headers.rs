//! Headers on their way through (RFC 9110 section 7.6; G11, G12): what belongs to one connection stays on it,
//! the rest passes as it is.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::names;

/// What belongs to a connection, beside the names that `Connection` lists.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What a server gets from us and not from the client: results have to be read, and the body has been.
fn is_ours(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "accept-encoding" | "expect" | "content-length" | "forwarded" | "x-forwarded-host"
    )
}

/// Removes what `goes` names; one look at each header that is there, for most of the names never are.
fn remove(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    const AT_ONCE: usize = 4;
    loop {
        let mut gone: [Option<HeaderName>; AT_ONCE] = [const { None }; AT_ONCE];
        for (place, name) in gone.iter_mut().zip(headers.keys().filter(|name| goes(name))) {
            *place = Some(name.clone());
        }
        let is_full = gone.iter().all(Option::is_some);
        for name in gone.into_iter().flatten() {
            headers.remove(name);
        }
        if !is_full {
            return;
        }
    }
}

/// Headers that decide where a request goes: a client may neither repeat them nor declare them hop-by-hop.
const ROUTING: [HeaderName; 4] = [names::SESSION_ID, names::METHOD, names::NAME, names::PROTOCOL_VERSION];

/// What is wrong with the headers of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeaders {
    /// A routing header stands there twice.
    Repeated(&'static str),
}

/// Refuses what would be read differently here and at the server.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), BadHeaders> {
    for name in &ROUTING {
        let mut all = headers.get_all(name).iter();
        if all.next().is_some() && all.next().is_some() {
            let name = match name.as_str() {
                "mcp-session-id" => "Mcp-Session-Id",
                "mcp-method" => "Mcp-Method",
                "mcp-name" => "Mcp-Name",
                _ => "MCP-Protocol-Version",
            };
            return Err(BadHeaders::Repeated(name));
        }
    }
    Ok(())
}

/// Removes the headers that `Connection` lists.
fn remove_listed(headers: &mut HeaderMap) {
    let Some(first) = headers.get(header::CONNECTION) else { return };
    // The common values name no header.
    if first.as_bytes().eq_ignore_ascii_case(b"keep-alive") || first.as_bytes().eq_ignore_ascii_case(b"close")
    {
        let mut all = headers.get_all(header::CONNECTION).iter();
        if all.next().is_some() && all.next().is_none() {
            return;
        }
    }
    for value in headers.get_all(header::CONNECTION).iter().cloned().collect::<Vec<_>>() {
        for name in value.to_str().unwrap_or_default().split(',') {
            if let Ok(name) = HeaderName::try_from(name.trim()) {
                headers.remove(name);
            }
        }
    }
}

/// Removes what belongs to the connection on which the message came, and the session header where `session` says
/// so.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, session: bool) {
    remove_listed(headers);
    remove(headers, |name| is_hop_by_hop(name) || (session && *name == names::SESSION_ID));
}

/// Makes the headers of a client's request those of ours to the server.
pub(crate) fn to_upstream(headers: &mut HeaderMap, host: &HeaderValue, from: &Forwarded<'_>) {
    remove_listed(headers);
    remove(headers, |name| is_hop_by_hop(name) || is_ours(name));
    headers.insert(header::HOST, host.clone());
    if let Some(name) = from.host {
        headers.insert(names::FORWARDED_HOST, name.clone());
    }
    headers.insert(names::FORWARDED_FOR, from.address.clone());
    headers.insert(names::FORWARDED_PROTO, HeaderValue::from_static(from.proto));
}

/// Who called, for the server.
pub(crate) struct Forwarded<'a> {
    /// Address of the client, without port.
    pub address: &'a HeaderValue,
    /// `http` or `https`.
    pub proto: &'static str,
    /// The Host that it named.
    pub host: Option<&'a HeaderValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        let mut map = HeaderMap::new();
        pairs.for_each(|(n, v)| {
            map.append(n, v);
        });
        map
    }

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        let mut map = headers(&[
            ("connection", "keep-alive, x-private"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "application/json, text/event-stream"),
        ]);
        strip_hop_by_hop(&mut map, false);
        assert_eq!(map.len(), 1, "{map:?}");
    }

    #[test]
    fn a_server_sees_its_own_host_and_who_called() {
        let mut map = headers(&[
            ("host", "mcp.example.com"),
            ("accept-encoding", "gzip"),
            ("x-forwarded-for", "6.6.6.6"),
            ("authorization", "Bearer x"),
        ]);
        let address = HeaderValue::from_static("10.0.0.9");
        let host = map.get(header::HOST).cloned();
        let from = Forwarded { address: &address, proto: "http", host: host.as_ref() };
        to_upstream(&mut map, &HeaderValue::from_static("localhost:8080"), &from);
        assert_eq!(map[header::HOST], "localhost:8080");
        assert_eq!(map[names::FORWARDED_HOST], "mcp.example.com");
        assert_eq!(map[names::FORWARDED_FOR], "10.0.0.9");
        assert_eq!(map[header::AUTHORIZATION], "Bearer x");
        assert!(!map.contains_key(header::ACCEPT_ENCODING));
    }

    #[test]
    fn a_routing_header_may_not_be_repeated() {
        assert_eq!(check(&headers(&[("mcp-name", "a"), ("accept", "a"), ("accept", "b")])), Ok(()));
        let twice = headers(&[("mcp-session-id", "a"), ("mcp-session-id", "a")]);
        assert_eq!(check(&twice), Err(BadHeaders::Repeated("Mcp-Session-Id")));
    }
}
