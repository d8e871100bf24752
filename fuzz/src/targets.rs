//! What is fuzzed, and what has to hold. One function per surface that strangers' bytes reach.

use std::{borrow::Cow, sync::LazyLock};

use bytes::Bytes;
use mcp_fleet::gateway::{
    conn::{
        chunks::{Chunks, Progress},
        usual::{Usual, look},
        wire::{Scan, scan},
    },
    mcp::{Text, era, peek, result, splice, sse},
    seal::{KeyRing, PodId, Purpose},
};
use mcp_fleet::{
    domain::FleetKey,
    gateway::{
        config,
        routing::{HostPolicy, OriginPolicy, Route, Routes, host_of},
    },
};

/// A function that panics when an invariant does not hold.
pub(crate) struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs that cannot be committed, since they are made anew each time.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "token", run: token, seeds: tokens },
    Target { name: "headers", run: headers, seeds: Vec::new },
    Target { name: "envelope", run: envelope, seeds: Vec::new },
    Target { name: "sse", run: events, seeds: Vec::new },
    Target { name: "config", run: configuration, seeds: Vec::new },
    Target { name: "route", run: route, seeds: Vec::new },
    Target { name: "answer", run: answer, seeds: Vec::new },
    Target { name: "request", run: request, seeds: Vec::new },
    Target { name: "load", run: crate::load::load, seeds: Vec::new },
];

const FLEET: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
static RING: LazyLock<KeyRing> = LazyLock::new(|| KeyRing::ephemeral().expect("the system has randomness"));
/// Good tokens: what opens has to be one of them, up to its second box.
static GOOD: LazyLock<Vec<String>> = LazyLock::new(|| {
    [(&b""[..], None), (b"upstream", None), (b"upstream", Some(&b"{\"protocolVersion\":\"2025-11-25\"}"[..]))]
        .into_iter()
        .map(|(upstream, handshake)| {
            RING.seal(0, Purpose::Session, FLEET, PodId(1), upstream, handshake).text
        })
        .collect()
});

fn tokens() -> Vec<Vec<u8>> {
    GOOD.iter().map(|text| text.clone().into_bytes()).collect()
}

/// The first box, as text.
fn first_box(text: &str) -> Option<&str> {
    text.strip_prefix("mf1.").and_then(|rest| rest.split('.').next())
}

