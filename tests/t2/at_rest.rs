//! R3: where nothing changes, nothing is written and no status moves, resyncs included.

use std::{sync::Arc, time::Duration};

use kube::runtime::watcher;
use mcp_fleet::api::v1alpha1::McpFleet;

use crate::{
    look::{self, History, SERVER, check},
    support::{Suite, TestResult},
};

/// Longer than five resyncs of the suite's operator.
const REST: Duration = Duration::from_secs(61);

pub async fn nothing_is_written(suite: Arc<Suite>) -> TestResult {
    let operator = crate::operator(&suite);
    let ns = suite.namespace("rest").await?;
    let rich = "{server: {image: registry.example/weather:1, env: [{name: A, value: b}], \
        resources: {limits: {cpu: 1, memory: 1Gi}}, volumes: [{name: data, emptyDir: {sizeLimit: 1024Mi}}], \
        volumeMounts: [{name: data, mountPath: /data}], probes: {readiness: {type: HTTP, path: /health}}}, \
        autoscaling: {minReplicas: 3, metrics: {cpu: {}, memory: {}}}, service: {sessionAffinity: ClientIP}, \
        rollout: {drain: Sleep}, networkPolicy: {egress: {allow: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}}}";
    for (name, spec) in [
        ("plain", SERVER),
        ("scaled", &format!("{{{SERVER}, autoscaling: {{}}}}")),
        ("rich", rich),
        ("exposed", &format!("{{{SERVER}, service: {{type: NodePort}}}}")),
        ("zero", &format!("{{replicas: 0, {SERVER}}}")),
    ] {
        ns.fleet(name, spec).await?;
    }
    // A fleet in trouble is compared again as well.
    ns.fleet(
        "nowhere",
        "{replicas: 2, server: {image: registry.example/weather:1, nodeSelector: {disk: none}}}",
    )
    .await?;
    for name in ["plain", "scaled", "rich", "exposed"] {
        ns.condition(name, "Ready", "True", "Ready").await?;
        look::autoscaler_has_spoken(&ns, name).await?;
    }
    ns.condition("zero", "Ready", "True", "ScaledToZero").await?;
    ns.condition("nowhere", "Ready", "False", "Unschedulable").await?;
    // Words of a fleet that is under way wait for 15 s.
    look::quiet(&suite, &ns.name, 16).await?;

    let history: History<McpFleet> = History::of(ns.api(), watcher::Config::default()).await?;
    let (states, mark) = (history.len(), suite.cluster.audit_log().mark()?);
    let passes = operator.metric("mcp_fleet_operator_reconciles_total");
    tokio::time::sleep(REST).await;
    let passes = operator.metric("mcp_fleet_operator_reconciles_total") - passes;
    check(passes >= 24.0, || {
        format!("{passes} passes over six fleets in {REST:?}: the resync does not run")
    })?;
    let writes = look::writes(&suite, mark, &ns.name)?;
    check(writes.is_empty(), || format!("written at rest: {:?}", writes.summary()))?;
    check(history.len() == states, || format!("{} changes of fleets at rest", history.len() - states))
}
