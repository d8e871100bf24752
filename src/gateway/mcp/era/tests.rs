#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use proptest::prelude::*;

use super::*;
use crate::gateway::mcp::peek;

fn body(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

fn meta(version: &str) -> String {
    format!(r#"{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}"}}}}"#)
}

#[test]
fn the_era_is_that_of_section_1_1() {
    let call = body("tools/call", "{}");
    let modern = body("tools/call", &meta("2026-07-28"));
    let init = body("initialize", "{}");
    let table = [
        (Some("2026-07-28"), true, &modern, Era::Modern { version: "2026-07-28" }),
        (Some("2026-07-28"), false, &call, Era::Modern { version: "2026-07-28" }),
        (Some(" 2031-01-01 "), false, &call, Era::Modern { version: "2031-01-01" }),
        (Some("2026-07-28"), false, &init, Era::Modern { version: "2026-07-28" }),
        (Some("2027-01-01"), false, &modern, Era::ModernInvalid(Mismatch::VersionDiffers)),
        (None, false, &modern, Era::ModernInvalid(Mismatch::VersionMissing)),
        (None, true, &modern, Era::ModernInvalid(Mismatch::VersionMissing)),
        (Some("2025-11-25"), true, &modern, Era::LegacySession),
        (None, true, &call, Era::LegacySession),
        (Some("2025-06-18"), false, &call, Era::LegacyUnbound),
        (None, false, &init, Era::LegacyInitialize),
        (None, true, &init, Era::LegacyInitialize),
        (Some("nonsense"), false, &call, Era::LegacyUnbound),
        (Some(""), true, &call, Era::LegacySession),
    ];
    for (version, session, body, expected) in table {
        assert_eq!(
            classify(version, session, &peek(body.as_bytes()).unwrap()),
            expected,
            "{version:?} {session} {body}"
        );
    }
    let old = body("tools/call", &meta("2025-11-25"));
    assert_eq!(classify(None, true, &peek(old.as_bytes()).unwrap()), Era::LegacySession);
    let batch = format!("[{init}]");
    assert_eq!(classify(None, true, &peek(batch.as_bytes()).unwrap()), Era::LegacySession);
}

#[test]
fn only_dates_are_modern() {
    assert!(is_modern_version("2026-07-28") && is_modern_version("2030-01-01"));
    for no in
        ["2026-07-27", "2025-11-25", "zzzz-zz-zz", "2026-7-28", "2026-07-28x", "DRAFT-2027", "", "2027/01/01"]
    {
        assert!(!is_modern_version(no), "{no}");
    }
}

fn check(method: Option<&str>, name: Option<&str>, body: &str) -> Result<(), Mismatch> {
    check_headers(method, name, &peek(body.as_bytes()).unwrap())
}

#[test]
fn headers_agree_with_the_body() {
    // The cases of the conformance suite's scenario http-header-validation.
    let list = body("tools/list", "{}");
    let call = body("tools/call", r#"{"name":"greet"}"#);
    assert_eq!(check(Some("prompts/list"), None, &list), Err(Mismatch::MethodDiffers));
    assert_eq!(check(None, None, &list), Err(Mismatch::MethodMissing));
    assert_eq!(check(Some("TOOLS/LIST"), None, &list), Err(Mismatch::MethodDiffers));
    assert_eq!(check(Some("tools/list"), None, &list), Ok(()));
    assert_eq!(check(Some("tools/call"), Some("wrong"), &call), Err(Mismatch::NameDiffers));
    assert_eq!(check(Some("tools/call"), Some("  greet  "), &call), Ok(()));
    assert_eq!(check(Some("tools/call"), None, &call), Err(Mismatch::NameMissing));
    // Beyond them.
    assert_eq!(check(Some("tools/call"), Some("Greet"), &call), Err(Mismatch::NameDiffers));
    assert_eq!(check(Some("tools/call"), None, &body("tools/call", "{}")), Ok(()), "the server's to refuse");
    assert_eq!(check(Some("tools/call"), Some("x"), &body("tools/call", "{}")), Err(Mismatch::NameDiffers));
    assert_eq!(check(Some("tools/list"), Some("x"), &list), Ok(()), "has no name to differ from");
    let notification = r#"{"method":"notifications/cancelled","params":{}}"#;
    assert_eq!(check(None, None, notification), Ok(()));
    assert_eq!(check(Some("notifications/cancelled"), None, notification), Ok(()));
    assert_eq!(check(Some("other"), None, notification), Err(Mismatch::MethodDiffers));
}

#[test]
fn each_method_has_its_own_name() {
    for (method, params) in [
        ("prompts/get", r#"{"name":"n","uri":"u","taskId":"t"}"#),
        ("resources/read", r#"{"name":"u","uri":"n","taskId":"t"}"#),
        ("tasks/get", r#"{"name":"u","taskId":"n"}"#),
        ("tasks/update", r#"{"taskId":"n"}"#),
        ("tasks/cancel", r#"{"taskId":"n"}"#),
    ] {
        assert_eq!(check(Some(method), Some("n"), &body(method, params)), Ok(()), "{method}");
        assert_eq!(
            check(Some(method), Some("m"), &body(method, params)),
            Err(Mismatch::NameDiffers),
            "{method}"
        );
        assert_eq!(check(Some(method), None, &body(method, params)), Err(Mismatch::NameMissing), "{method}");
    }
}

#[test]
fn names_may_be_encoded() {
    let call = body("tools/call", r#"{"name":"grüße"}"#);
    let name = |value: &str| check(Some("tools/call"), Some(value), &call);
    assert_eq!(name("=?base64?Z3LDvMOfZQ==?="), Ok(()));
    assert_eq!(name("grüße"), Ok(()), "as go sends it");
    assert_eq!(name("=?base64?Z3LDvMOfZQ?="), Err(Mismatch::NameEncoding), "padding is required");
    assert_eq!(name("=?base64?Z3LD!!!!?="), Err(Mismatch::NameEncoding));
    assert_eq!(name("=?base64?/w==?="), Err(Mismatch::NameEncoding), "not UTF-8");
    assert_eq!(name("=?BASE64?Z3LDvMOfZQ==?="), Err(Mismatch::NameDiffers), "exact lower case");
    assert_eq!(name("=?base64?Z3LDvMOfZQ=="), Err(Mismatch::NameDiffers), "without its end it is literal");
    assert_eq!(decode_name("=?base64??=").unwrap(), "");
    assert_eq!(decode_name("=?base64?=").unwrap(), "=?base64?=", "begin and end may not overlap");
}

proptest! {
    #[test]
    fn an_encoded_name_is_safe_and_says_the_same(name in any::<String>()) {
        let encoded = encode_name(&name);
        prop_assert!(encoded.bytes().all(|b| (0x20..0x7f).contains(&b)));
        prop_assert_eq!(encoded.trim_ascii(), &*encoded);
        prop_assert_eq!(&*decode_name(&encoded).unwrap(), &*name);
    }
}
