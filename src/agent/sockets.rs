//! Reads the kernel's tables of TCP sockets, `/proc/net/tcp` and `/proc/net/tcp6`; pure.
//!
//! What counts as a connection that somebody still needs ([`Kind`]):
//!
//! - **Open**: `ESTABLISHED`. The client may send the next request or waits for an answer.
//! - **Half-closed**: `CLOSE_WAIT`. The client has said that it sends no more. It may still wait for
//!   its answer, or it is gone and the server has not noticed; the table cannot tell. How long such a
//!   connection is honoured is decided in `drain`.
//! - **Flushing**: closed by the server, but with bytes of the answer still unsent (`FIN_WAIT1`,
//!   `CLOSING`, `LAST_ACK` with a send queue). The pod's network namespace goes with the pod, and the
//!   rest of the answer with it.
//!
//! Everything else holds nobody: listeners, handshakes (`SYN_RECV`), closed ones with nothing to send.
//!
//! The input is judged line by line and never trusted: a line that cannot be read as a socket is
//! passed over, an over-long one is cut, and the number of connections kept is bounded.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};

/// Longest line that is looked at, in bytes. The kernel pads lines to 149 (tcp) and 178 (tcp6).
const MAX_LINE: u64 = 512;

/// Most bytes read from one table: about 400 000 sockets, far above what a pod has.
const MAX_TABLE: u64 = 64 << 20;

/// Most connections kept apart. Beyond it somebody is connected without any doubt.
const MAX_CONNECTIONS: usize = 65_536;

/// One end of a connection, as the kernel prints it. Only ever compared, so the byte order inside
/// the address does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// IPv4 or IPv6 address.
    pub address: u128,
    /// TCP port.
    pub port: u16,
}

/// The two ends of a connection. They stay the same from handshake to close, which the socket's
/// inode does not: it is 0 until the server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    /// The end inside the pod; its port is one of the watched ones.
    pub local: Endpoint,
    /// The client's end.
    pub remote: Endpoint,
}

/// Why a connection still matters; see the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Both sides may send.
    Open,
    /// The client will send no more and may wait for an answer.
    HalfClosed,
    /// The server is done, its last bytes are not sent yet.
    Flushing,
}

/// The connections on the watched ports at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connections(BTreeMap<Ends, Kind>);

impl Connections {
    /// Every connection once, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&Ends, Kind)> {
        self.0.iter().map(|(ends, kind)| (ends, *kind))
    }

    /// Adds what one table (`/proc/net/tcp` or `tcp6`) says about connections to one of `ports`.
    ///
    /// # Errors
    /// Only those of `table` itself; no content is an error.
    pub fn add_table(&mut self, table: impl BufRead, ports: &[u16]) -> io::Result<()> {
        let mut table = table.take(MAX_TABLE);
        let mut line = Vec::with_capacity(256);
        loop {
            line.clear();
            if table.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            // The rest of an over-long line comes next and is no socket either.
            if let Some((ends, kind)) = parse_line(&line)
                && ports.contains(&ends.local.port)
                && self.0.len() < MAX_CONNECTIONS
            {
                self.0.insert(ends, kind);
            }
        }
    }
}

impl FromIterator<(Ends, Kind)> for Connections {
    fn from_iter<T: IntoIterator<Item = (Ends, Kind)>>(connections: T) -> Self {
        Self(connections.into_iter().take(MAX_CONNECTIONS).collect())
    }
}

/// A connection that matters, or `None` for a header, a listener, a closed socket or garbage.
///
/// `  1: 0100007F:1F90 0200007F:C350 01 00000000:00000000 …`: number, local end, remote end, state,
/// unsent and unread bytes; all but the number in hexadecimal.
fn parse_line(line: &[u8]) -> Option<(Ends, Kind)> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let number = fields.next()?.strip_suffix(b":")?;
    if !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let local = parse_endpoint(fields.next()?)?;
    let remote = parse_endpoint(fields.next()?)?;
    let state = parse_hex(fields.next()?, 2)?;
    let (unsent, _) = split_colon(fields.next()?)?;
    let unsent = parse_hex(unsent, 8)? > 0;
    let kind = match state {
        0x01 => Kind::Open,
        0x08 => Kind::HalfClosed,
        // FIN_WAIT1, LAST_ACK, CLOSING.
        0x04 | 0x09 | 0x0B if unsent => Kind::Flushing,
        _ => return None,
    };
    Some((Ends { local, remote }, kind))
}

fn parse_endpoint(field: &[u8]) -> Option<Endpoint> {
    let (address, port) = split_colon(field)?;
    let address = match address.len() {
        8 | 32 => parse_hex(address, 32)?,
        _ => return None,
    };
    let port = u16::try_from(parse_hex(port, 4)?).ok()?;
    Some(Endpoint { address, port })
}

fn split_colon(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = field.iter().position(|byte| *byte == b':')?;
    Some((&field[..colon], &field[colon + 1..]))
}

