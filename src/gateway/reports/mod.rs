//! Load reports for the autoscaler: taken each second, and at once when a call waits at a fleet without a pod
//! (0→1). Sent to every address of every receiver; what gets lost is made good by the next, since everything in
//! a report is cumulative.
//!
//! | module | what |
//! |---|---|
//! | `totals` | counters and time integrals that the data path raises |
//! | `wire` | the report as JSON |
//! | `diary` | which fleets a report may leave out |
//! | `receivers` | URLs, token, CA |
//! | `courier` | connections |

mod courier;
mod diary;
mod receivers;
#[cfg(test)]
mod tests;
mod totals;
mod wire;

pub use receivers::{Authority, Receivers, ReceiversError};
pub use totals::{Integral, Reading, Totals};
pub(in crate::gateway) use wire::uid;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::shared::Gateway;

/// From one report to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two that were asked for at once.
const SHORTEST: Duration = Duration::from_millis(100);

/// Longest time for the last report.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// Takes and sends reports until `stop`, and then a last one, which says that it is the last: at most
/// [`FAREWELL`]. `urgent` asks for one at once. Without receivers reports are taken all the same, because taking
/// one folds the integrals.
pub async fn run(gateway: Arc<Gateway>, receivers: Receivers, urgent: Arc<Notify>, stop: CancellationToken) {
    let epoch =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let mut diary = diary::Diary::new(epoch);
    let (reports, newest) = watch::channel(None);
    let mut deliveries = JoinSet::new();
    let office = courier::Office {
        access: Arc::clone(&receivers.access),
        metrics: Arc::clone(&gateway.metrics),
        news: Arc::default(),
    };
    let mut judged = None;
    receivers.access.look(&mut judged).await;
    for receiver in receivers.all.clone() {
        deliveries.spawn(courier::serve(receiver, newest.clone(), office.clone()));
    }
    drop(newest);
    let take = |diary: &mut diary::Diary, last| {
        let all = last || office.news.swap(false, Ordering::Relaxed);
        let report = diary.take(&gateway, jiff::Timestamp::now(), all, last);
        if !receivers.is_empty() {
            match serde_json::to_vec(&report) {
                Ok(json) => drop(reports.send_replace(Some(json.into()))),
                Err(error) => tracing::error!(%error, "failed to write a load report"),
            }
        }
        report.waits()
    };
    let reporting = async {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                () = urgent.notified() => true,
            };
            let mut waits = take(&mut diary, false);
            sleep(SHORTEST).await;
            if asked && !waits {
                // Who asked was on its way into the queue.
                waits = take(&mut diary, false);
                sleep(SHORTEST).await;
            }
            tracing::trace!(asked, waits, "load report");
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = receivers.access.watch(judged) => {}
        () = reporting => {}
    }
    take(&mut diary, true);
    drop(reports);
    let _ = timeout(FAREWELL, async { while deliveries.join_next().await.is_some() {} }).await;
}