/// No token opens that was not sealed here; nothing panics.
fn token(input: &[u8]) {
    let _ = KeyRing::parse(input);
    let _ = RING.open_message(b"question", input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    assert!(RING.open(Purpose::Task, FLEET, text).is_err(), "another purpose");
    assert!(RING.open(Purpose::Session, "other", text).is_err(), "another fleet");
    if RING.open(Purpose::Session, FLEET, text).is_ok() {
        assert!(GOOD.iter().any(|good| first_box(good) == first_box(text)), "a forged token opened");
    }
    if let Ok(Some(_)) = RING.open_handshake(Purpose::Session, FLEET, text) {
        assert!(GOOD.iter().any(|good| good == text), "a forged handshake opened");
    }
}

/// Lines: version, Mcp-Method, Mcp-Name, then the body. An empty line is a missing header.
fn headers(input: &[u8]) {
    let mut parts = input.splitn(4, |byte| *byte == b'\n');
    let mut header = || parts.next().and_then(|l| std::str::from_utf8(l).ok()).filter(|l| !l.is_empty());
    let (version, method, name) = (header(), header(), header());
    if let Some(name) = name {
        if let Ok(decoded) = era::decode_name(name) {
            assert_eq!(era::decode_name(&era::encode_name(&decoded)).as_deref(), Ok(&*decoded));
        }
        let _ = sse::endpoint(name).map(|uri| uri.session.map(|range| name[range].len()));
        let _ = sse::split_epoch(name);
    }
    let Ok(envelope) = peek(parts.next().unwrap_or_default()) else { return };
    for session in [false, true] {
        if let era::Era::Modern { version } = era::classify(version, session, &envelope) {
            assert!(era::is_modern_version(version));
        }
    }
    let checked = era::check_headers(method, name, &envelope);
    if let (Ok(()), Some(method), Some(own)) = (checked, method, envelope.method.as_deref()) {
        assert_eq!(method.trim_ascii(), own, "G22");
    }
}

/// A string that was found has to be one where it is said to stand, and can be replaced without breaking the rest.
fn found(body: &[u8], text: &Text<'_>) {
    let written = &body[text.range.clone()];
    assert!(written.len() >= 2 && written.starts_with(b"\"") && written.ends_with(b"\""));
    let replaced = splice::replace(body, &[(text.range.clone(), "new \"token\"")]);
    assert_eq!(replaced.len(), body.len() - written.len() + br#""new \"token\"""#.len());
}

/// The same message behind a key with an escape, which `peek` reads by its long way.
fn long_way(input: &[u8]) -> Option<Vec<u8>> {
    let members = input.trim_ascii_start().strip_prefix(b"{")?;
    let is_empty = members.trim_ascii_start().starts_with(b"}");
    (!is_empty).then(|| [&br#"{"\u0061":0,"#[..], members].concat())
}

fn envelope(input: &[u8]) {
    if let Some(long) = long_way(input) {
        let read = |body| {
            peek(body).map(|e| {
                let raw = [e.id, e.capabilities, e.params].map(|raw| raw.map(|raw| raw.get().to_owned()));
                let texts = [e.method, e.name, e.uri, e.meta_version].map(|text| text.map(Cow::into_owned));
                (e.kind, raw, texts)
            })
        };
        assert_eq!(read(input), read(&long), "both ways read the same");
    }
    if let Ok(envelope) = peek(input) {
        let texts = envelope.task_id.iter().chain(&envelope.request_state).chain(&envelope.task_ids);
        texts.for_each(|text| found(input, text));
        let _ = envelope.declares_tasks();
        if let Some(task) = &envelope.task_id {
            let replaced = splice::replace(input, &[(task.range.clone(), "other")]);
            let again = peek(&replaced).expect("still a message");
            assert_eq!(again.task_id.expect("still there").value, "other");
            assert_eq!((again.kind, again.method), (envelope.kind, envelope.method));
        }
    }
    let facts = result::inspect(input);
    let texts = facts.task.iter().chain(&facts.notified).map(|t| &t.id).chain(&facts.request_state);
    texts.for_each(|text| found(input, text));
    let _ = (
        result::answered(input),
        result::negotiated(input),
        result::discovered(input),
        result::acknowledged(input),
    );
}

type Split = (Vec<(Vec<u8>, bool)>, Vec<u8>);

fn split(stream: &[u8], sizes: &[usize], max: usize) -> Split {
    let (mut splitter, mut pieces, mut rest) = (sse::Splitter::new(max), Vec::new(), stream);
    let mut boundary = sse::Boundary::new();
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |s| *s).clamp(1, rest.len());
        let (chunk, after) = rest.split_at(size);
        rest = after;
        boundary.feed(chunk);
        splitter.push(Bytes::copy_from_slice(chunk));
        while let Some(piece) = splitter.next_event() {
            assert!(piece.oversize || piece.bytes.len() <= max);
            pieces.push((piece.bytes.to_vec(), piece.oversize));
        }
        assert_eq!(boundary.at_boundary(), splitter.at_boundary(), "both follow the same stream");
    }
    (pieces, splitter.finish().unwrap_or_default().to_vec())
}

/// First byte: the bound; second: the size of the chunks; then the stream.
fn events(input: &[u8]) {
    let [bound, size, stream @ ..] = input else { return };
    let whole = split(stream, &[usize::MAX], usize::MAX);
    let sizes = [usize::from(*size % 32) + 1, 1, 3];
    assert_eq!(whole, split(stream, &sizes, usize::MAX), "any chunking gives the same events");
    for (pieces, rest) in [&whole, &split(stream, &sizes, usize::from(*bound) + 1)] {
        let all: Vec<u8> = pieces.iter().flat_map(|(bytes, _)| bytes).chain(rest).copied().collect();
        assert_eq!(all, stream, "not a byte is lost or changed");
    }
    for (event, _) in &whole.0 {
        let before = sse::Event::parse(event);
        let rewritten = sse::rewrite_data(event, "{\"a\":\n1}");
        let after = sse::Event::parse(&rewritten);
        assert_eq!((&after.id, &after.name, after.retry), (&before.id, &before.name, before.retry));
        assert!(!before.has_data || after.data == "{\"a\":\n1}");
        assert_eq!(sse::Event::parse(&sse::prefix_id(event, 2)).data, before.data);
    }
}

/// What was read without a problem can be used: each fleet once, and each with a path.
fn configuration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(config) = config::from_text(text) else { return };
    for (i, fleet) in config.fleets.iter().enumerate() {
        assert!(fleet.path.starts_with('/'), "a path that cannot be asked for");
        let same =
            |other: &&config::FleetConfig| (&other.namespace, &other.name) == (&fleet.namespace, &fleet.name);
        assert_eq!(config.fleets.iter().filter(same).count(), 1, "fleet {i} stands there twice");
    }
}

/// Lines: host, origin, path. A route stays inside its request; what is no host is accepted by nobody.
fn route(input: &[u8]) {
    static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
        Routes::new([
            (FleetKey::new("tools", "github"), "/mcp".to_owned(), vec!["mcp.example.com".to_owned()]),
            (FleetKey::new("tools", "legacy"), "/sse".to_owned(), Vec::new()),
        ])
    });
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n');
    let (host, origin) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let path = lines.next().unwrap_or_default();
    let policy = HostPolicy::new(["mcp-fleet-gateway.mcp-fleet-system.svc"]);
    if policy.accepts(Some(host), &ROUTES) {
        assert!(host_of(host).is_some(), "accepted what is no host");
    }
    let origins = OriginPolicy { origins: &[], tls: false };
    if origins.accepts(Some(origin), None) {
        assert!(origin.contains("://"), "accepted what is no origin");
    }
    match ROUTES.route(Some(host), path) {
        Route::Fleet { index, prefix, rest_path, .. } => {
            assert!(index < 2 && path.starts_with(prefix) && rest_path.starts_with('/'));
        }
        Route::WellKnown { index, rest_path, .. } => {
            assert!(index < 2 && rest_path.starts_with("/.well-known/"));
        }
        Route::Unknown => {}
    }
}

