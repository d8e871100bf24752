//! What the generated NetworkPolicies allow and forbid, judged by a small evaluator of policies: nothing on
//! the test clusters enforces them. No cluster is needed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test program")]

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use mcp_fleet::{
    api::v1alpha1::McpFleet,
    operator::{
        children::ChildKind,
        desired::{self, Facts, Rendering},
        validate::validate,
    },
};
use serde_json::{Value, json};

/// The namespace that the fleet and its policy are in.
const HOME: &str = "tools";
/// The server's port in all these fleets.
const SERVER_PORT: u16 = 8000;

/// Whether a plugin counts the addresses of pods as part of an `ipBlock`. The standard leaves it open, so
/// what is promised must hold with both.
#[derive(Clone, Copy, Debug)]
enum Blocks {
    CountPods,
    SkipPods,
}

/// The other end of a connection.
#[derive(Clone, Debug)]
enum End {
    /// A pod: namespace and labels. Namespaces carry their name as a label.
    Pod(&'static str, &'static [(&'static str, &'static str)], &'static str),
    /// An address outside the cluster.
    Address(&'static str),
}

const FRIEND: End = End::Pod(HOME, &[("app", "client")], "10.244.1.7");
const STRANGER: End = End::Pod("elsewhere", &[("app", "other")], "10.244.2.9");
const INTERNET: End = End::Address("203.0.113.7");
const INTERNET_V6: End = End::Address("2001:db8::7");
const METADATA: End = End::Address("169.254.169.254");
const METADATA_V6: End = End::Address("fd00:ec2::254");
const NODE_DNS: End = End::Address("169.254.20.10");

/// The policy of a fleet with this spec beside its server; none where it is switched off.
fn policy(spec: &str) -> Option<NetworkPolicy> {
    let mut spec: Value = serde_saphyr::from_str(spec).expect("YAML");
    spec["server"] = json!({"image": "registry.example/weather:1", "port": SERVER_PORT});
    let fleet = json!({
        "apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet",
        "metadata": {"name": "weather", "namespace": HOME, "uid": "uid-1", "generation": 1},
        "spec": spec,
    });
    let fleet: McpFleet = serde_json::from_value(fleet).expect("a fleet");
    let rendering =
        Rendering { agent_image: "agent:1".into(), agent_image_pull_policy: "IfNotPresent".into() };
    let all = desired::build(&validate(&fleet).expect("valid"), &Facts::default(), &rendering);
    let found = all.into_iter().find(|d| d.kind == ChildKind::NetworkPolicy)?;
    Some(serde_json::from_value(found.object).expect("a policy"))
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<&str, &str>) -> bool {
    assert!(selector.match_expressions.is_none(), "the evaluator reads matchLabels alone");
    selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k.as_str()) == Some(&v.as_str()))
}

fn within(cidr: &str, ip: IpAddr) -> bool {
    let (network, bits) = cidr.split_once('/').expect("a CIDR");
    let bits: u32 = bits.parse().expect("a length");
    match (network.parse().expect("a network"), ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        _ => false,
    }
}

fn is_peer(peer: &NetworkPolicyPeer, end: &End, blocks: Blocks) -> bool {
    if let Some(block) = &peer.ip_block {
        let ip = match (end, blocks) {
            (End::Address(ip), _) | (End::Pod(_, _, ip), Blocks::CountPods) => {
                ip.parse().expect("an address")
            }
            (End::Pod(..), Blocks::SkipPods) => return false,
        };
        return within(&block.cidr, ip) && !block.except.iter().flatten().any(|e| within(e, ip));
    }
    let End::Pod(namespace, labels, _) = end else { return false };
    let in_namespace = match &peer.namespace_selector {
        Some(selector) => selects(selector, &BTreeMap::from([("kubernetes.io/metadata.name", *namespace)])),
        None => *namespace == HOME,
    };
    in_namespace && peer.pod_selector.as_ref().is_none_or(|s| selects(s, &labels.iter().copied().collect()))
}

/// Named ports are the server container's.
fn is_port(port: &NetworkPolicyPort, number: u16, protocol: &str) -> bool {
    let same = match &port.port {
        None => true,
        Some(IntOrString::Int(n)) => *n == i32::from(number),
        Some(IntOrString::String(name)) => name == "http" && number == SERVER_PORT,
    };
    same && port.protocol.as_deref().unwrap_or("TCP") == protocol
}

