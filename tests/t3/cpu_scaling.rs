//! The real HorizontalPodAutoscaler, fed by the real metrics-server, scales a fleet through `/scale`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use serde_json::json;

use crate::{
    lab,
    support::{Namespace, Suite, TestResult, wait},
};

/// Metrics come every 10 s, the controller looks every 5 s; the rest is for a busy machine.
const SCALING: Duration = Duration::from_secs(120);

async fn scales(ns: &Namespace, fleet: &str) -> Result<(i32, i32), String> {
    let object = ns.api::<McpFleet>().get(fleet).await.map_err(|e| e.to_string())?;
    let deployment = ns.api::<Deployment>().get(fleet).await.map_err(|e| e.to_string())?;
    let copied = deployment.spec.and_then(|s| s.replicas).unwrap_or_default();
    Ok((object.spec.replicas.unwrap_or_default(), copied))
}

async fn scaled_to(ns: &Namespace, fleet: &str, is: impl Fn(i32) -> bool) -> Result<i32, Failed> {
    wait::until("the scale", SCALING, async || match scales(ns, fleet).await? {
        (wanted, copied) if wanted == copied && is(wanted) => Ok(wanted),
        other => Err(format!("fleet and Deployment: {other:?}")),
    })
    .await
}

/// Who wrote `spec.replicas` of the fleet, by the API server's own books.
async fn writers(ns: &Namespace, fleet: &str) -> Result<Vec<(String, String)>, Failed> {
    let object = ns.get(fleet).await?;
    let entries = object.metadata.managed_fields.unwrap_or_default();
    let owns = |fields: &serde_json::Value| fields.pointer("/f:spec/f:replicas").is_some();
    Ok(entries
        .into_iter()
        .filter(|e| e.fields_v1.as_ref().is_some_and(|f| owns(&f.0)))
        .map(|e| (e.manager.unwrap_or_default(), e.subresource.unwrap_or_default()))
        .collect())
}

pub async fn load_scales_up_and_its_end_scales_down(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("cpu").await?;
    let mut spec = lab::with(
        lab::sample(1),
        "/autoscaling",
        json!({
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": {"cpu": {"target": {"averageUtilization": 60}}},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
        }),
    );
    // The autoscaler's, not the file's.
    spec.as_object_mut().ok_or("a spec")?.remove("replicas");
    // Little, so that the machine stays free for the other tests: the limit keeps each pod at 0.1 CPU.
    let resources =
        json!({"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "128Mi"}});
    let spec = lab::with(spec, "/server/resources", resources);
    lab::ready_fleet(&ns, "weather", &spec).await?;
    wait::until("the autoscaler at work", SCALING, async || {
        let fleet = ns.get("weather").await.map_err(|e| format!("{e:?}"))?;
        let conditions = fleet.status.map(|s| s.conditions).unwrap_or_default();
        match conditions.iter().find(|c| c.type_ == "ScalingActive") {
            Some(c) if c.status == "True" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let url = lab::url(&ns, "weather");
    let work = r#"{"milliseconds":500}"#;
    let args = ["--url", &url, "load", "--tool", "burn_cpu", "--arguments", work, "--concurrency", "3"];
    lab::start_client(&ns, "burner", &args).await?;
    let up = scaled_to(&ns, "weather", |n| n >= 2).await?;
    let writers = writers(&ns, "weather").await?;
    if writers != [("kube-controller-manager".to_owned(), "scale".to_owned())] {
        return Err(format!("spec.replicas was written by {writers:?}").into());
    }
    // Nobody fights: under load the scale does not go back.
    let low = std::cell::Cell::new(up);
    wait::holds("the scale under load", Duration::from_secs(20), async || {
        let (wanted, _) = scales(&ns, "weather").await?;
        if wanted < low.get() {
            return Err(format!("{} → {wanted}", low.get()));
        }
        low.set(wanted);
        Ok(())
    })
    .await?;
    let since = lab::delete(&ns, "burner").await?;
    lab::gone(&ns, "burner", since).await?;
    scaled_to(&ns, "weather", |n| n == 1).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    let n_left = ns.api::<Pod>().list(&<_>::default()).await?.items.len();
    eprintln!("cpu_scaling: 1 → {} → 1 replicas, {n_left} pods left", low.get());
    lab::delete_fleet(&ns, "weather").await
}
