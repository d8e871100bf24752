//! The cluster tested by itself: each tier starts, works and leaves nothing behind, also after a panic and
//! after SIGKILL. A tier that this machine cannot run is reported as ignored, with the reason.
#![allow(
    clippy::disallowed_types,
    clippy::print_stderr,
    clippy::panic,
    missing_docs,
    reason = "a test program: it reports on standard error and may fail loudly"
)]

use std::fs;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use mcp_fleet_cluster::image::Image;
use mcp_fleet_cluster::{Cluster, Tier, compile_rust};

type Outcome = Result<(), Failed>;
type Case = (&'static str, Tier, fn() -> Outcome);

/// A pod that starts, a name that resolves: seconds on an idle machine.
const LIMIT: Duration = Duration::from_mins(1);

const CASES: [Case; 6] = [
    ("t1_api_server_answers_outside_and_inside_and_audits", Tier::T1, api_server),
    ("t1_leaves_nothing_after_a_panic", Tier::T1, panic_cleans_up),
    ("t1_leaves_nothing_after_sigkill_during_start", Tier::T1, sigkill_cleans_up),
    ("t2_controllers_run_pods_on_fake_nodes_and_restart", Tier::T2, controllers),
    ("t3_pods_of_two_nodes_reach_each_other_by_service_name", Tier::T3, real_nodes),
    ("t3_a_killed_or_cut_off_node_comes_back_with_its_pods", Tier::T3, killed_node),
];

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let host = Host::observe();
    let trial = |(name, tier, case): Case| {
        Trial::ignorable_test(name, move || match tier.available() {
            Ok(()) => case().map(|()| Completion::Completed),
            Err(reason) => Ok(Completion::ignored_with(format!("{tier}: {reason}"))),
        })
    };
    let conclusion = libtest_mimic::run(&args, CASES.into_iter().map(trial).collect());
    let after = Host::observe();
    if host != after {
        eprintln!("the host was changed:\nbefore: {host:#?}\nafter: {after:#?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// What of the host must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    routes: String,
    rules: String,
    forwarding: String,
    panic: String,
    overcommit: String,
}

impl Host {
    fn observe() -> Self {
        let output = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).output();
            output.map_or_else(
                |error| error.to_string(),
                |output| String::from_utf8_lossy(&output.stdout).into_owned(),
            )
        };
        let sysctl = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
        Self {
            routes: output("ip", &["route"]),
            rules: output("nft", &["list", "ruleset"]),
            forwarding: sysctl("net/ipv4/ip_forward"),
            panic: sysctl("kernel/panic"),
            overcommit: sysctl("vm/overcommit_memory"),
        }
    }
}

/// What a cluster is known by, to be looked for when it is gone.
struct Traces {
    netns: String,
    scratch: PathBuf,
}

impl Traces {
    fn of(cluster: &Cluster) -> Self {
        Self { netns: cluster.netns().to_owned(), scratch: cluster.scratch().to_owned() }
    }

    /// Namespaces, folder, processes, mounts and cgroups that are still there.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for folder in ["/run/netns", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory", "/sys/fs/cgroup"] {
            let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            left.extend(
                names
                    .filter(|path| path.to_string_lossy().contains(&self.netns))
                    .map(|path| path.display().to_string()),
            );
        }
        if self.scratch.exists() {
            left.push(self.scratch.display().to_string());
        }
        let scratch = self.scratch.to_string_lossy().into_owned();
        if fs::read_to_string("/proc/mounts").unwrap_or_default().contains(&scratch) {
            left.push("a mount".to_owned());
        }
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&scratch) {
                left.push(format!("process {line}"));
            }
        }
        left
    }

    fn check_gone(&self) -> Outcome {
        let left = self.left();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:#?}").into()) }
    }
}

/// Ends the cluster and checks that nothing of it is left.
fn end(cluster: Cluster) -> Outcome {
    let traces = Traces::of(&cluster);
    for (what, after) in cluster.timings() {
        eprintln!("{}  {:5.1} s  {what}", cluster.name(), after.as_secs_f64());
    }
    let start = Instant::now();
    drop(cluster);
    eprintln!("removed in {:.1} s", start.elapsed().as_secs_f64());
    traces.check_gone()
}

