//! The operator scales a fleet by what gateways report: over TLS, with a real token. No Deployment controller runs here,
//! so the test makes the pods; it plays the gateway, too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use libtest_mimic::Failed;
use mcp_fleet::{
    api::{names, v1alpha1::McpFleet},
    operator::children::ChildKind,
};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

use crate::{
    common,
    support::{
        Namespace, Suite, TestResult,
        operator::{self, Operator},
        wait,
    },
};

const CA: &str = "mcp-fleet-operator-ca";
const LOAD: &str = "mcp-fleet-operator-load";

/// One call per second and pod is one running call: 10 for each pod.
fn spec(more: &str) -> String {
    format!(
        "{{server: {{image: a}}, autoscaling: {{minReplicas: 1, maxReplicas: 8, \
         metrics: {{concurrency: {{target: {{averageValue: '10'}}}}}}, \
         windows: {{stableSeconds: 6, panicSeconds: 2}}, \
         behavior: {{scaleDown: {{stabilizationWindowSeconds: 0}}}}{more}}}}}"
    )
}

/// What a fleet carries, as its gateway counts it.
#[derive(Clone, Debug, Default)]
struct Carried {
    fleet: McpFleetId,
    /// Each pod's uid, and the call-seconds that it has carried.
    pods: Vec<(String, f64)>,
    /// Calls that run.
    level: f64,
    /// Numbers that cannot be, in their stead.
    nonsense: Option<Value>,
    in_flight_seconds: f64,
    calls: f64,
}

#[derive(Clone, Debug, Default)]
struct McpFleetId {
    namespace: String,
    name: String,
    uid: String,
}

impl Carried {
    fn report(&mut self, seconds: f64) -> Value {
        self.in_flight_seconds += self.level * seconds;
        self.calls += self.level * seconds;
        let share = self.level / self.pods.len().max(1) as f64;
        let work = |in_flight: f64, integral: f64, calls: f64| {
            let mut latencies = vec![0.0; 32];
            latencies[20] = calls;
            json!({"inFlight": in_flight, "inFlightSeconds": integral, "streams": 0, "streamSeconds": 0,
                "completions": {"ok": calls}, "latencyLog2Micros": latencies})
        };
        let pods: Vec<Value> = self
            .pods
            .iter_mut()
            .map(|(uid, carried)| {
                *carried += share * seconds;
                let mut pod = work(share, *carried, *carried);
                pod["uid"] = json!(uid);
                pod
            })
            .collect();
        let mut report = work(self.level, self.in_flight_seconds, self.calls);
        let more = json!({"namespace": self.fleet.namespace, "name": self.fleet.name, "uid": self.fleet.uid,
            "ready": self.pods.len(), "arrivals": self.calls, "admitted": self.calls, "pods": pods});
        report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        if let Some(nonsense) = &self.nonsense {
            report.as_object_mut().unwrap().extend(nonsense.as_object().unwrap().clone());
        }
        report
    }
}

/// A gateway that reports every half second what the test says.
struct Gate {
    carried: Arc<Mutex<Vec<Carried>>>,
    answers: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gate {
    fn start(suite: Arc<Suite>, port: u16, token: String) -> Self {
        let (carried, answers) =
            (Arc::<Mutex<Vec<Carried>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (to_report, said) = (Arc::clone(&carried), Arc::clone(&answers));
        let task = tokio::spawn(async move {
            let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
            let (mut sequence, mut last) = (0, Timestamp::now());
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                sequence += 1;
                // One look at the clock for the count and its time: on a busy machine two would tell of a load that
                // never was.
                let now = Timestamp::now();
                let seconds = (now - last).total(jiff::Unit::Second).unwrap();
                last = now;
                let fleets: Vec<Value> = to_report.lock().iter_mut().map(|c| c.report(seconds)).collect();
                let report = json!({"version": 1, "gateway": "gate-1", "epoch": epoch, "sequence": sequence,
                    "time": now.to_string(), "fleets": fleets});
                let answer = match push(&suite, port, &token, &report).await {
                    Ok(answer) => answer,
                    Err(error) => format!("{error:#}"),
                };
                said.lock().push(answer);
            }
        });
        Self { carried, answers, task }
    }

    fn set(&self, index: usize, change: impl FnOnce(&mut Carried)) {
        change(&mut self.carried.lock()[index]);
    }

    fn last_answer(&self) -> String {
        self.answers.lock().last().cloned().unwrap_or_default()
    }
}

/// Sends a report as a gateway does: to the name of the Service, trusting the certificates in the ConfigMap.
async fn push(suite: &Suite, port: u16, token: &str, report: &Value) -> anyhow::Result<String> {
    let maps: Api<ConfigMap> = Api::namespaced(suite.client.clone(), operator::NAMESPACE);
    let mut roots = RootCertStore::empty();
    for (key, pem) in maps.get(CA).await?.data.unwrap_or_default() {
        if key.ends_with(".crt") {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate?)?;
            }
        }
    }
    let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(format!("{LOAD}.{}.svc", operator::NAMESPACE))?;
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::post("/v1/load")
        .header("host", "load")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(report.to_string())))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok(format!("{status}: {}", String::from_utf8_lossy(&body)))
}