/// One rule: none of a list, or one of it.
fn rule(
    peers: Option<&Vec<NetworkPolicyPeer>>,
    ports: Option<&Vec<NetworkPolicyPort>>,
    (end, number, protocol): (&End, u16, &str),
    blocks: Blocks,
) -> bool {
    peers.is_none_or(|all| all.is_empty() || all.iter().any(|p| is_peer(p, end, blocks)))
        && ports.is_none_or(|all| all.is_empty() || all.iter().any(|p| is_port(p, number, protocol)))
}

fn ingress(policy: &NetworkPolicy, end: &End, port: u16, protocol: &str, blocks: Blocks) -> bool {
    let spec = policy.spec.as_ref().expect("a spec");
    assert!(spec.policy_types.iter().flatten().any(|t| t == "Ingress"), "ingress is not judged at all");
    spec.ingress
        .iter()
        .flatten()
        .any(|r| rule(r.from.as_ref(), r.ports.as_ref(), (end, port, protocol), blocks))
}

fn egress(policy: &NetworkPolicy, end: &End, port: u16, protocol: &str, blocks: Blocks) -> bool {
    let spec = policy.spec.as_ref().expect("a spec");
    assert!(spec.policy_types.iter().flatten().any(|t| t == "Egress"), "egress is not judged at all");
    spec.egress.iter().flatten().any(|r| rule(r.to.as_ref(), r.ports.as_ref(), (end, port, protocol), blocks))
}

type Judge = fn(&NetworkPolicy, &End, u16, &str, Blocks) -> bool;

/// Each row must come out as it says, however the plugin counts pods.
fn table(policy: &NetworkPolicy, judge: Judge, rows: &[(End, u16, &str, bool)]) {
    for (end, port, protocol, expected) in rows {
        for blocks in [Blocks::CountPods, Blocks::SkipPods] {
            let got = judge(policy, end, *port, protocol, blocks);
            assert_eq!(got, *expected, "{end:?} {protocol}/{port} where blocks {blocks:?}: {policy:#?}");
        }
    }
}

#[test]
fn it_is_about_the_pods_of_this_fleet_alone() {
    let policy = policy("{}").expect("on by default");
    assert_eq!(policy.metadata.namespace.as_deref(), Some(HOME));
    let selector = policy.spec.unwrap().pod_selector.unwrap();
    assert!(selects(&selector, &[("mcpfleet.io/fleet", "weather"), ("app", "x")].into()));
    assert!(!selects(&selector, &[("mcpfleet.io/fleet", "weather-2")].into()));
    assert!(!selects(&selector, &[("app.kubernetes.io/name", "weather")].into()));
}

#[test]
fn by_default_everybody_reaches_the_server_and_nothing_else() {
    let policy = policy("{}").unwrap();
    let mut rows = Vec::new();
    for end in [FRIEND, STRANGER, INTERNET, INTERNET_V6] {
        rows.push((end.clone(), SERVER_PORT, "TCP", true));
        for (port, protocol) in [(SERVER_PORT, "UDP"), (22, "TCP"), (8080, "TCP"), (9090, "TCP")] {
            rows.push((end.clone(), port, protocol, false));
        }
    }
    table(&policy, ingress, &rows);
}

