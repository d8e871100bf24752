//! The data plane: makes any number of replicas look like one correct MCP server, to every client of every
//! revision. It reads fleets and their endpoints and owns none of them.
//!
//! | module | does |
//! |---|---|
//! | `args`, `run` | the command: flags, threads, start and orderly end |
//! | `config` | the standalone file: read, checked, reloaded |
//! | `settings` | what `spec.gateway` means, validated |
//! | `shared`, `fleet`, `endpoint`, `work` | what all threads share: fleets, endpoints, their state |
//! | `routing` | path and host → fleet; which Hosts and Origins may call |
//! | `listener`, `conn` | accepted sockets: threads, strict request framing, TLS, socket options |
//! | `mcp` | the protocol's bytes: envelopes, eras, events, answers of our own; pure |
//! | `seal`, `keys` | identifiers that carry their pod, under the key ring |
//! | `balance`, `breaker`, `queue`, `retry` | which endpoint, when, and how often |
//! | `proxy` | one request: classify → admit → pick → send → relay → record |
//! | `session`, `peering` | sessions that move when their pod goes, once for all gateways |
//! | `control` | endpoints from a cluster or DNS, health probes |
//! | `drain` | anchors on terminating pods, and the gateway's own end |
//! | `metrics`, `access_log`, `admin`, `reports` | what people and the autoscaler see |

pub mod access_log;
pub mod admin;
pub mod args;
pub mod balance;
pub mod breaker;
pub mod config;
pub mod conn;
pub mod control;
pub mod drain;
pub mod endpoint;
pub mod fleet;
pub mod keys;
pub mod listener;
pub mod mcp;
pub mod metrics;
pub mod peering;
pub mod proxy;
pub mod queue;
pub mod reports;
pub mod retry;
pub mod routing;
pub mod run;
pub mod seal;
pub mod session;
pub mod settings;
pub mod shared;
#[cfg(test)]
pub(crate) mod test_support;
pub mod work;
