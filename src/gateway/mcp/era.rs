//! Which era a request belongs to, from its headers and its body; decided per request, never per client or
//! connection (mcp.md section 1.1, G1), and whether its routing headers say what its body says (G22).

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::envelope::{Envelope, Kind};

/// The first revision without sessions.
pub const FIRST_MODERN: &str = "2026-07-28";

/// The era of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era<'a> {
    /// 2026-07-28 or later: any capable pod; a session id is ignored (G2).
    Modern {
        /// The revision, as the header has it.
        version: &'a str,
    },
    /// Modern by its body, but its headers do not say so: 400 -32020.
    ModernInvalid(Mismatch),
    /// Begins a legacy session.
    LegacyInitialize,
    /// Belongs to a legacy session.
    LegacySession,
    /// Legacy without a session: any legacy-capable pod.
    LegacyUnbound,
}

/// A header that the body contradicts, or that is missing: 400 -32020.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// `MCP-Protocol-Version` is missing.
    #[error("the header MCP-Protocol-Version is missing")]
    VersionMissing,
    /// `MCP-Protocol-Version` differs from `_meta`.
    #[error("the header MCP-Protocol-Version differs from the version in params._meta")]
    VersionDiffers,
    /// `Mcp-Method` is missing.
    #[error("the header Mcp-Method is missing")]
    MethodMissing,
    /// `Mcp-Method` differs from `method`.
    #[error("the header Mcp-Method differs from the method in the body")]
    MethodDiffers,
    /// `Mcp-Name` is missing.
    #[error("the header Mcp-Name is missing")]
    NameMissing,
    /// `Mcp-Name` differs from the name, URI or task id in `params`.
    #[error("the header Mcp-Name differs from the name in the body")]
    NameDiffers,
    /// `Mcp-Name` begins and ends as an encoded value and is none.
    #[error("the header Mcp-Name is not valid base64 of UTF-8")]
    NameEncoding,
}

/// Whether a version is a date from 2026-07-28 on, future ones included. What is no date proves nothing.
pub fn is_modern_version(version: &str) -> bool {
    is_date(version) && version >= FIRST_MODERN
}

fn is_date(version: &str) -> bool {
    version.len() == 10
        && version.bytes().enumerate().all(|(i, byte)| match i {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// The era of a POST; `version_header` is `MCP-Protocol-Version`, `has_session` whether `Mcp-Session-Id` is
/// there.
pub fn classify<'a>(version_header: Option<&'a str>, has_session: bool, envelope: &Envelope<'_>) -> Era<'a> {
    let header = version_header.map(str::trim_ascii);
    let meta = envelope.meta_version.as_deref();
    match header {
        Some(version) if is_modern_version(version) => match meta {
            Some(meta) if meta != version => Era::ModernInvalid(Mismatch::VersionDiffers),
            _ => Era::Modern { version },
        },
        None if meta.is_some_and(is_modern_version) => Era::ModernInvalid(Mismatch::VersionMissing),
        _ if envelope.kind == Kind::Request && envelope.method() == "initialize" => Era::LegacyInitialize,
        _ if has_session => Era::LegacySession,
        _ => Era::LegacyUnbound,
    }
}

/// What `Mcp-Name` has to say for a method; `None` where the method has no such header.
#[expect(clippy::option_option, reason = "no such header, and a header for a name that is missing")]
fn named<'e>(envelope: &'e Envelope<'_>) -> Option<Option<&'e str>> {
    Some(match envelope.method() {
        "tools/call" | "prompts/get" => envelope.name.as_deref(),
        "resources/read" => envelope.uri.as_deref(),
        "tasks/get" | "tasks/update" | "tasks/cancel" => envelope.task_id.as_ref().map(|t| &*t.value),
        _ => return None,
    })
}

/// What an `Mcp-Name` value says: `=?base64?…?=` decoded (exact lower case), anything else as it is.
pub fn decode_name(value: &str) -> Result<Cow<'_, str>, Mismatch> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(Cow::Borrowed(value));
    };
    let bytes = STANDARD.decode(encoded).map_err(|_| Mismatch::NameEncoding)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Mismatch::NameEncoding)
}

/// The `Mcp-Name` value that says `name`: as it is where plain ASCII can carry it, else encoded.
pub fn encode_name(name: &str) -> Cow<'_, str> {
    let looks_encoded = name.starts_with("=?base64?") && name.ends_with("?=");
    let plain = name.bytes().all(|b| (0x20..0x7f).contains(&b))
        && !name.starts_with(' ')
        && !name.ends_with(' ')
        && !looks_encoded;
    if plain { Cow::Borrowed(name) } else { Cow::Owned(format!("=?base64?{}?=", STANDARD.encode(name))) }
}

/// Whether the routing headers of a modern message say what its body says (G22; mcp.md section 2.3). A request
/// has to carry them; on a notification they may be missing. Header values are UTF-8, as go sends them.
pub fn check_headers(
    mcp_method: Option<&str>,
    mcp_name: Option<&str>,
    envelope: &Envelope<'_>,
) -> Result<(), Mismatch> {
    let is_request = envelope.kind == Kind::Request;
    match (mcp_method.map(str::trim_ascii), envelope.method.as_deref()) {
        (Some(header), Some(method)) if header != method => return Err(Mismatch::MethodDiffers),
        (None, _) if is_request => return Err(Mismatch::MethodMissing),
        _ => {}
    }
    let Some(name) = named(envelope) else { return Ok(()) };
    match (mcp_name.map(str::trim_ascii), name) {
        (Some(header), Some(name)) if *decode_name(header)? != *name => Err(Mismatch::NameDiffers),
        // A header that names what the body does not.
        (Some(_), None) => Err(Mismatch::NameDiffers),
        (None, Some(_)) if is_request => Err(Mismatch::NameMissing),
        // The server refuses a call without a name; that is not a matter of headers.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
