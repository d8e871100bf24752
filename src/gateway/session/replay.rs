//! Makes a session again on another pod: `initialize` with the version that was negotiated, then
//! `notifications/initialized` (G8). One connection, off every pool: this is rare.

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, time::timeout};

use crate::gateway::{
    fleet::{Endpoint, View},
    mcp::sse,
    proxy::names::{PROTOCOL_VERSION, SESSION_ID},
};

/// Longest answer to anything that is asked here, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// What came back.
#[derive(Debug)]
pub(crate) struct OneShot {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: http::HeaderMap,
    /// The body; of a stream of events the data of the first that answers.
    pub body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OneShotError {
    /// No connection.
    #[error("failed to connect: {0}")]
    Connect(std::io::Error),
    /// A broken answer.
    #[error("failed to talk HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// Too long.
    #[error("no answer in time")]
    Timeout,
    /// Too large.
    #[error("the answer is larger than 1 MiB")]
    TooLarge,
}

/// One request on a connection of its own.
pub(crate) async fn one_shot(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<OneShot, OneShotError> {
    timeout(within, exchange(address, request)).await.unwrap_or(Err(OneShotError::Timeout))
}

async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<OneShot, OneShotError> {
    let stream = TcpStream::connect(address).await.map_err(OneShotError::Connect)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    let result = match answer {
        Ok(answer) => read(answer).await,
        Err(error) => Err(error.into()),
    };
    connection.abort();
    result
}

async fn read(answer: http::Response<Incoming>) -> Result<OneShot, OneShotError> {
    let (head, mut body) = answer.into_parts();
    let is_stream = is_event_stream(&head.headers);
    let mut bytes = BytesMut::new();
    let mut splitter = sse::Splitter::new(LARGEST_ANSWER);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if is_stream {
            splitter.push(data);
            while let Some(event) = splitter.next_event() {
                if let Some(answer) = answer_of(&event.bytes) {
                    return Ok(OneShot { status: head.status, headers: head.headers, body: answer });
                }
            }
        } else {
            if bytes.len() + data.len() > LARGEST_ANSWER {
                return Err(OneShotError::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(OneShot { status: head.status, headers: head.headers, body: bytes.freeze() })
}

/// The data of an event, where it is the answer to a request.
pub(crate) fn answer_of(event: &[u8]) -> Option<Bytes> {
    let event = sse::Event::parse(event);
    let data = event.data.as_bytes();
    is_answer(data).then(|| Bytes::copy_from_slice(data))
}

fn is_answer(data: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        result: Option<&'a serde_json::value::RawValue>,
        #[serde(borrow)]
        error: Option<&'a serde_json::value::RawValue>,
    }
    serde_json::from_slice::<Message<'_>>(data).is_ok_and(|m| m.result.is_some() || m.error.is_some())
}

/// Whether an answer is a stream of events.
pub(crate) fn is_event_stream(headers: &http::HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    value.len() >= 17 && value[..17].eq_ignore_ascii_case(b"text/event-stream")
}

/// Why a session could not be made again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The pod could not be reached.
    #[error(transparent)]
    Http(#[from] OneShotError),
    /// It said no.
    #[error("the pod answered {0} to initialize")]
    Refused(StatusCode),
    /// It speaks another revision than the one that was negotiated.
    #[error("the pod negotiates another revision")]
    OtherVersion,
}

/// A message for a pod, with the headers that every server asks for.
pub(crate) fn message(
    view: &View,
    body: Bytes,
    session: Option<&[u8]>,
    version: Option<&str>,
    authorization: Option<&HeaderValue>,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = view.spec.path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&view.spec.upstream_host) {
        headers.insert(header::HOST, host);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    if let Some(session) = session.and_then(|s| HeaderValue::from_bytes(s).ok()) {
        headers.insert(SESSION_ID, session);
    }
    if let Some(version) = version.and_then(|v| HeaderValue::from_str(v).ok()) {
        headers.insert(PROTOCOL_VERSION, version);
    }
    if let Some(authorization) = authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    request
}

/// The version in `initialize` params or results.
pub(crate) fn protocol_version(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        protocol_version: String,
    }
    serde_json::from_slice::<Params>(json).ok().map(|p| p.protocol_version)
}

/// Does the handshake again on `endpoint`; the upstream's new identifier, empty where it keeps no sessions.
pub(crate) async fn replay(
    view: &View,
    endpoint: &Endpoint,
    params: &[u8],
    authorization: Option<&HeaderValue>,
) -> Result<Bytes, ReplayError> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        result: Option<&'a serde_json::value::RawValue>,
    }
    let within = view.spec.settings.timeouts.connect + Duration::from_secs(10);
    let wanted = protocol_version(params);
    let mut body = BytesMut::from(&br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":"#[..]);
    body.extend_from_slice(params);
    body.extend_from_slice(b"}");
    let request = message(view, body.freeze(), None, None, authorization);
    let answer = one_shot(endpoint.address, request, within).await?;
    let result = serde_json::from_slice::<Answer<'_>>(&answer.body).ok().and_then(|a| a.result);
    let (true, Some(result)) = (answer.status.is_success(), result) else {
        return Err(ReplayError::Refused(answer.status));
    };
    let version = protocol_version(result.get().as_bytes());
    if wanted.is_some() && version != wanted {
        return Err(ReplayError::OtherVersion);
    }
    let session = answer.headers.get(SESSION_ID).map(|v| Bytes::copy_from_slice(v.as_bytes()));
    let ready = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let request = message(view, ready, session.as_deref(), version.as_deref(), authorization);
    let answer = one_shot(endpoint.address, request, within).await?;
    if !answer.status.is_success() {
        return Err(ReplayError::Refused(answer.status));
    }
    Ok(session.unwrap_or_default())
}

/// Whether a pod knows a session: a `ping` on it is answered.
pub(crate) async fn is_known(
    view: &View,
    endpoint: &Endpoint,
    session: &[u8],
    version: Option<&str>,
    authorization: Option<&HeaderValue>,
) -> bool {
    let ping = Bytes::from_static(br#"{"jsonrpc":"2.0","id":"mcp-fleet-ping","method":"ping"}"#);
    let request = message(view, ping, Some(session), version, authorization);
    let within = view.spec.settings.timeouts.connect + Duration::from_secs(4);
    // Who does not answer at all has proven nothing.
    one_shot(endpoint.address, request, within).await.is_ok_and(|a| a.status.is_success())
}

/// Tells a pod that a session of it is not used any more. What it answers does not matter.
pub(crate) async fn abandon(
    view: &View,
    endpoint: &Endpoint,
    session: &[u8],
    authorization: Option<&HeaderValue>,
) {
    let mut request = message(view, Bytes::new(), Some(session), None, authorization);
    *request.method_mut() = Method::DELETE;
    let _ = one_shot(endpoint.address, request, Duration::from_secs(2)).await;
}
