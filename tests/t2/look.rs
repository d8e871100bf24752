//! What several behaviours look at: histories of objects, writes of the operator, endpoints, events.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::TryStreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Event as CoreEvent, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use mcp_fleet_cluster::audit;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{task::JoinHandle, time::Instant};

use crate::support::{Namespace, Suite, operator::USER, wait};

/// A server and nothing else.
pub const SERVER: &str = "server: {image: registry.example/weather:1}";
/// What the controller-manager calls its autoscaler.
pub const HPA_USER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";

/// One state of an object, and when it was seen.
pub struct Revision<K> {
    /// When it came by the watch.
    pub at: Instant,
    /// The object.
    pub object: K,
    /// It was deleted.
    pub gone: bool,
}

/// Every state of every object of a watch, in order. Dropping it ends the watch.
pub struct History<K> {
    revisions: Arc<Mutex<Vec<Revision<K>>>>,
    task: JoinHandle<()>,
}

impl<K> History<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Starts to watch; returns when the first list is in.
    pub async fn of(api: Api<K>, config: watcher::Config) -> Result<Self, Failed> {
        let revisions = Arc::new(Mutex::new(Vec::new()));
        let (listed, list) = tokio::sync::oneshot::channel();
        let (seen, mut listed) = (Arc::clone(&revisions), Some(listed));
        let take = move |event| {
            let (object, gone) = match event {
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => (object, false),
                watcher::Event::Delete(object) => (object, true),
                watcher::Event::Init => return std::future::ready(Ok(())),
                watcher::Event::InitDone => {
                    listed.take().map(|listed| listed.send(()));
                    return std::future::ready(Ok(()));
                }
            };
            seen.lock().push(Revision { at: Instant::now(), object, gone });
            std::future::ready(Ok(()))
        };
        let stream = watcher(api, config).default_backoff();
        let task = tokio::spawn(async move {
            let _ = stream.try_for_each(take).await;
        });
        list.await?;
        Ok(Self { revisions, task })
    }

    /// Looks at all states so far.
    pub fn with<T>(&self, look: impl FnOnce(&[Revision<K>]) -> T) -> T {
        look(&self.revisions.lock())
    }

    /// States so far.
    pub fn len(&self) -> usize {
        self.revisions.lock().len()
    }
}

impl<K> Drop for History<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes of the operator on anything in a namespace, refused ones and events included.
pub fn writes(suite: &Suite, since: audit::Mark, namespace: &str) -> Result<audit::Entries, Failed> {
    let here = |entry: &audit::Entry| entry.object.as_ref().is_some_and(|o| o.namespace == namespace);
    Ok(suite.cluster.audit_log().since(since)?.by(USER).writes().filter(here))
}

/// The same without what only tells: statuses, which also pass on what an autoscaler says, and events.
pub fn deeds(suite: &Suite, since: audit::Mark, namespace: &str) -> Result<audit::Entries, Failed> {
    let tells = |o: &audit::ObjectRef| o.subresource == "status" || o.resource == "events";
    Ok(writes(suite, since, namespace)?.filter(|entry| !entry.object.as_ref().is_some_and(tells)))
}

/// Waits until the operator has not written in a namespace for `seconds`.
pub async fn quiet(suite: &Suite, namespace: &str, seconds: u64) -> Result<(), Failed> {
    wait::until(&format!("{seconds} s without a write in {namespace}"), wait::LIMIT, async || {
        let mark = suite.cluster.audit_log().mark().map_err(|e| e.to_string())?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let new = writes(suite, mark, namespace).map_err(|e| e.message().unwrap_or_default().to_owned())?;
        if new.is_empty() { Ok(()) } else { Err(format!("{:?}", new.summary())) }
    })
    .await
}

/// Waits until a fleet has this scale in its specification, in its Deployment and in what serves.
pub async fn scale(ns: &Namespace, fleet: &str, n: i32) -> Result<McpFleet, Failed> {
    let deployments: Api<Deployment> = ns.api();
    wait::until(&format!("{fleet} with {n} replicas"), wait::LIMIT, async || {
        let live: McpFleet = ns.api().get(fleet).await.map_err(|e| e.to_string())?;
        let status = live.status.clone().unwrap_or_default();
        let deployment = deployments.get(fleet).await.map_err(|e| e.to_string())?;
        let spec = deployment.spec.and_then(|s| s.replicas);
        let seen = (live.spec.replicas, spec, status.replicas, status.ready_replicas);
        if seen == (Some(n), Some(n), n, n) {
            Ok(live)
        } else {
            Err(format!("spec, Deployment, status, ready: {seen:?}"))
        }
    })
    .await
}

