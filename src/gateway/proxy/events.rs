//! HTTP+SSE, the transport of 2024-11-05, and every other path of a fleet's servers (G25). The session of this
//! transport is the GET stream: its first event names the path for POSTs, which gets the gateway's prefix and a
//! token in place of the pod's identifier.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Response, StatusCode, uri::PathAndQuery};
use tokio::{
    select,
    task::spawn_local,
    time::{Instant, sleep_until},
};

use super::{
    admit::{Need, admit, admit_bound},
    body::Answer,
    coming::Coming,
    context::{Context, Dressed, Head, SessionHeader, Tail},
    exchange::{Arrived, Failure, Gather, Outliving, exchange},
    pipe::{Writer, pipe},
    relay::{COMMENT, KEEP_ALIVE, LARGEST_EVENT},
    sealing::unix_now,
    stream::Open,
};
use crate::gateway::{
    fleet::{Endpoint, Fleet, Phase},
    mcp::{answers::Fault, sse},
    metrics::RetryReason,
    seal::Purpose,
    session::is_event_stream,
    shared::Gateway,
};

/// Most pods that one request is sent to.
const TRIES: usize = 3;
/// A session whose pod terminates ends when nothing was said for so long: its client begins a new one.
const QUIET: Duration = Duration::from_secs(5);

/// A request on a path that is not the MCP endpoint.
pub(crate) async fn other(context: Context, head: Head, body: Bytes, prefix: &str) -> Response<Answer> {
    if let Some(range) = context.path.query().and_then(sse::session_in_query) {
        return on_session(context, head, body, range).await;
    }
    let is_get = head.method == Method::GET;
    let mut tried = Vec::new();
    loop {
        let admitted = admit(&context.worker, &context.fleet, Need::Legacy, &tried, || {
            context.client_key(&head.headers)
        });
        let permit = match admitted.await {
            Ok(permit) => permit,
            Err(shed) => return context.shed(shed, None),
        };
        tried.push(permit.endpoint.serial);
        let request = context.upstream_request(head.method.clone(), head.headers.clone(), body.clone());
        let within = (!is_get).then(|| context.within());
        let (worker, connect) = (Rc::clone(&context.worker), context.connect());
        let arrived = match exchange(worker, permit, request, connect, within, Gather::Small).await {
            Ok(arrived) => arrived,
            Err(Failure::Undelivered(_)) if tried.len() < TRIES => {
                context.fleet.metrics.retries.inc(RetryReason::Connect);
                context.fleet.totals.retried();
                continue;
            }
            Err(failure) => return context.modern_failure(&failure, None),
        };
        let opens = is_get && arrived.status() == StatusCode::OK && is_event_stream(&arrived.head().headers);
        return match arrived {
            Arrived::Stream { head: answer, rest, permit, .. } if opens => {
                permit.ignore();
                let endpoint = Arc::clone(&permit.endpoint);
                let (writer, reader) = pipe();
                let stream = Stream {
                    gateway: Arc::clone(&context.worker.gateway),
                    fleet: Arc::clone(&context.fleet),
                    endpoint,
                    prefix: prefix.to_owned(),
                };
                let Dressed { context, head: answer } =
                    context.dressed(answer, &permit, SessionHeader::Remove);
                drop(permit);
                spawn_local(stream.run(rest, writer));
                context.finish(answer, Answer::pipe(reader))
            }
            arrived => context.pass(arrived, SessionHeader::Remove, None, Tail::default()),
        };
    }
}

