//! `McpFleet.spec.replicas`, through `/scale`: fenced by the leader lease, and on the version that was decided on.
//!
//! A write that meets a newer version is tried once more where the scale is still the one that was decided on: most
//! other writes on a fleet are our own statuses, and a call that waits at zero should not wait for the next look.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::{entry::Wrote, look::Write};
use crate::{
    api::{names, v1alpha1::McpFleet},
    domain::FleetKey,
    runtime::lease::{Leadership, NotLeader},
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

impl ScaleError {
    /// Whether a person should hear of it.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Api(_) | Self::Timeout)
    }
}

/// Writes the scale of a fleet.
pub async fn scale(
    client: &Client,
    leadership: &Leadership,
    key: &FleetKey,
    write: &Write,
) -> Result<Wrote, ScaleError> {
    let written = timeout(LONGEST, twice(client, key, write));
    leadership.fenced(written).await?.unwrap_or(Err(ScaleError::Timeout))
}

async fn twice(client: &Client, key: &FleetKey, write: &Write) -> Result<Wrote, ScaleError> {
    let api: Api<McpFleet> = Api::namespaced(client.clone(), &key.namespace);
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
    use std::{collections::VecDeque, sync::Arc};

    use http::{Method, Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::Value;
    use tokio::time::Instant;

    use super::*;

    /// What the API server says to each request in turn: a status code, and a body.
    type Answers = Vec<(u16, Value)>;

    /// How a write ends, and which requests it sent.
    async fn written(leads: bool, answers: Answers) -> (Result<Wrote, ScaleError>, Vec<Method>) {
        let (answers, sent) = (Mutex::new(VecDeque::from(answers)), Arc::<Mutex<Vec<Method>>>::default());
        let methods = Arc::clone(&sent);
        let serve = move |request: Request<Body>| {
            methods.lock().push(request.method().clone());
            let answer = answers.lock().pop_front();
            async move {
                let Some((code, body)) = answer else { std::future::pending().await };
                Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
            }
        };
        let client = Client::new(tower::service_fn(serve), "default");
        let deadline = leads.then(|| Instant::now() + Duration::from_secs(60));
        let write = Write { uid: "u".into(), from: 3, to: 5, version: 7 };
        let key = FleetKey::new("tools", "weather");
        let result = scale(&client, &Leadership::fixed(deadline), &key, &write).await;
        let sent = sent.lock().clone();
        (result, sent)
    }

    fn live(uid: &str, version: &str, replicas: i32) -> Value {
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "weather", "uid": uid, "resourceVersion": version}, "spec": {"replicas": replicas}})
    }

    fn failure(code: u16) -> (u16, Value) {
        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "reason": if code == 409 { "Conflict" } else { "Forbidden" }, "message": "no"});
        (code, body)
    }

    #[tokio::test(start_paused = true)]
    async fn the_scale_that_was_decided_on_is_written_and_no_other() {
        let (result, sent) = written(true, vec![(200, live("u", "8", 5))]).await;
        assert_eq!(result.expect("written"), Wrote { version: 8, replicas: 5 });
        assert_eq!(sent, [Method::PATCH]);
        let status_came_first = vec![failure(409), (200, live("u", "9", 3)), (200, live("u", "10", 5))];
        let (result, sent) = written(true, status_came_first).await;
        assert_eq!(result.expect("written"), Wrote { version: 10, replicas: 5 });
        assert_eq!(sent, [Method::PATCH, Method::GET, Method::PATCH]);
        for other in [live("u", "9", 4), live("x", "9", 3)] {
            let (result, sent) = written(true, vec![failure(409), (200, other)]).await;
            assert!(matches!(result, Err(ScaleError::Changed)), "{result:?}");
            assert_eq!(sent, [Method::PATCH, Method::GET], "somebody scaled it, or it is another fleet");
        }
        let (result, _) = written(true, vec![failure(409), (200, live("u", "9", 3)), failure(409)]).await;
        assert!(matches!(result, Err(ScaleError::Changed)), "{result:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_one_and_has_an_end() {
        let (result, sent) = written(true, vec![failure(403)]).await;
        assert!(result.as_ref().is_err_and(ScaleError::is_failure), "{result:?}");
        assert_eq!(sent, [Method::PATCH]);
        let (result, _) = written(true, vec![]).await;
        assert!(matches!(result, Err(ScaleError::Timeout)), "{result:?}");
        let (result, sent) = written(false, vec![]).await;
        assert!(matches!(result, Err(ScaleError::NotLeader(NotLeader::Standby))), "{result:?}");
        assert_eq!(sent, [Method::GET; 0], "a standby writes nothing");
    }
}
