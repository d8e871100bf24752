//! The loop: every fleet once a second, a changed one at once, and those at zero where calls wait. In every replica.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    entry::Wrote,
    look::{Follows, Tick, Write},
    write::{ScaleError, scale},
};
use crate::{
    api::names,
    domain::FleetKey,
    operator::{
        events::Note,
        reconcile::{Context, key_of},
        state::WatchedFleet,
    },
    runtime::chain::Chain,
};

/// From one look at all fleets to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// How often a start looks whether the caches are filled.
const SYNC_POLL: Duration = Duration::from_millis(20);
/// From one look for gateways that are gone to the next.
const PRUNE_PERIOD: Duration = Duration::from_secs(60);
/// Between two looks for calls that wait: so often do the gateways wake us at most.
const URGENT_PERIOD: Duration = Duration::from_millis(50);
/// Fleets that are looked at before others get their turn on this thread.
const CHUNK: usize = 100;
/// Longest time for an event that tells of a failed write.
const EVENT_LIMIT: Duration = Duration::from_secs(2);
/// Scales that are written at the same time; the rest is due again a second later.
const AT_ONCE: usize = 32;

/// The loop, and what it works with.
pub struct Loop {
    /// What passes need, too.
    pub ctx: Arc<Context>,
    /// Known fleets.
    pub fleets: Store<WatchedFleet>,
    /// The first list of fleets is complete.
    pub synced: Arc<AtomicBool>,
    /// Fleets that changed, by their watch.
    pub changed: mpsc::Receiver<FleetKey>,
    /// Fleets that need a pass.
    pub touched: mpsc::Sender<FleetKey>,
}

/// A write that ended.
type Ended = (FleetKey, Write, Result<Wrote, ScaleError>);

/// Writes a scale; a person hears of it where it fails.
async fn write_scale(ctx: Arc<Context>, key: FleetKey, fleet: Arc<WatchedFleet>, due: Write) -> Ended {
    let result = scale(&ctx.client, &ctx.leadership, &key, &due).await;
    if let Err(error) = &result
        && error.is_failure()
    {
        let note = Note::failed_rescale(due.from, due.to, &Chain(error));
        let about = fleet.object_ref(&());
        // An event is not worth the wait of the next try.
        let _ = timeout(EVENT_LIMIT, ctx.recorder.publish(&about, vec![note])).await;
    }
    (key, due, result)
}

impl Loop {
    /// Never ends. After `stop` no write begins any more; `at_rest` is cancelled when the last one has ended.
    pub async fn run(mut self, stop: CancellationToken, at_rest: CancellationToken) {
        let mut writes: JoinSet<Ended> = JoinSet::new();
        let until_stop = self.until_stop(&mut writes);
        stop.run_until_cancelled(until_stop).await;
        while let Some(ended) = writes.join_next().await {
            if let Ok(ended) = ended {
                self.ended(ended);
            }
        }
        at_rest.cancel();
        std::future::pending::<()>().await;
    }

    async fn until_stop(&mut self, writes: &mut JoinSet<Ended>) {
        // Without all pods a fleet would seem to have none ready.
        while !self.synced.load(Ordering::Acquire) || !self.ctx.caches.unsynced().is_empty() {
            sleep(SYNC_POLL).await;
        }
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Passes that found no room in the queue.
        let mut owed: HashSet<FleetKey> = HashSet::new();
        let (mut urgent_after, mut pruned) = (Instant::now(), Instant::now());
        let urgent = Arc::clone(&self.ctx.scaler.urgent);
        loop {
            let waiting = async {
                sleep_until(urgent_after).await;
                urgent.notified().await;
            };
            let looked = tokio::select! {
                _ = ticks.tick() => {
                    let fleets = self.fleets.state();
                    self.forget_gone(&fleets, &mut pruned);
                    fleets
                }
                Some(key) = self.changed.recv() => {
                    self.get(&key).into_iter().filter(|fleet| self.ctx.scaler.is_news(&key, fleet)).collect()
                }
                () = waiting => {
                    urgent_after = Instant::now() + URGENT_PERIOD;
                    self.ctx.scaler.waiting().iter().filter_map(|key| self.get(key)).collect()
                }
                Some(ended) = writes.join_next() => match ended {
                    Ok(ended) => self.ended(ended).into_iter().collect(),
                    Err(error) => {
                        tracing::error!(%error, "the write of a scale panicked; this is a defect, please report it");
                        continue;
                    }
                },
            };
            self.look_at(looked, writes, &mut owed).await;
            owed.retain(|key| !self.touch(key));
        }
    }

