//! A node: runs inside mount and PID namespaces of its own, below an init that reaps (assets/pause.c), and
//! ends when containerd or the kubelet ends, which ends the namespace and with it every pod.
//!
//! DIR is the node's folder: `config.toml` (containerd), `varlog`, `varlib/{u,w}`, `masks`, `imported`;
//! images are the tar files in `DIR/../images`. What containerd and the kubelet would leave in the host's
//! `/run`, `/var/lib` and `/var/log` goes to the folder instead.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The kubelet rewrites these at start, and they are the whole machine's: it gets a plain file in their place.
const HOST_SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];
/// How long containerd may take to answer: 400 looks, 50 ms apart.
const TRIES: u32 = 400;
const PAUSE: Duration = Duration::from_millis(50);

/// Runs the node until one of its two daemons ends.
pub(crate) fn run(dir: &Path, kubelet: &str, kubelet_args: &[&str]) -> Result<(), String> {
    private_mounts(dir)?;
    let socket = dir.join("ctrd.sock").to_string_lossy().into_owned();
    let config = dir.join("config.toml").to_string_lossy().into_owned();
    let mut containerd = daemon("containerd", &["--config", &config], dir)?;
    wait_for_containerd(&mut containerd, &socket)?;
    import_images(dir, &socket)?;
    let mut kubelet = daemon(kubelet, kubelet_args, dir)?;
    loop {
        for (name, child) in [("containerd", &mut containerd), ("kubelet", &mut kubelet)] {
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => return Err(format!("{name} ended with {status}")),
                Err(error) => return Err(format!("{name}: {error}")),
            }
        }
        sleep(PAUSE * 4);
    }
}

fn private_mounts(dir: &Path) -> Result<(), String> {
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
    run_ok("mount", &["--make-rprivate", "/"])?;
    // Mounts made for pods must reach the containers started later.
    run_ok("mount", &["--make-rshared", "/"])?;
    run_ok("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    for folder in ["/run/netns", "/run/lock"] {
        fs::create_dir_all(folder).map_err(|error| format!("mkdir {folder}: {error}"))?;
    }
    run_ok("mount", &["--bind", &at("varlog"), "/var/log"])?;
    let layers = format!("lowerdir=/var/lib,upperdir={},workdir={}", at("varlib/u"), at("varlib/w"));
    run_ok("mount", &["-t", "overlay", "overlay", "-o", &layers, "/var/lib"])?;
    for (index, name) in HOST_SYSCTLS.iter().enumerate() {
        let mask = at(&format!("masks/{index}"));
        fs::write(&mask, "0\n").map_err(|error| format!("write {mask}: {error}"))?;
        run_ok("mount", &["--bind", &mask, &format!("/proc/sys/{name}")])?;
    }
    Ok(())
}

fn wait_for_containerd(containerd: &mut Child, socket: &str) -> Result<(), String> {
    for _ in 0..TRIES {
        if run_ok("ctr", &["-a", socket, "version"]).is_ok() {
            return Ok(());
        }
        if let Ok(Some(status)) = containerd.try_wait() {
            return Err(format!("containerd ended with {status}"));
        }
        sleep(PAUSE);
    }
    Err(format!("containerd does not answer at {socket}"))
}

/// Imports what was not imported yet; containerd's store survives a restart of the node.
fn import_images(dir: &Path, socket: &str) -> Result<(), String> {
    let folder = dir.join("../images");
    let images = fs::read_dir(&folder).map_err(|error| format!("read {}: {error}", folder.display()))?;
    for image in images.flatten() {
        let done = dir.join("imported").join(image.file_name());
        if !done.exists() {
            run_ok(
                "ctr",
                &["-a", socket, "-n", "k8s.io", "images", "import", &image.path().to_string_lossy()],
            )?;
            File::create(&done).map_err(|error| format!("create {}: {error}", done.display()))?;
        }
    }
    Ok(())
}

fn daemon(program: &str, args: &[&str], dir: &Path) -> Result<Child, String> {
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let node = dir.file_name().unwrap_or_default().to_string_lossy();
    let path = dir.join(format!("../log/{name}-{node}.log"));
    let log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| format!("open {}: {error}", path.display()))?;
    let copy = log.try_clone().map_err(|error| format!("{}: {error}", path.display()))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(log).stderr(copy);
    command.spawn().map_err(|error| format!("start {program}: {error}"))
}

fn run_ok(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("start {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
