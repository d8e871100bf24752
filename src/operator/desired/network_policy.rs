//! The NetworkPolicy: in, the server's port alone; out, everything but the cloud's metadata address, or
//! DNS and what is listed. No claim about the API server, which has no portable address.

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{label_selector, metadata};
use crate::{
    api::{names, v1alpha1 as api},
    operator::validate::ValidatedFleet,
};

/// Credentials of cloud machines. Not the whole of 169.254/16: the node-local DNS cache is 169.254.20.10.
const METADATA_V4: &str = "169.254.169.254/32";
const METADATA_V6: &str = "fd00:ec2::254/128";
/// 5353: DNS servers whose pods listen without a privileged port see the translated one.
const DNS_PORTS: [i32; 2] = [53, 5353];

pub(super) fn build(fleet: &ValidatedFleet) -> NetworkPolicy {
    let policy = &fleet.network_policy;
    NetworkPolicy {
        metadata: metadata(fleet, fleet.name.as_str()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(label_selector(fleet)),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                // By name: during a change of the port, pods of both revisions are reached.
                ports: Some(vec![port(IntOrString::String(names::PORT_NAME.into()), "TCP")]),
                from: (!policy.allow_from.is_empty()).then(|| {
                    let gateway = fleet.served_by.iter().map(|by| gateways(&by.namespace));
                    policy.allow_from.iter().map(peer).chain(gateway).collect()
                }),
            }]),
            egress: Some(match &policy.egress {
                None => vec![anywhere_but_metadata()],
                Some(egress) => restricted(egress),
            }),
        }),
    }
}

/// Pods are named beside the networks: some plugins do not count pods as part of a network.
fn anywhere_but_metadata() -> NetworkPolicyEgressRule {
    let network = |cidr: &str, except: &str| NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr.into(), except: Some(vec![except.into()]) }),
        ..NetworkPolicyPeer::default()
    };
    let pods = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    };
    NetworkPolicyEgressRule {
        to: Some(vec![pods, network("0.0.0.0/0", METADATA_V4), network("::/0", METADATA_V6)]),
        ports: None,
    }
}

fn restricted(egress: &api::Egress) -> Vec<NetworkPolicyEgressRule> {
    let dns_ports = DNS_PORTS
        .iter()
        .flat_map(|p| ["UDP", "TCP"].map(|protocol| port(IntOrString::Int(*p), protocol)))
        .collect();
    let mut rules = vec![NetworkPolicyEgressRule { to: None, ports: Some(dns_ports) }];
    rules.extend(egress.allow.iter().map(|rule| NetworkPolicyEgressRule {
        to: (!rule.to.is_empty()).then(|| rule.to.iter().map(peer).collect()),
        ports: (!rule.ports.is_empty()).then(|| {
            rule.ports.iter().map(|p| port(IntOrString::Int(p.port), &format!("{:?}", p.protocol))).collect()
        }),
    }));
    rules
}

fn port(port: IntOrString, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(port), protocol: Some(protocol.into()), end_port: None }
}

/// The gateway's pods: whoever may call them is judged there.
fn gateways(namespace: &str) -> NetworkPolicyPeer {
    let label = |key: &str, value: &str| {
        let labels = [(key.to_owned(), value.to_owned())].into();
        Some(LabelSelector { match_labels: Some(labels), match_expressions: None })
    };
    NetworkPolicyPeer {
        pod_selector: label(names::LABEL_COMPONENT, names::COMPONENT_GATEWAY),
        namespace_selector: label(names::LABEL_NAMESPACE, namespace),
        ip_block: None,
    }
}

fn peer(peer: &api::Peer) -> NetworkPolicyPeer {
    let labels = |s: &api::Selector| LabelSelector {
        match_labels: (!s.match_labels.is_empty()).then(|| s.match_labels.clone()),
        match_expressions: None,
    };
    NetworkPolicyPeer {
        pod_selector: peer.pod_selector.as_ref().map(labels),
        namespace_selector: peer.namespace_selector.as_ref().map(labels),
        ip_block: peer.ip_block.as_ref().map(|b| IPBlock {
            cidr: b.cidr.clone(),
            except: (!b.except.is_empty()).then(|| b.except.clone()),
        }),
    }
}
