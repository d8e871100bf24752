//! The autoscaler: load samples → windows → demand → score → guards → quantise → cooldown → behavior.
//!
//! Pure, but for `metrics_api`: no I/O, no clock. The operator, the simulator and the tests call the same
//! [`decide::decide`]. All demand is counted in replicas, so that the loop has no gain of its own: what is asked for
//! does not depend on how many there are.

pub mod behavior;
pub mod board;
pub mod decide;
pub mod decision;
pub mod head_start;
pub mod hpa;
pub mod ledger;
pub mod load;
pub mod metrics_api;
pub mod policy;
pub mod report;
pub mod snapshot;
pub mod state;
pub mod time;
pub mod victims;
