//! Streams of events (WHATWG HTML, section 9.2): where an event ends, what it says, and how a part of it is
//! changed without touching the rest. Bytes in, the same bytes out; nothing is normalised (G13).

mod boundary;
mod endpoint;
mod event;
mod splitter;

pub use boundary::Boundary;
pub use endpoint::{EndpointUri, endpoint, session_in_query};
pub use event::{Event, prefix_id, rewrite_data, split_epoch};
pub use splitter::{Piece, Splitter};

/// What is sent between events when nothing else was for a while; a comment, which no client sees.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

#[cfg(test)]
mod tests;
