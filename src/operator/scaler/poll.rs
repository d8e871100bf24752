//! What has to be asked for: `metrics.k8s.io`, every 15 s, and how many gateways there are, every 5 s. In every replica:
//! each has to be able to take over.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Request;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::usage::{Page, UsageByFleet};
use crate::{
    api::names,
    operator::{gateways, reconcile::Context},
    runtime::chain::Chain,
};

/// From one question for usage to the next; metrics-server has nothing newer.
const USAGE_PERIOD: Duration = Duration::from_secs(15);
/// From one question for the gateways' addresses to the next.
const GATEWAYS_PERIOD: Duration = Duration::from_secs(5);
/// A number of gateways that could not be renewed for so long is not known any more.
const GATEWAYS_STALE: Duration = Duration::from_secs(30);
/// Pods of a page; servers that know no pages answer all of them.
const PAGE_SIZE: u32 = 1000;
/// Most pages: a list that never ends is none.
const MOST_PAGES: usize = 200;

/// Asks for what pods use, again and again.
pub struct UsagePoll {
    /// Connection and caches.
    pub ctx: Arc<Context>,
    /// The only namespace that is managed.
    pub namespace: Option<String>,
}

impl UsagePoll {
    /// Never ends.
    pub async fn run(self) {
        let mut ticks = interval(USAGE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut well = true;
        loop {
            ticks.tick().await;
            if !self.ctx.scaler.is_usage_wanted() {
                continue;
            }
            match self.ask().await {
                Ok(usage) => {
                    self.ctx.scaler.set_usage(usage);
                    if !well {
                        tracing::info!("metrics.k8s.io answers again");
                    }
                    well = true;
                }
                // What was known ages by itself.
                Err(error) if well => {
                    tracing::warn!(error = %Chain(&error), "metrics.k8s.io does not answer: without CPU and memory fleets scale by their other signals; is metrics-server installed?");
                    well = false;
                }
                Err(error) => tracing::debug!(error = %Chain(&error), "metrics.k8s.io does not answer"),
            }
        }
    }

    async fn ask(&self) -> Result<UsageByFleet, kube::Error> {
        let mut usage: UsageByFleet = HashMap::new();
        let mut next = String::new();
        for _ in 0..MOST_PAGES {
            let page: Page = self.ctx.client.request(request(self.namespace.as_deref(), &next)?).await?;
            for pod in &page.items {
                let name = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
                if let Some((fleet, used)) = self.ctx.caches.pods.fleet_of(&name).zip(pod.usage()) {
                    usage.entry(fleet).or_default().insert(name.1, used);
                }
            }
            next = page.metadata.next;
            if next.is_empty() {
                break;
            }
        }
        Ok(usage)
    }
}

fn request(namespace: Option<&str>, next: &str) -> Result<Request<Vec<u8>>, kube::Error> {
    let scope = namespace.map(|n| format!("namespaces/{n}/")).unwrap_or_default();
    // Labels and tokens of pages have no character that a query could not hold, but for `=` at a token's end.
    let token =
        if next.is_empty() { String::new() } else { format!("&continue={}", next.replace('=', "%3D")) };
    let path = format!(
        "/apis/metrics.k8s.io/v1beta1/{scope}pods?labelSelector={}&limit={PAGE_SIZE}{token}",
        names::LABEL_FLEET
    );
    Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)
}

/// Counts the gateways, again and again.
pub struct GatewayCount {
    /// Where the number goes.
    pub ctx: Arc<Context>,
    /// `host:port` of the headless Service of the gateways.
    pub peers: String,
}

impl GatewayCount {
    /// Never ends.
    pub async fn run(self) {
        let mut ticks = interval(GATEWAYS_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Instant::now();
        loop {
            ticks.tick().await;
            match gateways::count(&self.peers).await {
                Ok(n) => {
                    known = Instant::now();
                    self.ctx.scaler.set_gateways(Some(n));
                }
                Err(error) => {
                    tracing::debug!(gateways = %self.peers, error = %Chain(&error), "the gateways were not counted");
                    if known.elapsed() > GATEWAYS_STALE {
                        self.ctx.scaler.set_gateways(None);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_its_pods_and_its_page() {
        let uri = |namespace, next| request(namespace, next).expect("a request").uri().to_string();
        assert_eq!(
            uri(None, ""),
            "/apis/metrics.k8s.io/v1beta1/pods?labelSelector=mcpfleet.io/fleet&limit=1000"
        );
        assert_eq!(
            uri(Some("tools"), "abc=="),
            "/apis/metrics.k8s.io/v1beta1/namespaces/tools/pods?labelSelector=mcpfleet.io/fleet&limit=1000&continue=abc%3D%3D"
        );
    }
}
