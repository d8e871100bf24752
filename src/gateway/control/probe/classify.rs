//! What the answer to a probe says (mcp.md sections 1.2 and 7). Pure.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::gateway::{
    fleet::{Capability, Legacy},
    metrics::Probed,
};

/// First revision without sessions.
const FIRST_MODERN: &str = "2026-07-28";
/// The server does not speak the revision of the request, and lists those it does.
const UNSUPPORTED_VERSION: i64 = -32022;
const METHOD_NOT_FOUND: i64 = -32601;
/// Versions that are kept of a list; longer ones are nonsense.
const MAX_VERSIONS: usize = 16;
/// Longest name and version of a server that are kept, in bytes.
const MAX_IDENTITY: usize = 128;

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Finding {
    /// It lists what it speaks.
    Lists {
        /// As it listed them.
        versions: Vec<String>,
        /// Name and version.
        server: Option<(String, String)>,
        /// The result of `server/discover`, if that was its answer.
        discover: Option<Arc<str>>,
    },
    /// Alive, but tells nothing without a credential.
    Protected,
    /// Alive, and does not know `server/discover`.
    Legacy,
    /// Alive, and says nothing of itself: it is busy, or it was not asked.
    Alive,
    /// Not alive.
    Failed(String),
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<ErrorObject<'a>>,
}

#[derive(Deserialize)]
struct ErrorObject<'a> {
    code: i64,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    supported_versions: Vec<String>,
    server_info: Option<Identity>,
    #[serde(rename = "_meta")]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/serverInfo")]
    server_info: Option<Identity>,
}

#[derive(Deserialize)]
struct Identity {
    name: String,
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
struct Supported {
    supported: Vec<String>,
}

/// The answer to `server/discover`; `body` is the message alone, without the frame of an event.
pub(super) fn discover(status: StatusCode, body: &[u8]) -> Finding {
    let message = serde_json::from_slice::<Message<'_>>(body).ok();
    match status.as_u16() {
        500.. => Finding::Failed(format!("it answered {}", status.as_u16())),
        401 | 403 => Finding::Protected,
        // Says nothing on the revision (mcp.md section 2.3).
        429 => Finding::Alive,
        200..300 => message.as_ref().and_then(listed).unwrap_or(Finding::Legacy),
        _ => message.as_ref().and_then(unsupported).unwrap_or(Finding::Legacy),
    }
}

fn listed(message: &Message<'_>) -> Option<Finding> {
    let Some(result) = message.result else { return unsupported(message) };
    let discovered: Discovered = serde_json::from_str(result.get()).ok()?;
    let server = discovered.server_info.or(discovered.meta.and_then(|m| m.server_info));
    Some(Finding::Lists {
        versions: versions(discovered.supported_versions),
        server: server.map(|s| (short(s.name), short(s.version))),
        discover: Some(result.get().into()),
    })
}

fn unsupported(message: &Message<'_>) -> Option<Finding> {
    let error = message.error.as_ref().filter(|e| e.code == UNSUPPORTED_VERSION)?;
    let supported: Option<Supported> = error.data.and_then(|d| serde_json::from_str(d.get()).ok());
    let versions = versions(supported.map(|s| s.supported).unwrap_or_default());
    Some(Finding::Lists { versions, server: None, discover: None })
}

fn versions(mut listed: Vec<String>) -> Vec<String> {
    listed.retain(|v| is_date(v));
    listed.sort_unstable_by(|a, b| b.cmp(a));
    listed.dedup();
    listed.truncate(MAX_VERSIONS);
    listed
}

fn is_modern(version: &str) -> bool {
    version >= FIRST_MODERN
}

fn is_date(text: &str) -> bool {
    text.len() == 10
        && text
            .bytes()
            .enumerate()
            .all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() })
}

fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_IDENTITY));
    text
}

impl Finding {
    /// Its place in the metrics.
    pub(super) fn kind(&self) -> Probed {
        match self {
            Self::Lists { .. } | Self::Alive => Probed::Ok,
            Self::Protected => Probed::Protected,
            Self::Legacy => Probed::Legacy,
            Self::Failed(_) => Probed::Failed,
        }
    }

