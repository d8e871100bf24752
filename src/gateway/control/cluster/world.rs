//! Objects of the cluster → what the gateway serves. Pure but for the last good settings that it remembers.

use std::collections::{HashMap, HashSet};

use k8s_openapi::{api::discovery::v1::EndpointSlice, jiff::Timestamp};
use kube::{Resource as _, ResourceExt as _, core::DeserializeGuard};

use super::slices;
use crate::{
    api::{names, v1alpha1::McpFleet},
    domain::FleetKey,
    gateway::{
        control::upstream_host,
        fleet::{EndpointSpec, FleetSpec},
        settings::Settings,
    },
};

/// A fleet as it is watched: one that cannot be read must not stop the watch of the others.
pub(super) type WatchedFleet = DeserializeGuard<McpFleet>;

/// Fleets as they were last when their objects were right.
#[derive(Default)]
pub(super) struct LastGood {
    by_fleet: HashMap<FleetKey, FleetSpec>,
    /// What was logged of the wrong ones.
    told: HashMap<FleetKey, String>,
}

impl LastGood {
    /// The fleets of a class, the oldest first: of two that claim one host name, the older has it. One whose
    /// object cannot be used is served as before.
    pub(super) fn fleets<'a>(
        &mut self,
        objects: impl Iterator<Item = &'a WatchedFleet>,
        class: &str,
    ) -> Vec<FleetSpec> {
        let mut all: Vec<(Option<Timestamp>, FleetSpec)> = Vec::new();
        let mut seen = HashSet::new();
        for object in objects {
            let meta = object.meta();
            let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else { continue };
            let key = FleetKey::new(namespace, name);
            seen.insert(key.clone());
            let born = meta.creation_timestamp.as_ref().map(|t| t.0);
            let spec = match read(&key, object) {
                Ok(spec) => {
                    if self.told.remove(&key).is_some() {
                        tracing::info!(fleet = %key, "the fleet can be used again");
                    }
                    self.by_fleet.insert(key, spec.clone());
                    spec
                }
                Err(problem) => {
                    self.tell(&key, &problem);
                    let uid = object.meta().uid.as_deref().unwrap_or_default();
                    match self.by_fleet.get(&key).filter(|good| good.uid == uid) {
                        Some(good) => good.clone(),
                        None => continue,
                    }
                }
            };
            if spec.settings.enabled && spec.settings.class == class {
                all.push((born, spec));
            }
        }
        self.by_fleet.retain(|key, _| seen.contains(key));
        self.told.retain(|key, _| seen.contains(key));
        all.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.key.cmp(&b.1.key)));
        all.into_iter().map(|(_, spec)| spec).collect()
    }

    fn tell(&mut self, key: &FleetKey, problem: &str) {
        if self.told.get(key).map(String::as_str) != Some(problem) {
            tracing::warn!(fleet = %key, problem, "a fleet cannot be used as it is written; what was known of it stays");
            self.told.insert(key.clone(), problem.to_owned());
        }
    }
}

fn read(key: &FleetKey, object: &WatchedFleet) -> Result<FleetSpec, String> {
    let fleet = object.0.as_ref().map_err(|error| error.error.clone())?;
    let server = &fleet.spec.server;
    let settings = Settings::try_from(&fleet.spec.gateway).map_err(|error| error.to_string())?;
    let port = u16::try_from(server.port).map_err(|_| format!("server.port {} is no port", server.port))?;
    if !server.path.starts_with('/') {
        return Err(format!("server.path '{}' must start with '/'", server.path));
    }
    let (upstream_host, host_header) = upstream_host(port);
    Ok(FleetSpec {
        key: key.clone(),
        uid: fleet.uid().unwrap_or_default(),
        path: server.path.clone(),
        transport: server.transport.into(),
        sessions: server.sessions,
        upstream_host,
        host_header,
        settings,
        scalable: fleet.spec.autoscaling.is_some() || fleet.spec.replicas == Some(0),
    })
}

/// Endpoints of all fleets, by fleet.
pub(super) fn endpoints<'a>(
    objects: impl Iterator<Item = &'a EndpointSlice>,
    zone: Option<&str>,
) -> HashMap<FleetKey, Vec<EndpointSpec>> {
    let mut by_fleet: HashMap<FleetKey, Vec<&EndpointSlice>> = HashMap::new();
    for slice in objects {
        if let Some(fleet) = slice.labels().get(names::LABEL_FLEET)
            && let Some(namespace) = slice.namespace()
        {
            by_fleet.entry(FleetKey::new(namespace, fleet)).or_default().push(slice);
        }
    }
    by_fleet.into_iter().map(|(key, all)| (key, slices::endpoints(all.into_iter(), zone))).collect()
}

