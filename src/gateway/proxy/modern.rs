//! Requests of 2026-07-28 and later: any pod that speaks the revision, unless a sealed identifier names one
//! (G2, G3, G17, G19, G20, G22).

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use serde_json::value::RawValue;

use super::{
    admit::{Need, Permit, Shed, admit, admit_bound},
    body::Answer,
    context::{Context, Head, SessionHeader, Tail},
    exchange::{Arrived, Failure, Gather, exchange},
    listen, names,
    relay::{LARGEST_EVENT, Mode},
    sealing::{Echo, Sealing},
};
use crate::gateway::{
    fleet::{Endpoint, Phase},
    mcp::{
        answers::{self, Fault},
        envelope::{Envelope, Kind},
        era, result, splice, sse,
    },
    metrics::{Method as McpMethod, RetryReason},
    seal::{OpenError, Purpose},
    session::is_event_stream,
};

/// Most pods that one request is sent to.
const TRIES: usize = 3;

/// Where a request goes, and what it says when it gets there.
enum Course {
    /// To any pod that speaks the revision.
    Any,
    /// To the pod that minted its identifier.
    Bound(Arc<Endpoint>),
    /// The pod that minted its task is gone, and so is the task.
    TaskGone,
    /// Sealed with a key that is not here yet.
    UnknownKey,
}

/// Whether a request may be sent to a second pod although the first may have seen it (G17).
fn is_repeatable(method: McpMethod) -> bool {
    matches!(
        method,
        McpMethod::Discover
            | McpMethod::ToolsList
            | McpMethod::PromptsList
            | McpMethod::ResourcesList
            | McpMethod::ResourcesTemplatesList
            | McpMethod::ResourcesRead
            | McpMethod::PromptsGet
            | McpMethod::Complete
            | McpMethod::TasksGet
    )
}

/// A POST of a modern revision; without a session header, which means nothing there.
pub(crate) async fn post(
    context: Context,
    head: Head,
    body: Bytes,
    envelope: &Envelope<'_>,
    version: &str,
) -> Response<Answer> {
    let id = envelope.id.filter(|_| envelope.kind == Kind::Request);
    let header =
        |name| head.headers.get(name).and_then(|v: &HeaderValue| std::str::from_utf8(v.as_bytes()).ok());
    if let Err(mismatch) = era::check_headers(header(names::METHOD), header(names::NAME), envelope) {
        return context.refuse(&Fault::Header(mismatch), id);
    }
    let mut headers = head.headers;
    if context.record.method == McpMethod::Listen {
        return Box::pin(listen::post(context, headers, body, envelope, version)).await;
    }
    let mut echo = Echo::default();
    let (course, rewritten) = course(&context, &mut headers, &body, envelope, &mut echo);
    let body = rewritten.unwrap_or(body);
    let need = Need::Modern(version);
    match course {
        Course::UnknownKey => context.refuse(&Fault::UnknownKey, id),
        Course::TaskGone if envelope.declares_tasks() => context.refuse(&Fault::TaskGone, id),
        Course::TaskGone => context.refuse(&Fault::TasksNotDeclared, id),
        Course::Bound(endpoint) => bound(context, headers, body, id, &endpoint, echo).await,
        Course::Any => any(context, headers, body, id, need, echo).await,
    }
}

/// A message that has no id to be answered under.
pub(crate) async fn unanswerable(
    context: Context,
    headers: HeaderMap,
    body: Bytes,
    version: &str,
) -> Response<Answer> {
    any(context, headers, body, None, Need::Modern(version), Echo::default()).await
}