    /// What is known of the pod after this. What a deep probe has learnt stays, unless it is contradicted.
    pub(super) fn learn(self, before: &Capability) -> Capability {
        match self {
            Self::Lists { versions, server, discover } => {
                let modern: Vec<_> = versions.iter().filter(|v| is_modern(v)).cloned().collect();
                let lists_legacy = modern.len() < versions.len();
                let legacy = if lists_legacy { Legacy::Yes } else { before.legacy };
                // Servers of both eras may list the modern one alone; initialize told the other.
                let told = before.listed.iter().filter(|v| !is_modern(v) && legacy == Legacy::Yes);
                Capability {
                    known: true,
                    opaque: false,
                    modern,
                    legacy,
                    listed: self::versions(versions.iter().chain(told).cloned().collect()),
                    stateful: before.stateful,
                    server: server.or_else(|| before.server.clone()),
                    discover,
                }
            }
            Self::Legacy => Capability {
                known: true,
                legacy: Legacy::Yes,
                listed: before.listed.iter().filter(|v| !is_modern(v)).cloned().collect(),
                stateful: before.stateful,
                server: before.server.clone(),
                ..Capability::default()
            },
            Self::Protected if !before.known => {
                Capability { known: true, opaque: true, ..Capability::default() }
            }
            Self::Protected | Self::Alive | Self::Failed(_) => before.clone(),
        }
    }
}

/// What `initialize` said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deep {
    /// It serves the earlier revisions.
    Serves {
        /// The revision that it negotiated.
        version: String,
        /// It handed out a session.
        stateful: bool,
        /// Name and version.
        server: Option<(String, String)>,
    },
    /// It does not.
    Refuses,
    /// Nothing that helps.
    Unclear,
}

/// The answer to `initialize`.
pub(super) fn initialize(status: StatusCode, has_session: bool, body: &[u8]) -> Deep {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Initialized {
        protocol_version: String,
        server_info: Option<Identity>,
    }
    let Ok(message) = serde_json::from_slice::<Message<'_>>(body) else { return Deep::Unclear };
    if let Some(error) = &message.error {
        let proof = matches!(error.code, UNSUPPORTED_VERSION | METHOD_NOT_FOUND);
        return if proof { Deep::Refuses } else { Deep::Unclear };
    }
    let result = message.result.and_then(|r| serde_json::from_str::<Initialized>(r.get()).ok());
    match result {
        Some(result) if status.is_success() => Deep::Serves {
            version: result.protocol_version,
            stateful: has_session,
            server: result.server_info.map(|s| (short(s.name), short(s.version))),
        },
        _ => Deep::Unclear,
    }
}

impl Deep {
    /// What is known of the pod after this.
    pub(super) fn learn(self, before: &Capability) -> Capability {
        let before = before.clone();
        match self {
            Self::Serves { version, stateful, server } => Capability {
                known: true,
                legacy: Legacy::Yes,
                listed: versions(before.listed.iter().cloned().chain([version]).collect()),
                stateful: Some(stateful),
                server: before.server.or(server),
                ..before
            },
            Self::Refuses => Capability { legacy: Legacy::No, stateful: Some(false), ..before },
            Self::Unclear => before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(status: u16, body: &str) -> Finding {
        discover(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    fn learnt(status: u16, body: &str) -> Capability {
        found(status, body).learn(&Capability::default())
    }

    #[test]
    fn a_dual_era_server_is_modern_and_says_nothing_on_legacy() {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"],
            "serverInfo":{"name":"github","version":"1.4.0"},"capabilities":{}}}"#;
        let known = learnt(200, body);
        assert_eq!((known.modern, known.legacy), (vec!["2026-07-28".to_owned()], Legacy::Unknown));
        assert_eq!(known.server, Some(("github".into(), "1.4.0".into())));
        assert!(known.known && known.discover.is_some_and(|d| d.contains("capabilities")));
        let meta = r#"{"result":{"supportedVersions":["2026-07-28"],
            "_meta":{"io.modelcontextprotocol/serverInfo":{"name":"a","version":"1"}}}}"#;
        assert_eq!(learnt(200, meta).server, Some(("a".into(), "1".into())));
    }

