//! Gateways as processes, and what surrounds them: configuration, keys, ports, and the end of everything.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    client::{send, soon, try_send},
    pod::Pod,
};

/// A port that nobody listens on, never given twice: below those that the system gives to others.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 40) as u16 * 500;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::SeqCst);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gateway-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ports of one gateway.
#[derive(Clone, Copy)]
struct Ports {
    listen: u16,
    admin: u16,
    debug: u16,
    peer: u16,
}

impl Ports {
    fn new() -> Self {
        Self { listen: free_port(), admin: free_port(), debug: free_port(), peer: free_port() }
    }
}

/// A gateway. Ends with the value.
pub(crate) struct Gateway {
    child: Child,
    config: Value,
    file: PathBuf,
    log: PathBuf,
    more: Vec<String>,
    pub(crate) port: u16,
    pub(crate) peer: u16,
    admin: u16,
    debug: u16,
}

impl Gateway {
    fn start(folder: &Path, name: &str, ports: Ports, peers: &[u16], fleet: &Value) -> Self {
        Self::configured(folder, name, ports, (peers, fleet), Vec::new(), |_| {})
    }

    /// The same, with more flags and a configuration that `change` has changed.
    fn configured(
        folder: &Path,
        name: &str,
        ports: Ports,
        (peers, fleet): (&[u16], &Value),
        more: Vec<String>,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let at = |port: u16| format!("127.0.0.1:{port}");
        let mut config = json!({
            "listen": at(ports.listen), "adminListen": at(ports.admin), "debugListen": at(ports.debug),
            "peerListen": at(ports.peer), "peers": peers.iter().map(|p| at(*p)).collect::<Vec<_>>(),
            "keys": {"file": "keys.json"}, "fleets": [fleet],
        });
        change(&mut config);
        let file = folder.join(format!("{name}.yaml"));
        fs::write(&file, config.to_string()).unwrap();
        let log = folder.join(format!("{name}.log"));
        let child = launch(&file, &log, &more);
        Self {
            child,
            more,
            config,
            file,
            log,
            port: ports.listen,
            peer: ports.peer,
            admin: ports.admin,
            debug: ports.debug,
        }
    }

