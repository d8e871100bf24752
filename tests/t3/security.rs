//! Pod Security `restricted` on the real API server and the real kubelet, for fleets and for the product.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    lab,
    support::{Suite, TestResult},
};

/// What each container must say, whatever the namespace asks for.
fn complaints(pod: &Value, may_have_token: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut demand = |what: String, got: &Value, wanted: Value| {
        if *got != wanted {
            found.push(format!("{what} is {got}, not {wanted}"));
        }
    };
    let spec = &pod["spec"];
    demand("runAsNonRoot".into(), &spec["securityContext"]["runAsNonRoot"], json!(true));
    demand(
        "seccompProfile".into(),
        &spec["securityContext"]["seccompProfile"]["type"],
        json!("RuntimeDefault"),
    );
    demand("enableServiceLinks".into(), &spec["enableServiceLinks"], json!(false));
    let containers = ["initContainers", "containers"].iter().filter_map(|key| spec[key].as_array()).flatten();
    for container in containers {
        let (name, context) = (&container["name"], &container["securityContext"]);
        demand(format!("{name}: readOnlyRootFilesystem"), &context["readOnlyRootFilesystem"], json!(true));
        demand(
            format!("{name}: allowPrivilegeEscalation"),
            &context["allowPrivilegeEscalation"],
            json!(false),
        );
        demand(format!("{name}: capabilities"), &context["capabilities"]["drop"], json!(["ALL"]));
        let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let has_token = mounts.any(|m| m["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount");
        demand(format!("{name}: has a token"), &json!(has_token), json!(has_token && may_have_token));
    }
    found
}

pub async fn a_restricted_namespace_runs_a_fleet(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("restricted").await?;
    suite.kubectl(&["label", "namespace", &ns.name, "pod-security.kubernetes.io/enforce=restricted"])?;
    lab::ready_fleet(&ns, "weather", &lab::sample(1)).await?;
    let pod = lab::pods(&ns, "weather").await?.remove(0);
    let found = complaints(&serde_json::to_value(&pod)?, false);
    if !found.is_empty() {
        return Err(found.join("\n").into());
    }
    // The namespace really is strict.
    let root = json!({"metadata": {"name": "root"}, "spec": {"containers": [{"name": "c", "image": "localhost/x:1"}]}});
    let refused = ns.api::<Pod>().create(&<_>::default(), &serde_json::from_value(root)?).await;
    if refused.is_ok() {
        return Err("an ordinary pod was let in: Pod Security is not at work".into());
    }
    // The kernel's view: the user of the server's process, and no capability left.
    let (_, status) = lab::process(&pod, "mcp-server")?;
    let line = |key: &str| status.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned();
    let user = line("Uid:");
    if user.split_whitespace().skip(1).any(|id| id != "65532")
        || line("CapEff:").split_whitespace().nth(1) != Some("0000000000000000")
        || line("NoNewPrivs:").split_whitespace().nth(1) != Some("1")
        || line("Seccomp:").split_whitespace().nth(1) != Some("2")
    {
        return Err(status.into());
    }
    lab::delete_fleet(&ns, "weather").await
}

/// [`lab::install`] has put the chart into a restricted namespace; what it made is as strict as a fleet.
pub async fn the_product_itself_is_restricted(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let text = suite.kubectl(&["-n", lab::SYSTEM, "get", "pods", "-o", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    let pods = list["items"].as_array().ok_or("a list")?;
    let found: Vec<String> = pods.iter().flat_map(|pod| complaints(pod, true)).collect();
    if pods.len() < 2 || !found.is_empty() {
        return Err(format!("{} pods: {}", pods.len(), found.join("\n")).into());
    }
    // Two replicas, one of which leads and both of which are ready.
    let holder = suite.kubectl(&[
        "-n",
        lab::SYSTEM,
        "get",
        "lease",
        "-o",
        "jsonpath={.items[*].spec.holderIdentity}",
    ])?;
    let names: Vec<&str> = pods.iter().filter_map(|p| p["metadata"]["name"].as_str()).collect();
    if !names.iter().any(|name| holder.starts_with(&format!("{name}_"))) {
        return Err(format!("pods {names:?}, lease held by {holder}").into());
    }
    Ok(())
}
