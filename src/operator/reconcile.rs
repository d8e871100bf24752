//! One pass over one fleet: observe → validate → desired → plan → apply → status.
//!
//! Level-triggered and idempotent: it starts from what is there, and may be cut at any write. It never
//! sleeps; what has to wait comes back by a requeue or a watch event.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    apply::{Applier, ApplyError, Outcome, category},
    backoff::Backoff,
    children::ChildKind,
    desired::{self, Rendering},
    events,
    gateway::Install,
    gateways::Learned,
    metrics::{self, Metrics},
    newcomers::Newcomers,
    observe::{Caches, Observed, observe},
    plan::{Blocked, Effect, plan},
    recorder::Recorder,
    scaler::{self, Scaler, effective::effective},
    scaling::EffectiveActuator,
    state::{States, WatchedFleet, replicas_holder},
    status::{self, Change, ScalingFacts},
    validate::{Invalid, ValidatedFleet, validate},
};
use crate::{
    api::{
        names,
        v1alpha1::{AutoscalingStatus, McpFleet, McpFleetStatus},
    },
    autoscale::head_start::HeadStart,
    domain::FleetKey,
    runtime::{
        chain::Chain,
        lease::{Leadership, NotLeader},
    },
};

/// For so long the watch may lag behind an own write, before it is looked again.
const LAG: Duration = Duration::from_secs(1);
/// A foreign object in the way is not watched; it is looked for again after so long.
const BLOCKED_PERIOD: Duration = Duration::from_secs(15);

/// What every pass needs.
pub struct Context {
    /// Connection.
    pub client: Client,
    /// Permission to write.
    pub leadership: Leadership,
    /// What the watches have seen.
    pub caches: Arc<Caches>,
    /// Counters.
    pub metrics: Metrics,
    /// Publishes events.
    pub recorder: Recorder,
    /// What our own configuration contributes to pods.
    pub rendering: Rendering,
    /// The gateway of this cluster.
    pub gateway: Option<Install>,
    /// What gateways said of servers.
    pub learned: Learned,
    /// What the scaler knows.
    pub scaler: Scaler,
    /// Fleets that are new, and wait for each other.
    pub newcomers: Arc<Newcomers>,
    /// Waits after failures.
    pub backoff: Backoff,
    /// What this process knows of its own writes on fleets.
    pub states: States,
    /// Longest pass.
    pub timeout: Duration,
    /// Time between two passes at rest.
    pub resync: Duration,
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A child could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status could not be written.
    #[error("failed to write the status")]
    Status(#[source] Box<kube::Error>),
    /// It took longer than it may.
    #[error("the pass took longer than {0:?}")]
    Timeout(Duration),
}

impl ReconcileError {
    /// Stable word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.category(),
            Self::Status(error) => category(error),
            Self::Timeout(_) => "timeout",
        }
    }
}

impl From<NotLeader> for ReconcileError {
    fn from(error: NotLeader) -> Self {
        Self::Apply(error.into())
    }
}

/// The key of a watched fleet.
pub fn key_of(fleet: &WatchedFleet) -> FleetKey {
    FleetKey::new(fleet.namespace().unwrap_or_default(), fleet.name_any())
}

/// One pass, bounded in time. Standbys return at once: becoming leader brings a pass for every fleet.
pub async fn reconcile(fleet: Arc<WatchedFleet>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    let (key, started) = (key_of(&fleet), Instant::now());
    let result = bounded(&fleet, &key, &ctx).await;
    if ctx.leadership.is_leader() {
        ctx.newcomers.passed(&key, started, Instant::now());
    } else {
        // Whoever leads now has newcomers of its own.
        ctx.newcomers.unhold(&key);
    }
    ctx.metrics.held.set(ctx.newcomers.n_held() as i64);
    result
}

async fn bounded(fleet: &WatchedFleet, key: &FleetKey, ctx: &Context) -> Result<Action, ReconcileError> {
    if !ctx.leadership.is_leader() {
        return Ok(Action::await_change());
    }
    if fleet.meta().deletion_timestamp.is_some() {
        // Owner references make the garbage collector delete the children.
        ctx.forget(key);
        return Ok(Action::await_change());
    }
    let generation = fleet.meta().generation;
    if let Some(wait) = ctx.backoff.remaining(key, generation, Instant::now()) {
        return Ok(Action::requeue(wait));
    }
    let started = Instant::now();
    ctx.metrics.active.inc();
    let result = tokio::time::timeout(ctx.timeout, Box::pin(ctx.pass(fleet, key))).await;
    ctx.metrics.active.dec();
    let result = result.unwrap_or(Err(ReconcileError::Timeout(ctx.timeout)));
    let outcome = match &result {
        Ok(_) => metrics::Outcome::Success,
        Err(ReconcileError::Timeout(_)) => metrics::Outcome::Timeout,
        Err(_) => metrics::Outcome::Error,
    };
    ctx.metrics.reconciled(outcome, started.elapsed());
    if result.is_ok() {
        ctx.backoff.forget(key);
    }
    ctx.metrics.backing_off.set(ctx.backoff.len() as i64);
    result
}

