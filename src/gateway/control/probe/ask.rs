//! The questions of the prober, each on a connection of its own: a probe must not be answered by a connection
//! that happens to be alive, and must not keep a pod from ending.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::classify::{self, Deep, Finding};
use crate::gateway::{
    fleet::{Endpoint, FleetSpec},
    session::{OneShot, OneShotError, one_shot},
};

/// Revision of our own questions in the modern era and in the legacy one.
const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
/// Pages of a list that are read, and names that are taken of all of them.
const MAX_PAGES: usize = 10;
const MAX_NAMES: usize = 500;

/// Where a question goes.
pub(super) struct Target<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) spec: &'a FleetSpec,
    pub(super) within: Duration,
}

/// Names of tools and prompts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) tools: Vec<String>,
    pub(super) prompts: Vec<String>,
}

impl Target<'_> {
    /// `server/discover` (mcp.md section 2.3).
    pub(super) async fn discover(&self) -> Finding {
        match self.modern("server/discover", json!({})).await {
            Ok(answer) => classify::discover(answer.status, &answer.body),
            Err(error) => Finding::Failed(error.to_string()),
        }
    }

    /// A GET of a health path: 2xx and 3xx are healthy.
    pub(super) async fn get(&self, path: &str) -> Finding {
        let request = self.request(Method::GET, path).body(Full::default());
        let Ok(request) = request else { return Finding::Failed(format!("'{path}' is no path")) };
        match one_shot(self.endpoint.address, request, self.within).await {
            Ok(answer) if answer.status.as_u16() < 400 => Finding::Alive,
            Ok(answer) => Finding::Failed(format!("{path} answered {}", answer.status.as_u16())),
            Err(error) => Finding::Failed(error.to_string()),
        }
    }

    /// A TCP connection.
    pub(super) async fn connect(&self) -> Finding {
        match timeout(self.within, TcpStream::connect(self.endpoint.address)).await {
            Ok(Ok(_)) => Finding::Alive,
            Ok(Err(error)) => Finding::Failed(format!("failed to connect: {error}")),
            Err(_) => Finding::Failed("no connection in time".into()),
        }
    }

    /// `initialize`, and the end of the session if it made one. With `names`, lists are read in between.
    pub(super) async fn initialize(&self, names: bool) -> (Deep, Option<Names>) {
        let params = json!({
            "protocolVersion": LEGACY, "capabilities": {},
            "clientInfo": {"name": "mcp-fleet-gateway", "version": env!("CARGO_PKG_VERSION")},
        });
        let Ok(answer) = self.legacy(None, &message(Some(1), "initialize", &params)).await else {
            return (Deep::Unclear, None);
        };
        let session = answer.headers.get("mcp-session-id").cloned();
        let deep = classify::initialize(answer.status, session.is_some(), &answer.body);
        let mut found = None;
        if names && matches!(deep, Deep::Serves { .. }) {
            let ready = message(None, "notifications/initialized", &json!({}));
            if self.legacy(session.as_ref(), &ready).await.is_ok() {
                found = Some(
                    self.names(|method, params| {
                        let message = message(Some(2), method, &params);
                        let session = session.clone();
                        async move { self.legacy(session.as_ref(), &message).await }
                    })
                    .await,
                );
            }
        }
        if let Some(session) = session {
            self.end(&session).await;
        }
        (deep, found)
    }

    /// Lists of a modern pod.
    pub(super) async fn modern_names(&self) -> Names {
        self.names(|method, params| async move { self.modern(method, params).await }).await
    }

    async fn names<F>(&self, ask: impl Fn(&'static str, Value) -> F) -> Names
    where
        F: Future<Output = Result<OneShot, OneShotError>>,
    {
        Names { tools: list("tools/list", &ask).await, prompts: list("prompts/list", &ask).await }
    }

    async fn modern(&self, method: &'static str, mut params: Value) -> Result<OneShot, OneShotError> {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let request = self
            .post()
            .header("mcp-protocol-version", MODERN)
            .header("mcp-method", method)
            .body(Full::new(message(Some(1), method, &params)));
        self.send(request).await
    }

    async fn legacy(&self, session: Option<&HeaderValue>, body: &Bytes) -> Result<OneShot, OneShotError> {
        let mut request = self.post();
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        // An initialize names its revision in the body; what follows names it here.
        if session.is_some() {
            request = request.header("mcp-protocol-version", LEGACY);
        }
        self.send(request.body(Full::new(body.clone()))).await
    }

    async fn end(&self, session: &HeaderValue) {
        let request = self
            .request(Method::DELETE, &self.spec.path)
            .header("mcp-session-id", session)
            .header("mcp-protocol-version", LEGACY)
            .body(Full::default());
        if let Err(error) = self.send(request).await {
            tracing::debug!(endpoint = %self.endpoint.name, %error, "a probe's session could not be ended");
        }
    }

    fn post(&self) -> http::request::Builder {
        self.request(Method::POST, &self.spec.path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.spec.upstream_host)
            .header(header::USER_AGENT, concat!("mcp-fleet-gateway/", env!("CARGO_PKG_VERSION")))
    }

    /// A request that cannot be built has a path that is none; it fails as if the pod had refused it.
    async fn send(&self, request: http::Result<Request<Full<Bytes>>>) -> Result<OneShot, OneShotError> {
        let request = request.map_err(|error| OneShotError::Connect(std::io::Error::other(error)))?;
        one_shot(self.endpoint.address, request, self.within).await
    }
}

fn message(id: Option<u32>, method: &str, params: &Value) -> Bytes {
    let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
    if let Some(id) = id {
        message["id"] = json!(id);
    }
    message.to_string().into()
}

/// All names of a list, page by page; what cannot be had is left out.
async fn list<F>(method: &'static str, ask: &impl Fn(&'static str, Value) -> F) -> Vec<String>
where
    F: Future<Output = Result<OneShot, OneShotError>>,
{
    let (mut names, mut cursor) = (Vec::new(), None::<String>);
    for _ in 0..MAX_PAGES {
        let params = cursor.as_ref().map_or(json!({}), |c| json!({"cursor": c}));
        let Ok(answer) = ask(method, params).await else { break };
        let Some((page, next)) = page(answer.status, &answer.body) else { break };
        names.extend(page);
        cursor = next;
        if cursor.is_none() || names.len() >= MAX_NAMES {
            break;
        }
    }
    names.truncate(MAX_NAMES);
    names
}

fn page(status: StatusCode, body: &[u8]) -> Option<(Vec<String>, Option<String>)> {
    #[derive(Deserialize)]
    struct Answer {
        result: Page,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        #[serde(default, alias = "prompts")]
        tools: Vec<Named>,
        next_cursor: Option<String>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let Page { tools, next_cursor } = serde_json::from_slice::<Answer>(body).ok()?.result;
    status.is_success().then(|| (tools.into_iter().map(|t| t.name).collect(), next_cursor))
}