    /// Ends it at once, and starts it again as it was.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.child = launch(&self.file, &self.log, &self.more);
        self.serves().await;
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the end of the process; whether it ended well.
    pub(crate) async fn ended(&mut self) -> bool {
        soon("the end of a gateway", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.success();
                }
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Writes another list of endpoints into the configuration.
    pub(crate) fn list(&mut self, pods: &[&Pod]) {
        self.config["fleets"][0]["endpoints"] = endpoints(pods.iter().copied());
        self.write();
    }

    /// Writes another fleet list.
    pub(crate) fn add_fleet(&mut self, fleet: Value) {
        self.config["fleets"].as_array_mut().unwrap().push(fleet);
        self.write();
    }

    fn write(&self) {
        let new = self.file.with_extension("new");
        fs::write(&new, self.config.to_string()).unwrap();
        fs::rename(new, &self.file).unwrap();
    }

    /// Waits until it says that it is ready.
    async fn serves(&self) {
        soon("a gateway that is ready", async {
            while self.ready().await != Some(200) {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Status of its readiness; `None` where it does not answer.
    pub(crate) async fn ready(&self) -> Option<u16> {
        try_send(self.admin, "GET", "/readyz", &[], Vec::new()).await.ok().map(|r| r.status)
    }

    /// What the debug port says of a path.
    pub(crate) async fn debug(&self, path: &str) -> Value {
        settled().await;
        send(self.debug, "GET", path, &[], Vec::new()).await.json().await
    }

    /// Status of any request to the debug port.
    pub(crate) async fn debug_status(&self, method: &str, path: &str) -> u16 {
        send(self.debug, method, path, &[], Vec::new()).await.status
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The lines of its access log.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log.with_extension("access")).unwrap();
        let whole = text.rsplit_once('\n').map(|(whole, _)| whole).unwrap_or_default();
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect()
    }

    /// What the debug port says of the fleet.
    pub(crate) async fn fleet(&self) -> Value {
        self.debug("/admin/fleets/tools/demo").await
    }

    /// What the debug port says of one pod of the fleet.
    pub(crate) async fn endpoint(&self, pod: &Pod) -> Value {
        let address = json!(pod.address().to_string());
        let fleet = self.fleet().await;
        let found = fleet["endpoints"].as_array().unwrap().iter().find(|e| e["address"] == address);
        found.cloned().unwrap_or_default()
    }

    /// Waits until a pod is as `is_so` says, by the debug port.
    pub(crate) async fn wait_for(&self, what: &str, pod: &Pod, is_so: impl Fn(&Value) -> bool) {
        soon(what, async {
            while !is_so(&self.endpoint(pod).await) {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Its metrics.
    pub(crate) async fn metrics(&self) -> String {
        settled().await;
        let mut reply = send(self.admin, "GET", "/metrics", &[], Vec::new()).await;
        String::from_utf8(reply.bytes().await).unwrap()
    }

    /// The sum of a metric's series that have all these words in their labels.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let metrics = self.metrics().await;
        let series = metrics.lines().filter(|l| {
            l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| l.contains(label))
        });
        series.map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// A call is counted right after its answer was written: for who has the answer, that is in a moment.
async fn settled() {
    sleep(Duration::from_millis(5)).await;
}

fn launch(file: &Path, log: &Path, more: &[String]) -> Child {
    let append = |path: &Path| File::options().create(true).append(true).open(path).unwrap();
    Command::new(env!("CARGO_BIN_EXE_mcp-fleet"))
        .args(["gateway", "--threads", "1", "--log-format", "text", "--log-level", "info,mcp_fleet=debug"])
        .args(["--shutdown-delay-seconds", "1", "--shutdown-timeout-seconds", "5", "--config"])
        .arg(file)
        .args(more)
        .env("MCP_FLEET_ACCESS_LOG", "true")
        .stdin(Stdio::null())
        .stdout(append(&log.with_extension("access")))
        .stderr(append(log))
        .spawn()
        .unwrap()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

fn endpoints<'a>(pods: impl Iterator<Item = &'a Pod>) -> Value {
    pods.map(|pod| json!({"address": pod.address().to_string()})).collect()
}

/// A fleet of a configuration.
pub(crate) fn fleet(name: &str, pods: &[Pod], settings: &Value) -> Value {
    json!({"namespace": "tools", "name": name, "path": "/mcp", "endpoints": endpoints(pods.iter()),
           "gateway": settings})
}

/// Writes keys of these names; the last is the newest.
fn keys(folder: &Folder, ids: &[&str]) {
    let key = |(i, id): (usize, &&str)| {
        let secret = id.bytes().cycle().take(32).collect::<Vec<_>>();
        json!({"id": id, "key": STANDARD.encode(secret), "notBefore": format!("202{i}-01-01T00:00:00Z")})
    };
    let keys: Value = ids.iter().enumerate().map(key).collect();
    fs::write(folder.0.join("keys.json"), keys.to_string()).unwrap();
}

/// Two gateways that know each other, in front of the same pods.
pub(crate) struct World {
    pub(crate) a: Gateway,
    pub(crate) b: Gateway,
    folder: Folder,
}

impl World {
    /// Starts them; both know what the pods speak.
    pub(crate) async fn new(pods: &[Pod], settings: Value) -> Self {
        Self::with(pods, settings, |_| {}).await
    }

    /// The same, with a fleet that `change` has changed.
    pub(crate) async fn with(pods: &[Pod], settings: Value, change: impl FnOnce(&mut Value)) -> Self {
        let folder = Folder::new();
        keys(&folder, &["k1"]);
        let (one, two) = (Ports::new(), Ports::new());
        let mut fleet = fleet("demo", pods, &settings);
        change(&mut fleet);
        let a = Gateway::start(&folder.0, "a", one, &[one.peer, two.peer], &fleet);
        let b = Gateway::start(&folder.0, "b", two, &[one.peer, two.peer], &fleet);
        for gateway in [&a, &b] {
            gateway.serves().await;
            for pod in pods {
                gateway.wait_for("a probe", pod, |e| e["capability"]["known"] == true).await;
            }
            soon("a peer", async {
                while gateway.debug("/admin/peers").await["ready"] == json!([]) {
                    sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
        Self { a, b, folder }
    }

    /// Writes other keys, for gateways that start from now on.
    pub(crate) fn keys(&self, ids: &[&str]) {
        keys(&self.folder, ids);
    }

    /// Both.
    pub(crate) fn both(&self) -> [&Gateway; 2] {
        [&self.a, &self.b]
    }

    /// Writes another list of endpoints into both configurations, and waits until it is in force.
    pub(crate) async fn list(&mut self, pods: &[&Pod], leaving: &[&Pod]) {
        self.a.list(pods);
        self.b.list(pods);
        for gateway in [&self.a, &self.b] {
            for pod in leaving {
                gateway.wait_for("a drain", pod, |e| e["phase"] == "draining").await;
            }
            for pod in pods {
                gateway.wait_for("an endpoint", pod, |e| e["phase"] == "ready").await;
            }
        }
    }
}

/// One gateway that knows no other.
pub(crate) struct Alone {
    pub(crate) gateway: Gateway,
    folder: Folder,
}

impl Alone {
    pub(crate) async fn new(pods: &[Pod], settings: Value) -> Self {
        Self::with(pods, settings, |_| {}).await
    }

    /// The same, with a fleet that `change` has changed.
    pub(crate) async fn with(pods: &[Pod], settings: Value, change: impl FnOnce(&mut Value)) -> Self {
        let mut fleet = fleet("demo", pods, &settings);
        change(&mut fleet);
        Self::configured(pods, &fleet, |_, _| {}).await
    }

    /// The same, with a configuration that `change` has changed; it may put files into the folder.
    pub(crate) async fn configured(
        pods: &[Pod],
        fleet: &Value,
        change: impl FnOnce(&Path, &mut Value),
    ) -> Self {
        Self::with_flags(pods, fleet, |_| Vec::new(), change).await
    }

    async fn with_flags(
        pods: &[Pod],
        fleet: &Value,
        more: impl FnOnce(&Path) -> Vec<String>,
        change: impl FnOnce(&Path, &mut Value),
    ) -> Self {
        let folder = Folder::new();
        keys(&folder, &["k1"]);
        let (more, change) = (more(&folder.0), |config: &mut Value| change(&folder.0, config));
        let gateway = Gateway::configured(&folder.0, "alone", Ports::new(), (&[], fleet), more, change);
        gateway.serves().await;
        for pod in pods {
            gateway.wait_for("a probe", pod, |e| e["capability"]["known"] == true).await;
        }
        Self { gateway, folder }
    }

    /// Replaces a file beside the configuration.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let new = self.folder.0.join(format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.0.join(name)).unwrap();
    }

    /// One that sends load reports, with a token and to holders of a certificate of a CA: both in files of its
    /// folder, see [`Self::put`], that are not there yet.
    pub(crate) async fn reporting(pods: &[Pod], receivers: &[String]) -> Self {
        let fleet = fleet("demo", pods, &json!({}));
        let file = |folder: &Path, flag: &str, name: &str| {
            format!("--reports-{flag}-file={}", folder.join(name).display())
        };
        let more = |folder: &Path| vec![file(folder, "token", "token"), file(folder, "ca", "ca.crt")];
        Self::with_flags(pods, &fleet, more, |_, config| config["reports"] = json!(receivers)).await
    }
}
