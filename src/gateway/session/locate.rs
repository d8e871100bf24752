//! Finds the pod of a session, and moves the session where that pod cannot go on with it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::HeaderValue;
use tokio::time::{Instant, sleep};

use super::{
    peers, replay,
    table::{Entry, Place},
};
use crate::gateway::{
    balance,
    fleet::{Endpoint, Fleet, Phase, View},
    metrics::Recovery,
    seal::{Opened, Purpose},
    shared::Gateway,
};

/// A session that so many pods have refused is lost.
const TRIES: usize = 3;
/// So long a session whose pod does not answer is offered to others only.
const PREFER_OTHERS: Duration = Duration::from_secs(2);
/// How often a fleet without a pod that can take a session is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where a request of a session goes.
#[derive(Clone)]
pub struct Bound {
    /// The pod.
    pub endpoint: Arc<Endpoint>,
    /// What the pod calls the session; empty where it keeps none.
    pub upstream: Bytes,
    /// How often the session has moved.
    pub epoch: u32,
}

/// There is no such session any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its client ended it.
    Ended,
    /// Its pod is gone, and it cannot or may not be made again.
    Lost,
    /// No pod is there on which it could be made again; that may change.
    NoPod,
    /// It may not leave its pod now.
    Stays,
}

/// Who looks for a session, and with what.
#[derive(Clone, Copy)]
pub struct Seeker<'a> {
    /// The token that the client sent.
    pub token: &'a str,
    /// What is in it.
    pub opened: &'a Opened,
    /// The credential of the current request; never one out of a token.
    pub authorization: Option<&'a HeaderValue>,
}

/// Why a session has to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// Its pod is gone or does not answer.
    Dead,
    /// Its pod answers, and says that it does not know the session.
    Forgotten,
    /// Its pod terminates: only while nothing runs on it.
    Drain,
}

/// Where a session lives by its token and by what is known of it, if that pod is still listed.
pub fn current(view: &View, opened: &Opened, entry: &Entry) -> Option<Bound> {
    let (pod, upstream, epoch) = match entry.place() {
        Place::Original => (opened.pod, Bytes::copy_from_slice(&opened.upstream), 0),
        Place::Moved { pod, upstream, epoch } => (pod, upstream, epoch),
        Place::Ended => return None,
    };
    view.endpoint(pod).map(|endpoint| Bound { endpoint: Arc::clone(endpoint), upstream, epoch })
}

/// Whether a session can go to a pod now.
fn takes(endpoint: &Endpoint) -> bool {
    endpoint.phase() == Phase::Ready
        && endpoint.serves_bound()
        && endpoint.capability.load().may_speak_legacy()
}

/// The pod of a session. `own` is the number of calls that the asker has begun on it.
pub async fn locate(
    gateway: &Gateway,
    fleet: &Fleet,
    seeker: Seeker<'_>,
    entry: &Entry,
    own: u32,
) -> Result<Bound, Gone> {
    if entry.place() == Place::Ended {
        return Err(Gone::Ended);
    }
    let before = entry.place().epoch();
    let view = fleet.view_full();
    let listed = current(&view, seeker.opened, entry);
    // With no healthy pod to go to, health says more about the check than about the pod: as for new work.
    let nowhere_else = || !view.endpoints.iter().any(|e| takes(e));
    let Some(bound) = listed.filter(|b| b.endpoint.serves_bound() || nowhere_else()) else {
        // Rare, and large: each call on a session owns the memory of this future.
        return Box::pin(relocate(gateway, fleet, seeker, entry, Because::Dead, before)).await;
    };
    let may_leave = bound.endpoint.phase() == Phase::Draining && entry.is_movable(own);
    if !may_leave || nowhere_else() {
        return Ok(bound);
    }
    match Box::pin(relocate(gateway, fleet, seeker, entry, Because::Drain, before)).await {
        // A pod that drains goes on with what cannot leave it.
        Err(_) => Ok(bound),
        moved => moved,
    }
}

/// Moves a session that its pod has lost or is about to lose; on this gateway where it is the session's home,
/// else by asking the home. `epoch` is that of the place which failed: a session that has left it already is
/// followed, not moved again.
pub async fn relocate(
    gateway: &Gateway,
    fleet: &Fleet,
    seeker: Seeker<'_>,
    entry: &Entry,
    because: Because,
    epoch: u32,
) -> Result<Bound, Gone> {
    let _single = entry.moving.lock().await;
    if entry.place().epoch() <= epoch && entry.place() != Place::Ended {
        if !fleet.view().spec.settings.session_recovery {
            fleet.metrics.recoveries.inc(Recovery::Disabled);
            return Err(Gone::Lost);
        }
        let place = match peers::ask_home(gateway, fleet, seeker, entry, because).await {
            Some(answer) => answer?,
            None => recreate(gateway, fleet, seeker, entry, because, None).await?,
        };
        entry.set_place(place);
    }
    if entry.place() == Place::Ended {
        return Err(Gone::Ended);
    }
    current(&fleet.view(), seeker.opened, entry).ok_or(Gone::NoPod)
}

