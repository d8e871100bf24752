//! Clusters that outlive the process that started them: one folder each, `CACHE/clusters/NAME/`, with the
//! kubeconfig and what is needed to find the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, Programs};
use crate::error::{Context, Error, Result};
use crate::layout::{Layout, PREFIX, write};
use crate::process::{recorded_runs, run};
use crate::tier::Tier;
use crate::tools::{self, cache_dir};

/// A recorded cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// 1, 2 or 3.
    pub tier: u8,
    /// Network namespace.
    pub netns: String,
    /// Its folder.
    pub scratch: PathBuf,
    /// The Kubernetes programs it runs with.
    pub bin: PathBuf,
    /// Port of the API server on 127.0.0.1.
    pub api_port: u16,
    /// Number of real nodes.
    pub n_nodes: usize,
}

impl Entry {
    /// Whether its API server still runs.
    pub fn is_alive(&self) -> bool {
        recorded_runs(&self.scratch.join("pids/kube-apiserver")) == Some(true)
    }

    /// Its kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        folder(&self.name).join("kubeconfig")
    }
}

fn folder(name: &str) -> PathBuf {
    cache_dir().join("clusters").join(name)
}

/// All recorded clusters, by name.
pub fn list() -> Result<Vec<Entry>> {
    let dir = cache_dir().join("clusters");
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let folders = fs::read_dir(&dir).context(|| format!("read {}", dir.display()))?;
    let mut entries: Vec<Entry> = folders.flatten().filter_map(|folder| read(&folder.path()).ok()).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn read(folder: &Path) -> Result<Entry> {
    let file = folder.join("cluster.json");
    let text = fs::read_to_string(&file).context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text)
        .map_err(|error| Error::Invalid(format!("{} is not what was written there: {error}", file.display())))
}

fn find(name: &str) -> Result<Entry> {
    let known = list()?;
    let names = known.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = known.iter().find(|entry| entry.name == name).cloned();
    let known = if names.is_empty() { "there is none".to_owned() } else { format!("there is {names}") };
    found.ok_or_else(|| Error::Invalid(format!("no cluster is called `{name}`; {known}")))
}

/// Records a cluster that is to outlive this process; where its kubeconfig is.
pub(crate) fn record(cluster: &Cluster) -> Result<PathBuf> {
    let entry = Entry {
        name: cluster.layout.name.clone(),
        tier: cluster.tier.number(),
        netns: cluster.layout.ns.clone(),
        scratch: cluster.layout.dir.clone(),
        bin: cluster.programs.bin.clone(),
        api_port: cluster.api_port,
        n_nodes: cluster.n_nodes(),
    };
    let folder = folder(&entry.name);
    if read(&folder).is_ok_and(|old| old.is_alive()) {
        return Err(Error::Invalid(format!("a cluster called `{}` runs already", entry.name)));
    }
    fs::create_dir_all(&folder).context(|| format!("create {}", folder.display()))?;
    let kubeconfig = cluster.kubeconfig();
    let text = fs::read_to_string(&kubeconfig).context(|| format!("read {}", kubeconfig.display()))?;
    write(&entry.kubeconfig(), &text)?;
    let json = serde_json::to_string_pretty(&entry).map_err(|error| Error::Invalid(error.to_string()))?;
    write(&folder.join("cluster.json"), &json)?;
    Ok(entry.kubeconfig())
}

/// A recorded cluster, to look into; dropping the handle leaves it running. Its components cannot be stopped
/// through it.
pub fn open(name: &str) -> Result<Cluster> {
    let entry = find(name)?;
    if !entry.is_alive() {
        return Err(Error::Invalid(format!(
            "cluster `{name}` does not run any more; `cluster down --name {name}` removes what is left"
        )));
    }
    let tier = [Tier::T1, Tier::T2, Tier::T3]
        .into_iter()
        .find(|tier| tier.number() == entry.tier)
        .unwrap_or(Tier::T3);
    let layout = Layout { name: entry.name, ns: entry.netns, dir: entry.scratch };
    let programs = Programs { bin: entry.bin, warden: tools::warden()?, init: None };
    Ok(Cluster::unguarded(layout, tier, programs, entry.n_nodes, entry.api_port))
}

/// Removes a recorded cluster, or what is left of it.
pub fn down(name: &str) -> Result<()> {
    let entry = find(name)?;
    if entry.scratch.exists() {
        run(Command::new(tools::warden()?).arg("down").arg(&entry.scratch))?;
    }
    let folder = folder(name);
    fs::remove_dir_all(&folder).context(|| format!("remove {}", folder.display()))
}

/// Removes clusters of which both the process that started them and its warden are dead: somebody ended the
/// warden, or the machine was switched off. `beside` is the folder of a new cluster; its neighbours are looked at.
pub(crate) fn remove_orphans(beside: &Path, warden: &Path) {
    let neighbours = beside.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    for dir in neighbours.map(|entry| entry.path()) {
        let is_ours = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        let runs = ["owner", "warden"].map(|name| recorded_runs(&dir.join(name)));
        // Without a record it is still being set up; one that was detached has no need of either.
        if is_ours && runs == [Some(false); 2] && !dir.join("detached").exists() {
            // Whatever this cannot remove is no reason not to start another one.
            let _ = run(Command::new(warden).arg("down").arg(&dir));
        }
    }
}
