#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use serde_json::{Value, json};

use super::*;
use crate::gateway::mcp::{result, sse::Event};

fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap()
}

fn all() -> Vec<Fault<'static>> {
    vec![
        Fault::Overloaded,
        Fault::RateLimited,
        Fault::NoPod,
        Fault::Draining,
        Fault::UnknownRoute,
        Fault::UnsupportedVersion { supported: &[], requested: "2027-01-01" },
        Fault::SessionGone,
        Fault::SessionMissing,
        Fault::SessionMoved,
        Fault::TaskGone,
        Fault::TasksNotDeclared,
        Fault::OwnerUnreachable,
        Fault::UnknownKey,
        Fault::Header(Mismatch::NameMissing),
        Fault::BadHeaders("\"quoted\""),
        Fault::Body(BadEnvelope::NotJson),
        Fault::BodyTooLarge,
        Fault::Forbidden,
        Fault::UpstreamLost,
        Fault::UpstreamTimeout,
        Fault::UpstreamInvalid,
    ]
}

#[test]
fn every_answer_is_json_rpc_and_says_who_made_it() {
    let mut seen = std::collections::HashSet::new();
    for fault in all() {
        let body: Value = serde_json::from_slice(&error(Id::Echo(raw("\"x\"")), &fault)).unwrap();
        assert_eq!(body["jsonrpc"], "2.0");
        assert_eq!(body["error"]["code"], fault.code());
        assert_eq!(body["error"]["data"]["source"], "gateway");
        assert_eq!(body["error"]["data"]["reason"], fault.reason());
        assert!(body["error"]["message"].as_str().unwrap().len() > 5);
        let id = if fault == Fault::SessionGone { Value::Null } else { json!("x") };
        assert_eq!(body["id"], id, "{fault:?}");
        assert!(seen.insert(fault.reason()));
        let code = fault.code();
        let known = [-32700, -32600, -32602, -32020, -32021, -32022].contains(&code);
        assert!(known || (-31999..=-31000).contains(&code), "{code}");
    }
}

#[test]
fn modern_clients_see_400_and_404_only_with_a_modern_error() {
    for fault in all() {
        let (status, code) = (fault.status(true), fault.code());
        if matches!(status, 400 | 404 | 405) {
            let modern = [-32020, -32021, -32022, -32700, -32600].contains(&code);
            assert!(modern || fault == Fault::SessionGone, "{fault:?}");
        } else {
            assert!([200, 403, 413, 429, 503].contains(&status), "{fault:?}");
        }
    }
    assert_eq!((Fault::UnknownRoute.status(true), Fault::UnknownRoute.status(false)), (503, 404));
    assert_eq!(Fault::TaskGone.status(true), 200);
}

#[test]
fn ids_are_echoed_as_written_null_or_left_out() {
    let text = |id: Id<'_>| String::from_utf8(error(id, &Fault::NoPod).to_vec()).unwrap();
    assert!(text(Some(raw("1.0e1")).into()).starts_with(r#"{"jsonrpc":"2.0","id":1.0e1,"error""#));
    assert!(text(None.into()).starts_with(r#"{"jsonrpc":"2.0","id":null,"error""#));
    assert!(text(Id::Absent).starts_with(r#"{"jsonrpc":"2.0","error""#));
}

#[test]
fn versions_and_capabilities_are_named() {
    let supported = ["2025-11-25".to_owned()];
    let fault = Fault::UnsupportedVersion { supported: &supported, requested: "2026-07-28" };
    let body: Value = serde_json::from_slice(&error(Id::Null, &fault)).unwrap();
    assert_eq!(body["error"]["data"]["supported"], json!(["2025-11-25"]));
    assert_eq!(body["error"]["data"]["requested"], "2026-07-28");
    let body: Value = serde_json::from_slice(&error(Id::Null, &Fault::TasksNotDeclared)).unwrap();
    let needed = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    assert_eq!(body["error"]["data"]["requiredCapabilities"], needed);
}

#[test]
fn events_hold_one_message() {
    let id: Box<RawValue> = serde_json::from_str("[1,\r\n 2]").unwrap();
    let event = error_event(Id::Echo(&id), &Fault::UpstreamLost);
    let parsed = Event::parse(&event);
    assert_eq!(parsed.name, "message");
    let body: Value = serde_json::from_str(&parsed.data).unwrap();
    assert_eq!(body["id"], json!([1, 2]));
    assert!(event.ends_with(b"\n\n"));
}

#[test]
fn listens_end_and_begin_as_specified() {
    let end: Value = serde_json::from_slice(&listen_end(raw("\"l\""))).unwrap();
    let meta = json!({"io.modelcontextprotocol/subscriptionId": "l"});
    assert_eq!(end, json!({"jsonrpc":"2.0","id":"l","result":{"resultType":"complete","_meta":meta}}));
    let honoured = Honoured { tools: true, task_ids: vec!["t\"".into()], ..Honoured::default() };
    let ack = acknowledged(raw("5"), &honoured);
    assert_eq!(result::acknowledged(&ack), Some(honoured));
    let ack: Value = serde_json::from_slice(&ack).unwrap();
    assert_eq!(ack["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 5);
    assert_eq!(ack["params"]["notifications"], json!({"toolsListChanged": true, "taskIds": ["t\""]}));
}

#[test]
fn a_learnt_result_is_given_as_it_is() {
    let body = super::result(Some(raw("3")), r#"{"a": 1}"#);
    assert_eq!(body, &br#"{"jsonrpc":"2.0","id":3,"result":{"a": 1}}"#[..]);
}
