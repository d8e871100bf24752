//! Names of fleets and of what is derived from them.

use std::fmt;

/// Longest name of a fleet. Children add at most `-headless`, and a Service name has at most 63 characters.
const MAX_LEN: usize = 50;

/// The name of a fleet: `^[a-z]([-a-z0-9]*[a-z0-9])?$`, at most 50 characters, so that it can be the name
/// of a Service (RFC 1035).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FleetName(String);

/// A name that cannot be a fleet's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "metadata.name '{0}' must be at most 50 characters of a-z, 0-9 and '-', start with a letter and not end with '-'"
)]
pub struct InvalidName(String);

impl FleetName {
    /// Checks a name.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        let bytes = name.as_bytes();
        let body = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let valid = bytes.len() <= MAX_LEN
            && bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.last().is_some_and(|b| *b != b'-')
            && bytes.iter().all(body);
        if valid { Ok(Self(name.to_owned())) } else { Err(InvalidName(name.chars().take(80).collect())) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the headless Service.
    pub fn headless(&self) -> String {
        format!("{}-headless", self.0)
    }

    /// Name of the generated `ServiceAccount`. Prefixed, because a fleet may be called `default`.
    pub fn service_account(&self) -> String {
        format!("mcp-{}", self.0)
    }
}

impl fmt::Display for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which fleet: namespace and name. Names that are not valid can stand here too; they name an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FleetKey {
    /// Namespace of the fleet.
    pub namespace: String,
    /// Name of the fleet.
    pub name: String,
}

impl FleetKey {
    /// From its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_service_can_have() {
        for good in ["a", "github", "a-1", &"a".repeat(50)] {
            assert_eq!(FleetName::parse(good).map(|n| n.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in ["", "1a", "-a", "a-", "A", "a.b", "ä", "a b", &"a".repeat(51)] {
            assert!(FleetName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn derived_names_stay_in_bounds() {
        let longest = FleetName::parse(&"a".repeat(50)).expect("valid");
        assert!(longest.headless().len() <= 63);
        assert!(longest.service_account().len() <= 63);
    }
}
