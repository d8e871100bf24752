//! The GET stream of a legacy session: stays open while the session moves from pod to pod (gateway.md
//! section 2). Ids of events get the epoch of the session in front once it has moved, so that a client that
//! resumes cannot ask the new pod for events of the old one.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use tokio::{
    select,
    task::spawn_local,
    time::{Instant, sleep, sleep_until},
};

use super::{
    admit::admit_bound,
    body::Answer,
    coming::Coming,
    context::{Context, Dressed, Head, SessionHeader, Tail},
    exchange::{Arrived, Failure, Gather, exchange},
    legacy::{Named, forgot, gone, not_opened, set_session},
    names,
    pipe::{Left, Writer, pipe},
    relay::{COMMENT, KEEP_ALIVE, LARGEST_EVENT, asks_client},
};
use crate::gateway::{
    fleet::{Clock, Endpoint},
    mcp::sse,
    session::{self, Because, Bound, Gone, is_event_stream},
};

/// How often a session that could not leave its pod is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Counts an open stream at its endpoint.
pub(crate) struct Open(Arc<Endpoint>, Clock);

impl Open {
    pub(crate) fn at(endpoint: &Arc<Endpoint>, clock: Clock) -> Self {
        endpoint.load.stream_opened();
        endpoint.totals.stream_start(clock.now());
        Self(Arc::clone(endpoint), clock)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.load.stream_closed();
        self.0.totals.stream_finish(self.1.now());
    }
}

/// What the stream reads from.
struct Source {
    bound: Bound,
    body: Box<Coming>,
    _open: Open,
}

/// How reading from one pod ended.
enum Ended {
    /// The client has left, or the gateway closes.
    Done,
    /// The server ended the stream.
    Finished,
    /// The connection broke between two events.
    Broken,
    /// It broke inside an event: what was sent of it cannot be taken back.
    Torn,
    /// The session lives elsewhere now.
    Moved(Bound),
}

/// GET on a session.
pub(crate) async fn get(context: Context, head: Head, token: HeaderValue) -> Response<Answer> {
    let named = match Named::of(&context, token) {
        Ok(named) => named,
        Err(error) => return not_opened(context, error),
    };
    let authorization = head.headers.get(header::AUTHORIZATION).cloned();
    let mut bound = match named.locate(&context, authorization.as_ref(), 0).await {
        Ok(bound) => bound,
        Err(why) => return gone(context, why, None),
    };
    let mut again = true;
    let arrived = loop {
        let because = match open(&context, &head.headers, &bound).await {
            Ok(arrived) if forgot(&context, &arrived, &bound, &head.headers).await => {
                if !again {
                    return gone(context, Gone::Lost, None);
                }
                Because::Forgotten
            }
            Ok(arrived) => break arrived,
            Err(Failure::Undelivered(_)) if again => Because::Dead,
            Err(failure) => return context.modern_failure(&failure, None),
        };
        again = false;
        bound = match named.relocate(&context, authorization.as_ref(), because, &bound).await {
            Ok(bound) => bound,
            Err(why) => return gone(context, why, None),
        };
    };
    let is_stream = arrived.status() == StatusCode::OK && is_event_stream(&arrived.head().headers);
    match arrived {
        Arrived::Stream { head: answer, rest, permit, .. } if is_stream => {
            // An open stream is no running call.
            permit.ignore();
            let source =
                Source { _open: Open::at(&bound.endpoint, context.worker.gateway.clock), bound, body: rest };
            let (writer, reader) = pipe();
            let Dressed { context, head: answer } =
                context.dressed(answer, &permit, SessionHeader::Echo(&named.token));
            drop(permit);
            let end = context.stream_end();
            let stream =
                Stream { context: context.detached(), headers: head.headers, named, authorization, end };
            spawn_local(stream.run(source, writer));
            context.finish(answer, Answer::pipe(reader))
        }
        arrived => context.pass(arrived, SessionHeader::Echo(&named.token), None, Tail::default()),
    }
}

/// Opens the stream at a pod.
async fn open(context: &Context, headers: &HeaderMap, bound: &Bound) -> Result<Arrived, Failure> {
    let permit = admit_bound(&context.worker, &context.fleet, &bound.endpoint, || 0)
        .await
        .map_err(|_| Failure::TimedOut)?;
    let mut headers = headers.clone();
    set_session(&mut headers, bound);
    resume(&mut headers, bound.epoch);
    let request = context.upstream_request(Method::GET, headers, Bytes::new());
    // No limit on the head: go sends it with the first event.
    exchange(Rc::clone(&context.worker), permit, request, context.connect(), None, Gather::Nothing).await
}

/// Makes `Last-Event-ID` the pod's own again; one of another epoch is of another pod, and is dropped.
fn resume(headers: &mut HeaderMap, epoch: u32) {
    let Some(last) = headers.get(names::LAST_EVENT_ID) else { return };
    let last = last.clone();
    let (of, id) = sse::split_epoch(last.to_str().unwrap_or_default());
    if of != epoch {
        headers.remove(names::LAST_EVENT_ID);
    } else if epoch > 0
        && let Ok(id) = HeaderValue::from_str(id)
    {
        headers.insert(names::LAST_EVENT_ID, id);
    }
}

/// The task behind one client's GET.
struct Stream {
    context: Context,
    headers: HeaderMap,
    named: Named,
    authorization: Option<HeaderValue>,
    end: Instant,
}

