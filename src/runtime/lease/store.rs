//! The Lease object in the cluster: read, write with the version that was read, hear of changes.
//!
//! It must not decide anything, must not retry, and must never write without a version: an update
//! without a resourceVersion would be accepted whatever has happened in between.

use std::future::{Future, ready};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{Api, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Client, Error};
use tokio::time::sleep;

use super::election::Record;
use crate::runtime::chain::Chain;

/// Who writes, in `managedFields`.
const FIELD_MANAGER: &str = "mcp-fleet-lease";

/// Pause before a broken watch is opened again. The elector polls meanwhile.
const REOPEN: Duration = Duration::from_secs(5);

/// The same when we lack the right to watch: somebody may grant it, but not soon.
const REOPEN_FORBIDDEN: Duration = Duration::from_mins(1);

/// The server closes a watch after 290 s; one that is open longer is dead.
const WATCH_LIFE: Duration = Duration::from_mins(5);

/// A Lease as stored, with what is needed to replace it.
#[derive(Debug, Clone)]
pub struct Stored {
    lease: Lease,
}

impl Stored {
    /// Wraps an object that was read from, or written to, the store.
    pub fn new(lease: Lease) -> Self {
        Self { lease }
    }

    /// What it says.
    pub fn record(&self) -> Record {
        let spec = self.lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
        Record {
            holder: spec.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty()),
            renewed: spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0),
            transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or(0),
            duration: seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
        }
    }

    /// Its resourceVersion, if it is a number, for telling older from newer. Every API server since
    /// 1.35 promises that; elsewhere the elector reads again instead of comparing.
    pub fn revision(&self) -> Option<u64> {
        self.lease.metadata.resource_version.as_ref()?.parse().ok()
    }

    /// The object to write in its place: everything that is not ours stays.
    fn with(&self, record: &Record) -> Lease {
        let mut lease = self.lease.clone();
        let old = lease.spec.take().unwrap_or_default();
        let is_new_holder = old.holder_identity != record.holder;
        let acquire_time = if is_new_holder { micros(record) } else { old.acquire_time.clone() };
        lease.spec = Some(LeaseSpec { acquire_time, ..spec(record, old) });
        lease.metadata.managed_fields = None;
        lease
    }
}

fn spec(record: &Record, old: LeaseSpec) -> LeaseSpec {
    LeaseSpec {
        // Released is an empty name, as client-go writes it.
        holder_identity: Some(record.holder.clone().unwrap_or_default()),
        lease_duration_seconds: record
            .duration
            .and_then(|duration| i32::try_from(duration.as_secs()).ok())
            .or(old.lease_duration_seconds),
        lease_transitions: Some(record.transitions),
        renew_time: micros(record),
        ..old
    }
}

fn micros(record: &Record) -> Option<MicroTime> {
    record.renewed.map(MicroTime)
}

/// A call about the Lease failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has written, created or deleted it since it was read. Nothing was changed.
    #[error("the lease was changed by somebody else")]
    Conflict,
    /// No answer in time. A write may have taken effect.
    #[error("no answer about the lease within {0:?}")]
    Timeout(Duration),
    /// Anything else.
    #[error("failed to {action} lease {name}: {}", Chain(source.as_ref()))]
    Api {
        /// What was tried.
        action: &'static str,
        /// Name of the Lease, with its namespace.
        name: String,
        /// What the client says.
        source: Box<Error>,
    },
}

/// Where the Lease is kept. One implementation for the cluster, one in the tests.
pub trait LeaseStore: Send + Sync + 'static {
    /// The newest state, not a cached one.
    fn read(&self) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send;

    /// Creates the Lease (`base: None`) or replaces it if it still is what was read.
    fn write(
        &self,
        base: Option<&Stored>,
        record: &Record,
    ) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// Tells what the Lease looks like after each change, `None` if it was deleted. Soon and on a best
    /// effort: it may be late or fall silent, but never ends.
    fn changes(&self) -> BoxStream<'static, Option<Stored>>;
}

/// The Lease in a cluster.
pub struct KubeStore {
    api: Api<Lease>,
    namespace: String,
    name: String,
    owner: Option<OwnerReference>,
}

impl KubeStore {
    /// `client` must not retry: a late retry could write after the leadership has moved on.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            owner: None,
        }
    }

    /// Lets the Lease go with its owner, usually the operator's Deployment.
    #[must_use]
    pub fn owned_by(self, owner: OwnerReference) -> Self {
        Self { owner: Some(owner), ..self }
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(Error) -> StoreError + use<'_> {
        move |error| match error {
            // Not found as the answer to a replace: deleted since.
            Error::Api(status)
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                StoreError::Conflict
            }
            source => StoreError::Api {
                action,
                name: format!("{}/{}", self.namespace, self.name),
                source: Box::new(source),
            },
        }
    }

    fn new_lease(&self, record: &Record) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec { acquire_time: micros(record), ..spec(record, LeaseSpec::default()) }),
        }
    }
}

