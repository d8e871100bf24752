//! Cuts a stream into events, each as the bytes that came. An event that lies in one chunk is not copied; one
//! that is longer than the bound is passed on in pieces, so memory is bounded and nothing is lost.

use bytes::{Bytes, BytesMut};

use super::Boundary;

/// A part of a stream. All parts, one after the other, are the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// One event with its empty line, or some part of a longer one.
    pub bytes: Bytes,
    /// Of an event longer than the bound: to be passed on unread.
    pub oversize: bool,
}

/// Gathers chunks and gives events.
#[derive(Debug)]
pub struct Splitter {
    boundary: Boundary,
    max: usize,
    /// The event that has not ended, read to its end.
    partial: BytesMut,
    /// Not read yet.
    rest: Bytes,
    /// Inside an event that is longer than `max`.
    passing: bool,
}

impl Splitter {
    /// Events of up to `max` bytes are given whole.
    pub fn new(max: usize) -> Self {
        Self { boundary: Boundary::new(), max, partial: BytesMut::new(), rest: Bytes::new(), passing: false }
    }

    /// The next chunk; [`Self::next_event`] is then asked until it has none.
    pub fn push(&mut self, chunk: Bytes) {
        if self.rest.is_empty() {
            self.rest = chunk;
        } else {
            let mut both = BytesMut::from(&*self.rest);
            both.extend_from_slice(&chunk);
            self.rest = both.freeze();
        }
    }

    /// The next event, if it has come to its end.
    pub fn next_event(&mut self) -> Option<Piece> {
        while !self.rest.is_empty() {
            let end = self.boundary.next(&self.rest);
            let more = self.rest.split_to(end.unwrap_or(self.rest.len()));
            let oversize = self.passing || self.partial.len() + more.len() > self.max;
            if end.is_none() && !oversize {
                self.partial.extend_from_slice(&more);
                return None;
            }
            self.passing = oversize && end.is_none();
            let bytes = self.join(more);
            if !bytes.is_empty() {
                return Some(Piece { bytes, oversize });
            }
        }
        None
    }

    fn join(&mut self, more: Bytes) -> Bytes {
        if self.partial.is_empty() {
            return more;
        }
        self.partial.extend_from_slice(&more);
        self.partial.split().freeze()
    }

    /// Whether everything that came has been given, and something may be put into the stream here.
    pub fn at_boundary(&self) -> bool {
        self.boundary.at_boundary() && self.rest.is_empty() && !self.passing
    }

    /// What is left when the stream has ended: an event without its empty line, or nothing.
    pub fn finish(&mut self) -> Option<Bytes> {
        let rest = std::mem::take(&mut self.rest);
        let bytes = self.join(rest);
        (!bytes.is_empty()).then_some(bytes)
    }
}
