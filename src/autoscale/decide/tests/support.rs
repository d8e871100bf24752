//! A fleet to decide about, in few words, and a process that decides each second.

use crate::autoscale::{
    decide::decide,
    decision::Decision,
    load::{Completions, Latencies, Load, PodWindow, Window},
    policy::Policy,
    snapshot::{Actuator, Pause, Pod, PodUid, Snapshot},
    state::State,
    time::Now,
};

/// Load of a fleet: the same over both windows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    /// Calls per second that got a place.
    pub(super) rate: f64,
    /// Calls per second that got none.
    pub(super) shed: f64,
    /// Mean of running calls.
    pub(super) in_flight: f64,
    /// Mean of waiting calls.
    pub(super) queue: f64,
    /// Open streams.
    pub(super) streams: f64,
    /// Share of ends that fail at the servers.
    pub(super) errors: f64,
    /// Latency of all calls, in ms.
    pub(super) latency_ms: f64,
}

pub(super) const NONE: Traffic =
    Traffic { rate: 0.0, shed: 0.0, in_flight: 0.0, queue: 0.0, streams: 0.0, errors: 0.0, latency_ms: 0.0 };

/// So many calls in flight, 250 ms each.
pub(super) fn calls(in_flight: f64) -> Traffic {
    Traffic { rate: in_flight * 4.0, in_flight, latency_ms: 250.0, ..NONE }
}

/// A window with this traffic, spread evenly over the pods.
pub(super) fn window(seconds: f64, traffic: Traffic, pods: &[Pod]) -> Window {
    let calls = traffic.rate * seconds;
    let ends = |calls: f64| Completions {
        ok: calls * (1.0 - traffic.errors),
        upstream: calls * traffic.errors,
        ..Completions::default()
    };
    let serving = pods.iter().filter(|p| p.ready).count().max(1) as f64;
    let of_pod = PodWindow {
        in_flight: traffic.in_flight / serving,
        streams: traffic.streams / serving,
        sessions: 0.0,
        completions: ends(calls / serving),
    };
    Window {
        seconds,
        arrivals: calls + traffic.shed * seconds,
        admitted: calls,
        shed: traffic.shed * seconds,
        retries: 0.0,
        queue: traffic.queue,
        in_flight: traffic.in_flight,
        streams: traffic.streams,
        completions: ends(calls),
        latency: exactly(traffic.latency_ms, calls),
        pods: pods.iter().filter(|p| p.ready).map(|p| (p.uid, of_pod.clone())).collect(),
    }
}

/// A histogram whose 95th percentile is `ms`: its bucket's bounds enclose it, and so many calls lie in it and in its
/// neighbours that the percentile interpolates to just this.
pub(super) fn exactly(ms: f64, calls: f64) -> Latencies {
    let mut latencies = Latencies::default();
    if ms <= 0.0 || calls <= 0.0 {
        return latencies;
    }
    let bucket = (1..32).find(|i| f64::from(1_u32 << i) / 1000.0 > ms).unwrap_or(31);
    let upper = f64::from(1_u32 << bucket) / 1000.0;
    let within = (ms - upper / 2.0) / (upper / 2.0);
    // p95 lies at the share `within` of a bucket with b calls: below + within·b = 0.95·(below + b + above).
    let (below, above) =
        if within >= 0.95 { (0.0, within / 0.95 - 1.0) } else { ((0.95 - within) / 0.05, 0.0) };
    let scale = calls / (below + 1.0 + above);
    latencies.0[bucket] = scale;
    latencies.0[bucket - 1] = below * scale;
    if above > 0.0 {
        latencies.0[bucket + 1] = above * scale;
    }
    latencies
}

pub(super) fn load(traffic: Traffic, pods: &[Pod]) -> Load {
    Load {
        stable: window(60.0, traffic, pods),
        panic: window(6.0, traffic, pods),
        waiting: traffic.queue,
        sessions: 0.0,
        age: 500,
        complete: true,
        silent: 0,
        silent_in_flight: 0.0,
    }
}

pub(super) fn pods(ready: u128, starting: u128) -> Vec<Pod> {
    (0..ready + starting)
        .map(|i| Pod { uid: PodUid(i + 1), ready: i < ready, cpu: Some(0.02), memory: Some(0.1) })
        .collect()
}

/// `n` replicas, all ready, with this traffic.
pub(super) fn fleet(n: i32, traffic: Traffic) -> Snapshot {
    let pods = pods(n as u128, 0);
    Snapshot {
        replicas: n,
        load: Some(load(traffic, &pods)),
        pods,
        actuator: Actuator::Hpa,
        pause: Pause::default(),
        blocked: None,
    }
}

/// The time since the start, in ms, when the process has seen enough.
pub(super) const WARM: i64 = 100_000;

pub(super) fn at(mono: i64) -> Now {
    Now { mono, wall: 1_700_000_000_000 + mono }
}

/// A process that has looked at `n` replicas since the start and seen a calm load.
pub(super) fn warm(n: i32) -> State {
    State {
        replicas: Some(n),
        since: Some(0),
        baseline_hold: Some(0.25),
        baseline_at: Some(WARM - 1000),
        pod_samples_seen: true,
        ..State::default()
    }
}

/// One decision of a warm process.
pub(super) fn once(policy: &Policy, snapshot: &Snapshot) -> Decision {
    decide(policy, snapshot, &warm(snapshot.replicas), at(WARM)).0
}

/// A process that decides again and again.
pub(super) struct Process {
    pub(super) policy: Policy,
    pub(super) state: State,
    pub(super) now: i64,
}

impl Process {
    pub(super) fn warm(policy: Policy, n: i32) -> Self {
        Self { policy, state: warm(n), now: WARM }
    }

    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, state: State::default(), now: 0 }
    }

    /// One second later.
    pub(super) fn tick(&mut self, snapshot: &Snapshot) -> Decision {
        self.after(1_000, snapshot)
    }

    pub(super) fn after(&mut self, millis: i64, snapshot: &Snapshot) -> Decision {
        self.now += millis;
        let (decision, state) = decide(&self.policy, snapshot, &self.state, at(self.now));
        self.state = state;
        decision
    }

    /// The same for so many seconds; the last decision.
    pub(super) fn seconds(&mut self, seconds: i64, snapshot: &Snapshot) -> Decision {
        let mut decision = self.tick(snapshot);
        for _ in 1..seconds {
            decision = self.tick(snapshot);
        }
        decision
    }

    /// Another process, which knows what is persisted. `skew`: by how much its wall clock is ahead.
    pub(super) fn restart(&mut self, skew: i64) {
        let persisted = self.state.persist(at(self.now));
        let later = Now { mono: 0, wall: at(self.now).wall + skew };
        self.state = State::restore(&persisted, later);
        self.now = 0;
    }
}