fn api_server() -> Outcome {
    let cluster = Cluster::builder(Tier::T1).name("self-t1").start()?;
    if cluster.kubectl_ok(["get", "--raw", "/readyz"])? != "ok" {
        return Err("the API server is not ready".into());
    }
    let inside =
        cluster.command_inside(cluster.bin_dir().join("kubectl")).args(["get", "namespaces"]).output()?;
    if !inside.status.success() {
        return Err(format!("inside: {}", String::from_utf8_lossy(&inside.stderr)).into());
    }
    // A service account without rights, by its token: it is known, and it may do nothing.
    cluster.kubectl_ok(["create", "serviceaccount", "nobody"])?;
    let token = cluster.service_account_token("default", "nobody")?;
    let kubeconfig = cluster.token_kubeconfig("nobody", &token)?;
    let mark = cluster.audit_log().mark()?;
    let refused =
        cluster.kubectl().env("KUBECONFIG", kubeconfig).args(["create", "configmap", "x"]).output()?;
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    if !message.contains("system:serviceaccount:default:nobody") {
        return Err(format!("not refused as the service account: {message}").into());
    }
    let writes = cluster.audit_log().since(mark)?.by_service_account("default", "nobody").writes();
    let codes: Vec<u16> = writes.of("configmaps").into_iter().map(|entry| entry.code).collect();
    if codes != [403] {
        return Err(format!("the audit log has {codes:?} instead of one 403").into());
    }
    // A program of the test's own runs beside the control plane, with the cluster's address at hand.
    let args = ["get", "namespaces", "--watch"];
    cluster.start_program("watcher", cluster.bin_dir().join("kubectl"), args, &[])?;
    wait_for("its output", || {
        fs::read_to_string(cluster.log("watcher")).ok()?.contains("kube-system").then_some(())
    })?;
    cluster.stop_component("watcher")?;
    cluster.start_component("watcher")?;
    let forward = cluster.forward(&format!("{}:6443", cluster.node_ip()))?;
    std::net::TcpStream::connect(("127.0.0.1", forward.port()))?;
    end(cluster)
}

fn panic_cleans_up() -> Outcome {
    let mut traces = None;
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let cluster = Cluster::builder(Tier::T1).name("self-panic").start();
        traces = cluster.as_ref().ok().map(Traces::of);
        panic!("on purpose");
    }));
    caught.err().ok_or("no panic")?;
    traces.ok_or("the cluster did not start")?.check_gone()
}

/// The program that starts a cluster is killed in the middle of it: only the warden can clean up then.
fn sigkill_cleans_up() -> Outcome {
    let temp = std::env::temp_dir().join(format!("selftest-{}", std::process::id()));
    fs::create_dir_all(&temp)?;
    // Programs are built first, if need be, so that the start itself is what is cut off.
    drop(Cluster::builder(Tier::T1).name("self-warm").start()?);
    let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
    command.args(["up", "--tier", "1", "--name", "self-kill"]).env("TMPDIR", &temp).stdout(Stdio::null());
    let mut starting = command.spawn()?;
    let folder = || fs::read_dir(&temp).into_iter().flatten().flatten().map(|entry| entry.path()).next();
    let scratch = wait_for("etcd's process", || folder().filter(|dir| dir.join("pids/etcd").exists()))?;
    starting.kill()?;
    starting.wait()?;
    let netns = scratch.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let traces = Traces { netns, scratch };
    wait_for("the warden", || traces.left().is_empty().then_some(()))?;
    fs::remove_dir_all(&temp)?;
    Ok(())
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failed> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if let Some(found) = look() {
            return Ok(found);
        }
        sleep(Duration::from_millis(20));
    }
    Err(format!("waited {} s for {what}", LIMIT.as_secs()).into())
}

fn controllers() -> Outcome {
    let cluster = Cluster::builder(Tier::T2)
        .name("self-t2")
        .kwok_nodes(5)
        .metrics_server(true)
        .kcm_args(["--horizontal-pod-autoscaler-sync-period=2s"])
        .start()?;
    let nodes = cluster.kubectl_ok(["get", "nodes", "-o", "name"])?;
    if nodes.lines().count() != 5 {
        return Err(format!("not five fake nodes: {nodes}").into());
    }
    cluster.kubectl_ok(["create", "deployment", "web", "--image=web", "--replicas=4"])?;
    cluster.kubectl_ok(["rollout", "status", "deployment/web", "--timeout=60s"])?;
    // Without the controller-manager nothing scales; with it again, it does.
    let name = "kube-controller-manager";
    cluster.stop_component(name)?;
    cluster.kubectl_ok(["scale", "deployment/web", "--replicas=6"])?;
    if cluster.component_pid(name).is_some() {
        return Err("the controller-manager still runs".into());
    }
    cluster.start_component(name)?;
    cluster.kubectl_ok(["rollout", "status", "deployment/web", "--timeout=60s"])?;
    cluster.kill_component("kube-apiserver")?;
    cluster.start_component("kube-apiserver")?;
    let ready = cluster.kubectl_ok(["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"])?;
    if ready != "6" {
        return Err(format!("{ready} of 6 pods ready").into());
    }
    end(cluster)
}

