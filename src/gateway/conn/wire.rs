//! HTTP/1.1 towards an endpoint for the common cases: a small request, and an answer whose length its head tells or
//! that comes in chunks (`chunks`). Pure. Whatever is neither is named as such, and hyper reads it: interim answers,
//! those of other versions, those that end with their connection.

use std::{mem::MaybeUninit, ops::Range};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, response};

/// Most header lines of an answer; hyper's parser stops at the same number.
const MAX_LINES: usize = 100;
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// Largest head of an answer, in bytes.
pub const MAX_HEAD: usize = 64 * 1024;

/// Appends the head of a request with a body of `body_len` bytes. The types of its parts leave no room for line
/// ends in them.
pub fn write_head<B>(out: &mut Vec<u8>, request: &Request<B>, body_len: usize) {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    for part in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in request.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    // RFC 9110 section 8.6: a method that means a body says so even where it is empty.
    if body_len > 0 || *request.method() == Method::POST {
        write_length(out, body_len);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the line that tells how long a body is.
pub(crate) fn write_length(out: &mut Vec<u8>, mut length: usize) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (length % 10) as u8;
        length /= 10;
        if length == 0 {
            break;
        }
    }
    for part in [b"content-length: ", &digits[at..], b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// What the bytes of an answer are so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The head is not complete.
    Partial,
    /// A final answer with a body of so many bytes.
    Plain(Head, usize),
    /// A final answer in chunks.
    Chunked(Head),
    /// Anything else, broken ones included.
    Other,
}

/// The head of a final answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Status.
    pub status: StatusCode,
    /// Its bytes, with the empty line.
    pub len: usize,
    /// The connection may be used again.
    pub keeps: bool,
    /// Seconds for which the server keeps it, where it says so.
    pub keep_alive: Option<u64>,
    lines: Vec<(Range<usize>, Range<usize>)>,
}

/// Looks at an answer from its first byte. `longest`: the most bytes of a body that is read whole; a stream of
/// events never is. For requests whose answers have a body, so not for `HEAD`.
pub fn scan(bytes: &[u8], longest: u64) -> Scan {
    let mut headers = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_LINES];
    let mut answer = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut answer, bytes, &mut headers);
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => return Scan::Partial,
        Ok(httparse::Status::Partial) | Err(_) => return Scan::Other,
    };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    // Interim answers are followed by another one; these two have no body whatever their head says.
    let Some(status) = status.filter(|s| s.as_u16() >= 200 && !matches!(s.as_u16(), 204 | 304)) else {
        return Scan::Other;
    };
    if answer.version != Some(1) {
        return Scan::Other;
    }
    let start = bytes.as_ptr() as usize;
    let range = |part: &[u8]| {
        let from = part.as_ptr() as usize - start;
        from..from + part.len()
    };
    let (mut length, mut chunked, mut events, mut keeps, mut keep_alive) = (None, false, false, true, None);
    let mut lines = Vec::with_capacity(answer.headers.len());
    for line in answer.headers.iter() {
        match line.name.len() {
            // One length, in digits: of several even equal ones hyper has to judge.
            14 if line.name.eq_ignore_ascii_case("content-length") => match (length, digits(line.value)) {
                (None, Some(n)) => length = Some(n),
                _ => return Scan::Other,
            },
            // One coding: hyper has to judge others.
            17 if line.name.eq_ignore_ascii_case("transfer-encoding") => {
                if chunked || !line.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Scan::Other;
                }
                chunked = true;
            }
            12 if line.name.eq_ignore_ascii_case("content-type") => events |= is_events(line.value),
            10 if line.name.eq_ignore_ascii_case("connection") => keeps &= !says_close(line.value),
            10 if line.name.eq_ignore_ascii_case("keep-alive") => keep_alive = timeout(line.value),
            _ => {}
        }
        lines.push((range(line.name.as_bytes()), range(line.value)));
    }
    let head = Head { status, len, keeps, keep_alive, lines };
    match (length, chunked) {
        (None, true) => Scan::Chunked(head),
        (Some(length), false) if length <= longest && !events => Scan::Plain(head, length as usize),
        // Two that may contradict each other, a long one, or none.
        _ => Scan::Other,
    }
}

impl Head {
    /// Status and headers, of the bytes that were scanned; values are parts of them and not copied. `None`: a
    /// name or value that may not be passed on.
    pub fn parts(&self, bytes: &Bytes) -> Option<response::Parts> {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = self.status;
        let mut headers = HeaderMap::with_capacity(self.lines.len() + 4);
        for (name, value) in &self.lines {
            let name = HeaderName::from_bytes(&bytes[name.clone()]).ok()?;
            headers.append(name, HeaderValue::from_maybe_shared(bytes.slice(value.clone())).ok()?);
        }
        head.headers = headers;
        Some(head)
    }
}

/// Digits only; 18 of them always fit.
fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

fn is_events(value: &[u8]) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    value.get(..EVENTS.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENTS))
}

