//! Carries out a plan: the only place that writes children. Every write is fenced by the leader lease.
//!
//! Two guards keep us away from objects that are not ours. A create is a server-side apply that names a
//! resourceVersion which no object has: the API server creates where there is nothing and answers 409
//! where there is something. A change names the UID: it is refused where the name now belongs to another.

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::DynamicObject,
};
use serde_json::{Value, json};

use super::{
    children::ChildKind,
    desired::Desired,
    events::Note,
    observe::{Caches, LiveChild},
    plan::{Because, Blocked, Effect, applied_hash, in_the_way},
    realign::moved_ports,
    validate::ValidatedFleet,
};
use crate::{
    api::{conditions::reasons, names, v1alpha1::McpFleet},
    runtime::lease::{Leadership, NotLeader},
};

/// No object has it: etcd's first revision holds none.
const NO_OBJECT_HAS_IT: &str = "1";

/// A write that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server failed or could not be reached.
    #[error("failed to {verb} {kind} {name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// On which kind.
        kind: &'static str,
        /// On which object.
        name: String,
        /// What came back.
        #[source]
        source: Box<kube::Error>,
    },
    /// We may not write.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
}

impl ApplyError {
    /// Stable word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::NotLeader(_) => "not_leader",
            Self::Api { source, .. } => category(source),
        }
    }
}

/// Stable word for an error of the client.
pub fn category(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) if status.is_conflict() => "conflict",
        kube::Error::Api(status) if status.is_forbidden() => "forbidden",
        kube::Error::Api(status) if status.is_not_found() => "not_found",
        kube::Error::Api(status) if status.code == 422 => "invalid",
        kube::Error::Api(status) if status.code == 429 => "throttled",
        kube::Error::Api(status) if status.code >= 500 => "server",
        kube::Error::Api(_) => "api",
        _ => "transport",
    }
}

/// What a write led to.
#[derive(Debug)]
pub enum Outcome {
    /// It is as wanted now.
    Done(Option<Note>),
    /// It cannot be written; the status will say so.
    Blocked(Blocked),
}

/// Writes children of fleets.
pub struct Applier<'a> {
    /// Connection.
    pub client: &'a Client,
    /// Permission to write.
    pub leadership: &'a Leadership,
    /// Takes in the replies, so that the next pass reads its own writes.
    pub caches: &'a Caches,
}

