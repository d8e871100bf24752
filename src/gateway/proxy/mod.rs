//! The data path: one request, from its head to the last byte of its answer.
//!
//! | file | does |
//! |---|---|
//! | `service` | host, origin, route, body, envelope, era |
//! | `legacy`, `stream`, `events` | sessions: calls and `initialize`, GET streams, HTTP+SSE |
//! | `modern`, `listen` | sealed identifiers and retries, listens over all pods |
//! | `admit` | a place at an endpoint, or in the queue |
//! | `exchange`, `upstream` | one request to one endpoint; the pools |
//! | `direct`, `handover`, `coming` | a connection that its request drives, or hyper; the rest of an answer |
//! | `relay`, `pipe`, `body` | the answer on its way back |
//! | `sealing` | identifiers that an answer mints |
//! | `headers`, `names`, `metadata` | what passes and what does not |
//! | `context`, `record`, `worker`, `deadlines` | what a request carries; what is known of it afterwards; its thread |

mod admit;
mod body;
mod coming;
mod context;
mod deadlines;
mod direct;
mod events;
mod exchange;
mod handover;
mod headers;
mod legacy;
mod listen;
mod metadata;
mod modern;
pub mod names;
mod pipe;
mod record;
mod relay;
mod sealing;
mod service;
mod stream;
mod upstream;
mod worker;

pub use body::{Answer, Given};
pub use context::Client;
pub use service::serve;
pub use worker::Worker;
