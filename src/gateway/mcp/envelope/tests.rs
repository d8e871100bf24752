#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use proptest::prelude::*;

use super::*;

const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"get_weather","arguments":
 {"name":"not this","taskId":"nor this","deep":[[{"method":"x"}]]},"_meta":{"io.modelcontextprotocol/protocolVersion":
 "2026-07-28","io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}}}"#;

#[test]
fn a_call_is_read() {
    let envelope = peek(CALL.as_bytes()).unwrap();
    assert_eq!(envelope.kind, Kind::Request);
    assert_eq!(envelope.id.unwrap().get(), "7");
    assert_eq!(envelope.method(), "tools/call");
    assert_eq!(envelope.name.as_deref(), Some("get_weather"));
    assert_eq!(envelope.meta_version.as_deref(), Some("2026-07-28"));
    assert!(envelope.task_id.is_none() && envelope.uri.is_none() && !envelope.has_task);
    assert!(envelope.params.is_none(), "kept for initialize alone");
    assert!(envelope.declares_tasks());
    assert!(matches!(envelope.method, Some(Cow::Borrowed(_))), "nothing is copied");
}

#[test]
fn identifiers_are_found_where_they_stand() {
    let body = r#" {"id":"a\u0062", "method":"x", "params":{"taskId":"t\/1","requestState" : "s","task":null,
      "notifications":{"toolsListChanged":true,"taskIds":["one", 2, "tw\u006f"]}}}"#;
    let envelope = peek(body.as_bytes()).unwrap();
    let at = |text: &Text<'_>| &body[text.range.clone()];
    let task = envelope.task_id.unwrap();
    assert_eq!((&*task.value, at(&task)), ("t/1", r#""t\/1""#));
    let state = envelope.request_state.unwrap();
    assert_eq!((&*state.value, at(&state)), ("s", r#""s""#));
    let ids: Vec<_> = envelope.task_ids.iter().map(|id| (&*id.value, at(id))).collect();
    assert_eq!(ids, [("one", r#""one""#), ("two", r#""tw\u006f""#)]);
    assert!(envelope.has_task);
    assert_eq!(envelope.id.unwrap().get(), r#""a\u0062""#, "as it was written");
}

#[test]
fn kinds_are_told_apart() {
    let kind = |body: &str| peek(body.as_bytes()).map(|e| e.kind);
    assert_eq!(kind(r#"{"method":"m"}"#), Ok(Kind::Notification));
    assert_eq!(kind(r#"{"method":"m","id":null}"#), Ok(Kind::Request), "somebody may wait for it");
    assert_eq!(kind(r#"{"id":1,"result":null}"#), Ok(Kind::Response));
    assert_eq!(kind(r#"{"id":1,"error":{}}"#), Ok(Kind::Response));
    assert_eq!(kind(r#"[{"method":"m"},{"id":1,"method":"m"}]"#), Ok(Kind::Batch { has_requests: true }));
    assert_eq!(
        kind(r#" [{"method":"m"},{"id":1,"result":{}},3,[{"id":1,"method":"m"}]]"#),
        Ok(Kind::Batch { has_requests: false })
    );
    assert_eq!(kind("[]"), Ok(Kind::Batch { has_requests: false }));
    for none in ["{}", r#"{"id":1}"#, r#"{"id":1,"method":"m","result":{}}"#, "1", "\"x\"", "null"] {
        assert_eq!(kind(none), Err(BadEnvelope::NotAMessage), "{none}");
    }
}

#[test]
fn odd_params_are_left_to_the_server() {
    for params in [
        "[\"name\"]",
        "null",
        "5",
        "-5",
        "1.5",
        "true",
        "\"x\"",
        r#"{"name":5,"taskId":[],"_meta":[1],"notifications":{"taskIds":{}}}"#,
    ] {
        let body = format!(r#"{{"id":1,"method":"tools/call","params":{params},"unknown":[1]}}"#);
        let envelope = peek(body.as_bytes()).unwrap();
        assert_eq!((envelope.name, envelope.task_id, envelope.meta_version), (None, None, None), "{params}");
    }
}

#[test]
fn what_two_parsers_would_read_differently_is_refused() {
    for body in [
        r#"{"id":1,"method":"a","method":"b"}"#,
        r#"{"id":1,"method":"a","m\u0065thod":"b"}"#,
        r#"{"id":1,"id":2,"method":"a"}"#,
        r#"{"id":1,"method":"a","params":{"name":"x","name":"y"}}"#,
        r#"{"id":1,"method":"a","params":{},"params":{"name":"y"}}"#,
        r#"{"id":1,"method":"a","params":{"taskId":null,"taskId":"y"}}"#,
        r#"{"id":1,"method":5}"#,
        r#"[{"id":1,"method":"a","id":2}]"#,
    ] {
        assert_eq!(peek(body.as_bytes()).unwrap_err(), BadEnvelope::Ambiguous, "{body}");
    }
    for body in ["", " ", "{", r#"{"id":1,"method":"a"} x"#, "[1", "nonsense", "{\"method\":\"\u{1}\"}"] {
        assert_eq!(peek(body.as_bytes()).unwrap_err(), BadEnvelope::NotJson, "{body}");
    }
    assert_eq!(peek(b"{\"method\":\"\xff\"}").unwrap_err(), BadEnvelope::NotJson);
    assert_eq!((BadEnvelope::NotJson.code(), BadEnvelope::Ambiguous.code()), (-32700, -32600));
}

#[test]
fn depth_costs_nothing() {
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    let body = format!(r#"{{"id":1,"method":"tools/call","params":{{"arguments":{deep},"name":"n"}}}}"#);
    assert_eq!(peek(body.as_bytes()).unwrap().name.as_deref(), Some("n"));
    assert!(peek(deep.as_bytes()).is_ok());
}

#[test]
fn params_of_initialize_are_kept_as_written() {
    let body = r#"{"id":0,"method":"initialize","params":{ "protocolVersion":"2025-11-25" , "x":[1]}}"#;
    let envelope = peek(body.as_bytes()).unwrap();
    assert_eq!(envelope.params.unwrap().get(), r#"{ "protocolVersion":"2025-11-25" , "x":[1]}"#);
}

/// Texts that have most of the grammar in them, and nearly that of a call.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    " ",
    "\n",
    "\u{c}",
    "\"",
    "\\",
    "\\u00e9",
    "\\x",
    "\u{1}",
    "é",
    "null",
    "true",
    "fals",
    "0",
    "01",
    "-",
    "-1.5e+3",
    "1.",
    "\"id\":1",
    "\"id\":null",
    "\"id\":\"a\\n\"",
    "\"method\":\"tools/call\"",
    "\"method\":5",
    "\"method\":\"initialize\"",
    "\"m\\u0065thod\":\"x\"",
    "\"params\":{",
    "\"params\":[1]",
    "\"name\":\"n\"",
    "\"name\":7",
    "\"uri\":\"file:///a\"",
    "\"_meta\":{",
    "\"_meta\":null",
    "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"",
    "\"io.modelcontextprotocol/clientCapabilities\":{\"a\":[]}",
    "\"io.modelcontextprotocol/clientCapabilities\":null",
    "\"taskId\":\"t\"",
    "\"task\":{}",
    "\"result\":{}",
    "\"arguments\":{\"a\":[1,{\"b\":\"\\\"\"}],\"c\":{}}",
    "\"error\":1",
];

/// Whether both ways read the same, where the short one reads at all; whether it does.
fn is_read_shortly(text: &str) -> bool {
    let Some(short) = plain::call(text) else { return false };
    assert_eq!(Ok(format!("{short:?}")), one(text).map(|long| format!("{long:?}")), "{text}");
    true
}

#[test]
fn common_calls_take_the_short_way() {
    for text in [
        CALL,
        r#"{"method":"notifications/cancelled","params":{"requestId":1},"jsonrpc":"2.0"}"#,
        r#"{"method":"tools/list","id":"a\"b"}"#,
        " {\"method\" : \"resources/read\", \"id\":-1.5e3,\"params\" :{ \"uri\":\"é\",\"x\":[ ] , \"y\":[{},[null]]} } \n",
    ] {
        assert!(is_read_shortly(text), "{text}");
    }
    let nested = |n: usize| format!(r#"{{"method":"m","x":{}1{}}}"#, "[".repeat(n), "]".repeat(n));
    assert!(is_read_shortly(&nested(64)) && !is_read_shortly(&nested(65)));
}

#[test]
fn what_is_odd_takes_the_long_way() {
    for text in [
        "",
        "{}",
        r#"{"id":1}"#,
        r#"{"method":"m","method":"m"}"#,
        r#"{"method":"m","params":{},"params":{}}"#,
        r#"{"method":"m","params":{"_meta":{},"_meta":{}}}"#,
        r#"{"method":"m","params":{"name":"a","name":"a"}}"#,
        r#"{"method":"\u006d"}"#,
        r#"{"\u006dethod":"m","method":"m"}"#,
        r#"{"method":"initialize","params":{}}"#,
        r#"{"method":"m","result":1}"#,
        r#"{"method":"m","params":{"taskId":"t"}}"#,
        r#"{"method":"m","params":{"requestState":"t"}}"#,
        r#"{"method":"m","params":{"task":{}}}"#,
        r#"{"method":"m","params":{"notifications":{}}}"#,
        r#"{"method":"m"} x"#,
        r#"{"method":"m",}"#,
        r#"{"method":"m","x":01}"#,
        r#"{"method":"m","x":[1}}"#,
        r#"{"method":"m","x":{"a":1]}"#,
        r#"{"method":"m","x":{"a"}}"#,
        r#"{"method":"m","x":{1:1}}"#,
        r#"{"method":"m","x":[1,]}"#,
        r#"{"method":"m","x":"\u12g4"}"#,
        r#"{"method":"m","x":truf}"#,
        "{\"method\":\"m\u{1f}\"}",
        "{\"method\":\"m\",\"x\":\"\u{1f}\"}",
        "\u{c}{\"method\":\"m\"}",
    ] {
        assert!(!is_read_shortly(text), "{text}");
    }
}

proptest! {
    #[test]
    fn both_ways_read_the_same(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..12),
        commas in any::<bool>(),
    ) {
        let inner = pieces.join(if commas { "," } else { "" });
        for text in [inner.clone(), format!("{{\"method\":\"m\",{inner}}}"), format!("{{\"method\":\"m\",\"params\":{{{inner}}}}}")] {
            is_read_shortly(&text);
        }
    }

    #[test]
    fn a_changed_byte_makes_no_difference_between_both_ways(at in 0..CALL.len(), byte in 0_u8..128, cut in any::<bool>()) {
        let mut bytes = CALL.as_bytes().to_vec();
        bytes[at] = byte;
        if cut {
            bytes.remove((at * 7) % bytes.len());
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            is_read_shortly(text);
        }
    }

    #[test]
    fn any_bytes_are_answered_and_ranges_hold(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = peek(&body);
    }

    #[test]
    fn strings_of_any_kind_are_found(task in any::<String>(), name in any::<String>()) {
        let body = serde_json::json!({"id": 1, "method": "tasks/get", "params": {"taskId": task, "name": name}}).to_string();
        let envelope = peek(body.as_bytes()).unwrap();
        let found = envelope.task_id.unwrap();
        prop_assert_eq!(&*found.value, &task);
        let written: String = serde_json::from_str(&body[found.range]).unwrap();
        prop_assert_eq!(written, task);
        prop_assert_eq!(envelope.name.unwrap(), name);
    }
}
