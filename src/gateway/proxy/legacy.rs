//! Requests of the revisions before 2026-07-28: `initialize` binds a session to the pod that answers it, all
//! that follows goes there (G5–G9). A session whose pod is gone is moved; its client never notices.

use std::{rc::Rc, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::value::RawValue;

use super::{
    admit::{Need, admit, admit_bound},
    body::Answer,
    context::{Context, Head, SessionCall, SessionHeader, Tail},
    exchange::{Arrived, Failure, Gather, Outliving, exchange},
    names,
    sealing::unix_now,
};
use crate::gateway::{
    mcp::{
        answers::Fault,
        envelope::{Envelope, Kind},
        result, sse,
    },
    metrics::{Recovery, RetryReason},
    seal::{OpenError, Opened, Purpose, handshake},
    session::{self, Because, Bound, Entry, Gone, Place, Seeker},
};

/// Most pods that an `initialize` is sent to, as long as none of them has got it.
const TRIES: usize = 3;
/// Longest answer to `initialize` that is read for the version in it.
const LARGEST_HANDSHAKE: usize = 1 << 20;

/// A session, as its client's request names it.
pub(crate) struct Named {
    /// The token.
    pub(crate) token: HeaderValue,
    /// What is in it.
    pub(crate) opened: Opened,
    /// What is known of it.
    pub(crate) entry: Arc<Entry>,
}

impl Named {
    /// Opens the session header of a request.
    pub(crate) fn of(context: &Context, token: HeaderValue) -> Result<Self, OpenError> {
        let fleet = &context.fleet;
        let keys = context.worker.gateway.keys.load();
        let text = token.to_str().map_err(|_| OpenError::NotAToken)?;
        let opened = keys.open(Purpose::Session, &fleet.uid, text)?;
        let now = context.worker.gateway.clock.now();
        let entry = fleet.sessions.entry(opened.token_id, opened.pod, now);
        Ok(Self { token, opened, entry })
    }

    fn seeker<'a>(&'a self, authorization: Option<&'a HeaderValue>) -> Seeker<'a> {
        Seeker { token: self.token.to_str().unwrap_or_default(), opened: &self.opened, authorization }
    }

    pub(crate) async fn locate(
        &self,
        context: &Context,
        authorization: Option<&HeaderValue>,
        own: u32,
    ) -> Result<Bound, Gone> {
        let seeker = self.seeker(authorization);
        session::locate(&context.worker.gateway, &context.fleet, seeker, &self.entry, own).await
    }

    pub(crate) async fn relocate(
        &self,
        context: &Context,
        authorization: Option<&HeaderValue>,
        because: Because,
        failed: &Bound,
    ) -> Result<Bound, Gone> {
        let seeker = self.seeker(authorization);
        let gateway = &context.worker.gateway;
        let moving = session::relocate(gateway, &context.fleet, seeker, &self.entry, because, failed.epoch);
        let moved = Box::pin(moving).await;
        if let Err(Gone::Lost) = moved {
            context.fleet.metrics.sessions_lost.inc();
        }
        moved
    }
}

/// The answer to a session id that leads nowhere (G7): 404 with `id: null`, so that a client begins anew.
pub(crate) fn not_opened(context: Context, error: OpenError) -> Response<Answer> {
    use crate::gateway::metrics::Purpose as Label;
    context.fleet.metrics.tokens_unopened.inc(Label::Session);
    if error == OpenError::UnknownKey {
        return context.refuse(&Fault::UnknownKey, None);
    }
    context.refuse(&Fault::SessionGone, None)
}

pub(crate) fn gone(context: Context, gone: Gone, id: Option<&RawValue>) -> Response<Answer> {
    match gone {
        Gone::NoPod | Gone::Stays => context.shed(super::admit::Shed::NoPod, id),
        Gone::Ended | Gone::Lost => context.refuse(&Fault::SessionGone, None),
    }
}

/// Sets what the pod calls the session; nothing where the pod keeps none.
pub(crate) fn set_session(headers: &mut HeaderMap, bound: &Bound) {
    match HeaderValue::from_bytes(&bound.upstream) {
        Ok(value) if !value.is_empty() => {
            headers.insert(names::SESSION_ID, value);
        }
        _ => {
            headers.remove(names::SESSION_ID);
        }
    }
}

/// A POST on a session.
pub(crate) async fn post(
    context: Context,
    head: Head,
    body: Bytes,
    envelope: &Envelope<'_>,
    token: HeaderValue,
) -> Response<Answer> {
    let named = match Named::of(&context, token) {
        Ok(named) => named,
        Err(error) => return not_opened(context, error),
    };
    let id = envelope.id.filter(|_| envelope.kind == Kind::Request);
    if envelope.has_task {
        named.entry.pin();
    }
    let authorization = head.headers.get(header::AUTHORIZATION).cloned();
    let mut call = SessionCall::begin(&named.entry, &context.worker);
    let mut bound = match named.locate(&context, authorization.as_ref(), 1).await {
        Ok(bound) => bound,
        Err(why) => return gone(context, why, id),
    };
    let mut again = true;
    loop {
        let permit = admit_bound(&context.worker, &context.fleet, &bound.endpoint, || {
            context.client_key(&head.headers)
        });
        let permit = match permit.await {
            Ok(permit) => permit,
            Err(shed) => return context.shed(shed, id),
        };
        let mut headers = head.headers.clone();
        set_session(&mut headers, &bound);
        let request = context.upstream_request(Method::POST, headers, body.clone());
        let (worker, within) = (Rc::clone(&context.worker), context.within());
        let running = exchange(worker, permit, request, context.connect(), Some(within), Gather::Small);
        let arrived = match Outliving::new(running, within, call).await {
            (Ok(arrived), kept) => {
                call = kept;
                arrived
            }
            (Err(failure), kept) => {
                call = kept;
                if !(again && matches!(failure, Failure::Undelivered(_))) {
                    return context.legacy_failure(&failure, id);
                }
                again = false;
                context.fleet.metrics.retries.inc(RetryReason::Connect);
                context.fleet.totals.retried();
                bound = match named.relocate(&context, authorization.as_ref(), Because::Dead, &bound).await {
                    Ok(bound) => bound,
                    Err(why) => return gone(context, why, id),
                };
                continue;
            }
        };
        if forgot(&context, &arrived, &bound, &head.headers).await {
            drop(arrived);
            if !again {
                // Made again, and forgotten again: the client has to begin anew (G7).
                return gone(context, Gone::Lost, id);
            }
            again = false;
            context.fleet.metrics.retries.inc(RetryReason::Session);
            context.fleet.totals.retried();
            bound = match named.relocate(&context, authorization.as_ref(), Because::Forgotten, &bound).await {
                Ok(bound) => bound,
                Err(why) => return gone(context, why, id),
            };
            continue;
        }
        if envelope.kind == Kind::Response {
            // Only now: until its pod has got the answer, the session may not leave it (G6).
            named.entry.answered();
        }
        let tail = Tail { id, outlives: true, session: Some(call) };
        return context.pass(arrived, SessionHeader::Echo(&named.token), None, tail);
    }
}

/// Whether the owner of a session says that it does not know it: 404, or a 400 that a `ping` confirms (a
/// container that restarted keeps its pod's UID and address; server-everything says 400).
pub(crate) async fn forgot(context: &Context, arrived: &Arrived, bound: &Bound, headers: &HeaderMap) -> bool {
    if bound.upstream.is_empty() {
        return false;
    }
    match arrived.status() {
        StatusCode::NOT_FOUND => true,
        StatusCode::BAD_REQUEST => {
            let version = headers.get(names::PROTOCOL_VERSION).and_then(|v| v.to_str().ok());
            let authorization = headers.get(header::AUTHORIZATION);
            let asked =
                session::is_known(&context.view, &bound.endpoint, &bound.upstream, version, authorization);
            !Box::pin(asked).await
        }
        _ => false,
    }
}

/// DELETE of a session: its owner decides, and no gateway makes it again (G9).
pub(crate) async fn delete(context: Context, head: Head, token: HeaderValue) -> Response<Answer> {
    let named = match Named::of(&context, token) {
        Ok(named) => named,
        Err(error) => return not_opened(context, error),
    };
    if named.entry.place() == Place::Ended {
        return gone(context, Gone::Ended, None);
    }
    let Some(bound) = session::current(&context.view, &named.opened, &named.entry)
        .filter(|bound| bound.endpoint.serves_bound())
    else {
        // Its pod is gone, and with it the session: what the client asked for.
        session::forget_everywhere(&context.worker.gateway, &context.fleet, &named.entry).await;
        return context.empty(StatusCode::NO_CONTENT);
    };
    let permit = match admit_bound(&context.worker, &context.fleet, &bound.endpoint, || 0).await {
        Ok(permit) => permit,
        Err(shed) => return context.shed(shed, None),
    };
    let mut headers = head.headers;
    set_session(&mut headers, &bound);
    let request = context.upstream_request(Method::DELETE, headers, Bytes::new());
    let within = Some(context.within());
    let sent =
        exchange(Rc::clone(&context.worker), permit, request, context.connect(), within, Gather::Small).await;
    match sent {
        Ok(arrived) => {
            let status = arrived.status();
            if status.is_success() || status == StatusCode::NOT_FOUND {
                session::forget_everywhere(&context.worker.gateway, &context.fleet, &named.entry).await;
            }
            context.pass(arrived, SessionHeader::Echo(&named.token), None, Tail::default())
        }
        Err(Failure::Undelivered(_)) => {
            session::forget_everywhere(&context.worker.gateway, &context.fleet, &named.entry).await;
            context.empty(StatusCode::NO_CONTENT)
        }
        Err(failure) => context.modern_failure(&failure, None),
    }
}

/// `initialize`: any legacy-capable pod; the answer's session becomes a token.
pub(crate) async fn initialize(
    context: Context,
    mut head: Head,
    body: Bytes,
    envelope: &Envelope<'_>,
) -> Response<Answer> {
    let id = envelope.id;
    head.headers.remove(names::SESSION_ID);
    let mut tried = Vec::new();
    let arrived = loop {
        let admitted = admit(&context.worker, &context.fleet, Need::Legacy, &tried, || {
            context.client_key(&head.headers)
        });
        let permit = match admitted.await {
            Ok(permit) => permit,
            Err(shed) => return context.shed(shed, id),
        };
        tried.push(permit.endpoint.serial);
        let request = context.upstream_request(Method::POST, head.headers.clone(), body.clone());
        let (worker, within) = (Rc::clone(&context.worker), context.within());
        let sent = exchange(worker, permit, request, context.connect(), Some(within), Gather::Result).await;
        match sent {
            Ok(arrived) => break arrived,
            Err(Failure::Undelivered(_)) if tried.len() < TRIES => {
                context.fleet.metrics.retries.inc(RetryReason::Connect);
                context.fleet.totals.retried();
            }
            Err(failure) => return context.legacy_failure(&failure, id),
        }
    };
    let upstream = arrived.head().headers.get(names::SESSION_ID).filter(|_| arrived.status().is_success());
    let Some(upstream) = upstream.map(|v| Bytes::copy_from_slice(v.as_bytes())) else {
        return context.pass(arrived, SessionHeader::Remove, None, Tail { id, ..Tail::default() });
    };
    let endpoint = Arc::clone(&arrived.permit().endpoint);
    let (arrived, negotiated) = match negotiated(arrived).await {
        Ok(read) => read,
        Err(failure) => return context.legacy_failure(&failure, id),
    };
    let handshake =
        negotiated.zip(envelope.params).map(|(version, params)| handshake::minimal(params, &version));
    let keys = context.worker.gateway.keys.load_full();
    let sealed = keys.seal(
        unix_now(),
        Purpose::Session,
        &context.fleet.uid,
        endpoint.id,
        &upstream,
        handshake.as_deref(),
    );
    if sealed.handshake_dropped {
        context.fleet.metrics.recoveries.inc(Recovery::NoHandshake);
    }
    context.fleet.sessions.entry(sealed.token_id, endpoint.id, context.worker.gateway.clock.now());
    let Ok(token) = HeaderValue::from_str(&sealed.text) else {
        return context.pass(arrived, SessionHeader::Remove, None, Tail { id, ..Tail::default() });
    };
    context.pass(arrived, SessionHeader::Set(&token), None, Tail { id, ..Tail::default() })
}

/// The version in the answer to `initialize`. Of a stream of events as much is read as it takes; it is passed
/// on from its beginning all the same.
async fn negotiated(arrived: Arrived) -> Result<(Arrived, Option<String>), Failure> {
    match arrived {
        Arrived::Whole { head, body, permit } => {
            let version = result::negotiated(&body).map(std::borrow::Cow::into_owned);
            Ok((Arrived::Whole { head, body, permit }, version))
        }
        Arrived::Stream { head, first, mut rest, permit } => {
            let mut splitter = sse::Splitter::new(LARGEST_HANDSHAKE);
            let mut read = BytesMut::from(&first[..]);
            splitter.push(first);
            let mut version = None;
            while version.is_none() && read.len() < LARGEST_HANDSHAKE {
                while let Some(event) = splitter.next_event() {
                    let event = sse::Event::parse(&event.bytes);
                    version = version
                        .or(result::negotiated(event.data.as_bytes()).map(std::borrow::Cow::into_owned));
                }
                if version.is_some() {
                    break;
                }
                match rest.data().await {
                    None => break,
                    Some(Err(_)) => return Err(Failure::Broken),
                    Some(Ok(data)) => {
                        read.extend_from_slice(&data);
                        splitter.push(data);
                    }
                }
            }
            Ok((Arrived::Stream { head, first: read.freeze(), rest, permit }, version))
        }
    }
}

/// A legacy message without a session: any legacy-capable pod judges it.
pub(crate) async fn unbound(
    context: Context,
    head: Head,
    body: Bytes,
    envelope: &Envelope<'_>,
) -> Response<Answer> {
    let id = envelope.id.filter(|_| envelope.kind == Kind::Request);
    let mut tried = Vec::new();
    loop {
        let admitted = admit(&context.worker, &context.fleet, Need::Legacy, &tried, || {
            context.client_key(&head.headers)
        });
        let permit = match admitted.await {
            Ok(permit) => permit,
            Err(shed) => return context.shed(shed, id),
        };
        tried.push(permit.endpoint.serial);
        let request = context.upstream_request(Method::POST, head.headers.clone(), body.clone());
        let within = context.within();
        let running = exchange(
            Rc::clone(&context.worker),
            permit,
            request,
            context.connect(),
            Some(within),
            Gather::Small,
        );
        match Outliving::new(running, within, ()).await.0 {
            Ok(arrived) => {
                let tail = Tail { id, outlives: true, session: None };
                return context.pass(arrived, SessionHeader::Remove, None, tail);
            }
            Err(Failure::Undelivered(_)) if tried.len() < TRIES => {
                context.fleet.metrics.retries.inc(RetryReason::Connect);
                context.fleet.totals.retried();
            }
            Err(failure) => return context.legacy_failure(&failure, id),
        }
    }
}
