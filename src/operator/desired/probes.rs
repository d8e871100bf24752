//! Startup, readiness and liveness of the server.
//!
//! A probe that kills runs the pod's `preStop` hook first. A hung server keeps its connections, so the
//! hook would wait for them; hence the probes' own, short grace period (operator.md section 1).

use k8s_openapi::api::core::v1::{HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::{
    names,
    v1alpha1::{self as api, ProbeType, ServerSpec},
};

/// Seconds between the decision of a probe to kill and SIGKILL.
const KILL_GRACE_SECONDS: i64 = 10;

/// What a kind of probe does where the user says nothing. Seconds, and failures in a row.
struct Defaults {
    initial_delay: i32,
    period: i32,
    timeout: i32,
    failures: i32,
}

/// Two minutes to start, asked every 2 s.
const STARTUP: Defaults = Defaults { initial_delay: 0, period: 2, timeout: 5, failures: 60 };
const READINESS: Defaults = Defaults { initial_delay: 5, period: 10, timeout: 5, failures: 3 };
const LIVENESS: Defaults = Defaults { initial_delay: 15, period: 20, timeout: 5, failures: 3 };

pub(super) fn startup(server: &ServerSpec) -> Probe {
    Probe {
        termination_grace_period_seconds: Some(KILL_GRACE_SECONDS),
        ..probe(&server.probes.startup, &STARTUP)
    }
}

pub(super) fn readiness(server: &ServerSpec) -> Probe {
    probe(&server.probes.readiness, &READINESS)
}

pub(super) fn liveness(server: &ServerSpec) -> Probe {
    Probe {
        termination_grace_period_seconds: Some(KILL_GRACE_SECONDS),
        ..probe(&server.probes.liveness, &LIVENESS)
    }
}

fn probe(probe: &api::Probe, defaults: &Defaults) -> Probe {
    let port = probe.port.map_or_else(|| IntOrString::String(names::PORT_NAME.into()), IntOrString::Int);
    let (http_get, tcp_socket) = match (probe.type_, &probe.path) {
        (ProbeType::HTTP, Some(path)) => {
            let get = HTTPGetAction {
                path: Some(path.clone()),
                port,
                scheme: Some("HTTP".into()),
                ..HTTPGetAction::default()
            };
            (Some(get), None)
        }
        _ => (None, Some(TCPSocketAction { port, host: None })),
    };
    Probe {
        http_get,
        tcp_socket,
        // The API server drops a zero, and dropped is not what was applied.
        initial_delay_seconds: Some(probe.initial_delay_seconds.unwrap_or(defaults.initial_delay))
            .filter(|s| *s > 0),
        period_seconds: Some(probe.period_seconds.unwrap_or(defaults.period)),
        timeout_seconds: Some(probe.timeout_seconds.unwrap_or(defaults.timeout)),
        failure_threshold: Some(probe.failure_threshold.unwrap_or(defaults.failures)),
        ..Probe::default()
    }
}
