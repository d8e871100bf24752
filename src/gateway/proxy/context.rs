//! What one request carries through the data path, and the ways to answer it.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, header, request, response, uri::PathAndQuery,
};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    admit::{Permit, Shed, client_key},
    body::Answer,
    exchange::{Arrived, Failure},
    headers::{Forwarded, strip_hop_by_hop, to_upstream},
    names,
    record::{Record, Verdict},
    relay::{Carried, Mode, Relay},
    upstream::Outgoing,
    worker::Worker,
};
use crate::gateway::{
    conn::guard::AnswerBody as _,
    fleet::{Fleet, View},
    mcp::{
        answers::{self, Fault},
        sse,
    },
    session::{Entry, is_event_stream},
};

/// Who is connected.
pub struct Client {
    /// Address.
    pub ip: IpAddr,
    /// The same as a header.
    pub address: HeaderValue,
    /// `http` or `https`.
    pub proto: &'static str,
    /// The host that it named in the TLS handshake.
    pub server_name: Option<Box<str>>,
}

/// One request.
pub(crate) struct Context {
    pub(crate) worker: Rc<Worker>,
    pub(crate) client: Rc<Client>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) view: Arc<View>,
    /// Path and query for the server.
    pub(crate) path: PathAndQuery,
    /// The Host that the client named.
    pub(crate) host: Option<HeaderValue>,
    /// Its era asks for modern statuses.
    pub(crate) is_modern: bool,
    pub(crate) record: Box<Record>,
}

/// What becomes of the session header of an answer.
#[derive(Clone, Copy)]
pub(crate) enum SessionHeader<'a> {
    /// Removed.
    Remove,
    /// The client's own token stands in for whatever the pod says.
    Echo(&'a HeaderValue),
    /// A new one.
    Set(&'a HeaderValue),
}

/// What goes with the stream of an answer to its end.
#[derive(Default)]
pub(crate) struct Tail<'a> {
    /// JSON-RPC id of the call, as it was written.
    pub(crate) id: Option<&'a RawValue>,
    /// The call goes on without its client.
    pub(crate) outlives: bool,
    /// Its session.
    pub(crate) session: Option<SessionCall>,
}

/// An answer's head, ready to go out.
pub(crate) struct Dressed {
    pub(crate) context: Context,
    pub(crate) head: response::Parts,
}

/// A call that runs on a session, until it is dropped.
pub(crate) struct SessionCall {
    pub(crate) entry: Arc<Entry>,
    clock: crate::gateway::fleet::Clock,
}

impl SessionCall {
    pub(crate) fn begin(entry: &Arc<Entry>, worker: &Worker) -> Self {
        let clock = worker.gateway.clock;
        entry.begin(clock.now());
        Self { entry: Arc::clone(entry), clock }
    }
}

impl Drop for SessionCall {
    fn drop(&mut self) {
        self.entry.end(self.clock.now());
    }
}

impl Context {
    /// Key of the client in the queue.
    pub(crate) fn client_key(&self, headers: &HeaderMap) -> u64 {
        client_key(headers, self.client.ip)
    }

    /// Longest wait for the head of an answer.
    pub(crate) fn within(&self) -> Duration {
        self.view.spec.settings.timeouts.request
    }

    /// Longest wait for a connection.
    pub(crate) fn connect(&self) -> Duration {
        self.view.spec.settings.timeouts.connect
    }

