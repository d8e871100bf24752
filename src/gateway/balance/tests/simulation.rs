//! Three endpoints of four slots each, exponential service of 20 ms on average, 250 calls a second: what
//! strategies do to a slow and to a failing endpoint over a minute. Virtual time, seeded.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::{
    super::{Outlook, SLOW_START, Sample, Strategy, pick},
    Fake, SECOND, fleet,
};

const SLOTS: usize = 4;
const SERVICE_NS: f64 = 20e6;
const RATE: f64 = 250.0;
/// The strategies that look at load.
const BY_COST: [Strategy; 3] = [Strategy::LeastRequest, Strategy::PeakEwma, Strategy::LeastConnections];

/// What the first endpoint is like; the others are healthy.
#[derive(Clone, Copy)]
enum First {
    Slower { factor: f64, until: u64 },
    Fails,
}

/// One finished call.
struct Call {
    endpoint: usize,
    sent_at: u64,
    took: u64,
}

struct World {
    fleet: Vec<Fake>,
    first: First,
    rng: fastrand::Rng,
    busy: Vec<usize>,
    backlog: Vec<VecDeque<u64>>,
    /// Ends of service: (when, endpoint, sent at).
    ends: BinaryHeap<Reverse<(u64, usize, u64)>>,
}

impl World {
    fn exponential(&mut self, mean: f64) -> u64 {
        (-mean * (1.0 - self.rng.f64()).ln()) as u64
    }

    fn serve(&mut self, endpoint: usize, now: u64, sent_at: u64) {
        let mean = match self.first {
            First::Slower { factor, until } if endpoint == 0 && now < until => SERVICE_NS * factor,
            _ => SERVICE_NS,
        };
        let took = match self.first {
            First::Fails if endpoint == 0 => 200_000,
            _ => self.exponential(mean),
        };
        self.busy[endpoint] += 1;
        self.ends.push(Reverse((now + took, endpoint, sent_at)));
    }

    fn end(&mut self, now: u64, endpoint: usize, sent_at: u64) -> Call {
        let took = now - sent_at;
        let failed = endpoint == 0 && matches!(self.first, First::Fails);
        let sample = if failed { Sample::Failed } else { Sample::Answered(took) };
        self.fleet[endpoint].load.finished(now, sample);
        self.busy[endpoint] -= 1;
        if let Some(next) = self.backlog[endpoint].pop_front() {
            self.serve(endpoint, now, next);
        }
        Call { endpoint, sent_at, took }
    }
}

fn run(strategy: Strategy, first: First, seed: u64, seconds: u64) -> Vec<Call> {
    let mut world = World {
        fleet: fleet(3),
        first,
        rng: fastrand::Rng::with_seed(seed),
        busy: vec![0; 3],
        backlog: vec![VecDeque::new(); 3],
        ends: BinaryHeap::new(),
    };
    let outlook = Outlook::default();
    let mut draws = fastrand::Rng::with_seed(seed + 1_000);
    let (mut calls, mut now, mut refreshed) = (Vec::new(), 0, 0);
    loop {
        now += world.exponential(1e9 / RATE);
        while let Some(&Reverse((at, endpoint, sent_at))) = world.ends.peek().filter(|e| e.0.0 <= now) {
            world.ends.pop();
            calls.push(world.end(at, endpoint, sent_at));
        }
        if now > seconds * SECOND {
            return calls;
        }
        if now > refreshed + SECOND {
            outlook.refresh(&world.fleet, now, SLOW_START);
            refreshed = now;
        }
        let endpoint =
            pick(strategy, &world.fleet, |_| true, &outlook, &mut || draws.u64(..), now, SLOW_START).unwrap();
        world.fleet[endpoint].load.started();
        if world.busy[endpoint] < SLOTS {
            world.serve(endpoint, now, now);
        } else {
            world.backlog[endpoint].push_back(now);
        }
    }
}

/// The share of the first endpoint among calls sent within `seconds`.
fn share(calls: &[Call], seconds: std::ops::Range<u64>) -> f64 {
    let within = |call: &&Call| (seconds.start * SECOND..seconds.end * SECOND).contains(&call.sent_at);
    let (mut total, mut first) = (0.0, 0.0);
    for call in calls.iter().filter(within) {
        total += 1.0;
        first += f64::from(u8::from(call.endpoint == 0));
    }
    first / total
}

fn p99_ms(calls: &[Call]) -> f64 {
    let mut took: Vec<u64> = calls.iter().filter(|c| c.sent_at > 3 * SECOND).map(|c| c.took).collect();
    took.sort_unstable();
    took[took.len() * 99 / 100] as f64 / 1e6
}

#[test]
fn what_fails_at_once_is_no_black_hole() {
    for strategy in Strategy::ALL {
        for seed in 0..3 {
            let calls = run(strategy, First::Fails, seed, 60);
            let share = share(&calls, 0..60);
            assert!(share <= 0.002, "{strategy:?}, seed {seed}: {:.2} % failed", share * 100.0);
            assert!(share > 0.0, "{strategy:?}, seed {seed}: it must be tried, or it never returns");
        }
    }
}

#[test]
fn a_slow_endpoint_gets_little_and_returns_when_it_heals() {
    for strategy in BY_COST {
        for seed in 0..3 {
            let calls = run(strategy, First::Slower { factor: 20.0, until: 30 * SECOND }, seed, 75);
            let (slow, healed) = (share(&calls, 3..30), share(&calls, 60..75));
            assert!(slow < 0.06, "{strategy:?}, seed {seed}: {slow:.3} while slow");
            assert!(healed > 0.25, "{strategy:?}, seed {seed}: {healed:.3} after healing");
        }
    }
}

#[test]
fn a_slow_endpoint_hardly_shows_in_the_tail_of_peak_ewma() {
    let healthy = First::Slower { factor: 1.0, until: 0 };
    let slow = First::Slower { factor: 20.0, until: u64::MAX };
    let mean_p99 =
        |first| (0..5).map(|seed| p99_ms(&run(Strategy::PeakEwma, first, seed, 60))).sum::<f64>() / 5.0;
    let (healthy, slow) = (mean_p99(healthy), mean_p99(slow));
    assert!(slow <= 1.5 * healthy, "p99 {slow:.0} ms with a slow endpoint, {healthy:.0} ms without");
}
