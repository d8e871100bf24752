//! The board → what the API says of a fleet's metric, or why it says nothing. Pure.
//!
//! Unknown and stale are 503, and there is no such fleet or metric 404: both make an HPA hold. Never 0 and never an
//! old value instead.

use std::collections::BTreeMap;

use http::StatusCode;
use jiff::Timestamp;
use kube::core::{Selector, SelectorExt as _};
use serde_json::{Value as Json, json};

use super::{
    discovery::{GROUP, METRICS, RESOURCE, UTILIZATION, VERSION},
    reply::{self, Reply},
    url,
};
use crate::{
    autoscale::board::{Board, Published, Value},
    domain::FleetKey,
};

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Namespace.
    pub(super) namespace: String,
    /// Name of a fleet; `*`: all of the namespace.
    pub(super) name: String,
    /// Name of a metric.
    pub(super) metric: String,
}

impl Question {
    /// `/apis/custom.metrics.k8s.io/v1beta2/namespaces/NAMESPACE/mcpfleets.mcpfleet.io/NAME/METRIC`.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/apis/")?.strip_prefix(GROUP)?.strip_prefix('/')?;
        let rest = rest.strip_prefix(VERSION)?.strip_prefix("/namespaces/")?;
        let [namespace, resource, name, metric] = rest.split('/').collect::<Vec<_>>().try_into().ok()?;
        let decoded = |text| url::decode(text).filter(|text| !text.is_empty());
        let question =
            Self { namespace: decoded(namespace)?, name: decoded(name)?, metric: decoded(metric)? };
        (decoded(resource)? == RESOURCE).then_some(question)
    }
}

/// What else decides about the answer.
pub(super) struct Asked<'a> {
    /// The question; the caller may ask it.
    pub(super) question: &'a Question,
    /// Of the fleets' labels; only for `*`.
    pub(super) selector: &'a Selector,
    /// Some selector of metrics was given. Ours have no labels, so it matches none.
    pub(super) has_metric_selector: bool,
}

/// Answers. `labels` of a fleet, `now` in ms since the Unix epoch.
pub(super) fn answer(
    board: &Board,
    asked: &Asked<'_>,
    labels: impl Fn(&FleetKey) -> Option<BTreeMap<String, String>>,
    now: i64,
) -> Reply {
    let Question { namespace, name, metric } = asked.question;
    if !METRICS.contains(&metric.as_str()) || asked.has_metric_selector {
        return not_found(asked);
    }
    let found = if name == "*" {
        let all = board.of_namespace(namespace);
        let is_selected = |key: &FleetKey| asked.selector.matches(&labels(key).unwrap_or_default());
        all.into_iter().filter(|(key, _)| asked.selector.selects_all() || is_selected(key)).collect()
    } else {
        let key = FleetKey::new(namespace, name);
        board.get(&key).map(|published| vec![(key, published)]).unwrap_or_default()
    };
    if found.is_empty() {
        return not_found(asked);
    }
    let mut why = String::new();
    let mut items = Vec::with_capacity(found.len());
    for (key, published) in found {
        match fresh(published, now) {
            Ok(value) => items.push(item(&key, metric, &value)),
            Err(reason) => why = format!("{} has no value of {metric}: {reason}", key.name),
        }
    }
    if items.is_empty() {
        return reply::unavailable(&why);
    }
    let list = json!({
        "kind": "MetricValueList",
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": {},
        "items": items,
    });
    reply::json(StatusCode::OK, &list)
}

fn not_found(asked: &Asked<'_>) -> Reply {
    let Question { namespace, name, metric } = asked.question;
    let message = format!(
        "the server could not find the metric {metric} for {RESOURCE} {name} in namespace {namespace}; {}",
        if asked.has_metric_selector {
            "its metrics have no labels to select by"
        } else if METRICS.contains(&metric.as_str()) {
            "no such McpFleet is scaled by MCP signals"
        } else {
            "there are mcp_desired_replicas and mcp_utilization"
        }
    );
    reply::failure(StatusCode::NOT_FOUND, &message)
}

