//! The scenarios by name. All are generated: no recorded load is shipped.

use super::scenario::{Disturbance, Scenario, Service, Sessions, Shape};

/// A call that mostly waits for others: 400 ms, of which a pod with 20 slots carries 34 per second at 70 %.
const IO: Service = Service { io_ms: 400.0, cpu_ms: 8.0 };

/// All of them.
pub fn all() -> Vec<Scenario> {
    let steady = |rate| Shape::Ramp { low: rate, high: rate, from: 0.0, to: 1.0 };
    vec![
        Scenario {
            seconds: 28_800,
            ..calm("diurnal", "a day of a public site, in eight hours", Shape::Diurnal { mean: 110.0 })
        },
        calm(
            "bursts",
            "40 or 240 calls per second, minutes each (Markov-modulated Poisson)",
            Shape::Bursts { low: 40.0, high: 240.0, quiet: 240.0, busy: 90.0 },
        ),
        calm(
            "flash-crowd",
            "ten times the load within a minute",
            Shape::Flash { base: 35.0, peak: 350.0, at: 600.0, hold: 600.0 },
        ),
        calm(
            "step",
            "four times the load at once",
            Shape::Step { base: 60.0, factor: 4.0, from: 600.0, to: 2400.0 },
        ),
        calm("agents", "agents that call by dozens (hyper-exponential gaps)", Shape::Agents { mean: 80.0 }),
        Scenario {
            service: Service { io_ms: 370.0, cpu_ms: 30.0 },
            ..calm(
                "cpu-bound",
                "calls that need CPU before they need slots",
                Shape::Step { base: 60.0, factor: 3.0, from: 600.0, to: 2400.0 },
            )
        },
        with(
            "slow-dependency",
            "what all pods depend on serves 100 of 150 calls per second, for 20 minutes",
            steady(150.0),
            &[Disturbance::Capped { from: 900, to: 2100, per_second: 100.0 }],
        ),
        with(
            "outage",
            "95 % of all calls fail within 5 ms, for 25 minutes",
            steady(180.0),
            &[Disturbance::Outage { from: 900, to: 2400, share: 0.95, ms: 5.0 }],
        ),
        with(
            "service-time",
            "each call takes four times as long, for 20 minutes",
            steady(60.0),
            &[Disturbance::Slow { from: 900, to: 2100, factor: 4.0 }],
        ),
        with(
            "blind-ramp",
            "no measurement arrives for two minutes while the load rises five-fold",
            Shape::Ramp { low: 50.0, high: 250.0, from: 900.0, to: 1500.0 },
            &[Disturbance::Blind { from: 1050, to: 1170 }],
        ),
        with(
            "rollout",
            "all pods are replaced while the load rises",
            Shape::Ramp { low: 100.0, high: 220.0, from: 600.0, to: 1500.0 },
            &[Disturbance::Rollout { at: 900 }],
        ),
        with(
            "black-hole",
            "one pod fails each call within 5 ms, for 15 minutes",
            Shape::Step { base: 120.0, factor: 1.6, from: 1200.0, to: 2100.0 },
            &[Disturbance::BlackHole { from: 900, to: 1800 }],
        ),
        with(
            "gateway-loss",
            "one of two gateways dies and comes back a minute later, twice",
            Shape::Step { base: 120.0, factor: 1.6, from: 1200.0, to: 2100.0 },
            &[
                Disturbance::GatewayLoss { from: 900, to: 960 },
                Disturbance::GatewayLoss { from: 1500, to: 1560 },
            ],
        ),
        with(
            "restarts",
            "what decides starts anew every five minutes, and a pod crashes every five minutes",
            Shape::Bursts { low: 60.0, high: 200.0, quiet: 300.0, busy: 200.0 },
            &[Disturbance::Restarts { every: 300.0 }, Disturbance::Crashes { every: 300.0 }],
        ),
        Scenario {
            zero: true,
            ..calm(
                "activation",
                "calls for five minutes, none for ten, again and again; from zero where a policy can",
                Shape::OnOff { rate: 60.0, on: 300.0, off: 600.0 },
            )
        },
        Scenario {
            sessions: Some(Sessions { per_second: 0.5, seconds: 600.0, until: 3000 }),
            ..calm(
                "open-streams",
                "sessions of ten minutes while the load falls to a quarter",
                Shape::Step { base: 40.0, factor: 4.0, from: 0.0, to: 1500.0 },
            )
        },
    ]
}

/// One of them.
pub fn named(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

fn calm(name: &str, about: &str, load: Shape) -> Scenario {
    Scenario {
        name: name.into(),
        about: about.into(),
        seconds: 3600,
        load,
        service: IO,
        sessions: None,
        disturbances: Vec::new(),
        zero: false,
        max: 30,
    }
}

fn with(name: &str, about: &str, load: Shape, disturbances: &[Disturbance]) -> Scenario {
    Scenario { disturbances: disturbances.to_vec(), ..calm(name, about, load) }
}

/// A recorded load in an otherwise calm world.
pub fn recorded(trace: super::trace::Trace) -> Scenario {
    Scenario { seconds: trace.seconds(), max: 100, ..calm("trace", "a recorded load", Shape::Trace(trace)) }
}
