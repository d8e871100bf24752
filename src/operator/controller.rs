//! Brings watches and reconciles together: which fleet gets a pass, and when.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt,
        controller::{self, Config},
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    newcomers::{Newcomers, is_new},
    reconcile::{Context, key_of, reconcile, retry},
    state::{WatchedFleet, prune},
};
use crate::{api::names, domain::FleetKey, runtime::chain::Chain};

/// Events of one fleet that come together make one pass: a pass's own writes come back as events.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// The main watch and what it fills.
pub struct Fleets {
    /// Known fleets.
    pub store: Store<WatchedFleet>,
    /// The first list is complete. Not the store's own `wait_until_ready`: it wakes one waiter only, and the
    /// Controller is one already (kube 5.0.0, `DelayedInit`: a one-shot channel keeps the last waker).
    pub synced: Arc<AtomicBool>,
    /// Those that are new.
    pub newcomers: Arc<Newcomers>,
    released: mpsc::UnboundedReceiver<FleetKey>,
    stream: stream::BoxStream<'static, Result<WatchedFleet, watcher::Error>>,
}

impl Fleets {
    /// Prepares the watch; [`run`] drives it.
    /// `changed` hears of each event as far as it has room: who listens must look by itself now and then.
    pub fn watch(
        api: Api<WatchedFleet>,
        metrics: &super::metrics::Metrics,
        changed: mpsc::Sender<FleetKey>,
    ) -> Self {
        let (store, writer) = reflector::store();
        let metrics = metrics.clone();
        let synced = Arc::new(AtomicBool::new(false));
        let listed = Arc::clone(&synced);
        let (newcomers, released) = Newcomers::new(Instant::now());
        let newcomers = Arc::new(newcomers);
        let expecting = Arc::clone(&newcomers);
        let stream = watcher(api, watcher::Config::default().page_size(100))
            .default_backoff()
            .modify(prune)
            .inspect_err(move |error| {
                metrics.watch_failed(names::KIND);
                tracing::warn!(kind = names::KIND, error = %Chain(error), "a watch failed and is tried again; is the CRD installed?");
            })
            .reflect(writer)
            .inspect_ok(move |event| {
                match event {
                    watcher::Event::InitDone => listed.store(true, Ordering::Release),
                    watcher::Event::Apply(fleet) => drop(changed.try_send(key_of(fleet))),
                    _ => {}
                }
            })
            .touched_objects()
            .predicate_filter(relevant, PredicateConfig::default())
            // Each that comes as far gets a pass.
            .inspect_ok(move |fleet| {
                if is_new(fleet) {
                    expecting.expect(key_of(fleet), Instant::now());
                }
            })
            // An error here would put the Controller's back-off around all its triggers.
            .filter_map(|fleet| std::future::ready(fleet.ok()))
            .map(Ok)
            .boxed();
        Self { store, synced, newcomers, released, stream }
    }
}

/// What a pass depends on. A status-only update is not among it, or each of our own writes, and those of a
/// failing pass, would bring the next.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a predicate")]
fn relevant(fleet: &WatchedFleet) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let meta = fleet.meta();
    (&meta.uid, meta.generation, meta.deletion_timestamp.is_some()).hash(&mut hasher);
    fleet.annotations().get(names::ANNOTATION_RESTARTED_AT).hash(&mut hasher);
    names::ANNOTATIONS_PAUSED.map(|name| fleet.annotations().get(name)).hash(&mut hasher);
    let holders = meta.managed_fields.iter().flatten().map(|f| (&f.manager, &f.subresource));
    holders.for_each(|holder| holder.hash(&mut hasher));
    Some(hasher.finish())
}

/// Runs until `stop`; passes under way are finished.
pub async fn run(
    fleets: Fleets,
    mut touched: mpsc::Receiver<FleetKey>,
    ctx: Arc<Context>,
    concurrency: u16,
    stop: CancellationToken,
) {
    let queued = ctx.metrics.queued.clone();
    let touched = stream::poll_fn(move |cx| touched.poll_recv(cx)).map(move |key| {
        queued.dec();
        reference(&key)
    });
    let mut released = fleets.released;
    let released = stream::poll_fn(move |cx| released.poll_recv(cx)).map(|key| reference(&key));
    let known = fleets.store.clone();
    Controller::for_stream(fleets.stream, fleets.store)
        .with_config(Config::default().concurrency(concurrency).debounce(DEBOUNCE))
        .reconcile_on(touched)
        .reconcile_on(released)
        .reconcile_all_on(leadership_gained(&ctx))
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile, retry, Arc::clone(&ctx))
        .for_each(|result| {
            ctx.metrics.fleets.set(known.len() as i64);
            if let Err(controller::Error::ObjectNotFound(gone)) = result {
                // Children of a deleted fleet end after it.
                ctx.forget(&FleetKey::new(gone.namespace.unwrap_or_default(), gone.name));
            }
            std::future::ready(())
        })
        .await;
}

fn reference(key: &FleetKey) -> ObjectRef<WatchedFleet> {
    ObjectRef::new(&key.name).within(&key.namespace)
}

fn leadership_gained(ctx: &Context) -> impl Stream<Item = ()> + Send + use<> {
    ctx.leadership.gained().inspect(|()| tracing::info!("this replica is the leader now"))
}
