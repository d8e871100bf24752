//! Copies TCP connections from a socket of the host's network namespace into the cluster's.
//!
//! A socket belongs for ever to the namespace in which it was made. So the test process binds it outside and
//! hands it over as standard input, and this process, started inside, connects on. It looks into nothing: TLS
//! stays between client and server.

use std::io::{self, stdin};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Connections at one time; more than any test opens, and a bound on threads.
const MAX_CONNECTIONS: usize = 2048;
/// The target is on the same machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Two threads per connection that only copy.
const STACK_BYTES: usize = 128 * 1024;

/// Serves until killed.
pub(crate) fn run(address: &str) -> Result<(), String> {
    let target: SocketAddr = address.parse().map_err(|error| format!("{address} is not IP:PORT: {error}"))?;
    let socket = stdin().as_fd().try_clone_to_owned().map_err(|error| format!("standard input: {error}"))?;
    let listener = TcpListener::from(socket);
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((client, _)) = listener.accept() else {
            // A client that went away before it was accepted, or no descriptor free for the moment.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS {
            continue;
        }
        let open = Arc::clone(&open);
        open.fetch_add(1, Ordering::Relaxed);
        let job = move || {
            // A refused connection shows at the client as one that is closed without an answer.
            if let Ok(server) = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) {
                let _ = serve(&client, &server);
            }
            open.fetch_sub(1, Ordering::Relaxed);
        };
        if let Err(error) = thread::Builder::new().stack_size(STACK_BYTES).spawn(job) {
            return Err(format!("no thread: {error}"));
        }
    }
}

/// Copies both ways until both sides have finished; the end of one direction is passed on alone.
fn serve(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from, to) = (server.try_clone()?, client.try_clone()?);
    let back = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || pump(&from, &to))?;
    pump(client, server);
    let _ = back.join();
    Ok(())
}

fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    if io::copy(&mut from, &mut to).is_ok() {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        // An error on one side ends both directions, or the other pump would wait for ever.
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
