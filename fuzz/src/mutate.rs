//! Makes new inputs of old ones: bytes changed, parts cut, repeated, swapped, words of the protocol put in.

/// What the parsers look for, and what is near to it.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"-1e99",
    b"\\u0000",
    b"\\ud800",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\r\n\r\n",
    b"\xef\xbb\xbf",
    b"data: ",
    b"data:",
    b"id: ",
    b"event: ",
    b"retry: 1",
    b": ",
    b"\"id\":",
    b"\"method\":",
    b"\"params\":",
    b"\"result\":",
    b"\"error\":",
    b"\"taskId\":",
    b"\"requestState\":",
    b"\"taskIds\":",
    b"\"_meta\":",
    b"\"isError\":",
    b"\"resultType\":",
    b"\"notifications\":",
    b"=?base64?",
    b"?=",
    b"2026-07-28",
    b"mf1.",
    b".",
    b"e2~",
    b"\0",
    b"\xff",
    b"\xc3\xa4",
    b"initialize",
    b"tools/call",
    b"\"sequence\":",
    b"\"epoch\":",
    b"\"since\":",
    b"1795208400000",
    b"\"inFlightSeconds\":",
    b"9e15",
    b"1e-300",
];

/// Longest input.
const LONGEST: usize = 16 << 10;

/// One new input.
pub(crate) fn mutate(corpus: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = random.choice(corpus).cloned().unwrap_or_default();
    for _ in 0..random.usize(1..6) {
        step(&mut input, corpus, random);
    }
    input.truncate(LONGEST);
    input
}

fn span(length: usize, random: &mut fastrand::Rng) -> std::ops::Range<usize> {
    let start = random.usize(0..=length);
    start..random.usize(start..=length)
}

fn step(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(0..=input.len());
    match random.u8(0..8) {
        0 if at < input.len() => input[at] ^= 1 << random.u8(0..8),
        1 if at < input.len() => input[at] = random.u8(..),
        2 => drop(input.drain(span(input.len(), random))),
        3 => {
            let part = input[span(input.len(), random)].to_vec();
            input.splice(at..at, part);
        }
        4 => {
            if let Some(other) = random.choice(corpus) {
                let part = other[span(other.len(), random)].to_vec();
                input.splice(at..at, part);
            }
        }
        5 => input.truncate(at),
        _ => {
            let word = WORDS[random.usize(0..WORDS.len())];
            input.splice(at..at, word.iter().copied());
        }
    }
}
