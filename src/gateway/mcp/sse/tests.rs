#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// Feeds a stream in chunks of the given sizes, over and over.
fn split(stream: &[u8], sizes: &[usize], max: usize) -> (Vec<Piece>, Option<Bytes>) {
    let (mut splitter, mut pieces, mut rest) = (Splitter::new(max), Vec::new(), stream);
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |s| *s).clamp(1, rest.len());
        splitter.push(Bytes::copy_from_slice(&rest[..size]));
        rest = &rest[size..];
        while let Some(piece) = splitter.next_event() {
            pieces.push(piece);
        }
    }
    (pieces, splitter.finish())
}

fn whole(stream: &[u8]) -> Vec<Vec<u8>> {
    split(stream, &[usize::MAX], 1 << 20).0.into_iter().map(|p| p.bytes.to_vec()).collect()
}

#[test]
fn events_end_at_empty_lines_of_every_kind() {
    assert_eq!(whole(b"data: a\n\ndata: b\n\nda"), [&b"data: a\n\n"[..], b"data: b\n\n"]);
    assert_eq!(whole(b"data: a\r\n\r\ndata: b\r\n\r\n"), [&b"data: a\r\n\r\n"[..], b"data: b\r\n\r\n"]);
    assert_eq!(whole(b"data: a\r\rdata: b\r\r"), [&b"data: a\r\r"[..], b"data: b\r\r"]);
    assert_eq!(
        whole(b"data: a\n\rdata: b\r\n\ndata: c\r\n\rx"),
        [&b"data: a\n\r"[..], b"data: b\r\n\n", b"data: c\r\n\r"]
    );
    assert_eq!(
        whole(b"\xef\xbb\xbfid: 1\ndata: a\n\n: c\n\n"),
        [&b"\xef\xbb\xbfid: 1\ndata: a\n\n"[..], b": c\n\n"]
    );
    assert_eq!(whole(b"\n\ndata: a\n\n"), [&b"\n"[..], b"\n", b"data: a\n\n"]);
}

#[test]
fn one_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\ndata: c");
    let mut splitter = Splitter::new(100);
    splitter.push(chunk.clone());
    let one = splitter.next_event().unwrap().bytes;
    let two = splitter.next_event().unwrap().bytes;
    assert_eq!((one.as_ptr(), two.as_ptr()), (chunk.as_ptr(), chunk[9..].as_ptr()));
    assert!(splitter.next_event().is_none());
    assert_eq!(splitter.finish().unwrap(), &b"data: c"[..]);
    assert!(splitter.finish().is_none());
}

#[test]
fn a_long_event_passes_in_pieces_and_the_next_is_whole_again() {
    let stream = b"data: 0123456789\n\ndata: b\n\n";
    for size in 1..stream.len() {
        let (pieces, rest) = split(stream, &[size], 10);
        let (last, long) = pieces.split_last().unwrap();
        assert_eq!((&*last.bytes, last.oversize), (&b"data: b\n\n"[..], false), "{size}");
        assert!(long.iter().all(|p| p.oversize), "{size}");
        let all: Vec<u8> = pieces.iter().flat_map(|p| p.bytes.to_vec()).collect();
        assert_eq!((&*all, rest), (&stream[..], None));
        assert!(long.iter().all(|p| p.bytes.len() <= 10 + size), "memory is bounded");
    }
}

#[test]
fn a_boundary_is_known_at_every_byte() {
    let at = |stream: &[u8]| {
        let mut boundary = Boundary::new();
        boundary.feed(stream);
        boundary.at_boundary()
    };
    for yes in [&b""[..], b"data: a\n\n", b"data: a\r\n\r\n", b"a\r\r", b"a\r\r\n", b"a\r\n\n", b": c\n\n"] {
        assert!(at(yes), "{yes:?}");
    }
    for no in [&b"d"[..], b"data: a\n", b"data: a\r\n", b"data: a\r", b"a\r\n\r", b"a\n\nb", b"a\r\n\r\nb"] {
        assert!(!at(no), "{no:?}");
    }
}

#[test]
fn an_event_is_read() {
    let event = Event::parse(b"\xef\xbb\xbf: comment\r\nevent: endpoint\r\nid:7\r\nretry: 300\r\ndata: a\r\ndata:  b\r\ndata\r\nother: x\r\n\r\n");
    assert_eq!((&*event.name, &*event.data), ("endpoint", "a\n b\n"));
    assert_eq!((event.id.as_deref(), event.retry), (Some("7"), Some(300)));
    let odd = Event::parse(b"data: \xff\nretry: soon\nid: a\0b\n\n");
    assert_eq!((&*odd.data, odd.retry, odd.id), ("\u{fffd}", None, None));
    let none = Event::parse(b"id\n\n");
    assert_eq!((none.id.as_deref(), none.has_data), (Some(""), false));
}

