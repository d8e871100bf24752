//! CPU time of this thread: the machine may do other things meanwhile.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// CPU time that this thread has used so far, exact to some microseconds.
pub fn used() -> anyhow::Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).with_context(|| format!("failed to read {path}"))?;
    let nanos = text.split(' ').next().and_then(|n| n.parse().ok());
    Ok(Duration::from_nanos(nanos.with_context(|| format!("{path} says {text:?}"))?))
}

/// Resident memory of this process, in MiB.
pub fn resident_mib() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}
