//! Tokens: seal, open, and messages between gateways.
//!
//! Text of a token: `mf1.` + base64url(`mark key 4 | nonce 12 | box | tag 16`), and for a session that can be
//! made again `.` + base64url(`nonce 12 | box | tag 16`). The first box is opened on every request: pod 16,
//! random id 16, length of the principal hash 1, the hash, the upstream's identifier. The second, the handshake,
//! is bound to the first by its tag. All letters are safe in a header and in a query.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::{Rng as _, RngExt as _};
use ring::{
    aead::{Aad, NONCE_LEN, Nonce},
    digest,
};

use super::{KeyRing, PodId, Purpose, keys::Key};

/// Longest token that carries a handshake, in bytes of its text; clients take five times as much.
pub const MAX_TOKEN: usize = 3 * 1024;
/// What every token begins with: the version of the format.
const MARKER: &str = "mf1.";
const VERSION: u8 = 1;
const MARK: usize = 4;
const TAG: usize = 16;
/// Mark and nonce, in front of a box.
const HEAD: usize = MARK + NONCE_LEN;
/// Pod, random id and the length of the principal hash, in front of the upstream's identifier.
const FIXED: usize = 16 + 16 + 1;

/// A token that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What the client gets.
    pub text: String,
    /// The random number inside.
    pub token_id: u128,
    /// There was a handshake and it was left out, since the token would have become too long.
    pub handshake_dropped: bool,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The pod that minted the identifier.
    pub pod: PodId,
    /// The identifier as the pod knows it.
    pub upstream: Vec<u8>,
    /// The random number inside.
    pub token_id: u128,
}

/// Why a token does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not our format at all: somebody else's identifier.
    #[error("not a token of this gateway")]
    NotAToken,
    /// Our format, of a key that is not in the ring.
    #[error("sealed with a key that is not known here")]
    UnknownKey,
    /// Changed, or made for another fleet or purpose.
    #[error("the seal is broken")]
    Forged,
}

/// Associated data, on the stack: version, purpose, the fleet's UID (or its hash where it is long), then what
/// this box is bound to. The length of the UID keeps the parts apart.
struct Bound {
    bytes: [u8; 128],
    length: usize,
}

impl Bound {
    fn new(purpose: Purpose, fleet_uid: &[u8], to: &[u8; TAG]) -> Self {
        let mut bound = Self { bytes: [0; 128], length: 0 };
        bound.push(&[VERSION, purpose as u8, fleet_uid.len().min(255) as u8]);
        if fleet_uid.len() <= 64 {
            bound.push(fleet_uid);
        } else {
            bound.push(digest::digest(&digest::SHA256, fleet_uid).as_ref());
        }
        bound.push(to);
        bound
    }

    fn push(&mut self, part: &[u8]) {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    fn aad(&self) -> Aad<&[u8]> {
        Aad::from(&self.bytes[..self.length])
    }
}

/// Bound to nothing: a first box.
const FIRST: [u8; TAG] = [0; TAG];

/// Appends `nonce | box | tag` of `plain`; returns the tag.
fn seal_box(key: &Key, bound: &Bound, plain: &[&[u8]], out: &mut Vec<u8>) -> [u8; TAG] {
    let mut nonce = [0; NONCE_LEN];
    rand::rng().fill_bytes(&mut nonce);
    out.extend_from_slice(&nonce);
    let start = out.len();
    for part in plain {
        out.extend_from_slice(part);
    }
    let nonce = Nonce::assume_unique_for_key(nonce);
    let mut bytes = FIRST;
    if let Ok(tag) = key.aead.seal_in_place_separate_tag(nonce, bound.aad(), &mut out[start..]) {
        bytes.copy_from_slice(tag.as_ref());
    } else {
        // Only for 64 GiB and more. What could not be sealed does not leave.
        out.truncate(start);
    }
    out.extend_from_slice(&bytes);
    bytes
}

/// Opens `nonce | box | tag` in place; the plain text begins behind the nonce.
fn open_box<'a>(key: &Key, bound: &Bound, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
    let (nonce, rest) = sealed.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    key.aead.open_in_place(nonce, bound.aad(), rest).ok()
}

/// The two parts of a token's text.
fn parts(text: &str) -> Result<(&str, Option<&str>), OpenError> {
    let rest = text.strip_prefix(MARKER).ok_or(OpenError::NotAToken)?;
    Ok(rest.split_once('.').map_or((rest, None), |(first, second)| (first, Some(second))))
}

/// The first box with its head, still closed.
fn decode_first(first: &str) -> Result<Vec<u8>, OpenError> {
    let bytes = URL_SAFE_NO_PAD.decode(first).map_err(|_| OpenError::NotAToken)?;
    if bytes.len() < HEAD + FIXED + TAG { Err(OpenError::NotAToken) } else { Ok(bytes) }
}

fn mark_of(bytes: &[u8]) -> [u8; MARK] {
    bytes.first_chunk().copied().unwrap_or_default()
}

fn tag_of(bytes: &[u8]) -> [u8; TAG] {
    bytes.last_chunk().copied().unwrap_or_default()
}

fn number(bytes: &[u8]) -> u128 {
    bytes.first_chunk().map_or(0, |b| u128::from_be_bytes(*b))
}

