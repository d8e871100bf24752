//! Policies, loads and memories of any kind.

use proptest::prelude::*;

use super::support::*;
use crate::autoscale::{
    policy::{Combine, Cooldown, Fallback, FallbackBehavior, Policy, Role, Target, Zero},
    snapshot::{Actuator, Pause, Pod, PodUid, Snapshot},
    state::{Recommendation, ScaleEvent, State},
};

pub(super) fn policy() -> impl Strategy<Value = Policy> {
    let shape = (0_i32..5, 1_i32..60, 0_u8..4, any::<bool>());
    let numbers = (2.0..50.0_f64, 10.0..200.0_f64, 0.2..0.9_f64, 1.0..8.0_f64);
    let times = (prop_oneof![Just(0_i64), 1_000..400_000_i64], prop_oneof![Just(0_i64), 1_000..400_000_i64]);
    (shape, numbers, times, any::<bool>()).prop_map(|((min, more, way, boost), numbers, times, rates)| {
        let (calls, streams, cpu, exponent) = numbers;
        let mut policy =
            if way == 3 { Policy::classic(min, min + more) } else { Policy::balanced(min, min + more, None) };
        policy.zero = (min == 0).then_some(Zero { idle: 60_000 });
        if way == 2 {
            policy.combine = Combine::PowerMean { exponent };
        }
        if way < 3 {
            let signals = &mut policy.signals;
            signals.concurrency = Some(Target { per_pod: calls, weight: 1.0 });
            signals.connections = Some(Target { per_pod: streams, weight: 2.0 });
            signals.cpu = Some(Target { per_pod: cpu, weight: 1.0 });
            signals.request_rate = rates.then_some(Target { per_pod: 4.0 * calls, weight: 0.5 });
            if boost {
                signals.latency.as_mut().unwrap().role = Role::Boost;
            }
        }
        policy.cooldown = Cooldown { after_up: times.0, after_down: times.1 };
        policy.fallback =
            boost.then_some(Fallback { after: 60_000, replicas: 3, behavior: FallbackBehavior::Static });
        policy
    })
}

pub(super) fn traffic() -> impl Strategy<Value = Traffic> {
    let maybe = |most: f64| prop_oneof![Just(0.0), 0.0..most];
    (
        prop_oneof![Just(0.0), 20.0..2000.0_f64],
        maybe(300.0),
        maybe(500.0),
        maybe(100.0),
        maybe(2000.0),
        maybe(0.45),
        maybe(4000.0),
    )
        .prop_map(|(rate, shed, in_flight, queue, streams, errors, latency_ms)| Traffic {
            rate,
            shed,
            in_flight,
            queue,
            streams,
            errors,
            latency_ms,
        })
}

fn pod(i: usize, (ready, cpu): (bool, Option<f64>)) -> Pod {
    Pod { uid: PodUid(i as u128 + 1), ready, cpu, memory: Some(0.5) }
}

pub(super) fn snapshot() -> impl Strategy<Value = Snapshot> {
    let pods =
        prop::collection::vec((prop::bool::weighted(0.85), prop::option::weighted(0.9, 0.0..1.5_f64)), 0..12);
    let actuator = prop_oneof![Just(Actuator::Hpa), Just(Actuator::Direct), Just(Actuator::Off)];
    let rare = || prop::bool::weighted(0.15);
    (0..70_i32, pods, traffic(), traffic(), actuator, (rare(), rare(), rare(), rare())).prop_map(
        |(replicas, pods, stable, panic, actuator, (no_load, silent, incomplete, blocked))| {
            let pods: Vec<Pod> = pods.into_iter().enumerate().map(|(i, p)| pod(i, p)).collect();
            let mut load = load(stable, &pods);
            load.panic = window(6.0, panic, &pods);
            (load.silent, load.complete) = (u32::from(silent), !incomplete);
            // A fleet whose replicas and pods agree is the rule.
            let replicas = if replicas > 35 { pods.len() as i32 } else { replicas };
            Snapshot {
                replicas,
                pods,
                load: (!no_load).then_some(load),
                actuator,
                pause: Pause::default(),
                blocked: blocked.then(|| "no place".to_owned()),
            }
        },
    )
}

/// The memory of a process that saw enough, with a history that need not fit.
pub(super) fn state() -> impl Strategy<Value = State> {
    let ago = || prop::option::of(0..500_000_i64).prop_map(|ago| ago.map(|ago| WARM - ago));
    let ring = prop::collection::vec((0..300_000_i64, 0..60_i32, 0..20_i32), 0..64);
    let events = prop::collection::vec((0..1_800_000_i64, -10..10_i32), 0..64);
    let hold = prop::option::of(0.005..3.0_f64);
    let rest = (ago(), ago(), ago(), ago(), prop::option::of(0.0..60.0_f64), any::<bool>());
    (prop::option::weighted(0.9, 0..60_i32), hold, ring, events, rest).prop_map(
        |(replicas, baseline_hold, mut ring, mut events, (up, down, panic, idle, good, seen))| {
            ring.sort_by_key(|(ago, _, _)| -ago);
            events.sort_by_key(|(ago, _)| -ago);
            State {
                replicas,
                since: Some(0),
                last_up: up,
                last_down: down,
                last_panic: panic,
                idle_since: idle,
                baseline_hold,
                baseline_at: Some(WARM - 1_000),
                last_good_demand: good,
                pod_samples_seen: seen,
                recommendations: ring
                    .iter()
                    .map(|(ago, min, more)| Recommendation { at: WARM - ago, min: *min, max: min + more })
                    .collect(),
                scale_events: events
                    .iter()
                    .map(|(ago, change)| ScaleEvent { at: WARM - ago, change: *change })
                    .collect(),
                ..State::default()
            }
        },
    )
}

/// A policy, a snapshot and a memory; often one in which N stands where it stood.
pub(super) fn anything() -> impl Strategy<Value = (Policy, Snapshot, State)> {
    (policy(), snapshot(), state(), prop::bool::weighted(0.7)).prop_map(
        |(policy, snapshot, mut state, same)| {
            if same {
                state.replicas = Some(snapshot.replicas);
            }
            (policy, snapshot, state)
        },
    )
}
