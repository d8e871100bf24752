//! `make bench-gateway`: the gateway beside nginx, haproxy, envoy and nothing at all: same upstream, same load, one
//! run. What is measured, how, and the targets stand in `benches/README.md`.
//!
//! This process is the load and the judge; it starts itself again as the upstream.
#![allow(
    unreachable_pub,
    clippy::print_stdout,
    clippy::disallowed_types,
    missing_docs,
    reason = "a benchmark: it talks to a person and measures on the wall clock"
)]

mod args;
mod balance;
mod hist;
mod leave;
mod load;
mod machine;
mod parts;
mod peers;
#[path = "../../report.rs"]
mod report;
mod rounds;
mod streams;
mod upstream;
mod upstream_process;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> anyhow::Result<ExitCode> {
    // `cargo bench` adds a flag of its own.
    let args = args::Args::parse_from(std::env::args().filter(|arg| arg != "--bench"));
    match args.upstream {
        Some(replicas) => upstream::run(replicas).map(|()| ExitCode::SUCCESS),
        None => parts::run(&args.settle()),
    }
}
