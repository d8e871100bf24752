//! The autoscaler against the real controllers: what a kube-controller-manager makes of numbers, and what becomes of a
//! fleet whose load is reported.

pub mod actuators;
pub mod differential;
pub mod following;
mod gateway;
mod histories;
pub mod holding;
mod metrics_server;
mod record;
mod replay;
mod world;
