//! Usual exchanges, which hyper never sees, among others.

use super::*;

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const CLOSE: &str = "POST /last HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nz";

#[test]
fn they_are_answered_in_order_in_every_chunking() {
    let bytes = [&post("/1", "ab"), &post("/slow/5", "c"), &post("/3", "d"), CLOSE].concat();
    in_paused_time(async {
        for pieces in chunkings(bytes.as_bytes()) {
            let (answers, seen) = talk(&pieces).await;
            assert_eq!(statuses(&answers), [200, 200, 200, 200], "{answers}");
            assert_eq!(
                seen,
                [r#"POST /1 b"ab""#, r#"POST /slow/5 b"c""#, r#"POST /3 b"d""#, r#"POST /last b"z""#]
            );
        }
    });
}

#[test]
fn an_answer_that_is_still_to_come_is_hypers_and_what_follows_too() {
    let bytes = [&post("/1", "ab"), &post("/big/150000", "c"), &post("/3", "d"), CLOSE].concat();
    in_paused_time(async {
        for pieces in chunkings(bytes.as_bytes()) {
            let (answers, seen) = talk(&pieces).await;
            assert_eq!(statuses(&answers), [200, 200, 200, 200]);
            assert_eq!(answers.matches("xxxxxxxxxx").count(), 15_000);
            assert_eq!(
                seen,
                [r#"POST /1 b"ab""#, r#"POST /big/150000 b"c""#, r#"POST /3 b"d""#, r#"POST /last b"z""#]
            );
        }
    });
}

#[test]
fn a_refusal_comes_after_them() {
    let bytes = [&post("/slow/5", "ab"), "POST /2 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"].concat();
    in_paused_time(async {
        for pieces in chunkings(bytes.as_bytes()) {
            let (answers, seen) = talk(&pieces).await;
            assert_eq!(statuses(&answers), [200, 400], "{answers}");
            assert_eq!(seen, [r#"POST /slow/5 b"ab""#]);
        }
    });
}

#[test]
fn hyper_is_told_why_a_body_ends() {
    let begun = &post("/1", "abcd")[..post("/1", "abcd").len() - 2];
    in_paused_time(async {
        let (mut client, seen) = in_memory(1024);
        client.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let sent = Instant::now();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(statuses(&answer), [408], "{answer}");
        assert_eq!(sent.elapsed().as_secs(), 30);
        assert_eq!(*seen.borrow(), ["fault Some(Timeout)"]);

        let (mut client, seen) = in_memory(1024);
        client.write_all(begun.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(*seen.borrow(), ["fault Some(Closed)"]);
    });
}

/// A client that does not read holds no more than its answer, and the answer is whole when it reads at last.
#[test]
fn an_answer_that_the_client_reads_slowly_is_whole() {
    in_paused_time(async {
        let (mut client, _) = in_memory(512);
        client.write_all([&post("/big/60000", "x"), CLOSE].concat().as_bytes()).await.unwrap();
        sleep(Duration::from_secs(20)).await;
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(statuses(&answers), [200, 200]);
        assert_eq!(answers.matches("xxxxxxxxxx").count(), 6_000);
    });
}

#[test]
fn an_ending_process_answers_what_runs_and_closes() {
    async fn ending(bytes: &str, begun: &str) -> (String, Vec<String>) {
        let (mut client, io) = duplex(65_536);
        let (seen, ends) = (Seen::default(), Rc::new(Cell::new(false)));
        let served = serve_until(io, &ends, &seen);
        client.write_all(bytes.as_bytes()).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        ends.set(true);
        client.write_all(begun.as_bytes()).await.unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        drop(client);
        served.await.unwrap();
        let seen = seen.borrow().clone();
        (answers, seen)
    }
    in_paused_time(async {
        let (answers, seen) = ending(&post("/slow/5000", "x"), &post("/never", "y")).await;
        assert_eq!((statuses(&answers), seen.len()), (vec![200], 1), "{answers}");
        assert!(answers.contains("connection: close\r\n"), "{answers}");
        // What has begun is heard to its end.
        let whole = post("/1", "abcd");
        let (first, rest) = whole.split_at(whole.len() - 2);
        let (answers, seen) = ending(first, rest).await;
        assert_eq!((statuses(&answers), seen), (vec![200], vec![r#"POST /1 b"abcd""#.to_owned()]));
    });
}
