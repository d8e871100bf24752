//! Request framing: what is refused, with which status, and that nobody behind the guard sees it.

use super::*;

/// Complete requests that must be answered by the guard alone.
const REFUSED: &[(&str, u16)] = &[
    // Line ends and folding.
    ("GET / HTTP/1.1\nHost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", 400),
    ("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Names.
    ("GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nMcp_Session_Id: b\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nmcp-session_id: b\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: b\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n", 400),
    // Request line.
    ("GET /\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("PUT / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    // Length.
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4 4\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ", 400),
    ("DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    // Host.
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a:70000\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: [zz]\r\n\r\n", 400),
    ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    // Headers that steer.
    ("POST / HTTP/1.1\r\nHost: a\r\nConnection: Mcp-Session-Id\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nConnection: close, mcp-method\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: authorization\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nConnection: TraceParent\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nMcp-Session-Id: 1\r\nmcp-session-id: 1\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nMcp-Method: 1\r\nMcp-Method: 2\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nMcp-Name: 1\r\nMcp-Name: 2\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nMcp-Protocol-Version: 1\r\nMcp-Protocol-Version: 2\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\nOrigin: http://b\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n", 400),
];

#[test]
fn bad_heads_are_refused_in_every_chunking_and_seen_by_nobody() {
    in_paused_time(async {
        for (bytes, status) in REFUSED {
            for pieces in chunkings(bytes.as_bytes()) {
                let (answers, seen) = talk(&pieces).await;
                assert_eq!(statuses(&answers), [*status], "{bytes:?} as {} pieces: {answers}", pieces.len());
                assert!(answers.contains("connection: close\r\n"), "{answers}");
                assert!(seen.is_empty(), "{bytes:?} reached the service: {seen:?}");
            }
        }
    });
}

#[test]
fn heads_that_are_too_large_are_refused_before_they_end() {
    let huge = "x".repeat(70_000);
    let lines = "X: y\r\n".repeat(150);
    let rows = [
        (format!("GET /{huge} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET /{huge}"), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &huge[..8192]), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {huge}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {huge}"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", &huge[..16_384]), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), 431),
        (huge.clone(), 414),
    ];
    in_paused_time(async {
        for (bytes, status) in &rows {
            for size in [1_000, 8_000, 100_000] {
                let pieces: Vec<_> = bytes.as_bytes().chunks(size).collect();
                let (answers, seen) = talk(&pieces).await;
                assert_eq!(statuses(&answers), [*status], "{}: {answers}", &bytes[..40]);
                assert!(seen.is_empty());
            }
        }
    });
}