/// What happens after a failed pass.
#[expect(clippy::needless_pass_by_value, reason = "the shape of an error policy")]
pub fn retry(fleet: Arc<WatchedFleet>, error: &ReconcileError, ctx: Arc<Context>) -> Action {
    let key = key_of(&fleet);
    ctx.metrics.failed(error.category());
    let generation = fleet.meta().generation;
    let wait = ctx.backoff.fail(&key, generation, Instant::now(), rand::random());
    ctx.metrics.backing_off.set(ctx.backoff.len() as i64);
    tracing::warn!(fleet = %key, error = %Chain(error), retry_in = ?wait, "a reconcile failed");
    Action::requeue(wait)
}

impl Context {
    /// Forgets everything about a fleet that is gone.
    pub fn forget(&self, key: &FleetKey) {
        self.backoff.forget(key);
        self.states.forget(key);
        self.learned.forget(key);
        self.scaler.forget(key);
        self.newcomers.forget(key, Instant::now());
    }

    async fn pass(&self, fleet: &WatchedFleet, key: &FleetKey) -> Result<Action, ReconcileError> {
        if !self.states.is_current(key, fleet.meta()) {
            // The watch lags behind our own write; its event brings the next pass.
            return Ok(Action::requeue(LAG));
        }
        let known = self.states.status(key, fleet);
        let fleet = match &fleet.0 {
            Ok(fleet) => fleet,
            Err(error) => {
                return self
                    .invalid(fleet.meta(), key, &Invalid::Unreadable(error.error.clone()), &known)
                    .await;
            }
        };
        match validate(fleet) {
            Ok(valid) => {
                let valid = Install::bind(self.gateway.as_ref(), valid);
                self.valid(fleet, valid, key, &known).await
            }
            Err(error) => self.invalid(fleet.meta(), key, &error, &known).await,
        }
    }

    async fn valid(
        &self,
        raw: &McpFleet,
        mut fleet: ValidatedFleet,
        key: &FleetKey,
        known: &McpFleetStatus,
    ) -> Result<Action, ReconcileError> {
        let observed = observe(&self.caches, key, &fleet.uid);
        let mut facts = observed.facts(&fleet.name);
        let foreign = observed.foreign_autoscaler.is_some();
        facts.effective = effective(&fleet.scaling, foreign, &self.scaler.api_state());
        if matches!(facts.effective, EffectiveActuator::Hpa | EffectiveActuator::Direct) {
            facts.ahead = self.scaler.ahead(key).or_else(|| status::head_start(known));
        }
        let desired = desired::build(&fleet, &facts, &self.rendering);
        let plan = plan(&fleet, desired, &observed, known.selector.is_some());
        let applier = Applier { client: &self.client, leadership: &self.leadership, caches: &self.caches };
        let mut report = Report { blocked: plan.blocked, known: known.clone(), cause: None, wait: None };
        let mut notes = Vec::new();
        let spec = fleet.replicas.unwrap_or_default();
        if HeadStart::standing(facts.ahead, spec) != HeadStart::standing(status::head_start(known), spec) {
            self.report_ahead(raw, key, &mut report).await?;
        }
        for effect in &plan.effects {
            match effect {
                Effect::MakeWay => {
                    if let Some(wait) = self.newcomers.hold(key, Instant::now()) {
                        tracing::debug!(fleet = %key, "its Deployment waits for other new fleets");
                        self.report(raw, &fleet, key, &mut report).await?;
                        self.recorder.publish(&raw.object_ref(&()), notes).await;
                        return Ok(Action::requeue(wait));
                    }
                }
                Effect::SeedReplicas(replicas) => {
                    let written = applier.seed_replicas(raw, *replicas).await?;
                    self.metrics.wrote(names::KIND, "seed");
                    self.states.wrote(key, &written);
                    fleet.generation = written.metadata.generation.unwrap_or(fleet.generation);
                    fleet.replicas = written.spec.replicas;
                }
                Effect::WriteStatus => self.report(raw, &fleet, key, &mut report).await?,
                child => {
                    if let Some(target) = fewer(child, &observed) {
                        scaler::victims::mark(self, key, &fleet.uid, target).await;
                    }
                    let outcome = applier.child(&fleet, child).await?;
                    self.count(child);
                    match outcome {
                        Outcome::Done(note) => {
                            self.newcomers.wrote(key, Instant::now());
                            notes.extend(note);
                        }
                        Outcome::Blocked(blocked) => report.blocked.push(blocked),
                    }
                }
            }
        }
        // What came after the status may have changed it.
        self.report(raw, &fleet, key, &mut report).await?;
        self.recorder.publish(&raw.object_ref(&()), notes).await;
        Ok(Action::requeue(self.next(&report)))
    }