/// Opens the identifier of a request, and puts the pod's own in its place: in the body, which is another one then, and
/// in `Mcp-Name` with it.
fn course(
    context: &Context,
    headers: &mut HeaderMap,
    body: &Bytes,
    envelope: &Envelope<'_>,
    echo: &mut Echo,
) -> (Course, Option<Bytes>) {
    use crate::gateway::metrics::Purpose as Label;
    let is_task = matches!(
        context.record.method,
        McpMethod::TasksGet | McpMethod::TasksUpdate | McpMethod::TasksCancel | McpMethod::TasksResult
    );
    let sealed = match (&envelope.task_id, &envelope.request_state) {
        (Some(task), _) if is_task => Some((Purpose::Task, Label::Task, task)),
        (_, Some(state)) => Some((Purpose::RequestState, Label::State, state)),
        _ => None,
    };
    let Some((purpose, label, text)) = sealed else { return (Course::Any, None) };
    let keys = context.worker.gateway.keys.load();
    let opened = match keys.open(purpose, &context.fleet.uid, &text.value) {
        Ok(opened) => opened,
        Err(error) => {
            context.fleet.metrics.tokens_unopened.inc(label);
            // Not ours: a pod answers it as the specification says.
            let course = if error == OpenError::UnknownKey { Course::UnknownKey } else { Course::Any };
            return (course, None);
        }
    };
    let Ok(raw) = String::from_utf8(opened.upstream) else { return (Course::Any, None) };
    // Only this pod can go on, so it is asked as long as it is listed, whatever its health: a failure is an
    // answer, and the task may still be there.
    let endpoint = context.view.endpoint(opened.pod).filter(|e| e.phase() != Phase::Gone);
    let course = match (endpoint, purpose) {
        (Some(endpoint), _) => Course::Bound(Arc::clone(endpoint)),
        (None, Purpose::Task) => return (Course::TaskGone, None),
        // The servers may share the key of their state.
        (None, _) => Course::Any,
    };
    let body = splice::replace(body, &[(text.range.clone(), raw.as_str())]);
    if purpose == Purpose::Task {
        if headers.contains_key(names::NAME)
            && let Ok(name) = HeaderValue::from_str(&era::encode_name(&raw))
        {
            headers.insert(names::NAME, name);
        }
        echo.0.push((raw.into(), text.value.as_ref().into()));
    }
    (course, Some(body))
}

fn mints(method: McpMethod) -> bool {
    matches!(
        method,
        McpMethod::ToolsCall
            | McpMethod::PromptsGet
            | McpMethod::ResourcesRead
            | McpMethod::TasksGet
            | McpMethod::TasksUpdate
            | McpMethod::TasksCancel
            | McpMethod::TasksResult
    )
}

async fn bound(
    context: Context,
    headers: HeaderMap,
    body: Bytes,
    id: Option<&RawValue>,
    endpoint: &Arc<Endpoint>,
    echo: Echo,
) -> Response<Answer> {
    let permit =
        admit_bound(&context.worker, &context.fleet, endpoint, || context.client_key(&headers)).await;
    let permit = match permit {
        Ok(permit) => permit,
        Err(shed) => return context.shed(shed, id),
    };
    match send(&context, permit, headers, body).await {
        Ok(arrived) => pass(context, arrived, id, echo),
        Err(failure) => context.modern_failure(&failure, id),
    }
}

