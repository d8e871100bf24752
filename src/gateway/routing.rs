//! From host and path to a fleet (gateway.md section 5, G12). Pure; borrows, and allocates nothing per request.
//!
//! | request | goes to |
//! |---|---|
//! | `/<namespace>/<fleet>/mcp` | the fleet's own MCP path |
//! | `/<namespace>/<fleet>/<rest>` | `/<rest>` of the fleet |
//! | any path on a host name of a fleet | the same path of the fleet; `/mcp` is its MCP path |
//! | `/.well-known/oauth-protected-resource/<namespace>/<fleet>/mcp` | the metadata of that fleet (RFC 9728) |
//! | the root forms of it on a host name of a fleet | the metadata of that fleet |
//!
//! Namespace and name are compared byte by byte: names have no escapes, so that encoded separators and dot
//! segments in the prefix are simply no fleet's.

use std::collections::HashMap;

use crate::domain::FleetKey;

mod hosts;
mod origins;
#[cfg(test)]
mod tests;

pub use hosts::{HostPolicy, host_of, is_loopback, service_names};
pub use origins::{OriginPolicy, cors_headers, preflight_headers};

/// What clients write for the MCP path of any fleet.
const MCP: &str = "/mcp";
/// Protected resource metadata (RFC 9728 section 3.1).
const METADATA: &str = "/.well-known/oauth-protected-resource";
/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;

/// The way to each fleet.
#[derive(Debug, Default)]
pub struct Routes {
    fleets: Vec<Paths>,
    /// `namespace/name` → index.
    names: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    /// Host name in lower case → index.
    hosts: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Paths {
    mcp: Box<str>,
    metadata: Box<str>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// To a fleet.
    Fleet {
        /// Which, in the order given to [`Routes::new`].
        index: usize,
        /// What clients have before the paths of the fleet: `/<namespace>/<fleet>`, or nothing on its host names.
        prefix: &'a str,
        /// The path to ask its servers for, starting with `/`.
        rest_path: &'a str,
        /// It is the MCP path.
        mcp: bool,
    },
    /// To the protected resource metadata of a fleet.
    WellKnown {
        /// Which.
        index: usize,
        /// As of [`Route::Fleet`].
        prefix: &'a str,
        /// The path to ask its servers for.
        rest_path: &'a str,
    },
    /// Nowhere.
    Unknown,
}

impl Routes {
    /// Of fleets with their MCP path, which starts with `/`, and host names. Of several fleets with one host
    /// name, the first has it.
    pub fn new(fleets: impl IntoIterator<Item = (FleetKey, String, Vec<String>)>) -> Self {
        let mut routes = Self::default();
        for (index, (key, path, hostnames)) in fleets.into_iter().enumerate() {
            // The root as a resource has no path of its own (RFC 9728 section 3).
            let metadata = if path == "/" { METADATA.into() } else { format!("{METADATA}{path}").into() };
            routes.fleets.push(Paths { mcp: path.into(), metadata });
            routes.names.entry(key.to_string().into()).or_insert(index);
            for host in hostnames {
                routes.hosts.entry(host.to_ascii_lowercase().into()).or_insert(index);
            }
        }
        routes
    }

    /// The fleet that a host name belongs to. `host` is that of the request, with or without a port.
    pub fn owner(&self, host: &str) -> Option<usize> {
        if self.hosts.is_empty() {
            return None;
        }
        let host = host_of(host)?;
        if !host.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.hosts.get(host).copied();
        }
        let mut buffer = [0; MAX_HOST];
        let lower = buffer.get_mut(..host.len())?;
        lower.copy_from_slice(host.as_bytes());
        lower.make_ascii_lowercase();
        self.hosts.get(std::str::from_utf8(lower).ok()?).copied()
    }

    /// Where a request goes. `host` is its Host or `:authority`, `path` its path without the query.
    pub fn route<'a>(&'a self, host: Option<&str>, path: &'a str) -> Route<'a> {
        match host.and_then(|host| self.owner(host)) {
            Some(index) => self.within(index, "", path),
            None => self.by_path(path),
        }
    }

    fn by_path<'a>(&'a self, path: &'a str) -> Route<'a> {
        if let Some(resource) = path.strip_prefix(METADATA) {
            return match self.named(resource) {
                Some((index, prefix, rest)) if rest == MCP || *rest == *self.fleets[index].mcp => {
                    Route::WellKnown { index, prefix, rest_path: &self.fleets[index].metadata }
                }
                _ => Route::Unknown,
            };
        }
        match self.named(path) {
            Some((index, prefix, rest)) => self.plain(index, prefix, rest),
            None => Route::Unknown,
        }
    }

    /// Splits `/<namespace>/<fleet>/<rest>` after the fleet.
    fn named<'a>(&self, path: &'a str) -> Option<(usize, &'a str, &'a str)> {
        let name = path.strip_prefix('/')?;
        let namespace = name.find('/')?;
        let end = namespace + 1 + name[namespace + 1..].find('/')?;
        let index = *self.names.get(&name[..end])?;
        // The slash before the namespace is one byte.
        Some((index, &path[..=end], &path[end + 1..]))
    }

    fn within<'a>(&'a self, index: usize, prefix: &'a str, path: &'a str) -> Route<'a> {
        let fleet = &self.fleets[index];
        let rest_path = match path.strip_prefix(METADATA) {
            Some("" | "/") => METADATA,
            Some(resource) if resource == MCP || *resource == *fleet.mcp => &fleet.metadata,
            _ => return self.plain(index, prefix, path),
        };
        Route::WellKnown { index, prefix, rest_path }
    }

    fn plain<'a>(&'a self, index: usize, prefix: &'a str, path: &'a str) -> Route<'a> {
        let own: &str = &self.fleets[index].mcp;
        let mcp = path == MCP || path == own;
        if !path.starts_with('/') {
            // `*` of OPTIONS, or the authority of CONNECT.
            return Route::Unknown;
        }
        Route::Fleet { index, prefix, rest_path: if mcp { own } else { path }, mcp }
    }
}
