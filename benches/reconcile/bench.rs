//! The order of the phases, and what they share.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::bail;

use super::{audit::Tail, fleets::Pool, phases, process, process::Operator, repair, report::Report};

/// No write for so long: settled. Longer than the period of the HPA controller.
const QUIET: Duration = Duration::from_secs(20);
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(300);

/// What the process outside hands in.
pub struct Settings {
    /// Fleets.
    pub n: usize,
    /// Stop after the creation.
    pub creation_only: bool,
    /// The API server's audit log.
    pub audit: PathBuf,
    /// Where the operator logs.
    pub log: PathBuf,
    /// Process of the API server.
    pub api_server: u32,
    /// Its program.
    pub operator: PathBuf,
    /// The operator's own rights.
    pub operator_kubeconfig: PathBuf,
}

/// What every phase needs.
pub struct Bench {
    /// Settings.
    pub settings: Settings,
    /// The plain client: 16 connections.
    pub pool: Pool,
    /// The users: 8 connections.
    pub users: Pool,
    /// What was found so far.
    pub report: Report,
    started: Instant,
}

/// Runs all phases.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let mut bench = Bench {
        settings,
        pool: Pool::new(16).await?,
        users: Pool::new(8).await?,
        report: Report::new("bench-reconcile"),
        started: Instant::now(),
    };
    let n = bench.settings.n;
    bench.report.row("fleets, children of each", format!("{n}, {}", super::fleets::N_CHILDREN));
    bench.report.row("load of the machine at the start", process::load());
    let floor = phases::floor(&mut bench).await?;
    let operator = bench.operator().await?;
    phases::creation(&mut bench, &operator, floor).await?;
    if !bench.settings.creation_only {
        phases::rest(&mut bench).await?;
        let operator = phases::restart(&mut bench, operator).await?;
        phases::image(&mut bench).await?;
        repair::run(&mut bench).await?;
        phases::hanging(&mut bench).await?;
        operator.stop()?;
    }
    bench.report.row("load of the machine at the end", process::load());
    bench.report.finish()
}

impl Bench {
    /// A line of progress.
    pub fn say(&self, what: &str) {
        println!("[{:5.1} s, load {}] {what}", self.started.elapsed().as_secs_f64(), process::load());
    }

    /// Starts the operator.
    pub async fn operator(&self) -> anyhow::Result<Operator> {
        Operator::start(&self.settings.operator, &self.settings.operator_kubeconfig, &self.settings.log).await
    }

    /// Writes of the operator from now on.
    pub fn tail(&self) -> anyhow::Result<Tail> {
        Tail::start(&self.settings.audit)
    }

    /// Reads writes until `done`.
    pub async fn until(
        &self,
        what: &str,
        tail: &mut Tail,
        mut done: impl FnMut(&Tail) -> bool,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            tail.read()?;
            if done(tail) {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                bail!("waited {LIMIT:?} for {what}; {} writes so far", tail.writes.len());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads writes until there were none for a while; how long it took to the last.
    pub async fn settle(&self, tail: &mut Tail) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut last = start;
        while last.elapsed() < QUIET {
            if tail.read()? {
                last = Instant::now();
            }
            if start.elapsed() > LIMIT {
                bail!("the operator still writes after {LIMIT:?}: {}", super::audit::by_kind(&tail.writes));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(last - start)
    }
}
