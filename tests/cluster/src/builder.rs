//! Starts a cluster: settings, then the steps in order. Whatever fails on the way, what was started is removed.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::addons;
use crate::cluster::{Cluster, Programs, Progress};
use crate::control_plane as plane;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::netns;
use crate::node::Node;
use crate::process::override_args;
use crate::secrets;
use crate::tier::Tier;
use crate::tools;

/// The slowest step on a busy machine of two cores takes some 15 s.
const STEP_LIMIT: Duration = Duration::from_mins(2);
/// Real nodes that one namespace has addresses, bridges and health ports for.
const MAX_REAL_NODES: usize = 8;

/// Settings of a cluster that is about to start; see [`Cluster::builder`].
#[must_use = "nothing starts without `start`"]
pub struct Builder {
    tier: Tier,
    name: String,
    kwok_nodes: usize,
    real_nodes: usize,
    metrics_server: bool,
    images: Vec<PathBuf>,
    api_args: Vec<String>,
    kcm_args: Vec<String>,
    progress: Option<Progress>,
}

impl Builder {
    pub(crate) fn new(tier: Tier) -> Self {
        let is_real = tier == Tier::T3;
        Self {
            tier,
            name: "test".to_owned(),
            kwok_nodes: if tier == Tier::T2 { 3 } else { 0 },
            real_nodes: if is_real { 2 } else { 0 },
            metrics_server: is_real,
            images: Vec::new(),
            api_args: Vec::new(),
            kcm_args: Vec::new(),
            progress: None,
        }
    }

    /// A word for folder and namespace names (1 to 20 of a-z, 0-9, -); several clusters may have the same.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Fake nodes (T2: 3 unless told, T3: none unless told), called `kwok-0`, …; each takes 110 pods. In T3
    /// they are tainted `kwok=true:NoSchedule`.
    pub fn kwok_nodes(mut self, n: usize) -> Self {
        self.kwok_nodes = n;
        self
    }

    /// Real nodes of a T3 cluster, `n1`, `n2`, …: 1 to 8, 2 unless told. All share this machine's CPUs.
    pub fn real_nodes(mut self, n: usize) -> Self {
        self.real_nodes = n;
        self
    }

    /// Whether metrics-server runs (T3: yes unless told, T2: no unless told).
    pub fn metrics_server(mut self, on: bool) -> Self {
        self.metrics_server = on;
        self
    }

    /// Image files to import into every real node; see [`crate::image::Image`].
    pub fn images<P: Into<PathBuf>>(mut self, tars: impl IntoIterator<Item = P>) -> Self {
        self.images.extend(tars.into_iter().map(Into::into));
        self
    }

