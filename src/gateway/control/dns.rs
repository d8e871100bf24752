//! Addresses of a name, and who stays for a while when its address is gone.
//!
//! [`Members`] is pure: it turns successive listings into endpoints, of which those that left drain until nobody
//! holds a connection to them any more. [`resolve`] asks the system's resolver.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::lookup_host, time::timeout};

use crate::gateway::{
    fleet::{EndpointSpec, Phase},
    seal::PodId,
};

/// From one look-up to the next.
pub const EVERY: Duration = Duration::from_secs(5);
/// Longest look-up.
const PATIENCE: Duration = Duration::from_secs(4);
/// Addresses that are taken of one name.
const MAX_ADDRESSES: usize = 1000;
/// An endpoint that left drains at least so long, so that requests that have just picked it arrive …
const SHORTEST_DRAIN: Duration = Duration::from_secs(5);
/// … and at most so long.
const LONGEST_DRAIN: Duration = Duration::from_secs(300);

/// A name without an address.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The resolver said no.
    #[error("failed to look up {name}: {source}")]
    Failed {
        /// The name.
        name: String,
        /// The cause.
        source: std::io::Error,
    },
    /// It said nothing.
    #[error("failed to look up {name}: no answer within {} s", PATIENCE.as_secs())]
    Timeout {
        /// The name.
        name: String,
    },
}

/// All addresses of a name, sorted, each once.
pub async fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, DnsError> {
    let looked = timeout(PATIENCE, lookup_host((name, port)))
        .await
        .map_err(|_| DnsError::Timeout { name: name.into() })?;
    let found = looked.map_err(|source| DnsError::Failed { name: name.into(), source })?;
    let mut addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// An endpoint at an address, for sources that know no pods.
pub fn endpoint(address: SocketAddr, weight: u32, local: bool) -> EndpointSpec {
    let name = address.to_string();
    EndpointSpec { id: PodId::from_address(&name), address, name, weight, local, phase: Phase::Ready }
}

/// The endpoints of one fleet, those that left included.
#[derive(Debug, Default)]
pub struct Members {
    listed: Vec<EndpointSpec>,
    /// With the time of its leaving.
    leaving: Vec<(EndpointSpec, Duration)>,
}

impl Members {
    /// Takes over what is listed `now` (time since any fixed moment). Returns whether an address came back that
    /// still drained: a draining endpoint is never revived, so it has to be published without it first.
    pub fn list(&mut self, listed: Vec<EndpointSpec>, now: Duration) -> bool {
        let before = std::mem::replace(&mut self.listed, listed);
        let is_listed = |spec: &EndpointSpec| self.listed.iter().any(|l| l.id == spec.id);
        let count = self.leaving.len();
        self.leaving.retain(|(spec, _)| !is_listed(spec));
        let revived = self.leaving.len() < count;
        let left = before.into_iter().filter(|spec| !is_listed(spec));
        self.leaving.extend(left.map(|spec| (EndpointSpec { phase: Phase::Draining, ..spec }, now)));
        revived
    }

    /// Drops those that have drained; `busy` says whether anybody still holds a connection to one. Returns
    /// whether any went.
    pub fn sweep(&mut self, now: Duration, busy: impl Fn(PodId) -> bool) -> bool {
        let count = self.leaving.len();
        self.leaving.retain(|(spec, since)| {
            let age = now.saturating_sub(*since);
            age < SHORTEST_DRAIN || (age < LONGEST_DRAIN && busy(spec.id))
        });
        self.leaving.len() < count
    }

    /// Whether exactly these are listed now.
    pub fn lists(&self, listed: &[EndpointSpec]) -> bool {
        self.listed == listed
    }

    /// As they are published.
    pub fn endpoints(&self) -> Vec<EndpointSpec> {
        self.listed.iter().chain(self.leaving.iter().map(|(spec, _)| spec)).cloned().collect()
    }

    /// Without those that are listed: see [`Self::list`].
    pub fn only_leaving(&self) -> Vec<EndpointSpec> {
        self.leaving.iter().map(|(spec, _)| spec.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> EndpointSpec {
        endpoint(SocketAddr::from(([127, 0, 0, 1], port)), 1, true)
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn shown(members: &Members) -> Vec<(u16, Phase)> {
        members.endpoints().iter().map(|e| (e.address.port(), e.phase)).collect()
    }

    #[test]
    fn who_left_drains_until_nobody_holds_it() {
        let mut members = Members::default();
        assert!(!members.list(vec![at(1), at(2)], seconds(0)));
        assert!(!members.list(vec![at(1)], seconds(10)));
        assert_eq!(shown(&members), [(1, Phase::Ready), (2, Phase::Draining)]);
        assert!(!members.sweep(seconds(14), |_| false), "requests may be on their way");
        assert!(!members.sweep(seconds(20), |id| id == at(2).id));
        assert!(members.sweep(seconds(21), |_| false));
        assert_eq!(shown(&members), [(1, Phase::Ready)]);
    }

    #[test]
    fn nobody_drains_for_ever() {
        let mut members = Members::default();
        members.list(vec![at(1)], seconds(0));
        members.list(vec![], seconds(1));
        assert!(!members.sweep(seconds(300), |_| true));
        assert!(members.sweep(seconds(301), |_| true));
        assert!(members.endpoints().is_empty());
    }

    #[test]
    fn an_address_that_comes_back_is_a_new_endpoint() {
        let mut members = Members::default();
        members.list(vec![at(1), at(2)], seconds(0));
        members.list(vec![at(1)], seconds(1));
        assert!(members.list(vec![at(1), at(2)], seconds(2)));
        assert_eq!(shown(&members), [(1, Phase::Ready), (2, Phase::Ready)]);
        assert!(members.only_leaving().is_empty());
    }

    #[tokio::test]
    async fn a_name_has_addresses_or_an_error_that_names_it() {
        let found = resolve("localhost", 80).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|a| a.ip().is_loopback() && a.port() == 80));
        let error = resolve("no-such-host.invalid", 80).await.unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }
}