/// The image of probe/main.rs, which serves and asks.
fn probe_image(dir: &Path) -> Result<PathBuf, Failed> {
    let program = compile_rust("probe", &Path::new(env!("CARGO_MANIFEST_DIR")).join("probe/main.rs"))?;
    let tar = dir.join("probe.tar");
    Image::new("localhost/probe:1").program(program, "/probe")?.entrypoint(["/probe"]).write(&tar)?;
    Ok(tar)
}

const WEB: &str = include_str!("web.yaml");

/// Starts two pods behind the Service `web`, one on each node; their names by node.
fn start_web(cluster: &Cluster) -> Result<Vec<String>, Failed> {
    let dir = cluster.scratch().join("images");
    cluster.import_image(probe_image(&dir)?)?;
    cluster.apply(WEB)?;
    cluster.kubectl_ok(["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let path = "jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name}{\"\\n\"}{end}";
    let pods = cluster.kubectl_ok(["get", "pods", "-l", "app=web", "-o", path])?;
    let mut pods: Vec<&str> = pods.lines().collect();
    pods.sort_unstable();
    match pods.as_slice() {
        [first, second] => match (first.strip_prefix("n1 "), second.strip_prefix("n2 ")) {
            (Some(first), Some(second)) => Ok(vec![first.to_owned(), second.to_owned()]),
            _ => Err(format!("not one pod on each node: {pods:?}").into()),
        },
        _ => Err(format!("not two pods: {pods:?}").into()),
    }
}

/// Asks `address` from within `pod` until every name in `wanted` has answered.
fn ask_until(cluster: &Cluster, pod: &str, address: &str, wanted: &[String]) -> Outcome {
    let mut seen = Vec::new();
    let what = format!("{pod}: answers of {wanted:?} from {address}");
    cluster.wait_until(&what, LIMIT, || {
        let answer = cluster
            .kubectl_ok(["exec", pod, "--", "/probe", "get", address])
            .map_err(|error| error.to_string())?;
        seen.push(answer.trim().to_owned());
        if wanted.iter().all(|name| seen.contains(name)) { Ok(()) } else { Err(format!("only {seen:?}")) }
    })?;
    Ok(())
}

fn real_nodes() -> Outcome {
    let cluster = Cluster::builder(Tier::T3).name("self-t3").start()?;
    let pods = start_web(&cluster)?;
    // From each node to the pods of both, itself included, by short and by full name.
    for pod in &pods {
        ask_until(&cluster, pod, "web:80", &pods)?;
        ask_until(&cluster, pod, "web.default.svc.cluster.local:80", &pods)?;
    }
    let address = cluster.kubectl_ok(["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let forward = cluster.forward(&format!("{address}:80"))?;
    std::net::TcpStream::connect(("127.0.0.1", forward.port()))?;
    // Logs come through the kubelet, figures through the aggregation layer.
    cluster.kubectl_ok(["logs", &pods[1]])?;
    cluster.wait_until("figures of both nodes", LIMIT, || {
        let table =
            cluster.kubectl_ok(["top", "nodes", "--no-headers"]).map_err(|error| error.to_string())?;
        if table.lines().count() == 2 { Ok(()) } else { Err(table) }
    })?;
    end(cluster)
}

fn killed_node() -> Outcome {
    let cluster = Cluster::builder(Tier::T3).name("self-crash").metrics_server(false).start()?;
    let pods = start_web(&cluster)?;
    cluster.kill_node(2)?;
    if UnixStream::connect(cluster.scratch().join("n2/ctrd.sock")).is_ok() {
        return Err("containerd of a killed node answers".into());
    }
    cluster.start_node(2)?;
    cluster.wait_until("the pod's second start", LIMIT, || {
        let path =
            "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
        let state =
            cluster.kubectl_ok(["get", "pod", &pods[1], "-o", path]).map_err(|error| error.to_string())?;
        if state == "1 true" { Ok(()) } else { Err(state) }
    })?;
    cluster.wait_node(2, LIMIT)?;
    ask_until(&cluster, &pods[0], "web:80", &pods)?;
    // A broken link: nothing dies, and nothing gets through.
    let path = "jsonpath={.status.podIP}";
    let address = format!("{}:8080", cluster.kubectl_ok(["get", "pod", &pods[1], "-o", path])?);
    let ask = || cluster.kubectl_ok(["exec", &pods[0], "--", "/probe", "get", &address]);
    cluster.disconnect_node(2)?;
    if let Ok(answer) = ask() {
        return Err(format!("{answer} answered over a broken link").into());
    }
    cluster.reconnect_node(2)?;
    ask_until(&cluster, &pods[0], &address, &pods[1..])?;
    end(cluster)
}