/// One to `max_digits` (at most 32) hexadecimal digits and nothing else.
fn parse_hex(digits: &[u8], max_digits: usize) -> Option<u128> {
    if digits.is_empty() || digits.len() > max_digits {
        return None;
    }
    digits.iter().try_fold(0_u128, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::net::{Shutdown, TcpListener, TcpStream};

    const HEADER: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn read(table: &[u8], ports: &[u16]) -> Connections {
        let mut connections = Connections::default();
        connections.add_table(table, ports).unwrap();
        connections
    }

    fn kinds(table: &str, ports: &[u16]) -> Vec<Kind> {
        read(format!("{HEADER}{table}").as_bytes(), ports).iter().map(|(_, kind)| kind).collect()
    }

    fn line(local: &str, state: &str, unsent: &str) -> String {
        format!(
            "   4: {local} 0301F40A:C350 {state} {unsent}:00000000 00:00000000 00000000 65532        0 40231 1 0000000000000000 20 4 30 10 -1\n"
        )
    }

    #[test]
    fn every_state_counts_or_does_not() {
        for (state, unsent, expected) in [
            ("01", "00000000", Some(Kind::Open)),
            ("01", "00000400", Some(Kind::Open)),
            ("02", "00000000", None),
            ("03", "00000000", None),
            ("04", "00000000", None),
            ("04", "00000400", Some(Kind::Flushing)),
            ("05", "00000000", None),
            ("06", "00000000", None),
            ("07", "00000000", None),
            ("08", "00000000", Some(Kind::HalfClosed)),
            ("09", "00000000", None),
            ("09", "00000001", Some(Kind::Flushing)),
            ("0A", "00000080", None),
            ("0B", "00000000", None),
            ("0B", "00000001", Some(Kind::Flushing)),
            ("0C", "00000000", None),
        ] {
            let found = kinds(&line("0201F40A:1F90", state, unsent), &[8080]);
            assert_eq!(found.first().copied(), expected, "state {state}, unsent {unsent}");
        }
    }

    #[test]
    fn only_the_local_port_counts() {
        let own = line("0201F40A:1F90", "01", "00000000");
        let other = line("0201F40A:1F91", "01", "00000000");
        // The pod's own call to port 8080 of somebody else.
        let outgoing = own.replace("1F90", "D431").replace("C350", "1F90");
        let table = format!("{own}{other}{outgoing}");
        assert_eq!(kinds(&table, &[8080]).len(), 1);
        assert_eq!(kinds(&table, &[8080, 8081]).len(), 2);
        assert_eq!(kinds(&table, &[]).len(), 0);
    }

    #[test]
    fn both_families_are_read() {
        let v6 = "   0: 0000000000000000FFFF00000201F40A:1F90 0000000000000000FFFF00000301F40A:C350 01 00000000:00000000 02:000005F3 00000000 65532 0 77 2\n";
        let mut connections = read(v6.as_bytes(), &[8080]);
        connections.add_table(line("0201F40A:1F90", "01", "00000000").as_bytes(), &[8080]).unwrap();
        assert_eq!(connections.iter().count(), 2);
    }

    #[test]
    fn an_over_long_line_hides_none_of_its_neighbours() {
        let good = line("0201F40A:1F90", "01", "00000000");
        let table = format!("{}\n{good}", "x ".repeat(4096));
        assert_eq!(kinds(&table, &[8080]), [Kind::Open]);
    }

    #[test]
    fn the_kernel_writes_what_we_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let now = || {
            let table = std::fs::File::open("/proc/net/tcp").unwrap();
            let mut connections = Connections::default();
            connections.add_table(io::BufReader::new(table), &[port]).unwrap();
            connections.iter().map(|(_, kind)| kind).collect::<Vec<_>>()
        };
        assert_eq!(now(), []);
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // Before the server accepts, the connection is already somebody's.
        assert_eq!(now(), [Kind::Open]);
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(now(), [Kind::Open]);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(now(), [Kind::HalfClosed]);
        drop(server);
        assert_eq!(now(), []);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(table in proptest::collection::vec(any::<u8>(), 0..4096)) {
            read(&table, &[8080]);
        }

        #[test]
        fn near_misses_never_panic(
            text in "[ ]{0,3}[0-9]{1,3}:? [0-9A-F:g]{0,40} [0-9A-F:g]{0,40} [0-9A-F]{0,3} [0-9A-F:]{0,20}\n",
        ) {
            prop_assert!(read(text.as_bytes(), &[8080]).iter().count() <= 1);
        }

        #[test]
        fn a_printed_socket_is_read_back(
            v6: bool, local: u128, remote: u128, port: u16, remote_port: u16,
        ) {
            let cut = |address: u128| if v6 { address } else { address & 0xFFFF_FFFF };
            let (local, remote, width) = (cut(local), cut(remote), if v6 { 32 } else { 8 });
            let text = format!(
                " 12: {local:0width$X}:{port:04X} {remote:0width$X}:{remote_port:04X} 01 00000000:00000000 00\n"
            );
            let expected = Ends {
                local: Endpoint { address: local, port },
                remote: Endpoint { address: remote, port: remote_port },
            };
            let found = read(text.as_bytes(), &[port]);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), vec![(&expected, Kind::Open)]);
        }
    }
}
