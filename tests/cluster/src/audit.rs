//! Reads the API server's audit log: who did what to which object. Tests count writes with it, from the
//! server's own point of view. One entry per finished request; no bodies.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Context, Result};

/// The audit log of a cluster.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

/// A place in the log: what comes after it happened after it was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark(u64);

impl Log {
    /// The log at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its present end. An entry is written when the request's answer is, so a request that has been answered
    /// is before the mark.
    pub fn mark(&self) -> Result<Mark> {
        let meta = std::fs::metadata(&self.path).context(|| format!("read {}", self.path.display()))?;
        Ok(Mark(meta.len()))
    }

    /// All finished requests.
    pub fn all(&self) -> Result<Entries> {
        self.since(Mark::default())
    }

    /// Requests finished since the mark.
    pub fn since(&self, mark: Mark) -> Result<Entries> {
        let what = || format!("read {}", self.path.display());
        let mut file = File::open(&self.path).context(what)?;
        file.seek(SeekFrom::Start(mark.0)).context(what)?;
        let mut entries = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line.context(what)?;
            // The last line may be half written, and a mark may have cut one.
            if let Some(entry) = Entry::parse(&line) {
                entries.push(entry);
            }
        }
        Ok(Entries(entries))
    }
}

/// One finished request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
    /// Who: a user of the token file or `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// Path and query.
    pub uri: String,
    /// The object, none for paths such as `/healthz`. A create by POST has no name here.
    pub object: Option<ObjectRef>,
    /// HTTP status.
    pub code: u16,
    /// When it came, since 1970, to the microsecond.
    pub received: Duration,
    /// When it was done, since 1970.
    pub done: Duration,
}

/// What a request was about.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// API group, empty for the core group.
    pub api_group: String,
    /// Plural, as in `deployments`.
    pub resource: String,
    /// `status`, `scale`, … or empty.
    pub subresource: String,
    /// Empty for cluster-wide objects.
    pub namespace: String,
    /// Empty for lists and for creates by POST.
    pub name: String,
}

impl Entry {
    /// Parses one line of the log; none if it is not a finished request.
    pub fn parse(line: &str) -> Option<Self> {
        let raw: Raw = serde_json::from_str(line).ok()?;
        if !matches!(raw.stage.as_str(), "ResponseComplete" | "Panic") {
            return None;
        }
        Some(Self {
            verb: raw.verb,
            user: raw.user.username,
            user_agent: raw.user_agent,
            uri: raw.request_uri,
            object: raw.object_ref,
            code: raw.response_status.code,
            received: parse_time(&raw.request_received_timestamp)?,
            done: parse_time(&raw.stage_timestamp)?,
        })
    }

    /// Whether it asked for a change that was to be kept: not a read, not a dry run.
    pub fn is_write(&self) -> bool {
        let is_review = self.object.as_ref().is_some_and(|object| object.resource.ends_with("reviews"));
        let changes =
            matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
        changes && !is_review && !self.uri.contains("dryRun=All")
    }

    /// Whether it was answered with 2xx.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// How long the server took.
    pub fn took(&self) -> Duration {
        self.done.saturating_sub(self.received)
    }

    /// `resource.group/subresource` of the object, such as `deployments.apps` or `pods/status`; else the path.
    pub fn kind(&self) -> String {
        let Some(object) = &self.object else { return self.uri.clone() };
        let group =
            if object.api_group.is_empty() { String::new() } else { format!(".{}", object.api_group) };
        let part =
            if object.subresource.is_empty() { String::new() } else { format!("/{}", object.subresource) };
        format!("{}{group}{part}", object.resource)
    }
}

/// Some entries, to be narrowed and counted.
#[derive(Debug, Clone, Default)]
pub struct Entries(pub Vec<Entry>);

impl Entries {
    /// Those for which `keep` holds.
    #[must_use]
    pub fn filter(self, keep: impl Fn(&Entry) -> bool) -> Self {
        Self(self.0.into_iter().filter(|entry| keep(entry)).collect())
    }

    /// Those of one user.
    #[must_use]
    pub fn by(self, user: &str) -> Self {
        self.filter(|entry| entry.user == user)
    }

    /// Those of one service account.
    #[must_use]
    pub fn by_service_account(self, namespace: &str, name: &str) -> Self {
        self.by(&format!("system:serviceaccount:{namespace}:{name}"))
    }

