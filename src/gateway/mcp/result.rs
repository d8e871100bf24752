//! What the gateway has to know of one message of an answer: identifiers to seal, errors to count, what a
//! handshake settled. A scan at memory speed first; parsed only on a hit (gateway.md section 1).

use std::{borrow::Cow, sync::LazyLock};

use aho_corasick::packed::Searcher;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::lenient::{Object, Text, There, raw, string};

/// A task as an answer or a notification describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFacts<'a> {
    /// `taskId`.
    pub id: Text<'a>,
    /// `resultType` is `task`: the identifier was minted just here.
    pub is_new: bool,
    /// `status` is one that never changes: completed, failed, cancelled.
    pub is_terminal: bool,
    /// `ttlMs`; `None` where unlimited or not given.
    pub ttl_ms: Option<u64>,
    /// `pollIntervalMs`.
    pub poll_interval_ms: Option<u64>,
}

/// What one message of an answer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultFacts<'a> {
    /// `result.isError` is true: the tool failed, the call did not.
    pub is_tool_error: bool,
    /// `error.code`.
    pub error_code: Option<i64>,
    /// A task in `result`.
    pub task: Option<TaskFacts<'a>>,
    /// `result.requestState`.
    pub request_state: Option<Text<'a>>,
    /// A task in `params` of `notifications/tasks`.
    pub notified: Option<TaskFacts<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Object<Part<'a>>,
    #[serde(borrow, default)]
    params: Object<Part<'a>>,
    #[serde(borrow, default)]
    error: Object<Failure<'a>>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    code: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow)]
    result_type: Option<&'a RawValue>,
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    request_state: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    ttl_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    poll_interval_ms: Option<&'a RawValue>,
    #[serde(borrow)]
    is_error: Option<&'a RawValue>,
}

impl<'a> Part<'a> {
    fn task(&self, text: &str) -> Option<TaskFacts<'a>> {
        let is = |raw: Option<&RawValue>, words: &[&str]| {
            raw.and_then(string).is_some_and(|word| words.contains(&&*word))
        };
        Some(TaskFacts {
            id: Text::of(self.task_id, text)?,
            is_new: is(self.result_type, &["task"]),
            is_terminal: is(self.status, &["completed", "failed", "cancelled"]),
            ttl_ms: milliseconds(self.ttl_ms),
            poll_interval_ms: milliseconds(self.poll_interval_ms),
        })
    }
}

fn milliseconds(raw: Option<&RawValue>) -> Option<u64> {
    let value: f64 = raw?.get().parse().ok()?;
    (value >= 0.0).then_some(value as u64)
}

/// Keys that stand for a fact, the last of them unless it says `false`, as most answers of tools do. Built once: a
/// search is far cheaper than its preparation. `None`: this processor has no vector instructions for it.
static KEYS: LazyLock<Option<Searcher>> =
    LazyLock::new(|| Searcher::new(["\"requestState\"", "\"taskId\"", "\"error\"", "\"isError\""]));
/// `isError` among them.
const IS_ERROR: usize = 3;
/// Bytes of the shortest of them.
const SHORTEST: usize = "\"error\"".len();

/// Whether a message may hold a fact, at memory speed. `"isError":false` is none.
pub fn may_matter(message: &[u8]) -> bool {
    let is_false = |after: &[u8]| {
        let value = after.trim_ascii_start().strip_prefix(b":");
        value.is_some_and(|value| value.trim_ascii_start().starts_with(b"false"))
    };
    let Some(keys) = &*KEYS else { return true };
    let mut rest = message;
    // Most answers end soon after `"isError":false`: a search of the last few bytes is the slowest of all.
    while rest.len() >= SHORTEST {
        let Some(key) = keys.find(rest) else { return false };
        rest = &rest[key.end()..];
        if key.pattern().as_usize() != IS_ERROR || !is_false(rest) {
            return true;
        }
    }
    false
}

/// Looks into one JSON-RPC message. A message that cannot be read has no facts: it is passed on as it is.
pub fn inspect(message: &[u8]) -> ResultFacts<'_> {
    if !may_matter(message) {
        return ResultFacts::default();
    }
    let Some((text, message)) = read::<Message<'_>>(message) else { return ResultFacts::default() };
    let is_task = message.method.and_then(string).is_some_and(|method| method == "notifications/tasks");
    let result = message.result.0;
    ResultFacts {
        is_tool_error: result.as_ref().and_then(|r| r.is_error).is_some_and(|e| e.get() == "true"),
        error_code: message.error.0.and_then(|e| e.code).and_then(|code| code.get().parse().ok()),
        task: result.as_ref().and_then(|r| r.task(text)),
        request_state: result.and_then(|r| Text::of(r.request_state, text)),
        notified: message.params.0.filter(|_| is_task).and_then(|p| p.task(text)),
    }
}

/// An object and its text; a derived struct would read an array by position.
fn read<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Option<(&'a str, T)> {
    let text = std::str::from_utf8(message).ok()?;
    let Object(value) = serde_json::from_str(text).ok()?;
    value.map(|value| (text, value))
}

