//! The operator under measurement: the real binary as a child process, and what the kernel says of it.

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// Where its metrics and its readiness are, inside the cluster's network.
const ADMIN: &str = "127.0.0.1:19090";
/// Clock ticks of `/proc/PID/stat` in a second: fixed for user space on Linux.
const TICKS: f64 = 100.0;

/// A running operator; dropping it ends it.
pub struct Operator {
    child: Child,
}

impl Operator {
    /// Starts it and waits until it is ready and leads.
    pub async fn start(program: &Path, kubeconfig: &Path, log: &Path) -> anyhow::Result<Self> {
        let log: File = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(["operator", "--admin-listen", ADMIN, "--agent-image", "localhost/mcp-fleet:dev"])
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", "bench")
            .env("POD_NAMESPACE", super::NAMESPACE)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("failed to start the operator")?;
        let operator = Self { child };
        let start = Instant::now();
        while !leads().await {
            if start.elapsed() > Duration::from_secs(60) {
                bail!("the operator does not lead after 60 s");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(operator)
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        self.child.wait()?;
        Ok(())
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn leads() -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let answer = async {
        let mut stream = tokio::net::TcpStream::connect(ADMIN).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = answer.await.unwrap_or_default();
    answer.lines().any(|l| l.starts_with("mcp_fleet_operator_leader") && l.ends_with(" 1"))
}

/// Resident memory of a process in MB (10^6 bytes): now, and the most that it was.
pub fn memory_mb(pid: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |field: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(field))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok()
    };
    let mb = |field| of(field).unwrap_or(f64::NAN) * 1024.0 / 1e6;
    (mb("VmRSS:"), mb("VmHWM:"))
}

/// Seconds of CPU that a process has used.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is a name in brackets and may hold blanks; utime and stime are the 14th and 15th.
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Load of the machine over the last minute.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}
