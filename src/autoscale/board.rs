//! What the metrics API answers: written by the operator's scaler, read by the API, both for each fleet.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::domain::FleetKey;

/// What is known of a fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum Published {
    /// Numbers.
    Value(Value),
    /// None; why, in words. The API answers 503.
    Unknown(String),
}

/// Numbers of a fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// `mcp_desired_replicas`, not negative.
    pub desired: i32,
    /// `mcp_utilization`.
    pub utilization: f64,
    /// When the samples behind it were taken, in ms since the Unix epoch.
    pub sampled_at: i64,
    /// Over how many seconds.
    pub window_seconds: u32,
    /// For how many seconds after `sampled_at` it may be told; the API answers 503 afterwards. The fleet's
    /// `maxSampleAgeSeconds`.
    pub max_age_seconds: u32,
}

/// All fleets that have an MCP policy. As many entries as there are such fleets.
#[derive(Debug, Default)]
pub struct Board(RwLock<HashMap<FleetKey, Published>>);

impl Board {
    /// What is known of a fleet; `None`: no such fleet, or none that is scaled by MCP signals.
    pub fn get(&self, fleet: &FleetKey) -> Option<Published> {
        self.0.read().get(fleet).cloned()
    }

    /// Of all fleets in a namespace.
    pub fn of_namespace(&self, namespace: &str) -> Vec<(FleetKey, Published)> {
        let all = self.0.read();
        let mut found: Vec<_> = all
            .iter()
            .filter(|(k, _)| k.namespace == namespace)
            .map(|(k, p)| (k.clone(), p.clone()))
            .collect();
        found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        found
    }

    /// Replaces what is known of a fleet.
    pub fn set(&self, fleet: FleetKey, published: Published) {
        self.0.write().insert(fleet, published);
    }

    /// Forgets a fleet.
    pub fn remove(&self, fleet: &FleetKey) {
        if self.0.read().contains_key(fleet) {
            self.0.write().remove(fleet);
        }
    }

    /// Forgets fleets that are gone, or are not scaled by us any more.
    pub fn retain(&self, keep: impl Fn(&FleetKey) -> bool) {
        self.0.write().retain(|key, _| keep(key));
    }
}