/// A value that may still be told, or why not.
fn fresh(published: Published, now: i64) -> Result<Value, String> {
    let value = match published {
        Published::Value(value) => value,
        Published::Unknown(why) => return Err(why),
    };
    let age = now.saturating_sub(value.sampled_at);
    let allowed = i64::from(value.max_age_seconds).saturating_mul(1000);
    if age > allowed {
        return Err(format!(
            "the newest sample is {} s old, and {} s are allowed",
            age / 1000,
            allowed / 1000
        ));
    }
    if value.desired < 0 || !value.utilization.is_finite() || value.utilization < 0.0 {
        return Err("the value is out of bounds".into());
    }
    Ok(value)
}

fn item(key: &FleetKey, metric: &str, value: &Value) -> Json {
    json!({
        "describedObject": {
            "kind": "McpFleet",
            "namespace": key.namespace,
            "name": key.name,
            "apiVersion": "mcpfleet.io/v1alpha1",
        },
        "metric": {"name": metric, "selector": null},
        "timestamp": timestamp(value.sampled_at),
        "windowSeconds": value.window_seconds,
        "value": if metric == UTILIZATION { milli(value.utilization) } else { value.desired.to_string() },
    })
}

/// RFC 3339 in whole seconds, as `metav1.Time` is.
fn timestamp(millis: i64) -> String {
    let seconds = Timestamp::from_second(millis.div_euclid(1000)).unwrap_or_default();
    seconds.to_string()
}