#[test]
fn good_requests_arrive_as_sent_in_every_chunking() {
    let rows = [
        ("GET /a?b=c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", r#"GET /a b"""#),
        ("\r\nGET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", r#"GET /a b"""#),
        ("GET /a HTTP/1.0\r\nHost: a\r\n\r\n", r#"GET /a b"""#),
        ("GET /a HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close\r\n\r\n", r#"GET /a b"""#),
        ("GET http://A:80/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", r#"GET /a b"""#),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", r#"OPTIONS * b"""#),
        (
            "DELETE /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            r#"DELETE /a b"""#,
        ),
        (
            "POST /a HTTP/1.1\r\nHost: a\r\nX:\t\u{e4} \r\ncontent-length: 4\r\nConnection: close\r\n\r\nabcd",
            r#"POST /a b"abcd""#,
        ),
        (
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
            r#"POST /a b"ab""#,
        ),
        (
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nConnection: close, X-Y\r\n\r\n2;x=y\r\nab\r\n1 \r\nc\r\n0\r\nT: u\r\n\r\n",
            r#"POST /a b"abc""#,
        ),
        (
            "POST /a HTTP/1.1\r\nHost: a\r\nMcp-Name: x\r\nMcp-Method: y\r\nMcp-Session-Id: z\r\nContent_Type_X: b\r\nConnection: close\r\n\r\n",
            r#"POST /a b"""#,
        ),
    ];
    in_paused_time(async {
        for (bytes, expected) in rows {
            for pieces in chunkings(bytes.as_bytes()) {
                let (answers, seen) = talk(&pieces).await;
                assert_eq!(statuses(&answers), [200], "{bytes:?}: {answers}");
                assert_eq!(seen, [expected], "{bytes:?} in {} pieces", pieces.len());
            }
        }
    });
}

#[test]
fn broken_chunks_are_the_clients_fault() {
    let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(17_000));
    let bodies = [
        "-5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "ZZ\r\n",
        "\r\nabc\r\n",
        "11111111111111111\r\na",
        "5\nabcde\r\n0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "5 5\r\nabcde\r\n0\r\n\r\n",
        "5;a\nb\r\nabcde\r\n0\r\n\r\n",
        "0\r\nT: u\n\r\n\r\n",
        "0\r\n T: u\r\n\r\n",
        "0\r\n\n",
        extension.as_str(),
    ];
    in_paused_time(async {
        for body in bodies {
            let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            let all = chunkings(bytes.as_bytes());
            for pieces in all.iter().take(200) {
                let (answers, seen) = talk(pieces).await;
                assert_eq!(statuses(&answers), [400], "{body:?} in {} pieces: {answers}", pieces.len());
                assert_eq!(seen, ["fault Some(Malformed)"], "{body:?}");
            }
        }
    });
}

#[test]
fn a_repeated_routing_header_is_a_header_mismatch_for_modern_clients_only() {
    let request = |version: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nMcp-Name: 1\r\nMcp-Name: 2\r\nMcp-Protocol-Version: {version}\r\n\r\n"
        )
    };
    in_paused_time(async {
        let (modern, _) = talk(&[request("2026-07-28").as_bytes()]).await;
        assert!(modern.contains(r#""code":-32020"#), "{modern}");
        let (legacy, _) = talk(&[request("2025-11-25").as_bytes()]).await;
        assert!(legacy.contains(r#""code":-32600"#), "{legacy}");
        assert!(legacy.contains(r#""source":"gateway""#), "{legacy}");
    });
}

#[test]
fn the_answer_to_head_has_no_body() {
    in_paused_time(async {
        let (answer, _) = talk(&[b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"]).await;
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(answer.contains("allow: POST, GET, DELETE, OPTIONS\r\n"), "{answer}");
    });
}

/// Mutants of good heads: what the guard lets through, hyper's own parser reads in full and at the
/// same length, and a bad one is never let through in one chunking and refused in another.
#[test]
fn what_passes_is_read_alike_by_httparse_and_in_any_chunking() {
    const BASE: &str = "POST /a?b HTTP/1.1\r\nHost: example.com:80\r\nContent-Length: 3\r\nMcp-Name: x\r\nConnection: close\r\n\r\nabc";
    const SPICE: &[&str] = &[
        "\r",
        "\n",
        "\r\n",
        " ",
        "\t",
        ":",
        "\0",
        ",",
        "_",
        "\x7f",
        "\u{e4}",
        "0",
        "Transfer-Encoding: chunked\r\n",
        "Host: b\r\n",
        "X",
        "\r\n\r\n",
    ];
    fastrand::seed(7);
    let mut passed = 0;
    for _ in 0..20_000 {
        let mut bytes = BASE.as_bytes().to_vec();
        for _ in 0..fastrand::usize(1..3) {
            let at = fastrand::usize(..bytes.len());
            let end = (at + fastrand::usize(0..3)).min(bytes.len());
            bytes.splice(at..end, SPICE[fastrand::usize(..SPICE.len())].bytes());
        }
        let (mut phase, mut judged) = (Phase::Head(HeadScan::default()), Vec::new());
        judged.push(framing::judge(&mut phase, &bytes, 16_384));
        let whole = judged.remove(0);
        let (mut phase, mut done, mut fault, mut end) = (Phase::Head(HeadScan::default()), 0, None, 0);
        while end < bytes.len() && fault.is_none() {
            end = (end + fastrand::usize(1..20)).min(bytes.len());
            let judged = framing::judge(&mut phase, &bytes[done..end], 16_384);
            done += judged.pass;
            fault = judged.fault;
        }
        assert_eq!((done, fault), (whole.pass, whole.fault), "{:?}", String::from_utf8_lossy(&bytes));
        if whole.head && whole.fault.is_none() {
            passed += 1;
            let mut headers = [httparse::EMPTY_HEADER; 100];
            let mut request = httparse::Request::new(&mut headers);
            let length = match request.parse(&bytes) {
                Ok(httparse::Status::Complete(length)) => length,
                other => panic!("{other:?}: {:?}", String::from_utf8_lossy(&bytes)),
            };
            let length_of = |name: &str| {
                request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).count()
            };
            assert_eq!(length_of("host"), 1);
            assert_eq!(length_of("transfer-encoding") * length_of("content-length"), 0);
            assert!(whole.pass >= length, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
    assert!(passed > 1_000, "only {passed} mutants passed: the comparison says little");
}

/// Valid bodies in random chunkings end exactly where they end.
#[test]
fn bodies_end_where_they_end() {
    fastrand::seed(11);
    for _ in 0..2_000 {
        let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..fastrand::usize(0..5) {
            let size = fastrand::usize(1..300);
            let extension = if fastrand::bool() { ";a=\"b\"" } else { "" };
            bytes.extend(format!("{size:x}{extension}\r\n").bytes());
            bytes.extend((0..size).map(|_| fastrand::u8(..)));
            bytes.extend(b"\r\n");
        }
        bytes.extend(if fastrand::bool() { &b"000\r\nA: b\r\nC: d\r\n\r\n"[..] } else { b"0\r\n\r\n" });
        let length = bytes.len();
        bytes.extend(b"GET / HTTP/1.1\r\n");
        let (mut phase, mut done, mut end) = (Phase::Head(HeadScan::default()), 0, 0);
        while end < bytes.len() {
            end = (end + fastrand::usize(1..400)).min(bytes.len());
            let judged = framing::judge(&mut phase, &bytes[done..end], 16_384);
            assert_eq!(judged.fault, None);
            done += judged.pass;
        }
        assert_eq!(done, length);
        assert!(matches!(phase, Phase::Hold));
    }
}
