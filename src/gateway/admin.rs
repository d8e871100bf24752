//! What people and the operator may ask the gateway: `/admin/…` on the debug port (read-only, loopback by
//! default) and the fleets' load for the operator. `/livez`, `/readyz` and `/metrics` are `runtime::admin`'s.
//!
//! Never tokens, keys, upstream session ids, principals or credentials.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{
    balance::Nanos,
    fleet::{Capability, Endpoint, Fleet, Legacy, Phase, Transport},
    metrics::live::state_name,
    reports::uid,
    settings::{HealthCheck, Probe, Settings},
    shared::Gateway,
};
use crate::{
    domain::FleetKey,
    runtime::admin::{Admin, AdminError},
};

/// Opens the debug port; serve it with [`Admin::serve`].
pub async fn bind(address: SocketAddr, gateway: Arc<Gateway>) -> Result<Admin, AdminError> {
    Admin::bind_router(address, router(gateway), "the debug endpoints", "debug").await
}

fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/admin/fleets", get(fleets))
        .route("/admin/fleets/{namespace}/{name}", get(one_fleet))
        .route("/admin/peers", get(peers))
        .route("/admin/config", get(config))
        .with_state(gateway)
}

async fn fleets(State(gateway): State<Arc<Gateway>>) -> Response {
    let now = gateway.clock.now();
    let all: Vec<Value> = gateway.snapshot.load().fleets.iter().map(|f| fleet(f, now)).collect();
    answer(&json!({"fleets": all}))
}

async fn one_fleet(
    State(gateway): State<Arc<Gateway>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    match gateway.fleet(&FleetKey::new(namespace, name)) {
        Some(found) => answer(&fleet(&found, gateway.clock.now())),
        None => (StatusCode::NOT_FOUND, "no such fleet; /admin/fleets lists all\n").into_response(),
    }
}

async fn peers(State(gateway): State<Arc<Gateway>>) -> Response {
    let all: Vec<String> = gateway.peers.load().iter().map(|p| p.address.to_string()).collect();
    let own = gateway.own.load().as_ref().as_ref().map(|p| p.address.to_string());
    answer(&json!({"own": own, "ready": all}))
}

async fn config(State(gateway): State<Arc<Gateway>>) -> Response {
    let options = &gateway.options;
    answer(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "name": options.name,
        "uptimeSeconds": gateway.clock.now() / 1_000_000_000,
        "allowedHosts": options.allowed_hosts,
        "exposeServedBy": options.expose_served_by,
        "accessLog": options.access_log,
        "keys": gateway.keys.load().len(),
        "ending": gateway.ending.load(std::sync::atomic::Ordering::Relaxed),
    }))
}

fn answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

fn fleet(fleet: &Fleet, now: Nanos) -> Value {
    let view = fleet.view_full();
    json!({
        "namespace": fleet.key.namespace,
        "name": fleet.key.name,
        "uid": &*fleet.uid,
        "path": view.spec.path,
        "transport": if view.spec.transport == Transport::Sse { "SSE" } else { "StreamableHTTP" },
        "scalable": view.spec.scalable,
        "anyModern": view.any_modern,
        "running": fleet.active.load(std::sync::atomic::Ordering::Relaxed),
        "sessions": fleet.sessions.len(),
        "retrying": fleet.retries.load().retrying(),
        "queue": {"modern": fleet.queue.len(), "legacy": fleet.legacy_queue.len()},
        "settings": settings(&view.spec.settings),
        "endpoints": view.endpoints.iter().map(|e| endpoint(e, now)).collect::<Vec<_>>(),
    })
}

fn endpoint(endpoint: &Endpoint, now: Nanos) -> Value {
    let (breaker, load) = (endpoint.breaker.load(), &endpoint.load);
    json!({
        "name": &*endpoint.name,
        "address": endpoint.address,
        "podUid": uid(endpoint.id),
        "phase": endpoint.phase().as_str(),
        "healthy": !endpoint.is_unhealthy(),
        "breaker": state_name(breaker.state(now)),
        "failuresInRow": breaker.failures_in_row(),
        "ejected": endpoint.is_ejected(),
        "full": endpoint.is_full(),
        "weight": endpoint.weight,
        "local": endpoint.local,
        "inflight": load.inflight(),
        "waiting": endpoint.queue.len(),
        "streams": load.streams(),
        "sessions": sessions_on(endpoint),
        "tasks": endpoint.work.count(now),
        "connections": endpoint.connections.load(std::sync::atomic::Ordering::Relaxed),
        "ewmaMs": load.ewma_ns().map(|ns| ns as f64 / 1e6),
        "penaltyMs": load.penalty_ns(now) as f64 / 1e6,
        "capability": capability(&endpoint.capability.load()),
    })
}

fn sessions_on(endpoint: &Endpoint) -> usize {
    endpoint.sessions.load(std::sync::atomic::Ordering::Relaxed)
}

