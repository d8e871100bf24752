//! What a gateway answers on `/internal/fleets`, and the sum over all of them. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    api::v1alpha1::{ProtocolStatus, SessionsStatus},
    domain::FleetKey,
};

/// Most revisions, and longest texts, that go into a status; the schema has the same bounds.
const MAX_VERSIONS: usize = 16;
const MAX_VERSION: usize = 32;
const MAX_TEXT: usize = 256;

/// One gateway's answer. Fields that it does not know are left out, so that versions can differ.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// The fleets that it serves.
    #[serde(default)]
    pub fleets: Vec<FleetAnswer>,
}

/// What one gateway knows of a fleet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetAnswer {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What its servers speak.
    #[serde(default)]
    pub protocol: ProtocolStatus,
    /// Its pods.
    #[serde(default)]
    pub endpoints: Vec<EndpointAnswer>,
}

/// What one gateway has on a pod.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointAnswer {
    /// The pod.
    pub pod_uid: String,
    /// Sessions that live on it.
    #[serde(default)]
    pub sessions: u64,
    /// Running calls.
    #[serde(default)]
    pub inflight: u64,
    /// Open streams.
    #[serde(default)]
    pub streams: u64,
}

/// What all gateways know together.
#[derive(Debug, Default)]
pub struct Seen {
    /// By fleet.
    pub fleets: BTreeMap<FleetKey, FleetSeen>,
}

/// What all gateways know of a fleet.
#[derive(Debug, Default)]
pub struct FleetSeen {
    /// What its servers speak, once one of them has been asked.
    pub protocol: Option<ProtocolStatus>,
    /// Load by UID of the pod.
    pub pods: BTreeMap<String, u64>,
}

impl Seen {
    /// Adds one gateway's answer.
    pub fn add(&mut self, answer: Answer) {
        for fleet in answer.fleets {
            let seen = self.fleets.entry(FleetKey::new(fleet.namespace, fleet.name)).or_default();
            for pod in fleet.endpoints {
                let load = pod.sessions.saturating_add(pod.inflight).saturating_add(pod.streams);
                let sum = seen.pods.entry(pod.pod_uid).or_default();
                *sum = sum.saturating_add(load);
            }
            // A gateway that has not asked yet says nothing; of several, whoever knows most decides, so that the
            // order in which they answer does not.
            let protocol = bounded(fleet.protocol);
            let known =
                |p: &ProtocolStatus| (p.versions.len(), p.sessions as u8 != SessionsStatus::Unknown as u8);
            if !protocol.versions.is_empty()
                && seen.protocol.as_ref().is_none_or(|p| known(p) < known(&protocol))
            {
                seen.protocol = Some(protocol);
            }
        }
    }
}

/// Servers say what they like; the status takes so much of it.
fn bounded(mut protocol: ProtocolStatus) -> ProtocolStatus {
    protocol.versions.retain(|v| !v.is_empty() && v.len() <= MAX_VERSION);
    protocol.versions.sort_unstable();
    protocol.versions.dedup();
    let surplus = protocol.versions.len().saturating_sub(MAX_VERSIONS);
    protocol.versions.drain(..surplus);
    if let Some(server) = &mut protocol.server {
        for text in [&mut server.name, &mut server.version] {
            *text = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
        }
    }
    protocol
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(value: serde_json::Value) -> Answer {
        serde_json::from_value(value).expect("an answer")
    }

    #[test]
    fn loads_are_summed_over_gateways() {
        let one = |sessions: u64, inflight: u64| {
            answer(json!({"gateway": "g", "fleets": [{"namespace": "tools", "name": "weather", "uid": "u",
                "protocol": {"versions": ["2025-11-25"], "server": null, "sessions": "Stateful"},
                "endpoints": [{"podUid": "a", "sessions": sessions, "inflight": inflight, "streams": 1}, {"podUid": "b"}]}]}))
        };
        let mut seen = Seen::default();
        seen.add(one(3, 2));
        seen.add(one(4, 0));
        let fleet = &seen.fleets[&FleetKey::new("tools", "weather")];
        assert_eq!(fleet.pods, [("a".to_owned(), 11), ("b".to_owned(), 0)].into());
        assert_eq!(fleet.protocol.as_ref().map(|p| p.sessions), Some(SessionsStatus::Stateful));
    }

    #[test]
    fn whoever_knows_most_decides_in_any_order() {
        let with = |versions: &[&str], sessions: &str| json!({"fleets": [{"namespace": "t", "name": "w", "protocol": {"versions": versions, "sessions": sessions}}]});
        let answers = [
            with(&[], "Unknown"),
            with(&["2026-07-28"], "Unknown"),
            with(&["2026-07-28", "2025-11-25"], "Stateless"),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut seen = Seen::default();
            for i in &order {
                seen.add(answer(answers[*i].clone()));
            }
            let protocol = seen.fleets[&FleetKey::new("t", "w")].protocol.clone().expect("known");
            assert_eq!(protocol.versions, ["2025-11-25", "2026-07-28"], "oldest first");
            assert_eq!(protocol.sessions, SessionsStatus::Stateless);
        }
    }

    #[test]
    fn what_servers_say_of_themselves_is_bounded() {
        let versions: Vec<String> = (10..60).map(|i| format!("2025-{i}")).chain(["x".repeat(99)]).collect();
        let mut seen = Seen::default();
        seen.add(answer(json!({"fleets": [{"namespace": "t", "name": "w",
            "protocol": {"versions": versions, "server": {"name": "a\n".repeat(999), "version": ""}}}]})));
        let protocol = seen.fleets[&FleetKey::new("t", "w")].protocol.clone().expect("known");
        assert_eq!((protocol.versions.len(), protocol.versions[15].as_str()), (16, "2025-59"));
        assert_eq!(protocol.server.expect("a server").name, "a".repeat(256));
    }
}
