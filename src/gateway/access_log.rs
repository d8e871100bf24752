//! One JSON line per request on standard output, if wanted.
//!
//! A request hands its [`Entry`] to a bounded channel and goes on; one thread writes. A full channel drops the
//! line and counts it: a slow disk never slows a request. Nothing secret has a field here: no tokens, session
//! ids, query strings or credentials.

use std::{
    io::{BufWriter, Write},
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::SystemTime,
};

use serde::Serialize;

use super::metrics::{Metrics, Outcome, labels::Label as _};
use crate::domain::FleetKey;

/// Lines that wait for the writer.
const CAPACITY: usize = 8192;
/// Bytes that are written at once.
const BUFFER: usize = 64 * 1024;
/// Longest text that a client chooses, in bytes; more is cut.
const MAX_TEXT: usize = 128;

/// What is known of a request when it has ended.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// When its head had arrived; the epoch where it was not told.
    pub time: Option<SystemTime>,
    /// Its id, see [`request_id`].
    pub request_id: Box<str>,
    /// Who asked: the address of the connection.
    pub client: Option<IpAddr>,
    /// HTTP method.
    pub http_method: http::Method,
    /// The fleet that its path or host named.
    pub fleet: Option<FleetKey>,
    /// JSON-RPC method.
    pub mcp_method: Option<Box<str>>,
    /// Tool of `tools/call`, prompt of `prompts/get`; never a URI or a task.
    pub tool: Option<Box<str>>,
    /// Revision of the protocol.
    pub version: Option<Box<str>>,
    /// `legacy` or `modern`.
    pub era: &'static str,
    /// HTTP status; 499 where the client left before the answer.
    pub status: u16,
    /// Code of a JSON-RPC error.
    pub code: Option<i64>,
    /// From the head of the request to the end of the answer, in nanoseconds.
    pub duration_ns: u64,
    /// Part of it until the head of the pod's answer, in nanoseconds.
    pub upstream_ns: Option<u64>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Name of the endpoint that answered.
    pub endpoint: Option<Box<str>>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Trace of `traceparent`, see [`trace_id`].
    pub trace_id: Option<Box<str>>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    era: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<i64>,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

impl Entry {
    /// As one line of JSON, without the line's end.
    fn line(&self) -> Line<'_> {
        Line {
            time: rfc3339(self.time.unwrap_or(SystemTime::UNIX_EPOCH)),
            request_id: cut(&self.request_id),
            client: self.client,
            method: cut(self.http_method.as_str()),
            fleet: self.fleet.as_ref().map(ToString::to_string),
            mcp_method: self.mcp_method.as_deref().map(cut),
            tool: self.tool.as_deref().map(cut),
            version: self.version.as_deref().map(cut),
            era: self.era,
            status: self.status,
            error_code: self.code,
            duration_ms: millis(self.duration_ns),
            upstream_ms: self.upstream_ns.map(millis),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            endpoint: self.endpoint.as_deref(),
            outcome: self.outcome.map(Outcome::as_str),
            trace_id: self.trace_id.as_deref(),
        }
    }
}

/// The way to the writer; clones lead to the same one. Cheap where nothing is logged.
#[derive(Clone, Default)]
pub struct AccessLog(Option<Target>);

#[derive(Clone)]
struct Target {
    lines: SyncSender<Box<Entry>>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// Starts the writer if the log is wanted. An error means that no thread could be started.
    pub fn new(enabled: bool, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        if !enabled {
            return Ok(Self(None));
        }
        Self::to(std::io::stdout(), metrics)
    }

    fn to(out: impl Write + Send + 'static, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        let (lines, waiting) = sync_channel(CAPACITY);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&waiting, out))?;
        Ok(Self(Some(Target { lines, metrics: Arc::clone(metrics) })))
    }

    /// Whether entries are wanted at all: who builds one should ask first.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Hands over an entry. Never waits.
    pub fn write(&self, entry: Entry) {
        if let Some(target) = &self.0
            && target.lines.try_send(Box::new(entry)).is_err()
        {
            target.metrics.log_dropped.inc();
        }
    }
}

/// Writes until nobody can send any more. What arrives together is flushed together. A reader that is gone
/// ends the log and nothing else: from then on every line counts as dropped.
fn write_all(waiting: &Receiver<Box<Entry>>, out: impl Write) {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
        while let Some(entry) = next {
            if serde_json::to_writer(&mut out, &entry.line()).is_err() || out.write_all(b"\n").is_err() {
                return;
            }
            next = waiting.try_recv().ok();
        }
        if out.flush().is_err() {
            return;
        }
    }
}