impl KeyRing {
    /// Makes a token with the newest key whose time has come at `now_unix` (seconds).
    #[must_use]
    pub fn seal(
        &self,
        now_unix: u64,
        purpose: Purpose,
        fleet_uid: &str,
        pod: PodId,
        upstream: &[u8],
        handshake: Option<&[u8]>,
    ) -> Sealed {
        let token_id: u128 = rand::rng().random();
        let mut text = String::from(MARKER);
        let Some(key) = self.sealing(now_unix) else {
            return Sealed { text, token_id, handshake_dropped: handshake.is_some() };
        };
        let mut first = Vec::with_capacity(HEAD + FIXED + upstream.len() + TAG);
        first.extend_from_slice(&key.mark);
        // No principal: the gateway authenticates nobody yet.
        let plain: [&[u8]; 4] = [&pod.0.to_be_bytes(), &token_id.to_be_bytes(), &[0], upstream];
        let tag = seal_box(key, &Bound::new(purpose, fleet_uid.as_bytes(), &FIRST), &plain, &mut first);
        URL_SAFE_NO_PAD.encode_string(&first, &mut text);
        let mut dropped = false;
        if let Some(handshake) = handshake {
            let more = (NONCE_LEN + handshake.len() + TAG).saturating_mul(4).div_ceil(3) + 1;
            dropped = text.len() + more > MAX_TOKEN;
            if !dropped {
                let bound = Bound::new(purpose, fleet_uid.as_bytes(), &tag);
                let mut second = Vec::with_capacity(more);
                seal_box(key, &bound, &[handshake], &mut second);
                text.push('.');
                URL_SAFE_NO_PAD.encode_string(&second, &mut text);
            }
        }
        Sealed { text, token_id, handshake_dropped: dropped }
    }

    /// What the first box of a token says. Cheap: one decode buffer, which becomes the answer.
    pub fn open(&self, purpose: Purpose, fleet_uid: &str, text: &str) -> Result<Opened, OpenError> {
        let (first, _) = parts(text)?;
        let mut bytes = decode_first(first)?;
        let length = self.unlock(purpose, fleet_uid, &mut bytes).map(|(_, length)| length)?;
        let plain = &bytes[HEAD..HEAD + length];
        let (pod, token_id) = (PodId(number(plain)), number(&plain[16..]));
        let skip = HEAD + FIXED + usize::from(plain[32]);
        let end = HEAD + length;
        if skip > end {
            return Err(OpenError::Forged);
        }
        bytes.copy_within(skip..end, 0);
        bytes.truncate(end - skip);
        Ok(Opened { pod, upstream: bytes, token_id })
    }

    /// Opens a first box in place; the key that did, and the length of the plain text.
    fn unlock<'a>(
        &'a self,
        purpose: Purpose,
        fleet_uid: &str,
        bytes: &mut [u8],
    ) -> Result<(&'a Key, usize), OpenError> {
        let bound = Bound::new(purpose, fleet_uid.as_bytes(), &FIRST);
        let mut keys = self.opening(mark_of(bytes)).peekable();
        let Some(mut key) = keys.next() else { return Err(OpenError::UnknownKey) };
        // A failed attempt destroys the buffer: only where two marks collide is it kept for another.
        while keys.peek().is_some() {
            let mut copy = bytes.to_vec();
            if open_box(key, &bound, &mut copy[MARK..]).is_some() {
                break;
            }
            let Some(next) = keys.next() else { break };
            key = next;
        }
        let plain = open_box(key, &bound, &mut bytes[MARK..]).ok_or(OpenError::Forged)?;
        if plain.len() < FIXED { Err(OpenError::Forged) } else { Ok((key, plain.len())) }
    }

    /// The second box of a token, if it has one. Only for making a session again.
    pub fn open_handshake(
        &self,
        purpose: Purpose,
        fleet_uid: &str,
        text: &str,
    ) -> Result<Option<Vec<u8>>, OpenError> {
        let (first, second) = parts(text)?;
        let mut bytes = decode_first(first)?;
        let tag = tag_of(&bytes);
        let (key, _) = self.unlock(purpose, fleet_uid, &mut bytes)?;
        let Some(second) = second else { return Ok(None) };
        let mut sealed = URL_SAFE_NO_PAD.decode(second).map_err(|_| OpenError::Forged)?;
        let bound = Bound::new(purpose, fleet_uid.as_bytes(), &tag);
        let length = open_box(key, &bound, &mut sealed).ok_or(OpenError::Forged)?.len();
        sealed.copy_within(NONCE_LEN..NONCE_LEN + length, 0);
        sealed.truncate(length);
        Ok(Some(sealed))
    }

    /// Seals a message to another gateway; `about` says what kind it is, and opens it.
    #[must_use]
    pub fn seal_message(&self, about: &[u8], plain: &[u8]) -> Vec<u8> {
        // The clock chooses the key only; peers whose clock differs open with any.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut out = Vec::with_capacity(HEAD + plain.len() + TAG);
        if let Some(key) = self.sealing(now) {
            out.extend_from_slice(&key.mark);
            seal_box(key, &Bound::new(Purpose::Peer, about, &FIRST), &[plain], &mut out);
        }
        out
    }

    /// Opens a message of another gateway.
    pub fn open_message(&self, about: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        if sealed.len() < HEAD + TAG {
            return Err(OpenError::NotAToken);
        }
        let bound = Bound::new(Purpose::Peer, about, &FIRST);
        let mut error = OpenError::UnknownKey;
        for key in self.opening(mark_of(sealed)) {
            error = OpenError::Forged;
            let mut bytes = sealed[MARK..].to_vec();
            let Some(length) = open_box(key, &bound, &mut bytes).map(|plain| plain.len()) else { continue };
            bytes.copy_within(NONCE_LEN..NONCE_LEN + length, 0);
            bytes.truncate(length);
            return Ok(bytes);
        }
        Err(error)
    }
}
