//! The key ring: seal with the newest key whose time has come, open with any (gateway.md section 1, Keys).
//! Input: the bytes of the key file. It reads no file, and shows no key to anyone.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rand::RngExt as _;
use ring::{
    aead::{AES_256_GCM, LessSafeKey, UnboundKey},
    digest,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::Deserialize;

/// Most keys in a file: far more than any rotation needs.
const MOST_KEYS: usize = 64;
/// Length of a key in bytes.
const KEY_LEN: usize = 32;

/// Why there is no key ring. Names keys by their id or place, never by what they are.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not the format; the position only, since the text may hold a key.
    #[error(
        r#"the key file is not a JSON list of {{"id", "key", "notBefore"}}: line {line}, column {column}"#
    )]
    Format {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Nothing in it.
    #[error("the key file holds no key")]
    Empty,
    /// Too many.
    #[error("the key file holds more than {MOST_KEYS} keys")]
    TooMany,
    /// Two entries of one id.
    #[error("the key id {0:?} stands in the key file twice")]
    Repeated(String),
    /// Not 32 bytes in base64.
    #[error("the key {0:?} is not 32 bytes in base64")]
    Key(String),
    /// Not a time.
    #[error("notBefore of the key {0:?} is not an RFC 3339 time")]
    NotBefore(String),
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// One key, ready for use.
pub(super) struct Key {
    /// First bytes of the hash of its id; stands in front of what it sealed.
    pub(super) mark: [u8; 4],
    /// Unix time in seconds from which it seals.
    pub(super) not_before: i64,
    pub(super) aead: LessSafeKey,
}

impl Key {
    fn new(id: &str, bytes: &[u8; KEY_LEN], not_before: i64) -> Option<Self> {
        let mut mark = [0; 4];
        mark.copy_from_slice(&digest::digest(&digest::SHA256, id.as_bytes()).as_ref()[..4]);
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?);
        Some(Self { mark, not_before, aead })
    }
}

/// All keys of a gateway, and of the other gateways of its set.
pub struct KeyRing {
    /// Newest first; never empty.
    keys: Vec<Key>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.keys.len())
    }
}

/// Overwrites key material; the black box keeps the compiler from leaving that out.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    std::hint::black_box(bytes);
}

impl KeyRing {
    /// Reads a key file: a JSON list of `{"id", "key", "notBefore"}`, the key as 32 bytes in base64.
    pub fn parse(json: &[u8]) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Entry<'a> {
            id: String,
            #[serde(borrow)]
            key: Cow<'a, str>,
            not_before: String,
        }
        let entries: Vec<Entry<'_>> = serde_json::from_slice(json)
            .map_err(|error| KeyError::Format { line: error.line(), column: error.column() })?;
        if entries.is_empty() {
            return Err(KeyError::Empty);
        }
        if entries.len() > MOST_KEYS {
            return Err(KeyError::TooMany);
        }
        let mut keys = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            if entries[..i].iter().any(|e| e.id == entry.id) {
                return Err(KeyError::Repeated(entry.id.clone()));
            }
            let not_before: Timestamp =
                entry.not_before.parse().map_err(|_| KeyError::NotBefore(entry.id.clone()))?;
            // Room for what base64 may write before it notices that there is too much.
            let mut bytes = [0; KEY_LEN + 4];
            let length = STANDARD.decode_slice(entry.key.trim_ascii(), &mut bytes);
            let key = match (length, bytes.first_chunk()) {
                (Ok(KEY_LEN), Some(key)) => Key::new(&entry.id, key, not_before.as_second()),
                _ => None,
            };
            wipe(&mut bytes);
            keys.push(key.ok_or_else(|| KeyError::Key(entry.id.clone()))?);
        }
        keys.sort_by_key(|key| std::cmp::Reverse(key.not_before));
        Ok(Self { keys })
    }

    /// A ring of one random key, which ends with the process.
    pub fn ephemeral() -> Result<Self, KeyError> {
        let mut bytes = [0; KEY_LEN];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Random)?;
        let id: u128 = rand::rng().random();
        let key = Key::new(&format!("ephemeral {id:032x}"), &bytes, 0);
        wipe(&mut bytes);
        Ok(Self { keys: vec![key.ok_or(KeyError::Random)?] })
    }

    /// How many keys there are; never 0.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that seals now: the newest whose time has come, else the oldest (clocks that run behind).
    pub(super) fn sealing(&self, now_unix: u64) -> Option<&Key> {
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        self.keys.iter().find(|key| key.not_before <= now).or(self.keys.last())
    }

    /// The keys of a mark: one, or more where hashes of ids collide.
    pub(super) fn opening(&self, mark: [u8; 4]) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.mark == mark)
    }
}
