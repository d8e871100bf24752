//! A real node: configuration of containerd, CNI and kubelet, the cgroup root, and the command line that
//! starts all of it in mount and PID namespaces of its own. What then happens inside is `warden/node.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::addons::zone;
use crate::error::{Context, Error, Result};
use crate::layout::{Layout, NODE_IP};
use crate::netns::{node_ip, pod_net};
use crate::tier::cni_dir;
use crate::tools::PAUSE_IMAGE;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Node `index`, counted from 1.
pub(crate) struct Node<'a> {
    pub(crate) index: usize,
    pub(crate) layout: &'a Layout,
}

impl Node<'_> {
    /// `n1`, `n2`, …: the Node object, the folder and the user.
    pub(crate) fn name(&self) -> String {
        format!("n{}", self.index)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.layout.path(self.name()).join(name)
    }

    /// containerd's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("ctrd.sock")
    }

    /// Writes the configuration and makes the cgroup root.
    pub(crate) fn prepare(&self) -> Result<()> {
        let name = self.name();
        for folder in ["varlog", "varlib/u", "varlib/w", "masks", "imported", "net.d", "kubelet"] {
            self.layout.mkdir(&format!("{name}/{folder}"))?;
        }
        self.layout.write(&format!("{name}/config.toml"), &self.containerd_config()?)?;
        self.layout.write(&format!("{name}/net.d/10-pod.conflist"), &self.network_config())?;
        // Names outside the cluster do not resolve; the file must be there all the same.
        self.layout.write(&format!("{name}/resolv.conf"), &format!("nameserver {NODE_IP}\n"))?;
        self.layout.write(&format!("{name}/kubelet.json"), &self.kubelet_config())?;
        make_cgroups(&self.layout.ns, &name)
    }

    /// Arguments for `unshare`. The process dies with its namespaces by one SIGKILL: a node crash.
    pub(crate) fn args(&self, bin: &Path, warden: &Path, init: &Path) -> Vec<String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut args =
            ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"].map(String::from).to_vec();
        args.extend([
            text(init.to_owned()),
            text(warden.to_owned()),
            "node".to_owned(),
            text(self.path("")),
            text(bin.join("kubelet")),
        ]);
        args.extend([
            format!("--config={}", text(self.path("kubelet.json"))),
            format!("--kubeconfig={}", self.layout.text(format!("kubeconfig/{}", self.name()))),
            format!("--hostname-override={}", self.name()),
            format!("--node-ip={}", node_ip(self.index)),
            format!("--node-labels=topology.kubernetes.io/zone={}", zone(self.index - 1)),
            format!("--root-dir={}", text(self.path("kubelet"))),
            format!("--cert-dir={}", text(self.path("kubelet/pki"))),
        ]);
        args
    }

    fn containerd_config(&self) -> Result<String> {
        let plugins = cni_dir().ok_or_else(|| Error::Invalid("the CNI plugins are gone".to_owned()))?;
        let dir = self.layout.text(self.name());
        // No AppArmor profile can be loaded in a namespace; the oom score cannot be lowered without
        // CAP_SYS_RESOURCE, and runc then fails with "can't get final child's PID from pipe".
        Ok(format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
[grpc]
  address = "{dir}/ctrd.sock"
[ttrpc]
  address = "{dir}/ctrd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{dir}/net.d"
"#
        ))
    }

    /// A bridge and a range of addresses for each node, and routes between them: no address is translated.
    fn network_config(&self) -> String {
        let config = json!({
            "cniVersion": "1.0.0", "name": "pod",
            "plugins": [{
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": self.path("net"),
                    "ranges": [[{"subnet": pod_net(self.index)}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        });
        config.to_string()
    }

    fn kubelet_config(&self) -> String {
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}/{}", self.layout.ns, self.name()),
            "cgroupsPerQOS": true,
            "enforceNodeAllocatable": ["pods"],
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "failSwapOn": false,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            // Images come from files and could not be pulled again.
            "imageGCHighThresholdPercent": 100,
            "volumePluginDir": self.path("kubelet/volplugins"),
            // Test only: whoever is inside the namespace may ask the kubelet anything.
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "clusterDNS": [NODE_IP],
            "clusterDomain": "cluster.local",
            "resolvConf": self.path("resolv.conf"),
        });
        config.to_string()
    }
}

/// The node's cgroup root must exist in every hierarchy before the kubelet starts: `/NS/NODE`.
fn make_cgroups(ns: &str, node: &str) -> Result<()> {
    let root = Path::new(CGROUP_ROOT);
    let make = |path: &Path| fs::create_dir_all(path).context(|| format!("create {}", path.display()));
    if root.join("cgroup.controllers").exists() {
        return make(&root.join(ns).join(node));
    }
    let hierarchies = fs::read_dir(root).context(|| format!("read {CGROUP_ROOT}"))?;
    for hierarchy in hierarchies.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let mut parent = hierarchy.path();
        for name in [ns, node] {
            let group = parent.join(name);
            make(&group)?;
            // A new cpuset is empty, and no process can run in an empty one.
            for setting in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(parent.join(setting)) {
                    fs::write(group.join(setting), value)
                        .context(|| format!("write {}/{setting}", group.display()))?;
                }
            }
            parent = group;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_share_no_cgroup_socket_folder_or_address() {
        let layout =
            Layout { name: "x".to_owned(), ns: "mcpf-x-1".to_owned(), dir: PathBuf::from("/tmp/mcpf-x-1") };
        let [first, second] = [1, 2].map(|index| Node { index, layout: &layout });
        let parse = |text: String| serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        let (a, b) = (parse(first.kubelet_config()), parse(second.kubelet_config()));
        for key in ["cgroupRoot", "containerRuntimeEndpoint", "volumePluginDir"] {
            assert_ne!(a[key], b[key], "{key}");
        }
        let (a, b) = (parse(first.network_config()), parse(second.network_config()));
        assert_ne!(a["plugins"][0]["ipam"], b["plugins"][0]["ipam"]);
    }
}
