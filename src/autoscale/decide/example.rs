//! A fleet of ten pods under load, as an example of what [`super::decide`] takes: for benchmarks and documentation.

use std::collections::BTreeMap;

use crate::autoscale::{
    load::{Completions, Latencies, Load, PodWindow, Window},
    policy::Policy,
    snapshot::{Actuator, Pause, Pod, PodUid, Snapshot},
};

/// Ten pods with 13.5 running calls each, and the preset `Balanced`: demand and scale agree.
pub fn busy_fleet() -> (Policy, Snapshot) {
    let pods = 10_u8;
    let load = Load {
        stable: window(60.0, pods),
        panic: window(6.0, pods),
        sessions: 200.0,
        age: 1_000,
        complete: true,
        ..Load::default()
    };
    let snapshot = Snapshot {
        replicas: i32::from(pods),
        pods: (0..pods).map(pod).collect(),
        load: Some(load),
        actuator: Actuator::Direct,
        pause: Pause::default(),
        blocked: None,
    };
    (Policy::balanced(2, 100, None), snapshot)
}

fn uid(i: u8) -> PodUid {
    PodUid(u128::from(i) + 1)
}

fn pod(i: u8) -> Pod {
    Pod { uid: uid(i), ready: true, cpu: Some(0.5), memory: Some(0.4) }
}

fn window(seconds: f64, pods: u8) -> Window {
    let all = f64::from(pods);
    let calls = 40.0 * seconds;
    let ends = |calls: f64| Completions { ok: calls, ..Completions::default() };
    let of_pod = PodWindow { in_flight: 13.5, streams: 20.0, sessions: 20.0, completions: ends(calls) };
    let mut latency = Latencies::default();
    latency.0[18] = calls * all;
    Window {
        seconds,
        arrivals: calls * all,
        admitted: calls * all,
        in_flight: 13.5 * all,
        streams: 20.0 * all,
        completions: ends(calls * all),
        latency,
        pods: (0..pods).map(|i| (uid(i), of_pod.clone())).collect::<BTreeMap<_, _>>(),
        ..Window::default()
    }
}