#[test]
fn data_is_rewritten_and_nothing_else() {
    let event = b"id: 1\r\nevent: message\r\ndata: {\"a\":\r\ndata: 1}\r\nretry: 5\r\n\r\n";
    assert_eq!(
        rewrite_data(event, "{\n}"),
        &b"id: 1\r\nevent: message\r\ndata: {\r\ndata: }\r\nretry: 5\r\n\r\n"[..]
    );
    assert_eq!(rewrite_data(b"data:x\r\r", " y"), &b"data:  y\r\r"[..]);
    assert_eq!(rewrite_data(b"data:x\r\r", "y"), &b"data:y\r\r"[..]);
    assert_eq!(rewrite_data(b"data\n\n", "y"), &b"data: y\n\n"[..]);
    assert_eq!(rewrite_data(b": ping\n\n", "y"), &b": ping\n\n"[..]);
}

#[test]
fn ids_carry_the_epoch() {
    assert_eq!(prefix_id(b"id: 5_1\ndata: a\n\n", 2), &b"id: e2~5_1\ndata: a\n\n"[..]);
    assert_eq!(prefix_id(b"data: a\nid:x\r\n\r\n", 12), &b"data: a\nid:e12~x\r\n\r\n"[..]);
    assert_eq!(prefix_id(b"id\nid: \ndata: a\n\n", 2), &b"id\nid: \ndata: a\n\n"[..]);
    assert_eq!(split_epoch("e2~5_1"), (2, "5_1"));
    assert_eq!(split_epoch("e2~a~b"), (2, "a~b"));
    for id in ["", "5_1", "e~x", "e0~x", "e02~x", "e+2~x", "ex~y", "e99999999999~x"] {
        assert_eq!(split_epoch(id), (0, id));
    }
}

#[test]
fn endpoints_of_every_server_are_read() {
    let read = |data: &'static str| {
        let uri = endpoint(data).unwrap();
        (uri.path, uri.query, uri.session.map(|range| &data[range]))
    };
    assert_eq!(read("/messages/?session_id=0f3a"), ("/messages/", Some("session_id=0f3a"), Some("0f3a")));
    assert_eq!(
        read("/message?a=1&sessionId=u-1&b=2"),
        ("/message", Some("a=1&sessionId=u-1&b=2"), Some("u-1"))
    );
    assert_eq!(read("http://10.0.0.1:8000/m?sessionId=x#f"), ("/m", Some("sessionId=x"), Some("x")));
    assert_eq!(read("//evil.example/m?SESSION_ID=x"), ("/m", Some("SESSION_ID=x"), Some("x")));
    assert_eq!(read(" message?sessionid=x \n"), ("message", Some("sessionid=x"), Some("x")));
    assert_eq!(read("/m?next=http://x/y&session=1"), ("/m", Some("next=http://x/y&session=1"), None));
    assert_eq!(read("/m?sessionId="), ("/m", Some("sessionId="), None));
    assert_eq!(read("/m/abc"), ("/m/abc", None, None));
    for bad in ["", " ", "/a b", "http://host", "/a\r\nb"] {
        assert_eq!(endpoint(bad), None, "{bad}");
    }
    assert_eq!(session_in_query("x=1&session_id=tok"), Some(15..18));
}

/// Streams made of what matters, so that all endings meet.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let part =
        prop::sample::select(vec!["\n", "\r", "\r\n", "data: x", "data", ":", "id: 1", "\u{feff}", " ", "e"]);
    proptest::collection::vec(part, 0..60).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(stream in stream(), sizes in proptest::collection::vec(1_usize..9, 1..6)) {
        let (one, one_rest) = split(&stream, &[usize::MAX], 1 << 20);
        let (many, many_rest) = split(&stream, &sizes, 1 << 20);
        prop_assert_eq!(&one, &many);
        prop_assert_eq!(&one_rest, &many_rest);
        let mut all: Vec<u8> = one.iter().flat_map(|p| p.bytes.to_vec()).collect();
        all.extend(one_rest.unwrap_or_default());
        prop_assert_eq!(all, stream);
    }

    #[test]
    fn a_small_bound_loses_nothing(stream in stream(), sizes in proptest::collection::vec(1_usize..9, 1..6), max in 0_usize..20) {
        let (pieces, rest) = split(&stream, &sizes, max);
        prop_assert!(pieces.iter().all(|p| p.oversize || p.bytes.len() <= max));
        let mut all: Vec<u8> = pieces.iter().flat_map(|p| p.bytes.to_vec()).collect();
        all.extend(rest.unwrap_or_default());
        prop_assert_eq!(all, stream);
    }

    #[test]
    fn rewritten_data_is_read_back(event in stream(), data in "[ -~\n\u{e4}]{0,40}") {
        let before = Event::parse(&event);
        let out = rewrite_data(&event, &data);
        let after = Event::parse(&out);
        if before.has_data {
            prop_assert_eq!(&*after.data, &*data);
        } else {
            prop_assert_eq!(&out, &event);
        }
        prop_assert_eq!((after.id, after.name, after.retry), (before.id, before.name, before.retry));
    }
}
