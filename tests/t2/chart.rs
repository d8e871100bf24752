//! The chart, `deploy/` and the samples on the real API server and with the real helm.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use mcp_fleet_cluster::{Cluster, Tier};

use crate::{
    look::{self, SERVER, check},
    support::{
        self, Namespace, Suite, TestResult, client,
        operator::{NAMESPACE, Operator, USER},
    },
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn chart() -> String {
    root().join("charts/mcp-fleet").display().to_string()
}

/// Files of a folder with this ending, in order.
fn files(folder: &str, ending: &str) -> Result<Vec<PathBuf>, Failed> {
    let entries = std::fs::read_dir(root().join(folder))?;
    let paths = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>()?;
    let mut chosen: Vec<PathBuf> =
        paths.into_iter().filter(|p| p.to_string_lossy().ends_with(ending)).collect();
    chosen.sort();
    check(!chosen.is_empty(), || format!("no *{ending} in {folder}"))?;
    Ok(chosen)
}

/// Runs a command to its end; its output.
fn run(command: &mut Command) -> Result<String, Failed> {
    let out = command.output()?;
    let (text, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    check(out.status.success(), || format!("{command:?} failed: {error}{text}"))?;
    Ok(text.into_owned())
}

fn helm(cluster: &Cluster, args: &[&str]) -> Result<String, Failed> {
    run(cluster.helm().args(args))
}

pub async fn the_offline_checks_hold(suite: Arc<Suite>) -> TestResult {
    let mut check = Command::new(root().join("charts/mcp-fleet/ci/check.sh"));
    run(check.env("HELM", suite.cluster.bin_dir().join("helm"))).map(drop)
}

/// Sends manifests through admission, strictly, and keeps nothing.
fn dry_run(suite: &Suite, name: &str, manifests: &str) -> Result<(), Failed> {
    let file = suite.cluster.scratch().join(format!("dry-run-{name}.yaml"));
    std::fs::write(&file, manifests)?;
    let path = file.display().to_string();
    let out = suite.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &path])?;
    let n_objects = manifests.lines().filter(|l| l.starts_with("kind: ")).count();
    check(out.lines().count() == n_objects && n_objects > 0, || {
        format!("{name}: {n_objects} objects, but {out}")
    })
}

pub async fn the_api_server_takes_what_the_chart_renders(suite: Arc<Suite>) -> TestResult {
    suite.kubectl(&["create", "namespace", "tools"])?;
    for values in files("charts/mcp-fleet/ci", "-values.yaml")? {
        let name = values.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let path = values.display().to_string();
        helm(&suite.cluster, &["lint", "--strict", &chart(), "--values", &path])?;
        let rendered = helm(
            &suite.cluster,
            &["template", "mcp-fleet", &chart(), "--namespace", NAMESPACE, "--values", &path],
        )?;
        // Kinds of the Prometheus operator and of the Gateway API, which are not here.
        let foreign = |m: &&str| m.contains("\nkind: ServiceMonitor") || m.contains("\nkind: HTTPRoute");
        let (without, kept): (Vec<&str>, Vec<&str>) = rendered.split("\n---").partition(foreign);
        let expected = match name.as_str() {
            "servicemonitor-values" => 1,
            "gateway-values" => 2,
            _ => 0,
        };
        check(without.len() == expected, || format!("{name}: {without:?}"))?;
        dry_run(&suite, &name, &kept.join("\n---"))?;
    }
    Ok(())
}

pub async fn the_api_server_takes_deploy_and_the_samples(suite: Arc<Suite>) -> TestResult {
    crate::operator(&suite);
    let deploy = root().join("deploy").display().to_string();
    let out = suite.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-k", &deploy])?;
    check(out.contains("deployment.apps/mcp-fleet-operator"), || out)?;
    let ns = suite.namespace("samples").await?;
    for sample in files("deploy/samples", ".yaml")? {
        let path = sample.display().to_string();
        for dry in [&["--dry-run=server"][..], &[]] {
            suite.kubectl(&[&["-n", &ns.name, "apply", "--validate=strict", "-f", &path], dry].concat())?;
        }
    }
    // Fake pods run anything, so this shows that the operator understands and places them.
    for fleet in ns.api::<McpFleet>().list(&ListParams::default()).await? {
        ns.condition(&fleet.name_any(), "Accepted", "True", "Accepted").await?;
        ns.condition(&fleet.name_any(), "Ready", "True", "Ready").await?;
    }
    Ok(())
}

