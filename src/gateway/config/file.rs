//! The file as it is written: types only. What the values mean is said in `resolve`. Pure.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::Value;

use super::Problem;
use crate::api::v1alpha1::{GatewaySpec, Transport};

/// The whole file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct File {
    pub(super) listen: String,
    pub(super) admin_listen: String,
    pub(super) debug_listen: String,
    pub(super) peer_listen: Option<String>,
    pub(super) tls: Vec<Tls>,
    pub(super) keys: Keys,
    pub(super) peers: Vec<String>,
    pub(super) reports: Vec<String>,
    pub(super) fleets: Vec<Fleet>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:8080".into(),
            admin_listen: "127.0.0.1:9090".into(),
            debug_listen: "127.0.0.1:9091".into(),
            peer_listen: None,
            tls: Vec::new(),
            keys: Keys::default(),
            peers: Vec::new(),
            reports: Vec::new(),
            fleets: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tls {
    #[serde(default)]
    pub(super) hosts: Vec<String>,
    pub(super) cert: String,
    pub(super) key: String,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Keys {
    pub(super) file: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fleet {
    pub(super) namespace: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) transport: Transport,
    #[serde(default)]
    pub(super) hostnames: Vec<String>,
    #[serde(default)]
    pub(super) endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    pub(super) dns: Option<String>,
    #[serde(default)]
    pub(super) gateway: GatewaySpec,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) address: String,
    #[serde(default = "one")]
    pub(super) weight: i64,
    #[serde(default)]
    pub(super) zone: Option<String>,
}

fn one() -> i64 {
    1
}

/// Its schema, written out in one piece.
pub(super) fn schema() -> Value {
    let settings = SchemaSettings::default().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<File>().to_value()
}

/// An empty file is a file without fields.
pub(super) fn parse(text: &str) -> Result<File, Problem> {
    let file: Option<File> = serde_saphyr::from_str(text).map_err(|error| Problem::from(&error))?;
    Ok(file.unwrap_or_default())
}
