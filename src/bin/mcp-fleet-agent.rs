//! `mcp-fleet-agent`: the small static helper that is put into the pods of a fleet.
//!
//! Everything is in [`mcp_fleet::agent`]; this file only hands over the arguments. It must stay free
//! of the async runtime and of the Kubernetes client: it runs inside other people's containers.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    mcp_fleet::agent::main(std::env::args_os().skip(1))
}
