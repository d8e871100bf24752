//! HTTP hygiene of the gateway as a process: raw bytes in, raw bytes out, in front of an upstream that
//! records every byte. What one connection alone must answer is tested beside the guard; here stand
//! the rows that need both sides.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_types,
    clippy::large_stack_arrays,
    reason = "tests; they run on threads, without a runtime"
)]

mod cases;
mod gateway;
mod upstream;
