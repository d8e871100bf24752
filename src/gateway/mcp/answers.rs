//! Answers that the gateway makes itself (mcp.md section 2.4, G4, G7): always JSON-RPC, with the client's id,
//! and recognisably local by `error.data.source`. Inputs: the situation and the raw id. Nothing of a pod, token
//! or address gets into one.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{BadEnvelope, era::Mismatch, result::Honoured};

/// Why the gateway answers in place of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault<'a> {
    /// The queue is full, or waiting in it took too long.
    Overloaded,
    /// More calls than a limit allows.
    RateLimited,
    /// The fleet has pods that could, and none is there now.
    NoPod,
    /// The gateway is about to end.
    Draining,
    /// No fleet has this path.
    UnknownRoute,
    /// No pod of the fleet speaks the revision.
    UnsupportedVersion {
        /// What they speak.
        supported: &'a [String],
        /// What was asked for.
        requested: &'a str,
    },
    /// The session does not exist any more, or is nobody's. Its id is always `null` (G7).
    SessionGone,
    /// A legacy request that needs a session has none.
    SessionMissing,
    /// The call was open when its session had to move: it may or may not have run.
    SessionMoved,
    /// The pod of a task is gone.
    TaskGone,
    /// A call about tasks without the extension.
    TasksNotDeclared,
    /// The pod of a task, session or retry cannot be reached now.
    OwnerUnreachable,
    /// A token whose key is not known here.
    UnknownKey,
    /// Headers that the body contradicts.
    Header(Mismatch),
    /// Headers that may not stand there, or not twice; names the rule.
    BadHeaders(&'a str),
    /// A body that is no message.
    Body(BadEnvelope),
    /// The body is larger than `limits.maxBodyBytes`.
    BodyTooLarge,
    /// Host or Origin is not allowed.
    Forbidden,
    /// The pod took the call and broke off; it may have run.
    UpstreamLost,
    /// The pod did not answer in time; it may have run.
    UpstreamTimeout,
    /// The pod's answer was no HTTP.
    UpstreamInvalid,
}

impl Fault<'_> {
    /// The JSON-RPC code: the protocol's where it has one, else one of our own, outside its range.
    pub fn code(&self) -> i32 {
        match self {
            Self::Header(_) => -32020,
            Self::TasksNotDeclared => -32021,
            Self::UnsupportedVersion { .. } => -32022,
            Self::TaskGone => -32602,
            Self::Body(bad) => bad.code(),
            Self::BadHeaders(_) | Self::SessionMissing => -32600,
            Self::Overloaded => -31001,
            Self::RateLimited => -31002,
            Self::NoPod => -31003,
            Self::Draining => -31004,
            Self::UnknownRoute => -31005,
            Self::SessionGone => -31006,
            Self::SessionMoved => -31007,
            Self::OwnerUnreachable => -31008,
            Self::UnknownKey => -31009,
            Self::BodyTooLarge => -31010,
            Self::Forbidden => -31011,
            Self::UpstreamLost => -31012,
            Self::UpstreamTimeout => -31013,
            Self::UpstreamInvalid => -31014,
        }
    }

    /// One fixed word, for `error.data.reason`, logs and labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::NoPod => "no_pod",
            Self::Draining => "draining",
            Self::UnknownRoute => "unknown_route",
            Self::UnsupportedVersion { .. } => "unsupported_version",
            Self::SessionGone => "session_gone",
            Self::SessionMissing => "session_missing",
            Self::SessionMoved => "session_moved",
            Self::TaskGone => "task_gone",
            Self::TasksNotDeclared => "tasks_not_declared",
            Self::OwnerUnreachable => "owner_unreachable",
            Self::UnknownKey => "unknown_key",
            Self::Header(_) => "header_mismatch",
            Self::BadHeaders(_) => "bad_headers",
            Self::Body(_) => "bad_body",
            Self::BodyTooLarge => "body_too_large",
            Self::Forbidden => "forbidden",
            Self::UpstreamLost => "upstream_lost",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamInvalid => "upstream_invalid",
        }
    }

    /// The HTTP status. Modern clients take a bare 400, 404 or 405 for proof of a legacy server (G4).
    pub fn status(&self, modern: bool) -> u16 {
        match self {
            Self::Header(_)
            | Self::BadHeaders(_)
            | Self::Body(_)
            | Self::SessionMissing
            | Self::TasksNotDeclared
            | Self::UnsupportedVersion { .. } => 400,
            Self::SessionGone => 404,
            Self::UnknownRoute if !modern => 404,
            Self::Forbidden => 403,
            Self::BodyTooLarge => 413,
            Self::RateLimited => 429,
            Self::TaskGone | Self::SessionMoved => 200,
            Self::UpstreamLost | Self::UpstreamInvalid if !modern => 502,
            Self::UpstreamTimeout if !modern => 504,
            _ => 503,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Overloaded => "The servers are overloaded; try again later",
            Self::RateLimited => "Too many requests; try again later",
            Self::NoPod => "No server is available; try again later",
            Self::Draining => "The gateway is shutting down; try again",
            Self::UnknownRoute => "No MCP server is configured for this path",
            Self::UnsupportedVersion { .. } => "Unsupported protocol version",
            Self::SessionGone => "Session not found; initialize a new one",
            Self::SessionMissing => "Mcp-Session-Id is missing",
            Self::SessionMoved => "The server was replaced while the call ran; it may have been executed",
            Self::TaskGone => "Task not found",
            Self::TasksNotDeclared => "Missing required client capability: io.modelcontextprotocol/tasks",
            Self::OwnerUnreachable => "The server that holds this state cannot be reached; try again later",
            Self::UnknownKey => {
                "The identifier was issued under a key that is not known here; try again later"
            }
            Self::Header(mismatch) => return format!("Header mismatch: {mismatch}"),
            Self::BadHeaders(rule) => return format!("Bad headers: {rule}"),
            Self::Body(bad) => return format!("Bad request: {bad}"),
            Self::BodyTooLarge => "The request body is too large",
            Self::Forbidden => "This Host or Origin may not call",
            Self::UpstreamLost => "The server broke the connection; the call may have been executed",
            Self::UpstreamTimeout => "The server did not answer in time; the call may have been executed",
            Self::UpstreamInvalid => "The server's answer was not valid HTTP",
        }
        .to_owned()
    }
}