/// The id of a request: the one it brought in `X-Request-Id`, if that is 1–64 letters, digits, `-`, `_` or `.`,
/// else a random one of 128 bits.
pub fn request_id(header: Option<&[u8]>) -> Box<str> {
    let sane = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match header.filter(|h| (1..=64).contains(&h.len()) && h.iter().all(sane)) {
        Some(header) => String::from_utf8_lossy(header).into(),
        None => format!("{:032x}", fastrand::u128(..)).into(),
    }
}

/// The trace of a `traceparent` header of version 00 (W3C Trace Context); `None` where it is none.
pub fn trace_id(header: Option<&[u8]>) -> Option<Box<str>> {
    let header = std::str::from_utf8(header?).ok()?;
    let mut parts = header.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let valid = version == "00"
        && header.len() == 55
        && trace.len() == 32
        && trace.bytes().all(hex)
        && trace.bytes().any(|b| b != b'0');
    valid.then(|| trace.into())
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// Milliseconds with three digits.
fn millis(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1000.0
}

fn rfc3339(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use serde_json::{Value, json};

    use super::*;

    struct Sink(mpsc::Sender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn entry() -> Entry {
        Entry {
            time: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_789_000_000_007)),
            request_id: "abc".into(),
            client: Some([10, 0, 0, 7].into()),
            http_method: http::Method::POST,
            fleet: Some(FleetKey::new("tools", "github")),
            mcp_method: Some("tools/call".into()),
            tool: Some("a\"b\n".into()),
            version: Some("2026-07-28".into()),
            era: "modern",
            status: 200,
            duration_ns: 12_345_678,
            upstream_ns: Some(12_000_000),
            bytes_in: 100,
            bytes_out: 200,
            endpoint: Some("github-abc".into()),
            outcome: Some(Outcome::Ok),
            ..Entry::default()
        }
    }

    #[test]
    fn a_line_is_one_object_of_json() {
        let (sender, written) = mpsc::channel();
        let metrics = Arc::new(Metrics::default());
        let log = AccessLog::to(Sink(sender), &metrics).unwrap();
        assert!(log.is_enabled());
        log.write(entry());
        let bytes = written.recv_timeout(Duration::from_secs(5)).unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
        let expected = json!({
            "time": "2026-09-10T00:26:40.007Z", "request_id": "abc", "client": "10.0.0.7", "method": "POST",
            "fleet": "tools/github", "mcp_method": "tools/call", "tool": "a\"b\n", "version": "2026-07-28",
            "era": "modern", "status": 200, "duration_ms": 12.345, "upstream_ms": 12.0, "bytes_in": 100,
            "bytes_out": 200, "endpoint": "github-abc", "outcome": "ok",
        });
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);
    }

    #[test]
    fn a_full_channel_and_a_reader_that_is_gone_drop_and_count() {
        let metrics = Arc::new(Metrics::default());
        let (lines, waiting) = sync_channel(1);
        let log = AccessLog(Some(Target { lines, metrics: Arc::clone(&metrics) }));
        log.write(entry());
        log.write(entry());
        assert_eq!(metrics.log_dropped.get(), 1);
        drop(waiting);
        log.write(entry());
        assert_eq!(metrics.log_dropped.get(), 2);
        AccessLog::default().write(entry());
        assert_eq!(metrics.log_dropped.get(), 2);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = Entry { tool: Some("ä".repeat(100).into()), ..entry() };
        assert_eq!(long.line().tool.map(str::len), Some(128));
        let odd = Entry { tool: Some(format!("a{}", "ä".repeat(100)).into()), ..entry() };
        assert_eq!(odd.line().tool.map(str::len), Some(127));
    }

    #[test]
    fn ids_of_clients_are_taken_if_they_are_sane() {
        assert_eq!(&*request_id(Some(b"req-1_a.B")), "req-1_a.B");
        for bad in [None, Some(&b""[..]), Some(b"a b"), Some(b"a\"b"), Some(&[b'a'; 65]), Some(b"\xff")] {
            let id = request_id(bad);
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
        assert_ne!(request_id(None), request_id(None));
    }

    #[test]
    fn traces_are_read_by_the_book() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(trace_id(Some(good)).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        for bad in [
            &b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"[..],
            b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            b"00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736",
            b"",
        ] {
            assert_eq!(trace_id(Some(bad)), None, "{:?}", String::from_utf8_lossy(bad));
        }
        assert_eq!(trace_id(None), None);
    }
}
