//! What the kernel says: processor time and memory of process trees, and who else used the machine.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Instant, SystemTime},
};

/// Clock ticks of `/proc/stat` in a second: fixed for user space on Linux.
const TICKS: f64 = 100.0;

/// Now, comparable between processes, in nanoseconds.
pub fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64)
}

/// A process and all below it.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The second field is a name in brackets and may hold blanks; the parent is the fourth.
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        all.extend(children.get(pid).into_iter().flatten());
        at += 1;
    }
    all
}

/// Seconds that the threads of these processes have been on a processor.
pub fn cpu(pids: &[u32]) -> f64 {
    let tasks = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
    let nanos = |path| fs::read_to_string(path).ok()?.split(' ').next()?.parse::<f64>().ok();
    tasks.flatten().filter_map(|task| nanos(task.path().join("schedstat"))).sum::<f64>() / 1e9
}

fn rollup(pids: &[u32], field: &str) -> f64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok()
    };
    pids.iter().filter_map(of).sum()
}

/// Proportional memory of these processes in KiB: what they share counts once.
pub fn pss_kib(pids: &[u32]) -> f64 {
    rollup(pids, "Pss:")
}

/// Resident memory of these processes in KiB.
pub fn rss_kib(pids: &[u32]) -> f64 {
    rollup(pids, "Rss:")
}

/// Open file descriptors of these processes.
pub fn fds(pids: &[u32]) -> usize {
    pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok()).map(Iterator::count).sum()
}

/// The most file descriptors that a process may open.
pub fn fd_limit() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}

/// Seconds that all processors together were busy.
fn busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let all: Vec<f64> = fields.filter_map(|f| f.parse().ok()).collect();
    // user, nice, system, (idle, iowait), irq, softirq, steal
    [0, 1, 2, 5, 6, 7].iter().filter_map(|i| all.get(*i)).sum::<f64>() / TICKS
}

/// Measures what others used of the machine while this process and all below it measured.
pub struct Watch {
    start: Instant,
    busy: f64,
    cpu: f64,
}

impl Watch {
    /// From now on.
    pub fn start() -> Self {
        Self { start: Instant::now(), busy: busy(), cpu: cpu(&tree(std::process::id())) }
    }

    /// Cores that others used on average since. Processes that were started since are ours; one that ended
    /// since would count as foreign, so ask before it ends.
    pub fn foreign(&self) -> f64 {
        let others = (busy() - self.busy) - (cpu(&tree(std::process::id())) - self.cpu);
        (others / self.start.elapsed().as_secs_f64()).max(0.0)
    }
}

/// Binds a process with all its threads to one processor.
pub fn pin(pid: u32, core: u32) {
    let mask = core.to_string();
    let _ = Command::new("taskset").args(["-a", "-p", "-c", &mask, &pid.to_string()]).output();
}

/// Lets the calling thread wake within microseconds of its deadline, where the kernel allows it.
pub fn wake_sharply() {
    let thread = fs::read_link("/proc/thread-self").ok();
    let tid = thread.as_deref().and_then(|path| path.file_name()?.to_str()).unwrap_or("self").to_owned();
    let _ = fs::write(format!("/proc/{tid}/timerslack_ns"), "1000");
}

/// Processor and core count, for the report.
pub fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} × {model}, Linux {}", kernel.trim())
}