#[test]
fn allow_from_lets_in_who_is_listed() {
    let own = policy("networkPolicy: {allowFrom: [{podSelector: {matchLabels: {app: client}}}]}").unwrap();
    let same_labels_elsewhere = End::Pod("elsewhere", &[("app", "client")], "10.244.3.3");
    let other_here = End::Pod(HOME, &[("app", "other")], "10.244.1.8");
    table(
        &own,
        ingress,
        &[
            (FRIEND, SERVER_PORT, "TCP", true),
            (FRIEND, 22, "TCP", false),
            (same_labels_elsewhere.clone(), SERVER_PORT, "TCP", false),
            (other_here.clone(), SERVER_PORT, "TCP", false),
            (INTERNET, SERVER_PORT, "TCP", false),
        ],
    );

    let both = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: elsewhere}}, podSelector: {matchLabels: {app: client}}}";
    let gateway = policy(&format!("networkPolicy: {{allowFrom: [{both}]}}")).unwrap();
    table(
        &gateway,
        ingress,
        &[
            (same_labels_elsewhere, SERVER_PORT, "TCP", true),
            (STRANGER, SERVER_PORT, "TCP", false),
            (FRIEND, SERVER_PORT, "TCP", false),
            (INTERNET, SERVER_PORT, "TCP", false),
        ],
    );

    // An empty selector is everything of its kind.
    let all_here = policy("networkPolicy: {allowFrom: [{podSelector: {}}]}").unwrap();
    table(
        &all_here,
        ingress,
        &[(other_here, SERVER_PORT, "TCP", true), (STRANGER, SERVER_PORT, "TCP", false)],
    );

    let network =
        policy("networkPolicy: {allowFrom: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}}]}")
            .unwrap();
    table(
        &network,
        ingress,
        &[
            (INTERNET, SERVER_PORT, "TCP", true),
            (End::Address("203.0.113.200"), SERVER_PORT, "TCP", false),
            (End::Address("198.51.100.1"), SERVER_PORT, "TCP", false),
            (FRIEND, SERVER_PORT, "TCP", false),
        ],
    );
}

#[test]
fn by_default_the_server_reaches_everything_but_the_clouds_credentials() {
    let policy = policy("{}").unwrap();
    let mut rows = Vec::new();
    for (port, protocol) in [(443, "TCP"), (80, "TCP"), (53, "UDP"), (53, "TCP")] {
        for end in [FRIEND, STRANGER, INTERNET, INTERNET_V6, NODE_DNS, End::Address("10.96.0.1")] {
            rows.push((end, port, protocol, true));
        }
        for end in [METADATA, METADATA_V6] {
            rows.push((end, port, protocol, false));
        }
    }
    // Right beside the metadata address.
    rows.push((End::Address("169.254.169.253"), 443, "TCP", true));
    table(&policy, egress, &rows);
}

#[test]
fn restricted_egress_always_has_dns() {
    let nothing = policy("networkPolicy: {egress: {allow: []}}").unwrap();
    let mut rows = Vec::new();
    for end in [FRIEND, STRANGER, NODE_DNS, End::Address("10.96.0.10")] {
        for (port, protocol, allowed) in [
            (53, "UDP", true),
            (53, "TCP", true),
            (5353, "UDP", true),
            (5353, "TCP", true),
            (443, "TCP", false),
            (54, "UDP", false),
        ] {
            rows.push((end.clone(), port, protocol, allowed));
        }
    }
    rows.push((INTERNET, 443, "TCP", false));
    rows.push((METADATA, 80, "TCP", false));
    table(&nothing, egress, &rows);

    let listed = policy(
        "networkPolicy: {egress: {allow: [
            {to: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 443}]},
            {to: [{podSelector: {matchLabels: {app: client}}}]},
            {ports: [{port: 8125, protocol: UDP}]}]}}",
    )
    .unwrap();
    table(
        &listed,
        egress,
        &[
            (INTERNET, 443, "TCP", true),
            (INTERNET, 443, "UDP", false),
            (INTERNET, 80, "TCP", false),
            (INTERNET, 53, "UDP", true),
            (End::Address("198.51.100.1"), 443, "TCP", false),
            (FRIEND, 5432, "TCP", true),
            (STRANGER, 5432, "TCP", false),
            (STRANGER, 8125, "UDP", true),
            (STRANGER, 8125, "TCP", false),
        ],
    );
}

#[test]
fn switched_off_there_is_none() {
    assert!(policy("networkPolicy: {enabled: false}").is_none());
}

#[test]
fn the_evaluator_knows_networks() {
    for (cidr, ip, expected) in [
        ("0.0.0.0/0", "203.0.113.7", true),
        ("::/0", "2001:db8::7", true),
        ("0.0.0.0/0", "2001:db8::7", false),
        ("169.254.169.254/32", "169.254.169.254", true),
        ("169.254.169.254/32", "169.254.169.255", false),
        ("10.0.0.0/8", "10.255.255.255", true),
        ("10.0.0.0/8", "11.0.0.0", false),
        ("fd00:ec2::254/128", "fd00:ec2::254", true),
    ] {
        assert_eq!(within(cidr, ip.parse().unwrap()), expected, "{ip} in {cidr}");
    }
}
