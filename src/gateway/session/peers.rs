//! What gateways tell each other of sessions that have moved or ended. The messages are sealed with the key
//! ring, so that whoever reaches the port without the keys can neither read nor say anything.
//!
//! A session that has moved has one home: the first in the rendezvous order of the gateways that answers. The
//! home makes it again; the others ask it, and remember the answer (gateway.md section 2).

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use ring::digest;
use serde::{Deserialize, Serialize};

use super::{
    locate::{Because, Gone, Seeker, recreate},
    replay::one_shot,
    table::{Entry, MovedTo, Place},
};
use crate::{
    domain::FleetKey,
    gateway::{
        fleet::Fleet,
        metrics::Done,
        seal::{PodId, Purpose},
        shared::{Gateway, Peer},
    },
};

/// Where peers are asked.
pub const PATH: &str = "/internal/session";
/// A peer that does not answer within this is taken for gone.
const SOON: Duration = Duration::from_millis(500);
/// A home that makes a session again may have to wait for a pod.
const PATIENCE: Duration = Duration::from_secs(45);
/// A message older than this is not obeyed; clocks of nodes differ by less.
const FRESH: Duration = Duration::from_secs(60);
/// Most sessions that one gateway tells a new one.
const MOST_TOLD: usize = 50_000;

#[derive(Serialize, Deserialize)]
struct Envelope {
    at: u64,
    question: Question,
}

#[derive(Serialize, Deserialize)]
enum Question {
    /// Make this session again, or say where it is.
    Move {
        fleet: FleetId,
        token: String,
        authorization: Option<String>,
        because: String,
        epoch: u32,
        running: bool,
        from: SocketAddr,
    },
    /// What do you know of it?
    Look { fleet: FleetId, id: u128 },
    /// Know this of it.
    Tell { fleet: FleetId, session: Told },
    /// Whatever you know: I have just started.
    All,
}

#[derive(Clone, Serialize, Deserialize)]
struct FleetId {
    namespace: String,
    name: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct Told {
    id: u128,
    origin: u128,
    ended: bool,
    moved: Option<MovedTo>,
}

#[derive(Serialize, Deserialize)]
enum Reply {
    Moved(MovedTo),
    Gone(String),
    Seen { ended: bool, busy: bool, moved: Option<MovedTo> },
    Done,
    All(Vec<(FleetId, Told)>),
}

/// What the others know of a session.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Its newest place.
    pub(super) place: Option<Place>,
    /// Its client ended it.
    pub(super) ended: bool,
    /// Something runs on it.
    pub(super) busy: bool,
}

