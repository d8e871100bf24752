//! The phases, in the order in which they run.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use mcp_fleet::api::v1alpha1::McpFleet;
use mcp_fleet_cluster::audit::Entry;
use serde_json::json;

use super::{
    audit::{Tail, by_kind, fleet_of, is_new_child, is_of_fleet, is_status, server_ms},
    bench::Bench,
    fleets::{self, N_CHILDREN},
    process::{Operator, cpu_seconds, memory_mb},
    report::quantile,
};

/// A fleet: namespace and name.
type Key = (String, String);

/// What the plain client needed.
pub struct Floor {
    seconds: f64,
}

/// A plain client makes the children of N fleets.
pub async fn floor(bench: &mut Bench) -> anyhow::Result<Floor> {
    let n = bench.settings.n;
    bench.say(&format!("plain client: {n} fleets without an operator"));
    let client = bench.pool.any();
    fleets::namespaces(&client, "floor").await?;
    let fleets = (0..n).map(|i| fleets::fleet("floor", i, &json!({}))).collect::<anyhow::Result<Vec<_>>>()?;
    let fleets_start = Instant::now();
    let children = bench.pool.each(fleets, fleets::create_with_scale).await?;
    bench
        .report
        .row("plain client: the fleets (create, status), not counted", seconds(fleets_start.elapsed()));
    let children: Vec<_> = children.into_iter().flatten().collect();
    let n_children = children.len();
    bench.say(&format!("plain client: their {n_children} children over 16 connections"));
    let (cpu, start) = (cpu_seconds(bench.settings.api_server), Instant::now());
    bench.pool.each(children, fleets::create_child).await?;
    let took = start.elapsed();
    bench.report.row(
        format!("plain client: {n_children} children"),
        format!(
            "{} ({:.0}/s; CPU of the API server {:.1} s)",
            seconds(took),
            n_children as f64 / took.as_secs_f64(),
            cpu_seconds(bench.settings.api_server) - cpu
        ),
    );
    bench.say(&format!("plain client: {}; clearing up", seconds(took)));
    fleets::delete_all(&client, "floor").await?;
    // The garbage collector and the endpoint controllers have the last word.
    tokio::time::sleep(Duration::from_secs(10)).await;
    Ok(Floor { seconds: took.as_secs_f64() })
}

/// The operator makes the children of N fleets that are applied at once.
pub async fn creation(bench: &mut Bench, operator: &Operator, floor: Floor) -> anyhow::Result<()> {
    let (n, api_server, pid) = (bench.settings.n, bench.settings.api_server, operator.pid());
    fleets::namespaces(&bench.pool.any(), "op").await?;
    let fleets = (0..n).map(|i| fleets::fleet("op", i, &json!({}))).collect::<anyhow::Result<Vec<_>>>()?;
    bench.report.row("operator: RSS at start", mb(memory_mb(pid).0));
    bench.say(&format!("operator: {n} fleets over 8 connections"));
    let mut tail = bench.tail()?;
    let (api_cpu, own_cpu) = (cpu_seconds(api_server), cpu_seconds(pid));
    let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let created: BTreeMap<Key, Duration> =
        bench.users.each(fleets, fleets::create).await?.into_iter().collect();
    let applied = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.saturating_sub(start);
    let complete = |tail: &Tail| tail.writes.iter().filter(|e| is_new_child(e)).count() >= n * N_CHILDREN;
    bench.until("all children", &mut tail, complete).await?;
    let last_child: BTreeMap<Key, Duration> = last_children(&tail.writes);
    let end = last_child.values().max().copied().unwrap_or_default();
    let took = end.saturating_sub(start).as_secs_f64();
    bench.report.row(
        "operator: all children exist after",
        format!(
            "{took:.1} s ({:.0}/s; the fleets alone were created in {}; CPU of the API server {:.1} s, of the operator {:.1} s)",
            (n * N_CHILDREN) as f64 / took,
            seconds(applied),
            cpu_seconds(api_server) - api_cpu,
            cpu_seconds(pid) - own_cpu,
        ),
    );
    bench
        .report
        .row("operator: from a fleet to its last child, p50, p99", percentiles(&created, &last_child));
    let early = tail.writes.iter().filter(|e| e.done <= end).cloned().collect::<Vec<_>>();
    bench.report.row("operator: milliseconds in the API server by kind", server_ms(&early));
    let before_last =
        |e: &&Entry| fleet_of(e).is_some_and(|f| last_child.get(&f).is_some_and(|last| e.done <= *last));
    let needed = counts(tail.writes.iter().filter(before_last));
    let rss = memory_mb(pid);
    bench.say(&format!("operator: {took:.1} s; waiting until it writes no more"));
    let settled = bench.settle(&mut tail).await?;
    bench.report.row("operator: writes no more, after the last child", seconds(settled));
    let total = counts(tail.writes.iter());
    bench.report.row("operator: writes per fleet until it is settled", per_fleet(&total, n));
    bench.report.row("operator: all its writes", by_kind(&tail.writes));
    bench.report.row("operator: events", tail.n_events.to_string());
    let after = memory_mb(pid);
    bench.report.row("operator: RSS when settled, most ever", format!("{}, {}", mb(after.0), mb(after.1)));
    bench.report.row("operator: CPU until settled", format!("{:.1} s", cpu_seconds(pid) - own_cpu));
    bench.report.at_most("time until all children exist / plain client", 1.5, took / floor.seconds, "", 2);
    let most = needed.values().max().copied().unwrap_or_default() as f64;
    bench.report.at_most(
        "writes of a fleet until its last child exists, most",
        (N_CHILDREN + 2) as f64,
        most,
        "",
        0,
    );
    let conflicts: Vec<Entry> = tail.writes.iter().filter(|e| e.code == 409).cloned().collect();
    bench.report.zero("conflicts (409)", conflicts.len(), &by_kind(&conflicts));
    bench.report.at_most("RSS after the creation", 60.0, rss.0.max(after.0), "MB", 1);
    Ok(())
}

