//! `POST /v1/load`: the gateways' reports, from callers who can prove that they are gateways.
//!
//! The token is looked at before the body is read, and few bodies are read at a time: who is nobody costs nothing.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use parking_lot::Mutex;
use ring::{digest, hmac, rand::SystemRandom};
use serde_json::json;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout},
};

use super::{
    Clock, SamplesDropped,
    cached::{Cached, NoAnswer},
    metrics::ApiMetrics,
    reply::{self, Reply},
};
use crate::{
    autoscale::{
        ledger::{Ledger, Receipt},
        report::Report,
    },
    runtime::chain::Chain,
};

/// Largest report, in bytes: 1,000 fleets of 30 pods need 10 MiB.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// Bodies that are read at the same time.
const MAX_BODIES: usize = 8;
/// Longest time for one body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger ones are parsed on a thread of their own.
const INLINE: usize = 64 * 1024;
/// Where a review names the pod of a projected token.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// Longest token, in bytes. A ServiceAccount's has about 1,200.
const MAX_TOKEN: usize = 16 * 1024;
/// How long a good token counts, and a bad one.
const GOOD: Duration = Duration::from_secs(60);
const BAD: Duration = Duration::from_secs(10);
/// Tokens that are remembered. Gateways are few, and their tokens change once an hour.
const CAPACITY: usize = 1024;
/// Reviews at the same time: strangers with made-up tokens must not use up the API server's.
const MAX_REVIEWS: usize = 8;
/// The file with the shared token is read anew after so long.
const REREAD: Duration = Duration::from_secs(5);

/// Whose reports are taken.
pub(super) enum Gate {
    /// Holders of a ServiceAccount token of this user, for this audience.
    Review(Box<Review>),
    /// Holders of the token in a file.
    Shared(Box<SharedToken>),
}

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    /// No token, or not a good one.
    Unknown(String),
    /// A good token of somebody else.
    SomebodyElse(String),
    /// The API server gave no answer.
    NoAnswer(String),
}

impl Refusal {
    fn reply(&self) -> Reply {
        match self {
            Self::Unknown(why) => {
                let mut reply = reply::failure(StatusCode::UNAUTHORIZED, why);
                let scheme = http::HeaderValue::from_static("Bearer");
                reply.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
                reply
            }
            Self::SomebodyElse(why) => reply::failure(StatusCode::FORBIDDEN, why),
            Self::NoAnswer(why) => reply::unavailable(why),
        }
    }
}

/// Name of the pod to which a token is bound, if it is bound to one.
type Pod = Option<String>;

/// Asks the API server about tokens.
pub(super) struct Review {
    client: Client,
    user: String,
    audience: String,
    /// By SHA-256 of the token: no token is kept.
    known: Cached<[u8; 32], Result<Pod, Refusal>>,
    slots: Arc<Semaphore>,
    metrics: ApiMetrics,
}

impl Review {
    /// Tokens of `user` for `audience`.
    pub(super) fn new(client: Client, user: String, audience: String, metrics: ApiMetrics) -> Self {
        let slots = Arc::new(Semaphore::new(MAX_REVIEWS));
        Self { client, user, audience, known: Cached::new(CAPACITY), slots, metrics }
    }

    async fn check(&self, token: &str) -> Result<Pod, Refusal> {
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let key: [u8; 32] = digest.as_ref().try_into().unwrap_or_default();
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: token.to_owned() },
            status: None,
        };
        let (client, slots, metrics) = (self.client.clone(), Arc::clone(&self.slots), self.metrics.clone());
        let (user, audience) = (self.user.clone(), self.audience.clone());
        let ask = move || async move {
            // Never closed, so it cannot fail.
            let _slot = slots.acquire().await;
            let result = ask(client, &review, &user, &audience).await;
            let word = match &result {
                Ok(Ok(_)) => "allowed",
                Ok(Err(_)) => "denied",
                Err(_) => "failed",
            };
            metrics.reviewed("TokenReview", word);
            result.map(|verdict| {
                let life = if verdict.is_ok() { GOOD } else { BAD };
                (verdict, life)
            })
        };
        self.known.get(&key, ask).await.unwrap_or_else(|NoAnswer(why)| Err(Refusal::NoAnswer(why)))
    }
}

