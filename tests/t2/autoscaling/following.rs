//! A real autoscaler of the controller-manager follows what gateways report, through the operator's metrics API.

use std::sync::Arc;

use libtest_mimic::Failed;

use super::{
    gateway::Flow,
    world::{FREE, World, autoscaling, only_the_hpa, scaled, scaling},
};
use crate::{
    look::{self, check},
    support::{Suite, TestResult},
};

pub async fn an_hpa_follows_the_load_up_and_down(_suite: Arc<Suite>) -> TestResult {
    let world = World::shared().await?;
    let ns = world.namespace("follow")?;
    let mark = world.cluster.audit_log().mark()?;
    world.fleet(&ns, "weather", &scaling("HPA", FREE), Flow::calls(15.0)).await?;
    scaled(&ns, "weather", 2).await?;
    ns.condition("weather", "MetricsAPIAvailable", "True", "Serving").await?;
    ns.condition("weather", "ScalingActive", "True", "ValidMetricFound").await?;
    world.call(&ns, "weather", Flow::calls(63.0)).await?;
    scaled(&ns, "weather", 7).await?;
    world.call(&ns, "weather", Flow::calls(25.0)).await?;
    let fleet = scaled(&ns, "weather", 3).await?;

    let writers = world.scale_writers(mark, &ns)?;
    check(only_the_hpa(&writers), || format!("the scale was written by {writers:?}"))?;
    let told = autoscaling(&fleet);
    check(told["effectiveActuator"] == "HPA", || told.to_string())?;
    events_say_why(&look::events(&ns, "weather").await?)?;
    let table = world.cluster.kubectl_ok(["-n", &ns.name, "get", "mcpfleet"])?;
    let mut lines = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let (head, row) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let column = |name: &str| head.iter().position(|h| *h == name).and_then(|i| row.get(i).copied());
    let utilization: f64 = column("UTIL").and_then(|u| u.parse().ok()).unwrap_or_default();
    // 25 calls where 30 would be at target.
    check((0.7..1.0).contains(&utilization) && column("DESIRED") == Some("3"), || table)
}

/// Each change has one line that says from where, to where, and because of what.
fn events_say_why(events: &[(String, String)]) -> Result<(), Failed> {
    let rescales: Vec<&str> = events
        .iter()
        .filter(|(reason, _)| reason == "SuccessfulRescale")
        .map(|(_, note)| note.as_str())
        .collect();
    let says =
        |from_to: &str, why: &str| rescales.iter().any(|note| note.contains(from_to) && note.contains(why));
    check(says("→7", "concurrency 6") && says("→3", "concurrency 2"), || format!("{events:?}"))
}
