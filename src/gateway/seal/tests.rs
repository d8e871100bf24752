#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

fn key(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

fn ring_of(entries: &[(&str, u8, &str)]) -> KeyRing {
    let list: Vec<_> = entries
        .iter()
        .map(|(id, byte, since)| serde_json::json!({"id": id, "key": key(*byte), "notBefore": since}))
        .collect();
    KeyRing::parse(&serde_json::to_vec(&list).unwrap()).unwrap()
}

fn one() -> KeyRing {
    ring_of(&[("k1", 1, "2026-01-01T00:00:00Z")])
}

const NOW: u64 = 1_790_000_000;
const POD: PodId = PodId(7);

#[test]
fn a_pod_is_its_uid_and_an_address_its_hash() {
    let uid = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
    assert_eq!(PodId::from_uid(uid), PodId(0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0));
    assert_eq!(PodId::from_uid(&uid.to_uppercase()), PodId::from_uid(uid));
    for other in
        ["", "not a uuid", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f", "0f1e2d3c44b5a-6978-8796-a5b4c3d2e1f0"]
    {
        assert_eq!(PodId::from_uid(other), PodId::from_address(other), "{other}");
    }
    // First 16 bytes of SHA-256 of the text, as other gateways compute it.
    assert_eq!(PodId::from_address("abc"), PodId(0xba78_16bf_8f01_cfea_4141_40de_5dae_2223));
}

#[test]
fn a_token_says_what_was_put_in_and_is_safe_in_headers_and_queries() {
    let ring = one();
    let sealed =
        ring.seal(NOW, Purpose::Session, "uid", POD, b"upstream-1", Some(b"{\"protocolVersion\":1}"));
    assert!(!sealed.handshake_dropped);
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    assert!(sealed.text.bytes().all(safe), "{}", sealed.text);
    let opened = ring.open(Purpose::Session, "uid", &sealed.text).unwrap();
    assert_eq!(opened, Opened { pod: POD, upstream: b"upstream-1".to_vec(), token_id: sealed.token_id });
    let handshake = ring.open_handshake(Purpose::Session, "uid", &sealed.text).unwrap();
    assert_eq!(handshake.unwrap(), b"{\"protocolVersion\":1}");
    let again = ring.seal(NOW, Purpose::Session, "uid", POD, b"upstream-1", None);
    assert_ne!((again.text, again.token_id), (sealed.text, sealed.token_id), "no two tokens are alike");
}

#[test]
fn a_token_without_handshake_has_none() {
    let ring = one();
    let sealed = ring.seal(NOW, Purpose::Task, "uid", POD, b"t", None);
    assert_eq!(ring.open_handshake(Purpose::Task, "uid", &sealed.text), Ok(None));
    assert!(!sealed.handshake_dropped);
}

#[test]
fn a_token_opens_for_its_purpose_and_fleet_only() {
    let ring = one();
    let long = "n".repeat(80);
    for fleet in ["uid", &long] {
        let text = ring.seal(NOW, Purpose::Session, fleet, POD, b"u", Some(b"h")).text;
        assert!(ring.open(Purpose::Session, fleet, &text).is_ok());
        assert_eq!(ring.open(Purpose::Sse, fleet, &text), Err(OpenError::Forged));
        assert_eq!(ring.open(Purpose::Session, "other", &text), Err(OpenError::Forged));
        assert_eq!(ring.open_handshake(Purpose::Session, "other", &text), Err(OpenError::Forged));
    }
}

#[test]
fn a_handshake_is_bound_to_its_token() {
    let ring = one();
    let one = ring.seal(NOW, Purpose::Session, "uid", POD, b"u", Some(b"first")).text;
    let two = ring.seal(NOW, Purpose::Session, "uid", POD, b"u", Some(b"other")).text;
    let (head, _) = one.rsplit_once('.').unwrap();
    let (_, foreign) = two.rsplit_once('.').unwrap();
    let mixed = format!("{head}.{foreign}");
    assert!(ring.open(Purpose::Session, "uid", &mixed).is_ok(), "routable");
    assert_eq!(ring.open_handshake(Purpose::Session, "uid", &mixed), Err(OpenError::Forged));
    // Nor does one box stand in for the other.
    let swapped = format!("mf1.{foreign}");
    assert!(ring.open(Purpose::Session, "uid", &swapped).is_err());
}

#[test]
fn the_handshake_is_left_out_of_a_token_that_would_be_too_long() {
    let ring = one();
    let mut sizes = [false; 2];
    for length in 2000..2400 {
        let handshake = vec![b'x'; length];
        let sealed = ring.seal(NOW, Purpose::Session, "uid", POD, b"upstream", Some(&handshake));
        assert!(sealed.text.len() <= MAX_TOKEN, "{length}");
        sizes[usize::from(sealed.handshake_dropped)] = true;
        let opened = ring.open_handshake(Purpose::Session, "uid", &sealed.text).unwrap();
        assert_eq!(opened.is_none(), sealed.handshake_dropped);
    }
    assert_eq!(sizes, [true, true], "both sides of the limit were seen");
    let huge = ring.seal(NOW, Purpose::RequestState, "uid", POD, &vec![b's'; 50_000], None);
    assert_eq!(ring.open(Purpose::RequestState, "uid", &huge.text).unwrap().upstream.len(), 50_000);
}

#[test]
fn what_is_no_token_is_told_from_what_is_sealed_elsewhere() {
    let ring = one();
    let short = "mf1.AAAA";
    for text in ["", "mf1.", "abc", "mf2.abc", short, "mf1.!!!!", "6f1c2a0e-0000-4000-8000-000000000000"] {
        assert_eq!(ring.open(Purpose::Session, "uid", text), Err(OpenError::NotAToken), "{text}");
        assert_eq!(ring.open_handshake(Purpose::Session, "uid", text), Err(OpenError::NotAToken), "{text}");
    }
    let text = KeyRing::ephemeral().unwrap().seal(NOW, Purpose::Session, "uid", POD, b"u", Some(b"h")).text;
    assert_eq!(ring.open(Purpose::Session, "uid", &text), Err(OpenError::UnknownKey));
    let same_id = ring_of(&[("k1", 2, "2026-01-01T00:00:00Z")]);
    let text = same_id.seal(NOW, Purpose::Session, "uid", POD, b"u", None).text;
    assert_eq!(ring.open(Purpose::Session, "uid", &text), Err(OpenError::Forged));
}

#[test]
fn the_newest_key_whose_time_has_come_seals_and_any_opens() {
    let old = ring_of(&[("old", 1, "2026-01-01T00:00:00Z")]);
    let new = ring_of(&[("new", 2, "2026-09-22T00:00:00Z")]);
    let both = ring_of(&[("old", 1, "2026-01-01T00:00:00Z"), ("new", 2, "2026-09-22T00:00:00Z")]);
    let since = 1_790_035_200;
    let before = both.seal(since - 1, Purpose::Task, "uid", POD, b"u", None).text;
    assert!(old.open(Purpose::Task, "uid", &before).is_ok());
    assert_eq!(new.open(Purpose::Task, "uid", &before), Err(OpenError::UnknownKey));
    let after = both.seal(since, Purpose::Task, "uid", POD, b"u", None).text;
    assert!(new.open(Purpose::Task, "uid", &after).is_ok());
    assert_eq!(old.open(Purpose::Task, "uid", &after), Err(OpenError::UnknownKey));
    assert!(both.open(Purpose::Task, "uid", &before).is_ok());
    // A clock before all of them: the oldest, which the others have for longest.
    let early = both.seal(0, Purpose::Task, "uid", POD, b"u", None).text;
    assert!(old.open(Purpose::Task, "uid", &early).is_ok());
}

#[test]
fn a_bad_key_file_is_refused_without_showing_a_key() {
    let entry =
        |id: &str, key: &str, since: &str| format!(r#"{{"id":"{id}","key":"{key}","notBefore":"{since}"}}"#);
    let (good, since) = (key(1), "2026-01-01T00:00:00Z");
    let secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
    let cases = [
        ("[]".to_owned(), "holds no key"),
        ("{".to_owned(), "not a JSON list"),
        (format!(r#"[{{"id":"a","key":"{secret}"}}]"#), "not a JSON list"),
        (format!("[{}]", entry("a", secret, since)), "not 32 bytes"),
        (format!("[{}]", entry("a", &STANDARD.encode([1; 33]), since)), "not 32 bytes"),
        (format!("[{}]", entry("a", &STANDARD.encode([1; 200]), since)), "not 32 bytes"),
        (format!("[{}]", entry("a", &good, "soon")), "RFC 3339"),
        (format!("[{},{}]", entry("a", &good, since), entry("a", &good, since)), "twice"),
        (format!("[{}]", vec![entry("a", &good, since); 65].join(",")), "more than 64"),
    ];
    for (file, word) in cases {
        let error = KeyRing::parse(file.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(word), "{error} for {file}");
        assert!(!format!("{error:?} {error}").contains(secret));
    }
    let shown = format!("{:?}", one());
    assert_eq!(shown, "KeyRing(1 keys)");
}

#[test]
fn messages_open_for_what_they_are_about() {
    let ring = one();
    let sealed = ring.seal_message(b"question", b"where?");
    assert_eq!(ring.open_message(b"question", &sealed).unwrap(), b"where?");
    assert_eq!(ring.open_message(b"reply", &sealed), Err(OpenError::Forged));
    assert_eq!(ring.open_message(b"question", b"short"), Err(OpenError::NotAToken));
    let foreign = KeyRing::ephemeral().unwrap().seal_message(b"question", b"");
    assert_eq!(ring.open_message(b"question", &foreign), Err(OpenError::UnknownKey));
}

#[test]
fn a_handshake_keeps_what_the_server_needs() {
    let raw = r#"{"protocolVersion":"2024-11-05","capabilities":{"roots":{"listChanged":true}},
      "clientInfo":{"name":"c\"","version":"1","icons":[{"src":"data:…"}],"description":"d","websiteUrl":"w","title":"t"}}"#;
    let raw: &RawValue = serde_json::from_str(raw).unwrap();
    let out: serde_json::Value = serde_json::from_slice(&handshake::minimal(raw, "2025-11-25")).unwrap();
    let expected = serde_json::json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {"roots": {"listChanged": true}},
        "clientInfo": {"name": "c\"", "version": "1", "title": "t"},
    });
    assert_eq!(out, expected);
    let odd: &RawValue = serde_json::from_str("[1]").unwrap();
    assert_eq!(handshake::minimal(odd, "2025-11-25"), br#"{"protocolVersion":"2025-11-25"}"#);
    let odd: &RawValue = serde_json::from_str(r#"{"clientInfo":5}"#).unwrap();
    assert_eq!(handshake::minimal(odd, "v"), br#"{"protocolVersion":"v","clientInfo":5}"#);
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens(upstream in proptest::collection::vec(any::<u8>(), 0..300), pod: u128, fleet in ".{0,90}") {
        let ring = one();
        let sealed = ring.seal(NOW, Purpose::Session, &fleet, PodId(pod), &upstream, Some(&upstream));
        let opened = ring.open(Purpose::Session, &fleet, &sealed.text).unwrap();
        prop_assert_eq!((opened.pod, &opened.upstream), (PodId(pod), &upstream));
        let handshake = ring.open_handshake(Purpose::Session, &fleet, &sealed.text).unwrap();
        prop_assert_eq!(handshake, Some(upstream));
    }

    #[test]
    fn no_changed_byte_goes_unnoticed(at: prop::sample::Index, to in "[A-Za-z0-9_.-]") {
        let ring = one();
        let text = ring.seal(NOW, Purpose::Session, "uid", POD, b"upstream", Some(b"handshake")).text;
        let at = at.index(text.len());
        let mut bytes = text.clone().into_bytes();
        bytes[at] = to.as_bytes()[0];
        let changed = String::from_utf8(bytes).unwrap();
        prop_assume!(changed != text);
        prop_assert!(ring.open_handshake(Purpose::Session, "uid", &changed).map_or(true, |h| h.is_none()));
        let first = text.rfind('.').unwrap();
        if at < first {
            prop_assert!(ring.open(Purpose::Session, "uid", &changed).is_err());
        }
    }

    #[test]
    fn any_text_is_answered(text in ".{0,200}") {
        prop_assert!(one().open(Purpose::Session, "uid", &text).is_err());
        let marked = format!("mf1.{text}");
        prop_assert!(one().open(Purpose::Session, "uid", &marked).is_err());
    }
}
