//! R17: a field of a child that cannot be changed in place leads to a new object or to a condition, and never
//! to a loop of errors.

use std::{sync::Arc, time::Duration};

use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams},
};
use libtest_mimic::Failed;
use mcp_fleet::operator::children::ChildKind;
use serde_json::{Value, json};

use crate::{
    common,
    support::{Namespace, Suite, TestResult, wait},
};

/// Creates a fleet while nobody acts on it, and a child of it that another version could have left.
async fn fleet_with(
    suite: &Suite,
    ns: &Namespace,
    kind: ChildKind,
    name: &str,
    spec: Value,
) -> Result<String, Failed> {
    let fleet = ns.fleet("weather", "{server: {image: a}}").await?;
    let resource = kind.api_resource();
    let child = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "mcp-fleet", "mcpfleet.io/fleet": "weather"},
            "ownerReferences": [{"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "name": "weather", "uid": fleet.uid(), "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": spec,
    });
    let api = common::api(&suite.client, &ns.name, kind);
    Ok(api.create(&PostParams::default(), &serde_json::from_value(child)?).await?.uid().unwrap_or_default())
}

pub async fn a_headless_service_with_an_address_is_made_anew(_: Arc<Suite>) -> TestResult {
    let suite = common::quiet();
    let ns = suite.namespace("headless").await?;
    let spec =
        json!({"selector": {"mcpfleet.io/fleet": "weather"}, "ports": [{"name": "http", "port": 8080}]});
    let old = fleet_with(&suite, &ns, ChildKind::Service, "weather-headless", spec).await?;
    let _operator = common::own(&suite, &ns.name)?.start(&suite.cluster)?;
    let api = common::api(&suite.client, &ns.name, ChildKind::Service);
    wait::until("a headless Service", common::CHILDREN, async || {
        let live = api.get("weather-headless").await.map_err(|e| e.to_string())?;
        if live.data["spec"]["clusterIP"] == "None" && live.uid() != Some(old.clone()) {
            Ok(())
        } else {
            Err(live.data.to_string())
        }
    })
    .await?;
    ns.condition("weather", "Accepted", "True", "Accepted").await.map(drop)
}

pub async fn a_deployment_with_another_selector_is_reported(_: Arc<Suite>) -> TestResult {
    let suite = common::quiet();
    let ns = suite.namespace("selector").await?;
    let labels = json!({"mcpfleet.io/fleet": "weather", "generation": "old"});
    let spec = json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "server", "image": "a"}]}}});
    let old = fleet_with(&suite, &ns, ChildKind::Deployment, "weather", spec).await?;
    let mark = suite.cluster.audit_log().mark()?;
    let operator = common::own(&suite, &ns.name)?.start(&suite.cluster)?;
    for condition in ["Accepted", "Ready"] {
        let fleet = ns.condition("weather", condition, "False", "ImmutableField").await?;
        let message = fleet
            .status
            .iter()
            .flat_map(|s| &s.conditions)
            .find(|c| c.type_ == condition)
            .map(|c| c.message.clone());
        assert!(message.as_ref().is_some_and(|m| m.contains("--cascade=orphan")), "{message:?}");
    }
    // Long enough for a loop to show.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let writes = common::writes_since(&suite, mark, &ns.name)?;
    assert!(writes.len() <= 9, "an error loop: {:#?}", writes.summary());
    assert_eq!(operator.metric("mcp_fleet_operator_errors_total"), 0.0, "{}", operator.log());
    let deployments = common::api(&suite.client, &ns.name, ChildKind::Deployment);
    assert_eq!(deployments.get("weather").await?.uid(), Some(old.clone()), "it was deleted");
    let orphan = DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    deployments.delete("weather", &orphan).await?;
    // The garbage collector, which takes the finalizer off elsewhere, does not run here.
    let free = json!({"metadata": {"finalizers": null}});
    let _ = deployments
        .patch("weather", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&free))
        .await;
    ns.condition("weather", "Accepted", "True", "Accepted").await?;
    let live = deployments.get("weather").await?;
    assert_eq!(live.data["spec"]["selector"]["matchLabels"], json!({"mcpfleet.io/fleet": "weather"}));
    Ok(())
}

pub async fn another_load_balancer_class_is_reported(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("class").await?;
    let spec = |class: &str| {
        format!(
            "{{server: {{image: a}}, service: {{type: LoadBalancer, loadBalancerClass: example.com/{class}}}}}"
        )
    };
    ns.fleet("weather", &spec("one")).await?;
    ns.condition("weather", "Accepted", "True", "Accepted").await?;
    ns.respec("weather", &spec("two")).await?;
    ns.condition("weather", "Ready", "False", "ImmutableField").await?;
    let services = common::api(&suite.client, &ns.name, ChildKind::Service);
    assert_eq!(services.get("weather").await?.data["spec"]["loadBalancerClass"], "example.com/one");
    ns.respec("weather", &spec("one")).await?;
    ns.condition("weather", "Accepted", "True", "Accepted").await?;
    // The other way out that the message names.
    ns.respec("weather", &spec("two")).await?;
    ns.condition("weather", "Ready", "False", "ImmutableField").await?;
    services.delete("weather", &DeleteParams::default()).await?;
    ns.condition("weather", "Accepted", "True", "Accepted").await?;
    assert_eq!(services.get("weather").await?.data["spec"]["loadBalancerClass"], "example.com/two");
    Ok(())
}
