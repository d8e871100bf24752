//! One test per row; each says what the client gets and what the upstream saw.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::gateway::{body, call, call_head, start_gateway, status};
use crate::upstream::{self, Event, Then, result, write_json};

const SETTINGS: &str = "healthCheck: {type: TCP}";

#[test]
fn hop_by_hop_headers_go_neither_way() {
    let upstream = upstream::start(|stream| {
        let headers =
            "Connection: X-Down\r\nX-Down: 1\r\nKeep-Alive: timeout=9\r\nProxy-Connection: x\r\nX-End: 2\r\n";
        write_json(stream, upstream::RESULT, headers).unwrap();
        Then::Keep
    });
    let gateway = start_gateway("hop", upstream.address, SETTINGS);
    let headers = "Connection: close, X-Up\r\nX-Up: 1\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\n\
                   TE: trailers\r\nUpgrade: websocket\r\nX-End: 2\r\n";
    let answer = gateway.talk(call(headers, "").as_bytes()).to_ascii_lowercase();
    assert_eq!(status(&answer.replace("http/", "HTTP/")), 200, "{answer}");
    assert!(answer.contains("x-end: 2"), "{answer}");
    for gone in ["x-down", "keep-alive:", "proxy-connection"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    let call = upstream.calls().pop().unwrap().to_ascii_lowercase();
    assert!(call.contains("x-end: 2"), "{call}");
    for gone in ["x-up", "keep-alive:", "proxy-connection", "proxy-authorization", "\r\nte:", "upgrade"] {
        assert!(!call.contains(gone), "{gone} in {call}");
    }
}

#[test]
fn bad_requests_never_reach_the_upstream() {
    let upstream = upstream::start(result);
    let gateway =
        start_gateway("bad", upstream.address, &format!("{SETTINGS}, limits: {{maxBodyBytes: 1024}}"));
    let chunked = |chunks: &str| {
        format!("{}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunks}", call_head())
    };
    let rows = [
        (call("Transfer-Encoding: chunked\r\n", ""), 400),
        (call("", "").replacen("Host: localhost\r\n", "Host: localhost\n", 1), 400),
        (call("", "").replacen("Host: localhost\r\n", "", 1), 400),
        (call("Connection: Mcp-Name\r\n", ""), 400),
        (call("Mcp-Name: u\r\n", ""), 400),
        (call(&format!("X: {}\r\n", "x".repeat(20_000)), ""), 431),
        (call("", "").replacen("/tests/bytes/mcp", &format!("/{}", "x".repeat(9_000)), 1), 414),
        (call("Connection: close\r\n", &"x".repeat(1_000)), 413),
        (call("Connection: close\r\n", "").replacen("Host: localhost", "Host: evil.example", 1), 403),
        (call("Connection: close\r\nOrigin: http://evil.example\r\n", ""), 403),
        (chunked("ZZ\r\n"), 400),
        (chunked("-5\r\n"), 400),
        (chunked("5\nabcde\r\n0\r\n\r\n"), 400),
        (call("", "").replacen("POST", "TRACE", 1), 405),
        (call("", "").replacen("POST", "post", 1), 501),
    ];
    for (bytes, expected) in &rows {
        let answer = gateway.talk(bytes.as_bytes());
        assert_eq!(status(&answer), *expected, "{bytes:.300}: {answer}");
    }
    assert_eq!(upstream.calls(), [] as [String; 0]);
    // None of it was charged to the endpoint: the breaker's threshold is five.
    let answer = gateway.talk(call("Connection: close\r\n", "").as_bytes());
    assert_eq!(status(&answer), 200, "{answer}");
}

#[test]
fn trailers_end_at_the_gateway() {
    let upstream = upstream::start(result);
    let gateway = start_gateway("trailers", upstream.address, SETTINGS);
    let body = body("");
    let request = format!(
        "{}Transfer-Encoding: chunked\r\nTrailer: Mcp-Session-Id\r\nConnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\nMcp-Session-Id: x\r\n\r\n",
        call_head(),
        body.len()
    );
    assert_eq!(status(&gateway.talk(request.as_bytes())), 200);
    let call = upstream.calls().pop().unwrap().to_ascii_lowercase();
    assert!(!call.contains("session-id") && !call.contains("trailer"), "{call}");
}

#[test]
fn pipelined_calls_are_answered_in_order() {
    let upstream = upstream::start(result);
    let gateway = start_gateway("pipelined", upstream.address, SETTINGS);
    let bytes = call("", "one") + &call("", "two") + &call("Connection: close\r\n", "three");
    assert_eq!(gateway.talk(bytes.as_bytes()).matches("HTTP/1.1 200").count(), 3);
    let calls = upstream.calls();
    let order: Vec<_> =
        ["one", "two", "three"].iter().zip(&calls).map(|(text, call)| call.contains(text)).collect();
    assert_eq!(order, [true, true, true]);
}

#[test]
fn continue_is_sent_only_for_a_body_that_is_wanted() {
    let upstream = upstream::start(result);
    let gateway =
        start_gateway("expect", upstream.address, &format!("{SETTINGS}, limits: {{maxBodyBytes: 1024}}"));
    let expect = |host: &str, text: &str| {
        let request =
            call("Expect: 100-continue\r\nConnection: close\r\n", text).replacen("localhost", host, 1);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let mut stream = gateway.connect();
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        let first = String::from_utf8_lossy(&first).into_owned();
        if first.ends_with("100") {
            stream.write_all(body.as_bytes()).unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            return (100, status(&rest));
        }
        (0, status(&format!("{first} ")))
    };
    assert_eq!(expect("localhost", ""), (100, 200));
    assert_eq!(expect("localhost", &"x".repeat(2_000)), (0, 413));
    assert_eq!(expect("evil.example", ""), (0, 403));
}

#[test]
fn a_connection_that_closes_after_each_answer_costs_no_call_twice() {
    let upstream = upstream::start(|stream| {
        write_json(stream, upstream::RESULT, "").unwrap();
        sleep(Duration::from_micros(500));
        Then::Close
    });
    let gateway = start_gateway("race", upstream.address, SETTINGS);
    let mut stream = gateway.connect();
    for n in 0..200 {
        if stream.write_all(call("", &format!("n{n}.")).as_bytes()).is_err() {
            stream = gateway.connect();
            continue;
        }
        let mut answer = [0; 4096];
        if stream.read(&mut answer).unwrap_or_default() == 0 {
            stream = gateway.connect();
        }
        sleep(Duration::from_micros(400));
    }
    let calls = upstream.calls();
    assert!(calls.len() > 100, "only {} calls arrived: the race was not run", calls.len());
    for n in 0..200 {
        let times = calls.iter().filter(|call| call.contains(&format!("n{n}."))).count();
        assert!(times <= 1, "call {n} was executed {times} times");
    }
}

/// An SSE answer that is cut after `bytes`.
fn cut_after(bytes: &'static str) -> impl Fn(&mut TcpStream) -> Then + Send + Sync {
    move |stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{:x}\r\n{bytes}\r\n", bytes.len()).as_bytes()).unwrap();
        sleep(Duration::from_millis(20));
        Then::Close
    }
}

