//! What the cluster suites share: one cluster for a suite, the operator under test with exactly the rights
//! that are deployed, a namespace for each test, and waits that say what they waited for.
#![allow(dead_code, reason = "each suite uses its part")]

pub mod operator;
pub mod wait;

use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::future::LocalBoxFuture;
use kube::{
    Api, Client, Config, ResourceExt, api::PostParams, config::Kubeconfig, core::NamespaceResourceScope,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use mcp_fleet::api::{crd, v1alpha1::McpFleet};
use mcp_fleet_cluster::{Builder, Cluster, Tier};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use self::operator::Operator;

/// What a test returns; `?` works on everything that can be shown.
pub type TestResult = Result<(), Failed>;
/// A test: a name, and what it does.
pub type Case = (&'static str, fn(Arc<Suite>) -> LocalBoxFuture<'static, TestResult>);

/// Makes a [`Case`] of an async function.
#[macro_export]
macro_rules! case {
    ($module:ident :: $name:ident) => {
        (concat!(stringify!($module), "::", stringify!($name)), |suite| Box::pin($module::$name(suite)))
    };
}

/// A running cluster with the CRD and the operator's rights in it.
pub struct Suite {
    /// The cluster.
    pub cluster: Cluster,
    /// As cluster administrator.
    pub client: Client,
    /// One operator for all tests that do not disturb it, started when the first asks for it.
    shared: OnceLock<Operator>,
    runtime: Runtime,
}

impl Suite {
    fn start(builder: Builder, deploy: bool) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let cluster = builder.start()?;
        let client = runtime.block_on(client(&cluster.kubeconfig()))?;
        if deploy {
            install_crd(&cluster)?;
            operator::install_rights(&cluster)?;
        }
        Ok(Self { cluster, client, shared: OnceLock::new(), runtime })
    }

    /// Another cluster beside the suite's, for tests that disturb what others share. It ends with the process.
    pub fn another(builder: Builder, deploy: bool) -> anyhow::Result<Arc<Self>> {
        // A runtime cannot be made, nor waited for, on a thread that another one drives.
        let start = std::thread::spawn(move || Self::start(builder, deploy).map(Arc::new));
        start.join().map_err(|_| anyhow::anyhow!("the start of another cluster panicked"))?
    }

    /// The operator that all undisturbing tests share. It watches every namespace.
    pub fn operator(&self) -> &Operator {
        self.operator_with(&[])
    }

    /// The same, with arguments; a suite that has some gives the same ones everywhere.
    pub fn operator_with(&self, args: &[&str]) -> &Operator {
        let builder = || args.iter().fold(Operator::builder("shared"), |builder, arg| builder.arg(arg));
        self.shared.get_or_init(|| builder().start(&self.cluster).expect("the operator starts"))
    }

    /// A namespace of this test's own.
    pub async fn namespace(&self, test: &str) -> Result<Namespace, Failed> {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        let body = json!({"metadata": {"generateName": format!("{test}-")}});
        let created = api.create(&PostParams::default(), &serde_json::from_value(body)?).await?;
        let namespace = Namespace { name: created.name_any(), client: self.client.clone() };
        // Pods need it; the controller-manager makes it, where there is one.
        Ok(namespace)
    }

    /// Runs kubectl as administrator; its output, or its error text.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, Failed> {
        Ok(self.cluster.kubectl_ok(args.iter().copied())?)
    }
}

/// A client for a kubeconfig file.
pub async fn client(kubeconfig: &std::path::Path) -> anyhow::Result<Client> {
    let mut config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &<_>::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Applies the CRD and waits until it serves.
pub fn install_crd(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&crd::mcpfleet_crd_yaml())?;
    // Not `kubectl wait`: it fails on an object that has no conditions yet.
    cluster.wait_until("the CRD to be served", Duration::from_secs(30), || {
        let get = ["get", "--raw", "/apis/mcpfleet.io/v1alpha1/mcpfleets?limit=1"];
        cluster.kubectl_ok(get).map(drop).map_err(|e| e.to_string())
    })?;
    Ok(())
}

/// The namespace of one test.
pub struct Namespace {
    /// Its name.
    pub name: String,
    client: Client,
}

