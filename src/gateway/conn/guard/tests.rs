//! The guard under a real hyper server: byte tables in every chunking, order, leaving, time.

use std::convert::Infallible;
use std::mem;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};
use tokio::time::sleep;

use super::*;
use crate::gateway::conn::turns::{Turns, take_turns};

mod limits;
mod order;
mod stream;
mod table;
mod usual;

/// A response body that ends its answer by being dropped, as the product's does.
struct Answer {
    inner: Full<Bytes>,
    stream: Option<stream::Events>,
    _answering: Answering,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = stream::Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, stream::Cut>>> {
        match &mut self.stream {
            Some(events) => events.poll(cx).map(|data| data.map(|data| data.map(Frame::data))),
            None => Pin::new(&mut self.inner).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.stream.is_none() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

impl Peer for DuplexStream {
    fn has_left(&self) -> bool {
        false
    }
}

/// What the service saw, one entry per request: `POST /path body`, then events like `left /slow`.
type Seen = Rc<RefCell<Vec<String>>>;

struct Left(Seen, String);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.borrow_mut().push(format!("left {}", self.1));
    }
}

async fn service(request: Request<impl Body>, handle: GuardHandle, seen: Seen) -> Response<Answer> {
    let answering = handle.answering();
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let (status, text) = if let Ok(body) = body.collect().await {
        let body = body.to_bytes();
        let body = if body.len() > 200 { format!("{} bytes", body.len()) } else { format!("{body:?}") };
        let line = format!("{} {path} {body}", head.method);
        seen.borrow_mut().push(line.clone());
        (StatusCode::OK, line)
    } else {
        let fault = handle.body_fault();
        seen.borrow_mut().push(format!("fault {fault:?}"));
        match fault {
            Some(BodyFault::Timeout) => (StatusCode::REQUEST_TIMEOUT, String::new()),
            _ => (StatusCode::BAD_REQUEST, String::new()),
        }
    };
    if let Some(ms) = path.strip_prefix("/slow/") {
        let left = Left(Rc::clone(&seen), path.clone());
        sleep(Duration::from_millis(ms.parse().unwrap())).await;
        std::mem::forget(left);
    }
    let stream = path.strip_prefix("/stream/").map(|plan| stream::Events::new(plan, &seen));
    let text = path.strip_prefix("/big/").map_or(text, |n| "x".repeat(n.parse().unwrap()));
    let mut response = Response::new(Answer { inner: Full::from(text), stream, _answering: answering });
    *response.status_mut() = status;
    response
}

impl AnswerBody for Answer {
    fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    fn has_more(&self) -> bool {
        self.stream.as_ref().is_some_and(stream::Events::has_more)
    }

    fn take_whole(&mut self) -> Option<Bytes> {
        // Beyond that it is still to come.
        let small = self.size_hint().exact().is_some_and(|n| n < 100_000);
        let whole = small.then(|| mem::take(&mut self.inner).collect().now_or_never());
        Some(whole??.ok()?.to_bytes())
    }
}

/// Serves one connection to its end, as the listener does: usual exchanges first, then hyper.
async fn serve(io: impl AsyncRead + AsyncWrite + Peer + Unpin + 'static, limits: Limits, seen: Seen) {
    let mut guard = Guard::new(io, limits);
    let handle = guard.handle();
    let turns = take_turns(
        &mut guard,
        || false,
        |head, body| service(Request::from_parts(*head, Full::new(body)), handle.clone(), Rc::clone(&seen)),
    );
    match turns.await {
        Turns::Ended => guard.finish().await,
        Turns::Other(first) => by_hyper(guard, first, seen).await,
    }
}

/// Serves usual exchanges, and nothing else, of a process that ends when `ends` says so.
fn serve_until(io: DuplexStream, ends: &Rc<Cell<bool>>, seen: &Seen) -> JoinHandle<()> {
    let (ends, seen) = (Rc::clone(ends), Rc::clone(seen));
    spawn_local(async move {
        let mut guard = Guard::new(io, Limits::default());
        let handle = guard.handle();
        let turns = take_turns(
            &mut guard,
            || ends.get(),
            |head, body| {
                service(Request::from_parts(*head, Full::new(body)), handle.clone(), Rc::clone(&seen))
            },
        );
        assert!(matches!(turns.await, Turns::Ended));
        guard.finish().await;
    })
}

async fn by_hyper(
    guard: Guard<impl AsyncRead + AsyncWrite + Peer + Unpin + 'static>,
    first: Option<Response<Answer>>,
    seen: Seen,
) {
    let (first, handle) = (Cell::new(first), guard.handle());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let served = first.take().ok_or_else(|| service(request, handle.clone(), Rc::clone(&seen)));
        async move {
            Ok::<_, Infallible>(match served {
                Ok(response) => response,
                Err(serving) => serving.await,
            })
        }
    });
    let mut connection = hyper::server::conn::http1::Builder::new().serve_connection(guard, service);
    let _ = Pin::new(&mut connection).await;
    connection.into_parts().io.finish().await;
}

/// A client's end of a connection that is served in memory.
fn in_memory(capacity: usize) -> (DuplexStream, Seen) {
    let (client, server) = duplex(capacity);
    let seen = Seen::default();
    spawn_local(serve(server, Limits::default(), Rc::clone(&seen)));
    (client, seen)
}

async fn on_loopback() -> (TcpStream, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.set_nodelay(true).unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let seen = Seen::default();
    spawn_local(serve(server, Limits::default(), Rc::clone(&seen)));
    (client, seen)
}

/// Runs `test` on one thread in which time stands still unless everybody waits.
fn in_paused_time(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn in_real_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Sends `pieces` one by one, letting the server take each, then reads until the connection ends.
async fn talk(pieces: &[&[u8]]) -> (String, Vec<String>) {
    let (client, seen) = in_memory(1 << 20);
    let (mut reading, mut writing) = tokio::io::split(client);
    let reader = spawn_local(async move {
        let mut answers = Vec::new();
        reading.read_to_end(&mut answers).await.unwrap();
        String::from_utf8(answers).unwrap()
    });
    for piece in pieces {
        // The server may have closed already.
        let _ = writing.write_all(piece).await;
        for _ in 0..4 {
            yield_now().await;
        }
    }
    let answers = reader.await.unwrap();
    let seen = seen.borrow().clone();
    (answers, seen)
}

/// Whole, byte by byte, and cut in two at every place.
fn chunkings(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut all = vec![vec![bytes], bytes.chunks(1).collect()];
    all.extend((1..bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]));
    all
}

/// The status lines in `answers`, in order.
fn statuses(answers: &str) -> Vec<u16> {
    answers
        .match_indices("HTTP/1.")
        .filter_map(|(at, _)| answers.get(at + 9..at + 12)?.parse().ok())
        .collect()
}
