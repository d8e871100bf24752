//! Load reports for the autoscaler: taken each second, and at once when a call waits at a fleet without a pod
//! (0→1). Sent to every address of every receiver; what gets lost is made good by the next, since everything in
//! a report is cumulative.

mod push;
#[cfg(test)]
mod tests;
mod totals;
mod wire;

pub use push::{Receivers, ReceiversError};
pub use totals::{Integral, Reading, Totals};
pub(in crate::gateway) use wire::uid;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::shared::Gateway;

/// From one report to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two that were asked for at once.
const SHORTEST: Duration = Duration::from_millis(100);

/// Takes and sends reports until `stop`. `urgent` asks for one at once. Without receivers reports are taken all
/// the same, because taking one folds the integrals.
pub async fn run(gateway: Arc<Gateway>, receivers: Receivers, urgent: Arc<Notify>, stop: CancellationToken) {
    let epoch =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sequence = 0;
    let mut pushes = push::Pushes::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            () = urgent.notified() => {}
        }
        sequence += 1;
        let report = wire::take(&gateway, epoch, sequence);
        if !receivers.is_empty() {
            match serde_json::to_vec(&report) {
                Ok(json) => {
                    let send = pushes.send(&receivers, json.into(), &gateway.metrics);
                    if stop.run_until_cancelled(send).await.is_none() {
                        return;
                    }
                }
                Err(error) => tracing::error!(%error, "failed to write a load report"),
            }
        }
        sleep(SHORTEST).await;
    }
}
