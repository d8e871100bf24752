//! Fixtures of the unit tests: tiny YAML through the real validation.

use kube::api::ObjectMeta;

use super::{
    gateway::Install,
    validate::{ValidatedFleet, validate},
};
use crate::api::v1alpha1::{McpFleet, McpFleetSpec};

/// A fleet called `weather` in the namespace `tools`; deliberately not a name of the product.
pub(crate) fn fleet(spec: &str) -> McpFleet {
    let spec: McpFleetSpec = serde_saphyr::from_str(spec).expect("test YAML");
    McpFleet {
        metadata: ObjectMeta {
            name: Some("weather".into()),
            namespace: Some("tools".into()),
            uid: Some("uid-1".into()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// The same, validated.
pub(crate) fn validated(spec: &str) -> ValidatedFleet {
    validate(&fleet(spec)).expect("a valid test fleet")
}

/// The same behind a gateway whose pods are in the namespace `gates`.
pub(crate) fn served(spec: &str) -> ValidatedFleet {
    let install = Install::new("http://gate.example.com", "gates".into(), vec!["default".into()]);
    Install::bind(install.ok().as_ref(), validated(spec))
}
