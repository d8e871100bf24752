//! `make bench-autoscaler`: the preset Balanced, through an HPA and written by the operator itself, beside five other
//! autoscalers in every scenario of the simulator, twenty seeds each. What the figures mean and how to read them stands
//! in `benches/README.md`.
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
        evaluate::{self, Estimate, Runs},
        measure::Summary,
        scalers::Kind,
        scenario::Scenario,
        scenarios,
    },
};

/// A share of the Knative autoscaler's flaps that ours may have.
const FLAPS: f64 = 1.0 / 20.0;

/// Balanced with each actuator, and how a target calls it.
const OURS: [(Kind, &str); 2] =
    [(Kind::Balanced, "Balanced through an HPA"), (Kind::Direct, "Balanced by Direct")];

#[derive(Parser)]
#[command(about = "Compares autoscalers in simulated scenarios")]
struct Args {
    /// Seeds of each policy in each scenario.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// Only these scenarios, separated by commas.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
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
    let others = Kind::DEFAULT.into_iter().filter(|kind| !kind.is_ours());
    let kinds: Vec<Kind> = OURS.iter().map(|(kind, _)| *kind).chain(others).collect();
    let mut report = report::Report::new("autoscaler");
    let mut totals = Totals::new();
    println!(
        "{} scenarios, {} seeds; mean ± half of the 95 % confidence interval (Student's t)\n",
        chosen.len(),
        args.seeds
    );
    for scenario in &chosen {
        let policy = evaluate::policy(2, 30);
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
struct Totals {
    ours: [Judged; OURS.len()],
    knative_flaps: f64,
}

impl Totals {
    fn new() -> Self {
        Self { ours: OURS.map(|(kind, name)| Judged::new(kind, name)), knative_flaps: 0.0 }
    }

    fn add(&mut self, scenario: &Scenario, all: &[Runs]) {
        for ours in &mut self.ours {
            ours.add(scenario, all);
        }
        self.knative_flaps += all.iter().filter(|r| r.kind == Kind::Kpa).map(flaps).sum::<f64>();
    }

    fn judge(&self, report: &mut report::Report) {
        for ours in &self.ours {
            ours.judge(self.knative_flaps, report);
        }
    }
}

fn flaps(runs: &Runs) -> f64 {
    runs.estimate(|s| f64::from(s.flaps)).mean
}

/// Balanced with one actuator.
struct Judged {
    kind: Kind,
    name: &'static str,
    /// Scenario, and who is better in one of violations and pod-hours and worse in none.
    dominated: Vec<(String, Vec<&'static str>)>,
    flaps: f64,
    outage_downs: usize,
}

impl Judged {
    fn new(kind: Kind, name: &'static str) -> Self {
        Self { kind, name, dominated: Vec::new(), flaps: 0.0, outage_downs: 0 }
    }

    fn add(&mut self, scenario: &Scenario, all: &[Runs]) {
        let Some(ours) = all.iter().find(|r| r.kind == self.kind) else { return };
        let others = all.iter().filter(|r| !r.kind.is_ours());
        let better = others.filter(|r| r.dominates(ours)).map(|r| r.kind.name()).collect();
        self.dominated.push((scenario.name.clone(), better));
        self.flaps += flaps(ours);
        self.outage_downs += ours.summaries.iter().map(|s| s.downs_in_outage as usize).sum::<usize>();
    }

    fn judge(&self, knative_flaps: f64, report: &mut report::Report) {
        let off: Vec<_> = self.dominated.iter().filter(|(_, better)| !better.is_empty()).collect();
        let who: Vec<_> =
            off.iter().map(|(scenario, by)| format!("{scenario} ({})", by.join(", "))).collect();
        let what = format!(
            "{}: scenarios of {} in which another is better in violations or pod-hours, and worse in neither",
            self.name,
            self.dominated.len()
        );
        report.zero(&what, off.len(), &who.join("; "));
        let share = if knative_flaps > 0.0 { self.flaps / knative_flaps } else { 0.0 };
        let what = format!(
            "{}: flaps by those of KPA, means over all scenarios ({:.1} and {knative_flaps:.1})",
            self.name, self.flaps
        );
        report.at_most(&what, FLAPS, share, "", 3);
        report.zero(&format!("{}: scale-downs in an outage, all seeds", self.name), self.outage_downs, "");
    }
}