impl Namespace {
    /// One that is there already.
    pub fn existing(name: &str, client: Client) -> Self {
        Self { name: name.to_owned(), client }
    }

    /// Objects of a kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates a fleet from the YAML of its spec.
    pub async fn fleet(&self, name: &str, spec: &str) -> Result<McpFleet, Failed> {
        Ok(self.api().create(&PostParams::default(), &fleet(name, spec)?).await?)
    }

    /// Replaces the spec of a fleet, as a person with an editor does, and keeps its replicas.
    pub async fn respec(&self, name: &str, spec: &str) -> Result<McpFleet, Failed> {
        let api: Api<McpFleet> = self.api();
        for _ in 0..10 {
            let mut live = api.get(name).await?;
            let replicas = live.spec.replicas;
            live.spec = fleet(name, spec)?.spec;
            live.spec.replicas = live.spec.replicas.or(replicas);
            match api.replace(name, &PostParams::default(), &live).await {
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                result => return Ok(result?),
            }
        }
        Err("ten conflicts in a row".into())
    }

    /// The fleet, as it is now.
    pub async fn get(&self, name: &str) -> Result<McpFleet, Failed> {
        Ok(self.api().get(name).await?)
    }

    /// Waits until a condition of the fleet has this status and reason.
    pub async fn condition(
        &self,
        fleet: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<McpFleet, Failed> {
        let what = format!("{fleet}: {type_}={status}/{reason}");
        wait::until(&what, wait::LIMIT, async || {
            let fleet: McpFleet = self.api().get(fleet).await.map_err(|e| e.to_string())?;
            let conditions = fleet.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
            let current =
                fleet.status.as_ref().and_then(|s| s.observed_generation) == fleet.metadata.generation;
            match conditions.iter().find(|c| c.type_ == type_) {
                Some(c) if c.status == status && c.reason == reason && current => Ok(fleet),
                Some(c) => Err(format!("{}/{}: {}", c.status, c.reason, c.message)),
                None => Err("no such condition yet".into()),
            }
        })
        .await
    }
}

/// A fleet from the YAML of its spec.
pub fn fleet(name: &str, spec: &str) -> Result<McpFleet, Failed> {
    let spec: Value = serde_saphyr::from_str(spec)?;
    let object = json!({"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "metadata": {"name": name}, "spec": spec});
    Ok(serde_json::from_value(object)?)
}

/// Runs a suite on one cluster. Where the tier cannot run here, each test is reported as ignored, with the
/// reason, and never as passed.
pub fn run(tier: Tier, builder: impl FnOnce(Builder) -> Builder, cases: Vec<Case>) -> ExitCode {
    run_with(tier, builder, true, cases)
}

/// As [`run`]; `deploy: false` leaves the cluster without the CRD and the operator's rights.
pub fn run_with(
    tier: Tier,
    builder: impl FnOnce(Builder) -> Builder,
    deploy: bool,
    cases: Vec<Case>,
) -> ExitCode {
    let mut args = Arguments::from_args();
    // Two cores: more at once only make timings worse.
    args.test_threads = args.test_threads.or(Some(4));
    let wanted = !args.list
        && cases.iter().any(|(name, _)| args.filter.as_ref().is_none_or(|f| name.contains(f.as_str())));
    let suite = match (wanted, tier.available()) {
        (false, _) => Err("nothing to run".to_owned()),
        (true, Err(reason)) => Err(format!("{tier}: {reason}")),
        (true, Ok(())) => {
            let suite = Suite::start(builder(Cluster::builder(tier)), deploy);
            Ok(Arc::new(suite.unwrap_or_else(|error| panic!("the {tier} cluster did not start: {error:#}"))))
        }
    };
    let trials = cases.into_iter().map(|(name, case)| {
        let suite = suite.clone();
        Trial::ignorable_test(name, move || match suite {
            Ok(suite) => {
                let test = case(Arc::clone(&suite));
                suite.runtime.block_on(test).map(|()| Completion::Completed)
            }
            Err(reason) => Ok(Completion::ignored_with(reason)),
        })
    });
    let conclusion = libtest_mimic::run(&args, trials.collect());
    if conclusion.num_failed > 0
        && let Ok(suite) = &suite
    {
        operator::print_log_tail(suite.shared.get());
    }
    conclusion.exit_code()
}
