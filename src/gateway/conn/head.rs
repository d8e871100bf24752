//! The strict check of a request head, line by line, before any other parser sees it; pure.
//!
//! Stricter than hyper where the rest of the world reads a head differently than hyper does: whoever
//! frames or routes by another reading of the same bytes can be fed a hidden request (RFC 9112
//! sections 2.2, 5, 6.3 and 11.2). Everything that passes here means the same to every parser.
//!
//! It reads each byte once: what a line says is kept in [`HeadScan`], so a head that arrives in many
//! pieces goes on at the first unfinished line.

use std::ops::Range;

use http::{HeaderName, header};
use memchr::memchr;

use super::reject::Reject;

/// Longest request target, in bytes (as nginx).
const MAX_TARGET: usize = 8192;

/// Method, spaces and version around the longest target.
const REQUEST_LINE_EXTRA: usize = 32;

/// Most header lines; hyper's parser stops at the same number.
const MAX_LINES: u16 = 100;

/// Most empty lines before the request line. RFC 9112 section 2.2 wants one to be ignored.
const MAX_BLANK_LINES: u8 = 2;

/// How the bytes after a head are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// So many bytes; 0 for none.
    Sized(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A head that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes, with the empty line.
    pub(crate) len: usize,
    /// What follows.
    pub(crate) body: BodyKind,
}

/// Methods that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Method {
    #[default]
    Post,
    Get,
    Delete,
    Options,
}

/// Headers that decide framing or routing, and such as nearly every request has: a known name needs no look at each of
/// its bytes. The discriminant is the bit in [`HeadScan::seen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Host,
    Origin,
    Authorization,
    SessionId,
    McpMethod,
    McpName,
    ProtocolVersion,
    Length,
    Coding,
    Connection,
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    ContentType,
    UserAgent,
}

/// A header line that passed. Positions count from the head's first byte.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) field: Option<Field>,
    pub(crate) name: Range<usize>,
    /// Without white space around it.
    pub(crate) value: Range<usize>,
}

/// What is known of a head so far. All positions count from the head's first byte.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeadScan {
    /// Start of the first line that was not judged yet.
    from: usize,
    lines: u16,
    blank: u8,
    seen: u16,
    started: bool,
    http10: bool,
    modern: bool,
    duplicate: bool,
    method: Method,
    authority: Range<usize>,
    https: bool,
    host: Range<usize>,
    length: Option<u64>,
}

impl HeadScan {
    /// Judges the lines of `bytes` that are complete and not judged yet. `bytes` starts at the same
    /// byte in every call. `None`: more bytes are needed.
    pub(crate) fn advance(&mut self, bytes: &[u8], max_bytes: usize) -> Result<Option<Head>, Reject> {
        self.advance_with(bytes, max_bytes, &mut |_| {})
    }

    /// The same, and tells every header line that passes.
    pub(crate) fn advance_with(
        &mut self,
        bytes: &[u8],
        max_bytes: usize,
        line_passed: &mut impl FnMut(Line),
    ) -> Result<Option<Head>, Reject> {
        while let Some(at) = memchr(b'\n', &bytes[self.from..]) {
            let start = self.from;
            let line = bytes[start..start + at].strip_suffix(b"\r").ok_or(Reject::BARE_LF)?;
            self.from = start + at + 1;
            if !self.started {
                if line.is_empty() {
                    self.blank += 1;
                    if self.blank > MAX_BLANK_LINES {
                        return Err(Reject::REQUEST_LINE);
                    }
                    continue;
                }
                self.request_line(line, start)?;
                self.started = true;
            } else if !line.is_empty() {
                line_passed(self.field(line, start)?);
            }
            if self.from > max_bytes {
                return Err(Reject::HEAD_TOO_LARGE);
            }
            if line.is_empty() {
                return self.complete(bytes).map(Some);
            }
        }
        if !self.started && bytes.len() - self.from > MAX_TARGET + REQUEST_LINE_EXTRA {
            return Err(Reject::URI_TOO_LONG);
        }
        if bytes.len() > max_bytes { Err(Reject::HEAD_TOO_LARGE) } else { Ok(None) }
    }

    /// The request line says HTTP/1.0.
    pub(crate) fn is_http10(&self) -> bool {
        self.http10
    }

