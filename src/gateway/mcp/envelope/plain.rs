//! The common call, read in one walk over its bytes: an object without escapes in the keys and values that decide.
//!
//! It reads what [`super::one`] would read, or nothing: whatever is rare, odd or wrong is left to that one, which
//! also knows what to say of it. Serde's way costs half as many instructions again for the same call.

use std::borrow::Cow;

use super::{Envelope, Kind};

/// Containers within each other, as many as there are bits; what nests deeper is not common.
const MAX_DEPTH: u32 = 64;

/// Reads a call or a notification.
pub(super) fn call(text: &str) -> Option<Envelope<'_>> {
    let mut walk = Walk { text, at: 0 };
    let (mut id, mut method, mut params) = (None, None, None);
    walk.space();
    walk.object(|walk, key| match key {
        "id" => once(&mut id, walk.value()?),
        "method" => once(&mut method, walk.string()?),
        "params" => once(&mut params, Params::read(walk)?),
        "result" | "error" => None,
        _ => walk.value().map(drop),
    })?;
    walk.space();
    // The parameters of a handshake are kept as they are written.
    let method = method.filter(|m| *m != "initialize" && walk.at == text.len())?;
    let params = params.unwrap_or_default();
    // What is raw was checked already; this only gives it its type.
    let raw = |text| serde_json::from_str(text).ok();
    Some(Envelope {
        kind: if id.is_some() { Kind::Request } else { Kind::Notification },
        id: match id {
            Some(id) => Some(raw(id)?),
            None => None,
        },
        method: Some(Cow::Borrowed(method)),
        name: params.name.map(Cow::Borrowed),
        uri: params.uri.map(Cow::Borrowed),
        task_id: None,
        request_state: None,
        task_ids: Vec::new(),
        has_task: false,
        meta_version: params.version.map(Cow::Borrowed),
        capabilities: params.capabilities.filter(|c| *c != "null").and_then(raw),
        params: None,
    })
}

/// Takes a value, unless there is one: a repeated key is not for here.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

#[derive(Default)]
struct Params<'a> {
    name: Option<&'a str>,
    uri: Option<&'a str>,
    version: Option<&'a str>,
    capabilities: Option<&'a str>,
}

impl<'a> Params<'a> {
    fn read(walk: &mut Walk<'a>) -> Option<Self> {
        let (mut params, mut meta) = (Self::default(), None);
        walk.object(|walk, key| match key {
            "name" => once(&mut params.name, walk.string()?),
            "uri" => once(&mut params.uri, walk.string()?),
            "_meta" => once(&mut meta, params.read_meta(walk)?),
            "taskId" | "requestState" | "task" | "notifications" => None,
            _ => walk.value().map(drop),
        })?;
        Some(params)
    }

    fn read_meta(&mut self, walk: &mut Walk<'a>) -> Option<()> {
        walk.object(|walk, key| match key {
            "io.modelcontextprotocol/protocolVersion" => once(&mut self.version, walk.string()?),
            "io.modelcontextprotocol/clientCapabilities" => once(&mut self.capabilities, walk.value()?),
            _ => walk.value().map(drop),
        })
    }
}

/// A position in JSON. Each step takes what the grammar allows (RFC 8259) and goes on behind it, or is `None`.
struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// This byte, and the space before it.
    fn eat(&mut self, byte: u8) -> Option<()> {
        self.space();
        (self.byte()? == byte).then(|| self.at += 1)
    }

    /// An object. `member` has to take the value.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        self.space();
        if self.byte()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let key = self.string()?;
            self.eat(b':')?;
            member(self, key)?;
            self.space();
            let byte = self.byte()?;
            self.at += 1;
            match byte {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// What a string without escapes says.
    fn string(&mut self) -> Option<&'a str> {
        self.eat(b'"')?;
        let start = self.at;
        self.at += plain_bytes(self.text.as_bytes().get(start..)?);
        let string = self.text.get(start..self.at)?;
        (self.byte()? == b'"').then(|| self.at += 1)?;
        Some(string)
    }

    /// Any value, as it is written.
    fn value(&mut self) -> Option<&'a str> {
        self.space();
        let start = self.at;
        self.skip()?;
        self.text.get(start..self.at)
    }

    /// Any value: a bit for each container that is open says whether it is an object.
    fn skip(&mut self) -> Option<()> {
        let (mut objects, mut depth) = (0_u64, 0);
        loop {
            self.space();
            match self.byte()? {
                opening @ (b'{' | b'[') if depth < MAX_DEPTH => {
                    self.at += 1;
                    self.space();
                    if self.byte()? == opening + 2 {
                        self.at += 1;
                    } else {
                        objects = objects << 1 | u64::from(opening == b'{');
                        depth += 1;
                        if opening == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => self.escaped()?,
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => self.number()?,
            }
            // A value ended, and with it perhaps what it stands in.
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.space();
                let (byte, in_object) = (self.byte()?, objects & 1 == 1);
                self.at += 1;
                match byte {
                    b',' if in_object => break self.key()?,
                    b',' => break,
                    b'}' if in_object => {}
                    b']' if !in_object => {}
                    _ => return None,
                }
                objects >>= 1;
                depth -= 1;
            }
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Option<()> {
        self.space();
        self.escaped()?;
        self.eat(b':')
    }

    /// A string with or without escapes.
    fn escaped(&mut self) -> Option<()> {
        (self.byte()? == b'"').then(|| self.at += 1)?;
        loop {
            self.at += plain_bytes(self.text.as_bytes().get(self.at..)?);
            let byte = self.byte()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let escape = self.byte()?;
                    self.at += 1;
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then(|| self.at += 4)?;
                        }
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text.as_bytes().get(self.at..)?.starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<()> {
        if self.byte()? == b'-' {
            self.at += 1;
        }
        if self.byte()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// One or more.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// How many bytes stand before a quote, a backslash or a control character. Eight at a time: a byte of `hits` has its
/// highest bit where the byte is one of them (Anderson, Bit Twiddling Hacks, "determine if a word has a byte less than
/// n"); past the first hit it may be wrong, which nobody looks at.
fn plain_bytes(bytes: &[u8]) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, n: u64| word.wrapping_sub(EACH * n) & !word;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let is = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
        let hits = (below(word, 0x20) | is(b'"') | is(b'\\')) & HIGHEST;
        if hits != 0 {
            return at * 8 + hits.trailing_zeros() as usize / 8;
        }
    }
    let ends = |b: &u8| matches!(b, b'"' | b'\\' | ..=0x1f);
    words.len() * 8 + rest.iter().position(ends).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn words_end_where_their_bytes_do(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40), harmless in 0_u8..3) {
            // Mostly letters, so that some words hold no end at all.
            let bytes: Vec<u8> = bytes.iter().map(|b| if harmless > 0 && b % 16 > 0 { b | 0x60 } else { *b }).collect();
            let plain = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | ..=0x1f)).unwrap_or(bytes.len());
            proptest::prop_assert_eq!(plain_bytes(&bytes), plain);
        }
    }
}
