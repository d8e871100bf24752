//! A running cluster: its parts, its start step by step, and its end. How to reach it and how to disturb it
//! stand in the files beside.

mod disturb;
mod reach;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::builder::Builder;
use crate::error::{Context, Result};
use crate::layout::{API_PORT, Layout, NODE_IP};
use crate::process::{self, Daemon, Stop, run};
use crate::registry;
use crate::tier::Tier;

/// How long a component may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a component that is started again may take to be ready.
const RESTART_LIMIT: Duration = Duration::from_mins(1);

/// Called with what was done and the time since the start.
pub(crate) type Progress = Box<dyn Fn(&str, Duration) + Send + Sync>;

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The Kubernetes ones.
    pub(crate) bin: PathBuf,
    pub(crate) warden: PathBuf,
    /// First process of a node's PID namespace; none without real nodes.
    pub(crate) init: Option<PathBuf>,
}

/// A running cluster. Dropping it removes it, unless it was detached.
pub struct Cluster {
    pub(crate) layout: Layout,
    pub(crate) tier: Tier,
    pub(crate) programs: Programs,
    n_nodes: usize,
    pub(crate) api_port: u16,
    daemons: Mutex<BTreeMap<String, Daemon>>,
    n_forwards: AtomicUsize,
    started: Instant,
    timings: Mutex<Vec<(String, Duration)>>,
    progress: Option<Progress>,
    guard: Option<Guard>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cluster {} in {}", self.tier, self.layout.name, self.layout.dir.display())
    }
}

/// The warden of this cluster; it removes everything when `pipe` closes.
struct Guard {
    warden: Child,
    pipe: Option<ChildStdin>,
}

/// A port of the host that leads into the cluster's network until this is dropped.
#[derive(Debug)]
pub struct Forward {
    daemon: Daemon,
    layout: Layout,
    port: u16,
}

impl Forward {
    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.daemon.stop(&self.layout, Stop::Kill);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// Starting: for the builder and the registry.
impl Cluster {
    /// Settings for a new cluster.
    pub fn builder(tier: Tier) -> Builder {
        Builder::new(tier)
    }

    pub(crate) fn unguarded(
        layout: Layout,
        tier: Tier,
        programs: Programs,
        n_nodes: usize,
        api_port: u16,
    ) -> Self {
        Self {
            layout,
            tier,
            programs,
            n_nodes,
            api_port,
            daemons: Mutex::default(),
            n_forwards: AtomicUsize::new(0),
            started: Instant::now(),
            timings: Mutex::default(),
            progress: None,
            guard: None,
        }
    }

    pub(crate) fn guarded(
        layout: Layout,
        tier: Tier,
        programs: Programs,
        n_nodes: usize,
        progress: Option<Progress>,
    ) -> Result<Self> {
        let mut command = Command::new("setsid");
        command.arg(&programs.warden).arg("watch").arg(&layout.dir).current_dir("/");
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let mut warden = match spawned.context(|| "start the warden".to_owned()) {
            Ok(warden) => warden,
            Err(error) => {
                let _ = fs::remove_dir_all(&layout.dir);
                return Err(error);
            }
        };
        let pipe = warden.stdin.take();
        let recorded = layout.write("warden", &process::record(warden.id()));
        let mut cluster = Self::unguarded(layout, tier, programs, n_nodes, 0);
        cluster.guard = Some(Guard { warden, pipe });
        cluster.progress = progress;
        recorded?;
        registry::remove_orphans(&cluster.layout.dir, &cluster.programs.warden);
        Ok(cluster)
    }

    /// Records and reports the time of a step.
    pub(crate) fn note(&self, what: &str) {
        let elapsed = self.started.elapsed();
        locked(&self.timings).push((what.to_owned(), elapsed));
        if let Some(progress) = &self.progress {
            progress(what, elapsed);
        }
    }

    /// Starts one of the Kubernetes programs beside the control plane, under its own name.
    pub(crate) fn launch(&self, program: &str, args: Vec<String>) -> Result<()> {
        self.launch_in(&self.layout.ns, program, program, args)
    }

    /// Starts one of the Kubernetes programs as `name` in a network namespace.
    pub(crate) fn launch_in(&self, netns: &str, name: &str, program: &str, args: Vec<String>) -> Result<()> {
        let mut daemon = Daemon::new(name, netns, self.programs.bin.join(program), args);
        daemon.start(&self.layout, None)?;
        locked(&self.daemons).insert(name.to_owned(), daemon);
        Ok(())
    }