    fn request_line(&mut self, line: &[u8], start: usize) -> Result<(), Reject> {
        let method_end = memchr(b' ', line).ok_or(Reject::REQUEST_LINE)?;
        let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(Reject::REQUEST_LINE);
        }
        let target_end = memchr(b' ', rest).unwrap_or(rest.len());
        let target = &rest[..target_end];
        if target.len() > MAX_TARGET {
            return Err(Reject::URI_TOO_LONG);
        }
        self.http10 = match rest.get(target_end + 1..) {
            Some(b"HTTP/1.1") => false,
            Some(b"HTTP/1.0") => true,
            Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Reject::VERSION);
            }
            _ => return Err(Reject::REQUEST_LINE),
        };
        self.method = match method {
            b"POST" => Method::Post,
            b"GET" => Method::Get,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"HEAD" => return Err(Reject::HEAD_METHOD),
            b"PUT" | b"PATCH" | b"TRACE" | b"CONNECT" => return Err(Reject::METHOD),
            _ => return Err(Reject::UNKNOWN_METHOD),
        };
        self.target(target, start + method_end + 1)
    }

    fn target(&mut self, target: &[u8], start: usize) -> Result<(), Reject> {
        // A fragment is never sent; hyper would cut it off silently.
        if target.is_empty() || target.iter().any(|byte| !byte.is_ascii_graphic() || *byte == b'#') {
            return Err(Reject::TARGET);
        }
        let scheme = match target {
            [b'/', ..] => return Ok(()),
            b"*" if self.method == Method::Options => return Ok(()),
            _ if starts_with_ignore_case(target, b"http://") => 7,
            _ if starts_with_ignore_case(target, b"https://") => 8,
            _ => return Err(Reject::TARGET),
        };
        self.https = scheme == 8;
        let rest = &target[scheme..];
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        self.authority = start + scheme..start + scheme + end;
        if is_host(&rest[..end]) { Ok(()) } else { Err(Reject::TARGET) }
    }

    fn field(&mut self, line: &[u8], start: usize) -> Result<Line, Reject> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Reject::OBS_FOLD);
        }
        self.lines += 1;
        if self.lines > MAX_LINES {
            return Err(Reject::TOO_MANY_LINES);
        }
        let colon = memchr(b':', line).ok_or(Reject::NAME)?;
        let (name, raw) = (&line[..colon], &line[colon + 1..]);
        let field = field_of(name);
        if field.is_none() {
            check_name(name)?;
        }
        // One pass without a branch per byte, which the compiler turns into vector code.
        if raw.iter().fold(false, |bad, byte| bad | is_control(*byte)) {
            return Err(Reject::VALUE);
        }
        let value = raw.trim_ascii_start();
        let value_start = start + line.len() - value.len();
        let value = value.trim_ascii_end();
        if let Some(field) = field {
            self.known(field, value, value_start)?;
        }
        Ok(Line { field, name: start..start + colon, value: value_start..value_start + value.len() })
    }

    fn known(&mut self, field: Field, value: &[u8], start: usize) -> Result<(), Reject> {
        let bit = 1 << field as u16;
        let again = self.seen & bit != 0;
        self.seen |= bit;
        match field {
            Field::Host => {
                if again || !is_host(value) {
                    return Err(Reject::HOST);
                }
                self.host = start..start + value.len();
            }
            Field::Origin | Field::Authorization | Field::SessionId | Field::McpMethod | Field::McpName => {
                self.duplicate |= again;
            }
            Field::ProtocolVersion => {
                self.duplicate |= again;
                self.modern |= is_modern(value);
            }
            Field::Length => {
                let length = parse_length(value).ok_or(Reject::LENGTH)?;
                if self.length.is_some_and(|known| known != length) {
                    return Err(Reject::LENGTH);
                }
                self.length = Some(length);
            }
            Field::Coding => {
                if again || self.http10 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reject::CODING);
                }
            }
            Field::Connection => {
                if value.split(|byte| *byte == b',').any(|name| is_end_to_end(name.trim_ascii())) {
                    return Err(Reject::CONNECTION);
                }
            }
            Field::Accept
            | Field::AcceptEncoding
            | Field::AcceptLanguage
            | Field::ContentType
            | Field::UserAgent => {}
        }
        Ok(())
    }

    fn complete(&self, bytes: &[u8]) -> Result<Head, Reject> {
        if self.duplicate {
            return Err(if self.modern { Reject::DUPLICATE_MODERN } else { Reject::DUPLICATE });
        }
        if self.seen & (1 << Field::Host as u16) == 0 {
            return Err(Reject::HOST);
        }
        if !self.authority.is_empty() {
            let port: &[u8] = if self.https { b":443" } else { b":80" };
            let bare = |range: &Range<usize>| {
                let text = &bytes[range.clone()];
                text.strip_suffix(port).unwrap_or(text)
            };
            if !bare(&self.authority).eq_ignore_ascii_case(bare(&self.host)) {
                return Err(Reject::AUTHORITY);
            }
        }
        let chunked = self.seen & (1 << Field::Coding as u16) != 0;
        if chunked && self.length.is_some() {
            return Err(Reject::BOTH_LENGTHS);
        }
        let body = if chunked { BodyKind::Chunked } else { BodyKind::Sized(self.length.unwrap_or_default()) };
        if body != BodyKind::Sized(0) && matches!(self.method, Method::Get | Method::Delete) {
            return Err(Reject::BODY);
        }
        Ok(Head { len: self.from, body })
    }
}

/// Names of MCP's own headers, made by the compiler and not for each request.
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

