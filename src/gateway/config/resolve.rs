//! What the file means: types → [`GatewayConfig`], with everything that is wrong. Does no I/O but for the
//! certificates and keys that it looks at through `material`.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{
    EndpointSource, FleetConfig, GatewayConfig, Problem, StaticEndpoint, TlsEntry, Transport, file, material,
};
use crate::{
    domain::{FleetName, Tree},
    gateway::settings::{Settings, is_hostname},
};

/// Bounds of the lists of a file.
const MAX_FLEETS: usize = 10_000;
const MAX_ENDPOINTS: usize = 1000;
const MAX_OTHERS: usize = 64;

/// Why `https://` does not work, in the words of gateway.md section 5.
const CLEARTEXT: &str = "upstream is cleartext HTTP/1.1 only: https:// is not possible; write host:port of a \
                         server, or of a proxy beside it, that speaks plain HTTP";

struct Resolver<'a> {
    tree: &'a Tree,
    folder: &'a Path,
    problems: Vec<Problem>,
    notes: Vec<Problem>,
}

/// The configuration, what is wrong with it, and what is worth a word. With problems, the configuration is not
/// to be used.
pub(super) fn resolve(
    file: file::File,
    folder: &Path,
    tree: &Tree,
) -> (GatewayConfig, Vec<Problem>, Vec<Problem>) {
    let file::File { listen, admin_listen, debug_listen, peer_listen, tls, keys, peers, reports, fleets } =
        file;
    let mut all = Resolver { tree, folder, problems: Vec::new(), notes: Vec::new() };
    let config = GatewayConfig {
        listen: all.listen("listen", &listen),
        admin_listen: all.listen("adminListen", &admin_listen),
        debug_listen: all.listen("debugListen", &debug_listen),
        peer_listen: peer_listen.map(|address| all.listen("peerListen", &address)),
        tls: all.tls(tls),
        keys_file: keys.file.map(|path| all.keys(&path)),
        peers: all.peers(peers),
        reports: all.reports(reports),
        fleets: all.fleets(fleets),
    };
    all.together(&config);
    (config, all.problems, all.notes)
}

