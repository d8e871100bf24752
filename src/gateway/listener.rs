//! Clients' connections: one acceptor deals them to the data threads in turn, since a few long connections
//! would otherwise share one thread; each stays on its thread.

use std::{
    cell::Cell,
    convert::Infallible,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use http::{HeaderValue, Request};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::TokioTimer;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    select,
    sync::{Notify, mpsc},
    task::spawn_local,
    time::{interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    access_log::AccessLog,
    conn::{Guard, Limits, Protocol, Stream, socket, tls::Certificates},
    proxy::{Client, Given, Worker, serve},
    shared::Gateway,
};

mod http1;

/// How often idle connections to endpoints and deadlines of requests are looked through.
const SWEEP: Duration = Duration::from_millis(200);
/// Pause after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every data thread needs.
#[derive(Clone)]
pub struct Data {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Where lines go.
    pub log: AccessLog,
    /// Certificates; cleartext without.
    pub tls: Option<Arc<Certificates>>,
    /// Bounds of a connection.
    pub limits: Limits,
    /// Cancelled when connections are to end with their running answer.
    pub draining: CancellationToken,
    /// Connections that are open.
    pub open: Arc<AtomicUsize>,
}

struct Dealt {
    stream: std::net::TcpStream,
    peer: SocketAddr,
}

/// The data threads.
pub struct Threads {
    deal: Vec<mpsc::Sender<Dealt>>,
}

impl Threads {
    /// Starts `n` of them.
    pub fn start(n: usize, data: &Data) -> std::io::Result<Self> {
        let mut deal = Vec::with_capacity(n);
        for number in 0..n {
            let (sender, receiver) = mpsc::channel(1024);
            let data = data.clone();
            thread::Builder::new().name(format!("data-{number}")).spawn(move || run(data, receiver))?;
            deal.push(sender);
        }
        Ok(Self { deal })
    }

    /// Accepts until `stop`.
    pub async fn accept(&self, listener: TcpListener, stop: CancellationToken) {
        let mut turn = 0;
        loop {
            let accepted = select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
                Ok((stream, peer)) => {
                    turn = (turn + 1) % self.deal.len();
                    // A thread that cannot keep up keeps its clients waiting, not the others'.
                    if self.deal[turn].send(Dealt { stream, peer }).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// What the connections of one data thread share.
struct Thread {
    data: Data,
    worker: Rc<Worker>,
    ending: Ending,
}

/// The end of the process as the connections of one thread see it: a flag to look at whenever there is something
/// to do, and a call that wakes those who have nothing. The token behind it takes a lock for each look.
#[derive(Default)]
struct Ending {
    begun: Cell<bool>,
    called: Notify,
}

impl Ending {
    fn begin(&self) {
        self.begun.set(true);
        self.called.notify_waiters();
    }
}

fn run(data: Data, mut receiver: mpsc::Receiver<Dealt>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "failed to start a data thread");
            return;
        }
    };
    runtime.block_on(async move {
        let worker = Worker::new(Arc::clone(&data.gateway), data.log.clone());
        let here = Rc::new(Thread { data, worker, ending: Ending::default() });
        let mut sweep = interval(SWEEP);
        loop {
            select! {
                dealt = receiver.recv() => match dealt {
                    Some(dealt) => {
                        spawn_local(connection(Rc::clone(&here), dealt));
                    }
                    None => return,
                },
                _ = sweep.tick() => here.worker.sweep(),
                () = here.data.draining.cancelled(), if !here.ending.begun.get() => here.ending.begin(),
            }
        }
    });
}

/// Counts an open connection.
struct Open(Rc<Thread>);

impl Open {
    fn new(here: &Rc<Thread>) -> Self {
        here.data.open.fetch_add(1, Ordering::Relaxed);
        here.data.gateway.metrics.client_accepted.inc();
        here.data.gateway.metrics.client_connections.inc();
        Self(Rc::clone(here))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.data.open.fetch_sub(1, Ordering::Relaxed);
        self.0.data.gateway.metrics.client_connections.dec();
    }
}

async fn connection(here: Rc<Thread>, dealt: Dealt) {
    let _open = Open::new(&here);
    let data = &here.data;
    let stream = match arrive(data, dealt.stream).await {
        Ok(stream) => stream,
        Err(error) => {
            data.gateway.metrics.client_refused.inc();
            tracing::debug!(%error, peer = %dealt.peer, "a connection did not come about");
            return;
        }
    };
    let is_tls = matches!(stream, Stream::Tls(_));
    let ip = dealt.peer.ip().to_canonical();
    let address =
        HeaderValue::from_str(&ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    let server_name = stream.server_name().map(Into::into);
    let client = Rc::new(Client { ip, address, proto: if is_tls { "https" } else { "http" }, server_name });
    let is_h2 = stream.is_h2();
    let mut guard = Guard::new(stream, data.limits);
    let protocol = if is_h2 {
        guard.let_through();
        Ok(Protocol::Http2)
    } else {
        select! {
            protocol = guard.sniff() => protocol,
            // Who has said nothing yet has nothing to lose.
            () = data.draining.cancelled() => Ok(Protocol::Closed),
        }
    };
    match protocol {
        Ok(Protocol::Http1) => http1::serve_connection(&here, client, guard).await,
        Ok(Protocol::Http2) => serve_http2(&here, client, guard).await,
        Ok(Protocol::Closed) | Err(_) => {}
    }
}

async fn arrive(data: &Data, stream: std::net::TcpStream) -> std::io::Result<Stream> {
    let stream = TcpStream::from_std(stream)?;
    socket::tune(&stream)?;
    match &data.tls {
        Some(certificates) => certificates.accept(stream).await,
        None => Ok(Stream::Plain(stream)),
    }
}

/// Runs hyper's tasks on the thread of their connection.
#[derive(Clone, Copy)]
struct Here;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

async fn serve_http2(here: &Rc<Thread>, client: Rc<Client>, guard: Guard<Stream>) {
    let (data, worker) = (&here.data, Rc::clone(&here.worker));
    let service = service_fn(move |request: Request<_>| {
        let (head, body) = request.into_parts();
        let served =
            serve(Rc::clone(&worker), Rc::clone(&client), None, Box::new(head), Given::Incoming(body));
        async move { Ok::<_, Infallible>(served.await) }
    });
    let mut builder = http2::Builder::new(Here);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .max_send_buf_size(64 * 1024)
        .max_header_list_size(data.limits.head_bytes as u32);
    let mut connection = std::pin::pin!(builder.serve_connection(guard, service));
    select! {
        ended = connection.as_mut() => {
            let _ = ended;
            return;
        }
        () = data.draining.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
