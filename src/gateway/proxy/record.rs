//! What is known of a request, for the metrics, the log and the load reports. Completed once, when the answer
//! has ended or its client has left.

use std::{
    sync::{Arc, LazyLock},
    time::SystemTime,
};

use memchr::memmem;

use super::worker::Worker;
use crate::gateway::{
    access_log::Entry,
    balance::Nanos,
    fleet::Fleet,
    metrics::{ErrorType, Method, Observation, Outcome, Version},
};

/// What an answer says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// A tool said `isError`.
    pub(crate) tool_failed: bool,
    /// Code of a JSON-RPC error.
    pub(crate) code: Option<i64>,
    /// The pod ended before its answer did.
    pub(crate) upstream_failed: bool,
}

impl Facts {
    /// Adds what another part of the answer said.
    pub(crate) fn merge(&mut self, other: Self) {
        self.tool_failed |= other.tool_failed;
        self.upstream_failed |= other.upstream_failed;
        self.code = self.code.or(other.code);
    }

    /// Looks for a failure in a piece of an answer that is not parsed: a sign in a text would count too, which a
    /// metric can bear.
    pub(crate) fn look(&mut self, piece: &[u8]) {
        static FAILED: LazyLock<memmem::Finder<'static>> =
            LazyLock::new(|| memmem::Finder::new(b"\"isError\":true"));
        static ERROR: LazyLock<memmem::Finder<'static>> =
            LazyLock::new(|| memmem::Finder::new(b"\"error\":{\"code\":"));
        if FAILED.find(piece).is_some() {
            self.tool_failed = true;
        }
        if self.code.is_none()
            && let Some(at) = ERROR.find(piece)
        {
            let digits = &piece[at + 16..piece.len().min(at + 28)];
            let end = digits.iter().position(|b| !(b.is_ascii_digit() || *b == b'-')).unwrap_or(digits.len());
            self.code = std::str::from_utf8(&digits[..end]).ok().and_then(|d| d.parse().ok());
        }
    }
}

/// Why there is no ordinary answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is one.
    #[default]
    Served,
    /// No place was free.
    Overload,
    /// The pod failed.
    Upstream,
    /// It took too long.
    Timeout,
    /// The client did something wrong.
    Client,
}

/// See the module.
pub(crate) struct Record {
    worker: std::rc::Rc<Worker>,
    started: Nanos,
    /// Which fleet.
    pub(crate) fleet: Option<Arc<Fleet>>,
    /// JSON-RPC method.
    pub(crate) method: Method,
    /// Tool or prompt.
    pub(crate) tool: Option<Box<str>>,
    /// Revision.
    pub(crate) version: Version,
    /// The answer's status; 0 until there is one.
    pub(crate) status: u16,
    /// What the answer says.
    pub(crate) facts: Facts,
    /// The whole answer has been looked into.
    pub(crate) looked: bool,
    /// Why it is not the pod's.
    pub(crate) verdict: Verdict,
    /// It is a stream without end, whose length says nothing.
    pub(crate) is_stream: bool,
    /// Name of the endpoint, and time until its answer.
    pub(crate) endpoint: Option<Arc<crate::gateway::fleet::Endpoint>>,
    /// Time from the request to the head of the pod's answer.
    pub(crate) upstream_ns: Option<Nanos>,
    /// Rest of the log line; empty where nobody wants one.
    pub(crate) entry: Option<Box<Entry>>,
    bytes_out: u64,
    complete: bool,
    closed: bool,
}

impl Record {
    #[expect(clippy::unnecessary_box_returns, reason = "it is large, and moves with its request")]
    pub(crate) fn new(worker: &std::rc::Rc<Worker>) -> Box<Self> {
        let entry = worker
            .log
            .is_enabled()
            .then(|| Box::new(Entry { time: Some(SystemTime::now()), ..Entry::default() }));
        Box::new(Self {
            started: worker.gateway.clock.now(),
            worker: std::rc::Rc::clone(worker),
            fleet: None,
            method: Method::None,
            tool: None,
            version: Version::None,
            status: 0,
            facts: Facts::default(),
            looked: false,
            verdict: Verdict::Served,
            is_stream: false,
            endpoint: None,
            upstream_ns: None,
            entry,
            bytes_out: 0,
            complete: false,
            closed: false,
        })
    }

