//! A gateway that reports what a test says: over TLS, with a token of the gateways' ServiceAccount, once a second, to
//! every replica of the operator. Counters and integrals grow as time passes, as those of a real one.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle, time::Instant};
use tokio_rustls::TlsConnector;

use super::metrics_server::now;
use crate::support::operator::NAMESPACE;

/// As the chart calls it: part of what a replica's certificate is for.
pub const LOAD_SERVICE: &str = "mcp-fleet-operator-load";
/// As the chart calls it.
pub const CA_CONFIG_MAP: &str = "mcp-fleet-operator-ca";
const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);

/// What runs at a fleet from now on.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Calls at the same time, over all pods.
    pub in_flight: f64,
    /// How long one takes.
    pub milliseconds: f64,
    /// Share of them that fail at the server.
    pub errors: f64,
    /// Calls that wait for a place.
    pub queue: f64,
}

impl Flow {
    /// So many calls of 100 ms at the same time, all of them well.
    pub fn calls(in_flight: f64) -> Self {
        Self { in_flight, milliseconds: 100.0, errors: 0.0, queue: 0.0 }
    }
}

/// Counters since the start.
#[derive(Clone, Copy, Default)]
struct Totals {
    in_flight_seconds: f64,
    queue_seconds: f64,
    calls: f64,
    errors: f64,
    latency: [f64; 32],
}

impl Totals {
    fn add(&mut self, flow: Flow, seconds: f64) {
        let calls = flow.in_flight * 1000.0 / flow.milliseconds * seconds;
        self.in_flight_seconds += flow.in_flight * seconds;
        self.queue_seconds += flow.queue * seconds;
        self.calls += calls;
        self.errors += calls * flow.errors;
        let bucket = (flow.milliseconds * 1000.0).log2().floor() as usize + 1;
        self.latency[bucket.min(31)] += calls;
    }

    fn work(&self, in_flight: f64) -> Value {
        json!({
            "inFlight": in_flight, "inFlightSeconds": self.in_flight_seconds, "streams": 0, "streamSeconds": 0,
            "completions": {"ok": self.calls - self.errors, "upstream": self.errors},
            "latencyLog2Micros": self.latency,
        })
    }
}

struct Fleet {
    namespace: String,
    name: String,
    flow: Flow,
    totals: Totals,
    pods: BTreeMap<String, Totals>,
}

