//! The watches: each fills its cache and names the fleets that an event touches. One task each, with a
//! back-off of its own, so that one failing watch holds up no other.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::{
    core::v1::{Event as CoreEvent, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DynamicObject,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{
    cache::{Cache, Entry, ObjectKey},
    children::ChildKind,
    metrics::Metrics,
    observe::{Caches, LiveChild, MountFailure, object_id, object_key},
    pods,
};
use crate::{api::names, domain::FleetKey, runtime::chain::Chain};

/// Objects of a page of a list: what is parsed at once, and so the peak of memory at the start.
const PAGE_SIZE: u32 = 100;

/// Which objects are watched, and who hears of it.
#[derive(Clone)]
pub struct Watches {
    /// Connection.
    pub client: Client,
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Filled here, read by `observe`.
    pub caches: Arc<Caches>,
    /// Fleets to reconcile.
    pub touched: mpsc::Sender<FleetKey>,
    /// Counts errors.
    pub metrics: Metrics,
}

/// A watch as a future that ends only when nobody listens any more.
pub type Watch = futures::future::BoxFuture<'static, ()>;

impl Watches {
    /// All of them, with a name each.
    pub fn all(&self) -> Vec<(&'static str, Watch)> {
        let mut all: Vec<(&'static str, Watch)> =
            ChildKind::ALL.into_iter().map(|kind| (kind.as_str(), self.children(kind))).collect();
        all.push(("Pod", self.pods()));
        all.push(("EndpointSlice", self.endpoints()));
        all.push(("Event", self.mount_failures()));
        all
    }

    fn children(&self, kind: ChildKind) -> Watch {
        let resource = kind.api_resource();
        let api: Api<DynamicObject> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        // Autoscalers of users have no label of ours, and must be seen.
        let config = match kind {
            ChildKind::HorizontalPodAutoscaler => Config::default(),
            _ => Config::default().labels(&format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGED_BY)),
        };
        let stream = watcher(api, config.page_size(PAGE_SIZE));
        let caches = Arc::clone(&self.caches);
        let take = move |event| caches.children(kind).take(event, |o| LiveChild::entry(kind, o), dynamic_id);
        Box::pin(follow(kind.as_str(), stream, self.clone(), take))
    }

    fn pods(&self) -> Watch {
        let config = Config::default().labels(names::LABEL_FLEET);
        self.typed(
            "Pod",
            config,
            |pod: Pod| {
                let value = pods::facts(&pod);
                let fleet = fleet_of(&pod)?;
                Some(Entry { key: object_key(&pod), fleet, value })
            },
            |caches| &caches.pods,
        )
    }

    /// Slices carry the labels of their Service; of the two Services, the headless one is enough.
    fn endpoints(&self) -> Watch {
        let config =
            Config::default().labels(&format!("{},service.kubernetes.io/headless", names::LABEL_FLEET));
        self.typed(
            "EndpointSlice",
            config,
            |slice: EndpointSlice| {
                let ready = |c: &k8s_openapi::api::discovery::v1::EndpointConditions| {
                    c.ready.unwrap_or(true) && !c.terminating.unwrap_or(false)
                };
                let serve = slice
                    .endpoints
                    .iter()
                    .flatten()
                    .filter(|e| e.conditions.as_ref().is_none_or(ready))
                    .count();
                let fleet = fleet_of(&slice)?;
                Some(Entry { key: object_key(&slice), fleet, value: serve as i32 })
            },
            |caches| &caches.endpoints,
        )
    }

    /// A missing Secret, ConfigMap or claim behind a volume shows in an event of the kubelet alone.
    fn mount_failures(&self) -> Watch {
        let config = Config::default().fields("involvedObject.kind=Pod,reason=FailedMount");
        let caches = Arc::clone(&self.caches);
        self.typed(
            "Event",
            config,
            move |event: CoreEvent| {
                let pod = event.involved_object.name.clone()?;
                let fleet = caches.pods.fleet_of(&(event.namespace()?, pod.clone()))?;
                let message = event.message.clone().unwrap_or_default();
                Some(Entry { key: object_key(&event), fleet, value: MountFailure { pod, message } })
            },
            |caches| &caches.mount_failures,
        )
    }

    fn typed<K, T>(
        &self,
        name: &'static str,
        config: Config,
        entry: impl Fn(K) -> Option<Entry<T>> + Clone + Send + 'static,
        cache: fn(&Caches) -> &Cache<T>,
    ) -> Watch
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
        T: Clone + Send + Sync + 'static,
    {
        let api: Api<K> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let caches = Arc::clone(&self.caches);
        let take = move |event| cache(&caches).take(event, &entry, object_id);
        Box::pin(follow(name, watcher(api, config.page_size(PAGE_SIZE)), self.clone(), take))
    }
}

fn dynamic_id(object: &DynamicObject) -> (ObjectKey, u64) {
    let version = object.metadata.resource_version.as_deref().and_then(|v| v.parse().ok());
    ((object.namespace().unwrap_or_default(), object.name_any()), version.unwrap_or_default())
}

fn fleet_of<K: ResourceExt>(object: &K) -> Option<FleetKey> {
    let fleet = object.labels().get(names::LABEL_FLEET)?;
    Some(FleetKey::new(object.namespace()?, fleet))
}

async fn follow<K, S>(
    name: &'static str,
    stream: S,
    watches: Watches,
    take: impl Fn(Event<K>) -> Vec<FleetKey> + Send,
) where
    K: Send + Clone,
    S: Stream<Item = Result<Event<K>, watcher::Error>> + Send,
{
    let stream = stream.default_backoff().inspect_err(|error| {
        watches.metrics.watch_failed(name);
        tracing::warn!(kind = name, error = %Chain(error), "a watch failed and is tried again");
    });
    let mut stream = std::pin::pin!(stream.filter_map(|event| std::future::ready(event.ok())));
    while let Some(event) = stream.next().await {
        for fleet in take(event) {
            watches.metrics.queued.inc();
            if watches.touched.send(fleet).await.is_err() {
                return;
            }
        }
    }
}
