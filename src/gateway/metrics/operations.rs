//! `mcp_server_operation_duration_seconds` of one fleet: one histogram for each combination of labels that
//! occurred, found without a lock and without allocation.
//!
//! Entries are never removed, so the first free place on the way to a key proves that it is not there. Labels
//! come from fixed sets and from the fleet's own lists; the table is bounded all the same, and what finds no
//! place is counted under `other`.

use std::{collections::HashMap, sync::OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    cells::{Histogram, OPERATION},
    labels::{ErrorType, Label as _, Method, Version},
};

/// Names that one fleet may add to the labels: those known at a time, and those that its pods ever listed.
const MAX_NAMES: usize = 500;
const MAX_NAMES_EVER: usize = 1000;
/// Longest name that becomes a label, in bytes.
const MAX_NAME: usize = 128;

/// Places of the first table, which most fleets never outgrow, and of the second.
const SMALL: usize = 32;
const LARGE: usize = 1024;
/// Places that are tried in each.
const TRIES: usize = 8;

/// Number of a name: 0 = the method has none, 1 = `other`.
type NameId = u16;
const NO_NAME: NameId = 0;
const OTHER_NAME: NameId = 1;

/// One finished operation.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Its method.
    pub method: Method,
    /// Tool of `tools/call`, prompt of `prompts/get`.
    pub tool: Option<&'a str>,
    /// Its revision.
    pub version: Version,
    /// How it failed.
    pub error: Option<ErrorType>,
    /// From the end of the request's head to the end of the answer.
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    method: Method,
    version: Version,
    error: Option<ErrorType>,
    name: NameId,
}

impl Key {
    /// All of it in one word.
    fn packed(self) -> u64 {
        let error = self.error.map_or(0, |e| e.index() + 1);
        let rest = self.method.index() | self.version.index() << 8 | error << 16;
        rest as u64 | u64::from(self.name) << 32
    }
}

/// Spreads well enough for tables of powers of two (Fibonacci hashing).
fn spread(packed: u64) -> usize {
    (packed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}

struct Entry {
    packed: u64,
    key: Key,
    histogram: Histogram,
}

type Place = OnceLock<Box<Entry>>;

/// Names of tools and prompts, and their numbers.
#[derive(Default)]
struct Names {
    by_name: HashMap<Box<str>, NameId, std::hash::BuildHasherDefault<Quick>>,
}

/// The operations of one fleet.
pub(super) struct Operations {
    small: Box<[Place]>,
    large: OnceLock<Box<[Place]>>,
    overflow: Histogram,
    /// Names that are labels now.
    names: ArcSwap<Names>,
    /// All names ever, by number − 2: a name keeps its number.
    ever: Mutex<Vec<Box<str>>>,
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            small: places(SMALL),
            large: OnceLock::new(),
            overflow: Histogram::new(&OPERATION),
            names: ArcSwap::default(),
            ever: Mutex::default(),
        }
    }
}

fn places(n: usize) -> Box<[Place]> {
    std::iter::repeat_with(OnceLock::new).take(n).collect()
}

impl Operations {
    /// Takes over the names that may be labels; the first 500, none longer than 128 bytes.
    pub(super) fn set_names<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut ever = self.ever.lock();
        let mut by_name = HashMap::default();
        for name in names.filter(|n| !n.is_empty() && n.len() <= MAX_NAME) {
            if by_name.len() == MAX_NAMES {
                break;
            }
            let known = ever.iter().position(|n| **n == *name);
            let number = match known {
                Some(number) => number,
                None if ever.len() < MAX_NAMES_EVER => {
                    ever.push(name.into());
                    ever.len() - 1
                }
                None => continue,
            };
            by_name.insert(name.into(), number as NameId + 2);
        }
        self.names.store(std::sync::Arc::new(Names { by_name }));
    }

    /// Counts one operation.
    pub(super) fn observe(&self, seen: &Observation<'_>) {
        let name = seen.tool.map_or(NO_NAME, |tool| self.number(tool));
        let key = Key { method: seen.method, version: seen.version, error: seen.error, name };
        self.histogram(key).observe(seen.seconds);
    }

    fn number(&self, tool: &str) -> NameId {
        if tool.len() > MAX_NAME {
            return OTHER_NAME;
        }
        self.names.load().by_name.get(tool).copied().unwrap_or(OTHER_NAME)
    }

    fn histogram(&self, key: Key) -> &Histogram {
        find(&self.small, key)
            .or_else(|| find(self.large.get_or_init(|| places(LARGE)), key))
            .unwrap_or(&self.overflow)
    }

    /// Shows all histograms: method, name, version, error, histogram.
    pub(super) fn each<E>(
        &self,
        mut show: impl FnMut(&str, &str, &str, &str, &Histogram) -> Result<(), E>,
    ) -> Result<(), E> {
        let ever = self.ever.lock();
        let large = self.large.get().map(|l| l.iter()).into_iter().flatten();
        for entry in self.small.iter().chain(large).filter_map(OnceLock::get) {
            let Key { method, version, error, name } = entry.key;
            let name = match name {
                NO_NAME => "",
                OTHER_NAME => "other",
                n => ever.get(usize::from(n) - 2).map_or("other", |n| n),
            };
            let error = error.map_or("", ErrorType::as_str);
            show(method.as_str(), name, version.as_str(), error, &entry.histogram)?;
        }
        if self.overflow.read().1 > 0 {
            show("other", "other", "other", "other", &self.overflow)?;
        }
        Ok(())
    }
}

