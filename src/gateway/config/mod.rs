//! The standalone configuration: fleets and endpoints out of a YAML file instead of a cluster.
//!
//! ```text
//! text ──▶ tree (where is what) ──▶ file (types) ──▶ resolve (meaning) ──▶ GatewayConfig
//! ```
//!
//! Whatever is wrong is said at once, with the place, and with what to write instead. A configuration that was
//! read without a problem needs no further check. Files are read here and in [`watch`] only.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::settings::Settings;
use crate::domain::Tree;
pub use crate::{api::v1alpha1::Transport, domain::Problem};

pub mod check;
mod file;
mod material;
mod resolve;
#[cfg(test)]
mod tests;
pub mod watch;

/// Greatest size of a configuration, in bytes.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// A configuration that has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayConfig {
    /// Where clients come in.
    pub listen: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin_listen: SocketAddr,
    /// `/admin`, read-only.
    pub debug_listen: SocketAddr,
    /// Where the other gateways of the set ask this one.
    pub peer_listen: Option<SocketAddr>,
    /// Certificates of the listener; empty: cleartext.
    pub tls: Vec<TlsEntry>,
    /// The key ring; `None` only where an ephemeral key was asked for.
    pub keys_file: Option<PathBuf>,
    /// Other gateways of the set, `host:port`.
    pub peers: Vec<String>,
    /// Receivers of load reports, URLs.
    pub reports: Vec<String>,
    /// What is served.
    pub fleets: Vec<FleetConfig>,
}

/// A certificate and the names it is shown for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsEntry {
    /// Host names, or `*.` and a host name; empty: whoever asks for a name that no other entry has.
    pub hosts: Vec<String>,
    /// PEM file with the chain, own certificate first.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// A fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetConfig {
    /// Its namespace: the first part of its path.
    pub namespace: String,
    /// Its name: the second part.
    pub name: String,
    /// MCP path of its servers.
    pub path: String,
    /// How its servers speak.
    pub transport: Transport,
    /// Names that belong to it alone; the same as in [`Self::settings`].
    pub hostnames: Vec<String>,
    /// Where its servers are.
    pub source: EndpointSource,
    /// `gateway`, validated.
    pub settings: Settings,
}

/// Where the servers of a fleet are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointSource {
    /// Listed.
    Static(Vec<StaticEndpoint>),
    /// All addresses of a name.
    Dns {
        /// The name.
        name: String,
        /// Their port.
        port: u16,
    },
}

/// A listed server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticEndpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Its share under weighted strategies, 1 to 1000.
    pub weight: u32,
    /// Its zone, where zones matter.
    pub zone: Option<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is absurdly large.
    #[error("the configuration {path} has more than {MAX_BYTES} bytes")]
    TooBig {
        /// The file.
        path: PathBuf,
    },
    /// What stands in it is wrong.
    #[error("the configuration {path} has {} problem(s):{}", .problems.len(), lines(.problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it; never empty.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// What is wrong, one by one.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Invalid { problems, .. } => problems.clone(),
            Self::Read { source, .. } => {
                vec![Problem { at: String::new(), place: None, message: format!("{self}: {source}") }]
            }
            Self::TooBig { .. } => {
                vec![Problem { at: String::new(), place: None, message: self.to_string() }]
            }
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |text, problem| format!("{text}\n  {problem}"))
}

/// Reads and checks a configuration. Relative paths in it count from the folder that it lies in.
pub fn load(path: &Path) -> Result<GatewayConfig, ConfigError> {
    parse(&read(path)?, path).map(|(config, _)| config)
}

/// Reads and checks a configuration that lies in no file; relative paths count from the current folder.
pub fn from_text(text: &str) -> Result<GatewayConfig, ConfigError> {
    parse(text, Path::new("-")).map(|(config, _)| config)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    use std::io::Read as _;
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES { Err(ConfigError::TooBig { path: path.to_owned() }) } else { Ok(text) }
}

/// The configuration in `text`, and what is worth a word though it is not wrong.
fn parse(text: &str, path: &Path) -> Result<(GatewayConfig, Vec<Problem>), ConfigError> {
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    let tree = Tree::parse(text).map_err(|problem| invalid(vec![problem]))?;
    let mut problems = tree.unknown_fields(&file::schema());
    match file::parse(text) {
        Err(problem) => {
            problems.push(problem);
            Err(invalid(problems))
        }
        Ok(file) => {
            let folder = path.parent().unwrap_or(Path::new(""));
            let (config, found, notes) = resolve::resolve(file, folder, &tree);
            problems.extend(found);
            if problems.is_empty() { Ok((config, notes)) } else { Err(invalid(problems)) }
        }
    }
}
