//! What is added to a control plane: kube-proxy, DNS, metrics-server and kwok, each as a process on the first
//! node's address, with the objects it needs. Pure: configuration files, command lines and manifests.

use serde_json::{Value, json};

use crate::control_plane::kubeconfigs;
use crate::error::{Context, Result};
use crate::layout::{KWOK_NET, Layout, NODE_IP, POD_NET};
use crate::netns::node_ip;

/// Life of fake nodes and pods.
const KWOK_STAGES: &str = include_str!("../assets/kwok.yaml");
/// Port of metrics-server, behind the aggregation layer.
const METRICS_PORT: u16 = 10_443;
/// Zones that nodes are spread over, fake ones and real ones.
const N_ZONES: usize = 3;

/// Zone of the `index`-th node.
pub(crate) fn zone(index: usize) -> String {
    format!("zone-{}", index % N_ZONES + 1)
}

/// One list of objects, for a single `kubectl apply`.
pub(crate) fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

fn cluster_role(name: &str, rules: &Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

/// kube-proxy of real node `index`, counted from 1.
pub(crate) fn kube_proxy(layout: &Layout, index: usize) -> Result<Vec<String>> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": layout.path("kubeconfig/kube-proxy")},
        "clusterCIDR": POD_NET,
        // By its node's name it knows which pods are its own: a pod that calls itself through a Service gets an
        // answer only from the kube-proxy of its node.
        "hostnameOverride": format!("n{index}"),
        "bindAddress": node_ip(index),
        // Zero leaves the machine's connection tracking settings alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    });
    let file = layout.write(&format!("kube-proxy-n{index}.json"), &config.to_string())?;
    Ok(vec![format!("--config={}", file.display())])
}

pub(crate) fn kube_proxy_objects() -> Vec<Value> {
    vec![binding("test:kube-proxy", "system:node-proxier", "system:kube-proxy")]
}

/// DNS on the first node's address, which the kubelets give to pods. A block of its own for other names,
/// because `template` would come before `kubernetes` within one.
pub(crate) fn coredns(layout: &Layout) -> Result<Vec<String>> {
    let kubeconfig = layout.text("kubeconfig/coredns");
    let text = format!(
        "cluster.local:53 in-addr.arpa:53 {{\n  bind {NODE_IP}\n  errors\n  ready 127.0.0.1:8181\n  \
         kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {kubeconfig} test\n    ttl 5\n  }}\n  cache 5\n}}\n\
         .:53 {{\n  bind {NODE_IP}\n  template ANY ANY . {{\n    rcode NXDOMAIN\n  }}\n}}\n"
    );
    let file = layout.write("Corefile", &text)?;
    Ok(["-conf".to_owned(), file.display().to_string(), "-dns.port".to_owned(), "53".to_owned()].to_vec())
}

pub(crate) fn coredns_objects() -> Vec<Value> {
    let rules = json!([
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]);
    vec![cluster_role("system:coredns", &rules), binding("system:coredns", "system:coredns", "coredns")]
}

pub(crate) fn metrics_server_args(layout: &Layout) -> Vec<String> {
    let mut args = kubeconfigs(layout, "metrics-server");
    args.extend([
        format!("--bind-address={NODE_IP}"),
        format!("--secure-port={METRICS_PORT}"),
        format!("--tls-cert-file={}", layout.text("pki/metrics-server.crt")),
        format!("--tls-private-key-file={}", layout.text("pki/metrics-server.key")),
        // Kubelets sign their own certificates here.
        "--kubelet-insecure-tls".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        // The resolution must exceed the timeout, or it ends with a panic.
        "--metric-resolution=10s".to_owned(),
        "--kubelet-request-timeout=5s".to_owned(),
    ]);
    args
}

/// The aggregated API of metrics-server; `authority` is the CA's certificate in base64.
pub(crate) fn metrics_server_objects(authority: &str) -> Vec<Value> {
    let rules = json!([
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]);
    let meta = |name: &str| json!({"name": name, "namespace": "kube-system"});
    let reader = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta("metrics-server-auth-reader"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "extension-apiserver-authentication-reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "metrics-server"}],
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta("metrics-server"),
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": METRICS_PORT}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "metrics-server-1", "namespace": "kube-system", "labels": {"kubernetes.io/service-name": "metrics-server"}},
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": METRICS_PORT, "protocol": "TCP"}],
    });
    let api = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": "metrics-server", "namespace": "kube-system"}, "caBundle": authority,
        },
    });
    vec![
        cluster_role("system:metrics-server", &rules),
        binding("system:metrics-server", "system:metrics-server", "metrics-server"),
        binding("metrics-server:auth-delegator", "system:auth-delegator", "metrics-server"),
        reader,
        service,
        slice,
        api,
    ]
}

pub(crate) fn kwok(layout: &Layout) -> Result<Vec<String>> {
    let file = layout.write("kwok.yaml", KWOK_STAGES)?;
    Ok(vec![
        format!("--kubeconfig={}", layout.text("kubeconfig/admin")),
        format!("--config={}", file.display()),
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake".to_owned(),
        "--node-lease-duration-seconds=40".to_owned(),
        format!("--cidr={KWOK_NET}"),
        format!("--node-ip={NODE_IP}"),
        "--server-address=127.0.0.1:10247".to_owned(),
    ])
}

/// Fake nodes `kwok-0`, `kwok-1`, …; tainted only beside real ones, where a pod must say that it wants one.
pub(crate) fn kwok_nodes(n_nodes: usize, beside_real: bool) -> Vec<Value> {
    let taints = if beside_real {
        json!([{"key": "kwok", "value": "true", "effect": "NoSchedule"}])
    } else {
        json!([])
    };
    let node = |index: usize| {
        let name = format!("kwok-{index}");
        let labels = json!({
            "type": "kwok", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": zone(index),
        });
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": labels},
            "spec": {"taints": taints},
        })
    };
    (0..n_nodes).map(node).collect()
}

/// The certificate file in base64, as a `caBundle` wants it.
pub(crate) fn ca_bundle(layout: &Layout) -> Result<String> {
    let path = layout.path("pki/ca.crt");
    let pem = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
    Ok(base64(&pem))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = char::from(DIGITS[(word >> (18 - 6 * at) & 63) as usize]);
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn fake_nodes_are_tainted_only_beside_real_ones() {
        assert_eq!(kwok_nodes(2, true)[1]["spec"]["taints"][0]["key"], "kwok");
        assert_eq!(kwok_nodes(2, false)[1]["spec"]["taints"], json!([]));
    }

    #[test]
    fn fake_nodes_spread_over_the_zones() {
        let zones: std::collections::BTreeSet<String> = (0..6).map(zone).collect();
        assert_eq!(zones.len(), N_ZONES);
    }
}
