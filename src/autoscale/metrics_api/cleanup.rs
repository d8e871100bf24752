//! `mcp-fleet cleanup`: removes what the operator has made for itself, before it is uninstalled. An APIService that
//! leads nowhere makes discovery partial and keeps namespaces from being deleted, in the whole cluster.
//!
//! The operator still runs then, and would make again what is missing. So first its ConfigMap is marked, and replicas
//! that see the mark leave everything alone for ten minutes. Done twice it does no harm.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::ConfigMap, kube_aggregator::pkg::apis::apiregistration::v1::APIService};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tokio::time::sleep;

use super::apiservice::{self, Ours};
use crate::runtime::client::{self, CallMetrics, Retry};

/// The mark: when it was made.
const RETIRED_AT: &str = "mcpfleet.io/retired-at";
/// How long the mark counts. An uninstallation that failed must not leave an operator without its API for ever.
const RETIRED: Duration = Duration::from_secs(600);
/// Time for the operator to see the mark, or for something to come back.
const PAUSE: Duration = Duration::from_secs(2);
/// Attempts at one object.
const ATTEMPTS: u32 = 5;

/// Flags of `mcp-fleet cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,

    /// Service behind the APIService. One that leads to another Service is left alone.
    #[arg(long, env = "MCP_FLEET_METRICS_API_SERVICE", value_name = "NAME")]
    pub metrics_api_service: Option<String>,

    /// ConfigMap with the operator's certificates.
    #[arg(long, env = "MCP_FLEET_CA_CONFIG_MAP", value_name = "NAME")]
    pub ca_config_map: Option<String>,
}

/// Removes both, and says what it did, line by line.
pub async fn run(args: CleanupArgs, say: impl FnMut(&str)) -> anyhow::Result<()> {
    let config = client::infer_config().await?;
    let client = client::build(config, Retry::Few, &CallMetrics::default())?;
    clean(&client, args, say).await
}

/// As [`run`], with a client.
pub async fn clean(client: &Client, args: CleanupArgs, mut say: impl FnMut(&str)) -> anyhow::Result<()> {
    let CleanupArgs { namespace, metrics_api_service, ca_config_map } = args;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let map = ca_config_map.filter(|name| !name.is_empty());
    if let Some(name) = &map
        && mark(&maps, name).await?
    {
        say(&format!(
            "ConfigMap {namespace}/{name}: marked; the operator leaves everything alone from now on"
        ));
        sleep(PAUSE).await;
    }
    if let Some(service) = metrics_api_service.filter(|name| !name.is_empty()) {
        let ours = Ours { namespace: namespace.clone(), service };
        say(&remove_service(&Api::all(client.clone()), &ours).await?);
    }
    if let Some(name) = &map {
        say(&remove_map(&maps, &namespace, name).await?);
    }
    Ok(())
}

/// How long the mark of a ConfigMap still counts. `now` in seconds since the Unix epoch.
pub(super) fn retired_for(map: &ConfigMap, now: i64) -> Option<Duration> {
    let at: Timestamp = map.annotations().get(RETIRED_AT)?.parse().ok()?;
    let age = Duration::from_secs(at.as_second().abs_diff(now));
    RETIRED.checked_sub(age).filter(|left| !left.is_zero())
}

async fn mark(maps: &Api<ConfigMap>, name: &str) -> anyhow::Result<bool> {
    let patch = json!({"metadata": {"annotations": {RETIRED_AT: Timestamp::now().to_string()}}});
    let params = PatchParams { field_manager: Some("mcp-fleet-cleanup".into()), ..PatchParams::default() };
    match maps.patch(name, &params, &Patch::Merge(patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(error).with_context(|| format!("failed to mark ConfigMap {name}")),
    }
}

async fn remove_service(api: &Api<APIService>, ours: &Ours) -> anyhow::Result<String> {
    let name = apiservice::NAME;
    let mut removed = false;
    for _ in 0..ATTEMPTS {
        let found = api.get_opt(name).await.with_context(|| format!("failed to read APIService {name}"))?;
        let Some(found) = found else {
            let done = if removed { "deleted" } else { "is not there" };
            return Ok(format!("APIService {name}: {done}"));
        };
        if !found.spec.as_ref().is_some_and(|spec| apiservice::is_ours(spec, ours)) {
            return Ok(format!("APIService {name}: belongs to somebody else, left alone"));
        }
        let params = exactly(found.metadata.uid, found.metadata.resource_version);
        removed |= deleted(api.delete(name, &params).await)
            .with_context(|| format!("failed to delete APIService {name}"))?;
        // It must stay away.
        sleep(PAUSE).await;
    }
    bail!(
        "APIService {name} comes back: an operator without the mark makes it again; end it, then run this once more"
    )
}

async fn remove_map(api: &Api<ConfigMap>, namespace: &str, name: &str) -> anyhow::Result<String> {
    let what = format!("ConfigMap {namespace}/{name}");
    for _ in 0..ATTEMPTS {
        let found = api.get_opt(name).await.with_context(|| format!("failed to read {what}"))?;
        let Some(found) = found else { return Ok(format!("{what}: is not there")) };
        let (label, value) = apiservice::MANAGED_BY;
        if found.labels().get(label).map(String::as_str) != Some(value) {
            return Ok(format!("{what}: is not labelled {label}={value}, left alone"));
        }
        let params = exactly(found.metadata.uid, found.metadata.resource_version);
        if deleted(api.delete(name, &params).await).with_context(|| format!("failed to delete {what}"))? {
            return Ok(format!("{what}: deleted"));
        }
    }
    bail!("{what} changes again and again, and was not deleted; end the operator, then run this once more")
}

/// Just what was looked at.
fn exactly(uid: Option<String>, resource_version: Option<String>) -> DeleteParams {
    let preconditions = Preconditions { uid, resource_version };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

/// Whether it went. Changed in between, or gone already: another look tells.
fn deleted<T>(result: kube::Result<T>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_ten_minutes() {
        let map = |at: &str| {
            let json = json!({"metadata": {"annotations": {RETIRED_AT: at}}});
            serde_json::from_value::<ConfigMap>(json).unwrap()
        };
        let now = 1_795_208_400;
        let marked = map("2026-11-20T21:00:00Z");
        assert_eq!(retired_for(&marked, now), Some(RETIRED));
        assert_eq!(retired_for(&marked, now + 599), Some(Duration::from_secs(1)));
        assert_eq!(retired_for(&marked, now + 600), None);
        assert_eq!(retired_for(&marked, now - 5), Some(Duration::from_secs(595)), "clocks differ");
        assert_eq!(retired_for(&map("soon"), now), None);
        assert_eq!(retired_for(&ConfigMap::default(), now), None);
    }
}
