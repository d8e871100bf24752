//! The pod template: the user's server, restricted, with the drain helper beside it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapEnvSource, ConfigMapKeySelector, Container, ContainerPort, EnvFromSource, EnvVar,
    EnvVarSource, ExecAction, Lifecycle, LifecycleHandler, LocalObjectReference, ObjectFieldSelector,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceFieldSelector, ResourceRequirements,
    SeccompProfile, SecretEnvSource, SecretKeySelector, SecurityContext, SleepAction, Toleration,
    TopologySpreadConstraint, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta};

use super::{Rendering, label_selector, labels, probes, volumes};
use crate::{
    api::{
        names,
        v1alpha1::{self as api, Drain},
    },
    operator::validate::{DrainSettings, ValidatedFleet},
};

/// Least time that an ending pod waits: endpoints take so long to reach every client.
const PROPAGATION_SECONDS: i32 = 5;
/// Where the helper lies in our own image.
const AGENT_IN_IMAGE: &str = "/usr/local/bin/mcp-fleet-agent";

pub(super) fn build(fleet: &ValidatedFleet, rendering: &Rendering) -> PodTemplateSpec {
    let mut pod_labels = fleet.server.pod_labels.clone();
    pod_labels.extend(labels(fleet));
    let mut annotations = fleet.server.pod_annotations.clone();
    annotations.insert("kubectl.kubernetes.io/default-container".into(), names::CONTAINER_SERVER.into());
    if let Some(at) = &fleet.restarted_at {
        annotations.insert(names::ANNOTATION_RESTARTED_AT.into(), at.clone());
    }
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(fleet, rendering)),
    }
}

