//! Placeholder of the reconcile benchmark.
fn main() {}