impl Field {
    /// Its name, which is known without reading it once more.
    pub(crate) fn header_name(self) -> HeaderName {
        match self {
            Self::Host => header::HOST,
            Self::Origin => header::ORIGIN,
            Self::Authorization => header::AUTHORIZATION,
            Self::SessionId => SESSION_ID,
            Self::McpMethod => MCP_METHOD,
            Self::McpName => MCP_NAME,
            Self::ProtocolVersion => PROTOCOL_VERSION,
            Self::Length => header::CONTENT_LENGTH,
            Self::Coding => header::TRANSFER_ENCODING,
            Self::Connection => header::CONNECTION,
            Self::Accept => header::ACCEPT,
            Self::AcceptEncoding => header::ACCEPT_ENCODING,
            Self::AcceptLanguage => header::ACCEPT_LANGUAGE,
            Self::ContentType => header::CONTENT_TYPE,
            Self::UserAgent => header::USER_AGENT,
        }
    }
}

/// A name that is not known: a token, and none that another parser takes for one of ours.
fn check_name(name: &[u8]) -> Result<(), Reject> {
    let mut has_underscore = false;
    let all_tokens = name.iter().all(|byte| {
        has_underscore |= *byte == b'_';
        is_token(*byte)
    });
    if name.is_empty() || !all_tokens {
        return Err(Reject::NAME);
    }
    if has_underscore && reads_like_ours(name) { Err(Reject::UNDERSCORE) } else { Ok(()) }
}

fn field_of(name: &[u8]) -> Option<Field> {
    let first = name.first()? | 0x20;
    let (text, field): (&[u8], Field) = match (name.len(), first) {
        (4, _) => (b"host", Field::Host),
        (6, b'a') => (b"accept", Field::Accept),
        (6, _) => (b"origin", Field::Origin),
        (8, _) => (b"mcp-name", Field::McpName),
        (10, b'm') => (b"mcp-method", Field::McpMethod),
        (10, b'u') => (b"user-agent", Field::UserAgent),
        (10, _) => (b"connection", Field::Connection),
        (12, _) => (b"content-type", Field::ContentType),
        (13, _) => (b"authorization", Field::Authorization),
        (14, b'm') => (b"mcp-session-id", Field::SessionId),
        (14, _) => (b"content-length", Field::Length),
        (15, _) if name.get(7).is_some_and(|byte| byte | 0x20 == b'e') => {
            (b"accept-encoding", Field::AcceptEncoding)
        }
        (15, _) => (b"accept-language", Field::AcceptLanguage),
        (17, _) => (b"transfer-encoding", Field::Coding),
        (20, _) => (b"mcp-protocol-version", Field::ProtocolVersion),
        _ => return None,
    };
    // Most clients send them in lower case: one comparison instead of one for each byte.
    (name == text || name.eq_ignore_ascii_case(text)).then_some(field)
}

/// Headers that a client may not have removed on the way by listing them in `Connection`: without
/// them the request would be routed, authorised or framed otherwise than it was judged.
fn is_end_to_end(name: &[u8]) -> bool {
    starts_with_ignore_case(name, b"mcp-")
        || [&b"authorization"[..], b"host", b"origin", b"content-length", b"content-type", b"traceparent"]
            .iter()
            .any(|listed| name.eq_ignore_ascii_case(listed))
}

/// CGI-like servers read `-` and `_` in names alike: such a name would override a header of ours.
fn reads_like_ours(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 16] = [
        b"host",
        b"origin",
        b"authorization",
        b"proxy-authorization",
        b"connection",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"forwarded",
        b"x-real-ip",
        b"x-request-id",
        b"x-served-by",
        b"last-event-id",
        b"trace-parent",
        b"traceparent",
        b"tracestate",
    ];
    let matches = |prefix: &[u8]| {
        name.len() >= prefix.len()
            && name.iter().zip(prefix).all(|(a, b)| {
                let a = if *a == b'_' { b'-' } else { a.to_ascii_lowercase() };
                a == *b
            })
    };
    matches(b"mcp-")
        || matches(b"x-forwarded-")
        || NAMES.iter().any(|listed| listed.len() == name.len() && matches(listed))
}

/// Whether a protocol version is a date from 2026-07-28 on: such a client expects MCP's own error code.
fn is_modern(version: &[u8]) -> bool {
    version.len() == 10 && version.is_ascii() && version >= b"2026-07-28".as_slice() && version[4] == b'-'
}

/// Digits only; 18 of them always fit.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// `host [":" port]` of RFC 3986 without user information and without percent-encoding: a name, an
/// IPv4 address, or an IPv6 address in brackets.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = if value.first() == Some(&b'[') {
        let Some(end) = memchr(b']', value) else { return false };
        let address = &value[1..end];
        if !std::str::from_utf8(address).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()) {
            return false;
        }
        (address, &value[end + 1..])
    } else {
        let end = memchr(b':', value).unwrap_or(value.len());
        if !value[..end].iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte)) {
            return false;
        }
        (&value[..end], &value[end..])
    };
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5 && parse_length(digits).is_some_and(|port| u16::try_from(port).is_ok())
        }
        _ => false,
    };
    !host.is_empty() && port_ok
}

fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

const fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

/// `tchar` of RFC 9110 section 5.6.2.
const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};
