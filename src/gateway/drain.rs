//! Keeps a terminating pod alive while something on it must come to its end (DESIGN.md section 5; gateway.md
//! section 3): the pod's `await-drain` counts connections, so one is held. A fresh one without a byte on it, for
//! servers close idle keep-alive connections after 5 s and leave this one alone; replaced before it is old.
//!
//! Running calls and open streams hold connections of their own. What is counted here has none: live tasks,
//! open retries, sessions that may not move.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    balance::Nanos,
    fleet::{Endpoint, Fleet, Phase},
    shared::Gateway,
};

/// How often terminating pods are looked at. The pod wants no connection for 2 s without a break.
const LOOK: Duration = Duration::from_millis(500);
/// Age at which an anchor is replaced, the new one first.
const REPLACE: Duration = Duration::from_secs(20);
/// Longest wait for an anchor.
const CONNECT: Duration = Duration::from_secs(1);

struct Anchor {
    /// Held, never used.
    _stream: TcpStream,
    since: Instant,
}

/// Holds anchors until `stop`.
pub async fn run(gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut anchors: HashMap<u64, (Arc<Fleet>, Anchor)> = HashMap::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let now = gateway.clock.now();
        let needed = needed(&gateway, now);
        anchors.retain(|serial, (fleet, _)| {
            let keep = needed.iter().any(|(_, endpoint)| endpoint.serial == *serial);
            if !keep {
                fleet.metrics.anchors.dec();
            }
            keep
        });
        for (fleet, endpoint) in needed {
            let held = anchors.get(&endpoint.serial);
            if held.is_some_and(|(_, anchor)| anchor.since.elapsed() < REPLACE) {
                continue;
            }
            let had = held.is_some();
            if let Some(anchor) = cast(endpoint.address).await {
                if !had {
                    fleet.metrics.anchors.inc();
                }
                anchors.insert(endpoint.serial, (fleet, anchor));
            }
        }
    }
}

async fn cast(address: SocketAddr) -> Option<Anchor> {
    let stream = timeout(CONNECT, TcpStream::connect(address)).await.ok()?.ok()?;
    Some(Anchor { _stream: stream, since: Instant::now() })
}

fn needed(gateway: &Gateway, now: Nanos) -> Vec<(Arc<Fleet>, Arc<Endpoint>)> {
    let mut all = Vec::new();
    for fleet in &gateway.snapshot.load().fleets {
        let view = fleet.view();
        let draining = view.endpoints.iter().filter(|e| e.phase() == Phase::Draining);
        all.extend(draining.filter(|e| must_stay(fleet, e, now)).map(|e| (Arc::clone(fleet), Arc::clone(e))));
    }
    all
}

/// Whether something needs this pod that holds no connection to it.
fn must_stay(fleet: &Fleet, endpoint: &Endpoint, now: Nanos) -> bool {
    if endpoint.work.count(now) > 0 {
        return true;
    }
    let view = fleet.view();
    let settings = &view.spec.settings;
    let mut stays = false;
    fleet.sessions.for_each(|entry| {
        stays |= entry.pod() == endpoint.id
            && entry.place() != super::session::Place::Ended
            && entry.idle(now) < settings.limits.session_idle
            && (entry.must_stay() || !settings.session_recovery);
    });
    stays
}
