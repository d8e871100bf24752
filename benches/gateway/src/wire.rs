//! HTTP/1.1 and MCP as bytes: what the load sends, and how an answer is taken apart. Just enough of both to be
//! correct against the upstream of this benchmark, and cheap.

use memchr::memmem;

/// The path of the fleet: what a gateway routes by, and what the peers pass on.
pub const PATH: &str = "/bench/peers/mcp";
/// Revision of the modern requests.
pub const MODERN: &str = "2026-07-28";
/// Revision of the legacy sessions.
pub const LEGACY: &str = "2025-11-25";

/// The eras that are measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Era {
    /// Every request stands for itself.
    Modern,
    /// A session with an id, pinned to its pod by the gateway.
    Legacy,
}

impl Era {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        if self == Self::Modern { "modern tools/call" } else { "legacy session" }
    }
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    let fixed = "content-type: application/json\r\naccept: application/json, text/event-stream\r\n";
    let n = body.len();
    format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\n{fixed}{headers}content-length: {n}\r\n\r\n{body}")
        .into()
}

/// The headers and the body of a modern call of `tool`; `key` names it in the upstream's notes.
pub fn modern_parts(tool: &str, key: u64) -> (Vec<(&'static str, String)>, String) {
    let headers = vec![
        ("mcp-protocol-version", MODERN.to_owned()),
        ("mcp-method", "tools/call".to_owned()),
        ("mcp-name", tool.to_owned()),
        ("x-bench-key", key.to_string()),
    ];
    let meta = format!(
        r#"{{"io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}"#
    );
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"city":"Zürich"}},"_meta":{meta}}}}}"#
    );
    (headers, body)
}

/// A modern `tools/call`.
pub fn modern_call(tool: &str, key: u64) -> Vec<u8> {
    let (headers, body) = modern_parts(tool, key);
    let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    post(&lines.concat(), &body)
}

/// The first request of a legacy session.
pub fn initialize() -> Vec<u8> {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{LEGACY}","capabilities":{{"roots":{{"listChanged":true}},"sampling":{{}},"elicitation":{{}}}},"clientInfo":{{"name":"bench","title":"Benchmark client","version":"1.0.0"}}}}}}"#
    );
    post("", &body)
}

fn session_headers(session: &str, key: u64) -> String {
    format!("mcp-session-id: {session}\r\nmcp-protocol-version: {LEGACY}\r\nx-bench-key: {key}\r\n")
}

/// The second one.
pub fn initialized(session: &str) -> Vec<u8> {
    post(&session_headers(session, 0), r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
}

/// A legacy `tools/call`.
pub fn legacy_call(session: &str, tool: &str, key: u64) -> Vec<u8> {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"city":"Zürich"}}}}}}"#
    );
    post(&session_headers(session, key), &body)
}

/// The stream of a legacy session.
pub fn legacy_get(session: &str, key: u64) -> Vec<u8> {
    let headers = session_headers(session, key);
    format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{headers}\r\n").into()
}

/// The head of an answer.
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// Bytes of the head.
    pub len: usize,
    /// Bytes of the body; none: chunked.
    pub body: Option<usize>,
}

impl Head {
    /// From the bytes so far; none: more are needed.
    pub fn parse(buf: &[u8]) -> Option<Self> {
        let len = memmem::find(buf, b"\r\n\r\n")? + 4;
        let status = buf.get(9..12).and_then(|s| std::str::from_utf8(s).ok()?.parse().ok()).unwrap_or(0);
        let length = header(&buf[..len], "content-length").and_then(|v| v.parse().ok());
        let chunked = header(&buf[..len], "transfer-encoding").is_some();
        let body = length.or_else(|| (!chunked).then_some(0));
        Some(Self { status, len, body })
    }
}

/// The value of a header in a whole head, or in a request's.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    head.split(|b| *b == b'\n').skip(1).find_map(|line| {
        let value = line.get(name.len()..)?.strip_prefix(b":")?;
        let is = line[..name.len()].eq_ignore_ascii_case(name.as_bytes());
        is.then(|| std::str::from_utf8(value).ok().map(str::trim)).flatten()
    })
}

/// Status and length of a whole answer at the start of `buf`; none: more bytes are needed.
pub fn answer(buf: &[u8]) -> Option<(u16, usize)> {
    let head = Head::parse(buf)?;
    let len = match head.body {
        Some(body) => head.len + body,
        // Pieces are short here: the last one ends the answer.
        None => head.len + memmem::find(&buf[head.len..], b"0\r\n\r\n")? + 5,
    };
    (buf.len() >= len).then_some((head.status, len))
}