fn spec(fleet: &ValidatedFleet, rendering: &Rendering) -> PodSpec {
    let server = &fleet.server;
    let placement = &server.placement;
    PodSpec {
        service_account_name: Some(
            server.service_account_name.clone().unwrap_or_else(|| fleet.name.service_account()),
        ),
        automount_service_account_token: Some(server.automount_service_account_token),
        // A fleet called `mcp` would put MCP_PORT=tcp://… into every pod of its namespace.
        enable_service_links: Some(false),
        share_process_namespace: Some(server.share_process_namespace),
        termination_grace_period_seconds: Some(fleet.drain.grace_period_seconds()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(server.run_as_user),
            run_as_group: Some(server.run_as_group),
            fs_group: Some(server.fs_group.unwrap_or(server.run_as_group)),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        init_containers: (fleet.drain.mode == Drain::Await).then(|| vec![agent(rendering)]),
        containers: vec![container(fleet)],
        volumes: Some(volumes::volumes(fleet)),
        image_pull_secrets: some(
            server.image_pull_secrets.iter().map(|s| LocalObjectReference { name: s.name.clone() }).collect(),
        ),
        node_selector: (!placement.node_selector.is_empty()).then(|| placement.node_selector.clone()),
        tolerations: some(placement.tolerations.iter().map(toleration).collect()),
        affinity: placement.affinity.clone(),
        topology_spread_constraints: some(topology_spread(fleet)),
        priority_class_name: placement.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

/// Copies the helper into the pod. Requests stand here so that a quota never refuses the pod for it.
fn agent(rendering: &Rendering) -> Container {
    let amount = |cpu: &str, memory: &str| quantities([("cpu", cpu), ("memory", memory)]);
    Container {
        name: names::AGENT.into(),
        image: Some(rendering.agent_image.clone()),
        image_pull_policy: Some(rendering.agent_image_pull_policy.clone()),
        command: Some(vec![AGENT_IN_IMAGE.into(), "install".into(), names::AGENT_DIR.into()]),
        resources: Some(ResourceRequirements {
            requests: Some(amount("10m", "16Mi")),
            limits: Some(amount("100m", "32Mi")),
            ..ResourceRequirements::default()
        }),
        security_context: Some(restricted(true)),
        volume_mounts: Some(vec![VolumeMount {
            name: names::AGENT.into(),
            mount_path: names::AGENT_DIR.into(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn container(fleet: &ValidatedFleet) -> Container {
    let server = &fleet.server;
    Container {
        name: names::CONTAINER_SERVER.into(),
        image: Some(server.image.clone()),
        image_pull_policy: server.image_pull_policy.map(|p| p.as_str().to_owned()),
        command: some(server.command.clone()),
        args: some(server.args.clone()),
        env: Some(environment(server)),
        env_from: some(server.env_from.iter().map(env_from).collect()),
        ports: Some(vec![ContainerPort {
            name: Some(names::PORT_NAME.into()),
            container_port: server.port,
            protocol: Some("TCP".into()),
            ..ContainerPort::default()
        }]),
        resources: Some(ResourceRequirements {
            requests: Some(quantities(fleet.resources.requests.iter())),
            limits: Some(quantities(fleet.resources.limits.iter())),
            ..ResourceRequirements::default()
        }),
        startup_probe: Some(probes::startup(server)),
        readiness_probe: Some(probes::readiness(server)),
        liveness_probe: Some(probes::liveness(server)),
        lifecycle: pre_stop(fleet.drain, server.port),
        security_context: Some(restricted(server.read_only_root_filesystem)),
        volume_mounts: Some(volumes::mounts(fleet)),
        ..Container::default()
    }
}

fn pre_stop(drain: DrainSettings, port: i32) -> Option<Lifecycle> {
    let handler = match drain.mode {
        Drain::None => return None,
        Drain::Sleep => LifecycleHandler {
            sleep: Some(SleepAction { seconds: i64::from(drain.timeout_seconds) }),
            ..LifecycleHandler::default()
        },
        Drain::Await => {
            let command = [
                &format!("{}/{}", names::AGENT_DIR, names::AGENT),
                "await-drain",
                "--port",
                &port.to_string(),
                "--min-seconds",
                &PROPAGATION_SECONDS.to_string(),
                "--timeout-seconds",
                &drain.timeout_seconds.to_string(),
            ];
            let command = command.into_iter().map(str::to_owned).collect();
            LifecycleHandler {
                exec: Some(ExecAction { command: Some(command) }),
                ..LifecycleHandler::default()
            }
        }
    };
    Some(Lifecycle { pre_stop: Some(handler), ..Lifecycle::default() })
}

/// Pod Security `restricted`, spelled out.
fn restricted(read_only_root_filesystem: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(read_only_root_filesystem),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

fn environment(server: &api::ServerSpec) -> Vec<EnvVar> {
    let mut env: Vec<EnvVar> = server.env.iter().map(variable).collect();
    // The user id has no entry in most images' passwd, so HOME would be `/`, which is read-only.
    if !server.env.iter().any(|e| e.name == "HOME") {
        env.push(EnvVar { name: "HOME".into(), value: Some("/tmp".into()), value_from: None });
    }
    env
}

fn variable(env: &api::EnvVar) -> EnvVar {
    EnvVar {
        name: env.name.clone(),
        value: env
            .value
            .clone()
            .or_else(|| env.value_from.is_none().then(String::new))
            .filter(|v| !v.is_empty()),
        value_from: env.value_from.as_ref().map(|from| EnvVarSource {
            config_map_key_ref: from.config_map_key_ref.as_ref().map(|r| ConfigMapKeySelector {
                name: r.name.clone(),
                key: r.key.clone(),
                optional: r.optional.then_some(true),
            }),
            secret_key_ref: from.secret_key_ref.as_ref().map(|r| SecretKeySelector {
                name: r.name.clone(),
                key: r.key.clone(),
                optional: r.optional.then_some(true),
            }),
            field_ref: from.field_ref.as_ref().map(|r| ObjectFieldSelector {
                api_version: Some("v1".into()),
                field_path: r.field_path.clone(),
            }),
            resource_field_ref: from.resource_field_ref.as_ref().map(|r| ResourceFieldSelector {
                container_name: None,
                resource: r.resource.clone(),
                divisor: Some(Quantity(r.divisor.as_ref().map_or_else(|| "0".to_owned(), |d| d.0.clone()))),
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn env_from(source: &api::EnvFromSource) -> EnvFromSource {
    EnvFromSource {
        prefix: source.prefix.clone().filter(|p| !p.is_empty()),
        config_map_ref: source
            .config_map_ref
            .as_ref()
            .map(|r| ConfigMapEnvSource { name: r.name.clone(), optional: r.optional.then_some(true) }),
        secret_ref: source
            .secret_ref
            .as_ref()
            .map(|r| SecretEnvSource { name: r.name.clone(), optional: r.optional.then_some(true) }),
    }
}

fn toleration(t: &api::Toleration) -> Toleration {
    Toleration {
        key: t.key.clone(),
        operator: t.operator.map(|o| format!("{o:?}")),
        value: t.value.clone(),
        effect: t.effect.map(|e| format!("{e:?}")),
        toleration_seconds: t.toleration_seconds,
    }
}

fn topology_spread(fleet: &ValidatedFleet) -> Vec<TopologySpreadConstraint> {
    let spread = &fleet.server.placement.topology_spread;
    let constraint = |key: &String| TopologySpreadConstraint {
        topology_key: key.clone(),
        max_skew: spread.max_skew,
        when_unsatisfiable: spread.when_unsatisfiable.as_str().into(),
        label_selector: Some(label_selector(fleet)),
        // Each revision spreads by itself; else a rollout would count the pods that it replaces.
        match_label_keys: Some(vec!["pod-template-hash".into()]),
        ..TopologySpreadConstraint::default()
    };
    spread.topology_keys.iter().map(constraint).collect()
}

fn quantities<K: Into<String> + Clone, V: Into<String> + Clone>(
    pairs: impl IntoIterator<Item = (K, V)>,
) -> BTreeMap<String, Quantity> {
    pairs.into_iter().map(|(k, v)| (k.into(), Quantity(v.into()))).collect()
}

/// An empty list is left out: the API server does the same.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
