//! Pipelining, keep-alive, leaving: who is answered when, and who notices what.

use super::*;

const CLOSE: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn pipelined_requests_are_answered_in_order_in_every_chunking() {
    let bytes = format!(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nabGET /slow/5 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n{CLOSE}"
    );
    in_paused_time(async {
        for pieces in chunkings(bytes.as_bytes()) {
            let (answers, seen) = talk(&pieces).await;
            assert_eq!(statuses(&answers), [200, 200, 200, 200], "{answers}");
            assert_eq!(
                seen,
                [r#"POST /1 b"ab""#, r#"GET /slow/5 b"""#, r#"POST /3 b"c""#, r#"GET /last b"""#]
            );
        }
    });
}

#[test]
fn a_refusal_comes_after_the_answers_before_it() {
    let bytes = "GET /slow/5 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
                 GET /bad HTTP/1.1\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n";
    in_paused_time(async {
        for pieces in chunkings(bytes.as_bytes()) {
            let (answers, seen) = talk(&pieces).await;
            assert_eq!(statuses(&answers), [200, 200, 400], "{answers}");
            assert_eq!(seen, [r#"GET /slow/5 b"""#, r#"GET /2 b"""#]);
        }
    });
}

#[test]
fn a_refusal_does_not_cut_an_answer_that_the_client_reads_slowly() {
    in_paused_time(async {
        let (mut client, _) = in_memory(1024);
        client
            .write_all(b"GET /big/300000 HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        sleep(Duration::from_secs(20)).await;
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(statuses(&answers), [200, 400]);
        assert_eq!(
            answers.matches('x').count() - answers.split_once("HTTP/1.1 400").unwrap().1.matches('x').count(),
            300_000
        );
    });
}

#[test]
fn an_idle_guard_is_small_and_owns_no_buffer() {
    assert!(size_of::<Guard<TcpStream>>() < 512, "{}", size_of::<Guard<TcpStream>>());
    in_paused_time(async {
        let (mut client, server) = duplex(4096);
        let mut guard = Guard::new(server, Limits::default());
        for piece in ["GET / HTTP/1.1\r\n", "Host: a\r\n\r\n"] {
            client.write_all(piece.as_bytes()).await.unwrap();
            let mut place = [0; 64];
            let mut buffer = hyper::rt::ReadBuf::new(&mut place);
            let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut guard).poll_read(cx, buffer.unfilled()))).await;
            assert_eq!(read.is_ready(), buffer.filled().len() == 27);
            assert_eq!(read.is_pending(), guard.kept.capacity() > 0);
        }
        assert_eq!(guard.kept.capacity(), 0);
    });
}

#[test]
fn keep_alive_serves_many_requests() {
    in_real_time(async {
        let (mut client, seen) = on_loopback().await;
        for n in 0..500 {
            client
                .write_all(format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").as_bytes())
                .await
                .unwrap();
            let mut answer = [0; 512];
            let read = client.read(&mut answer).await.unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "request {n}");
        }
        assert_eq!(seen.borrow().len(), 500);
    });
}

#[test]
fn big_bodies_arrive_whole() {
    const SIZE: usize = 4 << 20;
    in_real_time(async {
        let (client, seen) = on_loopback().await;
        let (mut reading, mut writing) = client.into_split();
        let writer = spawn_local(async move {
            let head = format!("POST /sized HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
            writing.write_all(head.as_bytes()).await.unwrap();
            writing.write_all(&vec![b'a'; SIZE]).await.unwrap();
            let head = "POST /chunked HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
            writing.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..SIZE / 65_536 {
                writing.write_all(b"10000\r\n").await.unwrap();
                writing.write_all(&vec![b'a'; 65_536]).await.unwrap();
                writing.write_all(b"\r\n").await.unwrap();
            }
            writing.write_all(b"0\r\n\r\n").await.unwrap();
            writing
        });
        let mut answers = String::new();
        reading.read_to_string(&mut answers).await.unwrap();
        drop(writer.await.unwrap());
        assert_eq!(statuses(&answers), [200, 200], "{answers}");
        assert_eq!(*seen.borrow(), ["POST /sized 4194304 bytes", "POST /chunked 4194304 bytes"]);
    });
}

/// The trap of hyper's own end-of-input check: it looks only while its buffer is empty.
#[test]
fn leaving_is_seen_at_once_whatever_was_pipelined() {
    let get = "GET /slow/60000 HTTP/1.1\r\nHost: a\r\n\r\n";
    let usual = "POST /slow/60000 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    in_real_time(async {
        for (request, behind) in [get, usual].into_iter().flat_map(|request| {
            ["", "G", "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\n", usual]
                .map(|b| (request, b))
        }) {
            let (mut client, seen) = on_loopback().await;
            client.write_all([request, behind].concat().as_bytes()).await.unwrap();
            sleep(Duration::from_millis(20)).await;
            assert_eq!(seen.borrow().len(), 1, "{:?}", seen.borrow());
            drop(client);
            let left = Instant::now();
            while seen.borrow().len() < 2 {
                assert!(left.elapsed() < Duration::from_millis(10), "not seen: {request:?}, then {behind:?}");
                sleep(Duration::from_micros(200)).await;
            }
            assert_eq!(seen.borrow()[1], "left /slow/60000");
        }
    });
}

