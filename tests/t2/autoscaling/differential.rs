//! Our port of the HPA's algorithm against the kube-controller-manager itself, on random histories: each look of a real
//! autoscaler at a fleet must have come out as the port says.
//!
//! On a cluster of its own, without an operator: nobody else scales, and the metrics API is the test's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use mcp_fleet_cluster::{Cluster, Tier};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    histories::{Plan, Script},
    metrics_server::{Answer, MetricsServer, now},
    record::{self, Sources, Written},
    replay::{self, Tally},
};
use crate::{
    look::{HPA_USER, History, check},
    support::{self, Namespace, Suite, TestResult, client, wait},
};

const N_FLEETS: usize = 48;
/// Questions about the fleet that is asked least.
const N_QUESTIONS: usize = 25;
/// From an answer to the change of what the autoscaler reads next: after it has written the scale, and well before
/// its next look.
const PAUSE: Duration = Duration::from_millis(800);
/// 25 looks every 2 s, and as much again for a busy machine.
const RECORDING: Duration = Duration::from_secs(150);

/// What the test wrote about one fleet.
#[derive(Default)]
struct Books {
    status: Vec<Written>,
    by_test: Vec<(i64, Written)>,
}

/// Follows the questions: moves the fleets' status, and for some of them the scale, between two looks.
struct Follower {
    fleets: Api<McpFleet>,
    plans: Vec<Plan>,
    scripts: Arc<Mutex<Vec<Script>>>,
    books: Arc<Mutex<Vec<Books>>>,
    rng: Rng,
}

impl Follower {
    async fn follow(mut self, mut asked: mpsc::UnboundedReceiver<usize>) -> Result<(), kube::Error> {
        let mut n_asked = vec![0; self.plans.len()];
        let mut moves = tokio::task::JoinSet::new();
        while let Some(index) = asked.recv().await {
            n_asked[index] += 1;
            let plan = &self.plans[index];
            // Twice, so that what follows the first is seen before the second.
            let by_hand = plan.by_hand && [8, 18].contains(&n_asked[index]);
            let scale = by_hand.then(|| self.rng.i32(1..=plan.max + 2));
            let (fleets, name) = (self.fleets.clone(), plan.name.clone());
            let (scripts, books) = (Arc::clone(&self.scripts), Arc::clone(&self.books));
            moves.spawn(async move {
                tokio::time::sleep(PAUSE).await;
                let from = now();
                let mut live = fleets.get(&name).await?;
                // What is the same already makes no generation.
                if let Some(n) = scale.map(|n| if live.spec.replicas == Some(n) { n + 1 } else { n }) {
                    live = set(&fleets, &name, n).await?;
                    let written = Written { value: n, from, to: now() };
                    if let Some(generation) = live.metadata.generation {
                        books.lock()[index].by_test.push((generation, written));
                    }
                }
                let spec = live.spec.replicas.unwrap_or_default();
                let status = live.status.as_ref().map(|s| s.replicas).unwrap_or_default();
                let next = scripts.lock()[index].status(spec, status);
                if next != status {
                    let written = set_status(&fleets, &name, next).await?;
                    books.lock()[index].status.push(written);
                }
                Ok::<_, kube::Error>(())
            });
            while let Some(done) = moves.try_join_next() {
                done.unwrap_or(Ok(()))?;
            }
        }
        Ok(())
    }
}

async fn set(fleets: &Api<McpFleet>, name: &str, n: i32) -> Result<McpFleet, kube::Error> {
    let patch = Patch::Merge(json!({"spec": {"replicas": n}}));
    fleets.patch(name, &PatchParams::default(), &patch).await
}

async fn set_status(fleets: &Api<McpFleet>, name: &str, n: i32) -> Result<Written, kube::Error> {
    let from = now();
    // Each autoscaler needs pods of its own, though none has any.
    let body = json!({"status": {"replicas": n, "selector": format!("mcpfleet.io/fleet={name}")}});
    fleets.patch_status(name, &PatchParams::default(), &Patch::Merge(&body)).await?;
    Ok(Written { value: n, from, to: now() })
}