impl Stream {
    async fn run(mut self, mut source: Source, writer: Writer) {
        // A stream of the old pod has nothing to go on with at the new one.
        loop {
            let ended = self.read(&mut source, &writer).await;
            self.headers.remove(names::LAST_EVENT_ID);
            let next = match ended {
                Ended::Done => return writer.finish(),
                Ended::Torn => return,
                Ended::Moved(bound) => Some(bound),
                // A server may end a stream and be asked again later (SEP-1699); one that ends with its pod is
                // gone on with elsewhere.
                Ended::Finished if !source.bound.endpoint.leaving.is_cancelled() => return writer.finish(),
                Ended::Finished | Ended::Broken => self.after_loss(&source.bound).await,
            };
            drop(source);
            let opened = match next {
                Some(bound) => self.reopen(bound, &writer).await,
                None => None,
            };
            match opened {
                Some(new) => source = new,
                None => return writer.finish(),
            }
        }
    }

    /// Reads from one pod until something happens.
    async fn read(&self, source: &mut Source, writer: &Writer) -> Ended {
        let epoch = source.bound.epoch;
        let mut boundary = sse::Boundary::default();
        let mut splitter = (epoch > 0).then(|| sse::Splitter::new(LARGEST_EVENT));
        let leaving = source.bound.endpoint.leaving.clone();
        let closing = self.context.worker.gateway.closing.clone();
        let mut look_again = Instant::now();
        let mut silent_at = Instant::now() + KEEP_ALIVE;
        let end = self.end;
        loop {
            let between = splitter.is_some() || boundary.at_boundary();
            let chunk = select! {
                biased;
                () = writer.left() => return Ended::Done,
                data = source.body.data() => match data {
                    None => return Ended::Finished,
                    Some(Err(_)) => return if between { Ended::Broken } else { Ended::Torn },
                    Some(Ok(chunk)) => chunk,
                },
                () = closing.cancelled(), if between => return Ended::Done,
                () = sleep_until(end), if between => return Ended::Done,
                () = async { leaving.cancelled().await; sleep_until(look_again).await }, if between => {
                    look_again = Instant::now() + TRY_AGAIN;
                    match self.leave().await {
                        Some(bound) => return Ended::Moved(bound),
                        None => continue,
                    }
                }
                () = sleep_until(silent_at) => {
                    silent_at = Instant::now() + KEEP_ALIVE;
                    if between && writer.send(COMMENT).await.is_err() {
                        return Ended::Done;
                    }
                    continue;
                }
            };
            silent_at = Instant::now() + KEEP_ALIVE;
            if asks_client(&chunk) {
                self.named.entry.asked();
            }
            boundary.feed(&chunk);
            if send(writer, chunk, splitter.as_mut(), epoch).await.is_err() {
                return Ended::Done;
            }
        }
    }

    /// The pod terminates: the session goes, if it may.
    async fn leave(&self) -> Option<Bound> {
        let before = self.named.entry.place();
        let bound = self.named.locate(&self.context, self.authorization.as_ref(), 0).await.ok()?;
        (self.named.entry.place() != before || !bound.endpoint.leaving.is_cancelled()).then_some(bound)
    }

    /// The stream broke. Whether the session did too, its pod has to say.
    async fn after_loss(&self, bound: &Bound) -> Option<Bound> {
        let fleet = self.context.fleet.view_full();
        let version = self.headers.get(names::PROTOCOL_VERSION).and_then(|v| v.to_str().ok());
        let authorization = self.authorization.as_ref();
        let knows = self.named.entry.place().epoch() == bound.epoch
            && !bound.upstream.is_empty()
            && bound.endpoint.serves_bound()
            && session::is_known(&fleet, &bound.endpoint, &bound.upstream, version, authorization).await;
        if knows {
            // The client asks again; the answer is the pod's.
            return None;
        }
        self.named.relocate(&self.context, authorization, Because::Dead, bound).await.ok()
    }

    async fn reopen(&self, bound: Bound, writer: &Writer) -> Option<Source> {
        let opened = select! {
            () = writer.left() => return None,
            opened = open(&self.context, &self.headers, &bound) => opened.ok()?,
        };
        let is_stream = opened.status() == StatusCode::OK && is_event_stream(&opened.head().headers);
        match opened {
            Arrived::Stream { rest, permit, .. } if is_stream => {
                permit.ignore();
                Some(Source {
                    _open: Open::at(&bound.endpoint, self.context.worker.gateway.clock),
                    bound,
                    body: rest,
                })
            }
            _ => {
                // The new pod offers no stream. The client's stays open and silent, for its end would end the
                // session of some (mcp.md section 5).
                let closing = self.context.worker.gateway.closing.clone();
                loop {
                    select! {
                        () = writer.left() => return None,
                        () = closing.cancelled() => return None,
                        () = sleep(KEEP_ALIVE) => if writer.send(COMMENT).await.is_err() { return None },
                    }
                }
            }
        }
    }
}

async fn send(
    writer: &Writer,
    chunk: Bytes,
    splitter: Option<&mut sse::Splitter>,
    epoch: u32,
) -> Result<(), Left> {
    let Some(splitter) = splitter else { return writer.send(chunk).await };
    splitter.push(chunk);
    while let Some(event) = splitter.next_event() {
        let bytes = if event.oversize { event.bytes } else { sse::prefix_id(&event.bytes, epoch) };
        writer.send(bytes).await?;
    }
    Ok(())
}
