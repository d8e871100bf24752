//! Carries out a plan: the only place that writes children. Every write is fenced by the leader lease.
//!
//! Two guards keep us away from objects that are not ours. A create is a POST, or a server-side apply that
//! names a resourceVersion which no object has: the API server creates where there is nothing and answers 409
//! where there is something. A change names the UID: it is refused where the name now belongs to another.
//!
//! A POST costs the API server half of what a creating apply costs it, but leaves our fields to an `Update`
//! entry of managedFields. What an apply no longer names stays where such an entry has it too, so before the
//! first change of such a child the entry is turned into an `Apply` entry, as client-go's `csaupgrade` does.

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::DynamicObject,
};
use serde_json::{Value, json};

use super::{
    children::ChildKind,
    desired::Desired,
    events::Note,
    observe::{Caches, LiveChild, own_entry},
    plan::{Because, Blocked, Effect, applied_hash, in_the_way},
    realign::moved_ports,
    validate::{Scaling, ValidatedFleet},
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

    /// Carries out one write on a child. The rest is not its matter.
    pub async fn child(&self, fleet: &ValidatedFleet, effect: &Effect) -> Result<Outcome, ApplyError> {
        match effect {
            Effect::Create(desired) => self.create(fleet, desired).await,
            Effect::Apply { desired, uid, because } => self.apply(fleet, desired, uid, because).await,
            Effect::Delete { kind, name, uid, resource_version, because } => {
                self.delete(fleet, *kind, name, uid, *resource_version, because).await
            }
            Effect::MakeWay | Effect::SeedReplicas(_) | Effect::WriteStatus => Ok(Outcome::Done(None)),
        }
    }

    async fn create(&self, fleet: &ValidatedFleet, desired: &Desired) -> Result<Outcome, ApplyError> {
        let created = if is_posted(desired.kind) {
            self.post(fleet, desired).await
        } else {
            self.patch(fleet, desired, ("resourceVersion", NO_OBJECT_HAS_IT)).await
        };
        match created {
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
        let (uid, terminating) =
            (found.uid().unwrap_or_default(), found.metadata.deletion_timestamp.is_some());
        let owned = found.owner_references().iter().any(|o| o.controller == Some(true) && o.uid == fleet.uid);
        let posted = own_entry(&found, "Update").is_some();
        let entry = LiveChild::entry(*kind, found).filter(|e| e.fleet == fleet.key());
        let ownerless = entry.is_some_and(|e| e.value.ownerless) && !terminating;
        if !owned && !ownerless {
            return Ok(Outcome::Blocked(in_the_way(*kind, name, terminating)));
        }
        if ownerless && !self.may_adopt(fleet).await? {
            return Ok(Outcome::Done(None));
        }
        if posted {
            self.own_by_apply(fleet, desired, &uid).await?;
        }
        let missing = if owned { "metadata.labels" } else { "metadata.ownerReferences" };
        self.apply(fleet, desired, &uid, &Because::Drift(missing.into())).await
    }

    async fn apply(
        &self,
        fleet: &ValidatedFleet,
        desired: &Desired,
        uid: &str,
        because: &Because,
    ) -> Result<Outcome, ApplyError> {
        let before = self.caches.children(desired.kind).get(&fleet.key(), &desired.name);
        if before.as_ref().is_some_and(|b| b.ownerless) && !self.may_adopt(fleet).await? {
            return Ok(Outcome::Done(None));
        }
        if before.as_ref().is_some_and(|b| b.posted) {
            self.own_by_apply(fleet, desired, uid).await?;
        }
        let mut written = self.patch(fleet, desired, ("uid", uid)).await;
        if matches!(&written, Err(ApplyError::Api { source, .. }) if is_invalid(source))
            && self.realign(fleet, desired, uid).await?
        {
            written = self.patch(fleet, desired, ("uid", uid)).await;
        }
        match written {
            Ok(()) => {
                // Where we decide, the status explains each change of the scale.
                let told = matches!(fleet.scaling, Scaling::Mcp(_)) && fleet.scaling.is_ours();
                Ok(Outcome::Done(Note::of_apply(desired, because, before.as_ref(), told)))
            }
            Err(error) => refused(desired, error),
        }
    }

    /// Whether the fleet lives on, as the API server has it now. Where a fleet is deleted and its children are
    /// kept, the garbage collector takes their owner references away; to give them back because the news of the
    /// deletion is late would have them collected after all.
    async fn may_adopt(&self, fleet: &ValidatedFleet) -> Result<bool, ApplyError> {
        let api: Api<McpFleet> = Api::namespaced(self.client.clone(), &fleet.namespace);
        // A list of one, because that needs no right that we do not have anyway.
        let one = ListParams::default().fields(&format!("metadata.name={}", fleet.name));
        let found = self.fenced("read", names::KIND, fleet.name.as_str(), api.list_metadata(&one)).await?;
        let lives = |f: &kube::core::PartialObjectMeta<McpFleet>| {
            f.metadata.uid.as_deref() == Some(&fleet.uid) && f.metadata.deletion_timestamp.is_none()
        };
        Ok(found.items.iter().any(lives))
    }

    /// Turns the entry that a POST left in managedFields into one of an apply. Somebody else's write in between
    /// may have moved it: then it is looked for again.
    async fn own_by_apply(
        &self,
        fleet: &ValidatedFleet,
        desired: &Desired,
        uid: &str,
    ) -> Result<(), ApplyError> {
        let Desired { kind, name, .. } = desired;
        let (kind, api) = (kind.as_str(), self.api(fleet, *kind));
        let params = PatchParams { field_manager: Some(names::MANAGER.into()), ..PatchParams::default() };
        let mut attempts = 3;
        loop {
            let Some(live) = self.fenced("read", kind, name, api.get_opt(name)).await? else { return Ok(()) };
            let Some(operations) = entry_to_apply(&live, uid) else { return Ok(()) };
            let Ok(operations) = serde_json::from_value(operations) else { return Ok(()) };
            let patch = Patch::<()>::Json(operations);
            let written =
                self.fenced("take over the fields of", kind, name, api.patch(name, &params, &patch)).await;
            attempts -= 1;
            match written {
                Err(ApplyError::Api { source, .. }) if is_conflict(&source) && attempts > 0 => {}
                other => return other.map(drop),
            }
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
        let Desired { kind, name, .. } = desired;
        let mut body = with_hash(desired);
        body["metadata"][guard.0] = Value::from(guard.1);
        let params = PatchParams::apply(names::MANAGER).force();
        let api = self.api(fleet, *kind);
        let reply =
            self.fenced("apply", kind.as_str(), name, api.patch(name, &params, &Patch::Apply(&body))).await?;
        self.took_effect(*kind, reply);
        Ok(())
    }

    async fn post(&self, fleet: &ValidatedFleet, desired: &Desired) -> Result<(), ApplyError> {
        let Desired { kind, name, .. } = desired;
        let body = serde_json::from_value(with_hash(desired)).map_err(|source| ApplyError::Api {
            verb: "create",
            kind: kind.as_str(),
            name: name.clone(),
            source: Box::new(kube::Error::SerdeError(source)),
        })?;
        let params = PostParams { field_manager: Some(names::MANAGER.into()), ..PostParams::default() };
        let api = self.api(fleet, *kind);
        let reply = self.fenced("create", kind.as_str(), name, api.create(&params, &body)).await?;
        self.took_effect(*kind, reply);
        Ok(())
    }

    fn took_effect(&self, kind: ChildKind, reply: DynamicObject) {
        if let Some(entry) = LiveChild::entry(kind, reply) {
            self.caches.children(kind).wrote(entry);
        }
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

/// Which kinds are created by POST. Not the Deployment: it is what a new image changes, and that shall be one
/// write.
fn is_posted(kind: ChildKind) -> bool {
    kind != ChildKind::Deployment
}

/// The object as it is sent, with the hash by which a later pass sees that nothing changed.
fn with_hash(desired: &Desired) -> Value {
    let mut body = desired.object.clone();
    body["metadata"]["annotations"][names::ANNOTATION_APPLIED_HASH] =
        Value::from(applied_hash(&desired.object));
    body
}

/// The patch that turns the entry of our POST into one of an apply; nothing where there is none, or an apply's
/// beside it. It names the UID, and the version because the entry is told by its place.
fn entry_to_apply(live: &DynamicObject, uid: &str) -> Option<Value> {
    if own_entry(live, "Apply").is_some() {
        return None;
    }
    let index = own_entry(live, "Update")?;
    Some(json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": live.resource_version()},
        {"op": "replace", "path": format!("/metadata/managedFields/{index}/operation"), "value": "Apply"},
    ]))
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

/// Taken, in the words of an apply or of a POST.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}

fn is_invalid(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 422)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(entries: &Value) -> DynamicObject {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "weather", "namespace": "tools", "uid": "u", "resourceVersion": "7", "managedFields": entries},
        });
        serde_json::from_value(object).expect("an object")
    }

    #[test]
    fn the_entry_of_a_post_becomes_that_of_an_apply_and_no_other() {
        let other = json!({"manager": "kubectl", "operation": "Update"});
        let status = json!({"manager": "mcp-fleet", "operation": "Update", "subresource": "status"});
        let posted = json!({"manager": "mcp-fleet", "operation": "Update"});
        let applied = json!({"manager": "mcp-fleet", "operation": "Apply"});
        let operations = entry_to_apply(&live(&json!([other, status, posted])), "u").expect("a patch");
        assert_eq!(
            operations,
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "replace", "path": "/metadata/managedFields/2/operation", "value": "Apply"},
            ])
        );
        assert_eq!(entry_to_apply(&live(&json!([other, status])), "u"), None);
        // Two entries of one applier would be one, and lose the fields of the other.
        assert_eq!(entry_to_apply(&live(&json!([applied, posted])), "u"), None);
    }
}
