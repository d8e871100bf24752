//! The upstream as a child process, and the line on which it is asked and told.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;

/// A running upstream; dropping it ends it.
pub struct Upstream {
    child: Child,
    control: BufReader<TcpStream>,
    /// Where its replicas listen.
    pub replicas: Vec<SocketAddr>,
}

/// What it counts.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Requests that run, streams too.
    pub open: usize,
    /// Events sent on streams, since the start.
    pub events: u64,
    /// Calls of each replica, since the start.
    pub served: Vec<u64>,
}

impl Upstream {
    /// Starts one with `n` replicas.
    pub fn start(n: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--upstream", &n.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the upstream")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let ports: Vec<u16> = line.split_whitespace().filter_map(|p| p.parse().ok()).collect();
        let addr = |port: &u16| SocketAddr::from(([127, 0, 0, 1], *port));
        let control = TcpStream::connect(addr(ports.first().context("the upstream names no port")?))?;
        control.set_nodelay(true)?;
        Ok(Self { child, control: BufReader::new(control), replicas: ports[1..].iter().map(addr).collect() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One command, one line back.
    pub fn tell(&mut self, command: &str) -> anyhow::Result<String> {
        self.control.get_mut().write_all(format!("{command}\n").as_bytes())?;
        let mut line = String::new();
        self.control.read_line(&mut line)?;
        Ok(line)
    }

    /// What it counts.
    pub fn stats(&mut self) -> anyhow::Result<Stats> {
        let line = self.tell("stats")?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let at = |i: usize| numbers.get(i).copied().unwrap_or(0);
        let served = numbers.get(2..).unwrap_or_default().to_vec();
        Ok(Stats { open: at(0) as usize, events: at(1), served })
    }

    /// Streams and pending calls whose clients left since the last question: key and time.
    pub fn gone(&mut self) -> anyhow::Result<Vec<(u64, u64)>> {
        let line = self.tell("gone")?;
        let pair =
            |word: &str| word.split_once(':').and_then(|(k, t)| Some((k.parse().ok()?, t.parse().ok()?)));
        Ok(line.split_whitespace().filter_map(pair).collect())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