impl LeaseStore for KubeStore {
    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        // No resourceVersion in the request: a quorum read.
        let lease = self.api.get_opt(&self.name).await.map_err(self.failed("read"))?;
        Ok(lease.map(Stored::new))
    }

    async fn write(&self, base: Option<&Stored>, record: &Record) -> Result<Stored, StoreError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = if let Some(base) = base {
            let lease = base.with(record);
            self.api.replace(&self.name, &params, &lease).await.map_err(self.failed("write"))
        } else {
            let lease = self.new_lease(record);
            self.api.create(&params, &lease).await.map_err(self.failed("create"))
        };
        written.map(Stored::new)
    }

    fn changes(&self) -> BoxStream<'static, Option<Stored>> {
        let api = self.api.clone();
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.name));
        let open = move |pause: Duration| {
            let (api, params) = (api.clone(), params.clone());
            async move {
                sleep(pause).await;
                // "0": the current state first, from whatever cache; the elector tells old from new.
                let opened = api.watch(&params, "0").await;
                let pause = match &opened {
                    Err(Error::Api(status)) if status.is_forbidden() => REOPEN_FORBIDDEN,
                    _ => REOPEN,
                };
                if let Err(error) = &opened {
                    tracing::debug!(error = %Chain(error), retry_after = ?pause, "failed to watch the leader lease; polling it");
                }
                // An error ends this watch; the next one starts over.
                let events = stream::iter(opened.ok())
                    .flatten()
                    .take_while(|event| ready(is_alive(event)))
                    .take_until(sleep(WATCH_LIFE));
                Some((events, pause))
            }
        };
        stream::unfold(Duration::ZERO, open)
            .flatten()
            .filter_map(|event| {
                ready(match event {
                    Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => {
                        Some(Some(Stored::new(lease)))
                    }
                    Ok(WatchEvent::Deleted(_)) => Some(None),
                    Ok(WatchEvent::Bookmark(_) | WatchEvent::Error(_)) | Err(_) => None,
                })
            })
            .boxed()
    }
}

fn is_alive(event: &Result<WatchEvent<Lease>, Error>) -> bool {
    !matches!(event, Err(_) | Ok(WatchEvent::Error(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn stored(spec: LeaseSpec) -> Stored {
        let metadata = ObjectMeta { resource_version: Some("7".to_owned()), ..ObjectMeta::default() };
        Stored::new(Lease { metadata, spec: Some(spec) })
    }

    #[test]
    fn a_lease_is_read_with_suspicion() {
        let free = Record { holder: None, renewed: None, transitions: 0, duration: None };
        for spec in [
            LeaseSpec::default(),
            LeaseSpec { holder_identity: Some(String::new()), ..LeaseSpec::default() },
            LeaseSpec { lease_duration_seconds: Some(-5), ..LeaseSpec::default() },
            LeaseSpec { lease_duration_seconds: Some(0), ..LeaseSpec::default() },
        ] {
            assert_eq!(stored(spec).record(), free);
        }
        assert_eq!(Stored::new(Lease::default()).record(), free);
    }

    #[test]
    fn what_is_written_is_read_back_and_keeps_what_is_not_ours() {
        let at = |second| Some(MicroTime(Timestamp::from_second(second).unwrap()));
        let old = LeaseSpec {
            holder_identity: Some("old".to_owned()),
            acquire_time: at(1),
            strategy: Some("kept".to_owned()),
            ..LeaseSpec::default()
        };
        let renewal = Record {
            holder: Some("old".to_owned()),
            renewed: Some(Timestamp::from_second(9).unwrap()),
            transitions: 3,
            duration: Some(Duration::from_secs(15)),
        };
        let renewed = stored(old.clone()).with(&renewal);
        assert_eq!(renewed.metadata.resource_version.as_deref(), Some("7"));
        let spec = renewed.spec.clone().unwrap();
        assert_eq!((spec.acquire_time, spec.strategy.as_deref()), (at(1), Some("kept")));
        assert_eq!(Stored::new(renewed).record(), renewal);

        let taken = stored(old).with(&Record { holder: Some("new".to_owned()), ..renewal });
        assert_eq!(taken.spec.unwrap().acquire_time, at(9));
    }
}
