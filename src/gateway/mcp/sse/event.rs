//! One event: what it says, and the same event with other data or another id.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr2;

/// What an event says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// `event`; empty means `message`.
    pub name: Cow<'a, str>,
    /// `data`, lines joined by LF; empty where there is none.
    pub data: Cow<'a, str>,
    /// The event has a `data` line.
    pub has_data: bool,
    /// `id`.
    pub id: Option<Cow<'a, str>>,
    /// `retry`, in milliseconds.
    pub retry: Option<u64>,
}

/// A line of an event.
struct Line<'a> {
    /// All of it.
    whole: &'a [u8],
    /// Up to its end of line.
    text: &'a [u8],
}

impl<'a> Line<'a> {
    fn end(&self) -> &'a [u8] {
        &self.whole[self.text.len()..]
    }

    /// Field and value, without the one space that may stand before it. Comments have an empty field.
    fn field(&self) -> (&'a [u8], &'a [u8]) {
        let Some(colon) = memchr::memchr(b':', self.text) else { return (self.text, b"") };
        let value = &self.text[colon + 1..];
        (&self.text[..colon], value.strip_prefix(b" ").unwrap_or(value))
    }

    /// Everything in front of the value.
    fn label(&self) -> &'a [u8] {
        &self.text[..self.text.len() - self.field().1.len()]
    }
}

/// Lines with their ends, of whichever kind.
fn lines(mut bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let text = memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
        let end = match &bytes[text..] {
            [b'\r', b'\n', ..] => 2,
            [] => 0,
            _ => 1,
        };
        let (whole, rest) = bytes.split_at(text + end);
        bytes = rest;
        Some(Line { whole, text: &whole[..text] })
    })
}

/// A byte order mark may stand at the start of a stream, and with it of its first event.
fn without_bom(event: &[u8]) -> &[u8] {
    event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event)
}

impl<'a> Event<'a> {
    /// Reads an event. Bytes that are not UTF-8 become U+FFFD, as in every client.
    pub fn parse(event: &'a [u8]) -> Self {
        let mut parsed = Self::default();
        for line in lines(without_bom(event)) {
            let (field, value) = line.field();
            match field {
                b"data" => {
                    let value = String::from_utf8_lossy(value);
                    if parsed.has_data {
                        let data = parsed.data.to_mut();
                        data.push('\n');
                        data.push_str(&value);
                    } else {
                        parsed.data = value;
                    }
                    parsed.has_data = true;
                }
                b"event" => parsed.name = String::from_utf8_lossy(value),
                b"id" if !value.contains(&0) => parsed.id = Some(String::from_utf8_lossy(value)),
                b"retry" if value.iter().all(u8::is_ascii_digit) => {
                    parsed.retry = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                }
                _ => {}
            }
        }
        parsed
    }
}

/// The event with other data. All other lines stay as they are, and so does the kind of line ends. An event
/// without data is returned as it is.
pub fn rewrite_data(event: &[u8], data: &str) -> Bytes {
    let mut out = Vec::with_capacity(event.len() + data.len());
    let body = without_bom(event);
    out.extend_from_slice(&event[..event.len() - body.len()]);
    let mut done = false;
    for line in lines(body) {
        if line.field().0 != b"data" {
            out.extend_from_slice(line.whole);
            continue;
        }
        if std::mem::replace(&mut done, true) {
            continue;
        }
        // A field without colon says "empty"; with a value it needs one.
        let label = if line.label().len() > 4 { line.label() } else { b"data: " };
        for part in data.split(['\n', '\r']) {
            out.extend_from_slice(label);
            // The first space of a value is not part of it: one that is needs another in front.
            if label.ends_with(b":") && part.starts_with(' ') {
                out.push(b' ');
            }
            out.extend_from_slice(part.as_bytes());
            out.extend_from_slice(if line.end().is_empty() { b"\n" } else { line.end() });
        }
    }
    out.into()
}

/// The event with the session's epoch in front of its id: `e2~<id>` (gateway.md section 2, Streams). An event
/// without id, and one that resets it, is returned as it is.
pub fn prefix_id(event: &[u8], epoch: u32) -> Bytes {
    let mut out = Vec::with_capacity(event.len() + 12);
    let body = without_bom(event);
    out.extend_from_slice(&event[..event.len() - body.len()]);
    for line in lines(body) {
        let (field, value) = line.field();
        if field == b"id" && !value.is_empty() {
            out.extend_from_slice(line.label());
            out.extend_from_slice(format!("e{epoch}~").as_bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(line.end());
        } else {
            out.extend_from_slice(line.whole);
        }
    }
    out.into()
}

/// A `Last-Event-ID` as epoch and id of the server: 0 where it has no epoch, since the session had not moved.
pub fn split_epoch(id: &str) -> (u32, &str) {
    let split = |id: &str| {
        let (epoch, rest) = id.strip_prefix('e')?.split_once('~')?;
        if epoch.starts_with(['0', '+']) {
            return None;
        }
        Some((epoch.parse().ok()?, rest.len()))
    };
    split(id).map_or((0, id), |(epoch, length)| (epoch, &id[id.len() - length..]))
}
