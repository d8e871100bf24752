//! Answers that are streams: written by the guard, in chunks.

use std::collections::VecDeque;

use super::*;
use crate::gateway::conn::chunks::{Chunks, Progress};

/// The stream was cut.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
pub(super) struct Cut;

/// A stream that goes by a plan: `e5` is an event of five bytes, `e5*9` nine of them, `p7` a pause of as many
/// milliseconds, and `cut` its end before its end. Notes when it has said all, and how far it came when it is dropped
/// before that.
pub(super) struct Events {
    plan: VecDeque<String>,
    pause: Option<Pin<Box<Sleep>>>,
    seen: Seen,
}

impl Events {
    pub(super) fn new(plan: &str, seen: &Seen) -> Self {
        let steps = plan.split(',').flat_map(|step| {
            let (step, times) = step.split_once('*').unwrap_or((step, "1"));
            std::iter::repeat_n(step.to_owned(), times.parse().unwrap())
        });
        let plan = steps.collect();
        Self { plan, pause: None, seen: Rc::clone(seen) }
    }

    pub(super) fn has_more(&self) -> bool {
        self.plan.front().is_none_or(|step| !step.starts_with('p'))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let Some(step) = self.plan.pop_front() else {
                self.seen.borrow_mut().push("said all".to_owned());
                return Poll::Ready(None);
            };
            if step == "cut" {
                return Poll::Ready(Some(Err(Cut)));
            }
            let (kind, number) = step.split_at(1);
            let number = number.parse().unwrap();
            match kind {
                "p" => self.pause = Some(Box::pin(sleep(Duration::from_millis(number)))),
                _ => return Poll::Ready(Some(Ok(Bytes::from("e".repeat(number as usize))))),
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if !self.plan.is_empty() {
            self.seen.borrow_mut().push(format!("left with {} to come", self.plan.len()));
        }
    }
}

fn post(plan: &str) -> String {
    format!("POST /stream/{plan} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
}

const CLOSE: &str = "POST /last HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\nz";

/// What a stream carries, and whether it has ended; what follows its end.
fn decoded(answers: &str) -> (usize, bool, &str) {
    let (head, body) = answers.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\ntransfer-encoding: chunked"),
        "{head}"
    );
    assert!(!head.contains("content-length"), "{head}");
    let mut data = 0;
    let (taken, progress) = Chunks::of_answer().advance(body.as_bytes(), |piece| {
        assert!(piece.iter().all(|byte| *byte == b'e'));
        data += piece.len();
    });
    assert_ne!(progress, Progress::Malformed, "{body}");
    (data, progress == Progress::End, &body[taken..])
}

fn lines_of_head(answers: &str) -> Vec<&str> {
    let mut lines: Vec<_> = answers.split_once("\r\n\r\n").unwrap().0.lines().collect();
    lines.retain(|line| !line.starts_with("date: "));
    lines.sort_unstable();
    lines
}

#[test]
fn a_stream_is_whole_and_the_next_request_is_answered() {
    let post = post("e5,p3,e1,e0,e17,p1");
    let get = "GET /stream/e5,p3,e1,e0,e17,p1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let both = [post, get].map(|request| request + CLOSE);
    in_paused_time(async {
        for pieces in both.iter().flat_map(|bytes| chunkings(bytes.as_bytes())) {
            let (answers, seen) = talk(&pieces).await;
            let (data, ended, next) = decoded(&answers);
            assert_eq!((data, ended), (23, true), "{answers}");
            assert_eq!(statuses(next), [200], "{answers}");
            assert_eq!((seen.len(), seen[1].as_str()), (3, "said all"), "{seen:?}");
        }
    });
}

#[test]
fn what_hyper_would_write_is_written() {
    in_paused_time(async {
        for plan in ["e5,e1,p1,e17", "p5", "e1,p1,e1", "e9000,e1", "e70000,e8192,e8193,p1,e8191"] {
            let usual = post(plan);
            let (ours, _) = talk(&[usual.as_bytes(), CLOSE.as_bytes()]).await;
            // A client that asks the connection for something is hyper's.
            let asks = usual.replace("Host: a", "Host: a\r\nConnection: keep-alive, te");
            let (hypers, _) = talk(&[asks.as_bytes(), CLOSE.as_bytes()]).await;
            assert_eq!(lines_of_head(&ours), lines_of_head(&hypers), "{plan}");
            let chunks = |answers: &str| {
                answers.split_once("\r\n\r\n").unwrap().1.split_once("HTTP/").unwrap().0.to_owned()
            };
            assert!(chunks(&ours) == chunks(&hypers), "{plan}");
            assert!(decoded(&ours).1, "{plan}");
            assert_eq!((statuses(&ours), statuses(&hypers)), (vec![200, 200], vec![200, 200]), "{plan}");
        }
    });
}

#[test]
fn its_head_comes_before_its_first_event_and_each_event_at_once() {
    in_paused_time(async {
        let (mut client, _) = in_memory(1 << 16);
        client.write_all(post("p50,e5,e6,p50,e7,p50").as_bytes()).await.unwrap();
        let began = Instant::now();
        let mut came = Vec::new();
        let mut bytes = [0; 4096];
        while came.len() < 4 {
            let n = client.read(&mut bytes).await.unwrap();
            came.push((began.elapsed().as_millis(), String::from_utf8_lossy(&bytes[..n]).into_owned()));
        }
        assert!(came[0].1.starts_with("HTTP/1.1 200") && came[0].1.ends_with("\r\n\r\n"), "{came:?}");
        let rest: Vec<_> = came[1..].iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(rest, ["5\r\neeeee\r\n6\r\neeeeee\r\n", "7\r\neeeeeee\r\n", "0\r\n\r\n"]);
        let times: Vec<u128> = came.iter().map(|(at, _)| at / 50).collect();
        assert_eq!(times, [0, 1, 2, 3]);
    });
}

#[test]
fn a_stream_that_is_cut_has_no_end_and_its_connection_ends() {
    in_paused_time(async {
        for plan in ["e5,cut", "p1,cut", "e9000,cut", "e5,p1,cut"] {
            let (answers, _) = talk(&[post(plan).as_bytes(), CLOSE.as_bytes()]).await;
            let (_, ended, next) = decoded(&answers);
            assert_eq!((ended, next), (false, ""), "{plan}");
        }
    });
}

#[test]
fn a_client_that_leaves_ends_its_stream_at_once() {
    in_real_time(async {
        // Idle, and full.
        for plan in ["e5,p9000,e1", "e60000*500"] {
            let (mut client, seen) = on_loopback().await;
            client.write_all(post(plan).as_bytes()).await.unwrap();
            client.read_exact(&mut [0; 50]).await.unwrap();
            sleep(Duration::from_millis(50)).await;
            assert_eq!(seen.borrow().len(), 1, "{seen:?}");
            drop(client);
            sleep(Duration::from_millis(10)).await;
            let seen = seen.borrow();
            assert!(seen.last().unwrap().starts_with("left with"), "{seen:?}");
        }
    });
}

/// What waits for the client is bounded by what the kernel holds and one write.
#[test]
fn a_client_that_does_not_read_stops_its_server() {
    in_paused_time(async {
        let (mut client, seen) = in_memory(512);
        client.write_all([&post("e5000*100"), CLOSE].concat().as_bytes()).await.unwrap();
        sleep(Duration::from_secs(20)).await;
        drop(client);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(seen.borrow().last().unwrap(), "left with 98 to come");

        let (mut client, _) = in_memory(512);
        client.write_all([&post("e20000*100"), CLOSE].concat().as_bytes()).await.unwrap();
        sleep(Duration::from_secs(20)).await;
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        let (data, ended, next) = decoded(&answers);
        assert_eq!((data, ended, statuses(next)), (2_000_000, true, vec![200]));
    });
}

/// A call whose server is done is over, though its client has not read all of it.
#[test]
fn the_end_of_a_stream_is_heard_behind_what_its_client_does_not_take() {
    in_paused_time(async {
        for plan in ["e5000,p9", "e600,p9,e600,p9"] {
            let (mut client, seen) = in_memory(512);
            client.write_all([&post(plan), CLOSE].concat().as_bytes()).await.unwrap();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(seen.borrow().last().unwrap(), "said all");
            let mut answers = String::new();
            client.read_to_string(&mut answers).await.unwrap();
            let (data, ended, next) = decoded(&answers);
            assert_eq!(
                (data, ended, statuses(next)),
                (if plan.len() == 8 { 5000 } else { 1200 }, true, vec![200])
            );
        }
    });
}

#[test]
fn a_client_that_pipelines_too_much_behind_its_stream_is_seen_leaving() {
    in_real_time(async {
        let (mut client, seen) = on_loopback().await;
        let behind = "x".repeat(HOLD_BYTES + 10_000);
        client.write_all((post("e5,p9000,e1") + &behind).as_bytes()).await.unwrap();
        client.read_exact(&mut [0; 50]).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(seen.borrow().len(), 1, "{:?}", seen.borrow());
        drop(client);
        sleep(Duration::from_millis(30)).await;
        assert_eq!(seen.borrow().last().unwrap(), "left with 1 to come");
    });
}

#[test]
fn a_connection_ends_behind_the_stream_of_an_ending_process() {
    in_paused_time(async {
        let (mut client, io) = duplex(65_536);
        let (seen, ends) = (Seen::default(), Rc::new(Cell::new(false)));
        let served = serve_until(io, &ends, &seen);
        client.write_all(post("e5,p9000,e6").as_bytes()).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        ends.set(true);
        let began = Instant::now();
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(decoded(&answers), (11, true, ""));
        assert_eq!(began.elapsed().as_secs(), 8, "when its server has said all");
        drop(client);
        served.await.unwrap();
    });
}