fn says_close(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Seconds of `Keep-Alive: timeout=n`.
pub fn keep_alive(headers: &HeaderMap) -> Option<u64> {
    timeout(headers.get(KEEP_ALIVE)?.as_bytes())
}

fn timeout(value: &[u8]) -> Option<u64> {
    let value = std::str::from_utf8(value).ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    seconds.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail loudly")]

    use proptest::prelude::*;

    use super::*;

    fn plain(text: &str) -> Option<(Head, usize)> {
        match scan(text.as_bytes(), 1024) {
            Scan::Plain(head, length) => Some((head, length)),
            Scan::Partial | Scan::Chunked(_) | Scan::Other => None,
        }
    }

    #[test]
    fn a_request_is_written_as_it_is() {
        let write = |request: http::request::Builder, body_len| {
            let mut out = Vec::new();
            write_head(&mut out, &request.body(()).unwrap(), body_len);
            String::from_utf8(out).unwrap()
        };
        let post = || Request::post("/mcp?a=b").header("Host", "localhost:8080").header("mcp-name", "ü");
        let head = "POST /mcp?a=b HTTP/1.1\r\nhost: localhost:8080\r\nmcp-name: ü\r\n";
        assert_eq!(write(post(), 1234), format!("{head}content-length: 1234\r\n\r\n"));
        assert_eq!(write(post(), 0), format!("{head}content-length: 0\r\n\r\n"));
        assert_eq!(write(Request::delete("/mcp"), 0), "DELETE /mcp HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn a_plain_answer_is_taken_apart() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nmcp-session-id: s\r\nmcp-session-id: t\r\nContent-Length: 2\r\n\r\n{}";
        let (head, length) = plain(text).unwrap();
        assert_eq!((head.len, length, head.keeps), (text.len() - 2, 2, true));
        let head = head.parts(&Bytes::copy_from_slice(text.as_bytes())).unwrap();
        assert_eq!((head.status, head.headers.len()), (StatusCode::OK, 4));
        assert_eq!(head.headers["content-type"], "application/json");
        assert_eq!(head.headers.get_all("mcp-session-id").iter().count(), 2);
    }

    #[test]
    fn what_is_unusual_is_not_read_here() {
        for head in [
            "HTTP/1.1 100 Continue\r\ncontent-length: 0",
            "HTTP/1.1 101 Switching Protocols\r\ncontent-length: 0",
            "HTTP/1.1 204 No Content\r\ncontent-length: 0",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5",
            "HTTP/1.0 200 OK\r\ncontent-length: 5",
            "HTTP/1.1 200 OK",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
            "HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked",
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: identity",
            "HTTP/1.1 200 OK\r\ntransfer-encoding:",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6",
            "HTTP/1.1 200 OK\r\ncontent-length: +5",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5",
            "HTTP/1.1 200 OK\r\ncontent-length: 1025",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: Text/Event-Stream; charset=utf-8",
            "HTTP/1.1 200 OK\r\nbad name: x\r\ncontent-length: 5",
            "HTTP/1.1 2000 OK\r\ncontent-length: 5",
            "SSH-2.0-OpenSSH_9.2",
        ] {
            assert_eq!(scan(format!("{head}\r\n\r\nhello").as_bytes(), 1024), Scan::Other, "{head}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD));
        assert_eq!(scan(endless.as_bytes(), 1024), Scan::Other);
    }

    #[test]
    fn an_answer_in_chunks_is_named_as_such() {
        for lines in [
            "transfer-encoding: chunked",
            "Transfer-Encoding:  Chunked \r\ncontent-type: text/event-stream",
            "content-type: application/json\r\nconnection: keep-alive\r\ntransfer-encoding: chunked",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
            let Scan::Chunked(head) = scan(text.as_bytes(), 0) else { panic!("{lines}") };
            assert_eq!((head.len, head.keeps), (text.len(), true), "{lines}");
        }
    }

    #[test]
    fn who_closes_is_believed() {
        for (value, keeps) in [("close", false), ("Keep-Alive, CLOSE", false), ("keep-alive", true)] {
            let text = format!("HTTP/1.1 200 OK\r\nconnection: {value}\r\ncontent-length: 0\r\n\r\n");
            assert_eq!(plain(&text).unwrap().0.keeps, keeps, "{value}");
        }
        let keeping = |value: &str| {
            let text = format!("HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\ncontent-length: 0\r\n\r\n");
            plain(&text).unwrap().0.keep_alive
        };
        assert_eq!((keeping("timeout=5, max=100"), keeping("max=100")), (Some(5), None));
    }

    #[test]
    fn a_server_says_how_long_it_keeps_a_connection() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", HeaderValue::from_static(value));
            keep_alive(&headers)
        };
        assert_eq!(of("timeout=5"), Some(5));
        assert_eq!(of("max=100, timeout=0"), Some(0));
        assert_eq!(of("max=100"), None);
    }

    proptest! {
        /// However an answer is cut, it is partial until its head is there, and the same from then on.
        #[test]
        fn pieces_say_the_same(length in 0_usize..2000, cut in 0_usize..300, name in "[a-z]{1,12}") {
            let text = format!("HTTP/1.1 200 OK\r\nx-{name}: v\r\ncontent-length: {length}\r\n\r\n");
            let whole = scan(text.as_bytes(), 1024);
            prop_assert_eq!(matches!(whole, Scan::Plain(..)), length <= 1024);
            if cut < text.len() {
                prop_assert_eq!(scan(&text.as_bytes()[..cut], 1024), Scan::Partial);
            }
            prop_assert_eq!(scan(format!("{text}rest").as_bytes(), 1024), whole);
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Scan::Plain(head, _) | Scan::Chunked(head) = scan(&bytes, 1024) {
                let _ = head.parts(&Bytes::from(bytes));
            }
        }
    }
}
