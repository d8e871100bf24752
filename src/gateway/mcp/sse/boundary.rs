//! Where events end: after an empty line, with lines that end in LF, CR LF or CR, in any mixture, cut anywhere.
//!
//! A CR that ends an empty line may be half of a CR LF. After lines that end in LF or CR LF the next byte
//! decides; after a line that ended in CR alone the event is over at once, and an LF that follows anyway goes
//! with the next event. So where a stream is cut never depends on how it arrived.

use memchr::memchr2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between two events.
    #[default]
    Fresh,
    /// Between two events, behind a CR: an LF belongs to it.
    FreshCr,
    /// Inside a line.
    Line,
    /// Behind a line that ended in LF or CR LF.
    AfterLf,
    /// Behind a line that ended in CR, if no LF follows.
    AfterCr,
    /// Behind a CR that ends an empty line, if no LF follows.
    EmptyCr,
}

/// Follows a stream and knows whether it is between two events.
#[derive(Clone, Debug, Default)]
pub struct Boundary(State);

impl Boundary {
    /// At the start of a stream, which is between two events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether something may be put into the stream here.
    pub fn at_boundary(&self) -> bool {
        matches!(self.0, State::Fresh | State::FreshCr)
    }

    /// Follows the stream over the next bytes of it.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = self.next(bytes) {
            bytes = &bytes[end..];
        }
    }

    /// Follows the stream to the end of the event; its place in `bytes`, from where the caller goes on. `None`:
    /// all bytes are read, and the event has not ended.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.0 == State::Line {
                at += memchr2(b'\n', b'\r', &bytes[at..])?;
            }
            let byte = bytes[at];
            if self.0 == State::EmptyCr && byte != b'\n' {
                self.0 = State::Fresh;
                return Some(at);
            }
            at += 1;
            let (next, ends) = match (self.0, byte) {
                (State::FreshCr, b'\n') => (State::Fresh, false),
                (State::Fresh | State::AfterLf | State::EmptyCr, b'\n') => (State::Fresh, true),
                (State::Fresh | State::FreshCr | State::AfterLf, b'\r') => (State::EmptyCr, false),
                (State::AfterCr, b'\r') => (State::FreshCr, true),
                (State::Line | State::AfterCr, b'\n') => (State::AfterLf, false),
                (State::Line, b'\r') => (State::AfterCr, false),
                _ => (State::Line, false),
            };
            self.0 = next;
            if ends {
                return Some(at);
            }
        }
        None
    }
}
