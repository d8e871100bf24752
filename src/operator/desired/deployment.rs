//! The Deployment, and the pod template that it keeps over upgrades of the product.
//!
//! A new version of the operator may render another template. It must not: running fleets would be
//! replaced without anybody asking. So the template that was applied last stays on the Deployment as an
//! annotation, and is used until the fleet's own fields change (operator.md section 1).

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::{Facts, Rendering, inputs, int_or_string, label_selector, metadata, pod};
use crate::{
    api::names, autoscale::head_start::HeadStart, operator::hash::digest, operator::validate::ValidatedFleet,
};

/// Old ReplicaSets that stay for a look back; every one is an object to store.
const REVISION_HISTORY: i32 = 3;

/// The pod template that was applied last, as its Deployment's annotations have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTemplate {
    /// The template as JSON.
    pub template: String,
    /// Hash of the fields that it was rendered from, and of the template itself.
    pub inputs: String,
}

/// How many replicas the Deployment gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// This many.
    Set(i32),
    /// Somebody else's autoscaler sets them on the Deployment itself.
    LeftAlone,
}

impl Replicas {
    /// From the fleet and what is live.
    pub fn of(fleet: &ValidatedFleet, facts: &Facts) -> Self {
        if facts.deployment_taken {
            // A field that we no longer name falls back to 1 as long as nobody else owns it.
            return match facts.deployment_replicas {
                Some(n) if !facts.deployment_replicas_handed_over => Self::Set(n),
                _ => Self::LeftAlone,
            };
        }
        let set = |spec| HeadStart::replicas(facts.ahead, spec);
        Self::Set(fleet.replicas.map_or_else(|| fleet.seed(facts.deployment_replicas), set))
    }
}

pub(super) fn build(fleet: &ValidatedFleet, facts: &Facts, rendering: &Rendering) -> Deployment {
    let fields = inputs::digest_of(fleet);
    let (template, json) =
        kept(facts.kept_template.as_ref(), &fields).filter(|(t, _)| fits(t, fleet)).unwrap_or_else(|| {
            let fresh = pod::build(fleet, rendering);
            let json = serde_json::to_string(&fresh).unwrap_or_default();
            (fresh, json)
        });
    let mut metadata = metadata(fleet, fleet.name.as_str());
    metadata.annotations = Some(
        [
            (names::ANNOTATION_POD_TEMPLATE_INPUTS.to_owned(), inputs_value(&fields, &json)),
            (names::ANNOTATION_POD_TEMPLATE.to_owned(), json),
        ]
        .into(),
    );
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: match Replicas::of(fleet, facts) {
                Replicas::Set(n) => Some(n),
                Replicas::LeftAlone => None,
            },
            selector: label_selector(fleet),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(int_or_string(&fleet.rollout.max_surge)),
                    max_unavailable: Some(int_or_string(&fleet.rollout.max_unavailable)),
                }),
            }),
            progress_deadline_seconds: Some(fleet.rollout.progress_deadline_seconds),
            revision_history_limit: Some(REVISION_HISTORY),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// The kept template, if it was rendered from these very fields and nobody touched it since.
fn kept(kept: Option<&KeptTemplate>, fields: &str) -> Option<(PodTemplateSpec, String)> {
    let kept = kept?;
    if kept.inputs != inputs_value(fields, &kept.template) {
        return None;
    }
    serde_json::from_str(&kept.template).ok().map(|template| (template, kept.template.clone()))
}

/// Whether a kept template drains as long as the fleet says. The hash of the inputs cannot tell a named drain
/// time from the default before the gateway, with which the pods may have been made.
fn fits(template: &PodTemplateSpec, fleet: &ValidatedFleet) -> bool {
    let grace = template.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    fleet.drain_seconds_named.is_none() || grace == Some(fleet.drain.grace_period_seconds())
}

fn inputs_value(fields: &str, template: &str) -> String {
    format!("{fields}.{}", digest(template.as_bytes()))
}
