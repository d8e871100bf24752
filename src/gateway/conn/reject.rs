//! What the guard answers to a request that hyper must not see; pure.

/// A refusal with its fixed answer. `reason` is stable: it is what logs and clients can rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reject {
    /// HTTP status.
    pub(crate) status: u16,
    /// JSON-RPC error code.
    pub(crate) code: i32,
    /// Stable word for `error.data.reason`.
    pub(crate) reason: &'static str,
    /// One sentence for a human.
    pub(crate) message: &'static str,
}

/// JSON-RPC "Invalid Request".
const INVALID_REQUEST: i32 = -32600;

/// MCP "HeaderMismatch" of revision 2026-07-28.
const HEADER_MISMATCH: i32 = -32020;

impl Reject {
    const fn new(status: u16, reason: &'static str, message: &'static str) -> Self {
        Self { status, code: INVALID_REQUEST, reason, message }
    }

    const fn bad(reason: &'static str, message: &'static str) -> Self {
        Self::new(400, reason, message)
    }

    pub(crate) const BARE_LF: Self = Self::bad("bare-line-feed", "lines of the head must end in CR LF");
    pub(crate) const REQUEST_LINE: Self = Self::bad("request-line", "the request line is malformed");
    pub(crate) const TARGET: Self = Self::bad("request-target", "the request target is malformed");
    pub(crate) const OBS_FOLD: Self = Self::bad("folded-header", "header lines must not be folded");
    pub(crate) const NAME: Self = Self::bad("header-name", "a header name is malformed");
    pub(crate) const VALUE: Self = Self::bad("header-value", "a header value holds a control character");
    pub(crate) const UNDERSCORE: Self =
        Self::bad("header-underscore", "a header name with '_' reads like a routing or forwarding header");
    pub(crate) const LENGTH: Self = Self::bad("content-length", "Content-Length is invalid or contradictory");
    pub(crate) const CODING: Self =
        Self::bad("transfer-encoding", "Transfer-Encoding must be one 'chunked', in HTTP/1.1 only");
    pub(crate) const BOTH_LENGTHS: Self =
        Self::bad("length-and-chunked", "Content-Length and Transfer-Encoding exclude each other");
    pub(crate) const HOST: Self = Self::bad("host", "exactly one valid Host is needed");
    pub(crate) const AUTHORITY: Self = Self::bad("authority", "the target's authority differs from Host");
    pub(crate) const CONNECTION: Self =
        Self::bad("connection-header", "Connection lists a header that is not hop-by-hop");
    pub(crate) const DUPLICATE: Self =
        Self::bad("duplicate-header", "a routing header is there more than once");
    pub(crate) const DUPLICATE_MODERN: Self = Self { code: HEADER_MISMATCH, ..Self::DUPLICATE };
    pub(crate) const BODY: Self = Self::bad("unexpected-body", "GET and DELETE have no body here");
    pub(crate) const METHOD: Self =
        Self::new(405, "method", "allowed methods are POST, GET, DELETE and OPTIONS");
    pub(crate) const HEAD_METHOD: Self = Self { message: "", ..Self::METHOD };
    pub(crate) const UNKNOWN_METHOD: Self = Self::new(501, "unknown-method", "this method is unknown");
    pub(crate) const VERSION: Self = Self::new(505, "http-version", "HTTP/1.1, HTTP/1.0 or HTTP/2 is needed");
    pub(crate) const URI_TOO_LONG: Self = Self::new(414, "uri-too-long", "the request target is too long");
    pub(crate) const HEAD_TOO_LARGE: Self = Self::new(431, "headers-too-large", "the head is too large");
    pub(crate) const TOO_MANY_LINES: Self = Self::new(431, "too-many-headers", "too many header lines");
    pub(crate) const TIMEOUT: Self = Self::new(408, "request-timeout", "the head did not arrive in time");

    /// The whole answer as bytes: status line, headers with `Connection: close`, and a JSON-RPC error
    /// (none for `HEAD`, whose answer has no body: RFC 9110 section 9.3.2).
    pub(crate) fn answer(&self) -> Vec<u8> {
        let body = if self.message.is_empty() {
            String::new()
        } else {
            format!(
                r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{},"message":"{}","data":{{"source":"gateway","reason":"{}"}}}}}}"#,
                self.code, self.message, self.reason
            )
        };
        let allow = if self.status == 405 { "allow: POST, GET, DELETE, OPTIONS\r\n" } else { "" };
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{allow}connection: close\r\n\r\n{body}",
            self.status,
            self.phrase(),
            body.len(),
        )
        .into_bytes()
    }

    fn phrase(&self) -> &'static str {
        match self.status {
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            414 => "URI Too Long",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            505 => "HTTP Version Not Supported",
            _ => "Bad Request",
        }
    }
}
