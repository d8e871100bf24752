//! `mcpfleet.io/v1alpha1`: what users write in an `McpFleet`, and its status.
//!
//! Everything that can be judged at admission is judged there, by the schema and by CEL rules whose
//! message says what to write instead. Lists and strings that rules touch are bounded, or the API
//! server refuses the rules for their cost. Defaults never change within v1alpha1.

// The derive of the schema declares a hidden copy of each struct inside a function.
#![allow(unreachable_pub)]

mod autoscaling;
mod autoscaling_status;
mod behavior;
mod environment;
mod fleet;
mod gateway;
mod metrics;
mod network;
mod placement;
mod probes;
mod quantity;
mod rollout;
mod server;
mod service;
mod status;
mod volumes;

pub use autoscaling::*;
pub use autoscaling_status::*;
pub use behavior::*;
pub use environment::*;
pub use fleet::*;
pub use gateway::*;
pub use metrics::*;
pub use network::*;
pub use placement::*;
pub use probes::*;
pub use quantity::*;
pub use rollout::*;
pub use server::*;
pub use service::*;
pub use status::*;
pub use volumes::*;
