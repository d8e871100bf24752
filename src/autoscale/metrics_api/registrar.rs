//! Keeps the API server and the gateways told of how this port is known: the replicas' certificates in a ConfigMap,
//! their union there and in the APIService, the APIService itself.
//!
//! Each replica writes its own key of the ConfigMap; everything else only the leader, behind its fence. All of it is
//! level-triggered: one look at what there is, one step at a time, and again when something changes.

use std::{collections::BTreeMap, fmt::Display, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::ConfigMap, kube_aggregator::pkg::apis::apiregistration::v1::APIService};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::watcher,
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Clock,
    apiservice::{self, Action, Ours, Verdict},
    bundle,
    certs::{Authority, Serving},
    cleanup,
    metrics::ApiMetrics,
    pace::Pace,
    state::ApiState,
    watched::{Watch, config_map, watched},
};
use crate::runtime::{
    admin::{Blocker, Readiness},
    chain::Chain,
    lease::{Leadership, NotLeader},
};

/// Time between two looks when nothing happens: for renewals, second attempts and graces.
const LOOK: Duration = Duration::from_secs(2);
/// Fleets have so long to leave the metrics API before it goes.
const GRACE: Duration = Duration::from_secs(10);
/// Field manager of what the leader writes.
const MANAGER: &str = "mcp-fleet";
/// Longest name of a field manager.
const MAX_MANAGER: usize = 128;
/// Earlier certificates of this replica that may be the one that the API server knows.
const MAX_KNOWN: usize = 3;

/// What it works with.
pub(super) struct Setup {
    pub(super) client: Client,
    pub(super) leadership: Leadership,
    pub(super) clock: Clock,
    pub(super) namespace: String,
    pub(super) pod_name: String,
    pub(super) config_map: String,
    /// What the APIService leads to; `None`: there shall be none.
    pub(super) ours: Option<Ours>,
    pub(super) authority: Authority,
    pub(super) serving: Arc<Serving>,
    pub(super) state: watch::Sender<ApiState>,
    pub(super) readiness: Readiness,
    pub(super) metrics: ApiMetrics,
}

/// The task.
pub(super) struct Registrar {
    setup: Setup,
    maps: Watch<ConfigMap>,
    /// Absent where there is no APIService.
    services: Option<Watch<APIService>>,
    /// Our own certificates, the newest last.
    known: Vec<String>,
    blocker: Option<Blocker>,
    retired_until: Option<Instant>,
    /// When ours may go, once it must.
    leave_at: Option<Instant>,
    own_key: Pace,
    union: Pace,
    service: Pace,
}

impl Registrar {
    /// Holds readiness back until the API server knows us, where it asks us at all.
    pub(super) fn new(setup: Setup) -> Self {
        let maps = Api::namespaced(setup.client.clone(), &setup.namespace);
        let services = setup
            .ours
            .as_ref()
            .map(|_| Watch::new(watched(Api::all(setup.client.clone()), watcher::Config::default())));
        let known = setup.serving.get().map(|issued| issued.authority_pem.clone());
        let mut registrar = Self {
            maps: Watch::new(config_map(maps, &setup.config_map)),
            services,
            known: known.into_iter().collect(),
            blocker: None,
            retired_until: None,
            leave_at: None,
            own_key: Pace::default(),
            union: Pace::default(),
            service: Pace::default(),
            setup,
        };
        registrar.block(registrar.services.is_some());
        registrar
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut gained = Box::pin(self.setup.leadership.gained());
        let mut is_over = false;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let services = async {
                match &mut self.services {
                    Some(services) => services.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                seen = self.maps.next() => self.maps.note(seen, "the ConfigMap with the operator's certificates"),
                seen = services => {
                    if let Some(services) = &mut self.services {
                        services.note(seen, "APIServices");
                    }
                }
                gain = gained.next(), if !is_over => is_over = gain.is_none(),
                _ = look.tick() => {}
            }
            if stop.run_until_cancelled(self.settle()).await.is_none() {
                return;
            }
        }
    }

