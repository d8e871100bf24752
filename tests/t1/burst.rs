//! Many new fleets at once: what sets off little is made for nearly all before what sets off much for any.

use std::sync::Arc;

use kube::ResourceExt;
use libtest_mimic::Failed;
use mcp_fleet::operator::children::ChildKind;

use crate::{
    common,
    support::{Suite, TestResult, wait},
};

/// Fleets of the burst.
const N: usize = 40;
/// So many that have not had their first pass hold others for a second only (`operator/newcomers.rs`); each may lack
/// both Services.
const FEW: usize = 8;

/// Bursts, of which one has to go as it should: a machine that stands still for two seconds lets the others go, as a
/// webhook that hangs does.
const TRIES: usize = 3;

pub async fn new_fleets_get_their_services_before_any_deployment(_: Arc<Suite>) -> TestResult {
    let suite = common::quiet();
    let mut late = Vec::new();
    while late.last().is_none_or(|late| *late > 2 * FEW) {
        assert!(
            late.len() < TRIES,
            "so many of {} Services came after the first Deployment: {late:?}",
            2 * N
        );
        late.push(burst(&suite).await?);
    }
    eprintln!("burst: of {} Services so many came after the first Deployment: {late:?}", 2 * N);
    Ok(())
}

/// How many Services came after the first Deployment.
async fn burst(suite: &Suite) -> Result<usize, Failed> {
    let ns = suite.namespace("burst").await?;
    for i in 0..N {
        ns.fleet(&format!("fleet-{i}"), "{server: {image: a}, autoscaling: {}}").await?;
    }
    // As after a restore: the operator finds them all.
    let operator = common::own(suite, &ns.name)?.start(&suite.cluster)?;
    for i in 0..N {
        common::wait_children(&ns, &suite.client, &format!("fleet-{i}"), 7).await?;
    }
    // Nothing else writes on them here, so the version of an object is that of its creation.
    let versions = async |kind| -> Result<Vec<u64>, kube::Error> {
        let all = common::api(&suite.client, &ns.name, kind).list(&kube::api::ListParams::default()).await?;
        Ok(all.iter().filter_map(|o| o.resource_version()?.parse().ok()).collect())
    };
    let (services, deployments) =
        (versions(ChildKind::Service).await?, versions(ChildKind::Deployment).await?);
    assert_eq!((services.len(), deployments.len()), (2 * N, N));
    wait::until("nobody to be held", wait::LIMIT, async || {
        let held = operator.metric("mcp_fleet_operator_fleets_held");
        if held == 0.0 { Ok(()) } else { Err(format!("{held} fleets are held")) }
    })
    .await?;
    // One more comes alone.
    ns.fleet("late", "{server: {image: a}, autoscaling: {}}").await?;
    common::wait_children(&ns, &suite.client, "late", 7).await?;
    let first = deployments.iter().min();
    Ok(services.iter().filter(|version| Some(*version) > first).count())
}