    /// Says how far the Deployment goes ahead before it goes, so that a process that takes over in between knows of it. All
    /// else of the status tells of children that this pass has yet to write.
    async fn report_ahead(
        &self,
        raw: &McpFleet,
        key: &FleetKey,
        report: &mut Report,
    ) -> Result<(), ReconcileError> {
        let scaled = self.scaler.of(key);
        report.cause = scaled.as_ref().and_then(status::cause);
        let autoscaling = status::autoscaling(scaled.as_ref(), report.known.autoscaling.as_ref());
        let new = McpFleetStatus { autoscaling, ..report.known.clone() };
        self.write_status(&raw.metadata, key, report, new).await
    }

    /// Writes the status of a fleet that can be used, if it changed.
    async fn report(
        &self,
        raw: &McpFleet,
        fleet: &ValidatedFleet,
        key: &FleetKey,
        report: &mut Report,
    ) -> Result<(), ReconcileError> {
        let observed = observe(&self.caches, key, &fleet.uid);
        let holder = fleet.scaling.is_ours().then(|| replicas_holder(raw)).flatten();
        let scaled = self.scaler.of(key);
        report.cause = scaled.as_ref().and_then(status::cause);
        let scaling = ScalingFacts { scaled: scaled.as_ref(), api: self.scaler.api_state(), holder };
        let mut new =
            status::build(fleet, &observed, &report.blocked, &scaling, &report.known, Timestamp::now());
        new.protocol = self.learned.of(key).or(new.protocol);
        self.write_status(&raw.metadata, key, report, new).await
    }

    async fn invalid(
        &self,
        meta: &kube::api::ObjectMeta,
        key: &FleetKey,
        error: &Invalid,
        known: &McpFleetStatus,
    ) -> Result<Action, ReconcileError> {
        let new = status::build_invalid(error, meta.generation.unwrap_or_default(), known, Timestamp::now());
        let mut report = Report { blocked: Vec::new(), known: known.clone(), cause: None, wait: None };
        self.write_status(meta, key, &mut report, new).await?;
        // Only an edit helps, and an edit is an event.
        Ok(Action::await_change())
    }

    async fn write_status(
        &self,
        meta: &kube::api::ObjectMeta,
        key: &FleetKey,
        report: &mut Report,
        new: McpFleetStatus,
    ) -> Result<(), ReconcileError> {
        let change = status::change(&report.known, &new);
        report.wait = self.states.defer(key, change, &new, Instant::now());
        if change == Change::None || report.wait.is_some() {
            return Ok(());
        }
        tracing::debug!(fleet = %key, ?change, news = status::news(&report.known, &new), "the status is written");
        let api: Api<McpFleet> = Api::namespaced(self.client.clone(), &key.namespace);
        let body = json!({
            "apiVersion": names::API_VERSION, "kind": names::KIND,
            "metadata": {"name": key.name, "uid": meta.uid},
            "status": new,
        });
        let params = PatchParams::apply(names::MANAGER_STATUS).force();
        let reply =
            self.leadership.fenced(api.patch_status(&key.name, &params, &Patch::Apply(&body))).await?;
        let written = match reply {
            Ok(written) => written,
            // The fleet went away in the meantime.
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(error) => return Err(ReconcileError::Status(Box::new(error))),
        };
        self.metrics.wrote(names::KIND, "status");
        self.states.wrote(key, &written);
        let notes = events::transitions(&report.known, &new, report.cause.as_ref());
        report.known = new;
        self.recorder.publish(&written.object_ref(&()), notes).await;
        Ok(())
    }

    fn count(&self, effect: &Effect) {
        match effect {
            Effect::Create(desired) => self.metrics.wrote(desired.kind.as_str(), "create"),
            Effect::Apply { desired, .. } => self.metrics.wrote(desired.kind.as_str(), "apply"),
            Effect::Delete { kind, .. } => self.metrics.wrote(kind.as_str(), "delete"),
            Effect::MakeWay | Effect::SeedReplicas(_) | Effect::WriteStatus => {}
        }
    }

    /// A status that waits, a stranger in the way, or the resync with up to a fifth of jitter.
    fn next(&self, report: &Report) -> Duration {
        let rest = if report.blocked.is_empty() { self.resync } else { BLOCKED_PERIOD };
        let rest = rest.mul_f64(1.0 + 0.2 * rand::random::<f64>());
        report.wait.map_or(rest, |wait| wait.min(rest))
    }
}

/// Replicas of a Deployment that loses some by this write.
fn fewer(effect: &Effect, observed: &Observed) -> Option<i32> {
    let Effect::Apply { desired, .. } = effect else { return None };
    let replicas = |object: &Value| object.pointer("/spec/replicas").and_then(Value::as_i64);
    let live = observed.child(desired.kind, &desired.name).filter(|c| c.kind == ChildKind::Deployment)?;
    let (from, to) = (replicas(&live.value())?, replicas(&desired.object)?);
    (to < from).then_some(to as i32)
}

/// What a pass has to report so far.
struct Report {
    blocked: Vec<Blocked>,
    known: McpFleetStatus,
    /// The decision that led to the present scale.
    cause: Option<AutoscalingStatus>,
    /// A minor change waits for this long.
    wait: Option<Duration>,
}
