//! Who acts: that Direct and an HPA come to the same, that Direct takes over where the metrics API is somebody else's,
//! and that no rest after a step is lost when the leader is killed.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::runtime::watcher;
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use mcp_fleet_cluster::audit;
use serde_json::json;
use tokio::time::Instant;

use super::{
    gateway::{CA_CONFIG_MAP, Flow},
    metrics_server::{API_SERVICE, Answer, MetricsServer},
    world::{FREE, Replica, STEP, World, autoscaling, only_the_hpa, scaled, scaling},
};
use crate::{
    look::{self, History, check},
    support::{
        Suite, TestResult,
        operator::{NAMESPACE, SERVICE_ACCOUNT, USER},
        wait,
    },
};

/// At most two up and one down every three seconds, and three seconds of stabilization.
const PACED: &str = ", behavior: {scaleUp: {stabilizationWindowSeconds: 0, policies: [{type: Pods, value: 2, periodSeconds: 3}]}, \
    scaleDown: {stabilizationWindowSeconds: 3, policies: [{type: Pods, value: 1, periodSeconds: 3}]}}";

/// The scales that a fleet went through, and when.
fn trajectory(history: &History<McpFleet>, fleet: &str) -> Vec<(Instant, i32)> {
    history.with(|all| {
        let mut scales: Vec<(Instant, i32)> = Vec::new();
        for revision in all.iter().filter(|r| r.object.metadata.name.as_deref() == Some(fleet)) {
            let Some(n) = revision.object.spec.replicas else { continue };
            if scales.last().is_none_or(|(_, last)| *last != n) {
                scales.push((revision.at, n));
            }
        }
        scales
    })
}

pub async fn direct_and_an_hpa_come_to_the_same(_suite: Arc<Suite>) -> TestResult {
    let world = World::shared().await?;
    let ns = world.namespace("same")?;
    let fleets = [("direct", "Direct"), ("hpa", "HPA")];
    let history: History<McpFleet> = History::of(ns.api(), watcher::Config::default()).await?;
    for (fleet, actuator) in fleets {
        world.fleet(&ns, fleet, &scaling(actuator, PACED), Flow::calls(15.0)).await?;
    }
    for (calls, n) in [(15.0, 2), (83.0, 9), (41.0, 5), (55.0, 6), (5.0, 1)] {
        for (fleet, _) in fleets {
            world.call(&ns, fleet, Flow::calls(calls)).await?;
        }
        futures::future::try_join_all(fleets.map(|(fleet, _)| scaled(&ns, fleet, n))).await?;
    }
    let [direct, hpa] = fleets.map(|(fleet, _)| trajectory(&history, fleet));
    let scales = |t: &[(Instant, i32)]| t.iter().map(|(_, n)| *n).collect::<Vec<_>>();
    let told = format!("Direct {:?}, HPA {:?}", scales(&direct), scales(&hpa));
    eprintln!("autoscaling: {told}");
    for path in [&direct, &hpa] {
        let steps = path.windows(2).map(|w| w[1].1 - w[0].1);
        check(steps.clone().all(|step| (-1..=2).contains(&step)), || format!("a step too large: {told}"))?;
    }
    // The same turns, and nothing beyond them: the ways between differ by who looked when.
    let turns = |t: &[(Instant, i32)]| {
        let scales = scales(t);
        let inner = scales.windows(3).filter(|w| (w[1] > w[0]) != (w[2] > w[1])).map(|w| w[1]);
        inner.collect::<Vec<_>>()
    };
    check(turns(&direct) == [9, 5, 6] && turns(&hpa) == [9, 5, 6], || told.clone())
}

pub async fn where_the_metrics_api_is_taken_the_operator_scales_itself(_suite: Arc<Suite>) -> TestResult {
    let world = World::start("t2-taken").await?;
    let other = MetricsServer::start(&world.cluster, "other-adapter", |_, _, _| Answer::Error(404)).await?;
    world.replica(&Replica::new("operator-a", 0)).await?;
    world.begins(&world.gateway, "gateway-0", &[8443])?;
    let ns = world.namespace("taken")?;
    let hpas = ns.api::<HorizontalPodAutoscaler>();
    let mark = world.cluster.audit_log().mark()?;
    world.fleet(&ns, "weather", &scaling("HPA", FREE), Flow::calls(25.0)).await?;
    scaled(&ns, "weather", 3).await?;
    let fleet = ns.condition("weather", "MetricsAPIAvailable", "False", "OwnedByOther").await?;
    let (_, _, message) = look::condition(&fleet, "MetricsAPIAvailable");
    check(message.contains("default/other-adapter"), || message)?;
    check(autoscaling(&fleet)["effectiveActuator"] == "Direct", || autoscaling(&fleet).to_string())?;
    let writers = world.scale_writers(mark, &ns)?;
    check(writers.iter().all(|(user, _)| user == USER), || format!("{writers:?}"))?;
    check(hpas.list(&<_>::default()).await?.items.is_empty(), || "there is an HPA".into())?;
    let registered = world.cluster.kubectl_ok(["get", "apiservice", API_SERVICE, "-o", "json"])?;
    check(registered.contains("other-adapter"), || format!("taken away from its owner: {registered}"))?;

    world.cluster.kubectl_ok(["delete", "apiservice", API_SERVICE])?;
    drop(other);
    ns.condition("weather", "MetricsAPIAvailable", "True", "Serving").await?;
    look::exists(&hpas, "weather").await?;
    let mark = world.cluster.audit_log().mark()?;
    world.call(&ns, "weather", Flow::calls(63.0)).await?;
    scaled(&ns, "weather", 7).await?;
    let writers = world.scale_writers(mark, &ns)?;
    check(only_the_hpa(&writers), || format!("{writers:?}"))
}