    /// One that is never counted.
    #[expect(clippy::unnecessary_box_returns, reason = "see `new`")]
    pub(crate) fn silent(worker: &std::rc::Rc<Worker>) -> Box<Self> {
        let mut record = Self::new(worker);
        record.entry = None;
        record.closed = true;
        record
    }

    /// Bytes of the answer went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The answer ended.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    /// The answer broke.
    pub(crate) fn cut(&mut self) {
        self.complete = true;
        self.facts.upstream_failed = true;
    }

    fn error(&self) -> Option<ErrorType> {
        match self.verdict {
            Verdict::Overload => return Some(ErrorType::Overload),
            Verdict::Timeout => return Some(ErrorType::Timeout),
            Verdict::Upstream => return Some(ErrorType::Upstream),
            Verdict::Served | Verdict::Client => {}
        }
        if !self.complete {
            return Some(ErrorType::ClientLeft);
        }
        if self.facts.upstream_failed {
            return Some(ErrorType::Upstream);
        }
        if let Some(code) = self.facts.code {
            return Some(ErrorType::of_code(code));
        }
        if self.facts.tool_failed {
            return Some(ErrorType::Tool);
        }
        ErrorType::of_status(self.status)
    }
}

fn outcome_of(error: Option<ErrorType>) -> Outcome {
    match error {
        None => Outcome::Ok,
        Some(ErrorType::Overload) => Outcome::Overload,
        Some(ErrorType::Upstream | ErrorType::Timeout) => Outcome::Upstream,
        Some(ErrorType::Tool) => Outcome::Tool,
        Some(_) => Outcome::Client,
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let took = self.worker.gateway.clock.now().saturating_sub(self.started);
        // A stream without end ends with its client's leaving.
        let error = if self.is_stream && self.verdict == Verdict::Served { None } else { self.error() };
        let outcome = outcome_of(error);
        let status = if self.status == 0 { 499 } else { self.status };
        match &self.fleet {
            Some(fleet) => {
                fleet.metrics.requested(outcome, status);
                if !self.is_stream {
                    fleet.totals.completed(outcome, took);
                    if let Some(endpoint) = &self.endpoint {
                        endpoint.totals.completed(outcome, took);
                    }
                }
                if !self.is_stream && self.method != Method::None {
                    fleet.metrics.observe(&Observation {
                        method: self.method,
                        tool: self.tool.as_deref(),
                        version: self.version,
                        error,
                        seconds: took as f64 / 1e9,
                    });
                }
            }
            None => self.worker.gateway.metrics.unrouted.inc(),
        }
        if let Some(mut entry) = self.entry.take() {
            entry.fleet = self.fleet.as_ref().map(|f| f.key.clone());
            entry.tool = self.tool.take();
            entry.status = status;
            entry.code = self.facts.code;
            entry.duration_ns = took;
            entry.upstream_ns = self.upstream_ns;
            entry.bytes_out = self.bytes_out;
            entry.endpoint = self.endpoint.as_ref().map(|e| e.name.clone());
            entry.outcome = Some(outcome);
            self.worker.log.write(*entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_seen_in_pieces_that_nobody_parses() {
        let mut facts = Facts::default();
        facts.look(br#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#);
        assert_eq!(facts, Facts::default());
        facts.look(br#"data: {"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"x"}}"#);
        assert_eq!(facts.code, Some(-32602));
        facts.look(br#"{"result":{"content":[],"isError":true}}"#);
        assert!(facts.tool_failed);
    }
}
