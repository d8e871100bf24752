//! Raw object → [`ValidatedFleet`]: the second step of a reconcile. Pure.
//!
//! Admission has rejected almost everything that is checked here; an object that was stored under
//! another version of the schema has not. Nothing after this step sees the raw specification.

mod autoscaling;

use std::collections::BTreeMap;

use kube::ResourceExt;

use crate::{
    api::{
        names,
        v1alpha1::{
            DisruptionSpec, Drain, GatewaySpec, IntOrPercent, McpFleet, McpFleetSpec, NetworkPolicySpec,
            Quantity, ServerSpec, ServiceSpec, Transport,
        },
    },
    domain::{
        FleetKey, FleetName, InvalidName, InvalidQuantity, InvalidRange, canonical_quantity,
        compare_quantities,
    },
};

pub use autoscaling::{HpaSettings, McpScaling, Scaling};

/// Seconds that the server has between SIGTERM and SIGKILL, after the drain.
pub const STOP_SECONDS: i64 = 30;
/// Drain time of a fleet without the gateway: clients that keep idle connections hold a pod so long.
pub const DRAIN_SECONDS: i32 = 60;
/// Drain time of a fleet behind the gateway, which holds a pod only as long as there is work.
pub const DRAIN_SECONDS_WITH_GATEWAY: i32 = 300;
/// Replicas of a fleet that says nothing about them.
const DEFAULT_REPLICAS: i32 = 2;

/// Why a specification cannot be used. The text goes into the condition `Accepted`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// The name cannot be that of a Service.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Bounds of the scale exclude each other.
    #[error(transparent)]
    Range(#[from] InvalidRange),
    /// An amount cannot be read.
    #[error("spec.server.{field}: {source}")]
    Quantity {
        /// Where it stands.
        field: String,
        /// What is wrong with it.
        source: InvalidQuantity,
    },
    /// A request is greater than its limit.
    #[error(
        "spec.server.resources: the request of {0} is greater than its limit; lower the request or raise the limit"
    )]
    RequestOverLimit(String),
    /// Scaling that cannot be done as it is asked for.
    #[error("spec.autoscaling.{field}: {problem}")]
    Autoscaling {
        /// Where it stands.
        field: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The image is missing.
    #[error("spec.server.image is empty; name the image of the MCP server")]
    Image,
    /// The object does not have the shape of the schema that this version knows.
    #[error("the object cannot be read: {0}; was the CustomResourceDefinition of another version applied?")]
    Unreadable(String),
    /// The object has no namespace, UID or generation: it does not come from an API server.
    #[error("the object has no {0}; it does not come from an API server")]
    Metadata(&'static str),
}

/// How pods are replaced, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Pods above the wanted number.
    pub max_surge: IntOrPercent,
    /// Pods below the wanted number.
    pub max_unavailable: IntOrPercent,
    /// Seconds without progress after which it counts as stuck.
    pub progress_deadline_seconds: i32,
}

/// How an ending pod is drained, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// Mechanism.
    pub mode: Drain,
    /// Longest drain, in seconds.
    pub timeout_seconds: i32,
}

impl DrainSettings {
    /// The pod's grace period: the drain, then the time of the server's own shutdown.
    pub fn grace_period_seconds(self) -> i64 {
        match self.mode {
            Drain::None => STOP_SECONDS,
            Drain::Await | Drain::Sleep => i64::from(self.timeout_seconds) + STOP_SECONDS,
        }
    }
}

/// Requests and limits, complete and in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedResources {
    /// Set aside.
    pub requests: BTreeMap<String, String>,
    /// At most.
    pub limits: BTreeMap<String, String>,
}

/// The gateway that carries a fleet's traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedBy {
    /// Where clients reach the fleet through it.
    pub url: String,
    /// Namespace of its pods.
    pub namespace: String,
}

