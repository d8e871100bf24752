//! The tiers, and whether this machine can run them. Looks only; installs nothing.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::tools::{c_compiler, find};

/// Where Debian puts the CNI plugins; containerd is told to look there.
pub(crate) const CNI_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// Cgroup controllers that the kubelet asks for.
const CGROUP_CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// How much of a cluster runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// etcd and the API server.
    T1,
    /// And the controller-manager, the scheduler and fake nodes.
    T2,
    /// And real nodes, kube-proxy, DNS and metrics.
    T3,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", self.number())
    }
}

impl Tier {
    /// 1, 2 or 3.
    pub const fn number(self) -> u8 {
        match self {
            Self::T1 => 1,
            Self::T2 => 2,
            Self::T3 => 3,
        }
    }

    /// Ok if this machine can run the tier, else what is missing and how to get it. Cheap: nothing is built.
    pub fn available(self) -> Result<(), String> {
        is_root()?;
        need("ip", "iproute2")?;
        for program in ["nsenter", "unshare", "setsid", "mount"] {
            need(program, "util-linux")?;
        }
        need("openssl", "openssl")?;
        need("rustc", "Rust")?;
        let given = std::env::var_os("MCP_FLEET_CLUSTER_BIN").is_some_and(|value| !value.is_empty());
        if !given {
            need("go", "Go 1.26, which builds the test cluster's programs")?;
        }
        namespaces()?;
        if self == Self::T3 {
            node_needs()?;
        }
        Ok(())
    }

    /// As [`Tier::available`], as an error of this crate.
    pub(crate) fn require(self) -> Result<()> {
        self.available().map_err(|reason| Error::Unavailable { tier: self, reason })
    }
}

fn need(program: &str, package: &str) -> Result<(), String> {
    find(program).map(drop).ok_or_else(|| format!("no `{program}` on the PATH (install {package})"))
}

fn is_root() -> Result<(), String> {
    let status =
        fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc is not readable: {error}"))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    if effective == Some("0") {
        Ok(())
    } else {
        Err("not root (network namespaces and mounts need it)".to_owned())
    }
}

/// Root in a container often may not make namespaces: tried once, in a process that ends at once.
fn namespaces() -> Result<(), String> {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err("this root may not create namespaces (a container needs --privileged)".to_owned()),
    }
}

fn node_needs() -> Result<(), String> {
    for (program, package) in
        [("containerd", "containerd"), ("ctr", "containerd"), ("runc", "runc"), ("nft", "nftables")]
    {
        need(program, package)?;
    }
    cni_dir().ok_or_else(|| {
        format!("no CNI plugins in {} (install containernetworking-plugins)", CNI_DIRS.join(" or "))
    })?;
    c_compiler().ok_or("no C compiler (install musl-tools)")?;
    let table = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !table.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        return Err("the kernel has no overlay file system (modprobe overlay)".to_owned());
    }
    let missing = CGROUP_CONTROLLERS.into_iter().find(|name| !has_controller(name));
    missing.map_or(Ok(()), |name| Err(format!("no cgroup controller `{name}` below /sys/fs/cgroup")))
}

/// Where the CNI plugins are.
pub(crate) fn cni_dir() -> Option<&'static str> {
    CNI_DIRS.into_iter().find(|dir| Path::new(dir).join("bridge").is_file())
}

fn has_controller(name: &str) -> bool {
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    unified.split_whitespace().any(|controller| controller == name)
        || Path::new("/sys/fs/cgroup").join(name).is_dir()
}
