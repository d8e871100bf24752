//! The usual exchange of a client's HTTP/1.1 connection, without hyper: a small POST that tells its length or a GET
//! without a body, and an answer that is at hand as a whole or is a stream. Pure. Whatever is not usual is named as such,
//! and hyper reads it: requests in chunks, and anything that the strict check refuses.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request, response};

use super::{
    head::{BodyKind, Field, HeadScan, Line},
    wire,
};

/// A request of more header lines is not usual.
const MOST_LINES: usize = 32;
/// Headers that most requests have, and a few that we add.
const USUAL_LINES: usize = 16;

/// What lies at the front of a client's bytes.
#[derive(Debug)]
pub enum Usual {
    /// A whole request.
    Whole {
        /// Without the headers that are about this connection alone.
        head: Box<request::Parts>,
        /// At least one byte of a POST, and none of a GET.
        body: Bytes,
        /// Bytes of both.
        len: usize,
    },
    /// The head of one, which has so many bytes together with its body.
    Begun(usize),
    /// Anything else: for hyper.
    Other,
}

/// Looks at bytes that begin with a request. `largest`: a head of more bytes is refused, by the guard. What is whole
/// keeps `bytes` and copies nothing but names.
pub fn look(bytes: &Bytes, largest: usize) -> Usual {
    let method = match &**bytes {
        [b'P', b'O', b'S', b'T', b' ', ..] => Method::POST,
        [b'G', b'E', b'T', b' ', ..] => Method::GET,
        _ => return Usual::Other,
    };
    let mut headers = HeaderMap::with_capacity(USUAL_LINES);
    let (mut lines, mut usual) = (0, true);
    let mut scan = HeadScan::default();
    let head = match scan.advance_with(bytes, largest, &mut |line| {
        lines += 1;
        usual = usual && lines <= MOST_LINES && take(&line, bytes, &mut headers).is_some();
    }) {
        Ok(Some(head)) if usual && !scan.is_http10() => head,
        Ok(_) | Err(_) => return Usual::Other,
    };
    let BodyKind::Sized(length) = head.body else { return Usual::Other };
    if (length == 0) != (method == Method::GET) {
        return Usual::Other;
    }
    let Some(len) = usize::try_from(length).ok().and_then(|length| head.len.checked_add(length)) else {
        return Usual::Other;
    };
    if len > bytes.len() {
        return Usual::Begun(len);
    }
    let target = method.as_str().len() + 1;
    let target_len = bytes[target..].iter().position(|byte| *byte == b' ').unwrap_or_default();
    let Ok(uri) = Uri::from_maybe_shared(bytes.slice(target..target + target_len)) else {
        return Usual::Other;
    };
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.method, parts.uri, parts.headers) = (method, uri, headers);
    Usual::Whole { head: Box::new(parts), body: bytes.slice(head.len..len), len }
}

/// Takes a header line. `None`: a client asks the connection itself for something, or hyper would not take it.
fn take(line: &Line, bytes: &Bytes, headers: &mut HeaderMap) -> Option<()> {
    let value = || HeaderValue::from_maybe_shared(bytes.slice(line.value.clone())).ok();
    let name = match line.field {
        // How long it is is known.
        Some(Field::Length) => return Some(()),
        Some(Field::Connection) => {
            return bytes[line.value.clone()].eq_ignore_ascii_case(b"keep-alive").then_some(());
        }
        Some(field) => field.header_name(),
        None => HeaderName::from_bytes(&bytes[line.name.clone()]).ok()?,
    };
    if matches!(name, header::EXPECT | header::UPGRADE) {
        return None;
    }
    headers.append(name, value()?);
    Some(())
}

/// How an answer tells where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// It has so many bytes.
    Sized(usize),
    /// In chunks.
    Chunked,
}

/// Appends the head of an answer, as hyper would write it. `date`: what `Date` says,
/// unless the answer has one. `ends`: the connection is to end after it. Whether it does: an answer may ask for that.
pub(crate) fn write_head(
    out: &mut Vec<u8>,
    head: &response::Parts,
    framing: Framing,
    date: &HeaderValue,
    ends: bool,
) -> bool {
    if head.status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(head.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(head.status.canonical_reason().unwrap_or("Unknown").as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let mut line = |name: &[u8], value: &[u8]| {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    let (mut dated, mut closes) = (false, false);
    for (name, value) in &head.headers {
        match *name {
            header::DATE => dated = true,
            header::CONNECTION if value.as_bytes().eq_ignore_ascii_case(b"close") => closes = true,
            // The length is told below, from what there is, and of this connection there is no more to tell.
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION => continue,
            _ => {}
        }
        line(name.as_str().as_bytes(), value.as_bytes());
    }
    if ends && !closes {
        line(b"connection", b"close");
    }
    if !dated {
        line(b"date", date.as_bytes());
    }
    match framing {
        Framing::Sized(length) if has_length(head.status) => wire::write_length(out, length),
        Framing::Sized(_) => {}
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    ends || closes
}

/// RFC 9110 section 8.6: of an answer that never has a body a length would say something else.
fn has_length(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

#[cfg(test)]
mod tests;
