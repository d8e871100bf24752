//! Options of the sockets that the gateway listens on, accepts and opens, and how they are written. No socket is used
//! without them.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// Pending connections that the kernel keeps; it caps this by `net.core.somaxconn` itself.
const BACKLOG: i32 = 4096;

/// First probe of an idle connection, time between probes, and how many may stay unanswered.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_PROBES: u32 = 3;

/// How long sent bytes may stay unacknowledged, or a reader may keep its window shut.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Send buffer asked for; the kernel books twice that (socket(7)). With a fixed size it does not grow,
/// so a stalled reader holds at most this much of the kernel's memory.
const SEND_BUFFER: usize = 96 * 1024;

/// Unsent bytes from which the socket counts as not writable: what waits here cannot be taken back, and
/// bytes still above can.
const NOTSENT_LOWAT: u32 = 64 * 1024;

/// Pieces that are up to so many bytes together are sent as one.
const JOINED: usize = 8 * 1024;

thread_local! {
    static OUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; JOINED].into_boxed_slice());
}

/// Sets the options of an accepted or opened connection: no delay of small writes, dead peers found,
/// bounded memory for a reader that stalls.
pub fn tune(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)
}

/// A listener on `address`, not blocking. An IPv6 wildcard takes IPv4 too.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted gateway binds while connections of the last one are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Opens a connection to an endpoint, with its options set. The caller bounds the time.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

/// Writes pieces in order, as [`AsyncWrite::poll_write_vectored`] does. Few bytes are copied together first: that
/// costs less than the way of a vector through the kernel.
pub fn poll_write_joined(
    mut stream: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [one] = slices {
        return stream.poll_write(cx, one);
    }
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    if total > JOINED {
        return stream.poll_write_vectored(cx, slices);
    }
    OUT.with_borrow_mut(|out| {
        let mut len = 0;
        for slice in slices {
            out[len..len + slice.len()].copy_from_slice(slice);
            len += slice.len();
        }
        stream.as_mut().poll_write(cx, &out[..len])
    })
}
