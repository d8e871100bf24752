//! Where one request ends and the next begins, over bytes in any chunking; pure.
//!
//! The judge says how many of the bytes at hand may go on to hyper. It must draw every border exactly
//! where hyper draws it, or refuse: a byte that hyper took for the next head would be unjudged.

use super::{
    chunks::{Chunks, Progress},
    head::{BodyKind, HeadScan},
    reject::Reject,
};

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
                        BodyKind::Chunked => Phase::Chunked(Chunks::of_request()),
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
                let (taken, progress) = chunks.advance(rest, |_| {});
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