/// Waits until the fleet's autoscaler has said something, which is news of its own.
pub async fn autoscaler_has_spoken(ns: &Namespace, fleet: &str) -> Result<(), Failed> {
    wait::until(&format!("the autoscaler of {fleet}"), wait::LIMIT, async || {
        let live = ns.get(fleet).await.map_err(|e| e.message().unwrap_or_default().to_owned())?;
        let reasons = ["ScalingActive", "AbleToScale"].map(|type_| condition(&live, type_).1);
        if reasons.iter().any(|r| r == "Pending") { Err(format!("{reasons:?}")) } else { Ok(()) }
    })
    .await
}

/// Status, reason and message of a condition.
pub fn condition(fleet: &McpFleet, type_: &str) -> (String, String, String) {
    let all = fleet.status.iter().flat_map(|s| &s.conditions);
    let found = all.into_iter().find(|c| c.type_ == type_);
    found.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone())).unwrap_or_default()
}

/// Endpoints of a slice that serve.
pub fn ready_in(slice: &EndpointSlice) -> usize {
    let endpoints = slice.endpoints.iter().flatten();
    endpoints.filter(|e| e.conditions.as_ref().is_none_or(|c| c.ready != Some(false))).count()
}

/// Pods of a fleet that are not ending.
pub async fn pods(ns: &Namespace, fleet: &str) -> Result<Vec<Pod>, Failed> {
    let params = ListParams::default().labels(&format!("mcpfleet.io/fleet={fleet}"));
    let all = ns.api::<Pod>().list(&params).await?;
    Ok(all.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}

/// Marks a fake pod as ready or not, as its node would.
pub async fn set_ready(ns: &Namespace, pod: &str, ready: bool) -> Result<(), Failed> {
    let status = if ready { "True" } else { "False" };
    let condition = |type_: &str| json!({"type": type_, "status": status});
    let body = json!({"status": {"conditions": [condition("Ready"), condition("ContainersReady")]}});
    ns.api::<Pod>().patch_status(pod, &PatchParams::default(), &Patch::Strategic(body)).await?;
    Ok(())
}

/// A HorizontalPodAutoscaler of a user's own, on a fleet or on a Deployment.
pub async fn autoscaler(
    ns: &Namespace,
    name: &str,
    target: (&str, &str, &str),
    (min, max): (i32, i32),
) -> Result<(), Failed> {
    let (api_version, kind, target) = target;
    let body = json!({
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": api_version, "kind": kind, "name": target},
            "minReplicas": min, "maxReplicas": max,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
        },
    });
    let api: Api<HorizontalPodAutoscaler> = ns.api();
    api.create(&PostParams::default(), &serde_json::from_value(body)?).await?;
    Ok(())
}

/// Reasons and notes of the events on an object.
pub async fn events(ns: &Namespace, object: &str) -> Result<Vec<(String, String)>, Failed> {
    let all = ns.api::<CoreEvent>().list(&ListParams::default()).await?;
    let about = all.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(object));
    Ok(about.map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect())
}

/// Waits until an event with this reason is there; its note.
pub async fn event(ns: &Namespace, object: &str, reason: &str) -> Result<String, Failed> {
    wait::until(&format!("event {reason} on {object}"), wait::LIMIT, async || {
        let all = events(ns, object).await.map_err(|e| e.message().unwrap_or_default().to_owned())?;
        let found = all.iter().find(|(r, _)| r == reason);
        found.map(|(_, note)| note.clone()).ok_or_else(|| format!("{all:?}"))
    })
    .await
}

/// Waits until an object is there.
pub async fn exists<K>(api: &Api<K>, name: &str) -> Result<K, Failed>
where
    K: Clone + Debug + DeserializeOwned,
{
    wait::until(name, wait::LIMIT, async || api.get(name).await.map_err(|e| e.to_string())).await
}

/// Waits until an object is not there any more.
pub async fn gone<K>(api: &Api<K>, name: &str) -> Result<(), Failed>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    wait::until(&format!("the end of {name}"), wait::LIMIT, async || {
        match api.get_opt(name).await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(object) => Err(format!("there is {name}, UID {:?}", object.meta().uid)),
        }
    })
    .await
}

/// UIDs of objects, sorted.
pub fn uids<K: ResourceExt>(objects: &[K]) -> Vec<String> {
    let mut uids: Vec<String> = objects.iter().filter_map(ResourceExt::uid).collect();
    uids.sort();
    uids
}

/// A failed check, unless it holds.
pub fn check(holds: bool, why: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(why().into()) }
}
