//! The gateway: balancing of MCP traffic over the endpoints of fleets.

pub mod balance;
pub mod breaker;
pub mod queue;
pub mod retry;