/// Drops of a fleet what is not read here: environments and volumes may be large.
pub(super) fn prune(fleet: &mut WatchedFleet) {
    let meta = fleet.meta_mut();
    meta.managed_fields = None;
    meta.annotations = None;
    if let Ok(fleet) = &mut fleet.0 {
        fleet.status = None;
        let server = &mut fleet.spec.server;
        (server.env, server.env_from) = (Vec::new(), Vec::new());
        (server.volumes, server.volume_mounts) = (Vec::new(), Vec::new());
        (server.command, server.args) = (Vec::new(), Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::gateway::fleet::Transport;

    fn fleet(name: &str, born: &str, spec: &Value) -> WatchedFleet {
        let mut spec = spec.clone();
        if spec["server"].is_null() {
            spec["server"] = json!({"image": "a"});
        }
        serde_json::from_value(json!({
            "apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "spec": spec,
            "metadata": {"name": name, "namespace": "tools", "uid": format!("uid-{name}"), "creationTimestamp": born},
        }))
        .unwrap()
    }

    fn served(good: &mut LastGood, all: &[WatchedFleet]) -> Vec<String> {
        good.fleets(all.iter(), "default").iter().map(|f| f.key.name.clone()).collect()
    }

    #[test]
    fn the_older_comes_first_and_other_classes_do_not_come() {
        let all = [
            fleet("young", "2026-03-01T00:00:00Z", &json!({})),
            fleet("old", "2026-01-01T00:00:00Z", &json!({})),
            fleet("other", "2026-01-01T00:00:00Z", &json!({"gateway": {"class": "internal"}})),
            fleet("off", "2026-01-01T00:00:00Z", &json!({"gateway": {"enabled": false}})),
        ];
        assert_eq!(served(&mut LastGood::default(), &all), ["old", "young"]);
    }

    #[test]
    fn a_spec_says_how_its_servers_are_called() {
        let server = json!({"image": "a", "port": 9000, "path": "/x", "transport": "SSE"});
        let all = [fleet("a", "2026-01-01T00:00:00Z", &json!({"server": server, "replicas": 0}))];
        let found = LastGood::default().fleets(all.iter(), "default");
        assert_eq!((found[0].upstream_host.as_str(), found[0].path.as_str()), ("localhost:9000", "/x"));
        assert_eq!(
            (found[0].transport, found[0].uid.as_str(), found[0].scalable),
            (Transport::Sse, "uid-a", true)
        );
    }

    #[test]
    fn a_fleet_that_cannot_be_used_is_served_as_before_but_not_under_another_uid() {
        let mut good = LastGood::default();
        let right = fleet("a", "2026-01-01T00:00:00Z", &json!({}));
        let wrong = fleet("a", "2026-01-01T00:00:00Z", &json!({"gateway": {"slowStartSeconds": -1}}));
        assert!(served(&mut good, std::slice::from_ref(&wrong)).is_empty(), "nothing was known");
        assert_eq!(served(&mut good, std::slice::from_ref(&right)), ["a"]);
        assert_eq!(served(&mut good, std::slice::from_ref(&wrong)), ["a"]);
        let unreadable: WatchedFleet = serde_json::from_value(json!({
            "apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "spec": {"server": 7},
            "metadata": {"name": "a", "namespace": "tools", "uid": "uid-a"},
        }))
        .unwrap();
        assert_eq!(served(&mut good, std::slice::from_ref(&unreadable)), ["a"]);
        let mut another = wrong;
        another.meta_mut().uid = Some("uid-of-its-successor".into());
        assert!(served(&mut good, &[another]).is_empty());
        assert!(served(&mut good, &[]).is_empty());
        assert!(good.by_fleet.is_empty() && good.told.is_empty(), "nothing is kept of fleets that are gone");
    }

    #[test]
    fn slices_go_to_the_fleet_of_their_label() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "weather-headless-x", "namespace": "tools", "labels": {"mcpfleet.io/fleet": "weather"}},
            "ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"]}],
        }))
        .unwrap();
        let found = endpoints([&slice].into_iter(), None);
        assert_eq!(found[&FleetKey::new("tools", "weather")].len(), 1);
    }
}