#[test]
fn half_close_is_leaving() {
    in_real_time(async {
        let (mut client, seen) = on_loopback().await;
        client.write_all(b"GET /slow/60000 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        sleep(Duration::from_millis(10)).await;
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(*seen.borrow(), [r#"GET /slow/60000 b"""#, "left /slow/60000"]);
        assert!(answer.is_empty());
    });
}

#[test]
fn pipelining_without_bound_waits_and_leaving_is_still_seen() {
    in_real_time(async {
        let (client, seen) = on_loopback().await;
        let (mut reading, mut writing) = client.into_split();
        let pipelined =
            "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n".to_owned() + &"x".repeat(30_000);
        for (path, seen_so_far) in [("/slow/50", 2), ("/slow/60000", 3)] {
            writing
                .write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n{pipelined}").as_bytes())
                .await
                .unwrap();
            let sent = Instant::now();
            while seen.borrow().len() < seen_so_far && sent.elapsed() < Duration::from_secs(5) {
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(seen.borrow().len(), seen_so_far, "{:?}", seen.borrow());
        }
        sleep(Duration::from_millis(20)).await;
        let mut answers = vec![0; 4096];
        let read = reading.read(&mut answers).await.unwrap();
        assert_eq!(statuses(std::str::from_utf8(&answers[..read]).unwrap()), [200, 200]);
        drop((reading, writing));
        let left = Instant::now();
        while seen.borrow().len() < 4 {
            assert!(left.elapsed() < Duration::from_millis(50), "not seen");
            sleep(Duration::from_micros(200)).await;
        }
        assert_eq!(seen.borrow()[3], "left /slow/60000");
    });
}

/// A close with unread bytes would make the kernel send a reset, which can overtake the answer.
#[test]
fn a_refused_client_that_still_sends_gets_its_answer_and_no_reset() {
    in_real_time(async {
        for _ in 0..20 {
            let (client, _) = on_loopback().await;
            let (mut reading, mut writing) = client.into_split();
            let writer = spawn_local(async move {
                writing.write_all(b"TRACE / HTTP/1.1\r\n").await.unwrap();
                for _ in 0..50 {
                    writing.write_all(&[b'x'; 10_000]).await.unwrap();
                }
            });
            let mut answer = String::new();
            reading.read_to_string(&mut answer).await.unwrap();
            assert_eq!(statuses(&answer), [405]);
            writer.await.unwrap();
        }
    });
}

#[test]
fn an_early_answer_ends_without_waiting_for_the_body() {
    // The answer to a broken body leaves the rest of it unread.
    in_real_time(async {
        let (mut client, seen) = on_loopback().await;
        client
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
            .await
            .unwrap();
        client.write_all(&vec![b'x'; 500_000]).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(statuses(&answer), [400]);
        assert_eq!(*seen.borrow(), ["fault Some(Malformed)"]);
    });
}

#[test]
fn the_first_bytes_tell_the_protocol() {
    in_paused_time(async {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Protocol::Http1),
            (b"PRI * HTTP/1.1\r\n", Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Protocol::Http2),
            (b"", Protocol::Closed),
            (b"PRI", Protocol::Closed),
        ] {
            for size in [1, 5, 100] {
                let (mut client, server) = duplex(64);
                let mut guard = Guard::new(server, Limits::default());
                let sniffing = spawn_local(async move { guard.sniff().await.unwrap() });
                for piece in bytes.chunks(size) {
                    let _ = client.write_all(piece).await;
                    yield_now().await;
                }
                if expected == Protocol::Closed {
                    drop(client);
                }
                assert_eq!(sniffing.await.unwrap(), expected);
            }
        }
    });
}

#[test]
fn http2_passes_untouched() {
    in_paused_time(async {
        let (client, server) = duplex(65_536);
        spawn_local(async move {
            let mut guard = Guard::new(server, Limits::default());
            assert_eq!(guard.sniff().await.unwrap(), Protocol::Http2);
            let service = hyper::service::service_fn(async |request: Request<Incoming>| {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(request.uri().path().to_owned()))))
            });
            hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection(guard, service)
                .await
        });
        let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
            hyper_util::rt::TokioExecutor::new(),
            hyper_util::rt::TokioIo::new(client),
        )
        .await
        .unwrap();
        spawn_local(connection);
        for path in ["http://a/1", "http://a/2"] {
            let answer =
                sender.send_request(Request::get(path).body(Full::default()).unwrap()).await.unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(path.as_bytes().ends_with(&body));
        }
    });
}
