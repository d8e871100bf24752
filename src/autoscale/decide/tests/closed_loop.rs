//! The loop closed: a fluid model of pods, a queue and noisy load, and decisions that act on it. What is added serves
//! only after its start-up time.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::support::*;
use crate::autoscale::{
    decision::Decision,
    policy::Policy,
    snapshot::{Actuator, Snapshot},
};

/// Seconds that a pod takes to start.
const START_UP: usize = 20;
/// Calls that a pod runs at once.
const SLOTS: f64 = 20.0;
/// Seconds that a call takes.
const HOLD: f64 = 0.25;

/// One second, as the gateways would tell it.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    served: f64,
    shed: f64,
    in_flight: f64,
    queue: f64,
}

/// A fleet under load.
struct Loop {
    process: Process,
    /// Age of each pod, in seconds.
    pods: Vec<usize>,
    queue: f64,
    seconds: VecDeque<Second>,
    /// Steps: when, and by how much.
    steps: Vec<(usize, i32)>,
    time: usize,
    shed: f64,
}

impl Loop {
    fn new(policy: Policy, n: usize) -> Self {
        Self {
            process: Process::new(policy),
            pods: vec![START_UP; n],
            queue: 0.0,
            seconds: VecDeque::new(),
            steps: Vec::new(),
            time: 0,
            shed: 0.0,
        }
    }

    /// One second under `rate` calls per second: serve, tell, decide, act.
    fn second(&mut self, rate: f64) -> Decision {
        let ready = self.pods.iter().filter(|age| **age >= START_UP).count();
        let capacity = ready as f64 * SLOTS / HOLD;
        let offered = self.queue + rate;
        let served = offered.min(capacity);
        // Who waits longer than five seconds is sent away.
        let left = offered - served;
        self.queue = left.min(5.0 * capacity.max(1.0));
        let shed = left - self.queue;
        self.shed += shed;
        self.seconds.push_back(Second { served, shed, in_flight: served * HOLD, queue: self.queue });
        if self.seconds.len() > 60 {
            self.seconds.pop_front();
        }
        let snapshot = self.snapshot(ready);
        let decision = self.process.tick(&snapshot);
        self.act(decision.desired as usize);
        self.time += 1;
        decision
    }

    fn act(&mut self, desired: usize) {
        let n = self.pods.len();
        if desired != n {
            self.steps.push((self.time, desired as i32 - n as i32));
        }
        self.pods.iter_mut().for_each(|age| *age += 1);
        // The newest go first.
        self.pods.resize(desired, 0);
    }

    fn snapshot(&self, ready: usize) -> Snapshot {
        let n = self.pods.len();
        let pods = pods(ready as u128, (n - ready) as u128);
        let over = |seconds: usize| {
            let all: Vec<&Second> = self.seconds.iter().rev().take(seconds).collect();
            let mean = |f: fn(&Second) -> f64| all.iter().map(|s| f(s)).sum::<f64>() / all.len() as f64;
            Traffic {
                rate: mean(|s| s.served),
                shed: mean(|s| s.shed),
                in_flight: mean(|s| s.in_flight),
                queue: mean(|s| s.queue),
                latency_ms: 250.0,
                ..NONE
            }
        };
        let mut load = load(over(60), &pods);
        load.stable = window(self.seconds.len() as f64, over(60), &pods);
        load.panic = window(self.seconds.len().min(6) as f64, over(6), &pods);
        (load.waiting, load.complete) = (self.queue, self.seconds.len() >= 60);
        let mut snapshot = Snapshot { replicas: n as i32, load: Some(load), pods, ..fleet(n as i32, NONE) };
        snapshot.actuator = Actuator::Direct;
        let busy = over(6).in_flight / (ready.max(1) as f64 * SLOTS);
        snapshot.pods.iter_mut().for_each(|p| p.cpu = Some(busy * 0.4));
        snapshot
    }

    /// Most turns within any 600 s, from `from` on: a turn is a step against one that was made less than 600 s before.
    fn turns(&self, from: usize) -> usize {
        let turns: Vec<usize> = self
            .steps
            .windows(2)
            .filter(|pair| pair[0].1.signum() != pair[1].1.signum() && pair[1].0 - pair[0].0 < 600)
            .map(|pair| pair[1].0)
            .filter(|at| *at >= from)
            .collect();
        turns.iter().map(|t| turns.iter().filter(|u| (*t..*t + 600).contains(*u)).count()).max().unwrap_or(0)
    }
}

/// Noise without a generator of its own: the same each time, between −1 and 1.
fn noise(seed: u64, second: usize) -> f64 {
    let mut x = seed ^ (second as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for _ in 0..3 {
        x ^= x >> 31;
        x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^= x >> 27;
    }
    (x >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    /// 13: ±10 % of noise, quick or slow, turns the scale at most once in ten minutes.
    #[test]
    fn noise_does_not_turn_the_scale(rate in 20.0..800.0_f64, seed: u64, slow in 1_usize..20, start in 1_usize..15) {
        let mut fleet = Loop::new(Policy::balanced(1, 30, None), start);
        for second in 0..2400 {
            fleet.second(rate * (1.0 + 0.1 * noise(seed, second / slow)));
        }
        prop_assert!(fleet.turns(600) <= 1, "{:?}", fleet.steps);
    }

    /// Under a load that does not change the scale comes to rest, and serves.
    #[test]
    fn a_constant_load_comes_to_rest(rate in 1.0..1500.0_f64, start in 1_usize..30) {
        let mut fleet = Loop::new(Policy::balanced(1, 40, None), start);
        for _ in 0..2700 {
            fleet.second(rate);
        }
        let (shed, n) = (fleet.shed, fleet.pods.len());
        for _ in 0..700 {
            fleet.second(rate);
        }
        prop_assert_eq!(fleet.pods.len(), n, "{:?}", fleet.steps);
        prop_assert!(fleet.steps.iter().all(|(at, _)| *at < 2700), "{:?}", fleet.steps);
        prop_assert!((fleet.shed - shed).abs() < 1e-9);
        let ideal = rate * HOLD / 14.0;
        prop_assert!(n as f64 >= ideal - 1e-6 && n as f64 <= (ideal / 0.9).ceil() + 1.0, "{n} for {ideal}");
    }
}

#[test]
fn four_times_the_load_is_served_after_one_start_up() {
    let mut fleet = Loop::new(Policy::balanced(1, 40, None), 4);
    for _ in 0..600 {
        fleet.second(200.0);
    }
    assert_eq!(fleet.pods.len(), 4);
    for _ in 0..60 {
        fleet.second(800.0);
    }
    assert!(fleet.pods.len() >= 15, "{:?}", fleet.steps);
    let shed = fleet.shed;
    for _ in 0..600 {
        fleet.second(800.0);
    }
    assert!((fleet.shed - shed).abs() < 1e-9, "nothing is sent away any more");
    // And back, after the window, a tenth a minute.
    for _ in 0..2100 {
        fleet.second(200.0);
    }
    assert_eq!(fleet.pods.len(), 4, "{:?}", fleet.steps);
}

#[test]
fn the_classic_formula_follows_its_own_pace() {
    let mut fleet = Loop::new(Policy::classic(2, 10), 2);
    for _ in 0..3600 {
        fleet.second(1500.0);
    }
    let gaps: Vec<usize> = fleet.steps.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| *gap >= 300), "{gaps:?}");
    assert!(fleet.steps.iter().all(|(_, change)| change.abs() == 1));
}
