//! R1, R2, R3: an operator that is killed at any moment, and started again, leaves what an undisturbed one
//! leaves. After that, and after a restart at rest, nothing is written.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject},
};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::sleep;

use crate::{
    common::{self, Child},
    samples::FULL,
    support::{
        Namespace, Suite, TestResult,
        operator::{self, Operator},
        wait,
    },
};

/// One for all runs: a failure comes again.
const SEED: u64 = 25;
const ROUNDS: usize = 20;
/// Longer than creating a fleet takes: from before the first write to after the last.
const LATEST_KILL_MS: u64 = 450;

/// Specifications that a fleet goes through; the last one is what counts.
fn life() -> Vec<String> {
    let minimal = |image: &str| format!("{{server: {{image: {image}}}, autoscaling: {{}}}}");
    vec![
        minimal("a"),
        "{server: {image: b, serviceAccountName: external}, networkPolicy: {enabled: false}, replicas: 4}".into(),
        FULL.replace("replicas: 3\n", ""),
        minimal("c"),
        "{server: {image: d, port: 9000}, service: {type: NodePort}, autoscaling: {maxReplicas: 5}, rollout: {drain: None}}".into(),
    ]
}

fn started(suite: &Suite, ns: &Namespace) -> Result<Operator, Failed> {
    Ok(common::own(suite, &ns.name)?.start(&suite.cluster)?)
}

async fn settled(
    suite: &Suite,
    ns: &Namespace,
    fleets: &[String],
) -> Result<BTreeMap<String, BTreeMap<Child, DynamicObject>>, Failed> {
    for fleet in fleets {
        common::wait_observed(ns, fleet).await?;
        ns.condition(fleet, "Accepted", "True", "Accepted").await?;
        // That of calls scales without an autoscaler of its own here: there is no metrics API.
        let n = if fleet == "full" { 6 } else { 7 };
        common::wait_children(ns, &suite.client, fleet, n).await?;
    }
    common::children(&suite.client, &ns.name).await
}

pub async fn a_killed_operator_leaves_no_trace(_: Arc<Suite>) -> TestResult {
    let suite = common::quiet();
    let (ns, calm) = (suite.namespace("crash").await?, suite.namespace("calm").await?);
    let mut random = StdRng::seed_from_u64(SEED);
    let life = life();
    let mark = suite.cluster.audit_log().mark()?;
    let fleets: Vec<String> = (0..3).map(|i| format!("weather-{i}")).collect();
    // Its fleets are deleted on the way, and made again.
    let fleeting: Api<McpFleet> = ns.api();
    for round in 0..ROUNDS {
        for (i, fleet) in fleets.iter().enumerate() {
            let spec = &life[(round + i) % life.len()];
            if fleeting.get_opt(fleet).await?.is_some() {
                ns.respec(fleet, spec).await?
            } else {
                ns.fleet(fleet, spec).await?
            };
        }
        let short_lived = format!("fleeting-{round}");
        ns.fleet(&short_lived, &life[round % life.len()]).await?;
        let mut operator = spawn_leader(&suite, &ns).await?;
        sleep(Duration::from_millis(random.random_range(0..LATEST_KILL_MS))).await;
        fleeting.delete(&short_lived, &DeleteParams::default()).await?;
        operator.kill();
    }
    let last = &life[0];
    for fleet in &fleets {
        ns.respec(fleet, last).await?;
    }
    let operator = spawn_leader(&suite, &ns).await?;
    let crashed = settled(&suite, &ns, &fleets).await?;
    let _calm_operator = started(&suite, &calm)?;
    calm.fleet("weather-0", last).await?;
    let reference = settled(&suite, &calm, &fleets[..1]).await?;
    let reference = common::comparable_children(&reference["weather-0"], "weather-0");
    for fleet in &fleets {
        let children = common::comparable_children(&crashed[fleet], fleet);
        for (name, right) in &reference {
            let mut left = children.get(name).cloned().unwrap_or_default();
            let mut right = right.clone();
            for value in [&mut left, &mut right] {
                // The scale is the autoscaler's, and lives on; the Deployment counts its generations.
                value.pointer_mut("/spec").and_then(|s| s.as_object_mut()).map(|s| s.remove("replicas"));
            }
            if let Some(how) = common::difference(&left, &right) {
                return Err(
                    format!("{fleet}: {name} differs from that of an undisturbed fleet at {how}").into()
                );
            }
        }
        assert_eq!(children.len(), reference.len(), "{:?}", children.keys());
    }
    // No name was made twice without being deleted in between: what exists, exists once and was made once.
    let creates = common::writes_since(&suite, mark, &ns.name)?.filter(|e| e.code == 201);
    let twice: Vec<_> =
        creates.summary().into_iter().filter(|(what, n)| *n > ROUNDS && what.contains("weather-")).collect();
    assert!(twice.is_empty(), "made again and again: {twice:?}");
    nothing_is_written(&suite, &ns, operator).await
}

/// Starts an operator that is about to write. The lease of a killed one would have to run out first; that it
/// does is the matter of `leadership`.
async fn spawn_leader(suite: &Suite, ns: &Namespace) -> Result<Operator, Failed> {
    let delete = ["delete", "lease", &ns.name, "-n", operator::NAMESPACE, "--ignore-not-found"];
    suite.kubectl(&delete)?;
    let operator = started(suite, ns)?;
    wait::until(
        "a leader",
        wait::LIMIT,
        async || if operator.is_leader() { Ok(()) } else { Err(operator.log()) },
    )
    .await?;
    Ok(operator)
}

/// R3 on this tier: at rest, and after a restart, no write on children or status.
async fn nothing_is_written(suite: &Suite, ns: &Namespace, mut operator: Operator) -> TestResult {
    sleep(Duration::from_secs(2)).await;
    let mark = suite.cluster.audit_log().mark()?;
    sleep(Duration::from_secs(3)).await;
    operator.terminate();
    let operator = spawn_leader(suite, ns).await?;
    wait::until("a pass over every fleet", wait::LIMIT, async || {
        let n = operator.metric("mcp_fleet_operator_reconciles_total");
        if n >= 3.0 { Ok(()) } else { Err(n.to_string()) }
    })
    .await?;
    sleep(Duration::from_secs(3)).await;
    let writes = common::writes_since(suite, mark, &ns.name)?;
    assert!(writes.is_empty(), "written at rest or after a restart: {:#?}", writes.summary());
    Ok(())
}

/// R3 for a fleet that says everything.
pub async fn a_restart_writes_nothing(_: Arc<Suite>) -> TestResult {
    let suite = common::quiet();
    let ns = suite.namespace("rest").await?;
    let operator = started(&suite, &ns)?;
    for fleet in ["one", "two"] {
        ns.fleet(fleet, "{server: {image: a}, autoscaling: {}}").await?;
    }
    ns.fleet("full", &FULL.replace("serviceAccountName: external", "")).await?;
    let names: Vec<String> = ["one", "two", "full"].map(str::to_owned).into();
    let before = settled(&suite, &ns, &names).await?;
    nothing_is_written(&suite, &ns, operator).await?;
    let after = common::children(&suite.client, &ns.name).await?;
    for (fleet, children) in before {
        for (child, object) in children {
            assert_eq!(after[&fleet][&child].resource_version(), object.resource_version(), "{child:?}");
        }
    }
    Ok(())
}
