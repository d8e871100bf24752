//! What the controller-manager did, sync by sync: put together from the API server's audit log (when it read and
//! wrote the scale), from the test's metrics API (what it was told) and from a watch (what it wrote).

use std::{collections::BTreeMap, time::Duration};

use kube::ResourceExt;
use libtest_mimic::Failed;
use mcp_fleet::api::v1alpha1::McpFleet;
use mcp_fleet_cluster::audit::{Entries, Entry};

use super::metrics_server::{Answer, Asked};
use crate::look::Revision;

/// A value that was written, and when: between these two moments, since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// The value.
    pub value: i32,
    /// The request was not sent yet.
    pub from: Duration,
    /// The answer was there.
    pub to: Duration,
}

/// One look of the autoscaler at a fleet.
#[derive(Clone, Debug)]
pub struct Sync {
    /// When it decided, since 1970: no earlier than it was told the value, and no later than it wrote the scale.
    pub at: Duration,
    /// `spec.replicas` that it may have read; more than one if a write came at the same moment.
    pub spec: Vec<i32>,
    /// `status.replicas` that it may have read.
    pub status: Vec<i32>,
    /// What it was told; `None`: it did not ask.
    pub answer: Option<Answer>,
    /// What it wrote, and when that was done.
    pub wrote: Option<(i32, Duration)>,
}

/// What is known of one fleet's history.
#[derive(Default)]
pub struct Sources {
    /// Questions for its metric.
    pub asked: Vec<Asked>,
    /// Writes of `status.replicas`, the first before the autoscaler was made.
    pub status: Vec<Written>,
    /// Writes of `spec.replicas` by the test: the generation that came of it, and the write. The first made the
    /// fleet.
    pub by_test: Vec<(i64, Written)>,
    /// `spec.replicas` of each generation.
    pub generations: BTreeMap<i64, i32>,
}

/// `spec.replicas` of each generation of each fleet, by name.
pub fn generations(history: &[Revision<McpFleet>]) -> BTreeMap<String, BTreeMap<i64, i32>> {
    let mut all = BTreeMap::<_, BTreeMap<_, _>>::new();
    for revision in history {
        let fleet = &revision.object;
        if let (Some(generation), Some(replicas)) = (fleet.metadata.generation, fleet.spec.replicas) {
            all.entry(fleet.name_any()).or_default().insert(generation, replicas);
        }
    }
    all
}

/// Puts a fleet's history together. `scale` are the autoscaler's requests on its scale.
pub fn syncs(mut scale: Vec<Entry>, sources: &Sources) -> Result<Vec<Sync>, Failed> {
    scale.sort_by_key(|e| e.received);
    let wrote = values(&scale, sources)?;
    let mut spec: Vec<Written> = sources.by_test.iter().map(|(_, w)| *w).collect();
    spec.extend(&wrote);
    spec.sort_by_key(|w| w.to);

    let mut wrote = wrote.into_iter();
    let mut syncs: Vec<Sync> = Vec::new();
    let mut refused = false;
    let mut asked = sources.asked.iter().peekable();
    let mut reads = scale.iter().filter(|e| e.verb == "get" && e.is_ok()).skip(1).map(|e| e.received);
    for entry in scale.iter().filter(|e| e.is_ok() || e.code == 409) {
        match (entry.verb.as_str(), entry.is_ok()) {
            ("get", true) => {
                let next = reads.next().unwrap_or(Duration::MAX);
                // After a conflict it reads the scale again, and writes the same number: no new look.
                if std::mem::take(&mut refused) {
                    continue;
                }
                let question = asked.next_if(|a| a.at < next);
                syncs.push(Sync {
                    at: question.map_or(entry.done, |a| a.at),
                    spec: seen(&spec, entry),
                    status: seen(&sources.status, entry),
                    answer: question.map(|a| a.answer.clone()),
                    wrote: None,
                });
            }
            ("update", true) => {
                let written = wrote.next().ok_or("a write that made no generation")?;
                let sync = syncs.last_mut().ok_or("a write before the first look")?;
                sync.wrote = Some((written.value, written.to));
            }
            ("update", false) => refused = true,
            _ => return Err(format!("the autoscaler did {entry:?}").into()),
        }
    }
    if asked.peek().is_some() {
        return Err(format!("{} questions outside of any look", asked.count()).into());
    }
    // The last one may still be under way.
    syncs.pop();
    Ok(syncs)
}

/// What each successful write of the autoscaler wrote: its generations are those that the test did not make.
fn values(scale: &[Entry], sources: &Sources) -> Result<Vec<Written>, Failed> {
    let ours: Vec<i64> = sources.by_test.iter().map(|(generation, _)| *generation).collect();
    let theirs: Vec<i32> = sources
        .generations
        .iter()
        .filter(|(generation, _)| !ours.contains(generation))
        .map(|(_, n)| *n)
        .collect();
    let writes: Vec<&Entry> = scale.iter().filter(|e| e.verb == "update" && e.is_ok()).collect();
    if writes.len() != theirs.len() {
        return Err(format!("{} writes made {} generations: {theirs:?}", writes.len(), theirs.len()).into());
    }
    let written = |(entry, value): (&&Entry, i32)| Written { value, from: entry.received, to: entry.done };
    Ok(writes.iter().zip(theirs).map(written).collect())
}

/// The values that a reader may have seen: the last one that was written before, and those written meanwhile.
fn seen(writes: &[Written], read: &Entry) -> Vec<i32> {
    let before = writes.iter().rfind(|w| w.to <= read.received);
    let meanwhile = writes.iter().filter(|w| w.to > read.received && w.from <= read.done);
    before.into_iter().chain(meanwhile).map(|w| w.value).collect()
}

/// The autoscaler's requests on the scale of each fleet of a namespace, by name.
pub fn by_fleet(entries: Entries, namespace: &str) -> BTreeMap<String, Vec<Entry>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for entry in entries.of("mcpfleets.mcpfleet.io/scale") {
        let Some(object) = entry.object.clone().filter(|o| o.namespace == namespace) else { continue };
        all.entry(object.name).or_default().push(entry);
    }
    all
}
