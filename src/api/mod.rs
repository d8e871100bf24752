//! The wire types of `mcpfleet.io`, and the names, labels and conditions that users meet.
//!
//! Used by everything, uses nothing: no I/O, no clock, no client.

pub mod conditions;
pub mod crd;
pub mod names;
pub mod v1alpha1;