fn fleet_id(key: &FleetKey) -> FleetId {
    FleetId { namespace: key.namespace.clone(), name: key.name.clone() }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The gateways in the order in which they are home to a session: rendezvous hash, so that all agree without
/// talking, and few sessions change their home when a gateway comes or goes.
pub fn home_order(gateways: &[Peer], session: u128) -> Vec<Peer> {
    let mut order: Vec<_> = gateways
        .iter()
        .map(|peer| {
            let mut context = digest::Context::new(&digest::SHA256);
            context.update(&session.to_be_bytes());
            context.update(peer.address.to_string().as_bytes());
            let mut score = [0; 8];
            score.copy_from_slice(&context.finish().as_ref()[..8]);
            (u64::from_be_bytes(score), peer.clone())
        })
        .collect();
    order.sort_by(|a, b| b.cmp(a));
    order.into_iter().map(|(_, peer)| peer).collect()
}

async fn call(gateway: &Gateway, peer: SocketAddr, question: Question, within: Duration) -> Option<Reply> {
    let keys = gateway.keys.load_full();
    let plain = serde_json::to_vec(&Envelope { at: unix_now(), question }).ok()?;
    let mut request = Request::new(Full::new(Bytes::from(keys.seal_message(b"question", &plain))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = PATH.parse().ok()?;
    let host = HeaderValue::from_str(&peer.to_string()).ok()?;
    request.headers_mut().insert(http::header::HOST, host);
    let answer = match one_shot(peer, request, within).await {
        Ok(answer) => {
            gateway.metrics.peer_calls.inc(Done::Ok);
            answer
        }
        Err(error) => {
            gateway.metrics.peer_calls.inc(Done::Failed);
            tracing::debug!(%peer, %error, "a gateway does not answer");
            return None;
        }
    };
    let plain = keys.open_message(b"reply", &answer.body).ok()?;
    serde_json::from_slice(&plain).ok()
}

/// Asks the home of a session to move it. `None`: this gateway is home, since every other before it in the
/// order is gone.
pub(super) async fn ask_home(
    gateway: &Gateway,
    fleet: &Fleet,
    seeker: Seeker<'_>,
    entry: &Entry,
    because: Because,
) -> Option<Result<Place, Gone>> {
    let peers = gateway.peers.load_full();
    let own = gateway.own.load_full();
    let own = (*own).clone()?;
    let all: Vec<_> = peers.iter().cloned().chain([own.clone()]).collect();
    for peer in home_order(&all, entry.id) {
        if peer == own {
            return None;
        }
        let question = Question::Move {
            fleet: fleet_id(&fleet.key),
            token: seeker.token.to_owned(),
            authorization: seeker.authorization.and_then(|a| a.to_str().ok()).map(str::to_owned),
            because: format!("{because:?}"),
            epoch: entry.place().epoch(),
            running: !entry.is_movable(1),
            from: own.address,
        };
        match call(gateway, peer.address, question, PATIENCE).await {
            Some(Reply::Moved(moved)) => return Some(Place::from_wire(moved).ok_or(Gone::Lost)),
            Some(Reply::Gone(word)) => return Some(Err(gone_of(&word))),
            _ => {}
        }
    }
    None
}

fn gone_of(word: &str) -> Gone {
    [Gone::Ended, Gone::NoPod, Gone::Stays]
        .into_iter()
        .find(|gone| format!("{gone:?}") == word)
        .unwrap_or(Gone::Lost)
}

/// What all other gateways know of a session, but for the one that asks for it. One that does not answer knows
/// nothing.
pub(super) async fn hear(gateway: &Gateway, fleet: &Fleet, id: u128, but: Option<SocketAddr>) -> Heard {
    let peers = gateway.peers.load_full();
    let asked = peers
        .iter()
        .filter(|peer| Some(peer.address) != but)
        .map(|peer| call(gateway, peer.address, Question::Look { fleet: fleet_id(&fleet.key), id }, SOON));
    let mut heard = Heard::default();
    for reply in join_all(asked).await.into_iter().flatten() {
        let Reply::Seen { ended, busy, moved } = reply else { continue };
        heard.ended |= ended;
        heard.busy |= busy;
        let place = moved.and_then(Place::from_wire);
        if place.as_ref().map_or(0, Place::epoch) > heard.place.as_ref().map_or(0, Place::epoch) {
            heard.place = place;
        }
    }
    heard
}

/// Tells all other gateways where a session lives now, or that it has ended; returns when they know.
pub(super) async fn announce(gateway: &Gateway, fleet: &Fleet, entry: &Entry) {
    let place = entry.place();
    let session =
        Told { id: entry.id, origin: entry.origin.0, ended: place == Place::Ended, moved: place.to_wire() };
    let peers = gateway.peers.load_full();
    let told = peers.iter().map(|peer| {
        let question = Question::Tell { fleet: fleet_id(&fleet.key), session: session.clone() };
        call(gateway, peer.address, question, SOON)
    });
    join_all(told).await;
}

/// The client has ended its session: no gateway makes it again.
pub async fn forget_everywhere(gateway: &Gateway, fleet: &Fleet, entry: &Entry) {
    entry.set_place(Place::Ended);
    announce(gateway, fleet, entry).await;
}

/// What a gateway that has just started has to know before it is ready: where moved sessions live.
pub async fn learn_from_peers(gateway: &Gateway) {
    let peers = gateway.peers.load_full();
    let asked = peers.iter().map(|peer| call(gateway, peer.address, Question::All, Duration::from_secs(5)));
    for reply in join_all(asked).await.into_iter().flatten() {
        let Reply::All(sessions) = reply else { continue };
        for (fleet, told) in sessions {
            if let Some(fleet) = gateway.fleet(&FleetKey::new(fleet.namespace, fleet.name)) {
                learn(gateway, &fleet, told);
            }
        }
    }
}

fn learn(gateway: &Gateway, fleet: &Fleet, told: Told) {
    let entry = fleet.sessions.entry(told.id, PodId(told.origin), gateway.clock.now());
    if told.ended {
        entry.set_place(Place::Ended);
    } else if let Some(place) = told.moved.and_then(Place::from_wire) {
        entry.set_place(place);
    }
}

/// Answers a peer. `None`: the message does not come from one.
pub async fn answer(gateway: &Gateway, sealed: &[u8]) -> Option<Vec<u8>> {
    let keys = gateway.keys.load_full();
    let plain = keys.open_message(b"question", sealed).ok()?;
    let Envelope { at, question } = serde_json::from_slice(&plain).ok()?;
    if unix_now().abs_diff(at) > FRESH.as_secs() {
        tracing::warn!("a message of a gateway is too old or from the future; are the clocks right?");
        return None;
    }
    let reply = reply(gateway, question).await?;
    Some(keys.seal_message(b"reply", &serde_json::to_vec(&reply).ok()?))
}

async fn reply(gateway: &Gateway, question: Question) -> Option<Reply> {
    let fleet_of = |id: &FleetId| gateway.fleet(&FleetKey::new(&*id.namespace, &*id.name));
    Some(match question {
        Question::Move { fleet, token, authorization, because, epoch, running, from } => {
            let fleet = fleet_of(&fleet)?;
            let ask = Ask { token, authorization, because, epoch, running, from };
            move_for_peer(gateway, &fleet, ask).await
        }
        Question::Look { fleet, id } => {
            let fleet = fleet_of(&fleet)?;
            let entry = fleet.sessions.get(id);
            let place = entry.as_ref().map(|e| e.place()).unwrap_or_default();
            Reply::Seen {
                ended: place == Place::Ended,
                busy: entry.is_some_and(|e| !e.is_movable(0)),
                moved: place.to_wire(),
            }
        }
        Question::Tell { fleet, session } => {
            learn(gateway, &*fleet_of(&fleet)?, session);
            Reply::Done
        }
        Question::All => Reply::All(everything(gateway)),
    })
}

/// What [`Question::Move`] says.
struct Ask {
    token: String,
    authorization: Option<String>,
    because: String,
    epoch: u32,
    running: bool,
    from: SocketAddr,
}

async fn move_for_peer(gateway: &Gateway, fleet: &Fleet, ask: Ask) -> Reply {
    let Ask { token, authorization, because, epoch, running, from } = ask;
    let keys = gateway.keys.load_full();
    let Ok(opened) = keys.open(Purpose::Session, &fleet.uid, &token) else {
        return Reply::Gone(format!("{:?}", Gone::Lost));
    };
    let because = [Because::Dead, Because::Forgotten, Because::Drain]
        .into_iter()
        .find(|b| format!("{b:?}") == because)
        .unwrap_or(Because::Dead);
    let entry = fleet.sessions.entry(opened.token_id, opened.pod, gateway.clock.now());
    let _single = entry.moving.lock().await;
    let place = entry.place();
    if place.epoch() > epoch
        && let Some(moved) = place.to_wire()
    {
        return Reply::Moved(moved);
    }
    if because == Because::Drain && (running || !entry.is_movable(0)) {
        return Reply::Gone(format!("{:?}", Gone::Stays));
    }
    let authorization = authorization.and_then(|a| HeaderValue::from_str(&a).ok());
    let seeker = Seeker { token: &token, opened: &opened, authorization: authorization.as_ref() };
    match recreate(gateway, fleet, seeker, &entry, because, Some(from)).await {
        Ok(place) => place.to_wire().map_or_else(|| Reply::Gone("Lost".into()), Reply::Moved),
        Err(gone) => Reply::Gone(format!("{gone:?}")),
    }
}

fn everything(gateway: &Gateway) -> Vec<(FleetId, Told)> {
    let mut all = Vec::new();
    for fleet in &gateway.snapshot.load().fleets {
        fleet.sessions.for_each(|entry| {
            let place = entry.place();
            if place != Place::Original && all.len() < MOST_TOLD {
                let told = Told {
                    id: entry.id,
                    origin: entry.origin.0,
                    ended: place == Place::Ended,
                    moved: place.to_wire(),
                };
                all.push((fleet_id(&fleet.key), told));
            }
        });
    }
    all
}
