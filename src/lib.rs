//! `mcp-fleet`: a Kubernetes operator that manages fleets of MCP (Model Context Protocol) servers.
//!
//! The map of the house is in `ARCHITECTURE.md`. Arrows point one way: [`api`] and [`domain`] are used
//! by all and use nobody; what decides is pure; I/O sits at the rim.

pub mod agent;
pub mod api;
pub mod autoscale;
pub mod domain;
pub mod gateway;
pub mod operator;
pub mod runtime;
pub mod simulate;
