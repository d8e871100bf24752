//! Legacy sessions: where each one lives, and how it moves when its pod goes (G5–G10; gateway.md section 2).
//!
//! The token of a session names its pod, so nothing has to be remembered to route it. What is remembered here
//! is what the token cannot say: that the session has moved, or ended, or is busy. A moved session has one
//! home among the gateways; only the home re-creates, the others ask it.

mod locate;
mod peers;
mod replay;
mod table;

pub use locate::{Because, Bound, Gone, Seeker, current, locate, relocate};
pub use peers::{PATH as PEER_PATH, answer as answer_peer, forget_everywhere, home_order, learn_from_peers};
pub(crate) use replay::{OneShot, OneShotError, is_event_stream, is_known, one_shot};
pub use table::{Entry, MovedTo, Place, Sessions};