    fn get(&self, key: &FleetKey) -> Option<Arc<WatchedFleet>> {
        self.fleets.get(&ObjectRef::new(&key.name).within(&key.namespace))
    }

    async fn look_at(
        &self,
        fleets: Vec<Arc<WatchedFleet>>,
        writes: &mut JoinSet<Ended>,
        owed: &mut HashSet<FleetKey>,
    ) {
        let ctx = &self.ctx;
        let tick = || Tick {
            caches: &ctx.caches,
            gateway: ctx.gateway.as_ref(),
            api: ctx.scaler.api_state(),
            usage: ctx.scaler.usage.load_full(),
            gateways: ctx.scaler.gateways(),
            leads: ctx.leadership.is_leader(),
            now: ctx.scaler.clock.now(),
        };
        for chunk in fleets.chunks(CHUNK) {
            // Anew for each chunk: leadership may end, and others may take their time.
            let tick = tick();
            for fleet in chunk.iter().filter(|f| f.meta().deletion_timestamp.is_none()) {
                let key = key_of(fleet);
                let Follows { pass, write } = ctx.scaler.look(&key, fleet, &tick);
                if let Some(due) = write.filter(|_| writes.len() < AT_ONCE) {
                    ctx.scaler.writing(&key, true);
                    writes.spawn(write_scale(Arc::clone(ctx), key.clone(), Arc::clone(fleet), due));
                }
                if pass && !self.touch(&key) {
                    owed.insert(key);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Asks for a pass; whether there was room for it. Whoever does not listen any more ends anyway.
    fn touch(&self, key: &FleetKey) -> bool {
        match self.touched.try_send(key.clone()) {
            Ok(()) => {
                self.ctx.metrics.queued.inc();
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => true,
            Err(mpsc::error::TrySendError::Full(_)) => false,
        }
    }

    /// Takes in how a write ended; the fleet, to be looked at again: a change of N starts its rest now, and the status
    /// that keeps it is written by the pass that the change brings.
    fn ended(&self, (key, due, result): Ended) -> Option<Arc<WatchedFleet>> {
        let scaler = &self.ctx.scaler;
        scaler.writing(&key, false);
        match result {
            Ok(done) => {
                tracing::info!(fleet = %key, from = due.from, to = due.to, "scaled");
                self.ctx.metrics.wrote(names::KIND, "scale");
                scaler.wrote(&key, &due.uid, done);
                return self.get(&key);
            }
            Err(error) if error.is_failure() => {
                let retry_in = scaler.failed(&key);
                tracing::warn!(fleet = %key, to = due.to, error = %Chain(&error), ?retry_in, "the scale was not written");
            }
            Err(error) => {
                tracing::debug!(fleet = %key, error = %Chain(&error), "the scale was not written");
            }
        }
        None
    }

    fn forget_gone(&self, fleets: &[Arc<WatchedFleet>], pruned: &mut Instant) {
        if pruned.elapsed() > PRUNE_PERIOD {
            *pruned = Instant::now();
            let now = self.ctx.scaler.clock.now();
            self.ctx.scaler.ledger.lock().prune(now);
        }
        if fleets.len() < self.ctx.scaler.len() {
            let known: HashSet<FleetKey> = fleets.iter().map(|fleet| key_of(fleet)).collect();
            self.ctx.scaler.retain(|key| known.contains(key));
        }
    }
}
