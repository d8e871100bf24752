//! `mcp-fleet simulate`.
pub mod measure;
mod random;
mod run;
pub mod scalers;
pub mod scenario;
pub mod trace;
mod world;