/// The id of the request that a message answers, as it was written; `None` where it answers none.
pub fn answered(message: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default, deserialize_with = "raw")]
        id: Option<&'a RawValue>,
        #[serde(default)]
        method: There,
        #[serde(default)]
        result: There,
        #[serde(default)]
        error: There,
    }
    let (_, answer) = read::<Answer<'_>>(message)?;
    answer.id.filter(|_| !answer.method.0 && (answer.result.0 || answer.error.0))
}

/// Whether a message of a server is a request to the client: it has a method and an id (legacy).
pub fn is_request(message: &[u8]) -> bool {
    super::peek(message).is_ok_and(|e| e.kind == super::Kind::Request)
}

/// `result` of a message as it was written.
pub fn result_of(message: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
    }
    read::<Answer<'_>>(message)?.1.result
}

/// `result.protocolVersion` of the answer to an `initialize`.
pub fn negotiated(message: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Initialized<'a> {
        #[serde(borrow)]
        protocol_version: Option<&'a RawValue>,
    }
    let result = result_of(message)?;
    let (_, initialized) = read::<Initialized<'_>>(result.get().as_bytes())?;
    initialized.protocol_version.and_then(string)
}

/// What a server said of itself in answer to `server/discover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered<'a> {
    /// `supportedVersions`.
    pub supported: Vec<String>,
    /// `serverInfo.name` and `serverInfo.version`; either may be empty.
    pub server: Option<(String, String)>,
    /// The whole result, to be given to others.
    pub result: &'a str,
}

/// The answer to a `server/discover`; `None` where it is an error or lists no versions.
pub fn discovered(message: &[u8]) -> Option<Discovered<'_>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Found {
        supported_versions: Vec<String>,
        #[serde(default)]
        server_info: Object<Server>,
        #[serde(default, rename = "_meta")]
        meta: Object<Meta>,
    }
    #[derive(Deserialize)]
    struct Meta {
        #[serde(default, rename = "io.modelcontextprotocol/serverInfo")]
        server_info: Object<Server>,
    }
    #[derive(Deserialize)]
    struct Server {
        #[serde(default)]
        name: String,
        #[serde(default)]
        version: String,
    }
    let result = result_of(message)?.get();
    let (_, found) = read::<Found>(result.as_bytes())?;
    let server = found.server_info.0.or_else(|| found.meta.0.and_then(|meta| meta.server_info.0));
    Some(Discovered {
        supported: found.supported_versions,
        server: server.map(|server| (server.name, server.version)),
        result,
    })
}

/// What a pod honours of a listen, from its `notifications/subscriptions/acknowledged`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Honoured {
    /// `toolsListChanged`.
    pub tools: bool,
    /// `promptsListChanged`.
    pub prompts: bool,
    /// `resourcesListChanged`.
    pub resources: bool,
    /// `resourceSubscriptions`.
    pub subscriptions: Vec<String>,
    /// `taskIds`.
    pub task_ids: Vec<String>,
}

impl Honoured {
    /// What the client is told of two pods: the intersection, but the union of their tasks, since each pod gets
    /// its own only (gateway.md section 4).
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.tools &= other.tools;
        self.prompts &= other.prompts;
        self.resources &= other.resources;
        self.subscriptions.retain(|uri| other.subscriptions.contains(uri));
        for id in other.task_ids {
            if !self.task_ids.contains(&id) {
                self.task_ids.push(id);
            }
        }
        self
    }
}

/// The method of a message of a server, where it has one.
pub fn method_of(message: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Call<'a> {
        #[serde(borrow)]
        method: Option<&'a RawValue>,
    }
    read::<Call<'_>>(message)?.1.method.and_then(string)
}

/// Reads a `notifications/subscriptions/acknowledged`; `None` where a message is another.
pub fn acknowledged(message: &[u8]) -> Option<Honoured> {
    #[derive(Deserialize)]
    struct Ack<'a> {
        #[serde(borrow)]
        method: Option<&'a RawValue>,
        #[serde(default)]
        params: Object<Params>,
    }
    #[derive(Deserialize)]
    struct Params {
        #[serde(default)]
        notifications: Object<Filter>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Filter {
        tools_list_changed: Option<bool>,
        prompts_list_changed: Option<bool>,
        resources_list_changed: Option<bool>,
        resource_subscriptions: Option<Vec<String>>,
        task_ids: Option<Vec<String>>,
    }
    // Not the whole name: some servers escape its slashes.
    memmem::find(message, b"acknowledged\"")?;
    let (_, ack) = read::<Ack<'_>>(message)?;
    if ack.method.and_then(string)? != "notifications/subscriptions/acknowledged" {
        return None;
    }
    let filter = ack.params.0.and_then(|params| params.notifications.0).unwrap_or_default();
    Some(Honoured {
        tools: filter.tools_list_changed.unwrap_or_default(),
        prompts: filter.prompts_list_changed.unwrap_or_default(),
        resources: filter.resources_list_changed.unwrap_or_default(),
        subscriptions: filter.resource_subscriptions.unwrap_or_default(),
        task_ids: filter.task_ids.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