pub async fn install_upgrade_uninstall(_suite: Arc<Suite>) -> TestResult {
    let cluster = Cluster::builder(Tier::T2).name("t2-chart").kwok_nodes(2).start()?;
    let client = client(&cluster.kubeconfig()).await?;
    let (release, system) = (["mcp-fleet", &*chart()], Namespace::existing(NAMESPACE, client.clone()));
    let waited = ["--namespace", NAMESPACE, "--wait", "--timeout", "90s"];
    helm(&cluster, &[&["install"], &release[..], &waited, &["--create-namespace"]].concat())?;
    let deployment = system.api::<Deployment>().get("mcp-fleet-operator").await?;
    check(deployment.status.as_ref().and_then(|s| s.ready_replicas) == Some(2), || {
        format!("{deployment:?}")
    })?;

    let sealed = keys(&cluster)?;
    // The fake pods run nothing: the operator runs here, with the rights that the chart gave it.
    let tools = support_namespace(&cluster, &client, "tools")?;
    let operator = Operator::builder("chart").start(&cluster)?;
    let fleet = tools.fleet("weather", &format!("{{replicas: 2, {SERVER}}}")).await?;
    tools.condition("weather", "Ready", "True", "Ready").await?;
    never_refused(&cluster, USER)?;
    drop(operator);

    helm(&cluster, &[&["upgrade"], &release[..], &waited, &["--set", "replicas=3"]].concat())?;
    let deployment = system.api::<Deployment>().get("mcp-fleet-operator").await?;
    check(deployment.status.and_then(|s| s.ready_replicas) == Some(3), || {
        "the upgrade did not scale".into()
    })?;

    helm(&cluster, &["uninstall", "mcp-fleet", "--namespace", NAMESPACE, "--wait", "--timeout", "90s"])?;
    look::gone(&system.api::<Deployment>(), "mcp-fleet-operator").await?;
    look::gone(&system.api::<ServiceAccount>(), "mcp-fleet-operator").await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client);
    crds.get("mcpfleets.mcpfleet.io").await?;
    let kept = tools.get("weather").await?;
    check(kept.uid() == fleet.uid(), || "the fleet did not survive".into())?;
    check(look::pods(&tools, "weather").await?.len() == 2, || "its pods did not survive".into())?;

    helm(&cluster, &[&["install"], &release[..], &waited].concat())?;
    check(tools.get("weather").await?.uid() == fleet.uid(), || "the fleet did not survive".into())?;
    check(keys(&cluster)? == sealed, || "the keys did not survive, and with them all sessions".into())
}

/// The keys of the gateway, as Helm made them.
fn keys(cluster: &Cluster) -> Result<String, Failed> {
    let name = ["-n", NAMESPACE, "get", "secret", "mcp-fleet-gateway-keys"];
    let keys = cluster.kubectl_ok([&name[..], &["-o", "jsonpath={.data.keys\\.json}"]].concat())?;
    check(keys.len() > 60, || format!("no keys: {keys}"))?;
    Ok(keys)
}

fn support_namespace(cluster: &Cluster, client: &kube::Client, name: &str) -> Result<Namespace, Failed> {
    cluster.kubectl_ok(["create", "namespace", name])?;
    Ok(Namespace::existing(name, client.clone()))
}

/// No call of this user was forbidden.
fn never_refused(cluster: &Cluster, user: &str) -> Result<(), Failed> {
    let all = cluster.audit_log().all()?.by(user);
    check(!all.is_empty(), || format!("{user} never called"))?;
    let refused = all.filter(|e| e.code == 403);
    check(refused.is_empty(), || format!("forbidden: {:?}", refused.summary()))
}

pub async fn namespaced_mode_needs_a_role_only(_suite: Arc<Suite>) -> TestResult {
    let cluster = Cluster::builder(Tier::T2).name("t2-narrow").kwok_nodes(2).start()?;
    support::install_crd(&cluster)?;
    let client = client(&cluster.kubeconfig()).await?;
    let (tools, other) =
        (support_namespace(&cluster, &client, "tools")?, support_namespace(&cluster, &client, "other")?);
    let values = root().join("charts/mcp-fleet/ci/namespaced-values.yaml").display().to_string();
    let args = ["install", "narrow", &chart(), "--namespace", "tools", "--values", &values];
    helm(&cluster, &[&args[..], &["--wait", "--timeout", "90s"]].concat())?;
    let wide = cluster.kubectl_ok(["get", "clusterroles,clusterrolebindings", "-o", "name"])?;
    check(!wide.contains("mcp-fleet") && !wide.contains("narrow"), || wide)?;

    let account = tools.api::<Deployment>().get("narrow-mcp-fleet-operator").await?;
    let account = account.spec.and_then(|s| s.template.spec?.service_account_name).ok_or("no account")?;
    let token = cluster.service_account_token("tools", &account)?;
    let builder = Operator::builder("narrow").kubeconfig(cluster.token_kubeconfig("narrow", &token)?);
    let _operator = builder.namespace("tools").arg("--pod-namespace").arg("tools").start(&cluster)?;
    let spec = format!("{{{SERVER}, autoscaling: {{}}}}");
    other.fleet("weather", &spec).await?;
    tools.fleet("weather", &spec).await?;
    tools.condition("weather", "Ready", "True", "Ready").await?;
    tools.api::<Lease>().get("mcp-fleet-operator").await?;
    tools.api::<McpFleet>().delete("weather", &DeleteParams::default()).await?;
    look::gone(&tools.api::<Deployment>(), "weather").await?;
    let untouched = other.get("weather").await?;
    check(untouched.status.is_none() && untouched.spec.replicas.is_none(), || format!("{untouched:?}"))?;
    let user = format!("system:serviceaccount:tools:{account}");
    never_refused(&cluster, &user)?;
    let elsewhere = cluster.audit_log().all()?.by(&user).writes();
    let elsewhere = elsewhere.filter(|e| e.object.as_ref().is_some_and(|o| o.namespace != "tools"));
    check(elsewhere.is_empty(), || format!("{:?}", elsewhere.summary()))
}
