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

proptest! {
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
