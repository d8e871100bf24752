use proptest::prelude::*;

use super::*;

const LARGEST: usize = 16 * 1024;

fn seen(text: &str) -> Usual {
    look(&Bytes::copy_from_slice(text.as_bytes()), LARGEST)
}

fn is_other(text: &str) -> bool {
    matches!(seen(text), Usual::Other)
}

#[test]
fn a_usual_request_is_taken_apart() {
    let text = "POST /ns/fleet/mcp?a=b HTTP/1.1\r\nHost: example.com\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\
                MCP-Protocol-Version: 2026-07-28\r\nAccept: a\r\nAccept:  b \r\nX-Empty:\r\nMcp-Name: \u{fc}\r\n\r\n{}POST";
    let Usual::Whole { head, body, len } = seen(text) else { panic!("{text}") };
    assert_eq!((head.method, head.uri.to_string().as_str()), (Method::POST, "/ns/fleet/mcp?a=b"));
    assert_eq!((&*body, len), (&b"{}"[..], text.len() - 4), "what is behind it is not its own");
    let all = |name| head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    assert_eq!(all("accept"), [b"a", b"b"]);
    assert_eq!(all("mcp-name"), ["\u{fc}".as_bytes()]);
    assert_eq!(all("x-empty"), [b""]);
    assert_eq!(all("mcp-protocol-version"), [b"2026-07-28"]);
    let of_this_connection = ["content-length", "connection"];
    assert!(of_this_connection.iter().all(|name| !head.headers.contains_key(*name)), "{:?}", head.headers);
}

#[test]
fn a_get_has_no_body() {
    for length in ["", "content-length: 0\r\n"] {
        let text = format!("GET /mcp?a=b HTTP/1.1\r\nHost: a\r\n{length}Accept: b\r\n\r\nPOST");
        let Usual::Whole { head, body, len } = seen(&text) else { panic!("{text}") };
        assert_eq!((head.method, head.uri.to_string().as_str()), (Method::GET, "/mcp?a=b"));
        assert_eq!((body.len(), len, head.headers.len()), (0, text.len() - 4, 2));
    }
}

#[test]
fn the_rest_of_a_body_is_waited_for() {
    let head = "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n";
    for got in 0..5 {
        let text = format!("{head}{}", &"hello"[..got]);
        assert!(matches!(seen(&text), Usual::Begun(len) if len == head.len() + 5), "{got}");
    }
    assert!(matches!(seen(&format!("{head}hello")), Usual::Whole { .. }));
}

#[test]
fn what_is_unusual_is_for_hyper() {
    let with = |lines: &str| format!("POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n{lines}\r\n{{}}");
    assert!(!is_other(&with("")));
    for lines in [
        "expect: 100-continue\r\n",
        "Expect: x\r\n",
        "upgrade: h2c\r\n",
        "connection: close\r\n",
        "connection: keep-alive, x-private\r\n",
        "connection:\r\n",
        "transfer-encoding: chunked\r\n",
        "content-length: 3\r\n",
        "content-length: 2, 2\r\n",
        "host: b\r\n",
        " folded\r\n",
        "bad name: x\r\n",
        "x: \u{1}\r\n",
        "mcp-session-id: a\r\nmcp-session-id: b\r\n",
        "mcp_session_id: a\r\n",
        &"x: y\r\n".repeat(MOST_LINES),
        &format!("x: {}\r\n", "y".repeat(LARGEST)),
    ] {
        assert!(is_other(&with(lines)), "{lines:?}");
    }
    for text in [
        "",
        "POST",
        "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n",
        "POST /mcp HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "POST /mcp HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}",
        "POST /mcp HTTP/1.0\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
        "POST /mcp HTTP/1.1\nhost: a\ncontent-length: 2\n\n{}",
        "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
        "POST /\"<>\\^`{|} HTTP/1.1\r\nhost:\r\ncontent-length: 2\r\n\r\n{}",
        "POST  /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
        "GET /mcp HTTP/1.1\r\nhost: a\r\n",
        "GET /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
        "GET /mcp HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GETS /mcp HTTP/1.1\r\nhost: a\r\n\r\n",
        "DELETE /mcp HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\nPOST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
    ] {
        assert!(is_other(text), "{text:?}");
    }
}