async fn ask(
    client: Client,
    review: &TokenReview,
    user: &str,
    audience: &str,
) -> Result<Result<Pod, Refusal>, NoAnswer> {
    match Api::all(client).create(&PostParams::default(), review).await {
        Ok(TokenReview { status: Some(status), .. }) => Ok(verdict(status, user, audience)),
        Ok(_) => Err(NoAnswer("the API server's review of the token has no status".into())),
        Err(error) => Err(NoAnswer(format!("failed to review the token: {}", Chain(&error)))),
    }
}

fn verdict(status: TokenReviewStatus, user: &str, audience: &str) -> Result<Pod, Refusal> {
    let unknown = |why: &str| Err(Refusal::Unknown(why.to_owned()));
    if status.authenticated != Some(true) {
        return unknown(
            status.error.as_deref().filter(|e| !e.is_empty()).unwrap_or("the token is not valid"),
        );
    }
    // An authenticator that knows no audiences returns none: then the token is for the API server, not for us.
    if !status.audiences.unwrap_or_default().iter().any(|a| a == audience) {
        return unknown(&format!("the token is not for the audience {audience}"));
    }
    let found = status.user.unwrap_or_default();
    let name = found.username.unwrap_or_default();
    if name == user {
        let pod = found.extra.unwrap_or_default().remove(POD_NAME).and_then(|names| names.into_iter().next());
        return Ok(pod);
    }
    Err(Refusal::SomebodyElse(format!("{name} may not report load; only {user} may")))
}

/// One token that all gateways share, in a file that may change.
pub(super) struct SharedToken {
    file: PathBuf,
    /// Comparing by tags of a random key takes the same time whatever is presented.
    key: hmac::Key,
    tag: Mutex<Option<(Instant, Option<hmac::Tag>)>>,
}

impl SharedToken {
    /// The token in a file; blanks around it do not count. Without a source of chance there is none.
    pub(super) fn new(file: PathBuf) -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        Some(Self { file, key, tag: Mutex::default() })
    }

    async fn check(&self, token: &str) -> Result<(), Refusal> {
        let known = self.tag.lock().filter(|(at, _)| at.elapsed() < REREAD);
        let tag = match known {
            Some((_, tag)) => tag,
            None => self.reread().await,
        };
        let Some(tag) = tag else {
            return Err(Refusal::NoAnswer("the file with the token for load reports cannot be read".into()));
        };
        hmac::verify(&self.key, token.as_bytes(), tag.as_ref())
            .map_err(|_| Refusal::Unknown("the token is not valid".into()))
    }

    async fn reread(&self) -> Option<hmac::Tag> {
        let tag = match tokio::fs::read_to_string(&self.file).await {
            Ok(text) if text.trim().is_empty() => {
                tracing::warn!(file = %self.file.display(), "the token for load reports is empty; nobody can report");
                None
            }
            Ok(text) => Some(hmac::sign(&self.key, text.trim().as_bytes())),
            Err(error) => {
                tracing::warn!(file = %self.file.display(), %error, "failed to read the token for load reports; nobody can report");
                None
            }
        };
        *self.tag.lock() = Some((Instant::now(), tag));
        tag
    }
}

/// Takes reports.
pub(super) struct Loads {
    pub(super) gate: Gate,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) urgent: Arc<Notify>,
    pub(super) clock: Clock,
    pub(super) dropped: SamplesDropped,
    pub(super) metrics: ApiMetrics,
    pub(super) bodies: Semaphore,
}

impl Loads {
    /// What it works with; `gate` decides who may report.
    pub(super) fn new(gate: Gate, parts: &super::Parts, metrics: ApiMetrics) -> Self {
        Self {
            gate,
            ledger: Arc::clone(&parts.ledger),
            urgent: Arc::clone(&parts.urgent),
            clock: Arc::clone(&parts.clock),
            dropped: parts.dropped.clone(),
            metrics,
            bodies: Semaphore::new(MAX_BODIES),
        }
    }

