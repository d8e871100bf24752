//! What every long-running command of the product needs around its work.
//!
//! | module | does |
//! |---|---|
//! | `telemetry` | logs, for people or for machines |
//! | `shutdown` | SIGTERM and SIGINT → a token; the second one ends the process |
//! | `admin` | `/livez`, `/readyz`, `/metrics` |
//! | `chain` | an error with all its causes in one line |
//! | `client` | the Kubernetes client: bounded calls, few retries, counted |
//! | `lease` | leader election, and the fence in front of every write |
//!
//! It must not know what the product does: no fleets, no child objects.

pub mod admin;
pub mod chain;
pub mod client;
pub mod lease;
pub mod shutdown;
pub mod telemetry;
