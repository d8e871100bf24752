//! The chunked coding (RFC 9112 section 7.1) in any pieces, strictly: a body ends where hyper would end it, or is
//! refused. Pure.

use memchr::memchr2;

/// Bytes of chunk extensions and trailers together. Nobody needs either; hyper allows 16 KiB of each.
const MAX_EXTRAS: u32 = 8 * 1024;

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not at its end yet.
    More,
    /// Its end was taken.
    End,
    /// The next byte must not stand where it stands.
    Malformed,
}

/// Place inside the chunked coding (RFC 9112 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
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
#[derive(Debug)]
pub struct Chunks {
    at: At,
    /// Bytes left in this chunk; while the size is read, the size so far.
    left: u64,
    /// Bytes of extensions and trailers so far.
    extras: u32,
    /// They are counted anew for each chunk.
    extras_per_chunk: bool,
}

impl Chunks {
    /// The body of a request.
    pub fn of_request() -> Self {
        Self { at: At::SizeStart, left: 0, extras: 0, extras_per_chunk: false }
    }

    /// The body of an answer. A stream may go on for days, so extras are limited for each chunk.
    pub fn of_answer() -> Self {
        Self { extras_per_chunk: true, ..Self::of_request() }
    }

    /// Takes what belongs to this body, and hands out what the chunks carry. A malformed byte is not taken.
    pub fn advance(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> (usize, Progress) {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken).copied() {
            if self.at == At::Data {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                data(&bytes[taken..taken + step]);
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
                let step = memchr2(b'\r', b'\n', line).unwrap_or(line.len());
                if step > 0 {
                    if !self.extra(step) {
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
            (At::SizeLf, b'\n') => {
                if self.extras_per_chunk {
                    self.extras = 0;
                }
                Some(if self.left == 0 { At::TrailerStart } else { At::Data })
            }
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
        self.extras <= MAX_EXTRAS
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail loudly")]

    use proptest::prelude::*;

    use super::*;

    /// What the body carries, how many bytes it has, and how it ends, read in pieces of `size`.
    fn read(mut chunks: Chunks, text: &[u8], size: usize) -> (Vec<u8>, usize, Progress) {
        let (mut data, mut all) = (Vec::new(), 0);
        for piece in text.chunks(size) {
            let (taken, progress) = chunks.advance(piece, |bytes| data.extend_from_slice(bytes));
            all += taken;
            if progress != Progress::More {
                return (data, all, progress);
            }
        }
        (data, all, Progress::More)
    }

    #[test]
    fn what_the_chunks_carry_is_handed_out() {
        let text = b"5\r\nhello\r\n1 ;a=\"b\"\r\n \r\n0A\r\nand\r\nworld\r\n000;x\r\nSum: 1\r\nx: y\r\n\r\n";
        for size in 1..=text.len() {
            let (data, all, progress) = read(Chunks::of_answer(), text, size);
            assert_eq!((&*data, all, progress), (&b"hello and\r\nworld"[..], text.len(), Progress::End));
        }
    }

    #[test]
    fn what_follows_the_end_is_not_taken() {
        let (data, all, progress) = read(Chunks::of_answer(), b"1\r\na\r\n0\r\n\r\n0\r\n\r\n", 64);
        assert_eq!((&*data, all, progress), (&b"a"[..], 11, Progress::End));
    }

    #[test]
    fn what_is_malformed_ends_it_after_what_was_whole() {
        for text in [
            "\r\n",
            "x",
            "-1",
            " 1",
            "1 2",
            "1\n",
            "1;\n",
            "10000000000000000",
            "1\r\nab",
            "1\r\na\n",
            "0\r\n x",
            "0\r\n\rx",
        ] {
            let whole = format!("2\r\nok\r\n{text}");
            let (data, all, progress) = read(Chunks::of_answer(), whole.as_bytes(), 64);
            assert_eq!(progress, Progress::Malformed, "{text:?}");
            assert!(data.starts_with(b"ok") && all < whole.len(), "{text:?}: {data:?}, {all}");
        }
    }

    /// A request has no use for so much; a stream may go on for days.
    #[test]
    fn extensions_are_limited_for_each_body_or_each_chunk() {
        let chunk = format!("1;{}\r\na\r\n", "e".repeat(1000));
        let many = format!("{}0\r\n\r\n", chunk.repeat(9));
        assert_eq!(read(Chunks::of_request(), many.as_bytes(), 999).2, Progress::Malformed);
        assert_eq!(read(Chunks::of_answer(), many.as_bytes(), 999).2, Progress::End);
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(9000));
        assert_eq!(read(Chunks::of_answer(), long.as_bytes(), 999).2, Progress::Malformed);
        let trailer = format!("0\r\nx: {}\r\n\r\n", "e".repeat(9000));
        assert_eq!(read(Chunks::of_answer(), trailer.as_bytes(), 999).2, Progress::Malformed);
    }

    proptest! {
        #[test]
        fn pieces_carry_the_same(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8), size in 1_usize..50) {
            let mut text = Vec::new();
            for piece in &pieces {
                text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            let (data, all, progress) = read(Chunks::of_answer(), &text, size);
            prop_assert_eq!((data, all, progress), (pieces.concat(), text.len(), Progress::End));
        }

        #[test]
        fn no_bytes_break_it(text in "[0-9a-f\r\n;: x]{0,200}", size in 1_usize..20) {
            let whole = read(Chunks::of_answer(), text.as_bytes(), 1000);
            prop_assert_eq!(read(Chunks::of_answer(), text.as_bytes(), size), whole);
        }
    }
}