pub async fn the_port_answers_as_the_controller_manager(_suite: Arc<Suite>) -> TestResult {
    let cluster = Cluster::builder(Tier::T2)
        .name("t2-hpa")
        .kwok_nodes(0)
        .kcm_args(["--horizontal-pod-autoscaler-sync-period=2s"])
        .start()?;
    support::install_crd(&cluster)?;
    let ns = Namespace::existing("default", client(&cluster.kubeconfig()).await?);
    let seed = std::env::var("MCP_FLEET_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| Rng::new().u64(..));
    let plans: Vec<Plan> = (0..N_FLEETS).map(|index| Plan::random(seed, index)).collect();
    let scripts = plans.iter().enumerate().map(|(index, plan)| Script::new(seed, index, plan)).collect();
    let scripts: Arc<Mutex<Vec<Script>>> = Arc::new(Mutex::new(scripts));
    let index_of: BTreeMap<String, usize> =
        plans.iter().enumerate().map(|(index, plan)| (plan.name.clone(), index)).collect();

    let history: History<McpFleet> = History::of(ns.api(), watcher::Config::default()).await?;
    let (tell, asked) = mpsc::unbounded_channel();
    let (speakers, known) = (Arc::clone(&scripts), index_of.clone());
    let server = MetricsServer::start(&cluster, "history-metrics", move |_, name, metric| {
        match known.get(name).filter(|_| metric == "load") {
            Some(index) => {
                let _ = tell.send(*index);
                speakers.lock()[*index].answer()
            }
            None => Answer::Error(404),
        }
    })
    .await?;

    let books = make(&cluster, &ns, &plans).await?;
    let follower = Follower {
        fleets: ns.api(),
        plans: plans.clone(),
        scripts,
        books: Arc::new(Mutex::new(books)),
        rng: Rng::with_seed(seed),
    };
    let books = Arc::clone(&follower.books);
    let follower = tokio::spawn(follower.follow(asked));
    let hpas: Vec<Value> = plans.iter().map(|plan| plan.hpa(&ns.name)).collect();
    let mark = cluster.audit_log().mark()?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": hpas}).to_string())?;
    tolerances_are_kept(&cluster, &plans)?;

    wait::until("questions about all fleets", RECORDING, async || {
        let book = server.book.lock();
        let least =
            index_of.keys().map(|name| book.get(&format!("{}/{name}", ns.name)).map_or(0, Vec::len)).min();
        if least >= Some(N_QUESTIONS) { Ok(()) } else { Err(format!("{least:?}")) }
    })
    .await?;
    check(!follower.is_finished(), || "the follower ended".into())?;
    // No fleet is asked about any more; what is under way ends.
    cluster.stop_component("kube-controller-manager")?;
    tokio::time::sleep(2 * PAUSE).await;
    follower.abort();

    let scale = record::by_fleet(cluster.audit_log().since(mark)?.by(HPA_USER), &ns.name);
    let generations = history.with(record::generations);
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for (plan, books) in plans.iter().zip(std::mem::take(&mut *books.lock())) {
        let sources = Sources {
            asked: server.book.lock().remove(&format!("{}/{}", ns.name, plan.name)).unwrap_or_default(),
            status: books.status,
            by_test: books.by_test,
            generations: generations.get(&plan.name).cloned().unwrap_or_default(),
        };
        accepts_protobuf_first(&sources)?;
        let syncs = record::syncs(scale.get(&plan.name).cloned().unwrap_or_default(), &sources)
            .map_err(|e| format!("{}: {e:?}", plan.name))?;
        failures.extend(replay::compare(plan, &syncs, &mut tally));
    }
    eprintln!("autoscaling: seed {seed}, {tally:?}");
    check(failures.is_empty(), || format!("seed {seed}, {tally:?}\n{}", failures.join("\n")))?;
    tally.check(N_FLEETS, N_QUESTIONS).map_err(|e| format!("seed {seed}: {e}").into())
}

/// Makes the fleets, as they stand when their autoscalers come.
async fn make(cluster: &Cluster, ns: &Namespace, plans: &[Plan]) -> Result<Vec<Books>, Failed> {
    let fleets: Vec<Value> = plans.iter().map(|plan| plan.fleet(&ns.name)).collect();
    let from = now();
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": fleets}).to_string())?;
    let made = |plan: &Plan| (1, Written { value: plan.replicas, from, to: now() });
    let mut books: Vec<Books> =
        plans.iter().map(|plan| Books { status: Vec::new(), by_test: vec![made(plan)] }).collect();
    let api: Api<McpFleet> = ns.api();
    for (plan, books) in plans.iter().zip(&mut books) {
        books.status.push(set_status(&api, &plan.name, plan.replicas).await?);
    }
    Ok(books)
}

/// The tolerances of `behavior`, zero included, are kept by the API server as they were written.
fn tolerances_are_kept(cluster: &Cluster, plans: &[Plan]) -> TestResult {
    let list: Value = serde_json::from_str(&cluster.kubectl_ok(["get", "hpa", "-o", "json"])?)?;
    let live = list["items"].as_array().ok_or("no list")?;
    for plan in plans {
        let hpa = live.iter().find(|h| h["metadata"]["name"] == plan.name.as_str()).ok_or("no HPA")?;
        let (live, wanted) = (&hpa["spec"]["behavior"], &plan.hpa("")["spec"]["behavior"]);
        check(live == wanted, || format!("{}: {live} instead of {wanted}", plan.name))?;
    }
    check(plans.iter().any(|p| p.up.tolerance_milli == 0), || "no tolerance of 0 among the plans".into())
}

/// The controller-manager would rather have protobuf, and takes the JSON that the test answers.
fn accepts_protobuf_first(sources: &Sources) -> TestResult {
    let first = sources.asked.first().ok_or("nobody asked")?;
    check(first.accept.starts_with("application/vnd.kubernetes.protobuf"), || first.accept.clone())
}
