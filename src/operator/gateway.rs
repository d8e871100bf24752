//! What the operator knows of the gateway of its cluster, and which fleets it serves. Pure.
//!
//! The operator works without one: then clients use the fleets' Services.

use super::validate::{DRAIN_SECONDS_WITH_GATEWAY, ServedBy, ValidatedFleet};
use crate::api::v1alpha1::Transport;

/// The gateway of the cluster, as flags describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// Where clients reach it, without a path: `http://mcp-fleet-gateway.mcp-fleet-system`.
    url: String,
    /// Namespace of its pods.
    namespace: String,
    /// The classes that it serves.
    classes: Vec<String>,
}

/// A gateway that cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "--gateway-url '{0}' is not a URL such as http://mcp-fleet-gateway.mcp-fleet-system: http or https, a host, perhaps a port, no path"
)]
pub struct InvalidUrl(String);

impl Install {
    /// From flags. `namespace` is that of the gateway's pods.
    pub fn new(url: &str, namespace: String, classes: Vec<String>) -> Result<Self, InvalidUrl> {
        let bare = url.strip_suffix('/').unwrap_or(url);
        let host = bare.strip_prefix("http://").or_else(|| bare.strip_prefix("https://"));
        let visible = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        if host.is_none_or(|h| h.is_empty() || !h.bytes().all(visible)) {
            return Err(InvalidUrl(url.chars().take(200).collect()));
        }
        Ok(Self { url: bare.to_owned(), namespace, classes })
    }

    /// Namespace of its pods.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The fleet, served by the gateway if there is one of its class, with what follows from it: its address, who
    /// gets through its network policy, a longer drain, and scaling by what the gateway measures.
    pub fn bind(install: Option<&Self>, mut fleet: ValidatedFleet) -> ValidatedFleet {
        let class = &fleet.gateway.class;
        let install = install.filter(|i| fleet.gateway.enabled && i.classes.contains(class));
        if let Some(install) = install {
            fleet.served_by =
                Some(ServedBy { url: install.url_of(&fleet), namespace: install.namespace.clone() });
            fleet.scaling = fleet.scaling_if_served.clone();
            fleet.drain.timeout_seconds = fleet.drain_seconds_named.unwrap_or(DRAIN_SECONDS_WITH_GATEWAY);
        }
        fleet
    }

    /// On the first host name of the fleet, if it has one, else below the gateway's own.
    fn url_of(&self, fleet: &ValidatedFleet) -> String {
        // The gateway takes `/mcp` for the MCP path of any fleet; clients of the old transport expect its own.
        let path = match (fleet.server.transport, fleet.server.path.as_str()) {
            (Transport::StreamableHTTP, _) => "/mcp",
            (Transport::SSE, "/mcp") => "/sse",
            (Transport::SSE, path) => path,
        };
        match fleet.gateway.hostnames.first() {
            Some(host) => {
                let scheme = self.url.split_once("://").map_or("http", |(scheme, _)| scheme);
                format!("{scheme}://{host}{path}")
            }
            None => format!("{}/{}/{}{path}", self.url, fleet.namespace, fleet.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::test_support::validated;

    fn install() -> Install {
        let classes = vec!["default".into(), "tenant-a".into()];
        Install::new("http://gate.example.com:8080/", "gates".into(), classes).expect("a URL")
    }

    fn bound(spec: &str) -> ValidatedFleet {
        Install::bind(Some(&install()), validated(spec))
    }

    #[test]
    fn the_address_is_the_gateways() {
        assert_eq!(bound("server: {image: a}").url(), "http://gate.example.com:8080/tools/weather/mcp");
        assert_eq!(
            bound("server: {image: a, path: /v1}").url(),
            "http://gate.example.com:8080/tools/weather/mcp"
        );
        assert_eq!(
            bound("server: {image: a, transport: SSE}").url(),
            "http://gate.example.com:8080/tools/weather/sse"
        );
        assert_eq!(
            bound("{server: {image: a}, gateway: {hostnames: [w.example.com, x.example.com]}}").url(),
            "http://w.example.com/mcp"
        );
    }

    #[test]
    fn without_a_gateway_of_its_class_it_is_the_services() {
        for spec in [
            "{server: {image: a}, gateway: {enabled: false, hostnames: [w.example.com]}}",
            "{server: {image: a}, gateway: {class: tenant-b}}",
        ] {
            let fleet = bound(spec);
            assert_eq!(fleet.url(), "http://weather.tools.svc/mcp", "{spec}");
            assert_eq!((fleet.served_by, fleet.drain.timeout_seconds), (None, 60), "{spec}");
        }
        assert_eq!(
            Install::bind(None, validated("server: {image: a}")).url(),
            "http://weather.tools.svc/mcp"
        );
        assert!(bound("{server: {image: a}, gateway: {class: tenant-a}}").served_by.is_some());
    }

    #[test]
    fn behind_the_gateway_a_drain_may_take_longer() {
        assert_eq!(bound("server: {image: a}").drain.timeout_seconds, 300);
        assert_eq!(
            bound("{server: {image: a}, rollout: {drainTimeoutSeconds: 45}}").drain.timeout_seconds,
            45
        );
    }

    #[test]
    fn urls_that_cannot_be_are_refused() {
        for bad in ["", "gateway", "http://", "ftp://a", "http://a/b", "http://a b", "http://a?x"] {
            assert!(Install::new(bad, "n".into(), vec![]).is_err(), "{bad}");
        }
    }
}
