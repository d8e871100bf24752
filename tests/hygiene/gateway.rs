//! A gateway process for one test, and a client that speaks bytes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends with the value.
pub(crate) struct Gateway {
    child: Child,
    config: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Starts a gateway in front of `upstream` and waits until it is ready. `settings` goes into the fleet's `gateway:`.
pub(crate) fn start_gateway(name: &str, upstream: SocketAddr, settings: &str) -> Gateway {
    let [port, admin, debug, peer] = free_ports();
    let config = std::env::temp_dir().join(format!("mcp-fleet-hygiene-{}-{name}.yaml", std::process::id()));
    let text = format!(
        "listen: 127.0.0.1:{port}\nadminListen: 127.0.0.1:{admin}\ndebugListen: 127.0.0.1:{debug}\n\
         peerListen: 127.0.0.1:{peer}\nfleets:\n- namespace: tests\n  name: bytes\n  path: /mcp\n  endpoints: \
         [{{address: \"{upstream}\"}}]\n  gateway: {{{settings}}}\n"
    );
    std::fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_mcp-fleet"))
        .args(["gateway", "--ephemeral-key", "--threads", "1", "--config"])
        .arg(&config)
        .env("MCP_FLEET_SHUTDOWN_DELAY_SECONDS", "0")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let gateway = Gateway { child, config, address: SocketAddr::from(([127, 0, 0, 1], port)) };
    let start = Instant::now();
    while !ready(admin) {
        assert!(start.elapsed() < Duration::from_secs(20), "the gateway of {name} is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    gateway
}

fn ready(admin: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", admin)) else { return false };
    let mut answer = [0; 15];
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

impl Gateway {
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends `bytes` on a fresh connection and reads until its end; a reset is a failure.
    pub(crate) fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // An early answer may end the connection before all is sent; that is looked at below.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Status of the last answer in `answer`.
pub(crate) fn status(answer: &str) -> u16 {
    let at = answer.rfind("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer in {answer:?}"));
    answer[at + 9..at + 12].parse().unwrap()
}

/// A `tools/call` of the current revision with more header lines and a text in its arguments.
pub(crate) fn call(headers: &str, text: &str) -> String {
    let body = body(text);
    format!("{}Content-Length: {}\r\n{headers}\r\n{body}", call_head(), body.len())
}

/// The head of [`call`] without its framing.
pub(crate) fn call_head() -> String {
    "POST /tests/bytes/mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
     Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
     Mcp-Method: tools/call\r\nMcp-Name: t\r\n"
        .to_owned()
}

pub(crate) fn body(text: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"t","arguments":{{"text":"{text}"}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{{"name":"hygiene","version":"1"}},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
    )
}
