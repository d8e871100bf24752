//! The whole on real nodes: real pods of a real MCP server, probes, drains, node failures.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::disallowed_types, missing_docs, reason = "a test program")]

#[path = "../support/mod.rs"]
mod support;



use std::process::ExitCode;

use mcp_fleet_cluster::Tier;

fn main() -> ExitCode {
    support::run(
        Tier::T3,
        |builder| builder.name("t3").real_nodes(2),
        vec![
        ],
    )
}
