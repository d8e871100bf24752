//! A request, from its head to the part that serves it: host, origin and route, then body, envelope and era.

use std::{rc::Rc, sync::atomic::Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, uri::PathAndQuery};

use super::{
    body::{Answer, BadBody, Collected, Given, collect},
    context::{Client, Context, Head},
    events, headers, legacy, modern, names,
    record::{Record, Verdict},
    stream,
    worker::Worker,
};
use crate::gateway::{
    access_log,
    conn::guard::{BodyFault, GuardHandle},
    mcp::{
        BadEnvelope,
        answers::{self, Fault},
        envelope::{self, Envelope, Kind},
        era::{self, Era},
    },
    metrics::{Method as McpMethod, Version},
    routing::{OriginPolicy, Route, Routes, cors_headers, preflight_headers},
};

/// Answers one request. `guard` is that of an HTTP/1 connection.
pub async fn serve(
    worker: Rc<Worker>,
    client: Rc<Client>,
    guard: Option<GuardHandle>,
    mut head: Head,
    body: Given,
) -> Response<Answer> {
    let answering = guard.as_ref().map(GuardHandle::answering);
    let origin = head.headers.get(header::ORIGIN).cloned();
    // The guard has judged the head of an HTTP/1 request.
    let checked = guard.is_some();
    let mut response = match admit(&worker, &client, &mut head, checked) {
        Ok(Admitted { context, prefix, is_mcp }) => {
            let request = Arriving { head, body, guard };
            let mut response = Box::pin(route(context, request, &prefix, is_mcp)).await;
            if let Some(origin) = origin {
                for (name, value) in cors_headers(&origin) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        Err(refused) => *refused,
    };
    if let Some(answering) = answering {
        // A client that goes on elsewhere now does not run into the end of this connection later.
        if worker.gateway.ending.load(Ordering::Relaxed) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.body_mut().tell(answering);
    } else {
        // HTTP/2: this client may let its answer wait for as long as it likes, and with it nobody else.
        response.body_mut().release();
    }
    response
}

struct Arriving {
    head: Head,
    body: Given,
    guard: Option<GuardHandle>,
}

struct Admitted {
    /// Behind a pointer for the same reason as [`Head`].
    context: Box<Context>,
    prefix: String,
    is_mcp: bool,
}

/// An answer for no fleet.
fn plain(mut record: Box<Record>, fault: &Fault<'_>, status: u16) -> Box<Response<Answer>> {
    record.status = status;
    record.verdict = Verdict::Client;
    let mut response = Response::new(Answer::whole(answers::error(answers::Id::Null, fault)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response.body_mut().recorded(record);
    Box::new(response)
}

/// A header as text; UTF-8 beyond ASCII included, as go sends names.
fn text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// Host, origin and route of a request (G12, gateway.md section 5). `checked`: its head was judged already.
fn admit(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    head: &mut Head,
    checked: bool,
) -> Result<Admitted, Box<Response<Answer>>> {
    let mut record = Record::new(worker);
    note(&mut record, client, head);
    let gateway = &worker.gateway;
    let snapshot = gateway.snapshot.load();
    // `:authority` of HTTP/2 wins over Host.
    let host = match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => head.headers.get(header::HOST).cloned(),
    };
    let host_text = host.as_ref().and_then(|h| h.to_str().ok());
    if !gateway.hosts.load().accepts(host_text, &snapshot.routes) {
        return Err(plain(record, &Fault::Forbidden, 403));
    }
    if is_misdirected(client, host_text, &snapshot.routes) {
        return Err(plain(record, &Fault::Forbidden, 421));
    }
    let version = text(&head.headers, &names::PROTOCOL_VERSION);
    record.version = Version::of(version);
    let modern = version.is_some_and(era::is_modern_version);
    let (index, prefix, rest, is_mcp) = match snapshot.routes.route(host_text, head.uri.path()) {
        Route::Fleet { index, prefix, rest_path, mcp } => (index, prefix, rest_path, mcp),
        Route::WellKnown { index, prefix, rest_path } => (index, prefix, rest_path, false),
        Route::Unknown => {
            let status = Fault::UnknownRoute.status(modern);
            return Err(plain(record, &Fault::UnknownRoute, status));
        }
    };
    let fleet = &snapshot.fleets[index];
    let view = fleet.view_full();
    record.fleet = Some(std::sync::Arc::clone(fleet));
    fleet.totals.arrived();
    let settings = &view.spec.settings;
    let policy = OriginPolicy { origins: &settings.origins, tls: client.proto == "https" };
    let origin = head.headers.get(header::ORIGIN);
    if !policy.accepts(origin.map(|o| o.to_str().unwrap_or("null")), host_text) {
        return Err(plain(record, &Fault::Forbidden, 403));
    }
    if head.method == Method::OPTIONS {
        return Err(preflight(record, head));
    }
    if !checked && let Err(headers::BadHeaders::Repeated(name)) = headers::check(&head.headers) {
        return Err(plain(record, &Fault::BadHeaders(name), 400));
    }
    let path = match head.uri.query() {
        None if is_mcp => Ok(view.mcp_path.clone()),
        None => PathAndQuery::try_from(rest),
        Some(query) => PathAndQuery::try_from(format!("{rest}?{query}")),
    };
    let Ok(path) = path else {
        return Err(plain(record, &Fault::UnknownRoute, Fault::UnknownRoute.status(modern)));
    };
    // Only what is not a POST to the MCP path may be answered with paths of the server's own.
    let prefix = if is_mcp && head.method == Method::POST { String::new() } else { prefix.to_owned() };
    let context = Box::new(Context {
        worker: Rc::clone(worker),
        client: Rc::clone(client),
        fleet: std::sync::Arc::clone(fleet),
        view,
        path,
        host,
        is_modern: modern,
        record,
    });
    Ok(Admitted { context, prefix, is_mcp })
}

/// Whether the host of a TLS handshake belongs to another fleet than the request's (RFC 9110 section 15.5.20): a
/// client that reuses a connection for another name has to open one for it.
fn is_misdirected(client: &Client, host: Option<&str>, routes: &Routes) -> bool {
    let Some(server_name) = &client.server_name else { return false };
    let (shaken, asked) = (routes.owner(server_name), host.and_then(|host| routes.owner(host)));
    matches!((shaken, asked), (Some(shaken), Some(asked)) if shaken != asked)
}

/// What the log line says of a request before it is read.
fn note(record: &mut Record, client: &Client, head: &Head) {
    let Some(entry) = &mut record.entry else { return };
    entry.client = Some(client.ip);
    entry.http_method = head.method.clone();
    entry.request_id = access_log::request_id(head.headers.get(names::REQUEST_ID).map(HeaderValue::as_bytes));
    entry.trace_id = head
        .headers
        .get(names::TRACEPARENT)
        .map(HeaderValue::as_bytes)
        .and_then(|v| access_log::trace_id(Some(v)));
}

fn preflight(mut record: Box<Record>, head: &Head) -> Box<Response<Answer>> {
    record.status = 204;
    let mut response = Response::new(Answer::whole(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let requested = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(origin) = head.headers.get(header::ORIGIN) {
        for (name, value) in preflight_headers(origin, requested) {
            response.headers_mut().insert(name, value);
        }
    } else {
        let allow = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response.body_mut().recorded(record);
    Box::new(response)
}

async fn route(mut context: Box<Context>, request: Arriving, prefix: &str, is_mcp: bool) -> Response<Answer> {
    let Arriving { head, body, guard } = request;
    let body = if head.method == Method::POST {
        let limit = context.view.spec.settings.limits.max_body_bytes;
        match collect(body, limit).await {
            Ok(body) => body,
            Err(bad) => return bad_body(*context, bad, guard.as_ref()),
        }
    } else {
        Collected::empty()
    };
    if let Some(entry) = &mut context.record.entry {
        entry.bytes_in = body.bytes.len() as u64;
    }
    if !is_mcp {
        return Box::pin(events::other(*context, head, body.bytes, prefix)).await;
    }
    match head.method {
        Method::POST => post(context, head, body.bytes).await,
        // A modern server has nothing to GET or DELETE (mcp.md section 2.3).
        _ if context.is_modern => {
            let mut response = context.empty(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            response
        }
        Method::GET | Method::DELETE => {
            let is_get = head.method == Method::GET;
            match head.headers.get(names::SESSION_ID).cloned() {
                Some(token) if is_get => Box::pin(stream::get(*context, head, token)).await,
                Some(token) => Box::pin(legacy::delete(*context, head, token)).await,
                // HTTP+SSE may live on the MCP path itself.
                None => Box::pin(events::other(*context, head, Bytes::new(), prefix)).await,
            }
        }
        _ => context.empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn bad_body(mut context: Context, bad: BadBody, guard: Option<&GuardHandle>) -> Response<Answer> {
    context.record.verdict = Verdict::Client;
    let fault = guard.and_then(GuardHandle::body_fault);
    let mut response = match (bad, fault) {
        (BadBody::TooLarge, _) => context.fault(&Fault::BodyTooLarge, None, 413),
        (BadBody::Stalled, _) | (_, Some(BodyFault::Timeout)) => context.empty(StatusCode::REQUEST_TIMEOUT),
        (BadBody::Broken, _) => context.fault(&Fault::Body(BadEnvelope::NotJson), None, 400),
    };
    // What is left of the body cannot be told from a next request.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn post(mut context: Box<Context>, head: Head, body: Bytes) -> Response<Answer> {
    let envelope = match envelope::peek(&body) {
        Ok(envelope) => envelope,
        Err(bad) => {
            context.record.verdict = Verdict::Client;
            return context.fault(&Fault::Body(bad), None, 400);
        }
    };
    describe(&mut context, &envelope);
    let version = head.headers.get(names::PROTOCOL_VERSION).cloned();
    let version = version.as_ref().and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let session = head.headers.get(names::SESSION_ID).cloned();
    match era::classify(version, session.is_some(), &envelope) {
        Era::Modern { version } => {
            context.is_modern = true;
            let mut head = head;
            if session.is_some() {
                head.headers.remove(names::SESSION_ID);
            }
            modern::post(*context, head, body.clone(), &envelope, version).await
        }
        Era::ModernInvalid(mismatch) => {
            context.is_modern = true;
            context.record.verdict = Verdict::Client;
            let id = envelope.id.filter(|_| envelope.kind == Kind::Request);
            context.refuse(&Fault::Header(mismatch), id)
        }
        Era::LegacyInitialize => Box::pin(legacy::initialize(*context, head, body.clone(), &envelope)).await,
        Era::LegacySession => match session {
            Some(token) => Box::pin(legacy::post(*context, head, body.clone(), &envelope, token)).await,
            None => Box::pin(legacy::unbound(*context, head, body.clone(), &envelope)).await,
        },
        Era::LegacyUnbound => Box::pin(legacy::unbound(*context, head, body.clone(), &envelope)).await,
    }
}

/// What metrics and log say of a message.
fn describe(context: &mut Context, envelope: &Envelope<'_>) {
    let record = &mut context.record;
    record.method = match envelope.kind {
        Kind::Request | Kind::Notification => McpMethod::of(envelope.method()),
        Kind::Response => McpMethod::Response,
        Kind::Batch { .. } => McpMethod::Batch,
    };
    if matches!(record.method, McpMethod::ToolsCall | McpMethod::PromptsGet) {
        record.tool = envelope.name.as_deref().map(Into::into);
    }
    if let Some(entry) = &mut record.entry {
        entry.mcp_method = envelope.method.as_deref().map(Into::into);
        entry.era = if context.is_modern { "modern" } else { "legacy" };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every connection owns the memory of one such future, and every request moves it: what is rare lies behind
    /// a pointer.
    #[test]
    fn a_request_is_small() {
        fn future_of<F>(_: &impl Fn(Rc<Worker>, Rc<Client>, Option<GuardHandle>, Head, Given) -> F) -> usize {
            size_of::<Option<F>>()
        }
        let bytes = future_of(&serve);
        assert!(bytes <= 1536, "{bytes} bytes");
    }
}
