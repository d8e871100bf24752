//! The policy and the gateway's limits of a fleet's manifest, as the operator would resolve them.

use serde_json::Value;

use super::world::{Limits, Micros, SECOND};
use crate::{
    api::{
        crd::mcpfleet_crd,
        v1alpha1::{AutoscalingSpec, McpFleet},
    },
    autoscale::policy::Policy,
    domain::{Problem, Tree},
    operator::validate::{Invalid, Scaling, validate},
};

/// Why a manifest cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// It is no McpFleet.
    #[error("it is not the YAML of an McpFleet")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The API server would drop these fields, and `kubectl` refuses them.
    #[error("{}", joined(.0))]
    UnknownFields(Vec<Problem>),
    /// The operator would refuse it.
    #[error("the operator would refuse it")]
    Invalid(#[from] Invalid),
    /// Its scale is not ours to decide.
    #[error("spec.autoscaling asks for nothing that the gateways measure: {0}")]
    NotOurs(&'static str),
}

/// Reads a manifest. Of what the API server fills in, only what matters here is added.
pub(super) fn read(yaml: &str) -> Result<(Policy, Limits), FleetError> {
    let mut fleet = parse(yaml)?;
    fleet.metadata.namespace.get_or_insert_with(|| "default".into());
    fleet.metadata.uid.get_or_insert_with(|| super::world::FLEET.into());
    fleet.metadata.generation.get_or_insert(1);
    let valid = validate(&fleet)?;
    let gateway = &valid.gateway;
    let defaults = Limits::default();
    // Without a limit the pods of the simulation have their own.
    let slots = u32::try_from(gateway.max_requests_per_pod).ok().filter(|n| *n > 0).unwrap_or(defaults.slots);
    let named = fleet.spec.autoscaling.as_ref().is_some_and(names_a_target);
    let limits = Limits {
        slots,
        target: Limits::target(slots),
        streams: defaults.streams,
        queue: usize::try_from(gateway.queue.capacity).unwrap_or(defaults.queue),
        queue_timeout: Micros::from(gateway.queue.timeout_seconds) * SECOND,
        drain: valid.drain_seconds_named.map_or(defaults.drain, |s| Micros::from(s) * SECOND),
    };
    match valid.scaling_if_served {
        Scaling::Mcp(mcp) => {
            let target =
                mcp.policy.signals.concurrency.filter(|_| named).map_or(limits.target, |c| c.per_pod);
            Ok((mcp.policy, Limits { target, ..limits }))
        }
        Scaling::Fixed => Err(FleetError::NotOurs("there is no autoscaling block")),
        Scaling::Native(_) => {
            Err(FleetError::NotOurs("cpu and memory alone go to an HPA without the operator"))
        }
        Scaling::Off(_) => Err(FleetError::NotOurs("the actuator is Off")),
    }
}

/// A typing error would otherwise be a policy that nobody asked for. What another version's status says is no error.
fn parse(yaml: &str) -> Result<McpFleet, FleetError> {
    let fleet = serde_saphyr::from_str(yaml).map_err(|e| FleetError::Unreadable(e.to_string().into()))?;
    let unreadable = |problem: Problem| FleetError::Unreadable(problem.to_string().into());
    let mut unknown = Tree::parse(yaml).map_err(unreadable)?.unknown_fields(&schema());
    unknown.retain(|problem| problem.at.starts_with("spec."));
    if unknown.is_empty() { Ok(fleet) } else { Err(FleetError::UnknownFields(unknown)) }
}

/// As the API server has it.
fn schema() -> Value {
    let mut versions = mcpfleet_crd().spec.versions.into_iter();
    let schema = versions.find_map(|version| version.schema?.open_api_v3_schema);
    serde_json::to_value(schema).unwrap_or_default()
}

fn joined(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A target that a person chose is everybody's.
fn names_a_target(spec: &AutoscalingSpec) -> bool {
    spec.metrics.concurrency.as_ref().is_some_and(|metric| metric.target.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(spec: &str) -> String {
        format!("apiVersion: mcpfleet.io/v1alpha1\nkind: McpFleet\nmetadata: {{name: a}}\nspec: {spec}\n")
    }

    #[test]
    fn a_manifest_becomes_a_policy() {
        let spec = "{server: {image: a}, autoscaling: {minReplicas: 3, maxReplicas: 9, metrics: {concurrency: \
                    {target: {averageValue: \"7\"}}}}, gateway: {maxRequestsPerPod: 10, queue: {capacity: 50}}}";
        let (policy, limits) = read(&yaml(spec)).unwrap();
        assert_eq!((policy.min, policy.max), (3, 9));
        assert!((policy.signals.concurrency.unwrap().per_pod - 7.0).abs() < 1e-9);
        assert_eq!((limits.slots, limits.queue), (10, 50));
        assert!((limits.target - 7.0).abs() < 1e-9, "named, so it is everybody's");
        let unnamed = "{server: {image: a}, autoscaling: {maxReplicas: 9}, gateway: {maxRequestsPerPod: 40}}";
        let (policy, limits) = read(&yaml(unnamed)).unwrap();
        assert!((policy.signals.concurrency.unwrap().per_pod - 34.0).abs() < 1e-9, "85 %");
        assert!((limits.target - 28.0).abs() < 1e-9, "70 %");
    }

    #[test]
    fn what_another_version_says_of_a_live_fleet_is_no_error() {
        let live = yaml("{server: {image: a}, autoscaling: {maxReplicas: 9}}") + "status: {later: 1}\n";
        assert_eq!(read(&live).unwrap().0.max, 9);
    }

    #[test]
    fn what_cannot_be_simulated_says_why() {
        let message = |text: &str| read(text).unwrap_err().to_string();
        assert!(message("[1]").contains("not the YAML of an McpFleet"));
        assert!(message(&yaml("{server: {image: \"\"}}")).contains("refuse"));
        assert!(message(&yaml("{server: {image: a}}")).contains("no autoscaling block"));
        let typos = "{server: {image: a, portt: 1}, autoscaling: {minReplcas: 1, behavior: {scaleDown: {window: 5}}}}";
        let told = message(&yaml(typos));
        for typo in [
            "line 4, column 27: spec.server.portt: there is no such field; did you mean port?",
            "spec.autoscaling.minReplcas: there is no such field; did you mean minReplicas?",
            "spec.autoscaling.behavior.scaleDown.window: there is no such field; there are policies,",
        ] {
            assert!(told.contains(typo), "{told}");
        }
    }
}
