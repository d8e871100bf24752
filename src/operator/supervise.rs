//! Starts everything that runs, waits for the end, and ends in order.
//!
//! Every long-lived task is supervised: when one ends, the process ends, and Kubernetes starts it anew.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    controller::{self, Fleets},
    gateways::Gateways,
    reconcile::Context,
    watches::Watches,
};
use crate::{
    api::names,
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
    /// under way finish, then the lease is released: a standby may write a moment later.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { admin, watches, fleets, gateways, touched, ctx, elector, readiness, concurrency, stop } =
            self;
        let (release, finished) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks: JoinSet<Ended> = JoinSet::new();
        let serve = admin.serve(finished.clone());
        tasks.spawn(async move {
            serve.await;
            (ADMIN, Ok(()))
        });
        for (name, watch) in watches.all() {
            tasks.spawn(async move {
                watch.await;
                (name, Ok(()))
            });
        }
        if let Some(gateways) = gateways {
            tasks.spawn(async move {
                gateways.run().await;
                (GATEWAYS, Ok(()))
            });
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
        release.cancel();
        while let Some(ended) = tasks.join_next().await {
            if let Ok((ELECTION, result)) = ended {
                result?;
                break;
            }
        }
        finished.cancel();
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
