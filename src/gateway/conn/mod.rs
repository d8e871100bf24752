//! What stands between a client's socket and the service: socket options, TLS, and the guard that judges
//! every byte before hyper sees it, and carries out the usual exchanges itself (`usual`, `turns`). Also
//! the heads of requests and answers towards endpoints (`wire`), and bodies in chunks (`chunks`). Knows HTTP framing; knows nothing
//! of MCP, fleets or pods.
//!
//! ```text
//! accept → socket → tls → guard (head, framing) ─ usual ─→ service
//!                                             └─ hyper ─┘
//! ```

pub mod chunks;
pub mod guard;
pub mod socket;
pub mod tls;
pub mod usual;
pub mod wire;

mod date;
mod framing;
mod head;
mod reject;

pub(crate) mod turns;

pub use guard::{Answering, BodyFault, Guard, GuardHandle, Limits, Protocol};
pub use tls::Stream;
