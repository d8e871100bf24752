//! The operator under test: the real binary, as a process, with the token of the ServiceAccount that the
//! manifests in `deploy/` give it, and so with exactly the rights that are deployed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mcp_fleet_cluster::Cluster;
use parking_lot::Mutex;

/// Namespace of the product in `deploy/`.
pub const NAMESPACE: &str = "mcp-fleet-system";
/// ServiceAccount of the operator in `deploy/`.
pub const SERVICE_ACCOUNT: &str = "mcp-fleet-operator";
/// As the audit log names it.
pub const USER: &str = "system:serviceaccount:mcp-fleet-system:mcp-fleet-operator";

static N_STARTED: AtomicU32 = AtomicU32::new(0);

/// Applies the namespace and the rights of `deploy/operator.yaml`, without the workload.
pub fn install_rights(cluster: &Cluster) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let namespace = std::fs::read_to_string(root.join("deploy/namespace.yaml"))?;
    cluster.apply(&namespace)?;
    let manifests = std::fs::read_to_string(root.join("deploy/operator.yaml"))?;
    let rights: Vec<&str> = manifests
        .split("\n---")
        .filter(|m| {
            ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]
                .iter()
                .any(|kind| m.lines().any(|l| l == format!("kind: {kind}")))
        })
        .collect();
    if rights.len() < 5 {
        bail!("deploy/operator.yaml has {} objects of rights", rights.len());
    }
    cluster.apply(&rights.join("\n---\n"))?;
    Ok(())
}

/// Settings of an operator.
pub struct Builder {
    name: String,
    args: Vec<String>,
    kubeconfig: Option<PathBuf>,
}

impl Builder {
    /// Watches one namespace only. Such an operator has a lease of its own.
    pub fn namespace(self, namespace: &str) -> Self {
        self.arg("--watch-namespace").arg(namespace)
    }

    /// Name of its lease; replicas of one operator share it.
    pub fn lease(self, name: &str) -> Self {
        self.arg("--lease-name").arg(name)
    }

    /// Another argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Another way to the API server, or other rights.
    pub fn kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig = Some(path.into());
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self, cluster: &Cluster) -> anyhow::Result<Operator> {
        let operator = self.spawn(cluster)?;
        operator.wait_ready(Duration::from_secs(60))?;
        Ok(operator)
    }

    /// Starts it.
    pub fn spawn(self, cluster: &Cluster) -> anyhow::Result<Operator> {
        let kubeconfig = match self.kubeconfig {
            Some(path) => path,
            None => kubeconfig(cluster)?,
        };
        let id = format!("{}-{}", self.name, N_STARTED.fetch_add(1, Ordering::Relaxed));
        let log = cluster.scratch().join(format!("operator-{id}.log"));
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"));
        command
            .args(["operator", "--log-format", "text", "--admin-listen", &format!("127.0.0.1:{port}")])
            .args(&self.args)
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", &id)
            .env("POD_NAMESPACE", NAMESPACE)
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        if !self.args.iter().any(|a| a == "--agent-image") {
            command.args(["--agent-image", "localhost/mcp-fleet:dev"]);
        }
        let child = command.spawn().context("failed to start the operator")?;
        Ok(Operator { child: Some(child), port, log })
    }
}

/// A kubeconfig with the token of the operator's ServiceAccount. Written once for a cluster: a start must not
/// read what another start is writing.
pub fn kubeconfig(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    static WRITTEN: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut written = WRITTEN.lock();
    if let Some(path) = written.get(cluster.scratch()) {
        return Ok(path.clone());
    }
    let token = cluster.service_account_token(NAMESPACE, SERVICE_ACCOUNT)?;
    let path = cluster.token_kubeconfig("operator", &token)?;
    written.insert(cluster.scratch().to_owned(), path.clone());
    Ok(path)
}

/// A running operator; dropping it ends it.
pub struct Operator {
    child: Option<Child>,
    port: u16,
    log: PathBuf,
}

impl Operator {
    /// Settings for a new one; the name appears in its lease identity.
    pub fn builder(name: &str) -> Builder {
        Builder { name: name.into(), args: Vec::new(), kubeconfig: None }
    }

    /// Body of an admin endpoint, if it answers 200.
    pub fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        std::io::Write::write_all(&mut stream, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        if !head.lines().next().is_some_and(|l| l.contains(" 200")) {
            bail!("{}: {body}", head.lines().next().unwrap_or_default());
        }
        Ok(body.to_owned())
    }

    /// Waits until /readyz says yes.
    pub fn wait_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            match self.get("/readyz") {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > limit => {
                    bail!("not ready after {limit:?}: {error}; log:\n{}", self.log())
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Value of a metric, summed over its labels; 0 if absent.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").unwrap_or_default();
        let samples =
            text.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        samples.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.metric("mcp_fleet_operator_leader") > 0.0
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_default() * 1024
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        child.wait().ok()?.code()
    }

    /// Whether the process has ended; its exit code.
    pub fn try_wait(&mut self) -> Option<i32> {
        self.child.as_mut()?.try_wait().ok()??.code()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// For the reader of a failed run.
pub fn print_log_tail(operator: Option<&Operator>) {
    if let Some(operator) = operator {
        let log = operator.log();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("--- the shared operator's last words ---");
        lines[lines.len().saturating_sub(40)..].iter().for_each(|line| eprintln!("{line}"));
    }
}