impl Resolver<'_> {
    fn wrong(&mut self, at: impl Into<String>, message: impl Into<String>) {
        let at = at.into();
        self.problems.push(Problem { place: self.tree.place(&at), at, message: message.into() });
    }

    fn note(&mut self, at: impl Into<String>, message: impl Into<String>) {
        let at = at.into();
        self.notes.push(Problem { place: self.tree.place(&at), at, message: message.into() });
    }

    fn bounded<T>(&mut self, at: &str, list: &[T], max: usize) {
        if list.len() > max {
            self.wrong(at, format!("has {} entries; at most {max} are possible", list.len()));
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn listen(&mut self, at: &str, address: &str) -> SocketAddr {
        address.parse().unwrap_or_else(|_| {
            let problem = format!("'{}' is not an address and port such as 0.0.0.0:8080", short(address));
            self.wrong(at, problem);
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn tls(&mut self, entries: Vec<file::Tls>) -> Vec<TlsEntry> {
        self.bounded("tls", &entries, MAX_OTHERS);
        let mut owners: HashMap<Option<String>, usize> = HashMap::new();
        let resolve = |(i, entry): (usize, file::Tls)| {
            let file::Tls { hosts, cert, key } = entry;
            for (j, host) in hosts.iter().enumerate() {
                let at = format!("tls[{i}].hosts[{j}]");
                if !is_hostname(host.strip_prefix("*.").unwrap_or(host)) {
                    let what = "is not a host name such as mcp.example.com or *.example.com, in lower case";
                    self.wrong(&at, format!("'{}' {what}", short(host)));
                } else if let Some(other) = owners.insert(Some(host.clone()), i) {
                    self.wrong(
                        &at,
                        format!("'{host}' has a certificate already, in tls[{other}]; leave one out"),
                    );
                }
            }
            if hosts.is_empty()
                && let Some(other) = owners.insert(None, i)
            {
                let problem =
                    format!("only one entry can be without hosts, and tls[{other}] is; name its hosts");
                self.wrong(format!("tls[{i}]"), problem);
            }
            let (cert, key) = (self.path(&cert), self.path(&key));
            let chain = material::certificate(&cert);
            if let Err(problem) = &chain {
                self.wrong(format!("tls[{i}].cert"), problem.clone());
            }
            if let Err(problem) = material::private_key(&key, chain.ok()) {
                self.wrong(format!("tls[{i}].key"), problem);
            }
            TlsEntry { hosts, cert, key }
        };
        entries.into_iter().enumerate().map(resolve).collect()
    }

    fn keys(&mut self, path: &str) -> PathBuf {
        let path = self.path(path);
        if let Err(problem) = material::keys(&path) {
            self.wrong("keys.file", problem);
        }
        path
    }

    fn peers(&mut self, peers: Vec<String>) -> Vec<String> {
        self.bounded("peers", &peers, MAX_OTHERS);
        for (i, peer) in peers.iter().enumerate() {
            let at = format!("peers[{i}]");
            if host_port(peer).is_none() {
                self.wrong(&at, format!("'{}' is not host:port, such as gateway-2:8082", short(peer)));
            } else if peers[..i].contains(peer) {
                self.wrong(&at, format!("'{peer}' stands there twice; leave one out"));
            }
        }
        peers
    }

    fn reports(&mut self, reports: Vec<String>) -> Vec<String> {
        self.bounded("reports", &reports, MAX_OTHERS);
        for (i, report) in reports.iter().enumerate() {
            let url = report.parse::<http::Uri>().ok().filter(|url| {
                matches!(url.scheme_str(), Some("http" | "https"))
                    && url.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
            });
            if url.is_none() {
                let problem =
                    format!("'{}' is not a URL such as https://reports.example.com/v1", short(report));
                self.wrong(format!("reports[{i}]"), problem);
            }
        }
        reports
    }

    fn fleets(&mut self, fleets: Vec<file::Fleet>) -> Vec<FleetConfig> {
        self.bounded("fleets", &fleets, MAX_FLEETS);
        if fleets.is_empty() {
            self.note("fleets", "there are none; every request is answered with 404");
        }
        let mut names: HashMap<(String, String), usize> = HashMap::new();
        let mut hosts: HashMap<String, usize> = HashMap::new();
        let mut resolved = Vec::with_capacity(fleets.len());
        for (i, fleet) in fleets.into_iter().enumerate() {
            let at = format!("fleets[{i}]");
            let fleet = self.fleet(&at, fleet);
            if let Some(other) = names.insert((fleet.namespace.clone(), fleet.name.clone()), i) {
                let full = format!("{}/{}", fleet.namespace, fleet.name);
                self.wrong(
                    format!("{at}.name"),
                    format!("{full} is fleets[{other}] already; give it another name"),
                );
            }
            for host in &fleet.hostnames {
                if let Some(other) = hosts.insert(host.clone(), i).filter(|other| *other != i) {
                    let problem =
                        format!("'{host}' belongs to fleets[{other}] already; a name can belong to one");
                    self.wrong(format!("{at}.hostnames"), problem);
                }
            }
            resolved.push(fleet);
        }
        resolved
    }

    fn fleet(&mut self, at: &str, fleet: file::Fleet) -> FleetConfig {
        let file::Fleet { namespace, name, path, transport, hostnames, endpoints, dns, mut gateway } = fleet;
        if !is_namespace(&namespace) {
            let what =
                "is not at most 63 characters of a-z, 0-9 and '-'; it becomes the first part of the path";
            self.wrong(format!("{at}.namespace"), format!("'{}' {what}", short(&namespace)));
        }
        if FleetName::parse(&name).is_err() {
            let what = "is not at most 50 characters of a-z, 0-9 and '-' that start with a letter";
            self.wrong(format!("{at}.name"), format!("'{}' {what}", short(&name)));
        }
        let path = path.unwrap_or_else(|| if transport == Transport::SSE { "/sse" } else { "/mcp" }.into());
        if !is_path(&path) {
            let what =
                "is not a path such as /mcp: it starts with '/' and has no '?', '#', '%', '..' or blanks";
            self.wrong(format!("{at}.path"), format!("'{}' {what}", short(&path)));
        }
        let source = self.source(at, endpoints, dns);
        for (i, host) in hostnames.iter().enumerate() {
            let here = format!("{at}.hostnames[{i}]");
            if !is_hostname(host) {
                let what =
                    "is not a host name such as mcp.example.com: lower case, no scheme, port or wildcard";
                self.wrong(here, format!("'{}' {what}", short(host)));
            } else if hostnames[..i].contains(host) || gateway.hostnames.contains(host) {
                self.wrong(here, format!("'{host}' stands there twice; leave one out"));
            }
        }
        if !gateway.enabled {
            self.note(format!("{at}.gateway.enabled"), "is false: the fleet is not served");
        }
        let settings = Settings::try_from(&gateway).unwrap_or_else(|errors| {
            for error in errors.0 {
                self.wrong(format!("{at}.gateway.{}", error.field), error.problem);
            }
            gateway.hostnames.clear();
            Settings::default()
        });
        let hostnames: Vec<String> = hostnames.into_iter().chain(gateway.hostnames).collect();
        let settings = Settings { hostnames: hostnames.clone(), ..settings };
        FleetConfig { namespace, name, path, transport, hostnames, source, settings }
    }

    fn source(
        &mut self,
        at: &str,
        endpoints: Option<Vec<file::Endpoint>>,
        dns: Option<String>,
    ) -> EndpointSource {
        match (endpoints, dns) {
            (Some(endpoints), None) => self.endpoints(&format!("{at}.endpoints"), endpoints),
            (None, Some(dns)) => self.dns(&format!("{at}.dns"), &dns),
            (Some(endpoints), Some(dns)) => {
                self.wrong(
                    at,
                    "has both endpoints and dns; keep endpoints to list servers, or dns to look them up",
                );
                // What else is wrong with them is said in one go.
                self.dns(&format!("{at}.dns"), &dns);
                self.endpoints(&format!("{at}.endpoints"), endpoints)
            }
            (None, None) => {
                let problem = "has neither endpoints nor dns; write endpoints: [{address: 127.0.0.1:9001}], or \
                               dns: name:port";
                self.wrong(at, problem);
                EndpointSource::Static(Vec::new())
            }
        }
    }

    fn endpoints(&mut self, at: &str, endpoints: Vec<file::Endpoint>) -> EndpointSource {
        self.bounded(at, &endpoints, MAX_ENDPOINTS);
        if endpoints.is_empty() {
            self.note(at, "is empty: requests wait for a server until they time out");
        }
        let mut found: Vec<StaticEndpoint> = Vec::with_capacity(endpoints.len());
        for (i, endpoint) in endpoints.into_iter().enumerate() {
            let file::Endpoint { address, weight, zone } = endpoint;
            let here = format!("{at}[{i}]");
            let weight = u32::try_from(weight).ok().filter(|w| (1..=1000).contains(w)).unwrap_or_else(|| {
                self.wrong(format!("{here}.weight"), format!("{weight} is not a number from 1 to 1000"));
                1
            });
            if zone
                .as_ref()
                .is_some_and(|z| z.is_empty() || z.len() > 63 || !z.bytes().all(|b| b.is_ascii_graphic()))
            {
                self.wrong(
                    format!("{here}.zone"),
                    "must have 1 to 63 visible characters; leave it out otherwise",
                );
            }
            match endpoint_address(&address) {
                Err(problem) => self.wrong(format!("{here}.address"), problem),
                Ok(address) if found.iter().any(|e| e.address == address) => {
                    let problem = format!("{address} stands there twice; leave one out, or use weight");
                    self.wrong(format!("{here}.address"), problem);
                }
                Ok(address) => found.push(StaticEndpoint { address, weight, zone }),
            }
        }
        EndpointSource::Static(found)
    }

    fn dns(&mut self, at: &str, dns: &str) -> EndpointSource {
        let problem = match (dns.split_once("://"), host_port(dns)) {
            (Some(("https", _)), _) => CLEARTEXT.to_owned(),
            (Some((_, rest)), _) => {
                format!("leave out the scheme: write {}", short(rest.trim_end_matches('/')))
            }
            (None, None) => format!("'{}' is not name:port, such as weather:8080", short(dns)),
            (None, Some((host, _))) if host.parse::<IpAddr>().is_ok() || host.starts_with('[') => {
                "is an address; list it under endpoints".to_owned()
            }
            (None, Some((name, port))) => return EndpointSource::Dns { name: name.to_owned(), port },
        };
        self.wrong(at, problem);
        EndpointSource::Static(Vec::new())
    }

    /// What only the whole can tell.
    fn together(&mut self, config: &GatewayConfig) {
        let GatewayConfig { listen, admin_listen, debug_listen, peer_listen, keys_file, peers, .. } = config;
        let mut listeners =
            vec![("listen", *listen), ("adminListen", *admin_listen), ("debugListen", *debug_listen)];
        listeners.extend(peer_listen.map(|address| ("peerListen", address)));
        for (i, (field, address)) in listeners.iter().enumerate() {
            let same = |other: &SocketAddr| {
                let everywhere = address.ip().is_unspecified() || other.ip().is_unspecified();
                address.port() != 0
                    && address.port() == other.port()
                    && (everywhere || address.ip() == other.ip())
            };
            if let Some((other, _)) = listeners[..i].iter().find(|(_, other)| same(other)) {
                self.wrong(*field, format!("{address} is taken by {other} already; use another port"));
            }
        }
        if !debug_listen.ip().is_loopback() {
            self.note(
                "debugListen",
                "is not a loopback address: /admin tells anyone who reaches it about fleets",
            );
        }
        if !peers.is_empty() && peer_listen.is_none() {
            self.wrong(
                "peers",
                "peers ask back; set peerListen to where they reach this gateway, such as 0.0.0.0:8082",
            );
        }
        if !peers.is_empty() && keys_file.is_none() {
            self.wrong(
                "keys.file",
                "gateways of one set must share their keys; name the file that they share",
            );
        } else if keys_file.is_none() {
            self.note(
                "keys.file",
                "is not set: the gateway starts with --ephemeral-key only, and sessions end with it",
            );
        }
    }
}

/// `host:port`, where host is a name or an address and the port is 1 to 65535.
fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port =
        port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse::<u16>().ok())?.filter(|p| *p > 0)?;
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let fits = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_hostname(&host.to_ascii_lowercase()) || host.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    fits.then_some((host, port))
}

fn endpoint_address(text: &str) -> Result<SocketAddr, String> {
    match text.split_once("://") {
        Some(("https", _)) => return Err(CLEARTEXT.into()),
        Some((_, rest)) => {
            let rest = rest.split('/').next().unwrap_or_default();
            return Err(format!("leave out the scheme and the path: write {}", short(rest)));
        }
        None => {}
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 || address.ip().is_unspecified() => {
            Err(format!("{address} cannot be connected to; write the server's own address and port"))
        }
        Ok(address) => Ok(address),
        Err(_) if host_port(text).is_some() => Err(format!(
            "'{}' is a name; endpoints are addresses: write dns: {} instead of endpoints",
            short(text),
            short(text)
        )),
        Err(_) => Err(format!("'{}' is not an address and port such as 127.0.0.1:9001", short(text))),
    }
}

fn is_namespace(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(inner)
}

fn is_path(path: &str) -> bool {
    let visible = |b: u8| b.is_ascii_graphic() && !b"?#%\\".contains(&b);
    path.starts_with('/')
        && path.len() <= 256
        && path.bytes().all(visible)
        && !path.split('/').any(|part| part == "." || part == "..")
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