    /// One look, and what follows from it.
    async fn settle(&mut self) {
        let now = (self.setup.clock)().wall.div_euclid(1000);
        self.renew(now);
        let map = self.maps.store.state().first().cloned();
        let data = map.as_ref().and_then(|map| map.data.clone()).unwrap_or_default();
        self.note_retirement(map.as_deref(), now);
        let is_retired = self.retired_until.is_some_and(|end| Instant::now() < end);
        let union = bundle::union(&data, now);
        if self.maps.synced && !is_retired {
            self.publish(&data).await;
            if let Some(map) = &map {
                self.unite(map, &data, &union).await;
            }
        }
        let Some(ours) = self.setup.ours.clone() else { return };
        let Some(services) = self.services.as_ref().filter(|services| services.synced) else {
            if let Some(error) = self.services.as_ref().and_then(|s| s.error.as_ref()) {
                let state = ApiState::NotServing(format!("failed to list APIServices: {error}"));
                self.tell(state);
            }
            return;
        };
        let all = services.store.state();
        let authorities = if self.maps.synced { union.pem.as_str() } else { "" };
        let verdict = apiservice::judge(all.iter().map(AsRef::as_ref), &ours, authorities);
        self.tell(if is_retired {
            ApiState::NotServing("this operator is being removed".into())
        } else {
            verdict.state.clone()
        });
        let is_unknown = |bundle: &String| !self.known.iter().any(|own| bundle::contains(bundle, own));
        self.block(verdict.ca_bundle.as_ref().is_some_and(is_unknown));
        if !is_retired {
            self.act(verdict).await;
        }
    }

    /// New certificates at half the life of the old ones.
    fn renew(&mut self, now: i64) {
        let shown = self.setup.serving.get();
        if shown.as_ref().is_some_and(|issued| now < issued.renew_at) {
            return;
        }
        match self.setup.authority.issue(now) {
            Ok(issued) => {
                self.known.push(issued.authority_pem.clone());
                let surplus = self.known.len().saturating_sub(MAX_KNOWN);
                self.known.drain(..surplus);
                self.setup.metrics.certificate_expires.set(issued.expires_at as f64);
                self.setup.serving.set(issued);
                tracing::info!("the serving certificate was renewed");
            }
            Err(error) => tracing::error!(%error, "the serving certificate was not renewed"),
        }
    }

    /// `mcp-fleet cleanup` runs: what it removes must not come back.
    fn note_retirement(&mut self, map: Option<&ConfigMap>, now: i64) {
        let Some(left) = map.and_then(|map| cleanup::retired_for(map, now)) else { return };
        if self.retired_until.is_none() {
            tracing::warn!("this operator is being removed: its APIService and certificates are left alone");
        }
        self.retired_until = Some(Instant::now() + left);
    }

