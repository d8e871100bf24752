//! What the controllers decide: scaling, garbage collection, rollouts, on fake nodes (kwok).
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::disallowed_types, missing_docs, reason = "a test program")]

#[path = "../support/mod.rs"]
mod support;



use std::process::ExitCode;

use mcp_fleet_cluster::Tier;

fn main() -> ExitCode {
    support::run(
        Tier::T2,
        |builder| builder.name("t2").kwok_nodes(4),
        vec![
        ],
    )
}
