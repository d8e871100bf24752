//! What `metrics.k8s.io` says of pods: the answer's shape, and what of it counts. Pure.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    api::names,
    domain::{FleetKey, quantity_value},
    operator::pods::PodLoadFacts,
};

/// A sample that is older, in ms, counts as missing.
pub const STALE: i64 = 60_000;
/// A sample so far in the future, in ms, is not believed.
const AHEAD: i64 = 5_000;

/// What pods use, by fleet and name of the pod.
pub type UsageByFleet = HashMap<FleetKey, BTreeMap<String, Usage>>;

/// What the container `server` of a pod uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// CPU, in thousandths of a core, as a mean over the window.
    pub cpu: f64,
    /// Memory, in bytes.
    pub memory: f64,
    /// The end of the window, in ms since the Unix epoch.
    pub at: i64,
    /// How long the window is, in ms.
    pub window: i64,
}

/// A page of `PodMetricsList`. Fields that are not needed are left out.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// Where the list goes on.
    #[serde(default)]
    pub metadata: PageMeta,
    /// Its pods.
    #[serde(default)]
    pub items: Vec<PodMetrics>,
}

/// Where the list goes on.
#[derive(Debug, Default, Deserialize)]
pub struct PageMeta {
    /// Token of the next page; empty on the last one.
    #[serde(default, rename = "continue")]
    pub next: String,
}

/// One pod.
#[derive(Debug, Deserialize)]
pub struct PodMetrics {
    /// Namespace and name.
    pub metadata: PodMeta,
    /// The end of the window, RFC 3339.
    #[serde(default)]
    timestamp: String,
    /// Such as `15.2s` or `1m0s`.
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

/// Namespace and name of a pod.
#[derive(Debug, Deserialize)]
pub struct PodMeta {
    /// Namespace.
    #[serde(default)]
    pub namespace: String,
    /// Name.
    #[serde(default)]
    pub name: String,
}

#[derive(Debug, Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

impl PodMetrics {
    /// What its server uses; `None` where the answer does not say, or says nonsense.
    pub fn usage(&self) -> Option<Usage> {
        let server = self.containers.iter().find(|c| c.name == names::CONTAINER_SERVER)?;
        let amount = |name: &str| quantity_value(server.usage.get(name)?).ok();
        Some(Usage {
            cpu: amount("cpu")? * 1000.0,
            memory: amount("memory")?,
            at: self.timestamp.parse::<Timestamp>().ok()?.as_millisecond(),
            window: window(&self.window).unwrap_or_default(),
        })
    }
}

/// A duration as Go writes it: hours, minutes, seconds, and parts of a second.
fn window(text: &str) -> Option<i64> {
    let (mut ms, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| end + n);
        ms += number
            * match &rest[end..unit] {
                "h" => 3_600_000.0,
                "m" => 60_000.0,
                "s" => 1_000.0,
                "ms" => 1.0,
                _ => 0.0,
            };
        rest = &rest[unit..];
    }
    Some(ms.min(3_600_000.0) as i64)
}

/// CPU and memory of a pod as shares of its requests. CPU counts only from a window after the pod became ready: what
/// it needs to start says nothing of its load.
pub fn shares(pod: &PodLoadFacts, usage: Option<&Usage>, wall: i64) -> (Option<f64>, Option<f64>) {
    let Some(usage) = usage.filter(|u| u.at <= wall + AHEAD && u.at >= wall - STALE) else {
        return (None, None);
    };
    let share = |amount: f64, request: Option<i64>| Some(amount / request.filter(|r| *r > 0)? as f64);
    let settled = pod.ready_since.is_some_and(|since| usage.at - usage.window >= since);
    (share(usage.cpu, pod.cpu_request).filter(|_| settled), share(usage.memory, pod.memory_request))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_read() {
        let page: Page = serde_json::from_value(json!({
            "kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {"continue": "x"},
            "items": [
                {"metadata": {"name": "weather-1", "namespace": "tools", "labels": {"a": "b"}},
                 "timestamp": "1970-01-01T00:01:40Z", "window": "15.5s",
                 "containers": [{"name": "sidecar", "usage": {"cpu": "9", "memory": "9"}},
                                {"name": "server", "usage": {"cpu": "125420531n", "memory": "128Mi"}}]},
                {"metadata": {"name": "weather-2", "namespace": "tools"}, "timestamp": "x", "window": "1m0s",
                 "containers": [{"name": "server", "usage": {"cpu": "1", "memory": "1"}}]},
                {"metadata": {"name": "weather-3", "namespace": "tools"}},
            ],
        }))
        .expect("a page");
        assert_eq!(page.metadata.next, "x");
        let usage: Vec<_> = page.items.iter().map(PodMetrics::usage).collect();
        let first = usage[0].expect("usage");
        assert!((first.cpu - 125.420_531).abs() < 1e-9, "{first:?}");
        assert_eq!((first.memory, first.at, first.window), (134_217_728.0, 100_000, 15_500));
        assert_eq!(usage[1..], [None, None], "no time, no container");
    }

    #[test]
    fn windows_as_go_writes_them() {
        for (text, ms) in [
            ("15.2s", Some(15_200)),
            ("1m0s", Some(60_000)),
            ("500ms", Some(500)),
            ("", Some(0)),
            ("x", None),
        ] {
            assert_eq!(window(text), ms, "{text}");
        }
    }

    #[test]
    fn only_what_is_fresh_and_of_a_settled_pod_counts() {
        let pod = PodLoadFacts {
            ready_since: Some(50_000),
            cpu_request: Some(250),
            memory_request: Some(1000),
            ..PodLoadFacts::default()
        };
        let usage = Usage { cpu: 125.0, memory: 500.0, at: 100_000, window: 15_000 };
        assert_eq!(shares(&pod, Some(&usage), 110_000), (Some(0.5), Some(0.5)));
        assert_eq!(shares(&pod, None, 110_000), (None, None));
        assert_eq!(shares(&pod, Some(&usage), 161_000), (None, None), "stale");
        assert_eq!(shares(&pod, Some(&usage), 94_000), (None, None), "of the future");
        let starting = PodLoadFacts { ready_since: Some(90_000), ..pod };
        assert_eq!(shares(&starting, Some(&usage), 110_000), (None, Some(0.5)), "its window holds the start");
        let unready = PodLoadFacts { ready_since: None, ..pod };
        assert_eq!(shares(&unready, Some(&usage), 110_000), (None, Some(0.5)));
        let bare = PodLoadFacts { cpu_request: None, memory_request: None, ..pod };
        assert_eq!(shares(&bare, Some(&usage), 110_000), (None, None), "no request");
    }
}
