//! Command lines of etcd, API server, controller-manager and scheduler. Pure: paths and settings in,
//! arguments out.

use crate::layout::{API_PORT, Layout, NODE_IP, POD_NET, SERVICE_NET};

/// Every request once, when it is done: who did what to which object with which result, without bodies.
pub(crate) const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [{"level": "Metadata"}]}"#;

pub(crate) fn etcd_args(layout: &Layout) -> Vec<String> {
    let client = "http://127.0.0.1:2379";
    vec![
        format!("--data-dir={}", layout.text("etcd")),
        // The data is thrown away with the cluster.
        "--unsafe-no-fsync".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
    ]
}

pub(crate) fn api_server_args(layout: &Layout) -> Vec<String> {
    let pki = |name: &str| layout.text(format!("pki/{name}"));
    vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--secure-port={API_PORT}"),
        format!("--advertise-address={NODE_IP}"),
        format!("--cert-dir={}", layout.text("certs")),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--service-cluster-ip-range={SERVICE_NET}"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", pki("sa.key")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--token-auth-file={}", layout.text("tokens.csv")),
        "--allow-privileged=true".to_owned(),
        // Without it `kubectl logs` looks the node's name up in DNS.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--audit-policy-file={}", layout.text("audit-policy.json")),
        format!("--audit-log-path={}", layout.text("audit.log")),
        // One file, in megabytes: tests read it from the start.
        "--audit-log-maxsize=8192".to_owned(),
        "--enable-aggregator-routing=true".to_owned(),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
    ]
}

pub(crate) fn controller_manager_args(layout: &Layout) -> Vec<String> {
    let mut args = kubeconfigs(layout, "kube-controller-manager");
    args.extend([
        format!("--cert-dir={}", layout.text("certs")),
        "--leader-elect=false".to_owned(),
        format!("--service-account-private-key-file={}", layout.text("pki/sa.key")),
        format!("--root-ca-file={}", layout.text("pki/ca.crt")),
        "--use-service-account-credentials=true".to_owned(),
        format!("--cluster-cidr={POD_NET}"),
        "--allocate-node-cidrs=false".to_owned(),
        // At the default of 20 requests a second the first ServiceAccount comes after 6 s, 500 pods after 26 s.
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
        // The default is a folder of the host.
        format!("--flex-volume-plugin-dir={}", layout.text("flex")),
    ]);
    args
}

pub(crate) fn scheduler_args(layout: &Layout) -> Vec<String> {
    let mut args = kubeconfigs(layout, "kube-scheduler");
    args.extend([format!("--cert-dir={}", layout.text("certs")), "--leader-elect=false".to_owned()]);
    args.extend(["--kube-api-qps=200".to_owned(), "--kube-api-burst=400".to_owned()]);
    args
}

/// The three flags by which a component with delegated authentication finds the API server.
pub(crate) fn kubeconfigs(layout: &Layout, user: &str) -> Vec<String> {
    let file = layout.text(format!("kubeconfig/{user}"));
    ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"]
        .map(|flag| format!("{flag}={file}"))
        .to_vec()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn every_command_line_names_the_scratch_folder() {
        // By that the warden knows a process as one of the cluster's.
        let layout =
            Layout { name: "x".to_owned(), ns: "mcpf-x-1".to_owned(), dir: PathBuf::from("/tmp/mcpf-x-1") };
        for args in [
            etcd_args(&layout),
            api_server_args(&layout),
            controller_manager_args(&layout),
            scheduler_args(&layout),
        ] {
            assert!(args.iter().any(|arg| arg.contains("/tmp/mcpf-x-1")), "{args:?}");
            assert!(args.iter().all(|arg| arg.starts_with("--")), "{args:?}");
        }
    }

    #[test]
    fn the_audit_policy_is_json_without_duplicates_of_one_request() {
        let policy: serde_json::Value = serde_json::from_str(AUDIT_POLICY).expect("JSON");
        assert_eq!(policy["omitStages"][0], "RequestReceived");
    }
}