/// A port that nobody listens on, never given twice: below those that the system gives to others.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 100) as u16 * 50;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::SeqCst);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A namespace with an operator of its own, and a gateway that reports to it.
struct World {
    suite: Arc<Suite>,
    ns: Namespace,
    port: u16,
    operator: Operator,
    gate: Gate,
}

impl World {
    async fn start(test: &str) -> Result<Self, Failed> {
        let suite = common::quiet();
        let ns = suite.namespace(test).await?;
        let accounts: Api<ServiceAccount> = ns.api();
        let account = json!({"metadata": {"name": "gate"}});
        accounts.create(&PostParams::default(), &serde_json::from_value(account)?).await?;
        let token = suite.kubectl(&[
            "create",
            "token",
            "gate",
            "--namespace",
            &ns.name,
            "--audience=mcp-fleet-operator",
        ])?;
        let port = free_port();
        let operator = Self::operator(&suite, &ns, port)?;
        let gate = Gate::start(Arc::clone(&suite), port, token.trim().to_owned());
        Ok(Self { suite, ns, port, operator, gate })
    }

    fn operator(suite: &Suite, ns: &Namespace, port: u16) -> Result<Operator, Failed> {
        let builder = common::own(suite, &ns.name)?
            .arg("--gateway-url=http://gate.example.com")
            .arg(&format!("--gateway-namespace={}", ns.name))
            .arg("--gateway-service-account=gate")
            .arg(&format!("--api-listen=127.0.0.1:{port}"))
            .arg(&format!("--load-service={LOAD}"))
            .arg("--lease-duration-seconds=4")
            .arg("--lease-renew-deadline-seconds=3")
            .arg("--lease-retry-period-seconds=1")
            .arg("--log-level=info,mcp_fleet=debug");
        Ok(builder.start(&suite.cluster)?)
    }

    /// Makes a fleet with one replica, which carries nothing; its index at the gateway.
    async fn fleet(&self, name: &str, spec: &str) -> Result<usize, Failed> {
        let fleet = self.ns.fleet(name, spec).await?;
        self.scaled(name, 1).await?;
        let fleet = McpFleetId {
            namespace: self.ns.name.clone(),
            name: name.into(),
            uid: fleet.uid().unwrap_or_default(),
        };
        let index = {
            let mut carried = self.gate.carried.lock();
            carried.push(Carried { fleet, ..Carried::default() });
            carried.len() - 1
        };
        self.pods(name, index, 1).await?;
        Ok(index)
    }