/// Operators of one namespace each, and kills of each of them.
const N_OPERATORS: u16 = 5;
const N_KILLS: usize = 2;
/// The rest after a step; longer than a restart on a busy machine takes.
const REST: Duration = Duration::from_secs(20);
/// Between the moment that the API server wrote a step down and the one that the operator counts from.
const MOMENT: Duration = Duration::from_millis(300);

pub async fn a_killed_leader_loses_no_rest(_suite: Arc<Suite>) -> TestResult {
    let world = World::start("t2-kills").await?;
    // Further operators need leases and ConfigMaps of other names than the deployed one.
    let account = format!("--serviceaccount={NAMESPACE}:{SERVICE_ACCOUNT}");
    world.cluster.kubectl_ok([
        "-n",
        NAMESPACE,
        "create",
        "rolebinding",
        "more",
        "--clusterrole=admin",
        &account,
    ])?;
    let leases = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "leases", "namespace": NAMESPACE},
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}]});
    world.cluster.apply(&leases.to_string())?;
    world.cluster.kubectl_ok([
        "-n",
        NAMESPACE,
        "create",
        "rolebinding",
        "leases",
        "--role=leases",
        &account,
    ])?;
    let replicas: Vec<Replica> = (0..N_OPERATORS).map(operator_of_one_namespace).collect();
    futures::future::try_join_all(replicas.iter().map(|replica| world.replica(replica))).await?;
    let ports: Vec<u16> = replicas.iter().map(|r| r.api_port).collect();
    world.begins(&world.gateway, "gateway-0", &ports)?;
    let mark = world.cluster.audit_log().mark()?;
    futures::future::try_join_all(replicas.iter().map(|replica| killed_at_rest(&world, replica))).await?;

    let mut rests = Vec::new();
    for replica in &replicas {
        rests.extend(rests_of(&world, mark, &replica.name)?);
    }
    eprintln!("autoscaling: steps {rests:.1?} apart over {} kills", N_KILLS * usize::from(N_OPERATORS));
    check(rests.len() >= N_KILLS * usize::from(N_OPERATORS), || format!("too few steps: {rests:?}"))?;
    check(rests.iter().all(|rest| *rest + MOMENT >= REST), || format!("a rest was cut short: {rests:?}"))
}

fn operator_of_one_namespace(number: u16) -> Replica {
    let name = format!("operator-{number}");
    let args = ["--watch-namespace", &name, "--lease-name", &name, "--lease-duration-seconds", "6"]
        .into_iter()
        .chain(["--lease-renew-deadline-seconds", "4", "--lease-retry-period-seconds", "1"]);
    Replica {
        metrics_api: false,
        ca_config_map: format!("{CA_CONFIG_MAP}-{number}"),
        args: args.map(String::from).collect(),
        ..Replica::new(&name, number)
    }
}

/// A fleet that always wants more climbs one step after each rest; its operator is killed in the middle of some.
async fn killed_at_rest(world: &World, replica: &Replica) -> Result<(), Failed> {
    let ns = world.namespace(&replica.name)?;
    let rest = REST.as_secs();
    let more = format!(
        ", cooldownSeconds: {{afterScaleUp: {rest}, afterScaleDown: {rest}}}, \
         behavior: {{scaleUp: {{policies: [{{type: Pods, value: 1, periodSeconds: 1}}]}}}}"
    );
    world.fleet(&ns, "weather", &scaling("Direct", &more), Flow::calls(95.0)).await?;
    let climbs = async |above: i32| {
        wait::until(&format!("{} above {above}", ns.name), STEP, async || {
            // On a busy machine it may lose its short lease and end by itself; a kubelet would start it again, too.
            if world.cluster.component_pid(&replica.name).is_none() {
                world.cluster.start_component(&replica.name).map_err(|e| e.to_string())?;
            }
            let live = ns.get("weather").await.map_err(|e| format!("{e:?}"))?;
            match live.spec.replicas {
                Some(n) if n > above => Ok(n),
                n => {
                    let answers = world.gateway.answers.lock().clone();
                    Err(format!("{n:?}, {}; reports: {answers:?}", autoscaling(&live)))
                }
            }
        })
        .await
    };
    let mut n = climbs(1).await?;
    for _ in 0..N_KILLS {
        tokio::time::sleep(Duration::from_millis(Rng::new().u64(0..10_000))).await;
        world.cluster.kill_component(&replica.name)?;
        world.cluster.start_component(&replica.name)?;
        n = climbs(n).await?;
    }
    Ok(())
}

/// Times between the steps of a namespace's fleet.
fn rests_of(world: &World, since: audit::Mark, namespace: &str) -> Result<Vec<Duration>, Failed> {
    let writes = world.cluster.audit_log().since(since)?.by(USER).writes().of("mcpfleets.mcpfleet.io/scale");
    let mut steps = writes
        .filter(|e| e.is_ok() && e.object.as_ref().is_some_and(|o| o.namespace == namespace))
        .into_iter()
        .map(|e| (e.received, e.done))
        .collect::<Vec<_>>();
    steps.sort();
    Ok(steps.windows(2).map(|w| w[1].0.saturating_sub(w[0].1)).collect())
}