    /// Those that asked for a change.
    #[must_use]
    pub fn writes(self) -> Self {
        self.filter(Entry::is_write)
    }

    /// Those about one kind of object, as in [`Entry::kind`].
    #[must_use]
    pub fn of(self, kind: &str) -> Self {
        self.filter(|entry| entry.kind() == kind)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts by a key, for instance [`Entry::kind`].
    pub fn count_by<K: Ord>(&self, key: impl Fn(&Entry) -> K) -> BTreeMap<K, usize> {
        let mut counts = BTreeMap::new();
        for entry in &self.0 {
            *counts.entry(key(entry)).or_default() += 1;
        }
        counts
    }

    /// Counts by verb, kind, namespace and name, for an assertion's message.
    pub fn summary(&self) -> BTreeMap<String, usize> {
        self.count_by(|entry| {
            let object = entry.object.clone().unwrap_or_default();
            format!("{} {} {}/{} {}", entry.verb, entry.kind(), object.namespace, object.name, entry.code)
        })
    }
}

impl IntoIterator for Entries {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: RawUser,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    response_status: RawStatus,
    request_received_timestamp: String,
    stage_timestamp: String,
}

#[derive(Deserialize)]
struct RawUser {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
struct RawStatus {
    #[serde(default)]
    code: u16,
}

/// `2026-01-31T23:59:59.123456Z` as the time since 1970; none for another form.
fn parse_time(text: &str) -> Option<Duration> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = clock.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || fraction.len() > 9 {
        return None;
    }
    // Years counted from March, so that a leap day is the last day of one.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let seconds = (days - DAYS_TO_1970) * 86_400 + hour * 3_600 + minute * 60 + second;
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanos))
}

/// Days from 1 March of year 0 to 1 January 1970 in that count.
const DAYS_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"/apis/apps/v1/namespaces/a/deployments/web?fieldManager=x","verb":"patch","user":{"username":"system:serviceaccount:ops:operator","groups":[]},"sourceIPs":["10.99.0.1"],"userAgent":"mcp-fleet/1","objectRef":{"resource":"deployments","namespace":"a","name":"web","apiGroup":"apps","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-03-01T00:00:00.250000Z","stageTimestamp":"2026-03-01T00:00:00.750000Z"}"#;

    #[test]
    fn a_line_becomes_an_entry() {
        let entry = Entry::parse(LINE).expect("entry");
        assert_eq!(entry.kind(), "deployments.apps");
        assert_eq!((entry.verb.as_str(), entry.code), ("patch", 200));
        assert!(entry.is_write() && entry.is_ok());
        assert_eq!(entry.took(), Duration::from_millis(500));
        // 2026-03-01T00:00:00Z by `date +%s`.
        assert_eq!(entry.received, Duration::from_millis(1_772_323_200_250));
    }

    #[test]
    fn half_lines_and_open_requests_are_no_entries() {
        assert_eq!(Entry::parse(&LINE[..80]), None);
        assert_eq!(Entry::parse(&LINE.replace("ResponseComplete", "ResponseStarted")), None);
    }

    #[test]
    fn dry_runs_and_reviews_are_no_writes() {
        assert!(!Entry::parse(&LINE.replace("fieldManager=x", "dryRun=All")).expect("entry").is_write());
        let review =
            LINE.replace("\"patch\"", "\"create\"").replace("\"deployments\"", "\"subjectaccessreviews\"");
        assert!(!Entry::parse(&review).expect("entry").is_write());
    }

    #[test]
    fn counting_narrows_step_by_step() {
        let entries = Entries(
            [LINE, &LINE.replace("patch", "get"), &LINE.replace("operator", "other")]
                .iter()
                .filter_map(|line| Entry::parse(line))
                .collect(),
        );
        let writes = entries.by_service_account("ops", "operator").writes();
        assert_eq!(
            writes.summary().into_iter().collect::<Vec<_>>(),
            [("patch deployments.apps a/web 200".to_owned(), 1)]
        );
    }

    #[test]
    fn times_around_leap_days() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2024-02-29T23:59:59.5Z", 1_709_251_199),
            ("2026-12-31T23:59:59Z", 1_798_761_599),
        ] {
            assert_eq!(parse_time(text).map(|time| time.as_secs()), Some(seconds), "{text}");
        }
        for text in ["", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00+01:00"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
