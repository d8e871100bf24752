//! How to disturb a cluster, as the world does: nodes that die, links that break, components that restart.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Cluster, PATIENCE, RESTART_LIMIT, locked};
use crate::error::{Error, Result};
use crate::netns;
use crate::node::Node;
use crate::process::{Daemon, Stop, run};
use crate::wait;

impl Cluster {
    /// Imports an image file into every real node, those not running included: they do so when they start.
    pub fn import_image(&self, tar: impl AsRef<Path>) -> Result<()> {
        let kept = self.keep_image(tar.as_ref())?;
        for index in 1..=self.n_nodes {
            let node = Node { index, layout: &self.layout };
            if UnixStream::connect(node.socket()).is_err() {
                continue;
            }
            run(Command::new("ctr")
                .arg("-a")
                .arg(node.socket())
                .args(["-n", "k8s.io", "images", "import"])
                .arg(&kept))?;
            let file = kept.file_name().unwrap_or_default().to_string_lossy();
            self.layout.write(&format!("{}/imported/{file}", node.name()), "")?;
        }
        Ok(())
    }

    /// Ends node `index` (from 1) as a power cut does: kubelet, containerd and pods die at once, unannounced.
    pub fn kill_node(&self, index: usize) -> Result<()> {
        self.stop(&node_daemon(index), Stop::Kill)?;
        let socket = Node { index, layout: &self.layout }.socket();
        wait::until(
            &format!("the end of node n{index}"),
            PATIENCE,
            || Ok(()),
            || match UnixStream::connect(&socket) {
                Ok(_) => Err("containerd still answers".to_owned()),
                Err(_) => Ok(()),
            },
        )
    }

    /// Starts node `index` again, without waiting for it to be Ready.
    pub fn start_node(&self, index: usize) -> Result<()> {
        if index == 0 || index > self.n_nodes {
            return Err(Error::Invalid(format!(
                "there is no node n{index}; this cluster has {}",
                self.n_nodes
            )));
        }
        let name = node_daemon(index);
        let init = self
            .programs
            .init
            .clone()
            .ok_or_else(|| Error::Invalid("this cluster has no real nodes".to_owned()))?;
        let args =
            Node { index, layout: &self.layout }.args(&self.programs.bin, &self.programs.warden, &init);
        let netns = self.layout.node_ns(index);
        let mut daemons = locked(&self.daemons);
        daemons
            .entry(name.clone())
            .or_insert_with(|| Daemon::new(&name, &netns, "unshare", args))
            .start(&self.layout, None)
    }

    /// Cuts node `index` (from 2; the first is the control plane's) off from the network: its pods run on, but
    /// nobody reaches them and the API server hears nothing of it.
    pub fn disconnect_node(&self, index: usize) -> Result<()> {
        self.set_link(index, "down")
    }

    /// Joins a node again.
    pub fn reconnect_node(&self, index: usize) -> Result<()> {
        self.set_link(index, "up")
    }

    fn set_link(&self, index: usize, state: &str) -> Result<()> {
        if !(2..=self.n_nodes).contains(&index) {
            return Err(Error::Invalid(format!(
                "node n{index} has no link of its own; those from n2 to n{} have",
                self.n_nodes
            )));
        }
        netns::set_link(&self.layout, index, state)
    }

    /// Waits until node `index` is Ready.
    pub fn wait_node(&self, index: usize, limit: Duration) -> Result<()> {
        let node = format!("node/n{index}");
        self.wait_kubectl(
            &format!("node n{index} Ready"),
            limit,
            &["wait", "--for=condition=Ready", &node, "--timeout=1s"],
        )
    }

    /// Names of the components that can be stopped and started.
    pub fn components(&self) -> Vec<String> {
        locked(&self.daemons).keys().cloned().collect()
    }

    /// Runs a program of the test's as one more component of the control plane's network: its output goes to
    /// [`Cluster::log`] of `name`, the calls beside this one stop and start it, and it ends with the cluster.
    /// `KUBECONFIG` is set to the administrator's unless `env` says otherwise. It may end by itself.
    pub fn start_program<S: Into<String>>(
        &self,
        name: &str,
        program: impl AsRef<Path>,
        args: impl IntoIterator<Item = S>,
        env: &[(&str, &str)],
    ) -> Result<()> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(is_plain) || locked(&self.daemons).contains_key(name) {
            return Err(Error::Invalid(format!("`{name}` is taken, or not made of letters, digits and -")));
        }
        let kubeconfig = self.kubeconfig_inside().to_string_lossy().into_owned();
        let env: Vec<(&str, &str)> =
            [("KUBECONFIG", kubeconfig.as_str())].iter().chain(env).copied().collect();
        let args = args.into_iter().map(Into::into).collect();
        let mut daemon = Daemon::new(name, &self.layout.ns, program, args).of_a_test(&env);
        daemon.start(&self.layout, None)?;
        locked(&self.daemons).insert(name.to_owned(), daemon);
        Ok(())
    }

    /// The arguments a component is started with, for instance to start a second API server beside the first.
    pub fn component_args(&self, name: &str) -> Result<Vec<String>> {
        let daemons = locked(&self.daemons);
        daemons.get(name).map(|daemon| daemon.args().to_vec()).ok_or_else(|| self.no_component(name))
    }

    /// The process of a component, while it runs.
    pub fn component_pid(&self, name: &str) -> Option<u32> {
        let mut daemons = locked(&self.daemons);
        let daemon = daemons.get_mut(name)?;
        if daemon.is_running() { daemon.pid() } else { None }
    }

    /// Ends a component with SIGTERM, after 10 s with SIGKILL.
    pub fn stop_component(&self, name: &str) -> Result<()> {
        self.stop(name, Stop::Gently(PATIENCE))
    }

    /// Ends a component with SIGKILL.
    pub fn kill_component(&self, name: &str) -> Result<()> {
        self.stop(name, Stop::Kill)
    }

    fn stop(&self, name: &str, how: Stop) -> Result<()> {
        // Taken out meanwhile: nobody else should have to wait for the lock.
        let mut daemon = locked(&self.daemons).remove(name).ok_or_else(|| self.no_component(name))?;
        let stopped = daemon.stop(&self.layout, how);
        locked(&self.daemons).insert(name.to_owned(), daemon);
        stopped
    }

    /// Starts a component again with the arguments it had; the API server is waited for.
    pub fn start_component(&self, name: &str) -> Result<()> {
        self.start_component_with::<String>(name, [])
    }

    /// As [`Cluster::start_component`] with more arguments; `--flag=value` replaces an earlier one.
    pub fn start_component_with<S: Into<String>>(
        &self,
        name: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<()> {
        let args: Vec<String> = args.into_iter().map(Into::into).collect();
        {
            let mut daemons = locked(&self.daemons);
            let daemon = daemons.get_mut(name).ok_or_else(|| self.no_component(name))?;
            daemon.override_args(&args);
            daemon.start(&self.layout, None)?;
        }
        if name == "kube-apiserver" { self.wait_api(RESTART_LIMIT) } else { Ok(()) }
    }

    fn no_component(&self, name: &str) -> Error {
        Error::Invalid(format!("no component `{name}` was started by this process in {self:?}"))
    }
}

fn node_daemon(index: usize) -> String {
    format!("node-n{index}")
}
