//! Slow clients, in paused time: closed within their limit, and nobody else.

use super::*;

/// Sends `first`, then one `drip` per `every` until the connection ends; what came back, and after how long.
async fn drip(first: &[u8], drip: &[u8], every: Duration) -> (String, Duration, Vec<String>) {
    let (client, seen) = in_memory(65_536);
    let (mut reading, mut writing) = tokio::io::split(client);
    let start = Instant::now();
    let (first, drip) = (first.to_vec(), drip.to_vec());
    let dripping = spawn_local(async move {
        writing.write_all(&first).await.unwrap();
        while !drip.is_empty() {
            sleep(every).await;
            if writing.write_all(&drip).await.is_err() {
                break;
            }
        }
        // Neither sends nor leaves.
        std::future::pending::<()>().await;
        drop(writing);
    });
    let mut answer = String::new();
    reading.read_to_string(&mut answer).await.unwrap();
    dripping.abort();
    let seen = seen.borrow().clone();
    (answer, start.elapsed(), seen)
}

fn within(elapsed: Duration, limit: u64) {
    let limit = Duration::from_secs(limit);
    assert!(elapsed >= limit && elapsed <= limit + Duration::from_secs(1), "{elapsed:?} for {limit:?}");
}

#[test]
fn slow_heads_get_408_in_time() {
    in_paused_time(async {
        for (head, every) in [("G", 1), ("GET / HTTP/1.1\r\nHost: a\r\nX: ", 3), ("\r\n", 100)] {
            let (answer, elapsed, seen) = drip(head.as_bytes(), b"x", Duration::from_secs(every)).await;
            assert_eq!(statuses(&answer), [408], "{head:?}: {answer}");
            within(elapsed, 10);
            assert!(seen.is_empty());
        }
    });
}

#[test]
fn silent_connections_end_without_an_answer() {
    in_paused_time(async {
        let (answer, elapsed, _) = drip(b"", b"", Duration::MAX).await;
        assert_eq!(answer, "");
        within(elapsed, 30);
        // After an answer more time is given, counted from its end.
        let (answer, elapsed, _) =
            drip(b"GET /slow/100000 HTTP/1.1\r\nHost: a\r\n\r\n", b"", Duration::MAX).await;
        assert_eq!(statuses(&answer), [200]);
        within(elapsed, 100 + 75);
    });
}

#[test]
fn slow_bodies_get_408_and_steady_ones_live() {
    in_paused_time(async {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
        let (answer, elapsed, seen) = drip(head, b"", Duration::MAX).await;
        assert_eq!(statuses(&answer), [408], "{answer}");
        within(elapsed, 30);
        assert_eq!(seen, ["fault Some(Timeout)"]);

        let (answer, elapsed, _) = drip(head, b"x", Duration::from_secs(29)).await;
        assert_eq!(statuses(&answer), [200], "{answer}");
        within(elapsed, 4 * 29);
    });
}

#[test]
fn a_body_that_the_service_does_not_read_does_not_expire() {
    in_paused_time(async {
        let (client, server) = duplex(1 << 20);
        let guard = Guard::new(server, Limits::default());
        let handle = guard.handle();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answering = handle.answering();
            async move {
                // Longer than the limit; the client waits for us meanwhile.
                sleep(Duration::from_secs(100)).await;
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(Response::new(Answer {
                    stream: None,
                    inner: Full::from(body.len().to_string()),
                    _answering: answering,
                }))
            }
        });
        spawn_local(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(guard, service);
            let _ = connection.await;
        });
        let (mut reading, mut writing) = tokio::io::split(client);
        writing
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        writing.write_all(&vec![b'x'; 300_000]).await.unwrap();
        sleep(Duration::from_secs(110)).await;
        writing.write_all(&vec![b'x'; 300_000]).await.unwrap();
        let mut answer = String::new();
        reading.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("600000"), "{answer}");
    });
}
