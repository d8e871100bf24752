//! `POST /v1/load`: the gateways' reports, from callers who can prove that they are gateways.
//!
//! The token is looked at before the body is read, and few bodies are read at a time: who is nobody costs nothing.

mod gate;

pub(super) use gate::{Gate, Review, SharedToken};

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};

use self::gate::Refusal;
use super::{
    Clock, SamplesDropped,
    metrics::ApiMetrics,
    reply::{self, Reply},
};
use crate::autoscale::{
    ledger::{Ledger, Receipt},
    report::Report,
};

/// Largest report, in bytes: 1,000 fleets of 30 pods need 10 MiB.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// Bodies that are read at the same time.
const MAX_BODIES: usize = 8;
/// Longest time for one body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger ones are parsed on a thread of their own.
const INLINE: usize = 64 * 1024;

/// Takes reports.
pub(super) struct Loads {
    gate: Gate,
    ledger: Arc<Mutex<Ledger>>,
    urgent: Arc<Notify>,
    clock: Clock,
    dropped: SamplesDropped,
    metrics: ApiMetrics,
    bodies: Semaphore,
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
        let pod = match self.gate.admit(headers).await {
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

#[cfg(test)]
mod tests;
