//! One run: a world, its reports on their way, and a policy.

use super::{
    measure::{self, Measure},
    random::Random,
    scalers::{Kind, PodFacts, View},
    scenario::Scenario,
    world::{BEGIN, FLEET, GATEWAYS, Limits, Micros, Phase, SECOND, World},
};
use crate::autoscale::{
    ledger::Ledger,
    load::Load,
    policy::{Policy, Windows, Zero},
    report::Report,
    time::Now,
};

/// A report is lost with this probability.
const LOSS: f64 = 0.01;

/// Runs a policy through a scenario.
pub(crate) fn run(scenario: &Scenario, kind: Kind, policy: &Policy, limits: Limits, seed: u64) -> Measure {
    let policy = bounds(policy, scenario, kind);
    let mut random = Random::new(seed, 5);
    let mut scaler = kind.scaler(&policy, limits.target, random.index(15) as Micros * SECOND);
    let replicas = measure::first_replicas(scenario, seed, limits.slots, policy.min);
    let mut world = World::new(scenario, limits, replicas, seed);
    let mut reports = Reports { ledger: Ledger::default(), under_way: Vec::new(), random };
    let mut load: Option<Load> = None;
    let cpu_phase = reports.random.index(15);
    let mut spec = replicas;
    for second in 0..scenario.seconds {
        world.second(kind.victims(), load.as_ref());
        let blind = world.conditions.blind;
        if second as usize % 15 == cpu_phase && !blind {
            world.read_cpu();
        }
        reports.exchange(&mut world, blind);
        load = reports.load(&world, &policy);
        if world.conditions.restart {
            scaler.restart(world.now);
        }
        let pods = facts(&world, blind);
        let view = View {
            now: world.now,
            replicas: spec,
            deployed: world.replicas,
            pods: &pods,
            load: load.as_ref(),
        };
        spec = scaler.tick(&view).unwrap_or(spec);
        world.measure.score(world.now, scaler.score());
        let deployed = scaler.deployed(spec);
        if deployed != world.replicas {
            world.measure.scaled(world.now, world.replicas, deployed);
            world.replicas = deployed;
        }
        world.run_until(Micros::from(second + 1) * SECOND);
    }
    world.measure
}

/// The policy's bounds in this scenario, and over which time this kind looks.
fn bounds(policy: &Policy, scenario: &Scenario, kind: Kind) -> Policy {
    let mut policy = policy.clone();
    if !kind.is_ours() {
        policy.windows = Windows { stable: 60_000, panic: 6_000, ..Windows::default() };
    }
    policy.max = scenario.max;
    policy.min = policy.min.min(policy.max);
    if scenario.zero {
        policy.min = i32::from(!kind.to_zero());
        policy.zero = kind.to_zero().then_some(Zero { idle: 120_000 });
    }
    policy
}

/// Pods as the API server and the metrics server show them.
fn facts(world: &World<'_>, blind: bool) -> Vec<PodFacts> {
    let wanted = world.alive().filter(|(_, pod)| pod.wanted());
    wanted
        .map(|(id, pod)| PodFacts {
            id,
            ready: pod.phase == Phase::Ready,
            created: pod.created,
            turned: pod.turned,
            cpu: pod.cpu.filter(|_| !blind),
        })
        .collect()
}

/// Reports between gateways and the operator.
struct Reports {
    ledger: Ledger,
    /// With the time at which they arrive.
    under_way: Vec<(Micros, Report)>,
    random: Random,
}

impl Reports {
    /// Each gateway sends; what has arrived is taken in.
    fn exchange(&mut self, world: &mut World<'_>, blind: bool) {
        for gateway in 0..GATEWAYS {
            let Some(report) = world.report(gateway) else { continue };
            // Drawn in any case: what is lost does not move what follows.
            let (lost, delay) = (self.random.chance(LOSS), self.random.uniform(0.01, 0.1));
            if !lost && !blind {
                self.under_way.push((world.now + (delay * 1e6) as Micros, report));
            }
        }
        // One that was sent in this second is there when the next decision is made.
        let now = world.now;
        let ledger = &mut self.ledger;
        self.under_way.retain(|(at, report)| {
            let arrived = *at <= now;
            if arrived {
                ledger.accept(report, clock(now));
            }
            !arrived
        });
    }

    fn load(&self, world: &World<'_>, policy: &Policy) -> Option<Load> {
        self.ledger.load(FLEET, &policy.windows, Some(world.expected_gateways()), clock(world.now))
    }
}

fn clock(now: Micros) -> Now {
    Now { mono: now / 1000, wall: BEGIN + now / 1000 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::{
        scenario::{Disturbance, Service, Shape},
        scenarios,
    };

    /// 95 % of the calls fail within 5 ms: the load on the pods falls to a twentieth, and nothing may go.
    #[test]
    fn an_outage_takes_nothing_away() {
        let scenario = Scenario {
            seconds: 900,
            load: Shape::Ramp { low: 40.0, high: 40.0, from: 0.0, to: 1.0 },
            service: Service { io_ms: 1000.0, cpu_ms: 8.0 },
            disturbances: vec![Disturbance::Outage { from: 200, to: 900, share: 0.95, ms: 5.0 }],
            ..scenarios::all().remove(0)
        };
        let downs = |kind| {
            let policy = Limits::default().balanced(1, 30);
            run(&scenario, kind, &policy, Limits::default(), 3).summary().downs_in_outage
        };
        assert_eq!((downs(Kind::Balanced), downs(Kind::Direct)), (0, 0));
        assert!(downs(Kind::Kpa) > 0 && downs(Kind::HpaConcurrency) > 0, "the scenario tempts");
    }
}