/// What the home does: adopts what another gateway knows, or does the handshake again. The caller holds
/// `entry.moving`.
pub(super) async fn recreate(
    gateway: &Gateway,
    fleet: &Fleet,
    seeker: Seeker<'_>,
    entry: &Entry,
    because: Because,
    asker: Option<SocketAddr>,
) -> Result<Place, Gone> {
    let heard = peers::hear(gateway, fleet, entry.id, asker).await;
    if heard.ended {
        entry.set_place(Place::Ended);
        return Err(Gone::Ended);
    }
    if because == Because::Drain && heard.busy {
        return Err(Gone::Stays);
    }
    if let Some(place) = heard.place.filter(|p| p.epoch() > entry.place().epoch()) {
        entry.set_place(place.clone());
        let alive = current(&fleet.view(), seeker.opened, entry).is_some_and(|b| b.endpoint.serves_bound());
        if alive {
            return Ok(place);
        }
    }
    if entry.is_pending() && because == Because::Drain {
        fleet.metrics.recoveries.inc(Recovery::Pending);
        return Err(Gone::Stays);
    }
    let keys = gateway.keys.load_full();
    let handshake = keys.open_handshake(Purpose::Session, &fleet.uid, seeker.token).ok().flatten();
    let Some(handshake) = handshake else {
        fleet.metrics.recoveries.inc(Recovery::NoHandshake);
        return Err(Gone::Lost);
    };
    let made = make_again(gateway, fleet, seeker, entry, because, &handshake).await;
    match made {
        Ok(_) => fleet.metrics.recoveries.inc(Recovery::Recreated),
        Err(Gone::Ended) => fleet.metrics.recoveries.inc(Recovery::Version),
        Err(_) => fleet.metrics.recoveries.inc(Recovery::Failed),
    }
    tracing::info!(fleet = %fleet.key, ?because, ok = made.is_ok(), "a session moves to another pod");
    made
}

async fn make_again(
    gateway: &Gateway,
    fleet: &Fleet,
    seeker: Seeker<'_>,
    entry: &Entry,
    because: Because,
    handshake: &[u8],
) -> Result<Place, Gone> {
    let before = current(&fleet.view(), seeker.opened, entry);
    let began = Instant::now();
    let deadline = began + fleet.view().spec.settings.queue.timeout;
    let (mut refused, mut failed) = (0, Vec::new());
    loop {
        let own = before.as_ref().map(|b| b.endpoint.id).filter(|_| match because {
            // It has forgotten the session, and may take it again.
            Because::Forgotten => false,
            // It may come back: a container that restarts keeps its pod.
            Because::Dead => began.elapsed() < PREFER_OTHERS,
            Because::Drain => true,
        });
        let Some(endpoint) = pick(gateway, fleet, |e| Some(e.id) != own && !failed.contains(&e.id)) else {
            // Only from a pod that still works can a session wait for another day.
            if because == Because::Drain || Instant::now() >= deadline {
                return Err(Gone::NoPod);
            }
            sleep(LOOK_AGAIN).await;
            failed.clear();
            continue;
        };
        let view = fleet.view_full();
        match replay::replay(&view, &endpoint, handshake, seeker.authorization).await {
            Ok(upstream) => {
                let place = Place::Moved { pod: endpoint.id, upstream, epoch: entry.place().epoch() + 1 };
                entry.set_place(place.clone());
                fleet.metrics.sessions_moved.inc();
                peers::announce(gateway, fleet, entry).await;
                if let Some(old) = before.filter(|b| because == Because::Drain && !b.upstream.is_empty()) {
                    let authorization = seeker.authorization.cloned();
                    tokio::spawn(async move {
                        replay::abandon(&view, &old.endpoint, &old.upstream, authorization.as_ref()).await;
                    });
                }
                return Ok(place);
            }
            // The client negotiated another revision: it has to begin anew.
            Err(replay::ReplayError::OtherVersion) => return Err(Gone::Ended),
            Err(error) => {
                tracing::info!(fleet = %fleet.key, endpoint = %endpoint.name, %error, "a session was not taken");
                if matches!(error, replay::ReplayError::Refused(_)) {
                    refused += 1;
                }
                failed.push(endpoint.id);
            }
        }
        if refused >= TRIES {
            return Err(Gone::Lost);
        }
    }
}

/// A pod that can take a session and that `admits` names.
fn pick(gateway: &Gateway, fleet: &Fleet, admits: impl Fn(&Endpoint) -> bool) -> Option<Arc<Endpoint>> {
    let view = fleet.view();
    let settings = &view.spec.settings;
    let picked = balance::pick(
        settings.strategy,
        &view.endpoints,
        |e: &Arc<Endpoint>| takes(e) && admits(e),
        &fleet.outlook,
        &mut || fastrand::u64(..),
        gateway.clock.now(),
        settings.slow_start,
    );
    picked.map(|index| Arc::clone(&view.endpoints[index]))
}
