//! The settings against the schema of the API: one set of bounds and defaults.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use proptest::{prop_assert_eq, proptest};
use serde_json::{Value, json};

use super::*;
use crate::api::crd;

fn schema() -> Value {
    let crd = serde_json::to_value(crd::mcpfleet_crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["gateway"]
        .clone()
}

/// A specification with one field set, `path` being separated by dots.
fn with(path: &str, value: &Value) -> Result<Settings, InvalidSettings> {
    let spec = path.rsplit('.').fold(value.clone(), |inner, key| json!({ key: inner }));
    Settings::try_from(&serde_json::from_value::<GatewaySpec>(spec).unwrap())
}

fn numbers(schema: &Value, path: &str, found: &mut Vec<(String, i64, i64)>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{name}");
        if field["type"] == "integer" {
            let bound =
                |key: &str| field[key].as_f64().unwrap_or_else(|| panic!("{path} has no {key}")) as i64;
            let (min, max) = (bound("minimum"), bound("maximum"));
            found.push((path, min, max));
        } else {
            numbers(field, &format!("{path}."), found);
        }
    }
}

#[test]
fn numbers_have_the_bounds_of_the_api() {
    let mut found = Vec::new();
    numbers(&schema(), "", &mut found);
    assert!(found.len() > 20, "the walk finds {} numbers only", found.len());
    for (path, min, max) in found {
        for bad in [min - 1, max + 1] {
            let error = with(&path, &json!(bad)).expect_err(&path);
            assert!(error.0.iter().any(|p| p.field == path), "{path}: {error}");
            assert!(error.to_string().contains(&format!("from {min} to {max}")), "{path}: {error}");
        }
        for good in [min, max] {
            if let Err(error) = with(&path, &json!(good)) {
                // The two that are tied to each other.
                assert!(
                    path.starts_with("healthCheck.") && error.to_string().contains("must not be greater")
                );
            }
        }
    }
}

#[test]
fn defaults_are_those_of_the_api() {
    let of_schema: GatewaySpec = serde_json::from_value(schema()["default"].clone()).unwrap();
    let empty: GatewaySpec = serde_json::from_value(json!({})).unwrap();
    assert_eq!(of_schema, GatewaySpec::default());
    assert_eq!(empty, GatewaySpec::default());
    let d = Settings::default();
    assert!(d.enabled && d.session_recovery && d.listen_fan_out && !d.retries.idempotent_tools);
    assert_eq!(
        (d.class.as_str(), d.strategy, d.max_requests_per_pod),
        ("default", Strategy::LeastRequest, 0)
    );
    assert_eq!((d.queue.capacity, d.queue.timeout), (1000, Duration::from_secs(30)));
    assert_eq!(
        (d.health_check.interval, d.health_check.timeout),
        (Duration::from_secs(30), Duration::from_secs(5))
    );
    assert_eq!((d.health_check.unhealthy_threshold, d.health_check.healthy_threshold), (3, 2));
    assert_eq!((d.breaker.failure_threshold, d.breaker.half_open_max_requests), (5, 3));
    assert_eq!((d.breaker.recovery, d.breaker.window), (Duration::from_secs(30), Duration::from_secs(10)));
    assert!((d.breaker.failure_ratio - 0.5).abs() < 1e-9);
    assert_eq!((d.limits.max_body_bytes, d.limits.max_header_bytes), (4_194_304, 16_384));
    assert_eq!((d.timeouts.connect, d.timeouts.stream_max), (Duration::from_secs(1), None));
    assert_eq!(d.timeouts.activation, Duration::from_secs(55));
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let spec = json!({
        "class": "No", "hostnames": ["a.example", "a.example", "*.b"], "origins": ["https://a/"],
        "queue": {"capacity": -1}, "healthCheck": {"type": "HTTP"}, "circuitBreaker": {"failureRatio": 0},
    });
    let error = Settings::try_from(&serde_json::from_value::<GatewaySpec>(spec).unwrap()).unwrap_err();
    let fields: Vec<&str> = error.0.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "class",
            "hostnames[1]",
            "hostnames[2]",
            "origins[0]",
            "healthCheck.path",
            "circuitBreaker.failureRatio",
            "queue.capacity"
        ]
    );
}

#[test]
fn forms_of_names() {
    for good in ["localhost", "mcp.example.com", "a-1.b", "xn--p1ai", &format!("{}.a", "b".repeat(63))] {
        assert!(is_hostname(good), "{good}");
    }
    let long = ["a".repeat(64), vec!["abc"; 64].join(".")];
    for bad in [
        "", ".", "a.", ".a", "A", "-a", "a-", "10.0.0.1", "[::1]", "a:80", "*.a", "a/b", "a b", &long[0],
        &long[1],
    ] {
        assert!(!is_hostname(bad), "{bad}");
    }
    for good in [
        "http://a",
        "https://a.b:8443",
        "http://[::1]",
        "http://[fd00::1]:3000",
        "vscode-webview://0a1",
        "http://10.0.0.1:443",
    ] {
        assert!(is_origin(good), "{good}");
    }
    for bad in [
        "",
        "null",
        "*",
        "a",
        "https://",
        "https://a/",
        "https://a:443",
        "http://a:80",
        "http://a:",
        "http://a:99999",
        "HTTP://a",
        "http://A",
        "http://*.a",
        "http://[::g]",
        "http://a@b",
        "http://a?b",
    ] {
        assert!(!is_origin(bad), "{bad}");
    }
}

/// What the schema's pattern takes is what we take, so no object of a cluster is refused here.
#[test]
fn patterns_agree_with_the_rules_of_the_api() {
    let fleet = |gateway: Value| -> crate::api::v1alpha1::McpFleet {
        serde_json::from_value(
            json!({"metadata": {"name": "a"}, "apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet",
            "spec": {"server": {"image": "a"}, "gateway": gateway}}),
        )
        .unwrap()
    };
    for (key, value) in [
        ("hostnames", "mcp.example.com"),
        ("hostnames", "a.-b"),
        ("hostnames", "10.0.0.1"),
        ("hostnames", "a_b"),
        ("hostnames", "a..b"),
        ("hostnames", "a1"),
        ("origins", "http://a"),
        ("origins", "https://a:443"),
        ("origins", "http://a:8080"),
        ("origins", "null"),
        ("origins", "https://[::1]:8443"),
        ("origins", "https://a/b"),
        ("origins", "https://-a"),
        ("origins", "x-y+z.1://a"),
    ] {
        let gateway = json!({ key: [value] });
        assert_eq!(
            fleet(gateway.clone()).validate_cel().is_ok(),
            with(key, &json!([value])).is_ok(),
            "{gateway}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_judged_without_harm(text in "\\PC{0,40}", other in "[a-z0-9:/.\\[\\]-]{0,20}") {
        for text in [text, other] {
            prop_assert_eq!(with("hostnames", &json!([text])).is_ok(), is_hostname(&text));
            prop_assert_eq!(with("origins", &json!([text])).is_ok(), is_origin(&text));
        }
    }
}