fn written(response: http::response::Builder, length: usize, close: bool) -> String {
    let (head, ()) = response.body(()).unwrap().into_parts();
    let mut out = Vec::new();
    write_head(&mut out, &head, Framing::Sized(length), &HeaderValue::from_static("now"), close);
    String::from_utf8(out).unwrap()
}

#[test]
fn an_answer_tells_its_length_and_its_end() {
    let json = || http::Response::builder().header("content-type", "application/json");
    let lines = "content-type: application/json\r\ndate: now\r\ncontent-length: 1207\r\n\r\n";
    assert_eq!(written(json(), 1207, false), format!("HTTP/1.1 200 OK\r\n{lines}"));
    assert_eq!(
        written(json().status(404).header("content-length", "7"), 1207, false),
        format!("HTTP/1.1 404 Not Found\r\n{lines}"),
        "what a header says of the length does not count"
    );
    assert_eq!(
        written(http::Response::builder().status(202), 0, true),
        "HTTP/1.1 202 Accepted\r\nconnection: close\r\ndate: now\r\ncontent-length: 0\r\n\r\n"
    );
    let closing = http::Response::builder().status(503).header("connection", "close").header("date", "then");
    assert_eq!(
        written(closing, 10, true),
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ndate: then\r\ncontent-length: 10\r\n\r\n"
    );
    for (status, line) in [(204, "204 No Content"), (304, "304 Not Modified")] {
        let head = written(http::Response::builder().status(status), 0, false);
        assert_eq!(head, format!("HTTP/1.1 {line}\r\ndate: now\r\n\r\n"));
    }
    assert_eq!(
        written(http::Response::builder().status(599), 0, false).lines().next(),
        Some("HTTP/1.1 599 Unknown")
    );
}

#[test]
fn an_answer_may_ask_for_the_end() {
    let closes = |value: &str, ends| {
        let (head, ()) = http::Response::builder().header("connection", value).body(()).unwrap().into_parts();
        let mut out = Vec::new();
        let closes = write_head(&mut out, &head, Framing::Sized(0), &HeaderValue::from_static("now"), ends);
        assert_eq!(closes, String::from_utf8(out).unwrap().contains("\r\nconnection: "), "{value}");
        closes
    };
    assert!(closes("close", false) && closes("Close", true) && closes("keep-alive", true));
    assert!(!closes("keep-alive", false));
}

proptest! {
    /// Whatever passes here has passed the strict check, and says the same there.
    #[test]
    fn nothing_passes_that_the_strict_check_refuses(
        lines in prop::collection::vec("[ -~\t]{0,30}|(content-length|host|Connection|mcp-name): ?[ -~]{0,6}", 0..6),
        length in 0_usize..20,
        body in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let mut text = format!("POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n").into_bytes();
        for line in &lines {
            text.extend_from_slice(line.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(&body);
        let judged = HeadScan::default().advance(&text, LARGEST);
        match look(&Bytes::from(text.clone()), LARGEST) {
            Usual::Whole { body: taken, len, .. } => {
                let head = judged.unwrap().unwrap();
                prop_assert_eq!(head.body, BodyKind::Sized((len - head.len) as u64));
                prop_assert_eq!(&taken[..], &text[head.len..len]);
            }
            Usual::Begun(len) => {
                let head = judged.unwrap().unwrap();
                prop_assert_eq!(head.body, BodyKind::Sized((len - head.len) as u64));
                prop_assert!(len > text.len());
            }
            Usual::Other => {}
        }
    }
}
