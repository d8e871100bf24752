//! Trouble that only the cluster can see: each shows as a condition with its reason and what to do, takes no
//! traffic down, and is over by itself once its cause is.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    lab, life,
    support::{Namespace, Suite, TestResult, wait},
};

/// Of the liveness probe below: up to one period until it asks, two failures a period apart, the last time-out.
const FAILURE_TIME: Duration = Duration::from_secs(2 + 2 * 2 + 1);

fn message(fleet: &McpFleet, type_: &str) -> String {
    let conditions = fleet.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    conditions.into_iter().find(|c| c.type_ == type_).map(|c| c.message).unwrap_or_default()
}

/// Waits for Ready=False with a reason, and checks that the message says what to do.
async fn not_ready(ns: &Namespace, fleet: &str, reason: &str, advice: &str) -> TestResult {
    let live = ns.condition(fleet, "Ready", "False", reason).await?;
    let message = message(&live, "Ready");
    if message.contains(advice) { Ok(()) } else { Err(format!("{fleet}: {reason}: {message}").into()) }
}

pub async fn a_hung_server_is_restarted_although_a_connection_is_held(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("hung").await?;
    let liveness = json!({"type": "HTTP", "path": "/health/live", "initialDelaySeconds": 1,
        "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 2});
    let spec = lab::with(lab::sample(1), "/server/probes/liveness", liveness);
    lab::ready_fleet(&ns, "weather", &spec).await?;
    lab::reachable(&suite, &ns, "weather").await?;
    let url = lab::url(&ns, "weather");
    // The client gets no answer and holds on to its connection.
    lab::start_client(&ns, "holder", &["--url", &url, "--timeout", "120s", "call", "hang"]).await?;
    let hung = Instant::now();
    wait::until("the restart", lab::PODS, async || {
        let pods = lab::pods(&ns, "weather").await.map_err(|e| format!("{e:?}"))?;
        match pods.first().map(lab::server_state) {
            Some((1.., _)) => Ok(()),
            state => Err(format!("{state:?}")),
        }
    })
    .await?;
    let took = hung.elapsed();
    eprintln!("trouble: hung server restarted after {took:.1?}");
    if took > FAILURE_TIME + Duration::from_secs(15) {
        return Err(format!("the hung server was restarted only after {took:?}").into());
    }
    lab::answers(&ns, "weather").await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    lab::delete_fleet(&ns, "weather").await
}

fn manifest(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "mcpfleet.io/v1alpha1", "kind": "McpFleet", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

/// R16: a bad value, then the old one again, by `kubectl apply` both times. No hand is needed in between.
pub async fn a_bad_value_is_told_and_reverted(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("revert").await?;
    let nowhere = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "planet", "operator": "In", "values": ["mars"]}]}]}}});
    let huge =
        json!({"requests": {"cpu": "500", "memory": "32Mi"}, "limits": {"cpu": "500", "memory": "128Mi"}});
    let cases = [
        (
            "image",
            "/server/image",
            json!("localhost/nowhere:1"),
            "ImagePullFailed",
            "check spec.server.image",
        ),
        ("affinity", "/server/affinity", nowhere, "Unschedulable", "affinity"),
        ("requests", "/server/resources", huge, "Unschedulable", "relax requests"),
        ("probe", "/server/probes/readiness/path", json!("/nowhere"), "RolloutStuck", "old pods serve on"),
    ];
    let runs = cases.into_iter().map(|(name, path, bad, reason, advice)| {
        let (suite, ns) = (&suite, &ns);
        async move {
            // The shortest deadline, so that the one without a reason of its own is told soon.
            let good = lab::with(lab::sample(2), "/rollout", json!({"progressDeadlineSeconds": 30}));
            life::kubectl_apply(suite, &ns.name, name, &manifest(name, &good))?;
            ns.condition(name, "Ready", "True", "Ready").await?;
            let before = lab::names(&lab::pods(ns, name).await?);
            life::kubectl_apply(suite, &ns.name, name, &manifest(name, &lab::with(good.clone(), path, bad)))?;
            not_ready(ns, name, reason, advice).await?;
            // The old pods serve on, and the fleet says so.
            ns.condition(name, "Available", "True", "EndpointsReady").await?;
            let url = lab::url(ns, name);
            lab::call(ns, &format!("during-{name}"), &["--url", &url, "call", "whoami"]).await?;
            life::kubectl_apply(suite, &ns.name, name, &manifest(name, &good))?;
            let reverted = Instant::now();
            ns.condition(name, "Ready", "True", "Ready").await?;
            let took = reverted.elapsed();
            let after = lab::names(&lab::pods(ns, name).await?);
            if took > Duration::from_secs(60) || !before.iter().all(|pod| after.contains(pod)) {
                return Err(
                    format!("{name}: healthy {took:?} after the revert; {before:?}, {after:?}").into()
                );
            }
            lab::delete_fleet(ns, name).await?;
            Ok::<_, Failed>(took)
        }
    });
    let took = futures::future::try_join_all(runs).await?;
    eprintln!("trouble: healthy after the revert of image, affinity, requests, probe: {took:.1?}");
    Ok(())
}

