//! A request → its answer: which path is whose, and who may see it.
//!
//! `/livez`, `/readyz` and `/healthz` are open, as with every aggregated server. `/v1/load` is the gateways'. All else
//! belongs to the aggregation layer, and of that only metrics need a right: discovery is open to everybody whom it
//! vouches for (its own probes come with and without `system:masters`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body::Body;
use rustls_pki_types::UnixTime;

use super::{
    Clock, LabelsOf,
    answers::{self, Asked, Question},
    authn::{Caller, FrontProxy, Peer},
    authz::{Authorizer, Denied},
    discovery,
    load::Loads,
    metrics::ApiMetrics,
    reply::{self, Reply},
    selector, url,
};
use crate::autoscale::board::Board;

/// Path of the gateways' reports.
const LOAD: &str = "/v1/load";

/// Everything that answers.
pub(super) struct Endpoints {
    /// The metrics API; absent where there is none.
    pub(super) api: Option<Api>,
    /// The receiver of reports; absent where there is none.
    pub(super) loads: Option<Loads>,
    /// Both clocks.
    pub(super) clock: Clock,
    /// Counts.
    pub(super) metrics: ApiMetrics,
}

/// The metrics API.
pub(super) struct Api {
    /// Whose word counts.
    pub(super) front_proxy: Arc<FrontProxy>,
    /// Who may read what.
    pub(super) authorizer: Authorizer,
    /// The numbers.
    pub(super) board: Arc<Board>,
    /// Labels of fleets.
    pub(super) labels: LabelsOf,
}

impl Endpoints {
    /// Answers, and counts the answer.
    pub(super) async fn answer<B>(&self, peer: &Peer, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (endpoint, reply) = self.route(peer, request).await;
        self.metrics.answered(endpoint, reply.status().as_u16());
        reply
    }

    async fn route<B>(&self, peer: &Peer, request: Request<B>) -> (&'static str, Reply)
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let is_get = request.method() == Method::GET;
        match (request.uri().path(), &self.loads) {
            ("/livez" | "/readyz" | "/healthz", _) => {
                ("health", if is_get { reply::text("ok") } else { reply::wrong_method("GET") })
            }
            (LOAD, Some(loads)) => {
                if request.method() != Method::POST {
                    return ("load", reply::wrong_method("POST"));
                }
                let (head, body) = request.into_parts();
                ("load", loads.take(&head.headers, body).await)
            }
            _ => match &self.api {
                Some(api) => api.answer(peer, &request.map(drop), (self.clock)().wall).await,
                None => ("other", reply::failure(StatusCode::NOT_FOUND, "there is no such path")),
            },
        }
    }
}

/// What a path of the API asks for.
enum Path {
    Discovery(serde_json::Value),
    Metric(Question),
    Unknown,
}

impl Api {
    async fn answer(&self, peer: &Peer, request: &Request<()>, now: i64) -> (&'static str, Reply) {
        let path = request.uri().path();
        let asked = match (discovery::document(path), Question::of_path(path)) {
            (Some(document), _) => Path::Discovery(document),
            (None, Some(question)) => Path::Metric(question),
            (None, None) => Path::Unknown,
        };
        let endpoint = match asked {
            Path::Discovery(_) => "discovery",
            Path::Metric(_) => "metrics",
            Path::Unknown => "other",
        };
        let since = Duration::from_millis(u64::try_from(now).unwrap_or_default());
        let caller =
            self.front_proxy.authenticate(peer, request.headers(), UnixTime::since_unix_epoch(since));
        let reply = match (caller, asked) {
            (Err(stranger), _) => reply::failure(StatusCode::UNAUTHORIZED, &stranger.to_string()),
            (Ok(_), Path::Unknown) => {
                reply::failure(StatusCode::NOT_FOUND, "the server could not find the requested resource")
            }
            (Ok(_), _) if request.method() != Method::GET => reply::wrong_method("GET"),
            (Ok(_), Path::Discovery(document)) => reply::json(StatusCode::OK, &document),
            (Ok(caller), Path::Metric(question)) => self.metric(caller, &question, request, now).await,
        };
        (endpoint, reply)
    }

    async fn metric(&self, caller: Caller, question: &Question, request: &Request<()>, now: i64) -> Reply {
        let user = caller.user.clone();
        match self.authorizer.may_read(caller, question).await {
            Ok(Ok(())) => {}
            Ok(Err(Denied(why))) => {
                let message = format!(
                    "{user} may not get {}/{} {} in namespace {}: {why}",
                    discovery::RESOURCE,
                    question.metric,
                    question.name,
                    question.namespace
                );
                return reply::failure(StatusCode::FORBIDDEN, &message);
            }
            Err(no_answer) => return reply::unavailable(&no_answer.to_string()),
        }
        let query = request.uri().query().unwrap_or_default();
        let selector = match selector::parse(&url::field(query, "labelSelector")) {
            Ok(selector) => selector,
            Err(error) => return reply::failure(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let has_metric_selector = !url::field(query, "metricLabelSelector").trim().is_empty();
        let asked = Asked { question, selector: &selector, has_metric_selector };
        answers::answer(&self.board, &asked, |key| (self.labels)(key), now)
    }
}
