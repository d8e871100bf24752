//! Which Hosts may be asked for: a page that binds its own name to our address must not get through (G12). Pure.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::Routes;

/// The host of `host[:port]` or `[address][:port]`, without brackets and without the dot of the root. `None` for
/// what is neither.
pub fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let port_fits = port.is_empty() || (port.starts_with(':') && digits.bytes().all(|b| b.is_ascii_digit()));
    let host = host.strip_suffix('.').unwrap_or(host);
    let visible = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    (port_fits && !host.is_empty() && host.len() <= super::MAX_HOST && host.bytes().all(visible))
        .then_some(host)
}

/// Whether a host, without port and brackets, is this machine itself: `localhost`, 127.0.0.0/8, `::1`.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|a| a.is_loopback())
}

/// The names under which a Service is reached in its cluster. Another cluster domain than `cluster.local` goes
/// into `--allowed-hosts`.
pub fn service_names(service: &str, namespace: &str) -> [String; 4] {
    [
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ]
}

/// Which Hosts are accepted; everything else is answered with 403.
#[derive(Clone, Debug, Default)]
pub struct HostPolicy {
    exact: Vec<Box<str>>,
    /// With the dot that they start with.
    suffixes: Vec<Box<str>>,
    any: bool,
}

impl HostPolicy {
    /// Accepts these hosts, without ports, besides loopback and the host names of fleets: the names of the own
    /// Service and those of `--allowed-hosts`. `*.example.com` accepts the names below it, `*` all.
    pub fn new<S: AsRef<str>>(hosts: impl IntoIterator<Item = S>) -> Self {
        let mut policy = Self::default();
        for host in hosts {
            let host = host.as_ref().trim();
            match host.strip_prefix('*') {
                Some("") => policy.any = true,
                Some(suffix) if suffix.starts_with('.') => policy.suffixes.push(suffix.into()),
                _ => policy.exact.extend(host_of(host).or_else(|| bare_v6(host)).map(Into::into)),
            }
        }
        policy
    }

    /// Whether a request for this Host or `:authority` may pass.
    pub fn accepts(&self, authority: Option<&str>, routes: &Routes) -> bool {
        let Some(host) = authority.and_then(host_of) else { return false };
        let below = |suffix: &str| {
            let start = host.len().checked_sub(suffix.len()).filter(|start| *start > 0);
            start.and_then(|start| host.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        };
        self.any
            || self.exact.iter().any(|exact| exact.eq_ignore_ascii_case(host))
            || is_loopback(host)
            || routes.owner(host).is_some()
            || self.suffixes.iter().any(|suffix| below(suffix))
    }
}

/// An address as people write it into a list, without brackets.
fn bare_v6(host: &str) -> Option<&str> {
    host.parse::<Ipv6Addr>().is_ok().then_some(host)
}