async fn send(
    context: &Context,
    permit: Permit,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Arrived, Failure> {
    let request = context.upstream_request(Method::POST, headers, body);
    let gather = if mints(context.record.method) { Gather::Result } else { Gather::Small };
    let within = Some(context.within());
    exchange(Rc::clone(&context.worker), permit, request, context.connect(), within, gather).await
}

async fn any(
    context: Context,
    mut headers: HeaderMap,
    mut body: Bytes,
    id: Option<&RawValue>,
    need: Need<'_>,
    echo: Echo,
) -> Response<Answer> {
    let idempotent_tools = context.view.spec.settings.retries.idempotent_tools;
    let repeatable = is_repeatable(context.record.method)
        || (idempotent_tools && context.record.method == McpMethod::ToolsCall);
    let mut tried: Vec<u64> = Vec::new();
    let mut _retrying = None;
    loop {
        let admitted = admit(&context.worker, &context.fleet, need, &tried, || context.client_key(&headers));
        let permit = match admitted.await {
            Ok(permit) => permit,
            Err(shed) => return unserved(context, shed, id),
        };
        let serial = permit.endpoint.serial;
        // Kept for a second pod, where there may be one; a failed connection hands the request back.
        let kept = repeatable.then(|| (headers.clone(), body.clone()));
        let failure = match send(&context, permit, headers, body).await {
            Ok(arrived)
                if arrived.status().is_server_error() && kept.is_some() && tried.len() + 1 < TRIES =>
            {
                Err(arrived)
            }
            Ok(arrived) => return pass(context, arrived, id, echo),
            Err(failure) => Ok(failure),
        };
        tried.push(serial);
        let undelivered = matches!(&failure, Ok(Failure::Undelivered(_)));
        // Where every pod has been tried, the last one's own words are the answer.
        let untried = |e: &Arc<Endpoint>| e.phase() == Phase::Ready && !tried.contains(&e.serial);
        let may =
            (undelivered || repeatable) && tried.len() < TRIES && context.view.endpoints.iter().any(untried);
        let budget = context.fleet.retries.load();
        let active = context.fleet.active.load(std::sync::atomic::Ordering::Relaxed) as u32;
        let granted = may.then(|| budget.try_acquire(active + 1)).flatten();
        if may && granted.is_none() {
            context.fleet.metrics.retries.inc(RetryReason::NoBudget);
        }
        match (granted, failure) {
            (None, Ok(failure)) => return failed(context, &failure, id),
            (None, Err(arrived)) => return pass(context, arrived, id, echo),
            (Some(grant), failure) => {
                _retrying = Some(grant);
                (headers, body) = match (failure, kept) {
                    (_, Some(kept)) => kept,
                    (Ok(Failure::Undelivered(request)), None) => {
                        let (head, body) = request.into_parts();
                        (head.headers, body.into_bytes())
                    }
                    // Unreachable: without a copy only what was handed back is sent again.
                    (Ok(failure), None) => return failed(context, &failure, id),
                    (Err(arrived), None) => return pass(context, arrived, id, echo),
                };
                let reason = if undelivered { RetryReason::Connect } else { RetryReason::Repeatable };
                context.fleet.metrics.retries.inc(reason);
                context.fleet.totals.retried();
            }
        }
    }
}

/// No pod: `server/discover` is answered from what the probes have learnt, for go clients take any failure of
/// it for a legacy server (G3).
fn unserved(context: Context, shed: Shed, id: Option<&RawValue>) -> Response<Answer> {
    match discovered(&context) {
        Some(result) => context.json(200, answers::result(id, &result)),
        None => context.shed(shed, id),
    }
}

fn failed(context: Context, failure: &Failure, id: Option<&RawValue>) -> Response<Answer> {
    match discovered(&context) {
        Some(result) => context.json(200, answers::result(id, &result)),
        None => context.modern_failure(failure, id),
    }
}

fn discovered(context: &Context) -> Option<Arc<str>> {
    if context.record.method != McpMethod::Discover {
        return None;
    }
    context.view.endpoints.iter().find_map(|e| e.capability.load().discover.clone())
}

/// Passes an answer on, with what it mints sealed.
fn pass(mut context: Context, arrived: Arrived, id: Option<&RawValue>, echo: Echo) -> Response<Answer> {
    let tail = Tail { id, ..Tail::default() };
    if !mints(context.record.method) {
        return context.pass(arrived, SessionHeader::Remove, None, tail);
    }
    let sealing = |context: &Context, permit: &Permit| Sealing {
        gateway: Arc::clone(&context.worker.gateway),
        fleet: Arc::clone(&context.fleet),
        endpoint: Arc::clone(&permit.endpoint),
        echo,
    };
    match arrived {
        Arrived::Whole { mut head, mut body, permit } => {
            context.record.looked = true;
            if result::may_matter(&body)
                && let Some(sealed) = sealing(&context, &permit).rewritten(&body, &mut context.record.facts)
            {
                head.headers.remove(http::header::CONTENT_LENGTH);
                body = sealed;
            }
            context.pass(Arrived::Whole { head, body, permit }, SessionHeader::Remove, None, tail)
        }
        Arrived::Stream { head, first, rest, permit } => {
            let mode = is_event_stream(&head.headers)
                .then(|| Box::new(sealing(&context, &permit)))
                .map(|sealing| Mode::Sealed(Box::new(sse::Splitter::new(LARGEST_EVENT)), sealing));
            let arrived = Arrived::Stream { head, first, rest, permit };
            context.pass(arrived, SessionHeader::Remove, mode, tail)
        }
    }
}