/// The key's histogram, made on first use; `None` where all its places are taken by others.
fn find(places: &[Place], key: Key) -> Option<&Histogram> {
    let packed = key.packed();
    let start = spread(packed);
    (0..TRIES).find_map(|i| {
        let place = places.get((start + i) & (places.len() - 1))?;
        let new = || Box::new(Entry { packed, key, histogram: Histogram::new(&OPERATION) });
        let entry = place.get_or_init(new);
        (entry.packed == packed).then_some(&entry.histogram)
    })
}

/// Multiplies eight bytes at a time. The tables hold the fleet's own names only, so nobody else can make them
/// collide.
#[derive(Default)]
struct Quick(u64);

impl Quick {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl std::hash::Hasher for Quick {
    fn finish(&self) -> u64 {
        // The table looks at the upper bits and at the lower ones.
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        // The last eight bytes once more, in one piece: cheaper than what is left of them byte by byte.
        match bytes.last_chunk::<8>() {
            Some(last) if !tail.is_empty() => self.mix(u64::from_le_bytes(*last)),
            Some(_) => {}
            None => self.mix(tail.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))),
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn seen(tool: Option<&str>) -> Observation<'_> {
        let (method, version) = (Method::ToolsCall, Version::V20260728);
        Observation { method, tool, version, error: None, seconds: 0.02 }
    }

    fn counts(operations: &Operations) -> HashMap<String, u64> {
        let mut all = HashMap::new();
        let show = |method: &str, name: &str, version: &str, error: &str, h: &Histogram| {
            let labels = format!("{method}|{name}|{version}|{error}");
            assert!(all.insert(labels, h.read().1).is_none(), "a series appears twice");
            Ok::<_, ()>(())
        };
        operations.each(show).unwrap();
        all
    }

    #[test]
    fn only_known_names_become_labels() {
        let operations = Operations::default();
        operations.observe(&seen(Some("search")));
        operations.set_names(["search", "fetch"].into_iter());
        operations.observe(&seen(Some("search")));
        operations.observe(&seen(Some("4a7d-some-task-id")));
        operations.observe(&seen(None));
        // A tool that is listed no more keeps its series and gets no new samples.
        operations.set_names(["fetch"].into_iter());
        operations.observe(&seen(Some("search")));
        operations.observe(&seen(Some("fetch")));
        let expected = [
            ("tools/call|other|2026-07-28|", 3),
            ("tools/call|search|2026-07-28|", 1),
            ("tools/call|fetch|2026-07-28|", 1),
            ("tools/call||2026-07-28|", 1),
        ];
        assert_eq!(counts(&operations), expected.map(|(k, n)| (k.to_owned(), n)).into());
    }

    #[test]
    fn the_table_is_bounded_and_loses_no_sample() {
        let operations = Operations::default();
        let names: Vec<String> = (0..600).map(|i| format!("tool-{i}")).collect();
        operations.set_names(names.iter().map(String::as_str));
        let mut samples = 0;
        for name in &names {
            for error in ErrorType::ALL {
                operations.observe(&Observation { error: Some(*error), ..seen(Some(name)) });
                samples += 1;
            }
        }
        let counts = counts(&operations);
        assert_eq!(counts.values().sum::<u64>(), samples);
        assert!(counts.len() <= SMALL + LARGE + 1, "{} series", counts.len());
        assert!(counts.contains_key("other|other|other|other"));
        assert!(!counts.keys().any(|k| k.contains("tool-599")), "the 501st name is no label");
    }

    #[test]
    fn two_threads_share_one_series() {
        let operations = Operations::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for method in Method::ALL {
                        operations.observe(&Observation { method: *method, ..seen(None) });
                    }
                });
            }
        });
        let counts = counts(&operations);
        assert_eq!(counts.len(), Method::COUNT);
        assert!(counts.values().all(|n| *n == 4));
    }
}
