//! R13, R14: what somebody else does to our objects, and what we do to somebody else's.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::{Api, ResourceExt, api::DeleteParams};

use crate::support::{Suite, TestResult, wait};

pub async fn a_deleted_child_returns(suite: Arc<Suite>) -> TestResult {
    suite.operator();
    let ns = suite.namespace("deleted").await?;
    ns.fleet("weather", "{replicas: 2, server: {image: a}}").await?;
    let services: Api<Service> = ns.api();
    let exists = async || services.get("weather").await.map_err(|e| e.to_string());
    let first = wait::until("the Service", wait::LIMIT, exists).await?;
    services.delete("weather", &DeleteParams::default()).await?;
    wait::until("the Service again", wait::LIMIT, async || {
        let again = services.get("weather").await.map_err(|e| e.to_string())?;
        if again.uid() == first.uid() { Err("it is still the old one".into()) } else { Ok(()) }
    })
    .await
}
