//! EndpointSlices → endpoints. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::{
    api::names,
    gateway::{
        control::is_local,
        fleet::{EndpointSpec, Phase},
        seal::PodId,
    },
};

/// Endpoints that are taken of one fleet.
const MAX_ENDPOINTS: usize = 5000;

/// Endpoints of one fleet, in the order of their identities; each pod once, though it may stand in slices of two
/// families, or for a moment in two slices of one. `zone`: the gateway's own.
pub(super) fn endpoints<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    zone: Option<&str>,
) -> Vec<EndpointSpec> {
    let mut pods: BTreeMap<PodId, EndpointSpec> = BTreeMap::new();
    for slice in slices {
        let Some(port) = port(slice, names::PORT_NAME) else { continue };
        for found in slice.endpoints.iter().flatten().filter_map(|e| endpoint(e, port, zone)) {
            let better = pods.get(&found.id).is_none_or(|known| rank(&found) < rank(known));
            if better && (pods.len() < MAX_ENDPOINTS || pods.contains_key(&found.id)) {
                pods.insert(found.id, found);
            }
        }
    }
    pods.into_values().collect()
}

/// The family first: an endpoint whose address changed would be another one, without its sessions. Then what
/// cannot be taken back: a pod that terminates never becomes ready again, whatever an older slice says.
fn rank(spec: &EndpointSpec) -> (bool, u8) {
    let phase = match spec.phase {
        Phase::Draining | Phase::Gone => 0,
        Phase::Ready => 1,
        Phase::NotReady => 2,
    };
    (spec.address.is_ipv6(), phase)
}

fn endpoint(endpoint: &Endpoint, port: u16, zone: Option<&str>) -> Option<EndpointSpec> {
    // Every address of an endpoint leads to the same pod; only the first counts (the type's own words).
    let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let address = SocketAddr::new(ip, port);
    let target = endpoint.target_ref.as_ref();
    let uid = target.and_then(|t| t.uid.as_deref());
    Some(EndpointSpec {
        id: uid.map_or_else(|| PodId::from_address(&address.to_string()), PodId::from_uid),
        address,
        name: target.and_then(|t| t.name.clone()).unwrap_or_else(|| address.to_string()),
        weight: 1,
        local: is_local(zone, endpoint.zone.as_deref()),
        phase: phase(endpoint),
    })
}

/// A pod that terminates drains even where it is not ready any more: it is not probed, and what is bound to it
/// gets through as long as it answers. Absent conditions read as the API says: ready and serving.
fn phase(endpoint: &Endpoint) -> Phase {
    let Some(conditions) = &endpoint.conditions else { return Phase::Ready };
    if conditions.terminating == Some(true) {
        Phase::Draining
    } else if conditions.ready.unwrap_or(true) {
        Phase::Ready
    } else {
        Phase::NotReady
    }
}

/// The port of a name; where the slice names none, its only one.
fn port(slice: &EndpointSlice, name: &str) -> Option<u16> {
    let ports = slice.ports.as_deref()?;
    let named = ports.iter().find(|p| p.name.as_deref() == Some(name));
    let only = (ports.len() == 1)
        .then(|| ports.first())
        .flatten()
        .filter(|p| p.name.as_deref().is_none_or(str::is_empty));
    u16::try_from(named.or(only)?.port?).ok()
}

/// Name of the port by which gateways ask each other.
pub(super) const PEER_PORT: &str = "peer";

