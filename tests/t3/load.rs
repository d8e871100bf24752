//! Clients in pods that call all the time, and judge: one call that fails is a failure of the test.

use std::process::{Command, Output, Stdio};

use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use libtest_mimic::Failed;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    lab::{PODS, delete, start_client, url},
    support::{Namespace, Suite, wait},
};

/// How a load holds its connections.
#[derive(Clone, Copy)]
pub enum Connections {
    /// Each call on its own.
    PerCall,
    /// Kept open between the calls of a busy time, idle for at most 5 s in the pauses between.
    Pool,
}

impl Connections {
    fn name(self) -> &'static str {
        match self {
            Self::PerCall => "per-call",
            Self::Pool => "pool",
        }
    }
}

/// Calls at once of a [`Load`].
pub const CONCURRENCY: u64 = 6;
/// Fewer calls say nothing of those that a change may break.
const ENOUGH: u64 = 20;

/// Calls for as long as a test needs them.
pub struct Load {
    pod: String,
    output: JoinHandle<std::io::Result<Output>>,
}

impl Load {
    /// Starts it through the fleet's own Service and waits until calls are answered.
    pub async fn start(
        suite: &Suite,
        ns: &Namespace,
        fleet: &str,
        connections: Connections,
    ) -> Result<Self, Failed> {
        let pod = format!("load-{}", connections.name());
        Self::start_at(suite, ns, &pod, &url(ns, fleet), "modern", connections).await
    }

    /// The same in a pod of this name, to this URL, with calls of this era: the legacy ones in
    /// [`CONCURRENCY`] sessions.
    pub async fn start_at(
        suite: &Suite,
        ns: &Namespace,
        pod: &str,
        url: &str,
        era: &str,
        connections: Connections,
    ) -> Result<Self, Failed> {
        let more: &[&str] = match connections {
            Connections::PerCall => &["--rate", "20"],
            Connections::Pool => {
                &["--rate", "20", "--idle-seconds", "5", "--busy-seconds", "3", "--pause-seconds", "7"]
            }
        };
        let concurrency = CONCURRENCY.to_string();
        // Calls that take a while, so that some run at any moment.
        let mut args = vec!["--tool", "sleep", "--arguments", r#"{"milliseconds":200}"#];
        args.extend(["--concurrency", &concurrency, "--connections", connections.name()]);
        args.extend(more);
        Self::begin(suite, ns, pod, &["--url", url, "--lifecycle", era], &args).await
    }

    /// Modern calls in a pod of this name, to this URL, with these arguments of `mcp-call load`.
    pub async fn start_with(
        suite: &Suite,
        ns: &Namespace,
        pod: &str,
        url: &str,
        args: &[&str],
    ) -> Result<Self, Failed> {
        Self::begin(suite, ns, pod, &["--url", url, "--lifecycle", "modern"], args).await
    }

    async fn begin(
        suite: &Suite,
        ns: &Namespace,
        pod: &str,
        to: &[&str],
        calls: &[&str],
    ) -> Result<Self, Failed> {
        let how = ["--output", "json", "load", "--progress-seconds", "1"];
        start_client(ns, pod, &[to, &how, calls].concat()).await?;
        wait::until("the first calls", PODS, async || {
            let log = ns.api::<Pod>().logs(pod, &LogParams::default()).await.map_err(|e| e.to_string())?;
            if log.lines().count() >= 2 { Ok(()) } else { Err(log) }
        })
        .await?;
        let mut logs: Command = suite.cluster.kubectl();
        logs.args(["-n", &ns.name, "logs", "--follow", pod]).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || logs.output());
        Ok(Self { pod: pod.to_owned(), output })
    }

    /// Ends it, when it has made [`ENOUGH`] calls, and checks that none has failed; what it reports.
    pub async fn stop(self, ns: &Namespace) -> Result<Value, Failed> {
        wait::until(&format!("{ENOUGH} calls of {}", self.pod), wait::LIMIT, async || {
            let last = LogParams { tail_lines: Some(1), ..LogParams::default() };
            let log = ns.api::<Pod>().logs(&self.pod, &last).await.map_err(|e| e.to_string())?;
            if n_calls(&log).is_none_or(|n| n >= ENOUGH) { Ok(()) } else { Err(log) }
        })
        .await?;
        delete(ns, &self.pod).await?;
        let output = self.output.await??;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().rev().find(|l| l.starts_with('{'));
        let report: Value = match line {
            Some(line) => serde_json::from_str(line)?,
            None => return Err(format!("{} reported nothing: {text}", self.pod).into()),
        };
        if report["failed"] != 0 || report["calls"].as_u64() < Some(ENOUGH) {
            return Err(format!("{}: {report}", self.pod).into());
        }
        Ok(report)
    }
}

/// Calls that a line of progress tells of; `None` when it is another line, such as the report.
fn n_calls(line: &str) -> Option<u64> {
    let after = |word: &str| line.split_whitespace().skip_while(|w| *w != word).nth(1)?.parse::<u64>().ok();
    Some(after("ok")? + after("failed")?)
}
