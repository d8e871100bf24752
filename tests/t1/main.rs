//! What the API server alone decides: admission, server-side apply, conflicts, rights, leases.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::disallowed_types, missing_docs, reason = "a test program")]

#[path = "../support/mod.rs"]
mod support;

mod drift;

use std::process::ExitCode;

use mcp_fleet_cluster::Tier;

fn main() -> ExitCode {
    support::run(
        Tier::T1,
        |builder| builder.name("t1"),
        vec![
            case!(drift::a_deleted_child_returns),
        ],
    )
}