/// The id of an answer.
#[derive(Clone, Copy, Debug)]
pub enum Id<'a> {
    /// The request's, as it was written.
    Echo(&'a RawValue),
    /// `null`: a request whose id could not be read, or is not to be named (JSON-RPC 2.0 section 5; G7).
    Null,
    /// Left out: what the schema of 2026-07-28 wants instead of `null`.
    Absent,
}

impl<'a> From<Option<&'a RawValue>> for Id<'a> {
    fn from(id: Option<&'a RawValue>) -> Self {
        id.map_or(Self::Null, Self::Echo)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    source: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    supported: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_capabilities: Option<&'a RawValue>,
}

fn json(out: &mut Vec<u8>, value: &impl Serialize) {
    // Writing plain values into memory does not fail.
    let _ = serde_json::to_writer(out, value);
}

/// The start of an answer: everything up to its id.
fn begin(id: Id<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(br#"{"jsonrpc":"2.0""#);
    match id {
        Id::Echo(id) => {
            out.extend_from_slice(br#","id":"#);
            out.extend_from_slice(id.get().as_bytes());
        }
        Id::Null => out.extend_from_slice(br#","id":null"#),
        Id::Absent => {}
    }
    out
}

/// An answer with a result that was learnt before, as it was written: of `server/discover` (G3).
pub fn result<'a>(id: impl Into<Id<'a>>, result: &str) -> Bytes {
    let mut out = begin(id.into());
    out.extend_from_slice(br#","result":"#);
    out.extend_from_slice(result.as_bytes());
    out.push(b'}');
    out.into()
}

/// The body of an error.
pub fn error<'a>(id: impl Into<Id<'a>>, fault: &Fault<'_>) -> Bytes {
    let mut out = begin(if *fault == Fault::SessionGone { Id::Null } else { id.into() });
    out.extend_from_slice(format!(r#","error":{{"code":{},"message":"#, fault.code()).as_bytes());
    json(&mut out, &fault.message());
    out.extend_from_slice(br#","data":"#);
    let mut data = Data {
        source: "gateway",
        reason: fault.reason(),
        supported: None,
        requested: None,
        required_capabilities: None,
    };
    match fault {
        Fault::UnsupportedVersion { supported, requested } => {
            (data.supported, data.requested) = (Some(*supported), Some(*requested));
        }
        Fault::TasksNotDeclared => {
            let needed = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
            data.required_capabilities = serde_json::from_str(needed).ok();
        }
        _ => {}
    }
    json(&mut out, &data);
    out.extend_from_slice(b"}}");
    out.into()
}

/// A JSON message as an event of a stream. Line breaks in it can only be white space between values (an id as
/// it was written may have some), and become spaces.
pub fn event(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 32);
    out.extend_from_slice(b"event: message\ndata: ");
    out.extend(message.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// The same error as an event of a stream.
pub fn error_event<'a>(id: impl Into<Id<'a>>, fault: &Fault<'_>) -> Bytes {
    event(&error(id, fault))
}

const SUBSCRIPTION: &str = r#""_meta":{"io.modelcontextprotocol/subscriptionId":"#;

/// The result with which a listen ends in good order (mcp.md section 2.3, Listen).
pub fn listen_end(id: &RawValue) -> Bytes {
    let id = id.get();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete",{SUBSCRIPTION}{id}}}}}}}"#)
        .into()
}

/// The first message of a listen: what of it is honoured. Types that are not honoured are left out.
pub fn acknowledged(id: &RawValue, honoured: &Honoured) -> Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Filter<'a> {
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        tools_list_changed: bool,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        prompts_list_changed: bool,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        resources_list_changed: bool,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        resource_subscriptions: &'a [String],
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        task_ids: &'a [String],
    }
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(
        br#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"#,
    );
    out.extend_from_slice(SUBSCRIPTION.as_bytes());
    out.extend_from_slice(id.get().as_bytes());
    out.extend_from_slice(br#"},"notifications":"#);
    let filter = Filter {
        tools_list_changed: honoured.tools,
        prompts_list_changed: honoured.prompts,
        resources_list_changed: honoured.resources,
        resource_subscriptions: &honoured.subscriptions,
        task_ids: &honoured.task_ids,
    };
    json(&mut out, &filter);
    out.extend_from_slice(b"}}");
    out.into()
}

#[cfg(test)]
mod tests;
