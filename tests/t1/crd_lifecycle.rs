//! R25: the CRD comes late, goes away and comes back. The operator waits, says so, recovers, and never ends.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    common,
    samples::MINIMAL,
    support::{Suite, TestResult, install_crd, operator, wait},
};

/// A watch that fails is tried again after at most half a minute.
const RECOVERY: Duration = Duration::from_secs(45);

pub async fn the_operator_waits_for_the_crd(_: Arc<Suite>) -> TestResult {
    let suite = common::bare();
    operator::install_rights(&suite.cluster)?;
    let ns = suite.namespace("late").await?;
    let mut operator = common::own(&suite, &ns.name)?.spawn(&suite.cluster)?;
    wait::until("a report of the missing CRD", wait::LIMIT, async || {
        let log = operator.log();
        if log.contains("is the CRD installed?") { Ok(()) } else { Err(log) }
    })
    .await?;
    let unready = operator.get("/readyz").expect_err("not ready without the CRD").to_string();
    assert!(unready.contains("503") && unready.contains("McpFleet"), "{unready}");
    assert!(operator.get("/livez").is_ok(), "a restart would not help");
    install_crd(&suite.cluster)?;
    let start = Instant::now();
    operator.wait_ready(RECOVERY)?;
    ns.fleet("weather", MINIMAL).await?;
    common::wait_children(&ns, &suite.client, "weather", 6).await?;
    eprintln!("crd: ready and at work {:?} after the CRD came", start.elapsed());

    for round in ["first", "second"] {
        suite.kubectl(&["delete", "crd", "mcpfleets.mcpfleet.io", "--wait=true", "--timeout=60s"])?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        install_crd(&suite.cluster)?;
        let start = Instant::now();
        ns.fleet(round, MINIMAL).await?;
        wait::until(&format!("children after the {round} return"), RECOVERY, async || {
            let mut all = common::children(&suite.client, &ns.name).await.map_err(|e| format!("{e:?}"))?;
            let n = all.remove(round).unwrap_or_default().len();
            if n == 6 { Ok(()) } else { Err(format!("{n} children")) }
        })
        .await?;
        eprintln!("crd: at work {:?} after the CRD came back", start.elapsed());
    }
    assert_eq!(operator.try_wait(), None, "the operator ended: {}", operator.log());
    assert!(!operator.log().contains("panicked"), "{}", operator.log());
    Ok(())
}