/// Nothing changes, so nothing is written.
pub async fn rest(bench: &mut Bench) -> anyhow::Result<()> {
    bench.say("at rest for 30 s");
    let mut tail = bench.tail()?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    tail.read()?;
    bench.report.zero("writes in 30 s at rest", tail.writes.len() + tail.n_events, &by_kind(&tail.writes));
    Ok(())
}

/// A new process finds everything as it should be.
pub async fn restart(bench: &mut Bench, operator: Operator) -> anyhow::Result<Operator> {
    bench.say("restart of the operator");
    let mut tail = bench.tail()?;
    operator.stop()?;
    let start = Instant::now();
    let operator = bench.operator().await?;
    bench.report.row("restart: ready and leading after", seconds(start.elapsed()));
    bench.settle(&mut tail).await?;
    let memory = memory_mb(operator.pid());
    bench.report.row("restart: RSS after it, most ever", format!("{}, {}", mb(memory.0), mb(memory.1)));
    bench.report.zero("writes after a restart", tail.writes.len() + tail.n_events, &by_kind(&tail.writes));
    Ok(operator)
}

/// A new image in every fleet.
pub async fn image(bench: &mut Bench) -> anyhow::Result<()> {
    let n = bench.settings.n;
    bench.say(&format!("a new image in {n} fleets over 8 connections"));
    let mut tail = bench.tail()?;
    let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let patch = |client, i| async move {
        let (namespace, name) = fleets::place("op", i);
        let patch = json!({"spec": {"server": {"image": "registry.example/server:2"}}});
        let api: Api<McpFleet> = Api::namespaced(client, &namespace);
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    };
    bench.users.each((0..n).collect(), patch).await?;
    let is_deployment = |e: &&Entry| e.kind() == "deployments.apps";
    bench
        .until("all Deployments", &mut tail, |tail| tail.writes.iter().filter(is_deployment).count() >= n)
        .await?;
    let end = tail.writes.iter().filter(is_deployment).map(|e| e.done).max().unwrap_or_default();
    bench.report.row("new image: in all Deployments after", seconds(end.saturating_sub(start)));
    bench.settle(&mut tail).await?;
    bench.report.row("new image: all writes until settled", by_kind(&tail.writes));
    let children = counts(tail.writes.iter().filter(|e| !is_of_fleet(e)));
    let statuses = counts(tail.writes.iter().filter(|e| is_status(e)));
    bench.report.row("new image: status writes per fleet", per_fleet(&statuses, n));
    let most = |counts: &BTreeMap<Key, usize>| counts.values().max().copied().unwrap_or_default() as f64;
    bench.report.at_most("new image: writes of children, most of a fleet", 1.0, most(&children), "", 0);
    bench.report.at_most(
        "new image: status writes until settled, most of a fleet",
        2.0,
        most(&statuses),
        "",
        0,
    );
    Ok(())
}