/// A fleet whose every field can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedFleet {
    /// Name.
    pub name: FleetName,
    /// Namespace.
    pub namespace: String,
    /// UID: names are not unique over time.
    pub uid: String,
    /// Generation of the specification.
    pub generation: i64,
    /// What the specification says of replicas.
    pub replicas: Option<i32>,
    /// Who changes the scale.
    pub scaling: Scaling,
    /// Who would, if a gateway served the fleet; see `gateway::Install::bind`.
    pub scaling_if_served: Scaling,
    /// The server, with canonical quantities.
    pub server: ServerSpec,
    /// Requests and limits with their defaults.
    pub resources: ValidatedResources,
    /// The Service.
    pub service: ServiceSpec,
    /// Replacement of pods.
    pub rollout: Rollout,
    /// End of a pod.
    pub drain: DrainSettings,
    /// Voluntary disruptions.
    pub disruption: DisruptionSpec,
    /// Traffic.
    pub network_policy: NetworkPolicySpec,
    /// What the gateway is asked to do.
    pub gateway: GatewaySpec,
    /// The gateway that does it; see `gateway::Install::bind`.
    pub served_by: Option<ServedBy>,
    /// The drain time that the specification names.
    pub drain_seconds_named: Option<i32>,
    /// Asked for by a person: pods are replaced when it changes.
    pub restarted_at: Option<String>,
}

impl ValidatedFleet {
    /// Namespace and name.
    pub fn key(&self) -> FleetKey {
        FleetKey::new(&self.namespace, self.name.as_str())
    }

    /// Replicas where nothing is known yet: the Deployment's, else the least, else two.
    pub fn seed(&self, deployment: Option<i32>) -> i32 {
        // A fleet that may go to zero starts all the same: nobody has said yet that it is idle.
        let least = self.scaling.range().map_or(DEFAULT_REPLICAS, |range| range.min().max(1));
        deployment.unwrap_or(least)
    }

    /// Where clients reach the fleet: through the gateway, else at its Service.
    pub fn url(&self) -> String {
        if let Some(gateway) = &self.served_by {
            return gateway.url.clone();
        }
        let port = match self.service.port {
            80 => String::new(),
            port => format!(":{port}"),
        };
        let path = match self.server.transport {
            Transport::SSE if self.server.path == "/mcp" => "/sse",
            _ => &self.server.path,
        };
        format!("http://{}.{}.svc{port}{path}", self.name, self.namespace)
    }
}

/// Checks an object and resolves its defaults.
pub fn validate(fleet: &McpFleet) -> Result<ValidatedFleet, Invalid> {
    let spec = &fleet.spec;
    if spec.server.image.trim().is_empty() {
        return Err(Invalid::Image);
    }
    let mut server = spec.server.clone();
    canonicalise_volumes(&mut server)?;
    Ok(ValidatedFleet {
        name: FleetName::parse(&fleet.name_any())?,
        namespace: fleet.namespace().ok_or(Invalid::Metadata("namespace"))?,
        uid: fleet.uid().ok_or(Invalid::Metadata("uid"))?,
        generation: fleet.metadata.generation.ok_or(Invalid::Metadata("generation"))?,
        replicas: spec.replicas,
        scaling: scaling(spec, false)?,
        scaling_if_served: scaling(spec, true)?,
        resources: resources(&server)?,
        server,
        service: spec.service.clone(),
        rollout: Rollout {
            max_surge: spec.rollout.max_surge.clone(),
            max_unavailable: spec.rollout.max_unavailable.clone(),
            progress_deadline_seconds: spec.rollout.progress_deadline_seconds,
        },
        drain: DrainSettings {
            mode: spec.rollout.drain,
            timeout_seconds: spec.rollout.drain_timeout_seconds.unwrap_or(DRAIN_SECONDS),
        },
        disruption: spec.disruption.clone(),
        network_policy: spec.network_policy.clone(),
        gateway: spec.gateway.clone(),
        served_by: None,
        drain_seconds_named: spec.rollout.drain_timeout_seconds,
        restarted_at: fleet.annotations().get(names::ANNOTATION_RESTARTED_AT).cloned(),
    })
}

fn scaling(spec: &McpFleetSpec, served: bool) -> Result<Scaling, Invalid> {
    let Some(autoscaling) = &spec.autoscaling else { return Ok(Scaling::Fixed) };
    autoscaling::resolve(autoscaling, &spec.gateway, served)
}