    /// Checks the caller, reads the report, hands it on.
    pub(super) async fn take<B>(&self, headers: &HeaderMap, body: B) -> Reply
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let pod = match self.admit(headers).await {
            Ok(pod) => pod,
            Err(refusal) => {
                self.metrics.reported("refused");
                return refusal.reply();
            }
        };
        let too_large = || {
            let most = MAX_BODY / 1024 / 1024;
            reply::failure(StatusCode::PAYLOAD_TOO_LARGE, &format!("a report has at most {most} MiB"))
        };
        if body.size_hint().lower() > MAX_BODY as u64 {
            self.refuse("malformed");
            return too_large();
        }
        // Never closed, so it cannot fail.
        let _slot = self.bodies.acquire().await;
        let body = match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                self.refuse("malformed");
                let is_large = error.is::<http_body_util::LengthLimitError>();
                return if is_large { too_large() } else { malformed(&error.to_string()) };
            }
            Err(_) => {
                self.refuse("malformed");
                return reply::failure(StatusCode::REQUEST_TIMEOUT, "the report did not arrive in time");
            }
        };
        match parse(body).await {
            // One gateway must not speak for another: its counters would seem to jump.
            Ok(report) if pod.as_ref().is_some_and(|pod| *pod != report.gateway) => {
                self.metrics.reported("refused");
                let pod = pod.unwrap_or_default();
                let why = format!("the token is pod {pod}'s, and the report another gateway's");
                Refusal::SomebodyElse(why).reply()
            }
            Ok(report) => self.accept(&report),
            Err(why) => {
                self.refuse("malformed");
                malformed(&why)
            }
        }
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<Pod, Refusal> {
        let token = bearer(headers)
            .ok_or_else(|| Refusal::Unknown("a report needs `Authorization: Bearer <token>`".into()))?;
        match &self.gate {
            Gate::Review(review) => review.check(token).await,
            Gate::Shared(shared) => shared.check(token).await.map(|()| None),
        }
    }

    fn accept(&self, report: &Report) -> Reply {
        let now = (self.clock)();
        let receipt = self.ledger.lock().accept(report, now);
        let (code, word) = match receipt {
            Receipt::Accepted => (StatusCode::ACCEPTED, "accepted"),
            Receipt::Duplicate => (StatusCode::ACCEPTED, "duplicate"),
            Receipt::Untimely => (StatusCode::UNPROCESSABLE_ENTITY, "untimely"),
            Receipt::Malformed => (StatusCode::BAD_REQUEST, "malformed"),
        };
        if receipt == Receipt::Accepted {
            self.metrics.reported(word);
            // Somebody waits, and nobody can answer: 0→1 must not wait for the next tick.
            if report.fleets.iter().any(|fleet| fleet.ready == 0 && fleet.queue > 0.0) {
                self.urgent.notify_one();
            }
        } else {
            self.refuse(word);
        }
        reply::json(code, &json!({"receipt": word}))
    }

    fn refuse(&self, cause: &'static str) {
        self.metrics.reported(cause);
        self.dropped.add(cause, 1);
    }
}

fn malformed(why: &str) -> Reply {
    let why: String = why.chars().take(200).collect();
    reply::json(StatusCode::BAD_REQUEST, &json!({"receipt": "malformed", "message": why}))
}

/// A large report takes tens of milliseconds, which other requests must not wait for.
async fn parse(body: Bytes) -> Result<Report, String> {
    let is_small = body.len() <= INLINE;
    let parse = move || serde_json::from_slice::<Report>(&body).map_err(|error| error.to_string());
    if is_small { parse() } else { tokio::task::spawn_blocking(parse).await.map_err(|e| e.to_string())? }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let is_token = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN;
    is_token.then_some(token)
}

#[cfg(test)]
mod tests;
