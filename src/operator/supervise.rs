//! Starts everything that runs, waits for the end, and ends in order.
//!
//! Every long-lived task is supervised: when one ends, the process ends, and Kubernetes starts it anew.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    controller::{self, Fleets},
    gateways::Gateways,
    reconcile::Context,
    scaler::{
        poll::{GatewayCount, UsagePoll},
        tick::Loop,
    },
    watches::Watches,
};
use crate::{
    api::names,
    autoscale::metrics_api::MetricsApi,
    domain::FleetKey,
    runtime::{
        admin::{Admin, Readiness},
        lease::{Elector, KubeStore},
    },
};

/// How often a start looks whether the caches are filled.
const SYNC_POLL: Duration = Duration::from_millis(20);
/// Names of tasks, as they appear in errors.
const ELECTION: &str = "the leader election";
const GATEWAYS: &str = "the questions to the gateways";
const ADMIN: &str = "the admin endpoints";
const COUNT: &str = "the count of gateways";
const USAGE: &str = "the questions for CPU and memory";
const SCALER: &str = "the scaler";
const METRICS_API: &str = "the metrics API";

/// How long writes of scales may take at the end.
const LAST_WRITES: Duration = Duration::from_secs(10);
/// How long open requests of the metrics API may take at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A task's name, and how it ended.
type Ended = (&'static str, anyhow::Result<()>);

/// Everything that runs.
pub struct Everything {
    /// /livez, /readyz, /metrics.
    pub admin: Admin,
    /// The watches of children.
    pub watches: Watches,
    /// The watch of fleets.
    pub fleets: Fleets,
    /// Asks the gateways; absent where there are none.
    pub gateways: Option<Gateways>,
    /// Counts the gateways; absent where there are none.
    pub count: Option<GatewayCount>,
    /// Asks for CPU and memory.
    pub usage: UsagePoll,
    /// Decides about scales.
    pub scaler: Loop,
    /// The metrics API, and the receiver of load reports.
    pub metrics_api: Option<MetricsApi>,
    /// Fleets that the watches name.
    pub touched: mpsc::Receiver<FleetKey>,
    /// What each pass needs.
    pub ctx: Arc<Context>,
    /// Our part in the election.
    pub elector: Elector<KubeStore>,
    /// What the process still waits for.
    pub readiness: Readiness,
    /// Passes at the same time.
    pub concurrency: u16,
    /// Asks for the end.
    pub stop: CancellationToken,
}

impl Everything {
    /// Runs until it is asked to stop, or until something ends that must not. At the end first the passes
    /// and writes under way finish, then the lease is released: a standby may write a moment later.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            admin,
            watches,
            fleets,
            gateways,
            count,
            usage,
            scaler,
            metrics_api,
            touched,
            ctx,
            elector,
            ..
        } = self;
        let Self { readiness, concurrency, stop, .. } = self;
        let (release, finished, at_rest) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        let mut spawn = |name: &'static str, task: BoxFuture<'static, ()>| {
            tasks.spawn(async move {
                task.await;
                (name, Ok(()))
            });
        };
        spawn(ADMIN, Box::pin(admin.serve(finished.clone())));
        watches.all().into_iter().for_each(|(name, watch)| spawn(name, watch));
        if let Some(gateways) = gateways {
            spawn(GATEWAYS, Box::pin(gateways.run()));
        }
        if let Some(count) = count {
            spawn(COUNT, Box::pin(count.run()));
        }
        spawn(USAGE, Box::pin(usage.run()));
        spawn(SCALER, Box::pin(scaler.run(stop.clone(), at_rest.clone())));
        let serves = metrics_api.is_some();
        if let Some(api) = metrics_api {
            spawn(METRICS_API, Box::pin(api.run(finished.clone())));
        }
        let filled = caches_filled(&readiness, &fleets, &ctx);
        tasks.spawn(campaign(filled, elector, release.clone()));
        let passes = controller::run(fleets, touched, ctx, concurrency, stop.clone());
        tokio::select! {
            ended = tokio::spawn(passes) => {
                ended.context("the controller panicked")?;
                if !stop.is_cancelled() {
                    bail!("the controller ended by itself; this is a defect, please report it");
                }
            }
            Some(ended) = tasks.join_next() => {
                let (name, result) = ended.context("a task panicked")?;
                result.with_context(|| format!("{name} failed"))?;
                bail!("{name} ended by itself; this is a defect, please report it");
            }
        }
        // Each has a limit of its own, below this one.
        let _ = tokio::time::timeout(LAST_WRITES, at_rest.cancelled()).await;
        release.cancel();
        while let Some(ended) = tasks.join_next().await {
            if let Ok((ELECTION, result)) = ended {
                result?;
                break;
            }
        }
        finished.cancel();
        let last_answers = async {
            while let Some(ended) = tasks.join_next().await {
                if matches!(ended, Ok((METRICS_API, _))) {
                    break;
                }
            }
        };
        if serves {
            // What takes longer is cut off.
            let _ = tokio::time::timeout(LAST_ANSWERS, last_answers).await;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Nobody campaigns before the caches are filled: a leader without them would see no children.
async fn campaign(
    filled: impl Future<Output = ()>,
    elector: Elector<KubeStore>,
    release: CancellationToken,
) -> Ended {
    tokio::select! {
        () = filled => tracing::info!("caches are filled; ready"),
        () = release.cancelled() => return (ELECTION, Ok(())),
    }
    (ELECTION, elector.run(release).await.map_err(Into::into))
}

/// Waits for the first list of every watch; /readyz names those that are missing.
fn caches_filled(readiness: &Readiness, fleets: &Fleets, ctx: &Context) -> impl Future<Output = ()> + use<> {
    let (fleets, caches) = (Arc::clone(&fleets.synced), Arc::clone(&ctx.caches));
    let missing = move || {
        let fleets = (!fleets.load(Ordering::Acquire)).then_some(names::KIND);
        fleets.into_iter().chain(caches.unsynced()).collect::<Vec<_>>()
    };
    let blocker = |kind| (kind, readiness.blocker(format!("the first list of {kind} objects")));
    let mut blockers: Vec<_> = missing().into_iter().map(blocker).collect();
    async move {
        while !blockers.is_empty() {
            tokio::time::sleep(SYNC_POLL).await;
            let missing = missing();
            blockers.retain(|(kind, _)| missing.contains(kind));
        }
    }
}
