//! One plain HTTP GET, for the health endpoints of daemons inside the namespace. No TLS, no redirects.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A health endpoint answers at once or counts as not ready.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Ok if `GET path` at `address` (host:port) is answered with a 2xx status.
pub(crate) fn get(address: &str, path: &str) -> Result<(), String> {
    let status = status(address, path).map_err(|error| format!("GET http://{address}{path}: {error}"))?;
    if status.starts_with("HTTP/1.1 2") || status.starts_with("HTTP/1.0 2") {
        Ok(())
    } else {
        Err(format!("GET http://{address}{path}: {status}"))
    }
}

fn status(address: &str, path: &str) -> std::io::Result<String> {
    let target = address.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
