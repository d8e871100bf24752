//! Which endpoint gets the next call: strategies, the load they judge by, and what they share.
//!
//! Inputs are atomics and values; time (`now`) and chance (`draw`) are arguments. Nothing here reads a
//! clock, blocks, allocates on the path of a call, or knows of HTTP and MCP.

mod load;
mod outlook;
mod pick;
mod strategy;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub use load::{Load, Sample, nanos};
pub use outlook::{Outlook, seed};
pub use pick::pick;
pub use strategy::{Strategy, UnknownStrategy};

/// Nanoseconds since the process started, monotone.
pub type Nanos = u64;

/// Slow start when a fleet names no other.
pub const SLOW_START: Duration = Duration::from_secs(15);

/// One endpoint as the balancer sees it.
pub trait Candidate {
    /// Its counters, shared by all threads.
    fn load(&self) -> &Load;
    /// Its relative share; cost is divided by it. 0 takes it out of every strategy.
    fn weight(&self) -> u32;
    /// Whether it is in the gateway's zone. True when either zone is unknown.
    fn is_local(&self) -> bool;
    /// Ready, of the right era and not draining: what no rule may ignore.
    fn eligible(&self) -> bool;
    /// Whether it is below its limit of calls. Apart from [`Candidate::eligible`], because a full endpoint
    /// is out for now but still counts as a healthy one: a broken endpoint must not become "more than half
    /// of what is left" just because all healthy ones are busy.
    fn has_room(&self) -> bool {
        true
    }
    /// Breaker open or passively ejected: ignored when fewer than half of the eligible would remain.
    fn is_ejected(&self) -> bool;
}

impl<C: Candidate + ?Sized> Candidate for &C {
    fn load(&self) -> &Load {
        (**self).load()
    }
    fn weight(&self) -> u32 {
        (**self).weight()
    }
    fn is_local(&self) -> bool {
        (**self).is_local()
    }
    fn eligible(&self) -> bool {
        (**self).eligible()
    }
    fn has_room(&self) -> bool {
        (**self).has_room()
    }
    fn is_ejected(&self) -> bool {
        (**self).is_ejected()
    }
}

impl<C: Candidate + ?Sized> Candidate for Arc<C> {
    fn load(&self) -> &Load {
        (**self).load()
    }
    fn weight(&self) -> u32 {
        (**self).weight()
    }
    fn is_local(&self) -> bool {
        (**self).is_local()
    }
    fn eligible(&self) -> bool {
        (**self).eligible()
    }
    fn has_room(&self) -> bool {
        (**self).has_room()
    }
    fn is_ejected(&self) -> bool {
        (**self).is_ejected()
    }
}
