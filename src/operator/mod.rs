//! The operator: one reconcile is **observe → validate → desired → plan → apply → status**.
//!
//! | step | file | needs a client |
//! |---|---|---|
//! | observe | [`observe`] | no: it reads the caches that [`watches`] fill |
//! | validate | [`validate`] | no, pure |
//! | desired | [`desired`] | no, pure |
//! | plan | [`plan`] | no, pure |
//! | apply | [`apply`] | yes, the only place that writes children |
//! | status | [`status`] | building it is pure; [`apply`] sends it |

pub mod apply;
pub mod backoff;
pub mod cache;
pub mod children;
pub mod compare;
pub mod controller;
pub mod desired;
pub mod events;
pub mod gateway;
pub mod gateways;
pub mod hash;
pub mod metrics;
pub mod newcomers;
pub mod observe;
pub mod plan;
pub mod pods;
pub mod realign;
pub mod reconcile;
pub mod recorder;
pub mod run;
pub mod scaler;
pub mod scaling;
pub mod state;
pub mod status;
pub mod supervise;
#[cfg(test)]
pub(crate) mod test_support;
pub mod validate;
pub mod watches;
