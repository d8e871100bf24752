//! The data plane.

pub mod mcp;
pub mod seal;
