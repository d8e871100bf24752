//! `make bench-autoscaler-cost`: what the autoscaler costs the operator at 10,000 fleets, as a share of one core, and
//! how soon its metrics API answers. The targets and how each is measured stand in `benches/README.md`. Needs no
//! cluster.
#![allow(
    unreachable_pub,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark: it talks to a person, and shares an API server with the unit tests"
)]

#[path = "autoscaler_cost/api.rs"]
mod api;
#[path = "autoscaler_cost/cpu.rs"]
mod cpu;
#[path = "autoscaler_cost/decisions.rs"]
mod decisions;
#[path = "autoscaler_cost/ingestion.rs"]
mod ingestion;
mod report;

use std::process::ExitCode;

use report::Report;

/// As the operator: its allocator is part of what parsing costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let mut report = Report::new("autoscaler-cost");
    decisions::measure(&mut report)?;
    ingestion::measure(&mut report)?;
    api::measure(&mut report)?;
    report.finish()
}
