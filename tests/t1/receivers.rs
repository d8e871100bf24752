//! Gateways learn whom to report to from the API server, at once: a file in their pod would be up to a minute and a half
//! late.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{Suite, TestResult, wait};

/// From the ConfigMap's change to the first report; a kubelet would take longer than this on average.
const SOON: Duration = Duration::from_secs(10);

/// A CA and a receiver's certificate from it.
fn authority() -> (String, TlsAcceptor) {
    let (key, leaf_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, key)).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap(),
        )
        .unwrap();
    (pem, TlsAcceptor::from(Arc::new(config)))
}

/// Takes connections and counts the reports that came over a handshake.
struct Receiver {
    port: u16,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    n_reports: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start(acceptor: TlsAcceptor) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let (acceptor, n_reports) = (Arc::new(Mutex::new(acceptor)), Arc::<AtomicUsize>::default());
        let (serving, counting) = (Arc::clone(&acceptor), Arc::clone(&n_reports));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, n) = (serving.lock().clone(), Arc::clone(&counting));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut bytes = vec![0; 64 * 1024];
                    // One report for each connection: what follows shakes hands again.
                    let read = stream.read(&mut bytes).await.unwrap_or(0);
                    n.fetch_add(usize::from(bytes[..read].starts_with(b"POST /v1/load")), Ordering::SeqCst);
                    let _ = stream
                        .write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                        .await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Ok(Self { port, acceptor, n_reports })
    }

    /// Waits for a report that is yet to come.
    async fn hears(&self, gateway: &Gateway) -> Result<Duration, libtest_mimic::Failed> {
        let (begin, before) = (Instant::now(), self.n_reports.load(Ordering::SeqCst));
        wait::until("a report", wait::LIMIT, async || {
            let more = self.n_reports.load(Ordering::SeqCst) > before;
            if more { Ok(()) } else { Err(std::fs::read_to_string(&gateway.log).unwrap_or_default()) }
        })
        .await?;
        Ok(begin.elapsed())
    }
}

/// A process that ends with its test.
struct Gateway {
    child: Child,
    log: std::path::PathBuf,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn a_gateway_trusts_a_new_operator_at_once(suite: Arc<Suite>) -> TestResult {
    let ns = suite.namespace("receivers").await?;
    // The rights of the chart.
    let sa = format!("--serviceaccount={0}:gateway", ns.name);
    let of = ["--namespace", &ns.name];
    for command in [
        &["create", "serviceaccount", "gateway"][..],
        &["create", "role", "ca", "--verb=get,list,watch", "--resource=configmaps", "--resource-name=ca"],
        &["create", "rolebinding", "ca", "--role=ca", &sa],
        &[
            "create",
            "role",
            "fleets",
            "--verb=get,list,watch",
            "--resource=mcpfleets.mcpfleet.io,endpointslices.discovery.k8s.io",
        ],
        &["create", "rolebinding", "fleets", "--role=fleets", &sa],
    ] {
        suite.kubectl(&[command, &of[..]].concat())?;
    }
    let token = suite.cluster.service_account_token(&ns.name, "gateway")?;
    let kubeconfig = suite.cluster.token_kubeconfig("receivers", &token)?;
    let (first, acceptor) = authority();
    let receiver = Receiver::start(acceptor).await?;

    let token_file = suite.cluster.scratch().join("receivers-token");
    std::fs::write(&token_file, "token")?;
    let keys_file = suite.cluster.scratch().join("receivers-keys.json");
    let key = json!({"id": "k1", "key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "notBefore": "2026-01-01T00:00:00Z"});
    std::fs::write(&keys_file, json!([key]).to_string())?;
    let log = suite.cluster.scratch().join("receivers-gateway.log");
    let gateway = Gateway {
        child: Command::new(env!("CARGO_BIN_EXE_mcp-fleet"))
            .args(["gateway", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"])
            .args(["--debug-listen=127.0.0.1:0", "--log-format=text", "--reports-ca-config-map=ca"])
            .arg(format!("--keys-file={}", keys_file.display()))
            .arg(format!("--watch-namespace={}", ns.name))
            .arg(format!("--reports=https://localhost:{}/v1/load", receiver.port))
            .arg(format!("--reports-token-file={}", token_file.display()))
            // It never comes.
            .arg(format!("--reports-ca-file={}", suite.cluster.scratch().join("no-ca.crt").display()))
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAMESPACE", &ns.name)
            .env("POD_NAME", "gateway-0")
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()?,
        log,
    };

    let maps: Api<ConfigMap> = ns.api();
    let map = json!({"metadata": {"name": "ca"}, "data": {"operator-0.crt": first}});
    maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
    receiver.hears(&gateway).await?;

    // Another operator, with a CA of its own.
    let (second, acceptor) = authority();
    *receiver.acceptor.lock() = acceptor;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let heard = receiver.n_reports.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(receiver.n_reports.load(Ordering::SeqCst), heard, "nobody is believed without a known CA");
    let patch = json!({"data": {"operator-0.crt": null, "operator-1.crt": second}});
    maps.patch("ca", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let after = receiver.hears(&gateway).await?;
    if after > SOON {
        return Err(format!("believed only after {after:?}").into());
    }
    Ok(())
}