fn capability(known: &Capability) -> Value {
    let legacy = match known.legacy {
        Legacy::Yes => json!(true),
        Legacy::No => json!(false),
        Legacy::Unknown => Value::Null,
    };
    json!({
        "known": known.known, "protected": known.opaque, "versions": known.listed, "modern": known.modern,
        "legacy": legacy, "stateful": known.stateful,
        "server": known.server.as_ref().map(|(name, version)| json!({"name": name, "version": version})),
    })
}

/// The settings in effect, under the names of `spec.gateway`.
fn settings(settings: &Settings) -> Value {
    let (breaker, limits, timeouts) = (&settings.breaker, &settings.limits, &settings.timeouts);
    json!({
        "class": settings.class,
        "hostnames": settings.hostnames,
        "origins": settings.origins,
        "strategy": format!("{:?}", settings.strategy),
        "slowStartSeconds": settings.slow_start.as_secs(),
        "healthCheck": health_check(&settings.health_check),
        "circuitBreaker": {
            "failureThreshold": breaker.failure_threshold,
            "recoverySeconds": breaker.recovery.as_secs(),
            "halfOpenMaxRequests": breaker.half_open_max_requests,
            "minRequests": breaker.min_requests,
            "failureRatio": breaker.failure_ratio,
            "windowSeconds": breaker.window.as_secs(),
            "maxEjectedPercent": breaker.max_ejected_percent,
        },
        "queue": {"capacity": settings.queue.capacity, "timeoutSeconds": settings.queue.timeout.as_secs()},
        "maxRequestsPerPod": settings.max_requests_per_pod,
        "retries": {
            "budgetPercent": settings.retries.budget_percent,
            "minConcurrency": settings.retries.min_concurrency,
            "idempotentTools": settings.retries.idempotent_tools,
        },
        "sessionRecovery": if settings.session_recovery { "Enabled" } else { "Disabled" },
        "listenFanOut": settings.listen_fan_out,
        "limits": {
            "maxBodyBytes": limits.max_body_bytes,
            "maxHeaderBytes": limits.max_header_bytes,
            "sessionIdleSeconds": limits.session_idle.as_secs(),
        },
        "timeouts": {
            "connectMilliseconds": timeouts.connect.as_millis() as u64,
            "requestSeconds": timeouts.request.as_secs(),
            "streamIdleSeconds": timeouts.stream_idle.as_secs(),
            "streamMaxSeconds": timeouts.stream_max.map_or(0, |t| t.as_secs()),
            "activationSeconds": timeouts.activation.as_secs(),
        },
    })
}

fn health_check(check: &HealthCheck) -> Value {
    let (kind, path) = match &check.probe {
        Probe::Mcp => ("MCP", None),
        Probe::Http(path) => ("HTTP", Some(path)),
        Probe::Tcp => ("TCP", None),
    };
    json!({
        "type": kind,
        "path": path,
        "intervalSeconds": check.interval.as_secs(),
        "timeoutSeconds": check.timeout.as_secs(),
        "unhealthyThreshold": check.unhealthy_threshold,
        "healthyThreshold": check.healthy_threshold,
    })
}

/// The answer to `GET /internal/fleets`, by which the operator learns what fleets speak and where their load is.
pub fn internal_fleets(gateway: &Gateway) -> Vec<u8> {
    let all: Vec<Value> = gateway.snapshot.load().fleets.iter().map(|f| internal_fleet(f)).collect();
    json!({"gateway": gateway.options.name, "fleets": all}).to_string().into_bytes()
}

fn internal_fleet(fleet: &Fleet) -> Value {
    let view = fleet.view_full();
    let known: Vec<_> = view.endpoints.iter().filter(|e| e.phase() != Phase::Gone).collect();
    let capabilities: Vec<_> = known.iter().map(|e| e.capability.load_full()).collect();
    let endpoints: Vec<Value> = known
        .iter()
        .map(|e| {
            json!({
                "podUid": uid(e.id), "sessions": sessions_on(e),
                "inflight": e.load.inflight(), "streams": e.load.streams(),
            })
        })
        .collect();
    json!({
        "namespace": fleet.key.namespace, "name": fleet.key.name, "uid": &*fleet.uid,
        "protocol": protocol(&capabilities.iter().map(AsRef::as_ref)), "endpoints": endpoints,
    })
}

/// What the pods of a fleet speak, taken together; versions oldest first.
fn protocol<'a>(capabilities: &(impl Iterator<Item = &'a Capability> + Clone)) -> Value {
    let mut versions: Vec<&str> = capabilities.clone().flat_map(|c| &c.listed).map(String::as_str).collect();
    versions.sort_unstable();
    versions.dedup();
    let server = capabilities.clone().find_map(|c| c.server.as_ref());
    let sessions = if capabilities.clone().any(|c| c.stateful == Some(true)) {
        "Stateful"
    } else if capabilities.clone().any(|c| c.stateful == Some(false)) {
        "Stateless"
    } else {
        "Unknown"
    };
    let server = server.map(|(name, version)| json!({"name": name, "version": version}));
    json!({"versions": versions, "server": server, "sessions": sessions})
}

#[cfg(test)]
mod tests;
