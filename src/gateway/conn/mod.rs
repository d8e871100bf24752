//! What stands between a client's socket and hyper: socket options, TLS, and the guard that judges
//! every byte before hyper sees it. Also the heads of requests and plain answers towards endpoints
//! (`wire`). Knows HTTP framing; knows nothing of MCP, fleets or pods.
//!
//! ```text
//! accept → socket → tls → guard (head, framing) → hyper → service
//! ```

pub mod guard;
pub mod socket;
pub mod tls;
pub mod wire;

mod framing;
mod head;
mod reject;

pub use guard::{Answering, BodyFault, Guard, GuardHandle, Limits, Protocol};
pub use tls::Stream;
