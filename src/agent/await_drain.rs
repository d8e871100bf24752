//! The hook itself: looks at `/proc`, asks [`Drain`] what to do, waits.
//!
//! It must not decide anything: when to go on is up to `drain`, what counts up to `sockets`.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::thread;

use super::args::AwaitDrain;
use super::drain::{Drain, Outcome, Step};
use super::say;
use super::sockets::Connections;

/// Where the kernel shows the sockets of this network namespace, which is the pod's.
const TABLES: &str = "/proc/net";

/// Waits until the pod is drained, or as long as it may.
pub(crate) fn run(settings: &AwaitDrain) -> Outcome {
    // The agent has no async runtime, hence no tokio clock.
    #[allow(clippy::disallowed_types, clippy::disallowed_methods)]
    let started = std::time::Instant::now();
    let mut drain = Drain::new(settings.limits);
    let mut complained = false;
    loop {
        let connections = look(Path::new(TABLES), &settings.ports);
        if let Err(error) = &connections
            && !std::mem::replace(&mut complained, true)
        {
            say(format_args!("failed to read {TABLES}/tcp: {error}; connections cannot be seen"));
        }
        match drain.observe(started.elapsed(), connections.ok().as_ref()) {
            Step::Wait(duration) => thread::sleep(duration),
            Step::Done(outcome) => return outcome,
        }
    }
}

/// Both tables. A kernel without IPv6 has no `tcp6`, which is as good as an empty one.
fn look(tables: &Path, ports: &[u16]) -> io::Result<Connections> {
    let mut connections = Connections::default();
    connections.add_table(BufReader::new(File::open(tables.join("tcp"))?), ports)?;
    match File::open(tables.join("tcp6")) {
        Ok(table) => connections.add_table(BufReader::new(table), ports)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::drain::Limits;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn drain(port: u16, timeout_millis: u64) -> Outcome {
        run(&AwaitDrain {
            ports: vec![port],
            limits: Limits {
                min: Duration::from_millis(100),
                quiet: Duration::from_millis(50),
                timeout: Duration::from_millis(timeout_millis),
            },
        })
    }

    #[test]
    fn a_real_connection_holds_until_it_closes() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                // A machine without IPv6 has no such connections either.
                assert!(address.starts_with('['));
                continue;
            };
            let local = listener.local_addr().unwrap();
            let client = TcpStream::connect(local).unwrap();
            let server = listener.accept().unwrap().0;
            assert!(matches!(drain(local.port(), 600), Outcome::Deadline { held: 1, .. }));
            drop((client, server));
            assert!(matches!(drain(local.port(), 10_000), Outcome::Drained { .. }));
        }
    }

    #[test]
    fn a_missing_table_of_ipv4_is_an_error_and_one_of_ipv6_is_not() {
        let directory = std::env::temp_dir().join(format!("agent-tables-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        assert!(look(&directory, &[8080]).is_err());
        std::fs::write(directory.join("tcp"), "").unwrap();
        assert_eq!(look(&directory, &[8080]).unwrap(), Connections::default());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
