//! The Service that clients call, and the headless one that names each pod.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, selector};
use crate::{api::names, operator::validate::ValidatedFleet};

pub(super) fn build(fleet: &ValidatedFleet) -> Service {
    let service = &fleet.service;
    let mut metadata = metadata(fleet, fleet.name.as_str());
    metadata.annotations = (!service.annotations.is_empty()).then(|| service.annotations.clone());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(service.type_.as_str().into()),
            selector: Some(selector(fleet)),
            ports: Some(vec![ServicePort { node_port: service.node_port, ..port(service.port) }]),
            session_affinity: Some(service.session_affinity.as_str().into()),
            external_traffic_policy: service.external_traffic_policy.map(|p| format!("{p:?}")),
            load_balancer_class: service.load_balancer_class.clone(),
            load_balancer_source_ranges: (!service.load_balancer_source_ranges.is_empty())
                .then(|| service.load_balancer_source_ranges.clone()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Clients of pods by name dial the server's own port.
pub(super) fn build_headless(fleet: &ValidatedFleet) -> Service {
    Service {
        metadata: metadata(fleet, fleet.name.headless()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some("None".into()),
            selector: Some(selector(fleet)),
            ports: Some(vec![port(fleet.server.port)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The target is the port's name, so that pods of two revisions with two ports are both reached.
fn port(port: i32) -> ServicePort {
    ServicePort {
        name: Some(names::PORT_NAME.into()),
        port,
        target_port: Some(IntOrString::String(names::PORT_NAME.into())),
        protocol: Some("TCP".into()),
        app_protocol: Some("http".into()),
        ..ServicePort::default()
    }
}
