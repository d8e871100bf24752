//! Who may report: holders of a gateway's ServiceAccount token, or of a shared one.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use parking_lot::Mutex;
use ring::{digest, hmac, rand::SystemRandom};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    autoscale::metrics_api::{
        cached::{Cached, NoAnswer},
        metrics::ApiMetrics,
        reply::{self, Reply},
    },
    runtime::chain::Chain,
};

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
pub(in crate::autoscale::metrics_api) enum Gate {
    /// Holders of a ServiceAccount token of this user, for this audience.
    Review(Box<Review>),
    /// Holders of the token in a file.
    Shared(Box<SharedToken>),
}

impl Gate {
    /// Lets a caller in, or says why not; with the pod to which the token is bound, if it is.
    pub(super) async fn admit(&self, headers: &HeaderMap) -> Result<Pod, Refusal> {
        let token = bearer(headers)
            .ok_or_else(|| Refusal::Unknown("a report needs `Authorization: Bearer <token>`".into()))?;
        match self {
            Gate::Review(review) => review.check(token).await,
            Gate::Shared(shared) => shared.check(token).await.map(|()| None),
        }
    }
}

/// Why a caller is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No token, or not a good one.
    Unknown(String),
    /// A good token of somebody else.
    SomebodyElse(String),
    /// The API server gave no answer.
    NoAnswer(String),
}

impl Refusal {
    /// The answer.
    pub(super) fn reply(&self) -> Reply {
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
pub(super) type Pod = Option<String>;

/// Asks the API server about tokens.
pub(in crate::autoscale::metrics_api) struct Review {
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
    pub(in crate::autoscale::metrics_api) fn new(
        client: Client,
        user: String,
        audience: String,
        metrics: ApiMetrics,
    ) -> Self {
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
pub(in crate::autoscale::metrics_api) struct SharedToken {
    file: PathBuf,
    /// Comparing by tags of a random key takes the same time whatever is presented.
    key: hmac::Key,
    pub(super) tag: Mutex<Option<(Instant, Option<hmac::Tag>)>>,
}

impl SharedToken {
    /// The token in a file; blanks around it do not count. Without a source of chance there is none.
    pub(in crate::autoscale::metrics_api) fn new(file: PathBuf) -> Option<Self> {
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

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let is_token = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN;
    is_token.then_some(token)
}
