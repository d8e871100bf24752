//! The world behaves as one: nothing is lost, and what goes wrong shows where it should.

use super::*;
use crate::{
    autoscale::{ledger::Ledger, policy::Windows, time::Now},
    simulate::scenario::{Disturbance, Service, Sessions, Shape},
};

fn scenario(rate: f64, seconds: u32, disturbances: &[Disturbance]) -> Scenario {
    Scenario {
        name: "test".into(),
        about: String::new(),
        seconds,
        load: Shape::Step { base: rate, factor: 1.0, from: 0.0, to: 0.0 },
        service: Service { io_ms: 400.0, cpu_ms: 8.0 },
        sessions: None,
        disturbances: disturbances.to_vec(),
        zero: false,
        max: 30,
    }
}

/// Runs to the end; `each` sees the world once a second.
fn run(scenario: &Scenario, replicas: i32, mut each: impl FnMut(u32, &mut World<'_>)) -> World<'_> {
    let mut world = World::new(scenario, Limits::default(), replicas, 1);
    for second in 0..scenario.seconds {
        world.second(VictimRule::Newest, None);
        each(second, &mut world);
        world.run_until(Micros::from(second + 1) * SECOND);
    }
    world
}

/// Calls that run or wait.
fn open(world: &World<'_>) -> u64 {
    (world.calls.len() - world.free.len()) as u64
}

#[test]
fn every_call_ends_once() {
    let scenario = scenario(50.0, 300, &[Disturbance::Crashes { every: 60.0 }]);
    let world = run(&scenario, 4, |_, _| {});
    let (offered, ended) = world.measure.balance();
    assert!(offered > 14_000, "{offered}");
    assert_eq!(offered, ended + open(&world));
    let running: u32 = world.pods.iter().map(|p| p.in_flight).sum();
    assert_eq!(u64::from(running) + world.queue.len() as u64, open(&world));
    assert!(world.measure.summary().failed > 0.0, "pods crashed under calls");
}

#[test]
fn a_session_for_which_no_pod_has_room_is_turned_away() {
    let sessions = Some(Sessions { per_second: 2.0, seconds: 10_000.0, until: 300 });
    let scenario = Scenario { sessions, ..scenario(1.0, 400, &[]) };
    let mut most = 0;
    let world = run(&scenario, 2, |_, world| {
        most = most.max(world.pods.iter().map(|p| p.streams).max().unwrap_or(0));
    });
    assert_eq!(most, Limits::default().streams, "no more than fit");
    let summary = world.measure.summary();
    assert!(summary.shed > 20.0, "of some 600 sessions and 400 calls: {summary:?}");
    let enough = run(&scenario, 6, |_, _| {}).measure.summary();
    assert!(enough.shed < 1e-9, "{enough:?}");
}

#[test]
fn few_pods_make_calls_wait_and_then_send_them_away() {
    let scenario = scenario(100.0, 200, &[]);
    let enough = run(&scenario, 4, |_, _| {}).measure.summary();
    assert!(enough.violations < 0.01 && enough.p95_wait < 0.1, "{enough:?}");
    let mut longest = 0;
    let few = run(&scenario, 1, |_, world| longest = longest.max(world.queue.len()));
    assert_eq!(longest, Limits::default().queue, "no more than fit");
    assert!(few.measure.summary().violations > 90.0);
}

#[test]
fn a_scale_down_loses_no_call_and_a_rollout_keeps_all_ready() {
    let mut scenario = scenario(60.0, 400, &[Disturbance::Rollout { at: 150 }]);
    scenario.max = 10;
    let mut fewest = usize::MAX;
    let world = run(&scenario, 8, |second, world| {
        if second == 60 {
            world.replicas = 4;
        }
        fewest = fewest.min(world.serving.len());
    });
    assert!(world.measure.summary().failed <= 0.0);
    assert_eq!(fewest, 4);
    assert!(world.alive().all(|(_, pod)| pod.revision == 1), "every pod was replaced");
    assert_eq!(world.alive().filter(|(_, pod)| pod.wanted()).count(), 4);
}

#[test]
fn sessions_break_only_when_the_drain_is_over() {
    let mut scenario = scenario(1.0, 500, &[]);
    scenario.sessions = Some(Sessions { per_second: 2.0, seconds: 2000.0, until: 50 });
    let mut at_drain_end = 0;
    let world = run(&scenario, 4, |second, world| match second {
        60 => world.replicas = 3,
        359 => at_drain_end = world.measure.summary().sessions_broken,
        _ => {}
    });
    assert_eq!(at_drain_end, 0);
    let broken = world.measure.summary().sessions_broken;
    assert!((10..=40).contains(&broken), "those of one pod of four: {broken}");
    assert_eq!(world.alive().count(), 3);
}

#[test]
fn the_ledger_sees_what_runs_and_which_gateway_is_silent() {
    let scenario = scenario(100.0, 240, &[Disturbance::GatewayLoss { from: 150, to: 200 }]);
    let mut ledger = Ledger::default();
    let mut seen = Vec::new();
    run(&scenario, 5, |second, world| {
        let now = Now { mono: world.now / 1000, wall: BEGIN + world.now / 1000 };
        for gateway in 0..GATEWAYS {
            if let Some(report) = world.report(gateway) {
                ledger.accept(&report, now);
            }
        }
        if [149, 170, 239].contains(&second) {
            seen.push(ledger.load(FLEET, &Windows::default(), Some(GATEWAYS), now).unwrap());
        }
    });
    let mean = seen[0].stable.in_flight;
    assert!((36.0..46.0).contains(&mean), "100/s of 408 ms: {mean}");
    assert!((95.0..105.0).contains(&(seen[0].stable.arrivals / seen[0].stable.seconds)));
    assert_eq!((seen[0].silent, seen[1].silent, seen[2].silent), (0, 1, 0));
}
