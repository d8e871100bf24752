//! Puts other strings in place of some of a message: the only way in which a body is ever changed. All other
//! bytes stay as they are.

use std::ops::Range;

use bytes::Bytes;

/// `body` with each range replaced by a JSON string (quotes and escapes are made here). Ranges come from the
/// body itself; they may stand in any order and must not overlap: one that begins before the end of another,
/// or ends behind the body, is left out.
pub fn replace(body: &[u8], replacements: &[(Range<usize>, &str)]) -> Bytes {
    let mut order: Vec<_> = replacements.iter().collect();
    order.sort_unstable_by_key(|(range, _)| range.start);
    let more: usize = replacements.iter().map(|(_, text)| text.len() + 2).sum();
    let mut out = Vec::with_capacity(body.len() + more);
    let mut done = 0;
    for (range, text) in order {
        if range.start < done || range.end < range.start || range.end > body.len() {
            continue;
        }
        out.extend_from_slice(&body[done..range.start]);
        // Writing a string into memory does not fail.
        let _ = serde_json::to_writer(&mut out, text);
        done = range.end;
    }
    out.extend_from_slice(&body[done..]);
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replaces_and_keeps_every_other_byte() {
        let body = br#"{ "a" : "one" , "b":["two","three"] }"#;
        let at = |text: &str| {
            let start = memchr::memmem::find(body, text.as_bytes()).unwrap();
            start..start + text.len()
        };
        let out = replace(body, &[(at("\"three\""), "x\"y\n"), (at("\"one\""), "")]);
        assert_eq!(out, &br#"{ "a" : "" , "b":["two","x\"y\n"] }"#[..]);
        assert_eq!(replace(body, &[]), &body[..]);
    }

    #[test]
    fn ranges_that_cannot_be_are_left_out() {
        assert_eq!(replace(b"abcdef", &[(1..4, "x"), (3..5, "y"), (5..99, "z")]), &b"a\"x\"ef"[..]);
    }

    proptest! {
        #[test]
        fn what_was_put_in_is_read_back(text in any::<String>(), before in "[a-z]{0,9}") {
            let body = format!(r#"{{"k":"{before}"}}"#);
            let out = replace(body.as_bytes(), &[(5..7 + before.len(), &text)]);
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read["k"].as_str(), Some(text.as_str()));
        }
    }
}
