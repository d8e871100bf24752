//! All counters in the exposition format. Each says in its help text what it counts.

use std::{
    fmt::{self, Error},
    sync::Arc,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{FleetCells, FleetMetrics, Metrics, cells::Histogram};

/// Which histogram of a fleet.
type Get = fn(&FleetCells) -> &Histogram;

/// Prefix of all metrics that no convention names.
macro_rules! own {
    ($name:literal) => {
        concat!("mcp_fleet_gateway_", $name)
    };
}
pub(super) use own;

/// Reads [`Metrics`] at each scrape.
pub(super) struct Exposition(pub(super) Arc<Metrics>);

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exposition")
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let fleets = self.0.all();
        durations(&mut encoder, &fleets)?;
        requests(&mut encoder, &fleets)?;
        by_label(&mut encoder, &fleets)?;
        plain(&mut encoder, &fleets)?;
        process(&mut encoder, &self.0)
    }
}

fn durations(out: &mut DescriptorEncoder<'_>, fleets: &[FleetMetrics]) -> Result<(), Error> {
    let mut family = out.encode_descriptor(
        "mcp_server_operation_duration_seconds",
        "Duration of MCP operations, from the request to the end of the answer, as the gateway sees them",
        None,
        MetricType::Histogram,
    )?;
    for fleet in fleets {
        fleet.operations.each(|method, tool, version, error, histogram| {
            let [namespace, name] = labels(fleet);
            let labels = [
                namespace,
                name,
                ("mcp_method_name", method),
                ("gen_ai_tool_name", tool),
                ("mcp_protocol_version", version),
                ("error_type", error),
            ];
            encode_histogram(&mut family, &labels, histogram)
        })?;
    }
    let others: [(&str, &str, Get); 2] = [
        (
            "mcp_server_session_duration_seconds",
            "Duration of sessions of revisions before 2026-07-28, from the first to the last request",
            |f| &f.session_duration,
        ),
        (
            own!("queue_wait_seconds"),
            "Time that requests waited for a place on a pod; only those that waited",
            |f| &f.queue_wait,
        ),
    ];
    for (name, help, histogram) in others {
        let mut family = out.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for fleet in fleets {
            encode_histogram(&mut family, &labels(fleet), histogram(fleet))?;
        }
    }
    Ok(())
}

fn requests(out: &mut DescriptorEncoder<'_>, fleets: &[FleetMetrics]) -> Result<(), Error> {
    let mut family = out.encode_descriptor(
        own!("requests"),
        "Finished HTTP requests by outcome (ok, overload: not served for want of capacity, upstream: the pod \
         failed, client: the client's fault or it left, tool: isError) and HTTP status; 499: the client left",
        None,
        MetricType::Counter,
    )?;
    for fleet in fleets {
        for (outcome, status, count) in fleet.requests() {
            let [namespace, name] = labels(fleet);
            let status = status.map_or("other".to_owned(), |s| s.to_string());
            let labels = [namespace, name, ("outcome", outcome), ("status", &status)];
            encode_counter(&mut family, &labels, count)?;
        }
    }
    Ok(())
}

type Pairs<'a> = Box<dyn Iterator<Item = (&'static str, u64)> + 'a>;
type ByLabel = (&'static str, &'static str, &'static str, fn(&FleetCells) -> Pairs<'_>);

fn by_label(out: &mut DescriptorEncoder<'_>, fleets: &[FleetMetrics]) -> Result<(), Error> {
    let all: [ByLabel; 5] = [
        (own!("shed"), "Requests that were not taken, by reason", "reason", |f| Box::new(f.shed.iter())),
        (
            own!("retries"),
            "Requests that were sent again, by reason; no_budget: those that were not",
            "reason",
            |f| Box::new(f.retries.iter()),
        ),
        (own!("recoveries"), "Attempts to re-create the session of a pod that is gone", "result", |f| {
            Box::new(f.recoveries.iter())
        }),
        (
            own!("tokens_unopened"),
            "Identifiers of clients that were not minted here, or under a key that is gone",
            "purpose",
            |f| Box::new(f.tokens_unopened.iter()),
        ),
        (own!("probes"), "Active probes of pods by what they found", "result", |f| Box::new(f.probes.iter())),
    ];
    for (name, help, label, counts) in all {
        let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        for fleet in fleets {
            for (value, count) in counts(fleet) {
                let [namespace, name] = labels(fleet);
                encode_counter(&mut family, &[namespace, name, (label, value)], count)?;
            }
        }
    }
    Ok(())
}