    /// More arguments for the API server; `--flag=value` replaces ours.
    pub fn api_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.api_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// More arguments for the controller-manager, such as `--horizontal-pod-autoscaler-sync-period=2s`.
    pub fn kcm_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.kcm_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Called after each step with what was done and the time since the start.
    pub fn progress(mut self, report: impl Fn(&str, Duration) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(report));
        self
    }

    /// Starts everything and returns when it is ready to use: T1 in 4 to 8 s, T2 in 5 to 9 s, T3 in 9 to 20 s,
    /// after the programs were built once.
    pub fn start(mut self) -> Result<Cluster> {
        self.tier.require()?;
        let is_real = self.tier == Tier::T3;
        if is_real && !(1..=MAX_REAL_NODES).contains(&self.real_nodes) {
            return Err(Error::Invalid(format!(
                "{} real nodes: a T3 cluster has 1 to {MAX_REAL_NODES}",
                self.real_nodes
            )));
        }
        if let Some(missing) = self.images.iter().find(|tar| !tar.is_file()) {
            return Err(Error::Invalid(format!("there is no image file {}", missing.display())));
        }
        let n_real = if is_real { self.real_nodes } else { 0 };
        let programs = Programs {
            bin: tools::binaries(self.tier)?,
            warden: tools::warden()?,
            init: if is_real { Some(tools::pause()?) } else { None },
        };
        let pause_image = if is_real { Some(tools::pause_image()?) } else { None };
        let layout = Layout::create(&self.name)?;
        // From here on dropping the cluster removes what has been made.
        let mut cluster = Cluster::guarded(layout, self.tier, programs, n_real, self.progress.take())?;
        secrets::create(&cluster.layout, n_real)?;
        netns::create(&cluster.layout, n_real)?;
        for image in pause_image.iter().chain(&self.images) {
            cluster.keep_image(image)?;
        }
        self.start_control_plane(&mut cluster)?;
        if self.tier >= Tier::T2 {
            self.start_workloads(&cluster)?;
        }
        cluster.note("up");
        Ok(cluster)
    }

    fn start_control_plane(&self, cluster: &mut Cluster) -> Result<()> {
        let layout = cluster.layout.clone();
        layout.write("audit-policy.json", plane::AUDIT_POLICY)?;
        cluster.launch("etcd", plane::etcd_args(&layout))?;
        let mut args = plane::api_server_args(&layout);
        override_args(&mut args, &self.api_args);
        cluster.launch("kube-apiserver", args)?;
        cluster.open_api_port()?;
        cluster.wait_api(STEP_LIMIT)?;
        cluster.note("API server ready");
        Ok(())
    }

    /// Starts everything else at once, then waits for each.
    fn start_workloads(&self, cluster: &Cluster) -> Result<()> {
        let layout = &cluster.layout;
        let n_real = cluster.n_nodes();
        let mut args = plane::controller_manager_args(layout);
        override_args(&mut args, &self.kcm_args);
        cluster.launch("kube-controller-manager", args)?;
        cluster.launch("kube-scheduler", plane::scheduler_args(layout))?;
        for index in 1..=n_real {
            Node { index, layout }.prepare()?;
            cluster.start_node(index)?;
        }
        let objects = self.objects(layout, n_real)?;
        if !objects.is_empty() {
            cluster.apply_all(&addons::list(&objects))?;
        }
        if self.kwok_nodes > 0 {
            cluster.launch("kwok", addons::kwok(layout)?)?;
        }
        if n_real > 0 {
            cluster.launch("coredns", addons::coredns(layout)?)?;
        }
        for index in 1..=n_real {
            let (name, args) = (format!("kube-proxy-n{index}"), addons::kube_proxy(layout, index)?);
            cluster.launch_in(&layout.node_ns(index), &name, "kube-proxy", args)?;
        }
        if self.metrics_server {
            cluster.launch("metrics-server", addons::metrics_server_args(layout))?;
        }
        self.wait_for_workloads(cluster, n_real)
    }

    fn objects(&self, layout: &Layout, n_real: usize) -> Result<Vec<Value>> {
        let mut objects = addons::kwok_nodes(self.kwok_nodes, n_real > 0);
        if n_real > 0 {
            objects.extend(addons::kube_proxy_objects());
            objects.extend(addons::coredns_objects());
        }
        if self.metrics_server {
            objects.extend(addons::metrics_server_objects(&addons::ca_bundle(layout)?));
        }
        Ok(objects)
    }

    fn wait_for_workloads(&self, cluster: &Cluster, n_real: usize) -> Result<()> {
        cluster.wait_kubectl(
            "the default ServiceAccount",
            STEP_LIMIT,
            &["get", "serviceaccount", "default"],
        )?;
        cluster.note("controllers running");
        let scheduler =
            ["--server=https://127.0.0.1:10259", "--insecure-skip-tls-verify", "get", "--raw", "/readyz"];
        cluster.wait_inside("the scheduler", STEP_LIMIT, "kubectl", &scheduler)?;
        cluster.note("scheduler ready");
        if self.kwok_nodes > 0 {
            self.wait_for_fake_nodes(cluster)?;
            cluster.note(&format!("{} fake nodes ready", self.kwok_nodes));
        }
        for index in 1..=n_real {
            cluster.wait_node(index, STEP_LIMIT)?;
            cluster.wait_http(index, &format!("kube-proxy of n{index}"), "127.0.0.1:10256", "/healthz")?;
            cluster.note(&format!("node n{index} ready"));
        }
        if n_real > 0 {
            cluster.wait_http(1, "DNS", "127.0.0.1:8181", "/ready")?;
            cluster.note("DNS ready");
        }
        if self.metrics_server {
            let args =
                ["wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=1s"];
            cluster.wait_kubectl("the metrics API", STEP_LIMIT, &args)?;
            cluster.note("metrics API ready");
        }
        Ok(())
    }

    /// By one list: `kubectl wait` looks at node after node, with a request for each.
    fn wait_for_fake_nodes(&self, cluster: &Cluster) -> Result<()> {
        let path = r#"jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        cluster.wait_until("the fake nodes", STEP_LIMIT, || {
            let states = cluster.kubectl_ok(["get", "nodes", "-l", "type=kwok", "-o", path]);
            let states = states.map_err(|error| error.to_string())?;
            let n_ready = states.split_whitespace().filter(|&state| state == "True").count();
            let n_nodes = self.kwok_nodes;
            if n_ready == n_nodes { Ok(()) } else { Err(format!("{n_ready} of {n_nodes} are ready")) }
        })
    }
}
