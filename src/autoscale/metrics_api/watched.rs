//! Objects that are watched, as a store and a stream of "look again".

use std::{collections::BTreeMap, sync::Arc};

use futures::{Stream, StreamExt as _, future::ready, stream::BoxStream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Lookup, Store},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::authn::{FrontProxy, Trust};
use crate::runtime::chain::Chain;

/// Something has happened to a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The store is complete, and newer than before.
    Changed,
    /// The watch failed, and is tried again with longer and longer pauses.
    Failed(String),
}

/// Watches objects: those of now are in the store after the first [`Seen::Changed`].
pub(super) fn watched<K>(api: Api<K>, config: watcher::Config) -> (Store<K>, BoxStream<'static, Seen>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher::watcher(api, config)
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .filter_map(|event| {
            ready(match event {
                Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => Some(Seen::Changed),
                Ok(Event::Init | Event::InitApply(_)) => None,
                Err(error) => Some(Seen::Failed(Chain(&error).to_string())),
            })
        });
    (store, said_once(events).boxed())
}

/// A watch, and whether its store is complete.
pub(super) struct Watch<K: Lookup<DynamicType = ()> + Clone + 'static> {
    pub(super) store: Store<K>,
    events: BoxStream<'static, Seen>,
    /// The store is complete.
    pub(super) synced: bool,
    /// What went wrong last, until it goes well again.
    pub(super) error: Option<String>,
}

impl<K: Lookup<DynamicType = ()> + Clone + 'static> Watch<K> {
    /// Around a fresh watch.
    pub(super) fn new((store, events): (Store<K>, BoxStream<'static, Seen>)) -> Self {
        Self { store, events, synced: false, error: None }
    }

    /// The next thing that happens.
    pub(super) async fn next(&mut self) -> Option<Seen> {
        self.events.next().await
    }

    /// Takes note of it; failures are logged.
    pub(super) fn note(&mut self, seen: Option<Seen>, what: &str) {
        match seen {
            Some(Seen::Changed) => (self.synced, self.error) = (true, None),
            Some(Seen::Failed(error)) => {
                tracing::warn!(error, "failed to watch {what}; trying again");
                self.error = Some(error);
            }
            // A watch has no end.
            None => {}
        }
    }
}

/// A watch of one ConfigMap.
pub(super) fn config_map(api: Api<ConfigMap>, name: &str) -> (Store<ConfigMap>, BoxStream<'static, Seen>) {
    watched(api, watcher::Config::default().fields(&format!("metadata.name={name}")))
}

/// Failures that repeat themselves are one.
fn said_once(events: impl Stream<Item = Seen>) -> impl Stream<Item = Seen> {
    let mut last = None;
    events.filter(move |event| {
        let is_news = matches!(event, Seen::Changed) || last.as_ref() != Some(event);
        last = Some(event.clone());
        ready(is_news)
    })
}

/// Where the API server writes by whom it lets itself be known.
const NAMESPACE: &str = "kube-system";
const AUTHENTICATION: &str = "extension-apiserver-authentication";

/// Keeps the trust in the aggregation layer as that ConfigMap has it, until `stop`.
pub(super) async fn follow_trust(
    client: kube::Client,
    front_proxy: Arc<FrontProxy>,
    stop: CancellationToken,
) {
    let (store, mut events) = config_map(Api::namespaced(client, NAMESPACE), AUTHENTICATION);
    while let Some(Some(seen)) = stop.run_until_cancelled(events.next()).await {
        if let Seen::Failed(error) = seen {
            tracing::warn!(
                error,
                "failed to watch ConfigMap {NAMESPACE}/{AUTHENTICATION}; callers of the metrics API are checked by what was read last"
            );
            continue;
        }
        let found = store.state().first().map(|map| map.data.clone().unwrap_or_default());
        match Trust::parse(&found.unwrap_or_else(BTreeMap::new)) {
            Ok(trust) => front_proxy.set(Some(trust)),
            Err(error) => {
                // What is there now trusts nobody: a CA that was taken away must not count on.
                front_proxy.set(None);
                tracing::warn!(%error, "nobody can use the metrics API");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    #[tokio::test]
    async fn a_failure_is_told_once_until_something_changes() {
        let failed = |text: &str| Seen::Failed(text.to_owned());
        let events = [failed("a"), failed("a"), failed("b"), Seen::Changed, Seen::Changed, failed("b")];
        let told: Vec<_> = said_once(stream::iter(events)).collect().await;
        assert_eq!(told, [failed("a"), failed("b"), Seen::Changed, Seen::Changed, failed("b")]);
    }
}
