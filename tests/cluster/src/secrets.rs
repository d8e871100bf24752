//! Keys, certificates and tokens of one cluster, made by the openssl program: one authority for serving
//! certificates, one for the aggregation layer's front proxy, and a random token for each component.

use std::fmt::Write as _;
use std::process::Command;

use crate::error::Result;
use crate::kubeconfig;
use crate::layout::{API_PORT, Layout, NODE_IP, SERVICE_IP, random_hex};
use crate::process::run;

/// A cluster of `cluster up` may live for weeks; none lives a year.
const DAYS: &str = "365";

/// Users of the token file: name of the kubeconfig, Kubernetes user, group.
const USERS: [(&str, &str, Option<&str>); 6] = [
    ("admin", "admin", Some("system:masters")),
    ("kube-controller-manager", "system:kube-controller-manager", None),
    ("kube-scheduler", "system:kube-scheduler", None),
    ("kube-proxy", "system:kube-proxy", None),
    ("coredns", "coredns", None),
    ("metrics-server", "metrics-server", None),
];

/// Names under which the API server is reached; unlike the certificate that it would make for itself, with
/// 127.0.0.1, where the host's clients find it.
fn api_server_names() -> String {
    let service = "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local";
    format!("{service},IP:127.0.0.1,IP:{NODE_IP},IP:{SERVICE_IP}")
}

/// Writes everything below `pki/`, the token file, and `kubeconfig/USER` for use inside the namespace.
pub(crate) fn create(layout: &Layout, n_nodes: usize) -> Result<()> {
    let key = layout.text("pki/sa.key");
    run(Command::new("openssl").args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]))?;
    authority(layout, "ca")?;
    authority(layout, "front-proxy-ca")?;
    certificate(
        layout,
        "apiserver",
        "ca",
        &format!("subjectAltName={}\nextendedKeyUsage=serverAuth", api_server_names()),
    )?;
    certificate(layout, "front-proxy-client", "front-proxy-ca", "extendedKeyUsage=clientAuth")?;
    let metrics = "subjectAltName=DNS:metrics-server.kube-system.svc\nextendedKeyUsage=serverAuth";
    certificate(layout, "metrics-server", "ca", metrics)?;
    tokens(layout, n_nodes)
}

fn tokens(layout: &Layout, n_nodes: usize) -> Result<()> {
    let nodes =
        (1..=n_nodes).map(|node| (format!("n{node}"), format!("system:node:n{node}"), Some("system:nodes")));
    let users = USERS.map(|(file, user, group)| (file.to_owned(), user.to_owned(), group));
    let mut table = String::new();
    for (file, user, group) in users.into_iter().chain(nodes) {
        let token = random_hex(16)?;
        // An empty group column would be a group named "".
        let group = group.map(|group| format!(",\"{group}\"")).unwrap_or_default();
        let _ = writeln!(table, "{token},{user},{file}{group}");
        let text =
            kubeconfig::render(&format!("https://{NODE_IP}:{API_PORT}"), &layout.path("pki/ca.crt"), &token);
        layout.write(&format!("kubeconfig/{file}"), &text)?;
        if file == "admin" {
            layout.write("pki/admin.token", &token)?;
        }
    }
    layout.write("tokens.csv", &table).map(drop)
}

fn authority(layout: &Layout, name: &str) -> Result<()> {
    make(layout, name, "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign", &[])
}

fn certificate(layout: &Layout, name: &str, authority: &str, extensions: &str) -> Result<()> {
    let extensions =
        format!("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n{extensions}");
    let (crt, key) =
        (layout.text(format!("pki/{authority}.crt")), layout.text(format!("pki/{authority}.key")));
    make(layout, name, &extensions, &["-CA", &crt, "-CAkey", &key])
}

fn make(layout: &Layout, name: &str, extensions: &str, signer: &[&str]) -> Result<()> {
    // A configuration of our own: the machine's adds extensions that contradict these.
    let text = format!(
        "[req]\nprompt=no\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\nCN={name}\n[ext]\n{extensions}\n"
    );
    layout.write(&format!("pki/{name}.cnf"), &text)?;
    let file = |kind: &str| layout.text(format!("pki/{name}.{kind}"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        DAYS,
    ]);
    command.args(["-config", &file("cnf"), "-keyout", &file("key"), "-out", &file("crt")]).args(signer);
    run(&mut command).map(drop)
}
