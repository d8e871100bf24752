//! Removes a cluster: processes, mounts, cgroups, network namespace, folder. Everything is found through the
//! cluster's folder, and nothing is ended by the name of a program:
//!
//! - recorded processes (`DIR/pids/NAME` holds pid and start time) whose command line names the folder,
//! - then whatever else lives in the cluster's network namespaces, which nobody else can be in.
//!
//! SIGKILL throughout: the state is thrown away, so there is nothing to save. Running it twice does no harm.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Every folder of ours begins with this; a safeguard against a wrong argument.
const PREFIX: &str = "mcpf-";
/// How often, 50 ms apart, to look again for what goes away by itself (processes, cgroups): 10 s.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// Removes the cluster whose folder is `dir`.
pub(crate) fn run(dir: &Path) -> Result<(), String> {
    let is_ours =
        dir.is_absolute() && dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    let namespace = fs::read_to_string(dir.join("ns")).unwrap_or_default();
    let namespace = namespace.trim();
    if !is_ours || !namespace.starts_with(PREFIX) || namespace.contains('/') {
        return Err(format!("{} is not a folder of a test cluster", dir.display()));
    }
    let recorded = recorded(dir);
    for &(pid, _) in &recorded {
        kill(pid);
    }
    wait_until(|| !recorded.iter().any(|&(pid, start)| start_time(pid) == Some(start)));
    // Twice empty in a row: a process may have been on its way into the namespace.
    let mut quiet = 0;
    wait_until(|| {
        let inside = inside(namespace);
        inside.iter().copied().for_each(kill);
        quiet = if inside.is_empty() { quiet + 1 } else { 0 };
        quiet == 2
    });
    save_logs(dir, namespace);
    unmount_below(dir);
    wait_until(|| remove_cgroups(namespace));
    for namespace in namespaces(namespace) {
        command("ip", &["netns", "del", &namespace]);
    }
    if mounts_below(dir).is_empty() {
        wait_until(|| fs::remove_dir_all(dir).is_ok() || !dir.exists());
    }
    let left = leftovers(dir, namespace);
    if left.is_empty() { Ok(()) } else { Err(format!("could not remove {}", left.join(", "))) }
}

fn wait_until(mut done: impl FnMut() -> bool) {
    for _ in 0..TRIES {
        if done() {
            return;
        }
        sleep(PAUSE);
    }
}

/// The recorded processes that are still the ones that were recorded.
fn recorded(dir: &Path) -> Vec<(u32, u64)> {
    let Ok(files) = fs::read_dir(dir.join("pids")) else { return Vec::new() };
    let mut found = Vec::new();
    for file in files.flatten() {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let mut words = text.split_whitespace();
        let (Some(Ok(pid)), Some(Ok(start))) = (words.next().map(str::parse), words.next().map(str::parse))
        else {
            continue;
        };
        if start_time(pid) == Some(start) && names(pid, dir) {
            found.push((pid, start));
        }
    }
    found
}

/// Whether the command line of the process names the folder.
fn names(pid: u32, dir: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(&*dir.to_string_lossy())
}

/// Start time in clock ticks since boot, which with the pid identifies a process; none for a dead one, a
/// zombie included.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets and may hold anything; fields are counted from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Names of the cluster's network namespaces: its own, and `NAME-nI` of a further node.
fn namespaces(namespace: &str) -> Vec<String> {
    let Ok(files) = fs::read_dir("/run/netns") else { return Vec::new() };
    let is_ours = |name: &String| {
        name.strip_prefix(namespace).is_some_and(|rest| rest.is_empty() || rest.starts_with("-n"))
    };
    files.flatten().filter_map(|file| file.file_name().into_string().ok()).filter(is_ours).collect()
}

/// Processes in the network namespaces.
fn inside(namespace: &str) -> Vec<u32> {
    let files =
        namespaces(namespace).into_iter().filter_map(|name| fs::metadata(format!("/run/netns/{name}")).ok());
    let wanted: Vec<(u64, u64)> = files.map(|file| (file.dev(), file.ino())).collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| wanted.contains(&(ns.dev(), ns.ino())))
    })
    .filter(|&pid| pid != std::process::id())
    .collect()
}

fn kill(pid: u32) {
    // The shell has `kill` built in; the program of that name is not on every machine.
    command("sh", &["-c", "kill -KILL \"$1\"", "sh", &pid.to_string()]);
}

fn command(program: &str, args: &[&str]) -> bool {
    let outcome = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    outcome.is_ok_and(|status| status.success())
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut points: Vec<PathBuf> =
        table.lines().filter_map(|line| Some(PathBuf::from(line.split(' ').nth(1)?))).collect();
    points.retain(|point| point.starts_with(dir));
    points.sort();
    points.reverse();
    points
}

fn unmount_below(dir: &Path) {
    for point in mounts_below(dir) {
        command("umount", &["-l", &point.to_string_lossy()]);
    }
}

/// The cluster's root in each cgroup hierarchy: `/sys/fs/cgroup/NS` (version 2) or `/sys/fs/cgroup/*/NS`.
fn cgroups(namespace: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut found = vec![root.join(namespace)];
    if let Ok(hierarchies) = fs::read_dir(root) {
        found.extend(hierarchies.flatten().map(|hierarchy| hierarchy.path().join(namespace)));
    }
    found.retain(|group| group.is_dir());
    found
}

/// Removes them from the leaves up; true when nothing is left. A group stays busy for a moment after its last process.
fn remove_cgroups(namespace: &str) -> bool {
    fn remove(group: &Path) {
        if let Ok(entries) = fs::read_dir(group) {
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                remove(&entry.path());
            }
        }
        let _ = fs::remove_dir(group);
    }
    for group in cgroups(namespace) {
        remove(&group);
    }
    cgroups(namespace).is_empty()
}

/// With `MCP_FLEET_CLUSTER_LOGS=DIR` the logs and the audit log are copied to `DIR/NAMESPACE` first.
fn save_logs(dir: &Path, namespace: &str) {
    let Some(target) = std::env::var_os("MCP_FLEET_CLUSTER_LOGS").filter(|value| !value.is_empty()) else {
        return;
    };
    let target = Path::new(&target).join(namespace);
    if fs::create_dir_all(&target).is_ok() {
        let (log, audit) = (dir.join("log"), dir.join("audit.log"));
        command("cp", &["-r", &log.to_string_lossy(), &audit.to_string_lossy(), &target.to_string_lossy()]);
    }
}

fn leftovers(dir: &Path, namespace: &str) -> Vec<String> {
    let mut left: Vec<String> = cgroups(namespace).iter().map(|group| group.display().to_string()).collect();
    left.extend(namespaces(namespace).into_iter().map(|name| format!("network namespace {name}")));
    if dir.exists() {
        left.push(dir.display().to_string());
    }
    left
}
