//! `mcp_utilization` and its like. They are read from what the scaler remembers when somebody asks, so that a tick costs
//! nothing for them, and a fleet that is gone is gone here, too.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::entry::Entry;
use crate::domain::FleetKey;

/// Reads what the scaler remembers.
pub struct ScalerCollector(pub(super) Arc<Mutex<HashMap<FleetKey, Entry>>>);

impl fmt::Debug for ScalerCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScalerCollector")
    }
}

impl Collector for ScalerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let rows = self.rows();
        let mut gauge = |name, help, read: fn(&Row) -> Option<f64>| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for row in &rows {
                if let Some(value) = read(row) {
                    ConstGauge::new(value).encode(family.encode_family(&row.labels())?)?;
                }
            }
            Ok(())
        };
        gauge("mcp_utilization", "Demand over replicas; 1 is at target", |row| row.utilization)?;
        gauge("mcp_desired_replicas", "Replicas that are recommended, as the HPA reads them", |row| {
            row.desired
        })?;
        gauge("mcp_sample_age_seconds", "Age of the oldest sample that counts", |row| row.age)?;
        let mut family = encoder.encode_descriptor(
            "mcp_demand_replicas",
            "Replicas that a signal asks for; of a guard: measured over objective",
            None,
            MetricType::Gauge,
        )?;
        for row in &rows {
            for (signal, demand) in &row.demands {
                let labels = [row.labels()[0], row.labels()[1], ("signal", signal)];
                ConstGauge::new(*demand).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "mcp_scaling_decisions",
            "Decisions by reason, one each second",
            None,
            MetricType::Counter,
        )?;
        for row in &rows {
            for (reason, n) in &row.counts {
                let labels = [row.labels()[0], row.labels()[1], ("reason", reason)];
                let encoder: MetricEncoder<'_> = family.encode_family(&labels)?;
                ConstCounter::new(*n).encode(encoder)?;
            }
        }
        Ok(())
    }
}

/// What is shown of a fleet. Copied, so that nobody waits for the one who reads.
struct Row {
    key: FleetKey,
    utilization: Option<f64>,
    desired: Option<f64>,
    age: Option<f64>,
    demands: Vec<(&'static str, f64)>,
    counts: Vec<(&'static str, u64)>,
}

impl Row {
    fn labels(&self) -> [(&str, &str); 2] {
        [("namespace", &self.key.namespace), ("fleet", &self.key.name)]
    }
}

impl ScalerCollector {
    fn rows(&self) -> Vec<Row> {
        let entries = self.0.lock();
        let row = |(key, entry): (&FleetKey, &Entry)| {
            entry.policy()?;
            let made = entry.made.as_ref()?;
            Some(Row {
                key: key.clone(),
                utilization: made.decision.utilization,
                desired: made.exported.map(f64::from),
                age: made.age.map(|ms| ms as f64 / 1000.0),
                demands: made.decision.terms.iter().map(|t| (t.signal.as_str(), t.demand)).collect(),
                counts: entry.counts.iter().map(|(reason, n)| (*reason, *n)).collect(),
            })
        };
        let mut rows: Vec<Row> = entries.iter().filter_map(row).collect();
        drop(entries);
        rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        rows
    }
}