type PlainCounter = (&'static str, &'static str, fn(&FleetCells) -> u64);
type PlainGauge = (&'static str, &'static str, fn(&FleetCells) -> i64);

fn plain(out: &mut DescriptorEncoder<'_>, fleets: &[FleetMetrics]) -> Result<(), Error> {
    let counters: [PlainCounter; 4] = [
        (own!("sessions_moved"), "Sessions that went on at another pod", |f| f.sessions_moved.get()),
        (own!("sessions_lost"), "Sessions that ended because their pod did", |f| f.sessions_lost.get()),
        (own!("ejections"), "Times that a breaker took a pod out of the choice", |f| f.ejections.get()),
        (own!("drain_cut"), "Calls and streams that were cut at the deadline of a drain", |f| {
            f.drain_cut.get()
        }),
    ];
    for (name, help, value) in counters {
        let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        for fleet in fleets {
            encode_counter(&mut family, &labels(fleet), value(fleet))?;
        }
    }
    let gauges: [PlainGauge; 3] = [
        (own!("listens"), "Open subscriptions/listen streams of clients", |f| f.listens.get()),
        (own!("client_streams"), "Open event streams to clients", |f| f.streams.get()),
        (own!("drain_anchors"), "Connections that keep a terminating pod alive", |f| f.anchors.get()),
    ];
    for (name, help, value) in gauges {
        let mut family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for fleet in fleets {
            family.encode_family(&labels(fleet))?.encode_gauge(&value(fleet))?;
        }
    }
    Ok(())
}

fn process(out: &mut DescriptorEncoder<'_>, metrics: &Metrics) -> Result<(), Error> {
    let counters = [
        (own!("client_connections_accepted"), "Connections of clients", metrics.client_accepted.get()),
        (
            own!("client_connections_refused"),
            "Connections of clients that were refused: too many, or no valid request",
            metrics.client_refused.get(),
        ),
        (own!("upstream_connections_opened"), "Connections to pods", metrics.upstream_opened.get()),
        (own!("unrouted"), "Requests whose path and host name no fleet", metrics.unrouted.get()),
        (
            own!("source_errors"),
            "Failed watches of the API server and failed name look-ups",
            metrics.source_errors.get(),
        ),
        (own!("access_log_dropped"), "Lines of the access log without room", metrics.log_dropped.get()),
    ];
    for (name, help, value) in counters {
        let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
    }
    let by_result = [
        (own!("reloads"), "Reloads of the configuration, of certificates and of keys", &metrics.reloads),
        (own!("report_pushes"), "Load reports sent to a receiver", &metrics.reports),
        (own!("peer_calls"), "Questions to other gateways about moved sessions", &metrics.peer_calls),
    ];
    for (name, help, counts) in by_result {
        let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (result, count) in counts.iter() {
            encode_counter(&mut family, &[("result", result)], count)?;
        }
    }
    let gauges = [
        (own!("client_connections"), "Open connections of clients", metrics.client_connections.get()),
        (own!("body_bytes"), "Bytes of request bodies in memory", metrics.body_bytes.get()),
    ];
    for (name, help, value) in gauges {
        out.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    Ok(())
}

/// Labels of every series of a fleet.
fn labels(fleet: &FleetCells) -> [(&'static str, &str); 2] {
    [("namespace", &fleet.key.namespace), ("fleet", &fleet.key.name)]
}

fn encode_counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    value: u64,
) -> Result<(), Error> {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn encode_histogram<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    histogram: &Histogram,
) -> Result<(), Error> {
    let (sum, count, buckets) = histogram.read();
    family.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}
