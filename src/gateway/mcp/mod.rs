//! The protocol's bytes: what a message is, which era it belongs to, where its identifiers stand, how a stream
//! of events is cut, and the answers that the gateway makes itself. Pure: no I/O, no clock, no state but the
//! caller's. Nothing is parsed into a tree, and nothing is trusted (mcp.md sections 1 and 2).

pub mod answers;
pub mod envelope;
pub mod era;
mod lenient;
pub mod result;
pub mod splice;
pub mod sse;

pub use envelope::{BadEnvelope, Envelope, Kind, peek};
pub use lenient::Text;