/// A quantity in thousandths, in canonical form: `1120m`, and `2` for 2000m.
fn milli(value: f64) -> String {
    // Far below what a quantity holds.
    let thousandths = (value * 1000.0).round().clamp(0.0, 1e15) as u64;
    if thousandths.is_multiple_of(1000) {
        (thousandths / 1000).to_string()
    } else {
        format!("{thousandths}m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscale::metrics_api::selector;
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;

    /// 2026-11-20T21:00:00Z
    const SAMPLED: i64 = 1_795_208_400_000;

    fn value(desired: i32) -> Published {
        Published::Value(Value {
            desired,
            utilization: 1.12,
            sampled_at: SAMPLED,
            window_seconds: 60,
            max_age_seconds: 30,
        })
    }

    fn board() -> Board {
        let board = Board::default();
        board.set(FleetKey::new("team-a", "github"), value(7));
        board.set(FleetKey::new("team-a", "mail"), value(2));
        board.set(FleetKey::new("team-a", "new"), Published::Unknown("no gateway has reported yet".into()));
        board.set(FleetKey::new("team-b", "new"), Published::Unknown("no gateway has reported yet".into()));
        board
    }

    fn ask(path: &str, selector: &str, has_metric_selector: bool, age: i64) -> (u16, Json) {
        let question = Question::of_path(path).unwrap_or_else(|| panic!("no question: {path}"));
        let selector = selector::parse(selector).unwrap();
        let asked = Asked { question: &question, selector: &selector, has_metric_selector };
        let labels = |key: &FleetKey| Some(BTreeMap::from([("app".to_owned(), key.name.clone())]));
        let reply = answer(&board(), &asked, labels, SAMPLED + age);
        let code = reply.status().as_u16();
        let body = reply.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap())
    }

    fn path(rest: &str) -> String {
        format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{rest}")
    }

    #[test]
    fn a_value_as_an_hpa_reads_it() {
        let (code, list) =
            ask(&path("team-a/mcpfleets.mcpfleet.io/github/mcp_desired_replicas"), "", false, 30_000);
        assert_eq!(code, 200);
        assert_eq!(
            list,
            json!({"kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {}, "items": [
                {"describedObject": {"kind": "McpFleet", "namespace": "team-a", "name": "github", "apiVersion": "mcpfleet.io/v1alpha1"},
                 "metric": {"name": "mcp_desired_replicas", "selector": null},
                 "timestamp": "2026-11-20T21:00:00Z", "windowSeconds": 60, "value": "7"}]})
        );
        let (_, list) = ask(&path("team-a/mcpfleets.mcpfleet.io/github/mcp_utilization"), "", false, 0);
        assert_eq!(list["items"][0]["value"], "1120m");
    }

    #[test]
    fn what_is_not_known_is_never_a_number() {
        let github = path("team-a/mcpfleets.mcpfleet.io/github/mcp_desired_replicas");
        for (path, selector, metric_selector, age, code, reason) in [
            (&github, "", false, 30_001, 503, "ServiceUnavailable"),
            (
                &path("team-a/mcpfleets.mcpfleet.io/new/mcp_utilization"),
                "",
                false,
                0,
                503,
                "ServiceUnavailable",
            ),
            (&path("team-a/mcpfleets.mcpfleet.io/absent/mcp_utilization"), "", false, 0, 404, "NotFound"),
            (&path("team-b/mcpfleets.mcpfleet.io/github/mcp_utilization"), "", false, 0, 404, "NotFound"),
            (&path("team-a/mcpfleets.mcpfleet.io/github/cpu"), "", false, 0, 404, "NotFound"),
            (&github, "", true, 0, 404, "NotFound"),
            (&path("team-a/mcpfleets.mcpfleet.io/*/mcp_utilization"), "app=x", false, 0, 404, "NotFound"),
            (
                &path("team-b/mcpfleets.mcpfleet.io/*/mcp_utilization"),
                "",
                false,
                0,
                503,
                "ServiceUnavailable",
            ),
        ] {
            let (seen, status) = ask(path, selector, metric_selector, age);
            assert_eq!((seen, status["reason"].as_str()), (code, Some(reason)), "{path}: {status}");
            assert_eq!(status["kind"], "Status");
        }
    }

    #[test]
    fn all_fleets_of_a_namespace_that_have_a_value() {
        let names = |list: &Json| {
            let items = list["items"].as_array().unwrap();
            items
                .iter()
                .map(|i| i["describedObject"]["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let all = path("team-a/mcpfleets.mcpfleet.io/%2A/mcp_desired_replicas");
        assert_eq!(names(&ask(&all, "", false, 0).1), ["github", "mail"]);
        assert_eq!(names(&ask(&all, "app in (mail,new)", false, 0).1), ["mail"]);
    }

    #[test]
    fn values_out_of_bounds_are_not_told() {
        for (desired, utilization) in [(-1, 1.0), (1, f64::NAN), (1, f64::INFINITY), (1, -0.5)] {
            let value =
                Value { desired, utilization, sampled_at: 0, window_seconds: 60, max_age_seconds: 30 };
            assert!(fresh(Published::Value(value), 0).is_err());
        }
    }

    #[test]
    fn quantities_are_canonical() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1.12, "1120m"),
            (0.0004, "0"),
            (0.9996, "1"),
            (12.5, "12500m"),
            (1e300, "1000000000000"),
        ] {
            assert_eq!(milli(value), text);
        }
    }

    #[test]
    fn paths_that_ask_nothing() {
        for rest in [
            "team-a/pods/x/mcp_utilization",
            "team-a/mcpfleets.mcpfleet.io/x",
            "team-a/mcpfleets.mcpfleet.io/x/y/z",
            "/mcpfleets.mcpfleet.io/x/y",
        ] {
            assert_eq!(Question::of_path(&path(rest)), None, "{rest}");
        }
        assert_eq!(
            Question::of_path(
                "/apis/custom.metrics.k8s.io/v1beta1/namespaces/a/mcpfleets.mcpfleet.io/b/mcp_utilization"
            ),
            None
        );
    }
}
