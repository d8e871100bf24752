//! What should exist for a fleet: one file per generated kind. Pure.
//!
//! Objects are built as typed Kubernetes structs and leave here as JSON, because from here on only
//! comparing and sending is done with them.

mod deployment;
mod hpa;
mod inputs;
mod network_policy;
mod pdb;
mod pod;
mod probes;
mod service;
mod service_account;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

pub use deployment::{KeptTemplate, Replicas};

use super::{
    children::ChildKind,
    scaling::EffectiveActuator,
    validate::{Scaling, ValidatedFleet},
};
use crate::{
    api::{names, v1alpha1::IntOrPercent},
    autoscale::head_start::HeadStart,
};

/// What the operator's own configuration contributes to pods.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// Image with the drain helper.
    pub agent_image: String,
    /// Pull policy of that image.
    pub agent_image_pull_policy: String,
}

/// Facts about the live fleet that decide what is wanted.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The pod template that was applied last.
    pub kept_template: Option<KeptTemplate>,
    /// The Deployment's present replicas.
    pub deployment_replicas: Option<i32>,
    /// Somebody else's autoscaler targets the `McpFleet`.
    pub foreign_autoscaler: bool,
    /// Somebody else's autoscaler targets our Deployment.
    pub deployment_taken: bool,
    /// Who acts on our own decision, in effect.
    pub effective: EffectiveActuator,
    /// The HPA that stands takes steps of a tenth for noise.
    pub coarse_hpa: bool,
    /// What the Deployment gets before `spec.replicas` says so.
    pub ahead: Option<HeadStart>,
    /// That autoscaler has written the replicas, so they stay when we no longer name them.
    pub deployment_replicas_handed_over: bool,
}

/// One child that should exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Its kind.
    pub kind: ChildKind,
    /// Its name.
    pub name: String,
    /// The object as it is applied, without the hash.
    pub object: Value,
}

/// Everything that should exist, in the order in which it is written: what pods need comes first, so
/// that none starts against a stale state; the HPA is last, because it reads the fleet's status.
pub fn build(fleet: &ValidatedFleet, facts: &Facts, rendering: &Rendering) -> Vec<Desired> {
    let mut all = Vec::with_capacity(ChildKind::ALL.len());
    if fleet.server.service_account_name.is_none() {
        all.push(wanted(ChildKind::ServiceAccount, service_account::build(fleet)));
    }
    all.push(wanted(ChildKind::Service, service::build(fleet)));
    all.push(wanted(ChildKind::Service, service::build_headless(fleet)));
    if fleet.network_policy.enabled {
        all.push(wanted(ChildKind::NetworkPolicy, network_policy::build(fleet)));
    }
    all.push(wanted(ChildKind::PodDisruptionBudget, pdb::build(fleet)));
    all.push(wanted(ChildKind::Deployment, deployment::build(fleet, facts, rendering)));
    if !facts.foreign_autoscaler && !facts.deployment_taken {
        let hpa = match &fleet.scaling {
            Scaling::Native(settings) => Some(hpa::native(fleet, settings)),
            Scaling::Mcp(mcp) if facts.effective == EffectiveActuator::Hpa => {
                Some(hpa::of_decision(fleet, mcp, facts.coarse_hpa))
            }
            Scaling::Mcp(_) | Scaling::Fixed | Scaling::Off(_) => None,
        };
        all.extend(hpa.map(|hpa| wanted(ChildKind::HorizontalPodAutoscaler, hpa)));
    }
    all
}

fn wanted<K: kube::Resource<DynamicType = ()> + serde::Serialize>(kind: ChildKind, object: K) -> Desired {
    let name = object.meta().name.clone().unwrap_or_default();
    // The types of k8s-openapi serialise without error and with apiVersion and kind.
    Desired { kind, name, object: serde_json::to_value(object).unwrap_or_default() }
}

/// Labels of every child.
fn labels(fleet: &ValidatedFleet) -> BTreeMap<String, String> {
    [
        (names::LABEL_FLEET, fleet.name.as_str()),
        (names::LABEL_MANAGED_BY, names::MANAGED_BY),
        (names::LABEL_NAME, fleet.name.as_str()),
        (names::LABEL_COMPONENT, names::COMPONENT_SERVER),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

/// Metadata of a child: labels, and the owner reference that makes garbage collection clean up.
fn metadata(fleet: &ValidatedFleet, name: impl Into<String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(fleet.namespace.clone()),
        labels: Some(labels(fleet)),
        owner_references: Some(vec![OwnerReference {
            api_version: names::API_VERSION.into(),
            kind: names::KIND.into(),
            name: fleet.name.to_string(),
            uid: fleet.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

/// The fleet's label alone: other labels may change with versions, a selector may not.
fn selector(fleet: &ValidatedFleet) -> BTreeMap<String, String> {
    BTreeMap::from([(names::LABEL_FLEET.to_owned(), fleet.name.to_string())])
}

fn label_selector(fleet: &ValidatedFleet) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(fleet)), match_expressions: None }
}

/// The selector as the text of `status.selector`.
pub fn selector_text(fleet: &ValidatedFleet) -> String {
    format!("{}={}", names::LABEL_FLEET, fleet.name)
}

fn int_or_string(value: &IntOrPercent) -> IntOrString {
    match value {
        IntOrPercent::Int(n) => IntOrString::Int(*n),
        IntOrPercent::Percent(p) => IntOrString::String(p.clone()),
    }
}

#[cfg(test)]
mod tests;