/// Ready gateways but for the one with `own_ip`, sorted. `port` where the slices name none.
pub(super) fn peers<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    own_ip: IpAddr,
    port_of_own: u16,
) -> Vec<SocketAddr> {
    let mut all: BTreeMap<String, SocketAddr> = BTreeMap::new();
    let mut own = None;
    for slice in slices {
        let port = port(slice, PEER_PORT).unwrap_or(port_of_own);
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(found) = self::endpoint(endpoint, port, None) else { continue };
            let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.clone());
            let identity = uid.unwrap_or_else(|| found.address.to_string());
            if found.address.ip() == own_ip {
                own = Some(identity);
                continue;
            }
            // All gateways must name each other alike: by the address of the family of their pods' first one.
            let alike = found.address.is_ipv6() == own_ip.is_ipv6();
            if found.phase == Phase::Ready && alike {
                all.insert(identity, found.address);
            }
        }
    }
    if let Some(own) = own {
        all.remove(&own);
    }
    let mut peers: Vec<_> = all.into_values().collect();
    peers.sort_unstable();
    peers
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const A: &str = "11111111-2222-3333-4444-555555555555";
    const B: &str = "99999999-2222-3333-4444-555555555555";

    fn slice(family: &str, endpoints: &[Value]) -> EndpointSlice {
        serde_json::from_value(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "weather-headless-x"},
            "addressType": family, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn pod(uid: &str, address: &str, conditions: &Value) -> Value {
        json!({"addresses": [address], "conditions": conditions, "zone": "z1",
               "targetRef": {"kind": "Pod", "name": format!("weather-{}", &uid[..4]), "uid": uid}})
    }

    fn ready() -> Value {
        json!({"ready": true, "serving": true, "terminating": false})
    }

    #[test]
    fn phases_follow_the_conditions() {
        for (conditions, expected) in [
            (ready(), Phase::Ready),
            (json!({}), Phase::Ready),
            (json!({"ready": false, "serving": false, "terminating": false}), Phase::NotReady),
            (json!({"ready": false, "serving": true, "terminating": true}), Phase::Draining),
            (json!({"ready": false, "serving": false, "terminating": true}), Phase::Draining),
        ] {
            let found = endpoints([slice("IPv4", &[pod(A, "10.0.0.1", &conditions)])].iter(), None);
            assert_eq!(found[0].phase, expected, "{conditions}");
            assert_eq!(found[0].address, "10.0.0.1:8080".parse().unwrap());
            assert_eq!((found[0].id, found[0].name.as_str()), (PodId::from_uid(A), "weather-1111"));
        }
    }

    #[test]
    fn a_pod_of_two_families_is_one_endpoint_at_its_first() {
        let v4 = slice("IPv4", &[pod(A, "10.0.0.1", &ready()), pod(B, "10.0.0.2", &ready())]);
        let v6 = slice("IPv6", &[pod(A, "fd00::1", &ready()), pod(B, "fd00::2", &ready())]);
        for slices in [[&v4, &v6], [&v6, &v4]] {
            let found = endpoints(slices.into_iter(), None);
            assert_eq!(found.len(), 2);
            assert!(found.iter().all(|e| e.address.is_ipv4()));
        }
        assert!(endpoints([&v6].into_iter(), None).iter().all(|e| e.address.is_ipv6()));
    }

    #[test]
    fn of_two_slices_with_one_pod_the_end_counts() {
        let ending = json!({"ready": false, "serving": true, "terminating": true});
        let (old, new) =
            (slice("IPv4", &[pod(A, "10.0.0.1", &ready())]), slice("IPv4", &[pod(A, "10.0.0.1", &ending)]));
        for slices in [[&old, &new], [&new, &old]] {
            let found = endpoints(slices.into_iter(), None);
            assert_eq!((found.len(), found[0].phase), (1, Phase::Draining));
        }
    }

    #[test]
    fn zones_and_odd_entries() {
        let near = |zone| endpoints([slice("IPv4", &[pod(A, "10.0.0.1", &ready())])].iter(), zone)[0].local;
        assert_eq!([near(None), near(Some("z1")), near(Some("z2"))], [true, true, false]);
        let odd = slice("FQDN", &[json!({"addresses": ["example.com"]}), json!({"addresses": []})]);
        assert!(endpoints([&odd].into_iter(), None).is_empty());
        let bare = slice("IPv4", &[json!({"addresses": ["10.0.0.9"]})]);
        let found = endpoints([&bare].into_iter(), None);
        assert_eq!(found[0].id, PodId::from_address("10.0.0.9:8080"));
        let mut other = slice("IPv4", &[pod(A, "10.0.0.1", &ready())]);
        other.ports = serde_json::from_value(json!([{"name": "metrics", "port": 9}])).unwrap();
        assert!(endpoints([&other].into_iter(), None).is_empty(), "not the server's port");
    }

    #[test]
    fn peers_are_the_other_ready_ones() {
        let mut slices = slice(
            "IPv4",
            &[
                pod(A, "10.0.0.1", &ready()),
                pod(B, "10.0.0.2", &ready()),
                pod("77777777-2222-3333-4444-555555555555", "10.0.0.3", &json!({"ready": false})),
            ],
        );
        slices.ports =
            serde_json::from_value(json!([{"name": "http", "port": 80}, {"name": "peer", "port": 8082}]))
                .unwrap();
        let six = slice("IPv6", &[pod(A, "fd00::1", &ready()), pod(B, "fd00::2", &ready())]);
        let found = peers([&slices, &six].into_iter(), "10.0.0.1".parse().unwrap(), 1);
        assert_eq!(found, ["10.0.0.2:8082".parse().unwrap()]);
    }
}
