//! What the operator counts of itself. Labels come from fixed sets; never names of objects.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Everything is as wanted.
    Success,
    /// It failed and is tried again.
    Error,
    /// It took longer than it may.
    Timeout,
}

/// Label of [`Metrics::reconciles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    outcome: Outcome,
}

/// Label of [`Metrics::errors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CategoryLabel {
    category: &'static str,
}

/// Labels of [`Metrics::writes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabel {
    kind: &'static str,
    verb: &'static str,
}

/// Label of [`Metrics::watch_errors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    kind: &'static str,
}

/// The operator's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<OutcomeLabel, Counter>,
    duration: Histogram,
    errors: Family<CategoryLabel, Counter>,
    writes: Family<WriteLabel, Counter>,
    watch_errors: Family<KindLabel, Counter>,
    /// Fleets that the operator knows.
    pub fleets: Gauge,
    /// Fleets that wait after a failure.
    pub backing_off: Gauge,
    /// New fleets that wait for the others that came with them.
    pub held: Gauge,
    /// Reconciles under way.
    pub active: Gauge,
    /// Fleets whose watches asked for a reconcile that was not handed on yet.
    pub queued: Gauge,
}

impl Metrics {
    /// Registers them under `mcp_fleet_operator_`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("mcp_fleet_operator");
        let metrics = Self {
            reconciles: Family::default(),
            // 1 ms to 32 s: a pass that writes nothing, to one that is cut off.
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            errors: Family::default(),
            writes: Family::default(),
            watch_errors: Family::default(),
            fleets: Gauge::default(),
            backing_off: Gauge::default(),
            held: Gauge::default(),
            active: Gauge::default(),
            queued: Gauge::default(),
        };
        registry.register("reconciles", "Reconciles by outcome", metrics.reconciles.clone());
        registry.register("reconcile_duration_seconds", "Duration of a reconcile", metrics.duration.clone());
        registry.register("errors", "Failed reconciles by category", metrics.errors.clone());
        registry.register("writes", "Writes by kind and verb", metrics.writes.clone());
        registry.register("watch_errors", "Failed watches by kind", metrics.watch_errors.clone());
        registry.register("fleets", "Fleets that the operator knows", metrics.fleets.clone());
        registry.register(
            "fleets_backing_off",
            "Fleets that wait after a failure",
            metrics.backing_off.clone(),
        );
        registry.register(
            "fleets_held",
            "New fleets whose Deployments wait until all that came with them have their Services",
            metrics.held.clone(),
        );
        registry.register("active_reconciles", "Reconciles under way", metrics.active.clone());
        registry.register(
            "queue_depth",
            "Reconciles asked for by watches and not started",
            metrics.queued.clone(),
        );
        metrics
    }

    /// Counts a finished reconcile.
    pub fn reconciled(&self, outcome: Outcome, took: Duration) {
        self.reconciles.get_or_create(&OutcomeLabel { outcome }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a failure.
    pub fn failed(&self, category: &'static str) {
        self.errors.get_or_create(&CategoryLabel { category }).inc();
    }

    /// Counts a write.
    pub fn wrote(&self, kind: &'static str, verb: &'static str) {
        self.writes.get_or_create(&WriteLabel { kind, verb }).inc();
    }

    /// Counts an error of a watch.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&KindLabel { kind }).inc();
    }
}