/// New fleets beside twenty that never come up.
pub async fn hanging(bench: &mut Bench) -> anyhow::Result<()> {
    const N: usize = 20;
    let client = bench.pool.any();
    bench.settle(&mut bench.tail()?).await?;
    bench.say("new fleets, one after the other");
    let before = one_by_one(bench, "calm", N).await?;
    bench.say("20 fleets whose servers never get ready");
    fleets::namespaces(&client, "hung").await?;
    // No node has this label, so their pods stay as those of a server that hangs in its start: never ready.
    let hung = json!({"server": {"nodeSelector": {"example.org/no-such": "node"}}});
    let hung = (0..N).map(|i| fleets::fleet("hung", i, &hung)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut tail = bench.tail()?;
    bench.users.each(hung, fleets::create).await?;
    // What is asked is what they cost while they hang, and not while they are made.
    let made = |tail: &Tail| tail.writes.iter().filter(|e| is_new_child(e)).count() >= N * N_CHILDREN;
    bench.until("the children of those that hang", &mut tail, made).await?;
    bench.settle(&mut tail).await?;
    bench.say("new fleets beside them");
    let beside = one_by_one(bench, "beside", N).await?;
    bench.report.row(
        "a new fleet to its last child, median: calm, beside 20 that hang",
        format!("{:.0} ms, {:.0} ms", before * 1000.0, beside * 1000.0),
    );
    bench.report.at_most("a new fleet beside 20 that hang / without", 1.25, beside / before, "", 2);
    Ok(())
}

/// Median seconds from a fleet to its last child, each made after the one before.
async fn one_by_one(bench: &Bench, phase: &str, n: usize) -> anyhow::Result<f64> {
    fleets::namespaces(&bench.pool.any(), phase).await?;
    let mut times = Vec::with_capacity(n);
    for i in 0..n {
        let mut tail = bench.tail()?;
        let fleet = fleets::fleet(phase, i, &json!({}))?;
        let name = fleet.name_any();
        let (key, sent) = fleets::create(bench.users.any(), fleet).await?;
        let own = |tail: &Tail| {
            let own = tail.writes.iter().filter(|e| is_new_child(e) && fleet_of(e).as_ref() == Some(&key));
            own.cloned().collect::<Vec<_>>()
        };
        bench
            .until(&format!("the children of {name}"), &mut tail, |tail| own(tail).len() >= N_CHILDREN)
            .await?;
        let last = own(&tail).iter().map(|e| e.done).max().unwrap_or_default();
        times.push(last.saturating_sub(sent).as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(quantile(&times, 0.5))
}

fn last_children(writes: &[Entry]) -> BTreeMap<Key, Duration> {
    let mut last: BTreeMap<Key, Duration> = BTreeMap::new();
    for entry in writes.iter().filter(|e| is_new_child(e)) {
        if let Some(fleet) = fleet_of(entry) {
            let at = last.entry(fleet).or_default();
            *at = entry.done.max(*at);
        }
    }
    last
}

fn counts<'a>(writes: impl Iterator<Item = &'a Entry>) -> BTreeMap<Key, usize> {
    let mut counts = BTreeMap::new();
    for fleet in writes.filter_map(fleet_of) {
        *counts.entry(fleet).or_default() += 1;
    }
    counts
}

fn per_fleet(counts: &BTreeMap<Key, usize>, n: usize) -> String {
    let most = counts.values().max().copied().unwrap_or_default();
    format!("{:.2} on average, {most} at most", counts.values().sum::<usize>() as f64 / n as f64)
}

fn percentiles(created: &BTreeMap<Key, Duration>, last_child: &BTreeMap<Key, Duration>) -> String {
    let took =
        |(fleet, last): (&Key, &Duration)| Some(last.saturating_sub(*created.get(fleet)?).as_secs_f64());
    let mut all: Vec<f64> = last_child.iter().filter_map(took).collect();
    all.sort_by(f64::total_cmp);
    format!("{:.2} s, {:.2} s", quantile(&all, 0.5), quantile(&all, 0.99))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn mb(value: f64) -> String {
    format!("{value:.1} MB")
}