    #[test]
    fn the_list_counts_and_not_the_status() {
        // A stateful go server answers 200 and lists legacy versions only.
        let body = r#"{"result":{"supportedVersions":["2025-06-18","2025-11-25"]}}"#;
        let known = learnt(200, body);
        assert_eq!((known.modern.len(), known.legacy), (0, Legacy::Yes));
        assert_eq!(known.listed, ["2025-11-25", "2025-06-18"]);
    }

    #[test]
    fn an_unsupported_version_is_alive_and_lists_what_it_speaks() {
        let body = r#"{"error":{"code":-32022,"message":"x","data":{"supported":["2027-03-01"],"requested":"2026-07-28"}}}"#;
        let known = learnt(400, body);
        assert_eq!((known.modern, known.legacy), (vec!["2027-03-01".to_owned()], Legacy::Unknown));
        assert_eq!(learnt(400, r#"{"error":{"code":-32022,"message":"x"}}"#).modern.len(), 0);
    }

    #[test]
    fn other_answers() {
        for body in ["", "Bad Request: Missing session ID", r#"{"error":{"code":-32000,"message":"x"}}"#] {
            assert_eq!(found(400, body), Finding::Legacy, "{body}");
            assert_eq!(found(404, body), Finding::Legacy, "{body}");
        }
        assert_eq!(learnt(404, "").legacy, Legacy::Yes);
        for status in [401, 403] {
            assert_eq!(found(status, ""), Finding::Protected);
            assert!(learnt(status, "").opaque);
        }
        assert_eq!(found(429, ""), Finding::Alive);
        assert!(!learnt(429, "").known);
        for status in [500, 502, 503] {
            assert!(matches!(found(status, "{}"), Finding::Failed(_)), "{status}");
        }
        assert_eq!(found(200, "not json"), Finding::Legacy);
    }

    #[test]
    fn what_was_known_survives_failures_and_credentials() {
        let before = Capability { known: true, modern: vec!["2026-07-28".into()], ..Capability::default() };
        for finding in [Finding::Failed("x".into()), Finding::Protected, Finding::Alive] {
            assert_eq!(finding.learn(&before), before);
        }
        // A rollback in place: the modern versions go.
        assert!(Finding::Legacy.learn(&before).modern.is_empty());
    }

    #[test]
    fn initialize_tells_legacy_and_sessions() {
        let good =
            r#"{"id":1,"result":{"protocolVersion":"2025-11-25","serverInfo":{"name":"a","version":"1"}}}"#;
        let before = Capability { known: true, modern: vec!["2026-07-28".into()], ..Capability::default() };
        let known = initialize(StatusCode::OK, true, good.as_bytes()).learn(&before);
        assert_eq!((known.legacy, known.stateful, known.modern.len()), (Legacy::Yes, Some(true), 1));
        assert_eq!(known.listed, ["2025-11-25"]);
        let again = found(200, r#"{"result":{"supportedVersions":["2026-07-28"]}}"#).learn(&known);
        assert_eq!(again.listed, ["2026-07-28", "2025-11-25"], "what initialize told stays");
        assert_eq!((again.legacy, again.stateful), (Legacy::Yes, Some(true)));
        let no = br#"{"id":1,"error":{"code":-32022,"message":"x"}}"#;
        let known = initialize(StatusCode::BAD_REQUEST, false, no).learn(&before);
        assert_eq!((known.legacy, known.stateful), (Legacy::No, Some(false)));
        for body in ["", "x", r#"{"error":{"code":-32603,"message":"x"}}"#, r#"{"result":{}}"#] {
            assert_eq!(initialize(StatusCode::OK, false, body.as_bytes()), Deep::Unclear, "{body}");
        }
    }

    #[test]
    fn nonsense_in_lists_is_left_out() {
        let long = format!(
            r#"{{"result":{{"supportedVersions":["x","2026-07-28","2026-07-28","{}"]}}}}"#,
            "9".repeat(99)
        );
        assert_eq!(learnt(200, &long).listed, ["2026-07-28"]);
    }
}
