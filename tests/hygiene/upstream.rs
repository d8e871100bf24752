//! An upstream that records the bytes of each request and answers as the test says.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

/// What reached the upstream.
#[derive(Debug)]
pub(crate) enum Event {
    /// A whole `tools/call`: head and body.
    Call(String),
    /// The gateway ended a connection that had carried one.
    Left(Instant),
}

pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) events: mpsc::Receiver<Event>,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Keep,
    Close,
}

/// Answers each `tools/call` with `answer`; probes get what a server of the current revision says.
pub(crate) fn start(answer: impl Fn(&mut TcpStream) -> Then + Send + Sync + 'static) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, events) = mpsc::channel();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (sender, answer) = (sender.clone(), Arc::clone(&answer));
            thread::spawn(move || serve(stream.unwrap(), &sender, &*answer));
        }
    });
    Upstream { address, events }
}

fn serve(mut stream: TcpStream, events: &mpsc::Sender<Event>, answer: &dyn Fn(&mut TcpStream) -> Then) {
    let (mut bytes, mut called) = (Vec::new(), false);
    while let Some(request) = read_request(&mut stream, &mut bytes) {
        if request.contains("tools/call") {
            called = true;
            let _ = events.send(Event::Call(request));
            if answer(&mut stream) == Then::Close {
                return;
            }
        } else {
            let id = request
                .split_once(r#""id":"#)
                .map_or("null", |(_, rest)| rest.split([',', '}']).next().unwrap_or("null"));
            let result = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"serverInfo":{"name":"bytes","version":"1"},"ttlMs":0,"cacheScope":"private"}"#;
            let _ =
                write_json(&mut stream, &format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#), "");
        }
    }
    if called {
        let _ = events.send(Event::Left(Instant::now()));
    }
}

/// One request; `None`: the connection has ended.
fn read_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if let Some(head) = text.find("\r\n\r\n") {
            let lower = text[..head].to_ascii_lowercase();
            let length: usize = lower
                .split("\r\n")
                .find_map(|line| line.strip_prefix("content-length:"))
                .map_or(0, |value| value.trim().parse().unwrap());
            let end = if lower.contains("transfer-encoding: chunked") {
                text.find("\r\n0\r\n\r\n").map(|at| at + 7)
            } else {
                Some(head + 4 + length)
            };
            if let Some(end) = end.filter(|end| *end <= bytes.len()) {
                bytes.drain(..end);
                return Some(text[..end].to_owned());
            }
        }
        let mut more = [0; 65_536];
        match stream.read(&mut more) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&more[..n]),
            _ => return None,
        }
    }
}

/// An ordinary answer to the open call.
pub(crate) fn result(stream: &mut TcpStream) -> Then {
    let _ = write_json(stream, RESULT, "");
    Then::Keep
}

pub(crate) const RESULT: &str = r#"{"jsonrpc":"2.0","id":7,"result":{"resultType":"complete","content":[{"type":"text","text":"done"}]}}"#;

pub(crate) fn write_json(stream: &mut TcpStream, body: &str, headers: &str) -> std::io::Result<()> {
    let length = body.len();
    stream.write_all(
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
            .as_bytes(),
    )
}

impl Upstream {
    /// All calls so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.events
            .try_iter()
            .filter_map(|event| match event {
                Event::Call(call) => Some(call),
                Event::Left(_) => None,
            })
            .collect()
    }
}
