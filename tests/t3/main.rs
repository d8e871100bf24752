//! The whole on real nodes: the product as its chart installs it, real pods of a real MCP server, probes,
//! drains, failures, and the real autoscaler.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_types,
    missing_docs,
    reason = "a test program"
)]

#[path = "../support/images.rs"]
mod images;
#[path = "../support/mod.rs"]
mod support;

mod lab;
mod life;

use std::process::ExitCode;

use mcp_fleet_cluster::Tier;

fn main() -> ExitCode {
    support::run_with(
        Tier::T3,
        |builder| {
            let images = images::build().unwrap_or_else(|error| panic!("no images: {error:#}"));
            builder
                .name("t3")
                .real_nodes(2)
                .images(images)
                .kcm_args(["--horizontal-pod-autoscaler-sync-period=5s"])
        },
        false,
        vec![
            case!(life::from_apply_to_answered_calls),
            case!(life::killed_pods_and_processes_come_back),
            case!(life::the_leader_dies_and_the_other_replica_goes_on),
        ],
    )
}
