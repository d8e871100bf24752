//! Where one request ends and the next begins, over bytes in any chunking; pure.
//!
//! The judge says how many of the bytes at hand may go on to hyper. It must draw every border exactly
//! where hyper draws it, or refuse: a byte that hyper took for the next head would be unjudged.

use memchr::memchr;

use super::head::{BodyKind, HeadScan};
use super::reject::Reject;

/// Bytes of chunk extensions and trailers together in one body. Nobody needs either; hyper allows 16 KiB of each.
const MAX_CHUNK_EXTRAS: u32 = 8 * 1024;

/// Why bytes cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The head is refused; nothing of it passes.
    Head(Reject),
    /// The chunked coding is broken.
    Body,
}

/// What stands at the front of the bytes not judged yet.
#[derive(Debug)]
pub(crate) enum Phase {
    /// A head, or nothing yet.
    Head(HeadScan),
    /// So many bytes of a body.
    Sized(u64),
    /// A chunked body.
    Chunked(Chunks),
    /// A message has ended; what follows waits until it is answered.
    Hold,
    /// Nothing can follow.
    Broken,
}

/// The verdict over some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    /// So many bytes from the front may go on.
    pub(crate) pass: usize,
    /// A head is among them.
    pub(crate) head: bool,
    /// Why nothing after them may.
    pub(crate) fault: Option<Fault>,
}

/// Judges the bytes `unjudged`, which start where the last call's `pass` ended.
pub(crate) fn judge(phase: &mut Phase, unjudged: &[u8], max_head: usize) -> Judged {
    let mut judged = Judged { pass: 0, head: false, fault: None };
    loop {
        let rest = &unjudged[judged.pass..];
        match phase {
            Phase::Head(scan) => match scan.advance(rest, max_head) {
                Ok(Some(head)) => {
                    judged.pass += head.len;
                    judged.head = true;
                    *phase = match head.body {
                        BodyKind::Sized(0) => Phase::Hold,
                        BodyKind::Sized(length) => Phase::Sized(length),
                        BodyKind::Chunked => Phase::Chunked(Chunks::default()),
                    };
                }
                Ok(None) => return judged,
                Err(reject) => {
                    *phase = Phase::Broken;
                    judged.fault = Some(Fault::Head(reject));
                }
            },
            Phase::Sized(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                judged.pass += taken;
                *left -= taken as u64;
                if *left > 0 {
                    return judged;
                }
                *phase = Phase::Hold;
            }
            Phase::Chunked(chunks) => {
                let (taken, progress) = chunks.advance(rest);
                judged.pass += taken;
                match progress {
                    Progress::More => return judged,
                    Progress::End => *phase = Phase::Hold,
                    Progress::Malformed => {
                        *phase = Phase::Broken;
                        judged.fault = Some(Fault::Body);
                    }
                }
            }
            Phase::Hold | Phase::Broken => return judged,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    More,
    End,
    Malformed,
}

/// Place inside the chunked coding (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    SizeStart,
    Size,
    /// White space after the size: no digit may follow.
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// Start of a trailer line, or the end.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

/// A chunked body in progress.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    at: At,
    /// Bytes left in this chunk; while the size is read, the size so far.
    left: u64,
    /// Bytes of extensions and trailers so far.
    extras: u32,
}

impl Chunks {
    /// Takes what belongs to this body. A malformed byte is not taken.
    fn advance(&mut self, bytes: &[u8]) -> (usize, Progress) {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken).copied() {
            if self.at == At::Data {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                taken += step;
                self.left -= step as u64;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            if self.at == At::Trailer {
                // Up to the line's end in one step.
                let line = &bytes[taken..];
                let step = memchr(b'\r', line).unwrap_or(line.len());
                if step > 0 {
                    if !self.extra(step) || line[..step].contains(&b'\n') {
                        return (taken, Progress::Malformed);
                    }
                    taken += step;
                    continue;
                }
            }
            let Some(next) = self.step(byte) else { return (taken, Progress::Malformed) };
            taken += 1;
            if self.at == At::EndLf && byte == b'\n' {
                return (taken, Progress::End);
            }
            self.at = next;
        }
        (taken, Progress::More)
    }

    /// Where `byte` leads; `None`: it must not stand here.
    fn step(&mut self, byte: u8) -> Option<At> {
        match (self.at, byte) {
            (At::SizeStart | At::Size, digit) if digit.is_ascii_hexdigit() => {
                let value = u64::from(char::from(digit).to_digit(16)?);
                let so_far = if self.at == At::SizeStart { 0 } else { self.left };
                self.left = so_far.checked_mul(16)?.checked_add(value)?;
                Some(At::Size)
            }
            (At::Size | At::SizeSpace, b' ' | b'\t') => self.extra(1).then_some(At::SizeSpace),
            (At::Size | At::SizeSpace, b';') => Some(At::Extension),
            (At::Size | At::SizeSpace | At::Extension, b'\r') => Some(At::SizeLf),
            // An extension has one line; a trailer line begins with a name.
            (At::Extension, b'\n' | 0) | (At::TrailerStart, b' ' | b'\t' | b'\n' | b':') => None,
            (At::Extension, _) => self.extra(1).then_some(At::Extension),
            (At::SizeLf, b'\n') => Some(if self.left == 0 { At::TrailerStart } else { At::Data }),
            (At::DataCr, b'\r') => Some(At::DataLf),
            (At::DataLf, b'\n') => Some(At::SizeStart),
            (At::TrailerStart, b'\r') | (At::EndLf, b'\n') => Some(At::EndLf),
            (At::TrailerStart, _) => self.extra(1).then_some(At::Trailer),
            (At::Trailer, b'\r') => Some(At::TrailerLf),
            (At::TrailerLf, b'\n') => Some(At::TrailerStart),
            _ => None,
        }
    }

    fn extra(&mut self, bytes: usize) -> bool {
        self.extras = self.extras.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.extras <= MAX_CHUNK_EXTRAS
    }
}
