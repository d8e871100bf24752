//! What the gateway counts (mcp.md section 12, G29). The hot path changes atoms that it reaches through its
//! fleet; a scrape reads them. Labels come from fixed sets, and from a fleet's own lists of tools and prompts:
//! never from what a client sends.
//!
//! | module | does |
//! |---|---|
//! | `labels` | the fixed sets |
//! | `cells` | counters, levels and histograms without locks |
//! | `operations` | durations by method, tool, revision and error |
//! | `fleet` | everything of one fleet |
//! | `encode` | all of it in the exposition format |
//! | `live` | gauges of fleets and endpoints, read from the live structures |

mod cells;
mod encode;
mod fleet;
pub mod labels;
pub mod live;
mod operations;

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::{metrics::info::Info, registry::Registry};

pub use cells::{Count, Counts, Histogram, Level};
pub use fleet::{FleetCells, FleetMetrics};
pub use labels::{Done, ErrorType, Method, Outcome, Probed, Purpose, Recovery, RetryReason, Shed, Version};
pub use operations::Observation;

use crate::domain::FleetKey;

/// The metrics of the process.
#[derive(Default)]
pub struct Metrics {
    fleets: Mutex<Vec<FleetMetrics>>,
    /// Clients' connections that are open.
    pub client_connections: Level,
    /// Clients' connections that were accepted.
    pub client_accepted: Count,
    /// Clients' connections that were refused: too many, or not a request.
    pub client_refused: Count,
    /// Connections to pods that were opened.
    pub upstream_opened: Count,
    /// Bytes of request bodies that are kept.
    pub body_bytes: Level,
    /// Requests for no fleet.
    pub unrouted: Count,
    /// Reloads of the configuration, of certificates and of keys.
    pub reloads: Counts<Done, { Done::COUNT }>,
    /// Pushes of load reports.
    pub reports: Counts<Done, { Done::COUNT }>,
    /// Questions to other gateways.
    pub peer_calls: Counts<Done, { Done::COUNT }>,
    /// Failures of watches and of name look-ups.
    pub source_errors: Count,
    /// Lines of the access log that found no room.
    pub log_dropped: Count,
}

impl Metrics {
    /// Creates them and makes them known to `registry`.
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Arc::new(Self::default());
        registry.register_collector(Box::new(encode::Exposition(Arc::clone(&metrics))));
        registry.register(
            "mcp_fleet_build",
            "Version of this binary",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        metrics
    }

    /// The metrics of a fleet; the same ones for the same name, until it is forgotten.
    pub fn fleet(&self, key: &FleetKey) -> FleetMetrics {
        let mut fleets = self.fleets.lock();
        if let Some(known) = fleets.iter().find(|f| f.key == *key) {
            return known.clone();
        }
        let new = FleetMetrics::new(key);
        fleets.push(new.clone());
        new
    }

    /// Removes the series of a fleet that is gone. What still runs counts on, unseen.
    pub fn forget(&self, key: &FleetKey) {
        self.fleets.lock().retain(|f| f.key != *key);
    }

    /// All fleets, in the order of their names.
    fn all(&self) -> Vec<FleetMetrics> {
        let mut all = self.fleets.lock().clone();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }
}

#[cfg(test)]
mod tests;
