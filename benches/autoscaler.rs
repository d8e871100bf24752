//! `make bench-autoscaler`: the preset Balanced beside five other autoscalers in every scenario of the simulator, twenty
//! seeds each. What the figures mean and how to read them stands in `benches/README.md`.
#![allow(
    unreachable_pub,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types,
    missing_docs,
    reason = "a benchmark: it talks to a person and measures on the wall clock"
)]

mod report;

use std::{process::ExitCode, thread, time::Instant};

use clap::Parser;
use mcp_fleet::{
    autoscale::policy::Policy,
    simulate::{
        evaluate::{Estimate, Runs},
        measure::Summary,
        scalers::Kind,
        scenario::Scenario,
        scenarios,
    },
};

/// A share of the Knative autoscaler's flaps that ours may have.
const FLAPS: f64 = 1.0 / 20.0;

#[derive(Parser)]
#[command(about = "Compares autoscalers in simulated scenarios")]
struct Args {
    /// Seeds of each policy in each scenario.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// Only these scenarios, separated by commas.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// The fleet's policy written by the operator itself too.
    #[arg(long)]
    direct: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let begin = Instant::now();
    let chosen: Vec<Scenario> = scenarios::all()
        .into_iter()
        .filter(|s| args.scenarios.is_empty() || args.scenarios.contains(&s.name))
        .collect();
    let mut kinds = Kind::DEFAULT.to_vec();
    kinds.extend(args.direct.then_some(Kind::Direct));
    let mut report = report::Report::new("autoscaler");
    let mut totals = Totals::default();
    println!(
        "{} scenarios, {} seeds; mean ± half of the 95 % confidence interval (Student's t)\n",
        chosen.len(),
        args.seeds
    );
    for scenario in &chosen {
        let policy = Policy::balanced(2, 30);
        let all = run(scenario, &kinds, &policy, args.seeds);
        show(scenario, &all, &mut report);
        totals.add(scenario, &all);
    }
    totals.judge(&mut report);
    report.row("scenarios, seeds", format!("{}, {}", chosen.len(), args.seeds));
    report.row("time", format!("{:.0} s", begin.elapsed().as_secs_f64()));
    report.finish()
}

/// All policies side by side; each run is of one thread, so its figures do not depend on how many there are.
fn run(scenario: &Scenario, kinds: &[Kind], policy: &Policy, seeds: u64) -> Vec<Runs> {
    thread::scope(|scope| {
        let started: Vec<_> = kinds
            .iter()
            .map(|kind| (*kind, scope.spawn(|| Runs::new(scenario, *kind, policy, seeds))))
            .collect();
        let done = |(kind, thread): (Kind, thread::ScopedJoinHandle<'_, Runs>)| {
            // A panic has said already what it was about.
            thread.join().unwrap_or(Runs { kind, summaries: Vec::new() })
        };
        started.into_iter().map(done).collect()
    })
}

/// Prints a scenario's table and notes its figures.
fn show(scenario: &Scenario, all: &[Runs], report: &mut report::Report) {
    println!("{}: {}", scenario.name, scenario.about);
    println!(
        "  {:<16}{:>16}{:>9}{:>16}{:>10}{:>8}{:>9}{:>9}{:>10}{:>14}{:>8}{:>8}{:>9}",
        "",
        "violations %",
        "wait s",
        "pod-hours",
        "changes",
        "flaps",
        "removed",
        "broken",
        "recovery",
        "outage downs",
        "θ_U %",
        "θ_O %",
        "speedup"
    );
    for runs in all {
        let mean = |figure: fn(&Summary) -> f64| runs.estimate(figure).mean;
        let speedup = Estimate::of(
            &all[0]
                .summaries
                .iter()
                .zip(&runs.summaries)
                .map(|(ours, theirs)| ours.elasticity.speedup(&theirs.elasticity))
                .collect::<Vec<_>>(),
        );
        let (violations, hours) = (runs.estimate(|s| s.violations), runs.estimate(|s| s.pod_hours));
        println!(
            "  {:<16}{:>16}{:>9.2}{:>16}{:>10.1}{:>8.1}{:>9.1}{:>9.1}{:>10.0}{:>14.1}{:>8.1}{:>8.1}{:>9.2}",
            runs.kind.name(),
            interval(violations),
            mean(|s| s.p95_wait),
            interval(hours),
            mean(|s| f64::from(s.scale_events)),
            mean(|s| f64::from(s.flaps)),
            mean(|s| f64::from(s.removed)),
            mean(|s| f64::from(s.sessions_broken)),
            mean(|s| f64::from(s.recovery)),
            mean(|s| f64::from(s.downs_in_outage)),
            mean(|s| s.elasticity.theta_under),
            mean(|s| s.elasticity.theta_over),
            speedup.mean,
        );
        report.row(
            format!("{}, {}", scenario.name, runs.kind.name()),
            format!(
                "{} % violations, {} pod-hours, {} flaps, {} pods removed, {} sessions broken",
                interval(violations),
                interval(hours),
                interval(runs.estimate(|s| f64::from(s.flaps))),
                interval(runs.estimate(|s| f64::from(s.removed))),
                interval(runs.estimate(|s| f64::from(s.sessions_broken))),
            ),
        );
    }
    println!();
}

fn interval(e: Estimate) -> String {
    format!("{:.2} ± {:.2}", e.mean, e.half)
}

/// What is judged at the end.
#[derive(Default)]
struct Totals {
    /// Scenario, and who is better in one of violations and pod-hours and worse in none.
    dominated: Vec<(String, Vec<&'static str>)>,
    flaps: f64,
    knative_flaps: f64,
    outage_downs: usize,
}

impl Totals {
    fn add(&mut self, scenario: &Scenario, all: &[Runs]) {
        let ours = &all[0];
        let better: Vec<_> = all[1..]
            .iter()
            .filter(|r| r.kind != Kind::Direct && r.dominates(ours))
            .map(|r| r.kind.name())
            .collect();
        self.dominated.push((scenario.name.clone(), better));
        let flaps = |runs: &Runs| runs.estimate(|s| f64::from(s.flaps)).mean;
        self.flaps += flaps(ours);
        self.knative_flaps += all.iter().filter(|r| r.kind == Kind::Kpa).map(flaps).sum::<f64>();
        self.outage_downs += ours.summaries.iter().map(|s| s.downs_in_outage as usize).sum::<usize>();
    }

    fn judge(&self, report: &mut report::Report) {
        for (scenario, better) in &self.dominated {
            let what =
                format!("{scenario}: better than Balanced in violations or pod-hours, and worse in neither");
            report.zero(&what, better.len(), &better.join(", "));
        }
        let share = if self.knative_flaps > 0.0 { self.flaps / self.knative_flaps } else { 0.0 };
        let what = format!(
            "flaps of Balanced by flaps of KPA, means over all scenarios ({:.1} and {:.1})",
            self.flaps, self.knative_flaps
        );
        report.at_most(&what, FLAPS, share, "", 3);
        report.zero("scale-downs of Balanced in an outage, all seeds", self.outage_downs, "");
    }
}
