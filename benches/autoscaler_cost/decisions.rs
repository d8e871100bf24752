//! One decision for each of 10,000 fleets, a second after the one before.

use mcp_fleet::autoscale::{
    decide::{decide, example::busy_fleet},
    state::State,
    time::Now,
};

use super::{cpu, report::Report};

const FLEETS: usize = 10_000;
const SECONDS: i64 = 10;

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let (policy, snapshot) = busy_fleet();
    let mut states = vec![State::default(); FLEETS];
    let mut changed = 0_usize;
    // Rings fill over the first windows, so that what is measured has history.
    for second in 0..330 {
        let now = at(second);
        for state in states.iter_mut().take(if second % 30 == 0 { FLEETS } else { FLEETS / 30 }) {
            *state = decide(&policy, &snapshot, state, now).1;
        }
    }
    let before = cpu::used()?;
    for second in 330..330 + SECONDS {
        for state in &mut states {
            let (decision, next) = decide(&policy, &snapshot, state, at(second));
            changed += usize::from(decision.desired != snapshot.replicas);
            *state = next;
        }
    }
    let share = cpu::used()?.saturating_sub(before).as_secs_f64() / SECONDS as f64;
    anyhow::ensure!(changed == 0, "demand and scale agree, and yet {changed} decisions change it");
    report.at_most(
        "decisions for 10,000 fleets of 10 pods, each second",
        5.0,
        share * 100.0,
        "% of a core",
        2,
    );
    report.row("one decision", format!("{:.2} µs", share * 1e6 / FLEETS as f64));
    Ok(())
}

fn at(second: i64) -> Now {
    Now { mono: second * 1000, wall: 1_790_000_000_000 + second * 1000 }
}