    /// Opens the API server's port on the host and writes the kubeconfigs of `admin`.
    pub(crate) fn open_api_port(&mut self) -> Result<()> {
        let (daemon, port) = self.forwarder("forward-api", &format!("{NODE_IP}:{API_PORT}"))?;
        locked(&self.daemons).insert("forward-api".to_owned(), daemon);
        self.api_port = port;
        let token = self.layout.path("pki/admin.token");
        let token = fs::read_to_string(&token).context(|| format!("read {}", token.display()))?;
        self.token_kubeconfig("admin", &token).map(drop)
    }

    fn forwarder(&self, name: &str, address: &str) -> Result<(Daemon, u16)> {
        // Bound here, in the host's namespace; connected there.
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(|| "bind a port of 127.0.0.1".to_owned())?;
        let port = listener.local_addr().context(|| "ask for the bound port".to_owned())?.port();
        let args = ["forward".to_owned(), address.to_owned(), self.layout.dir.display().to_string()].to_vec();
        let mut daemon = Daemon::new(name, &self.layout.ns, &self.programs.warden, args);
        daemon.start(&self.layout, Some(Stdio::from(OwnedFd::from(listener))))?;
        Ok((daemon, port))
    }

    /// Puts an image where every node imports it when it starts.
    pub(crate) fn keep_image(&self, tar: &Path) -> Result<PathBuf> {
        let n_images = fs::read_dir(self.layout.path("images")).map_or(0, Iterator::count);
        let kept = self.layout.path(format!("images/{n_images:03}.tar"));
        fs::copy(tar, &kept).context(|| format!("copy {} to {}", tar.display(), kept.display()))?;
        Ok(kept)
    }

    pub(crate) fn wait_kubectl(&self, what: &str, limit: Duration, args: &[&str]) -> Result<()> {
        self.wait_until(what, limit, || self.kubectl_ok(args).map(drop).map_err(|error| error.to_string()))
    }

    pub(crate) fn wait_inside(
        &self,
        what: &str,
        limit: Duration,
        program: &str,
        args: &[&str],
    ) -> Result<()> {
        let program = self.programs.bin.join(program);
        self.wait_until(what, limit, || {
            let mut command = self.command_inside(&program);
            run(command.args(args)).map(drop).map_err(|error| error.to_string())
        })
    }

    /// Waits for a health endpoint in the network of node `index`.
    pub(crate) fn wait_http(&self, index: usize, what: &str, address: &str, path: &str) -> Result<()> {
        self.wait_until(what, RESTART_LIMIT, || {
            let mut command = self.command_on_node(index, &self.programs.warden);
            run(command.args(["get", address, path])).map(drop).map_err(|error| error.to_string())
        })
    }

    pub(crate) fn wait_api(&self, limit: Duration) -> Result<()> {
        self.wait_kubectl("the API server", limit, &["get", "--raw", "/readyz"])
    }

    pub(crate) fn apply_all(&self, manifests: &str) -> Result<()> {
        // The namespace kube-system comes a moment after /readyz, so the first try may be too early.
        let what = "applying the cluster's own objects";
        self.wait_until(what, RESTART_LIMIT, || self.apply(manifests).map_err(|error| error.to_string()))
    }
}

impl Cluster {
    /// Lets it run on after this process; [`crate::down`] with its name removes it. Its kubeconfig is then at
    /// the returned, stable place.
    pub fn detach(mut self) -> Result<PathBuf> {
        use std::io::Write;
        let kubeconfig = registry::record(&self)?;
        self.layout.write("detached", "")?;
        if let Some(mut guard) = self.guard.take() {
            let told = guard.pipe.take().map_or(Ok(()), |mut pipe| pipe.write_all(b"keep\n"));
            told.context(|| "tell the warden to leave".to_owned())?;
            let _ = guard.warden.wait();
        }
        Ok(kubeconfig)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take() else { return };
        drop(guard.pipe.take());
        // It has told on standard error what it could not remove.
        let _ = guard.warden.wait();
        for daemon in locked(&self.daemons).values_mut() {
            daemon.reap();
        }
    }
}
