//! One look at a message of a client: what it is, and the few values that decide where it goes. Borrowed
//! throughout; arguments and content are skipped, never built (dataplane.md section 3, Classify).
//!
//! A repeated key is an error wherever it is read here: two parsers that each take another `method` are request
//! smuggling one layer up.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use super::lenient::{Object, Text, There, raw, string};

mod plain;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id: somebody waits for an answer.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result or an error: answers a request of the server (legacy).
    Response,
    /// A JSON array of messages (2025-03-26 only).
    Batch {
        /// It holds a request: somebody waits for an answer.
        has_requests: bool,
    },
}

/// What can be said of a message without reading what it carries.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// What it is.
    pub kind: Kind,
    /// The id as it was written; `null` stays `null`.
    pub id: Option<&'a RawValue>,
    /// `method`.
    pub method: Option<Cow<'a, str>>,
    /// `params.name`.
    pub name: Option<Cow<'a, str>>,
    /// `params.uri`.
    pub uri: Option<Cow<'a, str>>,
    /// `params.taskId`.
    pub task_id: Option<Text<'a>>,
    /// `params.requestState`.
    pub request_state: Option<Text<'a>>,
    /// `params.notifications.taskIds`, those that are strings.
    pub task_ids: Vec<Text<'a>>,
    /// `params.task` is there: a task of 2025-11-25.
    pub has_task: bool,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`.
    pub meta_version: Option<Cow<'a, str>>,
    /// `params._meta["io.modelcontextprotocol/clientCapabilities"]` as it was written.
    pub capabilities: Option<&'a RawValue>,
    /// `params` of `initialize` as they were written; of no other method.
    pub params: Option<&'a RawValue>,
}

impl Envelope<'_> {
    /// Whether this call declares the tasks extension (SEP-2663).
    pub fn declares_tasks(&self) -> bool {
        #[derive(Deserialize)]
        struct Capabilities {
            #[serde(default)]
            extensions: Object<Extensions>,
        }
        #[derive(Deserialize)]
        struct Extensions {
            #[serde(default, rename = "io.modelcontextprotocol/tasks")]
            tasks: There,
        }
        let read = |raw: &RawValue| serde_json::from_str::<Object<Capabilities>>(raw.get()).ok();
        let extensions = self.capabilities.and_then(read).and_then(|c| c.0).and_then(|c| c.extensions.0);
        extensions.is_some_and(|extensions| extensions.tasks.0)
    }

    /// `method`, empty where there is none.
    pub fn method(&self) -> &str {
        self.method.as_deref().unwrap_or_default()
    }
}

/// Why a body is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEnvelope {
    /// Not JSON: -32700.
    #[error("the body is not JSON")]
    NotJson,
    /// JSON, but a key that matters stands there twice, or has a value that no server may accept: -32600.
    #[error("the body repeats a key or gives it an impossible value")]
    Ambiguous,
    /// JSON, but not a JSON-RPC message: -32600.
    #[error("the body is not a JSON-RPC message")]
    NotAMessage,
}

impl BadEnvelope {
    /// The JSON-RPC error code for it.
    pub fn code(self) -> i32 {
        if self == Self::NotJson { -32700 } else { -32600 }
    }

    fn of(error: &serde_json::Error) -> Self {
        match error.classify() {
            Category::Data => Self::Ambiguous,
            _ => Self::NotJson,
        }
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default, deserialize_with = "raw")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "raw")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Object<Params<'a>>,
    #[serde(default)]
    result: There,
    #[serde(default)]
    error: There,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow)]
    task_id: Option<&'a RawValue>,
    #[serde(borrow)]
    request_state: Option<&'a RawValue>,
    #[serde(default)]
    task: There,
    #[serde(borrow, default)]
    notifications: Object<Notifications<'a>>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Object<Meta<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notifications<'a> {
    #[serde(borrow)]
    task_ids: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<&'a RawValue>,
}

/// Reads a body once. Time and memory are linear in it, however deep it nests.
pub fn peek(body: &[u8]) -> Result<Envelope<'_>, BadEnvelope> {
    // JSON between systems is UTF-8 (RFC 8259 section 8.1), and one check here spares many below.
    let text = std::str::from_utf8(body).map_err(|_| BadEnvelope::NotJson)?;
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => plain::call(text).map_or_else(|| one(text), Ok),
        Some(b'[') => batch(text),
        _ => Err(match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => BadEnvelope::NotAMessage,
            Err(_) => BadEnvelope::NotJson,
        }),
    }
}

fn one(text: &str) -> Result<Envelope<'_>, BadEnvelope> {
    let message: Message<'_> = serde_json::from_str(text).map_err(|e| BadEnvelope::of(&e))?;
    let kind = match (message.method, message.id, message.result.0 || message.error.0) {
        (Some(_), Some(_), false) => Kind::Request,
        (Some(_), None, false) => Kind::Notification,
        (None, _, true) => Kind::Response,
        _ => return Err(BadEnvelope::NotAMessage),
    };
    let method = match message.method {
        Some(method) => Some(string(method).ok_or(BadEnvelope::Ambiguous)?),
        None => None,
    };
    let mut envelope = Envelope {
        kind,
        id: message.id,
        params: if method.as_deref() == Some("initialize") { params(text)? } else { None },
        method,
        name: None,
        uri: None,
        task_id: None,
        request_state: None,
        task_ids: Vec::new(),
        has_task: false,
        meta_version: None,
        capabilities: None,
    };
    if let Some(params) = message.params.0 {
        envelope.name = params.name.and_then(string);
        envelope.uri = params.uri.and_then(string);
        envelope.task_id = Text::of(params.task_id, text);
        envelope.request_state = Text::of(params.request_state, text);
        envelope.has_task = params.task.0;
        let meta = params.meta.0;
        envelope.meta_version = meta.as_ref().and_then(|m| m.version).and_then(string);
        envelope.capabilities = meta.and_then(|m| m.capabilities);
        let listed = params.notifications.0.and_then(|n| n.task_ids);
        let listed: Vec<&RawValue> =
            listed.and_then(|l| serde_json::from_str(l.get()).ok()).unwrap_or_default();
        envelope.task_ids = listed.into_iter().filter_map(|id| Text::of(Some(id), text)).collect();
    }
    Ok(envelope)
}

fn params(text: &str) -> Result<Option<&RawValue>, BadEnvelope> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }
    serde_json::from_str::<Whole<'_>>(text).map(|whole| whole.params).map_err(|e| BadEnvelope::of(&e))
}

/// A batch is looked at only as far as to know whether somebody waits.
struct Batch {
    has_requests: bool,
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Item {
            #[serde(default)]
            id: There,
            #[serde(default)]
            method: There,
        }

        struct Look;

        impl<'de> Visitor<'de> for Look {
            type Value = Batch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a batch")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Batch, A::Error> {
                let mut has_requests = false;
                while let Some(item) = seq.next_element::<Object<Item>>()? {
                    has_requests |= item.0.is_some_and(|item| item.id.0 && item.method.0);
                }
                Ok(Batch { has_requests })
            }
        }

        deserializer.deserialize_seq(Look)
    }
}

fn batch(text: &str) -> Result<Envelope<'_>, BadEnvelope> {
    let Batch { has_requests } = serde_json::from_str(text).map_err(|e| BadEnvelope::of(&e))?;
    Ok(Envelope {
        kind: Kind::Batch { has_requests },
        id: None,
        method: None,
        name: None,
        uri: None,
        task_id: None,
        request_state: None,
        task_ids: Vec::new(),
        has_task: false,
        meta_version: None,
        capabilities: None,
        params: None,
    })
}

#[cfg(test)]
mod tests;
