//! Arguments and files of `mcp-fleet simulate`; the only part that reads and writes.

use std::{fs, path::PathBuf};

use clap::{Parser, ValueEnum};

use super::{
    evaluate,
    fleet::{self, FleetError},
    measure::Measure,
    run as runs,
    scalers::Kind,
    scenario::Scenario,
    scenarios, svg, table,
    trace::{Trace, TraceError},
    world::Limits,
};

/// The longest run, in seconds: a week.
const LONGEST: u32 = 7 * 86_400;

/// Try autoscaling without a cluster: a fleet's policy beside others, call by call.
#[derive(Debug, Parser)]
pub struct SimulateArgs {
    /// Manifest of an McpFleet; without it the preset Balanced from 2 to 30 replicas.
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,

    /// Load from a CSV file: seconds,requests_per_second[,service_ms,cpu_ms,error_rate]. A line counts until the next.
    #[arg(long, value_name = "FILE", conflicts_with = "scenario")]
    trace: Option<PathBuf>,

    /// A scenario; see --list.
    #[arg(long, value_name = "NAME", default_value = "bursts")]
    scenario: String,

    /// List the scenarios.
    #[arg(long)]
    list: bool,

    /// Seed of all chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Seconds, if not as long as the scenario or trace.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=i64::from(LONGEST)))]
    duration: Option<u32>,

    /// Policies, separated by commas; speedups compare the first with each.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST", default_values_t = Kind::DEFAULT)]
    policies: Vec<Kind>,

    /// How figures are printed.
    #[arg(long, value_enum, default_value_t)]
    output: Output,

    /// Draw load, replicas, score and violations into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// How figures are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For machines.
    Json,
}

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A file cannot be read or written.
    #[error("failed to {what} {path}")]
    File {
        /// "read" or "write".
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A manifest cannot be simulated.
    #[error("failed to use the fleet {path}")]
    Fleet {
        /// Which.
        path: PathBuf,
        /// Why.
        source: FleetError,
    },
    /// A trace cannot be read.
    #[error("failed to use the trace {path}")]
    Trace {
        /// Which.
        path: PathBuf,
        /// Why.
        source: TraceError,
    },
    /// There is no such scenario.
    #[error("there is no scenario {0:?}; --list names them")]
    Scenario(String),
}

/// Runs it; what is to be printed.
pub fn run(args: &SimulateArgs) -> Result<String, SimulateError> {
    if args.list {
        let line = |s: &Scenario| format!("{:<16} {}\n", s.name, s.about);
        return Ok(scenarios::all().iter().map(line).collect());
    }
    let scenario = scenario(args)?;
    let (policy, limits) = match &args.fleet {
        None => (evaluate::policy(2, 30), Limits::default()),
        Some(path) => {
            fleet::read(&read(path)?).map_err(|source| SimulateError::Fleet { path: path.clone(), source })?
        }
    };
    let scenario = if args.fleet.is_some() { Scenario { max: policy.max, ..scenario } } else { scenario };
    let results: Vec<(Kind, Measure)> = args
        .policies
        .iter()
        .map(|kind| (*kind, runs::run(&scenario, *kind, &policy, limits, args.seed)))
        .collect();
    if let Some(path) = &args.svg {
        let series: Vec<_> = results.iter().map(|(kind, m)| (*kind, m.seconds.as_slice())).collect();
        let title = format!("{}: {} (seed {})", scenario.name, scenario.about, args.seed);
        fs::write(path, svg::draw(&title, &series)).map_err(|source| SimulateError::File {
            what: "write",
            path: path.clone(),
            source,
        })?;
    }
    let rows: Vec<_> = results.iter().map(|(kind, measure)| (*kind, measure.summary())).collect();
    Ok(match args.output {
        Output::Table => format!("{}: {}\n\n{}", scenario.name, scenario.about, table::text(&rows)),
        Output::Json => format!("{:#}\n", table::json(&scenario.name, args.seed, &rows)),
    })
}

fn scenario(args: &SimulateArgs) -> Result<Scenario, SimulateError> {
    let mut scenario = match &args.trace {
        None => {
            scenarios::named(&args.scenario).ok_or_else(|| SimulateError::Scenario(args.scenario.clone()))?
        }
        Some(path) => scenarios::recorded(
            Trace::parse(&read(path)?)
                .map_err(|source| SimulateError::Trace { path: path.clone(), source })?,
        ),
    };
    scenario.seconds = args.duration.unwrap_or(scenario.seconds).min(LONGEST);
    Ok(scenario)
}

fn read(path: &PathBuf) -> Result<String, SimulateError> {
    fs::read_to_string(path).map_err(|source| SimulateError::File {
        what: "read",
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> SimulateArgs {
        SimulateArgs::parse_from(std::iter::once("simulate").chain(words.iter().copied()))
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let words =
            ["--scenario", "agents", "--duration", "300", "--policies", "balanced,kpa", "--output", "json"];
        let first = run(&args(&words)).unwrap();
        assert_eq!(first, run(&args(&words)).unwrap());
        let other = run(&args(&[&words[..], &["--seed", "2"]].concat())).unwrap();
        assert_ne!(first, other);
        let value: serde_json::Value = serde_json::from_str(&first).unwrap();
        assert_eq!(value["policies"][1]["policy"], "kpa");
    }

    #[test]
    fn what_is_unknown_is_named() {
        let error = run(&args(&["--scenario", "nothing"])).unwrap_err();
        assert_eq!(error.to_string(), "there is no scenario \"nothing\"; --list names them");
        let error = run(&args(&["--trace", "/does/not/exist"])).unwrap_err();
        assert_eq!(error.to_string(), "failed to read /does/not/exist");
        assert!(run(&args(&["--list"])).unwrap().lines().count() >= 8);
    }
}