    /// Our own key of the ConfigMap.
    async fn publish(&mut self, data: &BTreeMap<String, String>) {
        let Some(own) = self.known.last() else { return };
        let key = bundle::key(&self.setup.pod_name);
        if data.get(&key).is_some_and(|text| text.trim() == own.trim()) || !self.own_key.is_due() {
            return;
        }
        let name = &self.setup.config_map;
        let apply = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {apiservice::MANAGED_BY.0: apiservice::MANAGED_BY.1}},
            "data": {key: own},
        });
        let manager: String =
            format!("mcp-fleet-ca-{}", self.setup.pod_name).chars().take(MAX_MANAGER).collect();
        let api: Api<ConfigMap> = Api::namespaced(self.setup.client.clone(), &self.setup.namespace);
        let written = api.patch(name, &PatchParams::apply(&manager).force(), &Patch::Apply(&apply)).await;
        self.own_key.note(written.is_ok());
        if let Err(error) = written {
            warn("publish this replica's certificate", &Chain(&error));
        }
    }

    /// The union of all keys, without those of replicas that are gone; the leader's.
    async fn unite(&mut self, map: &ConfigMap, data: &BTreeMap<String, String>, union: &bundle::Union) {
        let is_same = data.get(bundle::UNION).map(String::as_str).unwrap_or_default() == union.pem;
        if (is_same && union.stale.is_empty()) || union.pem.is_empty() || !self.union.is_due() {
            return;
        }
        let mut fields: serde_json::Map<_, _> =
            union.stale.iter().map(|key| (key.clone(), serde_json::Value::Null)).collect();
        fields.insert(bundle::UNION.into(), union.pem.clone().into());
        // With its version: nobody's key may get lost between our look and our write.
        let patch = json!({
            "metadata": {"resourceVersion": map.metadata.resource_version, "uid": map.metadata.uid},
            "data": fields,
        });
        let api: Api<ConfigMap> = Api::namespaced(self.setup.client.clone(), &self.setup.namespace);
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let (name, patch) = (self.setup.config_map.clone(), Patch::Merge(patch));
        let write = api.patch(&name, &params, &patch);
        let written = self.setup.leadership.fenced(write).await;
        done(&mut self.union, "unite the replicas' certificates", written);
    }

    /// The APIService; the leader's.
    async fn act(&mut self, verdict: Verdict) {
        if !matches!(verdict.action, Action::Withdraw { .. }) {
            self.leave_at = None;
        }
        let api: Api<APIService> = Api::all(self.setup.client.clone());
        let leadership = self.setup.leadership.clone();
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match verdict.action {
            Action::Create(service) if self.service.is_due() => {
                let written = leadership.fenced(api.create(&params, &service)).await;
                done(&mut self.service, "create the APIService", written);
            }
            Action::Replace(service) if self.service.is_due() => {
                let written = leadership.fenced(api.replace(apiservice::NAME, &params, &service)).await;
                done(&mut self.service, "mend the APIService", written);
            }
            Action::Withdraw { uid, resource_version } => {
                let leave_at = *self.leave_at.get_or_insert_with(|| Instant::now() + GRACE);
                if Instant::now() < leave_at || !self.service.is_due() {
                    return;
                }
                let preconditions =
                    Preconditions { uid: Some(uid), resource_version: Some(resource_version) };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                let written = leadership.fenced(api.delete(apiservice::NAME, &params)).await;
                done(&mut self.service, "withdraw the APIService", written);
            }
            Action::Nothing | Action::Create(_) | Action::Replace(_) => {}
        }
    }

    fn tell(&self, state: ApiState) {
        let is_news = self.setup.state.send_if_modified(|told| {
            let is_news = *told != state;
            *told = state;
            is_news
        });
        if is_news {
            tracing::info!(state = ?*self.setup.state.borrow(), "the metrics API");
        }
    }

    fn block(&mut self, is_blocked: bool) {
        let name = "the API server to know this replica's certificate";
        match (is_blocked, &self.blocker) {
            (true, None) => self.blocker = Some(self.setup.readiness.blocker(name)),
            (false, Some(_)) => self.blocker = None,
            _ => {}
        }
    }
}

/// Notes what became of a leader's write. A standby's is none; a conflict says that the next look knows more.
fn done<T>(pace: &mut Pace, what: &str, written: Result<kube::Result<T>, NotLeader>) {
    match written {
        Err(NotLeader::Standby) => {}
        Ok(Ok(_)) => {
            tracing::info!(what, "done");
            pace.note(true);
        }
        Ok(Err(kube::Error::Api(status)))
            if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
        {
            pace.note(true);
        }
        Ok(Err(error)) => {
            pace.note(false);
            warn(what, &Chain(&error));
        }
        Err(error) => {
            pace.note(false);
            warn(what, &error);
        }
    }
}

fn warn(what: &str, error: &dyn Display) {
    tracing::warn!(%error, "failed to {what}; trying again");
}