#[test]
fn a_stream_cut_between_events_ends_with_an_error_event() {
    let event = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}\n\n";
    let upstream = upstream::start(cut_after(event));
    let gateway = start_gateway("cut", upstream.address, SETTINGS);
    let answer = gateway.talk(call("Connection: close\r\n", "").as_bytes());
    assert!(answer.contains("notifications/message"), "{answer}");
    assert!(answer.contains(r#""error""#) && answer.contains(r#""id":7"#), "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

/// Either nothing of the torn part was passed on and an error event says so, or the end is no clean one.
#[test]
fn a_stream_cut_inside_an_event_ends_visibly_but_without_a_reset() {
    let upstream = upstream::start(cut_after("data: {\"jsonrpc\":"));
    let gateway = start_gateway("torn", upstream.address, SETTINGS);
    // `talk` fails on a reset.
    let answer = gateway.talk(call("Connection: close\r\n", "").as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    let torn = answer.matches("data: ").count() != answer.matches(r#""error""#).count();
    assert!(!(torn && answer.ends_with("0\r\n\r\n")), "{answer}");
}

#[test]
fn a_torn_json_answer_never_looks_complete() {
    let upstream = upstream::start(|stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
        stream.write_all(format!("{head}{}", upstream::RESULT).as_bytes()).unwrap();
        Then::Close
    });
    let gateway = start_gateway("torn-json", upstream.address, SETTINGS);
    let answer = gateway.talk(call("Connection: close\r\n", "").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let incomplete = head.to_ascii_lowercase().contains("content-length: 1000") && body.len() < 1000;
    assert!(incomplete || body.contains(r#""source":"gateway""#), "{answer}");
    assert_eq!(upstream.calls().len(), 1, "a call that may have run was sent again");
}

#[test]
fn leaving_closes_the_upstream_call_at_once() {
    // Waits until the gateway leaves.
    let upstream = upstream::start(|_| Then::Keep);
    let gateway = start_gateway("leave", upstream.address, SETTINGS);
    for behind in ["", "x", "POST /tests/bytes/mcp HTTP/1.1\r\n"] {
        // Of several, the fastest: a machine that compiles beside it takes its time to run anybody.
        let took = (0..8).map(|_| {
            let mut stream = gateway.connect();
            stream.write_all((call("", "") + behind).as_bytes()).unwrap();
            assert!(matches!(upstream.events.recv_timeout(Duration::from_secs(5)), Ok(Event::Call(_))));
            sleep(Duration::from_millis(30));
            let left = Instant::now();
            drop(stream);
            match upstream.events.recv_timeout(Duration::from_secs(5)) {
                Ok(Event::Left(seen)) => seen.saturating_duration_since(left),
                other => panic!("{other:?} with {behind:?} behind"),
            }
        });
        let fastest = took.min().unwrap();
        assert!(fastest < Duration::from_millis(10), "{fastest:?} with {behind:?} behind");
    }
}

#[test]
fn a_stalled_reader_stalls_the_upstream() {
    let (sender, written) = std::sync::mpsc::channel();
    let upstream = upstream::start(move |stream| {
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let event = format!(": {}\n\n", "x".repeat(4_000));
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        let mut total = 0;
        while total < 256 << 20 && stream.write_all(chunk.as_bytes()).is_ok() {
            total += chunk.len();
        }
        sender.send(total).unwrap();
        Then::Close
    });
    let gateway = start_gateway("stalled", upstream.address, SETTINGS);
    let mut stream = gateway.connect();
    stream.write_all(call("", "").as_bytes()).unwrap();
    let total = written.recv_timeout(Duration::from_secs(20)).unwrap();
    // What lies in the kernels on both ends and the client's own receive buffer (6 MiB at most).
    assert!(total < 16 << 20, "{total} bytes were taken from the upstream for a client that reads none");
}
