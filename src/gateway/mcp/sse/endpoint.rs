//! The `endpoint` event of HTTP+SSE: where a client is to send its messages (mcp.md section 2.1).

use std::ops::Range;

/// The URI of an `endpoint` event. Scheme and authority are left out: where a client sends is the gateway's
/// matter, and an address out of an answer is never dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUri<'a> {
    /// Path; without a leading slash where it is relative to the stream's.
    pub path: &'a str,
    /// Query without its question mark.
    pub query: Option<&'a str>,
    /// Value of the session's parameter, in the data of the event.
    pub session: Option<Range<usize>>,
}

/// Reads the data of an `endpoint` event; `None` where it is no URI.
pub fn endpoint(data: &str) -> Option<EndpointUri<'_>> {
    let start = data.len() - path_and_query(data.trim_ascii_start()).len();
    let uri = data[start..].trim_ascii_end();
    let uri = uri.split_once('#').map_or(uri, |(uri, _)| uri);
    if uri.is_empty() || uri.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return None;
    }
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    let offset = start + path.len() + 1;
    let session = query.and_then(session_in_query).map(|range| offset + range.start..offset + range.end);
    Some(EndpointUri { path, query, session })
}

/// Without `scheme://authority` or `//authority`.
fn path_and_query(uri: &str) -> &str {
    let after = match uri.find("://") {
        // A colon behind the first slash or question mark is no scheme's.
        Some(colon) if !uri[..colon].contains(['/', '?', '#']) => &uri[colon + 3..],
        _ => match uri.strip_prefix("//") {
            Some(after) => after,
            None => return uri,
        },
    };
    after.find(['/', '?', '#']).map_or("", |path| &after[path..])
}

/// Where the value of the parameter that names a session stands in a query: `session_id` (Python), `sessionId`
/// (TypeScript) and the like. Also for the query of a client's POST.
pub fn session_in_query(query: &str) -> Option<Range<usize>> {
    let mut at = 0;
    for pair in query.split('&') {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        if is_session(name) && pair.len() > name.len() + 1 {
            return Some(at + name.len() + 1..at + pair.len());
        }
        at += pair.len() + 1;
    }
    None
}

fn is_session(name: &str) -> bool {
    let letters = name.bytes().filter(|b| *b != b'_').map(|b| b.to_ascii_lowercase());
    letters.eq(*b"sessionid")
}
