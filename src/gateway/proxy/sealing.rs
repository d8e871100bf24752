//! Seals the identifiers that an answer of a modern call mints, and gives back the tokens that its client sent
//! (gateway.md section 1): mint once, then echo.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::record::Facts;
use crate::gateway::{
    fleet::{Endpoint, Fleet},
    mcp::{result, splice, sse},
    seal::Purpose,
    shared::Gateway,
};

/// How long an open `requestState` keeps its pod from ending, at most.
const STATE_WAIT: Duration = Duration::from_secs(60);
/// Shortest wait for a task that nobody asks for (gateway.md section 3).
const TASK_WAIT: Duration = Duration::from_secs(60);

/// Identifiers that the client knows already: upstream's own and the token that stands for it.
#[derive(Clone, Default)]
pub(crate) struct Echo(pub(crate) Vec<(Box<str>, Box<str>)>);

impl Echo {
    fn of(&self, raw: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| **own == *raw).map(|(_, token)| &**token)
    }
}

/// What answers of one call go through.
pub(crate) struct Sealing {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) echo: Echo,
}

/// Seconds since 1970, for the choice of a key.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Sealing {
    /// One event of a stream.
    pub(crate) fn event(&self, event: Bytes, facts: &mut Facts) -> Bytes {
        if !result::may_matter(&event) {
            return event;
        }
        let parsed = sse::Event::parse(&event);
        match self.rewritten(parsed.data.as_bytes(), facts) {
            Some(data) => sse::rewrite_data(&event, std::str::from_utf8(&data).unwrap_or_default()),
            None => event,
        }
    }

    /// A whole message; `None` where it stays as it is.
    pub(crate) fn rewritten(&self, message: &[u8], facts: &mut Facts) -> Option<Bytes> {
        let found = result::inspect(message);
        facts.tool_failed |= found.is_tool_error;
        facts.code = facts.code.or(found.error_code);
        let mut replacements = Vec::new();
        let tasks = found.task.iter().chain(&found.notified);
        for task in tasks {
            if let Some(token) = self.task(task) {
                replacements.push((task.id.range.clone(), token));
            }
        }
        if let Some(state) = &found.request_state {
            replacements.push((state.range.clone(), self.state(&state.value)));
        }
        if replacements.is_empty() {
            return None;
        }
        let replacements: Vec<_> =
            replacements.iter().map(|(range, text)| (range.clone(), &**text)).collect();
        Some(splice::replace(message, &replacements))
    }

    fn task(&self, task: &result::TaskFacts<'_>) -> Option<String> {
        let keys = self.gateway.keys.load();
        let raw = &*task.id.value;
        let token = match self.echo.of(raw) {
            Some(token) => token.to_owned(),
            None if task.is_new => {
                let upstream = raw.as_bytes();
                keys.seal(unix_now(), Purpose::Task, &self.fleet.uid, self.endpoint.id, upstream, None).text
            }
            None => return None,
        };
        if let Ok(opened) = keys.open(Purpose::Task, &self.fleet.uid, &token) {
            if task.is_terminal {
                self.endpoint.work.done(opened.token_id);
            } else {
                let poll = Duration::from_millis(task.poll_interval_ms.unwrap_or(0));
                let wait = TASK_WAIT.max(poll.saturating_mul(5));
                self.endpoint.work.seen(opened.token_id, self.gateway.clock.now(), wait);
            }
        }
        Some(token)
    }

    fn state(&self, raw: &str) -> String {
        let keys = self.gateway.keys.load();
        let sealed = keys.seal(
            unix_now(),
            Purpose::RequestState,
            &self.fleet.uid,
            self.endpoint.id,
            raw.as_bytes(),
            None,
        );
        self.endpoint.work.seen(sealed.token_id, self.gateway.clock.now(), STATE_WAIT);
        sealed.text
    }
}