    /// So many pods of a fleet, all ready.
    async fn pods(&self, fleet: &str, index: usize, n: usize) -> Result<(), Failed> {
        let pods: Api<Pod> = self.ns.api();
        let of = ListParams::default().labels(&format!("{}={fleet}", names::LABEL_FLEET));
        let live = pods.list(&of).await?.items;
        for pod in live.iter().skip(n) {
            pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
        }
        for i in live.len()..n {
            let pod = json!({
                "metadata": {"name": format!("{fleet}-{i}"), "labels": {names::LABEL_FLEET: fleet}},
                "spec": {"serviceAccountName": format!("mcp-{fleet}"), "automountServiceAccountToken": false,
                    "containers": [{"name": "server", "image": "a"}]},
            });
            let pod: Pod = serde_json::from_value(pod)?;
            // The operator makes the ServiceAccount, perhaps only now.
            wait::until("a pod", wait::LIMIT, async || {
                pods.create(&PostParams::default(), &pod).await.map(drop).map_err(|e| e.to_string())
            })
            .await?;
            let ready = json!({"status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now().to_string()}]}});
            pods.patch_status(&format!("{fleet}-{i}"), &PatchParams::default(), &Patch::Merge(ready)).await?;
        }
        let uids: Vec<String> = pods.list(&of).await?.items.iter().filter_map(ResourceExt::uid).collect();
        self.gate.set(index, |carried| {
            let known = std::mem::take(&mut carried.pods);
            let so_far =
                |uid: &str| known.iter().find(|(u, _)| u == uid).map_or(0.0, |(_, carried)| *carried);
            carried.pods = uids.into_iter().map(|uid| (so_far(&uid), uid)).map(|(n, uid)| (uid, n)).collect();
        });
        Ok(())
    }

    /// Waits until the fleet has so many replicas.
    async fn scaled(&self, fleet: &str, n: i32) -> Result<McpFleet, Failed> {
        wait::until(&format!("{n} replicas of {fleet}"), wait::LIMIT, async || {
            let fleet = self.ns.get(fleet).await.map_err(|e| format!("{e:?}"))?;
            if fleet.spec.replicas == Some(n) { Ok(fleet) } else { Err(self.seen(&fleet)) }
        })
        .await
    }

    /// Waits for a step; the last moment at which it was not yet seen.
    async fn step(&self, fleet: &str, n: i32) -> Result<Instant, Failed> {
        let mut before = Instant::now();
        wait::until(&format!("{n} replicas of {fleet}"), wait::LIMIT, async || {
            let asked = Instant::now();
            let fleet = self.ns.get(fleet).await.map_err(|e| format!("{e:?}"))?;
            if fleet.spec.replicas == Some(n) {
                return Ok(());
            }
            before = asked;
            Err(self.seen(&fleet))
        })
        .await?;
        Ok(before)
    }

    async fn stays(&self, fleet: &str, n: i32, period: Duration) -> TestResult {
        wait::holds(&format!("{n} replicas of {fleet}"), period, async || {
            let fleet = self.ns.get(fleet).await.map_err(|e| format!("{e:?}"))?;
            if fleet.spec.replicas == Some(n) { Ok(()) } else { Err(self.seen(&fleet)) }
        })
        .await
    }

    fn seen(&self, fleet: &McpFleet) -> String {
        let autoscaling = fleet.status.as_ref().and_then(|s| s.autoscaling.as_ref());
        format!(
            "{:?} replicas, {}; the gateway heard {}",
            fleet.spec.replicas,
            serde_json::to_string(&autoscaling).unwrap_or_default(),
            self.gate.last_answer()
        )
    }
}

pub async fn a_fleet_follows_its_load(_: Arc<Suite>) -> TestResult {
    let world = World::start("follow").await?;
    let index = world.fleet("weather", &spec("")).await?;
    world.gate.set(index, |c| c.level = 35.0);
    world.scaled("weather", 4).await?;
    world.pods("weather", index, 4).await?;
    let deployments = common::api(&world.suite.client, &world.ns.name, ChildKind::Deployment);
    wait::until("4 replicas of the Deployment", wait::LIMIT, async || {
        let deployment = deployments.get("weather").await.map_err(|e| e.to_string())?;
        let replicas = deployment.data["spec"]["replicas"].as_i64();
        if replicas == Some(4) { Ok(()) } else { Err(format!("{replicas:?}")) }
    })
    .await?;
    world.stays("weather", 4, Duration::from_secs(5)).await?;
    let status = wait::until("the status", wait::LIMIT, async || {
        let fleet = world.ns.get("weather").await.map_err(|e| format!("{e:?}"))?;
        let status = fleet.status.clone().and_then(|s| s.autoscaling).ok_or("none")?;
        if status.desired_replicas == Some(4) && status.current_replicas == Some(4) {
            Ok(status)
        } else {
            Err(world.seen(&fleet))
        }
    })
    .await?;
    assert_eq!(status.effective_actuator, "Direct", "this operator has no metrics API");
    assert!(status.last_scale_up_time.is_some() && status.last_scale_down_time.is_none(), "{status:?}");
    assert_eq!(status.terms.first().map(|t| t.signal.as_str()), Some("concurrency"), "{status:?}");
    let by_scale = |f: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        f.manager.as_deref() == Some(names::MANAGER_SCALE) && f.subresource.as_deref() == Some("scale")
    };
    let fleet = world.ns.get("weather").await?;
    assert!(fleet.managed_fields().iter().any(|f| by_scale(&f)), "{:?}", fleet.managed_fields());

    world.gate.set(index, |c| c.level = 5.0);
    let fleet = world.scaled("weather", 1).await?;
    world.pods("weather", index, 1).await?;
    assert!(world.operator.metric("mcp_scaling_decisions_total") > 10.0, "{}", world.seen(&fleet));
    let metrics = world.operator.get("/metrics")?;
    let utilization = format!("mcp_utilization{{namespace=\"{}\",fleet=\"weather\"}}", world.ns.name);
    assert!(metrics.contains(&utilization), "{metrics}");
    let api: Api<McpFleet> = world.ns.api();
    api.delete("weather", &DeleteParams::default()).await?;
    wait::until("no metrics of a fleet that is gone", wait::LIMIT, async || {
        let metrics = world.operator.get("/metrics").map_err(|e| e.to_string())?;
        if metrics.contains(&utilization) { Err("there are some".into()) } else { Ok(()) }
    })
    .await
}

pub async fn a_person_stops_it_by_annotation(_: Arc<Suite>) -> TestResult {
    let world = World::start("paused").await?;
    let index = world.fleet("weather", &spec("")).await?;
    let api: Api<McpFleet> = world.ns.api();
    let annotate = async |value: Value| {
        let patch = json!({"metadata": {"annotations": value}});
        api.patch("weather", &PatchParams::default(), &Patch::Merge(patch)).await
    };
    annotate(json!({names::ANNOTATION_PAUSED: "true"})).await?;
    world.gate.set(index, |c| c.level = 25.0);
    world.stays("weather", 1, Duration::from_secs(10)).await?;
    annotate(json!({names::ANNOTATION_PAUSED: null, names::ANNOTATION_PAUSED_REPLICAS: "2"})).await?;
    world.scaled("weather", 2).await?;
    world.stays("weather", 2, Duration::from_secs(5)).await?;
    annotate(json!({names::ANNOTATION_PAUSED_REPLICAS: null})).await?;
    world.scaled("weather", 3).await?;
    Ok(())
}

pub async fn what_cannot_be_holds_that_fleet_and_no_other(_: Arc<Suite>) -> TestResult {
    let world = World::start("nonsense").await?;
    let bad = world.fleet("bad", &spec("")).await?;
    let good = world.fleet("good", &spec("")).await?;
    for index in [bad, good] {
        world.gate.set(index, |c| c.level = 25.0);
    }
    for (name, index) in [("bad", bad), ("good", good)] {
        world.scaled(name, 3).await?;
        world.pods(name, index, 3).await?;
    }
    // JSON has no NaN; writers that have one write null.
    world
        .gate
        .set(bad, |c| c.nonsense = Some(json!({"inFlightSeconds": null, "inFlight": null, "queue": -1})));
    world.gate.set(good, |c| c.level = 45.0);
    world.scaled("good", 5).await?;
    world.stays("bad", 3, Duration::from_secs(10)).await?;
    let dropped = world.gate.last_answer();
    assert!(dropped.starts_with("202"), "{dropped}");
    Ok(())
}

/// The rest after a step up is in the status at once; whoever comes next keeps it.
pub async fn a_killed_operator_keeps_the_rest_after_a_change(_: Arc<Suite>) -> TestResult {
    const REST: Duration = Duration::from_secs(25);
    let mut world = World::start("rest").await?;
    let index =
        world.fleet("weather", &spec(", cooldownSeconds: {afterScaleUp: 25, afterScaleDown: 0}")).await?;
    // The operator is killed at another moment in each round.
    for (seconds, level, to) in [(0, 15.0, 2), (4, 35.0, 4)] {
        world.gate.set(index, |c| c.level = level);
        let stepped = world.step("weather", to).await?;
        world.pods("weather", index, to as usize).await?;
        world.gate.set(index, |c| c.level = level + 20.0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        world.operator.kill();
        world.operator = World::operator(&world.suite, &world.ns, world.port)?;
        world.stays("weather", to, REST.saturating_sub(stepped.elapsed())).await?;
    }
    world.step("weather", 6).await?;
    Ok(())
}
