//! The certificates of the operators' CAs out of the ConfigMap that they write, at once: a kubelet brings a mounted one up
//! to a minute and a half later, and so long an operator that has just started would hear of no load.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        watcher::{Config, Event, watcher},
    },
};

use crate::{gateway::reports::Authority, runtime::chain::Chain};

/// Keys with certificates.
const SUFFIX: &str = ".crt";

/// Watches it for ever. Where it cannot be read, the CA file counts.
pub async fn watch(client: Client, namespace: String, name: String, authority: Authority) {
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let only = Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(maps, only).default_backoff().boxed();
    let mut failing = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(map) | Event::InitApply(map)) => {
                let data = map.data.unwrap_or_default();
                authority
                    .learn(data.iter().filter(|(key, _)| key.ends_with(SUFFIX)).map(|(_, pem)| pem.as_str()));
                failing = false;
            }
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(
                    namespace, name, error = %Chain(&error),
                    "failed to watch the ConfigMap with the CA of the receivers of load reports; trying again, and what it \
                     said last counts, or the file"
                );
            }
            Err(_) => {}
        }
    }
}