async fn create_secret(ns: &Namespace, name: &str) -> TestResult {
    let secret = json!({"metadata": {"name": name}, "stringData": {"token": "t"}});
    ns.api::<Secret>().create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    Ok(())
}

pub async fn a_missing_secret_is_told_and_waited_for(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("missing").await?;
    let reference =
        json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "late-env", "key": "token"}}});
    let env = lab::with(lab::sample(1), "/server/env", json!([reference]));
    let volume = lab::with(
        lab::sample(1),
        "/server/volumes",
        json!([{"name": "keys", "secret": {"secretName": "late-volume"}}]),
    );
    let volume = lab::with(
        volume,
        "/server/volumeMounts",
        json!([{"name": "keys", "mountPath": "/keys", "readOnly": true}]),
    );
    let cases = [
        ("env", env, "MissingReference", "create it in this namespace"),
        ("volume", volume, "VolumeNotMounted", "create what is missing in this namespace"),
    ];
    let runs = cases.into_iter().map(|(name, spec, reason, advice)| {
        let ns = &ns;
        async move {
            ns.fleet(name, &spec.to_string()).await?;
            not_ready(ns, name, reason, advice).await?;
            create_secret(ns, &format!("late-{name}")).await?;
            ns.condition(name, "Ready", "True", "Ready").await?;
            lab::delete_fleet(ns, name).await
        }
    });
    futures::future::try_join_all(runs).await?;
    Ok(())
}

pub async fn a_crash_loop_is_told_and_over_with_the_next_spec(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("crash").await?;
    let good = lab::sample(1);
    let bad = lab::with(good.clone(), "/server/args", json!(["--no-such-flag"]));
    ns.fleet("weather", &bad.to_string()).await?;
    not_ready(&ns, "weather", "CrashLoopBackOff", "kubectl logs --previous").await?;
    ns.respec("weather", &good.to_string()).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    lab::delete_fleet(&ns, "weather").await
}

pub async fn a_server_that_needs_more_memory_is_told_so(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("memory").await?;
    lab::ready_fleet(&ns, "weather", &lab::sample(1)).await?;
    let url = lab::url(&ns, "weather");
    let hunger = r#"{"mebibytes":256}"#;
    // Again and again: a single time is no loop.
    let args = ["--url", &url, "load", "--tool", "allocate_memory", "--arguments", hunger, "--rate", "2"];
    lab::start_client(&ns, "hungry", &args).await?;
    not_ready(&ns, "weather", "OutOfMemory", "raise spec.server.resources.limits.memory").await?;
    let since = lab::delete(&ns, "hungry").await?;
    lab::gone(&ns, "hungry", since).await?;
    ns.condition("weather", "Ready", "True", "Ready").await?;
    lab::delete_fleet(&ns, "weather").await
}

/// What a user would ask about is in the events of the fleet.
pub async fn trouble_is_in_the_events(suite: Arc<Suite>) -> TestResult {
    lab::install(&suite)?;
    let ns = suite.namespace("events").await?;
    let spec = lab::with(lab::sample(1), "/server/image", json!("localhost/nowhere:1"));
    ns.fleet("weather", &spec.to_string()).await?;
    not_ready(&ns, "weather", "ImagePullFailed", "check spec.server.image").await?;
    wait::until("the event", wait::LIMIT, async || {
        let args = ["-n", &ns.name, "events", "--for", "mcpfleet/weather"];
        let text = suite.kubectl(&args).map_err(|e| format!("{e:?}"))?;
        if text.contains("ImagePullFailed") { Ok(()) } else { Err(text) }
    })
    .await?;
    lab::delete_fleet(&ns, "weather").await
}
