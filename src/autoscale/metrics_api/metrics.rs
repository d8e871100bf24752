//! What this port counts of itself. Labels come from fixed sets; never names of objects.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Label of [`SamplesDropped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

/// Label of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    endpoint: &'static str,
    code: u16,
}

/// Label of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiptLabel {
    receipt: &'static str,
}

/// Label of reviews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabel {
    kind: &'static str,
    result: &'static str,
}

/// `mcp_scaling_samples_dropped_total{cause}`. Registered once, counted by everybody who drops a sample.
#[derive(Clone, Debug, Default)]
pub struct SamplesDropped(Family<CauseLabel, Counter>);

impl SamplesDropped {
    /// Registers the counter.
    pub fn register(registry: &mut Registry) -> Self {
        let dropped = Self::default();
        registry.register(
            "mcp_scaling_samples_dropped",
            "Load samples that could not be used, by cause",
            dropped.0.clone(),
        );
        dropped
    }

    /// Counts `n` samples. Causes come from a fixed set.
    pub fn add(&self, cause: &'static str, n: u64) {
        self.0.get_or_create(&CauseLabel { cause }).inc_by(n);
    }
}

/// The port's metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct ApiMetrics {
    requests: Family<RequestLabel, Counter>,
    reports: Family<ReceiptLabel, Counter>,
    reviews: Family<ReviewLabel, Counter>,
    /// End of the certificate that is served, in seconds since the Unix epoch.
    pub(super) certificate_expires: Gauge<f64, AtomicU64>,
    /// Open connections.
    pub(super) connections: Gauge,
}

impl ApiMetrics {
    /// Registers them under `mcp_fleet_operator_api_`.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("mcp_fleet_operator_api");
        let metrics = Self::default();
        registry.register(
            "requests",
            "Requests to the TLS port by endpoint and status code",
            metrics.requests.clone(),
        );
        registry.register("load_reports", "Load reports by what became of them", metrics.reports.clone());
        registry.register("reviews", "Questions to the API server about callers", metrics.reviews.clone());
        registry.register(
            "certificate_expires_timestamp_seconds",
            "When the served certificate ends",
            metrics.certificate_expires.clone(),
        );
        registry.register("connections", "Open connections to the TLS port", metrics.connections.clone());
        metrics
    }

    /// Counts an answer.
    pub(super) fn answered(&self, endpoint: &'static str, code: u16) {
        self.requests.get_or_create(&RequestLabel { endpoint, code }).inc();
    }

    /// Counts a report.
    pub(super) fn reported(&self, receipt: &'static str) {
        self.reports.get_or_create(&ReceiptLabel { receipt }).inc();
    }

    /// Counts a question to the API server.
    pub(super) fn reviewed(&self, kind: &'static str, result: &'static str) {
        self.reviews.get_or_create(&ReviewLabel { kind, result }).inc();
    }
}
