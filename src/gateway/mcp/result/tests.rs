#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use super::*;

#[test]
fn a_new_task_is_found() {
    let message = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"t\u002d1","status":"working","ttlMs":60000,"pollIntervalMs":1500.0}}"#;
    let task = inspect(message.as_bytes()).task.unwrap();
    assert_eq!((&*task.id.value, &message[task.id.range.clone()]), ("t-1", r#""t\u002d1""#));
    assert!(task.is_new && !task.is_terminal);
    assert_eq!((task.ttl_ms, task.poll_interval_ms), (Some(60_000), Some(1_500)));
}

#[test]
fn a_task_that_was_asked_for_is_not_new() {
    let message = br#"{"id":1,"result":{"resultType":"complete","taskId":"t","status":"failed","ttlMs":null,"error":{"code":-32603,"message":"m"}}}"#;
    let facts = inspect(message);
    let task = facts.task.unwrap();
    assert!(!task.is_new && task.is_terminal);
    assert_eq!((task.ttl_ms, task.poll_interval_ms), (None, None));
    assert_eq!(facts.error_code, None, "the error of a task is not that of the call");
}

#[test]
fn errors_and_states_are_found() {
    let facts = inspect(br#"{"id":1,"result":{"content":[{"text":"x"}],"isError":true}}"#);
    assert!(facts.is_tool_error);
    assert!(!inspect(br#"{"id":1,"result":{"isError":false}}"#).is_tool_error);
    assert_eq!(inspect(br#"{"id":1,"error":{"code":-32602,"message":"m"}}"#).error_code, Some(-32602));
    let message = r#"{"id":1,"result":{"resultType":"input_required","inputRequests":{"requestState":"not this"},"requestState":"s1"}}"#;
    let state = inspect(message.as_bytes()).request_state.unwrap();
    assert_eq!((&*state.value, state.range), ("s1", message.len() - 6..message.len() - 2));
    let message = br#"{"method":"notifications/tasks","params":{"taskId":"t","status":"completed"}}"#;
    let facts = inspect(message);
    assert!(facts.task.is_none());
    assert_eq!(facts.notified.unwrap().id.value, "t");
}

/// Nearly every answer of a tool says that it is no error: that alone must not cost a parse.
#[test]
fn only_what_may_be_a_fact_is_parsed() {
    let parsed = [
        r#"{"result":{"isError":true}}"#,
        r#"{"result":{"isError" : true}}"#,
        r#"{"result":{"content":[{"isError":false}],"isError":true}}"#,
        // Over the border of a line of an event.
        "data: {\"result\":{\"isError\":\ndata: true}}",
        r#"{"result":{"isError""#,
        r#"{"error":null}"#,
        r#"{"result":{"requestState":"x"}}"#,
        r#"{"result":{"taskId":"x"}}"#,
    ];
    let skipped = [
        r#"{"result":{"content":[],"isError":false}}"#,
        r#"{"result":{"isError" :  false,"content":[]}}"#,
        r#"{"result":{"content":[{"text":"no \"isError\":true here"}]}}"#,
    ];
    for message in parsed {
        assert!(may_matter(message.as_bytes()), "{message}");
    }
    for message in skipped {
        assert!(!may_matter(message.as_bytes()), "{message}");
    }
}

#[test]
fn what_is_content_is_not_taken_for_an_identifier() {
    for message in [
        r#"{"id":1,"result":{"content":[{"type":"text","text":"{\"taskId\":\"x\"}"}]}}"#,
        r#"{"id":1,"result":{"structuredContent":{"taskId":"x","requestState":"y","isError":true,"error":{"code":1}}}}"#,
        r#"{"method":"notifications/other","params":{"taskId":"x"}}"#,
        r#"[{"id":1,"result":{"taskId":"x"}}]"#,
        r#"{"id":1,"result":["taskId"]}"#,
        r#"{"id":1,"result":{"taskId":5}}"#,
        r#"{"id":1,"result":{"taskId":"x""#,
        r#"{"id":1,"error":"no object"}"#,
    ] {
        assert_eq!(inspect(message.as_bytes()), ResultFacts::default(), "{message}");
    }
    assert_eq!(inspect(b"\"taskId\"\xff"), ResultFacts::default());
}

#[test]
fn answers_name_the_request() {
    let id = |message: &str| answered(message.as_bytes()).map(|id| id.get().to_owned());
    assert_eq!(id(r#"{"id":"a","result":{}}"#).unwrap(), r#""a""#);
    assert_eq!(id(r#"{"id":null,"error":{}}"#).unwrap(), "null");
    assert_eq!(id(r#"{"id":1,"method":"ping"}"#), None);
    assert_eq!(id(r#"{"method":"x"}"#), None);
    assert_eq!(id(r#"[5,"x",{},{}]"#), None);
    assert!(is_request(br#"{"id":1,"method":"ping"}"#) && !is_request(br#"{"method":"x"}"#));
    assert_eq!(method_of(br#"{"method":"notifications\/x"}"#).unwrap(), "notifications/x");
}

#[test]
fn handshakes_are_read() {
    assert_eq!(
        negotiated(br#"{"id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}"#).unwrap(),
        "2025-11-25"
    );
    assert_eq!(negotiated(br#"{"id":0,"error":{"code":1}}"#), None);
    let message = br#"{"id":0,"result":{"supportedVersions":["2026-07-28"],"capabilities":{},"serverInfo":{"name":"n","version":"1"}}}"#;
    let found = discovered(message).unwrap();
    assert_eq!(found.supported, ["2026-07-28"]);
    assert_eq!(found.server, Some(("n".into(), "1".into())));
    assert!(found.result.starts_with("{\"supported") && found.result.ends_with("}}"));
    let message = br#"{"id":0,"result":{"supportedVersions":[],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"n"}}}}"#;
    assert_eq!(discovered(message).unwrap().server, Some(("n".into(), String::new())));
    assert_eq!(discovered(br#"{"id":0,"result":{}}"#), None);
}

#[test]
fn acknowledgements_are_merged() {
    let ack = |notifications: &str| {
        let message = format!(
            r#"{{"method":"notifications\/subscriptions\/acknowledged","params":{{"notifications":{notifications}}}}}"#
        );
        acknowledged(message.as_bytes()).unwrap()
    };
    let one = ack(
        r#"{"toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a","b"],"taskIds":["1"]}"#,
    );
    let two = ack(
        r#"{"toolsListChanged":true,"promptsListChanged":null,"resourceSubscriptions":["b"],"taskIds":["2","1"]}"#,
    );
    let merged = one.merge(two);
    assert!(merged.tools && !merged.prompts && !merged.resources);
    assert_eq!(
        (merged.subscriptions, merged.task_ids),
        (vec!["b".to_owned()], vec!["1".to_owned(), "2".to_owned()])
    );
    assert_eq!(ack("{}"), Honoured::default());
    assert_eq!(acknowledged(br#"{"method":"notifications/progress","params":{"x":"acknowledged"}}"#), None);
}
