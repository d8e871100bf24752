//! Short hashes of what was applied. Not a secret and not a signature: they tell equal from changed.

use std::fmt::Write;

/// The first 16 bytes of SHA-256 as hexadecimal text.
pub fn digest(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref().iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