impl Applier<'_> {
    /// Gives `spec.replicas` its first value. The resourceVersion makes it fail where the fleet changed
    /// since, for then somebody may have set it.
    pub async fn seed_replicas(&self, fleet: &McpFleet, replicas: i32) -> Result<McpFleet, ApplyError> {
        let name = fleet.name_any();
        let api: Api<McpFleet> = Api::namespaced(self.client.clone(), &fleet.namespace().unwrap_or_default());
        let patch = json!({
            "metadata": {"resourceVersion": fleet.resource_version(), "uid": fleet.uid()},
            "spec": {"replicas": replicas},
        });
        let params =
            PatchParams { field_manager: Some(names::MANAGER_SCALE.into()), ..PatchParams::default() };
        self.fenced(
            "seed the replicas of",
            names::KIND,
            &name,
            api.patch(&name, &params, &Patch::Merge(&patch)),
        )
        .await
    }

    /// Carries out one write on a child. The status and the seed are not its matter.
    pub async fn child(&self, fleet: &ValidatedFleet, effect: &Effect) -> Result<Outcome, ApplyError> {
        match effect {
            Effect::Create(desired) => self.create(fleet, desired).await,
            Effect::Apply { desired, uid, because } => self.apply(fleet, desired, uid, because).await,
            Effect::Delete { kind, name, uid, resource_version, because } => {
                self.delete(fleet, *kind, name, uid, *resource_version, because).await
            }
            Effect::SeedReplicas(_) | Effect::WriteStatus => Ok(Outcome::Done(None)),
        }
    }

    async fn create(&self, fleet: &ValidatedFleet, desired: &Desired) -> Result<Outcome, ApplyError> {
        let guard = ("resourceVersion", NO_OBJECT_HAS_IT);
        match self.patch(fleet, desired, guard).await {
            Ok(()) => Ok(Outcome::Done(None)),
            Err(ApplyError::Api { source, .. }) if is_conflict(&source) => {
                self.occupied(fleet, desired).await
            }
            Err(error) => refused(desired, error),
        }
    }

    /// Something of that name exists that our watches do not show: either a stranger, or ours without the
    /// labels by which we watch, or ours and the watch lags.
    async fn occupied(&self, fleet: &ValidatedFleet, desired: &Desired) -> Result<Outcome, ApplyError> {
        let Desired { kind, name, .. } = desired;
        let found = self.fenced("read", kind.as_str(), name, self.api(fleet, *kind).get_opt(name)).await?;
        let Some(found) = found else {
            // Gone in between; the next pass creates it.
            return Ok(Outcome::Done(None));
        };
        let ours = found.owner_references().iter().any(|o| o.controller == Some(true) && o.uid == fleet.uid);
        if ours {
            let uid = found.uid().unwrap_or_default();
            return self.apply(fleet, desired, &uid, &Because::Drift("metadata.labels".into())).await;
        }
        Ok(Outcome::Blocked(in_the_way(*kind, name, found.metadata.deletion_timestamp.is_some())))
    }

    async fn apply(
        &self,
        fleet: &ValidatedFleet,
        desired: &Desired,
        uid: &str,
        because: &Because,
    ) -> Result<Outcome, ApplyError> {
        let before = self.caches.children(desired.kind).get(&fleet.key(), &desired.name);
        let mut written = self.patch(fleet, desired, ("uid", uid)).await;
        if matches!(&written, Err(ApplyError::Api { source, .. }) if is_invalid(source))
            && self.realign(fleet, desired, uid).await?
        {
            written = self.patch(fleet, desired, ("uid", uid)).await;
        }
        match written {
            Ok(()) => Ok(Outcome::Done(Note::of_apply(desired, because, before.as_ref()))),
            Err(error) => refused(desired, error),
        }
    }

    /// Moves back what an apply cannot; whether there was anything to move.
    async fn realign(
        &self,
        fleet: &ValidatedFleet,
        desired: &Desired,
        uid: &str,
    ) -> Result<bool, ApplyError> {
        let Desired { kind, name, object } = desired;
        let (kind, api) = (kind.as_str(), self.api(fleet, *kind));
        let Some(live) = self.fenced("read", kind, name, api.get_opt(name)).await? else { return Ok(false) };
        let live = serde_json::to_value(live).unwrap_or_default();
        let moves = moved_ports(object, &live);
        if moves.is_empty() {
            return Ok(false);
        }
        let mut operations = vec![json!({"op": "test", "path": "/metadata/uid", "value": uid})];
        operations.extend(moves);
        let Ok(operations) = serde_json::from_value(Value::Array(operations)) else { return Ok(false) };
        let params = PatchParams { field_manager: Some(names::MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::<()>::Json(operations);
        self.fenced("realign the ports of", kind, name, api.patch(name, &params, &patch)).await?;
        Ok(true)
    }

    async fn patch(
        &self,
        fleet: &ValidatedFleet,
        desired: &Desired,
        guard: (&str, &str),
    ) -> Result<(), ApplyError> {
        let Desired { kind, name, object } = desired;
        let mut body = object.clone();
        body["metadata"][guard.0] = Value::from(guard.1);
        body["metadata"]["annotations"][names::ANNOTATION_APPLIED_HASH] = Value::from(applied_hash(object));
        let params = PatchParams::apply(names::MANAGER).force();
        let api = self.api(fleet, *kind);
        let reply =
            self.fenced("apply", kind.as_str(), name, api.patch(name, &params, &Patch::Apply(&body))).await?;
        if let Some(entry) = LiveChild::entry(*kind, reply) {
            self.caches.children(*kind).wrote(entry);
        }
        Ok(())
    }

    async fn delete(
        &self,
        fleet: &ValidatedFleet,
        kind: ChildKind,
        name: &str,
        uid: &str,
        resource_version: u64,
        because: &Because,
    ) -> Result<Outcome, ApplyError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: Some(resource_version.to_string()),
            }),
            ..DeleteParams::background()
        };
        let api = self.api(fleet, kind);
        let key = (fleet.namespace.clone(), name.to_owned());
        match self.fenced("delete", kind.as_str(), name, api.delete(name, &params)).await {
            // An object that stays for a finalizer comes back by the watch, marked as ending.
            Ok(_) => {
                self.caches.children(kind).remove(&key);
                Ok(Outcome::Done(Some(Note::of_delete(kind, name, because))))
            }
            Err(ApplyError::Api { source, .. }) if is_not_found(&source) => {
                self.caches.children(kind).remove(&key);
                Ok(Outcome::Done(None))
            }
            Err(error) => Err(error),
        }
    }

    fn api(&self, fleet: &ValidatedFleet, kind: ChildKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &fleet.namespace, &kind.api_resource())
    }

    async fn fenced<T>(
        &self,
        verb: &'static str,
        kind: &'static str,
        name: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApplyError> {
        let reply = self.leadership.fenced(call).await?;
        reply.map_err(|source| ApplyError::Api {
            verb,
            kind,
            name: name.to_owned(),
            source: Box::new(source),
        })
    }
}

/// A child that the API server refuses for what it says (a schema, a policy, a quota, a missing right) will
/// be refused again; that is a state of the fleet, and goes into its conditions. Everything else failed for
/// the moment and is tried again.
fn refused(desired: &Desired, error: ApplyError) -> Result<Outcome, ApplyError> {
    let ApplyError::Api { source, .. } = &error else { return Err(error) };
    let kube::Error::Api(status) = &**source else { return Err(error) };
    if !(400..500).contains(&status.code) || [401, 404, 408, 409, 429].contains(&status.code) {
        return Err(error);
    }
    let message = format!("the API server refuses {} {}: {}", desired.kind, desired.name, status.message);
    Ok(Outcome::Blocked(Blocked { reason: reasons::CHILD_REJECTED, message }))
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

fn is_invalid(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}
