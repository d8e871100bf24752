//! Reads the operator's doings from the API server's audit log: the server's own count, at no cost for it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    time::Duration,
};

use mcp_fleet_cluster::audit::Entry;

/// The operator, as the audit log names it.
const USER: &str = "system:serviceaccount:mcp-fleet-system:mcp-fleet-operator";

/// The operator's writes since a place in the log, without its lease.
pub struct Tail {
    file: File,
    /// A line that was half written when it was read.
    rest: Vec<u8>,
    /// In the order in which they were done.
    pub writes: Vec<Entry>,
    /// Events about fleets, which are no state.
    pub n_events: usize,
}

impl Tail {
    /// From now on.
    pub fn start(log: &Path) -> anyhow::Result<Self> {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, rest: Vec::new(), writes: Vec::new(), n_events: 0 })
    }

    /// Reads what has come since; whether any of it is a write that counts.
    pub fn read(&mut self) -> anyhow::Result<bool> {
        self.file.read_to_end(&mut self.rest)?;
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Ok(false) };
        let lines: Vec<u8> = self.rest.drain(..=end).collect();
        let before = self.writes.len();
        for line in String::from_utf8_lossy(&lines).lines().filter(|l| l.contains(USER)) {
            let Some(entry) = Entry::parse(line).filter(|e| e.user == USER && e.is_write()) else { continue };
            match entry.object.as_ref().map_or("", |o| o.resource.as_str()) {
                "leases" => {}
                "events" => self.n_events += 1,
                _ => self.writes.push(entry),
            }
        }
        Ok(self.writes.len() > before)
    }
}

/// Whether a write made a new child.
pub fn is_new_child(entry: &Entry) -> bool {
    entry.code == 201 && fleet_of(entry).is_some() && !is_of_fleet(entry)
}

/// Whether a write is one of a status.
pub fn is_status(entry: &Entry) -> bool {
    is_of_fleet(entry) && entry.object.as_ref().is_some_and(|o| o.subresource == "status")
}

/// Whether a write is about the McpFleet itself.
pub fn is_of_fleet(entry: &Entry) -> bool {
    entry.object.as_ref().is_some_and(|o| o.resource == "mcpfleets")
}

/// Namespace and fleet of a written object, by the naming of children.
pub fn fleet_of(entry: &Entry) -> Option<(String, String)> {
    let object = entry.object.as_ref()?;
    let name = match object.resource.as_str() {
        "serviceaccounts" => object.name.strip_prefix("mcp-")?,
        "services" => object.name.strip_suffix("-headless").unwrap_or(&object.name),
        _ => &object.name,
    };
    (!name.is_empty()).then(|| (object.namespace.clone(), name.to_owned()))
}

/// Writes by verb and kind, as text.
pub fn by_kind(writes: &[Entry]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for entry in writes {
        *counts.entry(format!("{} {} {}", entry.verb, entry.kind(), entry.code)).or_default() += 1;
    }
    counts.iter().map(|(what, n)| format!("{n} {what}")).collect::<Vec<_>>().join(", ")
}

/// Mean time that the server took, in milliseconds, by kind.
pub fn server_ms(writes: &[Entry]) -> String {
    let mut times: BTreeMap<String, (usize, Duration)> = BTreeMap::new();
    for entry in writes {
        let (n, sum) = times.entry(entry.kind()).or_default();
        *n += 1;
        *sum += entry.took();
    }
    let mean = |(kind, (n, sum)): (String, (usize, Duration))| {
        format!("{kind} {:.1}", sum.as_secs_f64() * 1000.0 / n as f64)
    };
    times.into_iter().map(mean).collect::<Vec<_>>().join(", ")
}