/// A gateway that has not begun to report yet.
#[derive(Clone)]
pub struct Gateway {
    fleets: Arc<Mutex<BTreeMap<String, Fleet>>>,
    silent: Arc<Mutex<bool>>,
    /// Answers so far, by what they were.
    pub answers: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Gateway {
    /// Reports nothing until [`Self::flow`].
    pub fn new() -> Self {
        Self { fleets: Arc::default(), silent: Arc::default(), answers: Arc::default() }
    }

    /// From now on this runs at the fleet.
    pub fn flow(&self, (namespace, name, uid): (&str, &str, &str), flow: Flow) {
        let mut fleets = self.fleets.lock();
        let fleet = fleets.entry(uid.to_owned()).or_insert_with(|| Fleet {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            flow,
            totals: Totals::default(),
            pods: BTreeMap::new(),
        });
        fleet.flow = flow;
    }

    /// Begins to report to these ports of this machine.
    pub fn report(&self, client: Client, ports: Vec<u16>, name: &str, token: &str) -> JoinHandle<()> {
        let (this, name, token) = (self.clone(), name.to_owned(), token.to_owned());
        let epoch = now().as_millis() as u64;
        tokio::spawn(async move {
            let mut last = Instant::now();
            for sequence in 1_u64.. {
                tokio::time::sleep(EVERY).await;
                let pods = ready_pods(&client).await.unwrap_or_default();
                let roots = trusted(&client).await;
                // Counters and their time are of one moment, however busy the machine is.
                let time = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
                let seconds = last.elapsed().as_secs_f64();
                last = Instant::now();
                let fleets = this.advance(&pods, seconds);
                if *this.silent.lock() || fleets.is_empty() {
                    continue;
                }
                let report = json!({"version": 1, "gateway": name, "epoch": epoch, "sequence": sequence,
                    "time": format!("{time:.3}"), "fleets": fleets});
                let sent = ports.iter().map(|port| send(*port, roots.clone(), &report, &token));
                for answer in futures::future::join_all(sent).await {
                    let said = answer.map_or_else(|why| why, |code| code.as_str().to_owned());
                    *this.answers.lock().entry(said).or_default() += 1;
                }
            }
        })
    }

    /// Nothing more is reported, or it is again.
    pub fn silence(&self, silent: bool) {
        *self.silent.lock() = silent;
    }

    /// Lets time pass; what there is to report.
    fn advance(&self, pods: &ReadyPods, seconds: f64) -> Vec<Value> {
        let mut fleets = self.fleets.lock();
        let report = |(uid, fleet): (&String, &mut Fleet)| {
            let serving =
                pods.get(&(fleet.namespace.clone(), fleet.name.clone())).cloned().unwrap_or_default();
            // Without a pod everybody waits.
            let flow = match serving.len() {
                0 => Flow { queue: fleet.flow.queue + fleet.flow.in_flight, in_flight: 0.0, ..fleet.flow },
                _ => fleet.flow,
            };
            fleet.totals.add(flow, seconds);
            fleet.pods.retain(|pod, _| serving.contains(pod));
            let share = Flow { in_flight: flow.in_flight / serving.len().max(1) as f64, queue: 0.0, ..flow };
            let pods: Vec<Value> = serving
                .iter()
                .map(|pod| {
                    let totals = fleet.pods.entry(pod.clone()).or_default();
                    totals.add(share, seconds);
                    let mut pod = json!({"uid": pod, "sessions": 0, "tasks": 0});
                    merge(&mut pod, totals.work(share.in_flight));
                    pod
                })
                .collect();
            let mut told = json!({"namespace": fleet.namespace, "name": fleet.name, "uid": uid,
                "ready": serving.len(), "arrivals": fleet.totals.calls, "admitted": fleet.totals.calls, "shed": 0,
                "retries": 0, "queue": flow.queue, "queueSeconds": fleet.totals.queue_seconds, "pods": pods});
            merge(&mut told, fleet.totals.work(flow.in_flight));
            told
        };
        fleets.iter_mut().map(report).collect()
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

/// UIDs of the ready pods by namespace and name of their fleet.
type ReadyPods = BTreeMap<(String, String), Vec<String>>;

async fn ready_pods(client: &Client) -> Result<ReadyPods, kube::Error> {
    let all: Api<Pod> = Api::all(client.clone());
    let mut ready = BTreeMap::<_, Vec<_>>::new();
    for pod in all.list(&ListParams::default().labels("mcpfleet.io/fleet")).await? {
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
        let is_ready = conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        if is_ready && pod.metadata.deletion_timestamp.is_none() {
            let fleet = pod.labels()["mcpfleet.io/fleet"].clone();
            let uid = pod.uid().unwrap_or_default();
            ready.entry((pod.namespace().unwrap_or_default(), fleet)).or_default().push(uid);
        }
    }
    Ok(ready)
}

/// The certificates that the replicas of all operators publish for gateways.
async fn trusted(client: &Client) -> RootCertStore {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let mut roots = RootCertStore::empty();
    let maps = maps.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    for map in maps.into_iter().filter(|m| m.name_any().starts_with(CA_CONFIG_MAP)) {
        let pem = map.data.unwrap_or_default().remove("ca.crt").unwrap_or_default();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
            let _ = roots.add(certificate);
        }
    }
    roots
}

/// Sends a report; the status of the answer, or what went wrong.
async fn send(port: u16, roots: RootCertStore, report: &Value, token: &str) -> Result<StatusCode, String> {
    let exchange = async {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name =
            ServerName::try_from(format!("{LOAD_SERVICE}.{NAMESPACE}.svc")).map_err(|e| e.to_string())?;
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(tls)).await.map_err(|e| e.to_string())?;
        let _connection = tokio::spawn(connection);
        let request = Request::post("/v1/load")
            .header(header::HOST, LOAD_SERVICE)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::new(Bytes::from(report.to_string())))
            .map_err(|e| e.to_string())?;
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        Ok(status)
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}