/// The answer of a server. What is taken for plain, or for one in chunks, is framed by that and by nothing else,
/// whatever follows it, and no piece of its head is taken for anything yet.
fn answer(input: &[u8]) {
    const LONGEST: u64 = 1024;
    let scanned = scan(input, LONGEST);
    let (Scan::Plain(head, _) | Scan::Chunked(head)) = &scanned else { return };
    assert!(head.len <= input.len());
    let (own, body) = input.split_at(head.len);
    assert!(own.ends_with(b"\n"));
    assert_eq!(scan(own, LONGEST), scanned, "what follows a head means nothing for it");
    assert_eq!(scan(&own[..own.len() - 1], LONGEST), Scan::Partial);
    let parts = head.parts(&Bytes::copy_from_slice(input));
    let all = |name| parts.iter().flat_map(|parts| parts.headers.get_all(name)).collect::<Vec<_>>();
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    if let Scan::Plain(_, length) = scanned {
        assert!(length as u64 <= LONGEST && codings.is_empty());
        assert!(parts.is_none() || lengths.len() == 1);
        assert!(lengths.iter().all(|told| told.to_str().is_ok_and(|n| n.parse() == Ok(length))));
    } else {
        assert!(lengths.is_empty() && (parts.is_none() || codings.len() == 1));
        chunks(body);
    }
}

/// A body in chunks. However it comes in pieces, it ends where it ends as a whole, and carries the same.
fn chunks(input: &[u8]) {
    let decode = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut chunks, mut data, mut at) = (Chunks::of_answer(), Vec::new(), 0);
        for piece in pieces {
            let (taken, progress) = chunks.advance(piece, |bytes| data.extend_from_slice(bytes));
            at += taken;
            match progress {
                Progress::More => assert_eq!(taken, piece.len()),
                Progress::End => return (data, at, progress),
                // How much of it was taken does not matter: nothing follows.
                Progress::Malformed => return (data, 0, progress),
            }
        }
        (data, at, Progress::More)
    };
    let whole = decode(&mut std::iter::once(input));
    assert!(whole.0.len() <= input.len() && whole.1 <= input.len());
    let size = 1 + input.first().map_or(0, |byte| usize::from(byte % 7));
    assert_eq!(decode(&mut input.chunks(size)), whole, "in pieces of {size}");
}

/// The request of a client. What is taken for usual is framed by its one length or has no body, whatever follows
/// it, and is nothing yet before its end.
fn request(input: &[u8]) {
    const LARGEST: usize = 1024;
    let seen = |bytes: &[u8]| look(&Bytes::copy_from_slice(bytes), LARGEST);
    let Usual::Whole { head, body, len } = seen(input) else { return };
    assert!(if body.is_empty() { head.method == "GET" } else { head.method == "POST" });
    assert!(len <= input.len());
    let head_len = len - body.len();
    assert!(head_len <= LARGEST && input[..head_len].ends_with(b"\r\n\r\n"));
    assert_eq!(body, input[head_len..len]);
    for end in [head_len, len - 1].into_iter().filter(|_| !body.is_empty()) {
        assert!(matches!(seen(&input[..end]), Usual::Begun(told) if told == len), "its end moved");
    }
    assert!(matches!(seen(&input[..head_len - 1]), Usual::Other), "half a head");
    let of_the_connection = ["content-length", "transfer-encoding", "connection", "expect", "upgrade"];
    assert!(of_the_connection.iter().all(|name| !head.headers.contains_key(*name)));
    assert_eq!(head.headers.get_all("host").iter().count(), 1);
}