    /// The client's request as the server gets it.
    pub(crate) fn upstream_request(
        &self,
        method: http::Method,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Box<Request<Outgoing>> {
        let from =
            Forwarded { address: &self.client.address, proto: self.client.proto, host: self.host.as_ref() };
        to_upstream(&mut headers, &self.view.spec.host_header, &from);
        // It moves through several futures, each of which would hold its memory.
        let mut request = Box::new(Request::new(Outgoing::new(body)));
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from(self.path.clone());
        *request.headers_mut() = headers;
        request
    }

    /// Notes which endpoint has answered.
    pub(crate) fn answered_by(&mut self, permit: &Permit) {
        self.record.endpoint = Some(Arc::clone(&permit.endpoint));
        self.record.upstream_ns = permit.head_after();
    }

    fn dress(&self, head: &mut response::Parts, session: SessionHeader<'_>) {
        strip_hop_by_hop(&mut head.headers, matches!(session, SessionHeader::Remove));
        match session {
            SessionHeader::Remove => {}
            SessionHeader::Echo(token) => {
                if let Some(value) = head.headers.get_mut(names::SESSION_ID) {
                    *value = token.clone();
                }
            }
            SessionHeader::Set(token) => {
                head.headers.insert(names::SESSION_ID, token.clone());
            }
        }
        super::metadata::rewrite_challenge(
            &self.view.spec,
            self.host.as_ref(),
            self.client.proto,
            &mut head.headers,
        );
        if self.worker.gateway.options.expose_served_by
            && let Some(name) =
                self.record.endpoint.as_ref().and_then(|e| HeaderValue::from_str(&e.name).ok())
        {
            head.headers.insert(names::SERVED_BY, name);
        }
    }

    /// Passes an answer on.
    pub(crate) fn pass(
        mut self,
        arrived: Arrived,
        session: SessionHeader<'_>,
        mode: Option<Mode>,
        tail: Tail<'_>,
    ) -> Response<Answer> {
        self.answered_by(arrived.permit());
        self.record.status = arrived.status().as_u16();
        match arrived {
            Arrived::Whole { mut head, body, permit } => {
                self.dress(&mut head, session);
                if body.len() <= super::exchange::SMALL as usize && !self.record.looked {
                    self.record.facts.look(&body);
                }
                let mut answer = Answer::whole(body);
                answer.hold(permit);
                self.finish(head, answer)
            }
            Arrived::Stream { mut head, first, rest, permit } => {
                self.dress(&mut head, session);
                let is_events = is_event_stream(&head.headers);
                if is_events && !head.headers.contains_key(names::ACCEL_BUFFERING) {
                    head.headers.insert(names::ACCEL_BUFFERING, HeaderValue::from_static("no"));
                }
                let mode = mode.unwrap_or_else(|| {
                    if is_events { Mode::Events(sse::Boundary::default()) } else { Mode::Raw }
                });
                let carried = Carried {
                    permit,
                    id: tail.id.filter(|_| is_events).map(RawValue::to_owned),
                    outlives: tail.outlives.then(|| self.within()),
                    idle: self.view.spec.settings.timeouts.stream_idle,
                    end: self.view.spec.settings.timeouts.stream_max.map(|longest| Instant::now() + longest),
                    session: tail.session,
                };
                let mut relay = Relay::new(rest, mode, carried);
                if !first.is_empty() {
                    relay.put_first(first);
                }
                self.finish(head, Answer::relay(relay))
            }
        }
    }

    /// The head of an answer that a task of ours goes on with.
    pub(crate) fn dressed(
        mut self,
        mut head: response::Parts,
        permit: &Permit,
        session: SessionHeader<'_>,
    ) -> Dressed {
        self.answered_by(permit);
        self.record.status = head.status.as_u16();
        self.record.is_stream = true;
        self.dress(&mut head, session);
        head.headers.remove(header::CONTENT_LENGTH);
        if !head.headers.contains_key(names::ACCEL_BUFFERING) {
            head.headers.insert(names::ACCEL_BUFFERING, HeaderValue::from_static("no"));
        }
        Dressed { context: self, head }
    }

    /// The same request for a task that outlives this one; it records nothing.
    pub(crate) fn detached(&self) -> Self {
        Self {
            worker: Rc::clone(&self.worker),
            client: Rc::clone(&self.client),
            fleet: Arc::clone(&self.fleet),
            view: Arc::clone(&self.view),
            path: self.path.clone(),
            host: self.host.clone(),
            is_modern: self.is_modern,
            record: Record::silent(&self.worker),
        }
    }

    /// When a stream of this fleet has to end; far away where it need not.
    pub(crate) fn stream_end(&self) -> Instant {
        let longest = self.view.spec.settings.timeouts.stream_max;
        Instant::now() + longest.unwrap_or(Duration::from_secs(365 * 24 * 3600))
    }

    /// An answer with a body of our making.
    pub(crate) fn finish(self, head: response::Parts, mut body: Answer) -> Response<Answer> {
        if body.is_stream() {
            body.gauged(self.fleet.metrics.clone());
        }
        body.recorded(self.record);
        Response::from_parts(head, body)
    }

    /// An answer of our own, with the status that a request of its era gets.
    pub(crate) fn refuse(self, fault: &Fault<'_>, id: Option<&RawValue>) -> Response<Answer> {
        let status = fault.status(self.is_modern);
        self.fault(fault, id, status)
    }

    /// An answer of our own.
    pub(crate) fn fault(mut self, fault: &Fault<'_>, id: Option<&RawValue>, status: u16) -> Response<Answer> {
        let id = match id {
            None if self.is_modern => answers::Id::Absent,
            id => id.into(),
        };
        self.record.facts.code = Some(fault.code().into());
        self.json(status, answers::error(id, fault))
    }

    /// A JSON body of our own.
    pub(crate) fn json(mut self, status: u16, body: Bytes) -> Response<Answer> {
        self.record.status = status;
        let mut response = Response::new(Answer::whole(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if status == 503 || status == 429 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        let (head, body) = response.into_parts();
        self.finish(head, body)
    }

    /// An answer without a body.
    pub(crate) fn empty(mut self, status: StatusCode) -> Response<Answer> {
        self.record.status = status.as_u16();
        let mut response = Response::new(Answer::whole(Bytes::new()));
        *response.status_mut() = status;
        let (head, body) = response.into_parts();
        self.finish(head, body)
    }

    /// No place (G18, mcp.md section 2.4).
    pub(crate) fn shed(mut self, shed: Shed, id: Option<&RawValue>) -> Response<Answer> {
        use crate::gateway::metrics::Shed as Label;
        self.record.verdict = Verdict::Overload;
        let (label, fault) = match shed {
            Shed::Full => (Label::Full, Fault::Overloaded),
            Shed::TimedOut => (Label::Deadline, Fault::Overloaded),
            Shed::NoPod => (Label::NoEndpoint, Fault::NoPod),
        };
        self.fleet.metrics.shed.inc(label);
        self.fleet.totals.shed();
        self.refuse(&fault, id)
    }

    /// The pod failed a legacy call: an error in HTTP 200 spares the transport (mcp.md section 5).
    pub(crate) fn legacy_failure(mut self, failure: &Failure, id: Option<&RawValue>) -> Response<Answer> {
        self.record.verdict = verdict(failure);
        match id {
            Some(id) => self.fault(&fault(failure), Some(id), 200),
            // Nobody waits for an answer to a notification.
            None => self.empty(StatusCode::ACCEPTED),
        }
    }

    /// The pod failed a modern call, or a stream (G4).
    pub(crate) fn modern_failure(mut self, failure: &Failure, id: Option<&RawValue>) -> Response<Answer> {
        self.record.verdict = verdict(failure);
        self.fault(&fault(failure), id, 503)
    }
}

fn verdict(failure: &Failure) -> Verdict {
    if matches!(failure, Failure::TimedOut) { Verdict::Timeout } else { Verdict::Upstream }
}

fn fault(failure: &Failure) -> Fault<'static> {
    match failure {
        Failure::Undelivered(_) => Fault::OwnerUnreachable,
        Failure::Broken => Fault::UpstreamLost,
        Failure::TimedOut => Fault::UpstreamTimeout,
    }
}

/// Method, URI and headers of a request that was taken apart. It goes from hand to hand, and each future on its way has
/// room for it twice: behind a pointer.
pub(crate) type Head = Box<request::Parts>;
