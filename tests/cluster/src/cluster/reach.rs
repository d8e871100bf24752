//! How to reach a cluster: addresses, kubeconfigs, clients, ports, logs.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Cluster, Forward, locked};
use crate::audit;
use crate::error::Result;
use crate::kubeconfig;
use crate::layout::{API_PORT, NODE_IP};
use crate::netns;
use crate::process::{run, run_with_input};
use crate::wait;

impl Cluster {
    /// Kubeconfig of an administrator for this machine's ordinary network: `https://127.0.0.1:PORT`.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.path("kubeconfig/admin.host")
    }

    /// Kubeconfig of an administrator for processes inside the cluster's network namespace.
    pub fn kubeconfig_inside(&self) -> PathBuf {
        self.layout.path("kubeconfig/admin")
    }

    /// The API server as seen from this machine: `https://127.0.0.1:PORT`.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// The certificate (PEM) that the API server's is signed with.
    pub fn certificate_authority(&self) -> PathBuf {
        self.layout.path("pki/ca.crt")
    }

    /// The folder of kubectl, helm and the others.
    pub fn bin_dir(&self) -> &Path {
        &self.programs.bin
    }

    /// The cluster's folder; removed with it. Tests may put files there.
    pub fn scratch(&self) -> &Path {
        &self.layout.dir
    }

    /// The name given to the builder.
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// Name of the network namespace.
    pub fn netns(&self) -> &str {
        &self.layout.ns
    }

    /// Address of the first node and of the API server, inside the namespace.
    #[allow(clippy::unused_self, reason = "a property of the cluster for its users")]
    pub fn node_ip(&self) -> &'static str {
        NODE_IP
    }

    /// Number of real nodes; they are called `n1`, `n2`, ….
    pub fn n_nodes(&self) -> usize {
        self.n_nodes
    }

    /// How long after the start each step was done.
    pub fn timings(&self) -> Vec<(String, Duration)> {
        locked(&self.timings).clone()
    }

    /// `kubectl` as administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.programs.bin.join("kubectl"));
        self.client_env(&mut command);
        command
    }

    /// `helm` as administrator, with its folders in the cluster's.
    pub fn helm(&self) -> Command {
        let mut command = Command::new(self.programs.bin.join("helm"));
        self.client_env(&mut command);
        for (name, folder) in [
            ("HELM_CACHE_HOME", "helm-cache"),
            ("HELM_CONFIG_HOME", "helm-config"),
            ("HELM_DATA_HOME", "helm-data"),
        ] {
            command.env(name, self.layout.path("home").join(folder));
        }
        command
    }

    /// Nothing of the user's own kubectl (cache, preferences, proxy) is read or written.
    fn client_env(&self, command: &mut Command) {
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.layout.path("home/kube-cache"))
            .env("KUBERC", "off");
        command.env("NO_PROXY", "*").env("no_proxy", "*");
    }

    /// Runs kubectl to its end; its output, or an error with it.
    pub fn kubectl_ok<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        run(self.kubectl().args(args))
    }

    /// `kubectl apply` (server-side) of YAML or JSON text.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = self.kubectl();
        command.args(["apply", "--server-side", "--force-conflicts", "--validate=false", "-f", "-"]);
        run_with_input(&mut command, manifests).map(drop)
    }

    /// A command in the cluster's network: there Services, pods and nodes have their addresses. `KUBECONFIG`
    /// is set for it.
    pub fn command_inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_on_node(1, program)
    }

    /// As [`Cluster::command_inside`], in the network of real node `index` (from 1); that of the first is the
    /// control plane's.
    pub fn command_on_node(&self, index: usize, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.layout.node_ns(index))).arg("--").arg(program);
        self.client_env(&mut command);
        command.env("KUBECONFIG", self.kubeconfig_inside());
        command
    }

    /// A port of 127.0.0.1 that leads to `address` (IP:PORT) in the cluster's network: of a Service, a pod, a
    /// node. Names are not resolved.
    pub fn forward(&self, address: &str) -> Result<Forward> {
        let number = self.n_forwards.fetch_add(1, Ordering::Relaxed);
        let (daemon, port) = self.forwarder(&format!("forward-{number}"), address)?;
        Ok(Forward { daemon, layout: self.layout.clone(), port })
    }

    /// A socket of this process that listens on the first node's address in the cluster's network: by it the API
    /// server and pods reach a server inside the test. Port 0 takes a free one.
    pub fn listen(&self, port: u16) -> Result<TcpListener> {
        netns::listen(&self.layout, port)
    }

    /// Writes a kubeconfig for a bearer token, for use on this machine; `name` is the file's.
    pub fn token_kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf> {
        let text = kubeconfig::render(&self.server(), &self.certificate_authority(), token.trim());
        self.layout.write(&format!("kubeconfig/{name}.host"), &text)
    }

    /// As [`Cluster::token_kubeconfig`], for processes inside the network namespace.
    pub fn token_kubeconfig_inside(&self, name: &str, token: &str) -> Result<PathBuf> {
        let text = kubeconfig::render(
            &format!("https://{NODE_IP}:{API_PORT}"),
            &self.certificate_authority(),
            token.trim(),
        );
        self.layout.write(&format!("kubeconfig/{name}.inside"), &text)
    }

    /// A new token of a service account, good for a day: a process outside acts with its rights.
    pub fn service_account_token(&self, namespace: &str, name: &str) -> Result<String> {
        let token = self.kubectl_ok(["create", "token", name, "--namespace", namespace, "--duration=24h"])?;
        Ok(token.trim().to_owned())
    }

    /// The API server's audit log.
    pub fn audit_log(&self) -> audit::Log {
        audit::Log::new(self.layout.path("audit.log"))
    }

    /// The log of a component, such as `kube-apiserver` or `kubelet-n1`.
    pub fn log(&self, component: &str) -> PathBuf {
        self.layout.log(component)
    }

    /// Looks until `look` says Ok or `limit` is over; ends early if a component has died meanwhile.
    pub fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        look: impl FnMut() -> Result<(), String>,
    ) -> Result<()> {
        let check = || locked(&self.daemons).values_mut().try_for_each(|daemon| daemon.check(&self.layout));
        wait::until(what, limit, check, look)
    }
}
