//! `McpFleet.spec.replicas`, through `/scale`: fenced by the leader lease, and on the version that was decided on.
//!
//! A write that meets a newer version is tried once more where the scale is still the one that was decided on: most
//! other writes on a fleet are our own statuses, and a call that waits at zero should not wait for the next look.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::{entry::Wrote, look::Write};
use crate::{
    api::{names, v1alpha1::McpFleet},
    domain::FleetKey,
    operator::reconcile::Context,
    runtime::lease::NotLeader,
};

/// Longest time for one write. The client's own limits are made for whole lists.
const LONGEST: Duration = Duration::from_secs(5);

/// A scale that was not written.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// Somebody changed the fleet since; the next look decides anew.
    #[error("the fleet changed in the meantime")]
    Changed,
    /// We may not write any more.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// The API server failed, or refused it.
    #[error("failed to write the scale")]
    Api(#[source] Box<kube::Error>),
    /// It took too long; it may have taken effect.
    #[error("the API server did not answer within {LONGEST:?}")]
    Timeout,
}

/// Writes the scale of a fleet.
pub async fn scale(ctx: &Context, key: &FleetKey, write: &Write) -> Result<Wrote, ScaleError> {
    let once = timeout(LONGEST, twice(ctx, key, write));
    ctx.leadership.fenced(once).await?.unwrap_or(Err(ScaleError::Timeout))
}

async fn twice(ctx: &Context, key: &FleetKey, write: &Write) -> Result<Wrote, ScaleError> {
    let api: Api<McpFleet> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let failed = |error| ScaleError::Api(Box::new(error));
    let first = once(&api, key, write, &write.version.to_string()).await;
    let written = match first {
        Err(error) if is_conflict(&error) => {
            let live = api.get_scale(&key.name).await.map_err(failed)?;
            let version = still(&live, write).ok_or(ScaleError::Changed)?;
            match once(&api, key, write, &version).await {
                Err(error) if is_conflict(&error) => return Err(ScaleError::Changed),
                other => other.map_err(failed)?,
            }
        }
        other => other.map_err(failed)?,
    };
    ctx.metrics.wrote(names::KIND, "scale");
    let version = written.metadata.resource_version.and_then(|v| v.parse().ok());
    Ok(Wrote { version: version.unwrap_or_default(), replicas: write.to })
}

async fn once(
    api: &Api<McpFleet>,
    key: &FleetKey,
    write: &Write,
    version: &str,
) -> Result<Scale, kube::Error> {
    let patch = json!({
        "metadata": {"resourceVersion": version, "uid": write.uid},
        "spec": {"replicas": write.to},
    });
    let params = PatchParams { field_manager: Some(names::MANAGER_SCALE.into()), ..PatchParams::default() };
    api.patch_scale(&key.name, &params, &Patch::Merge(&patch)).await
}

/// The version of a scale that is still what was decided on.
fn still(live: &Scale, write: &Write) -> Option<String> {
    let same = live.metadata.uid.as_deref() == Some(&write.uid)
        && live.spec.as_ref().and_then(|s| s.replicas) == Some(write.from);
    live.metadata.resource_version.clone().filter(|_| same)
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_scale_that_was_decided_on_is_written_over() {
        let write = Write { uid: "u".into(), from: 3, to: 5, version: 7 };
        let live = |uid: &str, replicas: i32| -> Option<String> {
            let scale =
                json!({"metadata": {"uid": uid, "resourceVersion": "9"}, "spec": {"replicas": replicas}});
            still(&serde_json::from_value(scale).expect("a scale"), &write)
        };
        assert_eq!(live("u", 3).as_deref(), Some("9"));
        assert_eq!(live("u", 4), None, "somebody scaled it");
        assert_eq!(live("x", 3), None, "another fleet of that name");
    }
}
