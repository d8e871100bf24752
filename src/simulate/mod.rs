//! `mcp-fleet simulate`: a fleet's policy, and those of others, under load and disturbances, on a virtual clock.
//!
//! The same seed gives the same run. Pods, calls, sessions, gateways and their reports are simulated one by one
//! ([`world`]); the ledger, `decide`, the choice of victims and the HPA controller are the real ones, or ports of them.
//! A call costs about half a microsecond of real time, so there is no coarser mode: an hour at 1,000 calls per second
//! takes two seconds. Nothing here talks to a cluster.

mod command;
pub mod evaluate;
mod fleet;
pub mod measure;
mod random;
mod run;
pub mod scalers;
pub mod scenario;
pub mod scenarios;
mod svg;
mod table;
pub mod trace;
mod world;

pub use self::command::{SimulateArgs, SimulateError, run};
