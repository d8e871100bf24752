//! Who acts: that Direct and an HPA come to the same, that Direct takes over where the metrics API is somebody else's,
//! and that no rest after a step is lost when the leader is killed.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, coordination::v1::Lease};
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
        Namespace, Suite, TestResult,
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
    let world = world_of_operators("t2-kills").await?;
    let replicas: Vec<Replica> = (0..N_OPERATORS).map(|n| operator_of(&format!("operator-{n}"), n)).collect();
    futures::future::try_join_all(replicas.iter().map(|replica| world.replica(replica))).await?;
    let ports: Vec<u16> = replicas.iter().map(|r| r.api_port).collect();
    world.begins(&world.gateway, "gateway-0", &ports)?;
    let mark = world.cluster.audit_log().mark()?;
    let climbs = replicas.iter().map(async |replica| {
        let climb = Climb::start(&world, &replica.name, std::slice::from_ref(replica)).await?;
        let mut n = climb.above(1).await?;
        for _ in 0..N_KILLS {
            tokio::time::sleep(Duration::from_millis(Rng::new().u64(0..10_000))).await;
            world.cluster.kill_component(&replica.name)?;
            world.cluster.start_component(&replica.name)?;
            n = climb.above(n).await?;
        }
        Ok::<_, Failed>(())
    });
    futures::future::try_join_all(climbs).await?;
    let namespaces: Vec<&str> = replicas.iter().map(|r| r.name.as_str()).collect();
    rested(&world, mark, &namespaces, N_KILLS * usize::from(N_OPERATORS))
}

/// Two replicas of one operator: whichever leads is killed at rest, and the other one leads on.
pub async fn a_standby_that_takes_over_keeps_the_rest(_suite: Arc<Suite>) -> TestResult {
    let world = world_of_operators("t2-standby").await?;
    let name = "pair";
    let replicas = [0, 1].map(|n| Replica { name: format!("{name}-{n}"), ..operator_of(name, n) });
    futures::future::try_join_all(replicas.iter().map(|replica| world.replica(replica))).await?;
    world.begins(&world.gateway, "gateway-0", &replicas.each_ref().map(|r| r.api_port))?;
    let mark = world.cluster.audit_log().mark()?;
    let climb = Climb::start(&world, name, &replicas).await?;
    let leases = Namespace::existing(NAMESPACE, world.client.clone()).api::<Lease>();
    let leader = async || {
        let lease = leases.get(name).await.map_err(|e| e.to_string())?;
        let holder = lease.spec.and_then(|s| s.holder_identity).unwrap_or_default();
        let of = replicas.iter().find(|r| holder.starts_with(&r.name));
        of.map(|r| r.name.clone()).ok_or_else(|| format!("led by {holder:?}"))
    };
    let mut n = climb.above(1).await?;
    let mut led = Vec::new();
    for _ in 0..N_KILLS {
        tokio::time::sleep(Duration::from_millis(Rng::new().u64(0..10_000))).await;
        let killed = leader().await?;
        world.cluster.kill_component(&killed)?;
        wait::until("the other one to lead", STEP, async || match leader().await? {
            now if now == killed => Err(format!("{now} still leads")),
            _ => Ok(()),
        })
        .await?;
        n = climb.above(n).await?;
        world.cluster.start_component(&killed)?;
        world.ready(replicas.iter().find(|r| r.name == killed).ok_or("one of them")?).await?;
        led.push(killed);
    }
    check(led.iter().collect::<std::collections::BTreeSet<_>>().len() == 2, || format!("killed: {led:?}"))?;
    rested(&world, mark, &[name], N_KILLS)
}

/// A cluster in which several operators can be: they need leases and ConfigMaps of other names than the deployed one.
async fn world_of_operators(name: &str) -> Result<World, Failed> {
    let world = World::start(name).await?;
    let account = format!("--serviceaccount={NAMESPACE}:{SERVICE_ACCOUNT}");
    let bind = |name: &str, role: &str| {
        world.cluster.kubectl_ok(["-n", NAMESPACE, "create", "rolebinding", name, role, &account])
    };
    bind("more", "--clusterrole=admin")?;
    let leases = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "leases", "namespace": NAMESPACE},
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}]});
    world.cluster.apply(&leases.to_string())?;
    bind("leases", "--role=leases")?;
    Ok(world)
}

/// The `number`-th replica in its cluster, of the operator of one namespace.
fn operator_of(namespace: &str, number: u16) -> Replica {
    let args = ["--watch-namespace", namespace, "--lease-name", namespace, "--lease-duration-seconds", "6"]
        .into_iter()
        .chain(["--lease-renew-deadline-seconds", "4", "--lease-retry-period-seconds", "1"]);
    Replica {
        metrics_api: false,
        ca_config_map: format!("{CA_CONFIG_MAP}-{namespace}"),
        args: args.map(String::from).collect(),
        ..Replica::new(namespace, number)
    }
}

/// A fleet that always wants more and climbs one step after each rest.
struct Climb<'a> {
    world: &'a World,
    ns: Namespace,
    operators: &'a [Replica],
}

impl<'a> Climb<'a> {
    async fn start(world: &'a World, namespace: &str, operators: &'a [Replica]) -> Result<Self, Failed> {
        let ns = world.namespace(namespace)?;
        let rest = REST.as_secs();
        let more = format!(
            ", cooldownSeconds: {{afterScaleUp: {rest}, afterScaleDown: {rest}}}, \
             behavior: {{scaleUp: {{policies: [{{type: Pods, value: 1, periodSeconds: 1}}]}}}}"
        );
        world.fleet(&ns, "weather", &scaling("Direct", &more), Flow::calls(95.0)).await?;
        Ok(Self { world, ns, operators })
    }

    /// Waits until it is above `n`; how far it is then.
    async fn above(&self, above: i32) -> Result<i32, Failed> {
        let cluster = &self.world.cluster;
        wait::until(&format!("{} above {above}", self.ns.name), STEP, async || {
            // On a busy machine an operator may lose its short lease and end by itself; a kubelet would start it again,
            // too.
            if self.operators.iter().all(|o| cluster.component_pid(&o.name).is_none()) {
                cluster.start_component(&self.operators[0].name).map_err(|e| e.to_string())?;
            }
            let live = self.ns.get("weather").await.map_err(|e| format!("{e:?}"))?;
            match live.spec.replicas {
                Some(n) if n > above => Ok(n),
                n => {
                    let answers = self.world.gateway.answers.lock().clone();
                    Err(format!("{n:?}, {}; reports: {answers:?}", autoscaling(&live)))
                }
            }
        })
        .await
    }
}

/// No two steps of a fleet were closer than the rest, and there were enough of them.
fn rested(world: &World, since: audit::Mark, namespaces: &[&str], n_kills: usize) -> TestResult {
    let mut rests = Vec::new();
    for namespace in namespaces {
        rests.extend(rests_of(world, since, namespace)?);
    }
    eprintln!("autoscaling: steps {rests:.1?} apart over {n_kills} kills");
    check(rests.len() >= n_kills, || format!("too few steps: {rests:?}"))?;
    check(rests.iter().all(|rest| *rest + MOMENT >= REST), || format!("a rest was cut short: {rests:?}"))
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
