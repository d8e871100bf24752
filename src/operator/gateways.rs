//! What the operator learns from the gateways: which revisions the servers speak, and where sessions and calls are.
//!
//! Every gateway is asked every ten seconds by the leader alone. What servers speak goes into the status by the way
//! of the next pass, so that the status keeps one writer. Where work is goes into the pods' deletion cost, so that a
//! scale-down takes the emptiest; only this module writes it (for `scaler/victims.rs`, too), as the field manager `mcp-fleet-cost`. A gateway that
//! does not answer changes nothing: half of a sum would name the wrong victim.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{children::ChildKind, reconcile::Context};
use crate::{
    api::{names, v1alpha1::ProtocolStatus},
    domain::FleetKey,
    runtime::chain::Chain,
};

pub mod cost;
mod fetch;
pub mod wire;

use cost::PodCost;
use wire::Seen;

/// From one round to the next.
const PERIOD: Duration = Duration::from_secs(10);
/// Costs of one fleet are written at most so often: the order of busy pods changes all the time.
const COST_PERIOD: Duration = Duration::from_secs(30);
/// Pods whose cost is written in one round; the rest waits for the next one.
const MOST_WRITES: usize = 100;
/// Gateways that are asked at the same time.
const AT_ONCE: usize = 4;

/// What the servers of fleets speak, as far as gateways have said. As many entries as there are fleets.
#[derive(Default)]
pub struct Learned(Mutex<HashMap<FleetKey, ProtocolStatus>>);

impl Learned {
    /// What the servers of a fleet speak.
    pub fn of(&self, key: &FleetKey) -> Option<ProtocolStatus> {
        self.0.lock().get(key).cloned()
    }

    /// Forgets a fleet that is gone.
    pub fn forget(&self, key: &FleetKey) {
        self.0.lock().remove(key);
    }

    /// Whether it is something new.
    fn learn(&self, key: &FleetKey, protocol: &ProtocolStatus) -> bool {
        let mut all = self.0.lock();
        if all.get(key) == Some(protocol) {
            return false;
        }
        all.insert(key.clone(), protocol.clone());
        true
    }
}

/// How many gateways there are, by the addresses of their headless Service: those that are ready.
pub(super) async fn count(peers: &str) -> Result<usize, impl std::error::Error + use<>> {
    fetch::addresses(peers).await.map(|addresses| addresses.len())
}

/// Asks the gateways, again and again.
pub struct Gateways {
    /// What each pass needs, too.
    pub ctx: Arc<Context>,
    /// `host:port` of the headless Service of the gateways: all its addresses are asked.
    pub peers: String,
    /// Fleets that need a pass.
    pub touched: mpsc::Sender<FleetKey>,
}

impl Gateways {
    /// Never ends.
    pub async fn run(self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wrote = HashMap::new();
        loop {
            ticks.tick().await;
            if !self.ctx.leadership.is_leader() {
                wrote.clear();
                continue;
            }
            match self.ask().await {
                Ok(seen) => self.tell(seen, &mut wrote).await,
                Err(error) => {
                    tracing::warn!(gateways = %self.peers, error = %Chain(&error), "the gateways were not asked");
                }
            }
        }
    }

    async fn ask(&self) -> Result<Seen, fetch::FetchError> {
        let addresses = fetch::addresses(&self.peers).await?;
        let mut answers = stream::iter(addresses).map(fetch::fleets).buffer_unordered(AT_ONCE);
        let mut seen = Seen::default();
        while let Some(answer) = answers.next().await {
            seen.add(answer?);
        }
        Ok(seen)
    }

    async fn tell(&self, seen: Seen, wrote: &mut HashMap<FleetKey, Instant>) {
        let mut left = MOST_WRITES;
        wrote.retain(|_, at| at.elapsed() < COST_PERIOD);
        for (key, fleet) in seen.fleets {
            if let Some(protocol) = &fleet.protocol
                && self.ctx.learned.learn(&key, protocol)
            {
                // Whoever does not listen any more ends anyway.
                let _ = self.touched.send(key.clone()).await;
            }
            if left == 0 || wrote.contains_key(&key) {
                continue;
            }
            let changes = self.costs(&key, &fleet.pods);
            if !changes.is_empty() {
                wrote.insert(key.clone(), Instant::now());
            }
            for change in changes.into_iter().take(left) {
                left -= 1;
                if !write_cost(&self.ctx, &key, &change).await {
                    return;
                }
            }
        }
    }

    /// What has to be written for the emptiest pods to go first; nothing where none can go.
    fn costs(&self, key: &FleetKey, load: &BTreeMap<String, u64>) -> Vec<PodCost> {
        let pods: Vec<PodCost> = self
            .ctx
            .caches
            .pods
            .of(key)
            .into_values()
            .filter(|pod| !pod.terminating)
            .map(|pod| PodCost { name: pod.name, uid: pod.uid, cost: pod.deletion_cost })
            .collect();
        let scaler = self.ctx.caches.children(ChildKind::HorizontalPodAutoscaler).get(key, &key.name);
        let least =
            scaler.and_then(|s| s.value().pointer("/spec/minReplicas").and_then(serde_json::Value::as_u64));
        if pods.len() as u64 <= least.unwrap_or(1) {
            return Vec::new();
        }
        cost::changes(&pods, load)
    }
}

/// Writes one cost; whether we may still write.
pub(super) async fn write_cost(ctx: &Context, key: &FleetKey, change: &PodCost) -> bool {
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let body = json!({
        "apiVersion": "v1", "kind": "Pod",
        // The UID: a pod of the same name that came since has other sessions.
        "metadata": {
            "name": change.name, "uid": change.uid,
            "annotations": {names::ANNOTATION_DELETION_COST: change.cost.unwrap_or_default().to_string()},
        },
    });
    let params = PatchParams::apply(names::MANAGER_COST).force();
    let write = async { api.patch_metadata(&change.name, &params, &Patch::Apply(&body)).await };
    match ctx.leadership.fenced(write).await {
        Err(_) => false,
        Ok(Ok(_)) => {
            ctx.metrics.wrote("Pod", "cost");
            true
        }
        Ok(Err(error)) => {
            // It may have gone meanwhile. The next round looks again.
            tracing::debug!(fleet = %key, pod = change.name, error = %Chain(&error), "a deletion cost was not written");
            true
        }
    }
}