/// Defaults of the field's guides: 250m/256Mi to 500m/512Mi. What is named replaces the default of that
/// name; a default never contradicts what is named.
fn resources(server: &ServerSpec) -> Result<ValidatedResources, Invalid> {
    let canonical = |kind: &str, map: &BTreeMap<String, Quantity>| {
        map.iter()
            .map(|(name, q)| match canonical_quantity(&q.0) {
                Ok(q) => Ok((name.clone(), q)),
                Err(source) => Err(Invalid::Quantity { field: format!("resources.{kind}.{name}"), source }),
            })
            .collect::<Result<BTreeMap<_, _>, _>>()
    };
    let mut requests = canonical("requests", &server.resources.requests)?;
    let mut limits = canonical("limits", &server.resources.limits)?;
    for (name, request, limit) in [("cpu", "250m", "500m"), ("memory", "256Mi", "512Mi")] {
        let less = |a: &str, b: &str| compare_quantities(a, b).is_ok_and(std::cmp::Ordering::is_lt);
        let (default_request, default_limit) = match (requests.get(name), limits.get(name)) {
            (None, Some(limit)) if less(limit, request) => (limit.clone(), limit.clone()),
            (Some(request), None) if less(limit, request) => (request.clone(), request.clone()),
            _ => (request.to_owned(), limit.to_owned()),
        };
        requests.entry(name.into()).or_insert(default_request);
        limits.entry(name.into()).or_insert(default_limit);
    }
    for (name, request) in &requests {
        if let Some(limit) = limits.get(name)
            && compare_quantities(request, limit).is_ok_and(std::cmp::Ordering::is_gt)
        {
            return Err(Invalid::RequestOverLimit(name.clone()));
        }
    }
    Ok(ValidatedResources { requests, limits })
}

/// Quantities elsewhere in the server, for the same reason as those of the resources.
fn canonicalise_volumes(server: &mut ServerSpec) -> Result<(), Invalid> {
    let fix = |field: String, q: &mut Quantity| match canonical_quantity(&q.0) {
        Ok(canonical) => {
            q.0 = canonical;
            Ok(())
        }
        Err(source) => Err(Invalid::Quantity { field, source }),
    };
    for volume in &mut server.volumes {
        if let Some(limit) = volume.empty_dir.as_mut().and_then(|e| e.size_limit.as_mut()) {
            fix(format!("volumes[{}].emptyDir.sizeLimit", volume.name), limit)?;
        }
    }
    for env in &mut server.env {
        let field = env.value_from.as_mut().and_then(|v| v.resource_field_ref.as_mut());
        if let Some(divisor) = field.and_then(|f| f.divisor.as_mut()) {
            fix(format!("env[{}].valueFrom.resourceFieldRef.divisor", env.name), divisor)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::test_support::{fleet, validated};

    #[test]
    fn defaults_of_the_guides() {
        let v = validated("server: {image: a}");
        assert_eq!(v.resources.requests["cpu"], "250m");
        assert_eq!(v.resources.limits["memory"], "512Mi");
        assert_eq!((v.drain.timeout_seconds, v.drain.grace_period_seconds()), (60, 90));
        assert_eq!(v.scaling, Scaling::Fixed);
        assert_eq!(v.seed(None), 2);
        assert_eq!(v.url(), "http://weather.tools.svc/mcp");
    }

    #[test]
    fn a_default_never_contradicts_what_is_named() {
        let v = validated("server: {image: a, resources: {requests: {cpu: 2, memory: 1Gi}}}");
        assert_eq!((&*v.resources.limits["cpu"], &*v.resources.limits["memory"]), ("2", "1Gi"));
        let v = validated("server: {image: a, resources: {limits: {cpu: 100m, memory: 64Mi}}}");
        assert_eq!((&*v.resources.requests["cpu"], &*v.resources.requests["memory"]), ("100m", "64Mi"));
    }

    #[test]
    fn what_an_older_schema_let_through_is_named() {
        let error = |spec: &str| validate(&fleet(spec)).expect_err("invalid").to_string();
        assert!(error("{server: {image: ' '}}").contains("spec.server.image"));
        assert!(
            error("{server: {image: a}, autoscaling: {minReplicas: 9, maxReplicas: 3}}")
                .contains("minReplicas (9)")
        );
        let error = error("{server: {image: a, resources: {requests: {cpu: 3}, limits: {cpu: 2}}}}");
        assert!(error.contains("request of cpu"), "{error}");
    }
}