/// A POST of a session: to its pod or nowhere, for a wrong one may never answer.
async fn on_session(
    mut context: Context,
    head: Head,
    body: Bytes,
    range: std::ops::Range<usize>,
) -> Response<Answer> {
    use crate::gateway::metrics::Purpose as Label;
    let query = context.path.query().unwrap_or_default().to_owned();
    let keys = context.worker.gateway.keys.load_full();
    let Ok(opened) = keys.open(Purpose::Sse, &context.fleet.uid, &query[range.clone()]) else {
        context.fleet.metrics.tokens_unopened.inc(Label::Sse);
        return context.refuse(&Fault::SessionGone, None);
    };
    let endpoint = context.view.endpoint(opened.pod).filter(|e| e.phase() != Phase::Gone).cloned();
    let Some((endpoint, raw)) = endpoint.zip(std::str::from_utf8(&opened.upstream).ok()) else {
        return context.refuse(&Fault::SessionGone, None);
    };
    let path = format!("{}?{}{raw}{}", context.path.path(), &query[..range.start], &query[range.end..]);
    let Ok(path) = PathAndQuery::try_from(path) else { return context.refuse(&Fault::SessionGone, None) };
    context.path = path;
    let permit = match admit_bound(&context.worker, &context.fleet, &endpoint, || 0).await {
        Ok(permit) => permit,
        Err(shed) => return context.shed(shed, None),
    };
    let request = context.upstream_request(head.method, head.headers, body);
    let within = context.within();
    let (worker, connect) = (Rc::clone(&context.worker), context.connect());
    let running = exchange(worker, permit, request, connect, Some(within), Gather::Small);
    match Outliving::new(running, within, ()).await.0 {
        Ok(arrived) => {
            let tail = Tail { outlives: true, ..Tail::default() };
            context.pass(arrived, SessionHeader::Remove, None, tail)
        }
        Err(Failure::Undelivered(_)) => context.refuse(&Fault::SessionGone, None),
        Err(failure) => context.modern_failure(&failure, None),
    }
}

/// The task behind one client's stream.
struct Stream {
    gateway: Arc<Gateway>,
    fleet: Arc<Fleet>,
    endpoint: Arc<Endpoint>,
    prefix: String,
}

impl Stream {
    async fn run(self, mut body: Box<Coming>, writer: Writer) {
        let _open = Open::at(&self.endpoint, self.gateway.clock);
        self.endpoint.load.session_opened();
        self.read(&mut body, writer).await;
        self.endpoint.load.session_closed();
    }

    async fn read(&self, body: &mut Coming, writer: Writer) {
        // Only the first events can be the one that names the path; the rest passes byte for byte.
        let mut named = Some(sse::Splitter::new(LARGEST_EVENT));
        let mut boundary = sse::Boundary::default();
        let mut said_at = Instant::now();
        let mut silent_at = said_at + KEEP_ALIVE;
        loop {
            let between = named.as_ref().map_or_else(|| boundary.at_boundary(), sse::Splitter::at_boundary);
            let data = select! {
                biased;
                () = writer.left() => return,
                data = body.data() => data,
                () = self.gateway.closing.cancelled(), if between => return writer.finish(),
                () = async { self.endpoint.leaving.cancelled().await; sleep_until(said_at + QUIET).await },
                    if between => return writer.finish(),
                () = sleep_until(silent_at) => {
                    silent_at = Instant::now() + KEEP_ALIVE;
                    if between && writer.send(COMMENT).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let chunk = match data {
                None => return writer.finish(),
                // The session is the stream: what breaks it ends it, visibly.
                Some(Err(_)) if between => return writer.finish(),
                Some(Err(_)) => return,
                Some(Ok(chunk)) => chunk,
            };
            said_at = Instant::now();
            silent_at = said_at + KEEP_ALIVE;
            let Some(splitter) = &mut named else {
                boundary.feed(&chunk);
                if writer.send(chunk).await.is_err() {
                    return;
                }
                continue;
            };
            splitter.push(chunk);
            let mut done = false;
            while let Some(event) = splitter.next_event() {
                let rewritten = (!event.oversize).then(|| self.endpoint_event(&event.bytes)).flatten();
                done |= rewritten.is_some();
                if writer.send(rewritten.unwrap_or(event.bytes)).await.is_err() {
                    return;
                }
            }
            if done && splitter.at_boundary() {
                named = None;
            }
        }
    }

    /// The event that names the path for POSTs, with a path that leads through the gateway.
    fn endpoint_event(&self, event: &[u8]) -> Option<Bytes> {
        let parsed = sse::Event::parse(event);
        if parsed.name != "endpoint" {
            return None;
        }
        let uri = sse::endpoint(&parsed.data)?;
        let mut path = format!("{}{}", self.prefix, uri.path);
        if let Some(query) = uri.query {
            path.push('?');
            match sse::session_in_query(query) {
                Some(range) => {
                    let keys = self.gateway.keys.load();
                    let raw = query[range.clone()].as_bytes();
                    let sealed =
                        keys.seal(unix_now(), Purpose::Sse, &self.fleet.uid, self.endpoint.id, raw, None);
                    path.push_str(&query[..range.start]);
                    path.push_str(&sealed.text);
                    path.push_str(&query[range.end..]);
                }
                None => path.push_str(query),
            }
        }
        Some(sse::rewrite_data(event, &path))
    }
}
