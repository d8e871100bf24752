//! Brings reports to their receivers. Every receiver has a task that looks up its addresses, and every address a
//! courier with a connection of its own: one that hangs holds up no other. A courier always brings the newest
//! report; what it missed meanwhile is in it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};

use super::receivers::{Access, Receiver, Trust};
use crate::gateway::metrics::{Done, Metrics};

/// Longest time for one report at one address, with a new connection if there has to be one.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often addresses are looked up.
const LOOK_UP: Duration = Duration::from_secs(2);
/// Addresses of one receiver that get reports.
const MAX_ADDRESSES: usize = 16;
/// Longest answer that is read, in bytes; a connection with a longer one is closed.
const MAX_ANSWER: usize = 64 * 1024;

/// The newest report; `None` before the first.
pub(super) type Reports = watch::Receiver<Option<Bytes>>;

/// What couriers share.
#[derive(Clone)]
pub(super) struct Office {
    pub(super) access: Arc<Access>,
    pub(super) metrics: Arc<Metrics>,
    /// Somebody new hears, or somebody hears again: the next report has all fleets.
    pub(super) news: Arc<AtomicBool>,
}

/// Says each change of success once.
struct Telling {
    receiver: String,
    failure: Option<String>,
}

impl Telling {
    fn tell(&mut self, result: &Result<(), String>) {
        let receiver = &self.receiver;
        match result {
            Ok(()) if self.failure.take().is_some() => tracing::info!(receiver, "load reports arrive again"),
            Ok(()) => {}
            Err(error) if self.failure.as_ref() == Some(error) => {}
            Err(error) => {
                tracing::warn!(receiver, error, "load reports do not arrive");
                self.failure = Some(error.clone());
            }
        }
    }
}

/// Serves one receiver until no more reports come and the last one is brought.
pub(super) async fn serve(receiver: Receiver, mut reports: Reports, office: Office) {
    let mut telling = Telling { receiver: receiver.uri.to_string(), failure: None };
    let (mut couriers, mut at) = (JoinSet::new(), HashMap::<SocketAddr, AbortHandle>::new());
    let mut looks = interval(LOOK_UP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = ended(&mut reports) => break,
        }
        match look_up(&receiver).await {
            Ok(found) => {
                telling.tell(&Ok(()));
                at.retain(|address, courier| {
                    let stays = found.contains(address);
                    if !stays {
                        courier.abort();
                    }
                    stays && !courier.is_finished()
                });
                for address in found {
                    at.entry(address).or_insert_with(|| {
                        let courier = Courier::new(receiver.clone(), address, office.clone());
                        couriers.spawn(courier.run(reports.clone()))
                    });
                }
            }
            Err(error) => {
                office.metrics.reports.inc(Done::Failed);
                telling.tell(&Err(error));
            }
        }
        while couriers.try_join_next().is_some() {}
    }
    while couriers.join_next().await.is_some() {}
}

/// No more reports come.
async fn ended(reports: &mut Reports) {
    while reports.changed().await.is_ok() {}
}

async fn look_up(receiver: &Receiver) -> Result<Vec<SocketAddr>, String> {
    match timeout(PATIENCE, lookup_host((receiver.host.as_str(), receiver.port))).await {
        Ok(Ok(found)) => Ok(found.take(MAX_ADDRESSES).collect()),
        Ok(Err(error)) => Err(format!("failed to look up {}: {error}", receiver.host)),
        Err(_) => Err(format!("failed to look up {} in time", receiver.host)),
    }
}

/// Brings reports to one address.
struct Courier {
    receiver: Receiver,
    address: SocketAddr,
    office: Office,
    kept: Option<Connection>,
}

/// An open connection.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// What it was made with; `None` without TLS.
    trust: Option<Arc<Trust>>,
}

impl Courier {
    fn new(receiver: Receiver, address: SocketAddr, office: Office) -> Self {
        Self { receiver, address, office, kept: None }
    }

    async fn run(mut self, mut reports: Reports) {
        let mut telling =
            Telling { receiver: format!("{} at {}", self.receiver.uri, self.address), failure: None };
        let mut hears = false;
        // Who comes late gets the report that is there.
        reports.mark_changed();
        while reports.changed().await.is_ok() {
            let Some(report) = reports.borrow_and_update().clone() else { continue };
            let result = match timeout(PATIENCE, self.bring(report)).await {
                Ok(result) => result,
                Err(_) => Err("no answer in time".to_owned()),
            };
            if result.is_err() {
                self.kept = None;
            } else if !hears {
                self.office.news.store(true, Ordering::Relaxed);
            }
            hears = result.is_ok();
            self.office.metrics.reports.inc(if result.is_ok() { Done::Ok } else { Done::Failed });
            telling.tell(&result);
        }
    }

    async fn bring(&mut self, report: Bytes) -> Result<(), String> {
        let token = self.office.access.token().await?;
        if let Some(kept) = self.kept.take().filter(|kept| self.is_usable(kept)) {
            // A kept connection may have been closed a moment ago. Twice the same report is harmless.
            if let Ok(result) = self.post(kept, report.clone(), token.as_ref()).await {
                return result;
            }
        }
        let connection = self.connect().await?;
        self.post(connection, report, token.as_ref()).await?
    }

    fn is_usable(&self, connection: &Connection) -> bool {
        let trusted = connection.trust.as_ref().is_none_or(|trust| self.office.access.is_current(trust));
        trusted && !connection.sender.is_closed()
    }

    async fn connect(&self) -> Result<Connection, String> {
        let trust = if self.receiver.tls { Some(self.office.access.trust()?) } else { None };
        let stream = TcpStream::connect(self.address).await.map_err(|e| format!("failed to connect: {e}"))?;
        let _ = stream.set_nodelay(true);
        let sender = match &trust {
            None => handshake(stream).await?,
            Some(trust) => {
                let name = ServerName::try_from(self.receiver.host.clone()).map_err(|e| e.to_string())?;
                let stream = trust.0.connect(name, stream).await;
                handshake(stream.map_err(|e| format!("failed to talk TLS: {e}"))?).await?
            }
        };
        Ok(Connection { sender, trust })
    }

    /// The outer error: the connection broke. The inner one: it was answered, but not well.
    async fn post(
        &mut self,
        mut connection: Connection,
        report: Bytes,
        token: Option<&HeaderValue>,
    ) -> Result<Result<(), String>, String> {
        let uri = &self.receiver.uri;
        let mut request = Request::post(uri.path_and_query().map_or("/", |p| p.as_str()))
            .header(header::HOST, uri.authority().map_or("", |a| a.as_str()))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.body(Full::new(report)).map_err(|e| e.to_string())?;
        let failed = |e: hyper::Error| format!("failed to talk HTTP: {e}");
        connection.sender.ready().await.map_err(failed)?;
        let answer = connection.sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        // Only a connection whose answer was read to the end can be used again.
        if Limited::new(answer.into_body(), MAX_ANSWER).collect().await.is_ok() {
            self.kept = Some(connection);
        }
        let accepted = status.is_success();
        Ok(if accepted { Ok(()) } else { Err(format!("it answered {}", status.as_u16())) })
    }
}

/// Ends with its sender.
async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, String> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("failed to talk HTTP: {e}"))?;
    tokio::spawn(connection);
    Ok(sender)
}
