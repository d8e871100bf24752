//! Sealed identifiers: what the client holds of a session, task or retry names its pod, under AEAD (gateway.md
//! section 1). Input: the key ring and what a pod minted. Nothing here looks a pod up, keeps a token or logs one.

use std::fmt;

use ring::digest;

pub mod handshake;
mod keys;
mod token;

pub use keys::{KeyError, KeyRing};
pub use token::{MAX_TOKEN, OpenError, Opened, Sealed};

/// Identity of an endpoint: its pod's UID, or a hash of its address outside Kubernetes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodId(pub u128);

impl PodId {
    /// From the UID of a Kubernetes object: a UUID as it is, any other text by its hash.
    pub fn from_uid(uid: &str) -> Self {
        uuid(uid).map_or_else(|| Self::hash(uid), Self)
    }

    /// From `address:port` of a static or DNS endpoint.
    pub fn from_address(address: &str) -> Self {
        Self::hash(address)
    }

    fn hash(text: &str) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..16]);
        Self(u128::from_be_bytes(first))
    }
}

impl fmt::Debug for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// `8-4-4-4-12` hexadecimal digits.
fn uuid(text: &str) -> Option<u128> {
    if text.len() != 36 {
        return None;
    }
    text.bytes().enumerate().try_fold(0, |number: u128, (i, byte)| match i {
        8 | 13 | 18 | 23 => (byte == b'-').then_some(number),
        _ => Some(number << 4 | u128::from(char::from(byte).to_digit(16)?)),
    })
}

/// What a token is for. One made for a purpose opens for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// `Mcp-Session-Id` of Streamable HTTP.
    Session = 1,
    /// Session of HTTP+SSE, in the query of its endpoint.
    Sse = 2,
    /// `taskId`.
    Task = 3,
    /// `requestState`.
    RequestState = 4,
    /// Messages between gateways.
    Peer = 5,
}

#[cfg(test)]
mod tests;
