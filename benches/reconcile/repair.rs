//! Somebody changes what the operator owns; how long until it is back.

use std::time::{Duration, Instant};

use anyhow::bail;
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use mcp_fleet::operator::children::ChildKind;
use serde_json::{Value, json};

use super::{bench::Bench, fleets};

/// Longest wait for a repair.
const LIMIT: Duration = Duration::from_secs(30);
/// How often the object is looked at; the repair is at most so much faster than it is said to be.
const LOOK: Duration = Duration::from_millis(10);

struct Change {
    kind: ChildKind,
    suffix: &'static str,
    /// Pointer to the field.
    field: &'static str,
    /// A merge patch that spoils it.
    patch: Value,
}

fn change(kind: ChildKind, field: &'static str, patch: Value) -> Change {
    Change { kind, suffix: "", field, patch }
}

fn changes() -> Vec<Change> {
    use ChildKind::{
        Deployment, HorizontalPodAutoscaler, NetworkPolicy, PodDisruptionBudget, Service, ServiceAccount,
    };
    let port = json!({"spec": {"ports": [{"name": "http", "port": 81, "targetPort": 9, "protocol": "TCP"}]}});
    let container = |field: Value| {
        // The list is replaced as a whole by a merge patch; what the server needs is here.
        let mut container = json!({"name": "server", "image": "registry.example/server:2"});
        container
            .as_object_mut()
            .into_iter()
            .for_each(|c| c.extend(field.as_object().cloned().unwrap_or_default()));
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    };
    vec![
        change(Service, "/spec/selector", json!({"spec": {"selector": {"mcpfleet.io/fleet": "another"}}})),
        change(Service, "/spec/ports/0/port", port.clone()),
        change(Service, "/spec/sessionAffinity", json!({"spec": {"sessionAffinity": "ClientIP"}})),
        Change { suffix: "-headless", ..change(Service, "/spec/ports/0/port", port) },
        change(Deployment, "/spec/template/spec/containers/0/image", container(json!({"image": "evil:1"}))),
        change(Deployment, "/spec/replicas", json!({"spec": {"replicas": 3}})),
        change(Deployment, "/spec/template/spec/containers/0/resources", container(json!({"resources": {}}))),
        change(Deployment, "/metadata/ownerReferences", json!({"metadata": {"ownerReferences": null}})),
        change(HorizontalPodAutoscaler, "/spec/maxReplicas", json!({"spec": {"maxReplicas": 99}})),
        change(
            HorizontalPodAutoscaler,
            "/spec/scaleTargetRef",
            json!({"spec": {"scaleTargetRef": {"name": "another"}}}),
        ),
        change(PodDisruptionBudget, "/spec/maxUnavailable", json!({"spec": {"maxUnavailable": 77}})),
        change(NetworkPolicy, "/spec/ingress", json!({"spec": {"ingress": [{}]}})),
        change(
            NetworkPolicy,
            "/spec/podSelector",
            json!({"spec": {"podSelector": {"matchLabels": {"mcpfleet.io/fleet": "x"}}}}),
        ),
        change(
            ServiceAccount,
            "/automountServiceAccountToken",
            json!({"automountServiceAccountToken": true}),
        ),
        change(
            ServiceAccount,
            "/metadata/labels",
            json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}),
        ),
    ]
}

/// Changes one field after the other, each on a fleet of its own that is at rest.
pub async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    bench.say("repair of owned fields");
    let mut times = Vec::new();
    for (i, change) in changes().into_iter().enumerate() {
        let what = format!("{}{} {}", change.kind, change.suffix, change.field);
        match repaired(bench, i % bench.settings.n, &change).await? {
            Some(took) => times.push((took.as_secs_f64(), what)),
            None => times.push((f64::INFINITY, what)),
        }
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let list: Vec<String> = times.iter().map(|(t, what)| format!("{what} {:.0} ms", t * 1000.0)).collect();
    bench.report.row(format!("repair of {} fields", times.len()), list.join(", "));
    let worst = times.last().map_or(f64::INFINITY, |t| t.0);
    bench.report.at_most("repair of an owned field, slowest", 1.0, worst, "s", 2);
    Ok(())
}

/// Time from the answer to the change until the field is as it was; none after 30 s.
async fn repaired(bench: &Bench, i: usize, change: &Change) -> anyhow::Result<Option<Duration>> {
    let (namespace, fleet) = fleets::place("op", i);
    let prefix = if change.kind == ChildKind::ServiceAccount { "mcp-" } else { "" };
    let name = format!("{prefix}{fleet}{}", change.suffix);
    let api: Api<DynamicObject> =
        Api::namespaced_with(bench.pool.any(), &namespace, &change.kind.api_resource());
    let read = async || {
        let object = serde_json::to_value(api.get(&name).await?)?;
        Ok::<_, anyhow::Error>(object.pointer(change.field).cloned())
    };
    let before = read().await?;
    let params = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    let spoiled = serde_json::to_value(api.patch(&name, &params, &Patch::Merge(&change.patch)).await?)?;
    let start = Instant::now();
    if spoiled.pointer(change.field).cloned() == before {
        bail!("{} {name}: the patch did not change {}", change.kind, change.field);
    }
    while start.elapsed() < LIMIT {
        if read().await? == before {
            return Ok(Some(start.elapsed()));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(None)
}
