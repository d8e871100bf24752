//! Probes against servers over loopback.

use std::time::Duration;

use http::Response;
use serde_json::json;

use super::*;
use crate::gateway::{
    fleet::{EndpointSpec, FleetSpec},
    metrics::{Method, Observation, Version},
    test_support::{Asked, Server, answer, endpoint, fleet, gateway, until},
};

struct Fixture {
    fleet: Arc<Fleet>,
    gateway: Arc<Gateway>,
    prober: Prober,
    stop: CancellationToken,
}

impl Fixture {
    fn start(spec: FleetSpec, endpoints: &[EndpointSpec]) -> Self {
        let (gateway, stop, key) = (gateway(), CancellationToken::new(), spec.key.clone());
        gateway.set_fleets(vec![spec]);
        gateway.set_endpoints(&key, endpoints);
        let prober = Prober::new(Arc::clone(&gateway));
        tokio::spawn(prober.clone().run(stop.clone()));
        let fleet = gateway.fleet(&key).unwrap();
        Self { fleet, gateway, prober, stop }
    }

    fn endpoint(&self) -> Arc<Endpoint> {
        Arc::clone(&self.fleet.view().endpoints[0])
    }

    fn known(&self) -> Arc<Capability> {
        self.endpoint().capability.load_full()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn often(mut spec: FleetSpec, every: u64) -> FleetSpec {
    let check = &mut spec.settings.health_check;
    (check.interval, check.timeout) = (Duration::from_millis(every), Duration::from_millis(500));
    spec
}

const MODERN: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"],"capabilities":{}}}"#;

#[tokio::test]
async fn every_answer_is_understood() {
    let unsupported = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"x","data":{"supported":["2025-11-25"]}}}"#;
    for (status, body, modern, legacy, opaque) in [
        (200, MODERN, true, Legacy::Unknown, false),
        (400, unsupported, false, Legacy::Yes, false),
        (400, r#"{"error":{"code":-32000,"message":"no session"}}"#, false, Legacy::Yes, false),
        (405, "", false, Legacy::Yes, false),
        (401, "", false, Legacy::Unknown, true),
        (403, "", false, Legacy::Unknown, true),
    ] {
        // Only the first question is of interest: deeper ones are refused without a word on the revision.
        let server = Server::start(move |asked| match asked.name().as_str() {
            "server/discover" => answer(status, body),
            _ => answer(500, ""),
        })
        .await;
        let fixture = Fixture::start(fleet("a"), &[endpoint(server.address)]);
        until(&format!("{status} {body} is known"), || fixture.known().known).await;
        let known = fixture.known();
        assert_eq!(
            (!known.modern.is_empty(), known.legacy, known.opaque),
            (modern, legacy, opaque),
            "{status} {body}"
        );
        assert_eq!(fixture.fleet.view().any_modern, modern, "the fleet was told");
        assert!(!fixture.endpoint().is_unhealthy());
    }
}

#[tokio::test]
async fn the_question_is_as_the_protocol_wants_it() {
    let server = Server::start(|_| answer(401, "")).await;
    let _fixture = Fixture::start(fleet("a"), &[endpoint(server.address)]);
    until("a question", || !server.asked().is_empty()).await;
    let asked = server.asked().remove(0);
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/mcp"));
    for (name, value) in [
        ("host", "localhost:8080"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "server/discover"),
    ] {
        assert_eq!(asked.headers.get(name).map(|v| v.to_str().unwrap()), Some(value), "{name}");
    }
    assert!(asked.headers.get("mcp-session-id").is_none());
    let meta = &asked.json()["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object());
}

#[tokio::test]
async fn an_answer_as_events_is_read() {
    let server = Server::start(|_| {
        let events = format!(": hello\r\n\r\nevent: message\r\ndata: {MODERN}\r\n\r\n");
        Response::builder().header("content-type", "text/event-stream").body(events).unwrap()
    })
    .await;
    let fixture = Fixture::start(fleet("a"), &[endpoint(server.address)]);
    until("known", || fixture.known().speaks("2026-07-28")).await;
}

/// A pod that starts is refused connections for a while; when it is ready, it is asked at once, and is not ill.
#[tokio::test]
async fn a_pod_that_starts_is_asked_when_it_is_ready() {
    let server = Server::start(|_| answer(500, "")).await;
    let mut starting = endpoint(server.address);
    starting.phase = Phase::NotReady;
    let fixture = Fixture::start(fleet("a"), &[starting.clone()]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(server.asked().is_empty(), "it starts");
    starting.phase = Phase::Ready;
    let key = fleet("a").key;
    fixture.gateway.set_endpoints(&key, &[starting]);
    let ready = Instant::now();
    until("a question", || !server.asked().is_empty()).await;
    assert!(ready.elapsed() < Duration::from_millis(250), "{:?}", ready.elapsed());
}

fn dual_era(asked: &Asked) -> Response<String> {
    let id = asked.json()["id"].clone();
    let result = |result: serde_json::Value| {
        answer(200, &json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string())
    };
    match asked.name().as_str() {
        "server/discover" => answer(200, MODERN),
        "initialize" => {
            let mut answer =
                result(json!({"protocolVersion": "2025-11-25", "serverInfo": {"name": "s", "version": "2"}}));
            answer.headers_mut().insert("mcp-session-id", "s-1".parse().unwrap());
            answer
        }
        "tools/list" if asked.json()["params"]["cursor"] == "two" => {
            result(json!({"tools": [{"name": "fetch"}]}))
        }
        "tools/list" => result(json!({"tools": [{"name": "search"}], "nextCursor": "two"})),
        "prompts/list" => result(json!({"prompts": [{"name": "review"}]})),
        _ => answer(202, ""),
    }
}

fn labels_of(fixture: &Fixture, names: &[&str]) -> Vec<bool> {
    for name in names {
        fixture.fleet.metrics.observe(&Observation {
            method: Method::ToolsCall,
            tool: Some(name),
            version: Version::None,
            error: None,
            seconds: 0.0,
        });
    }
    let known = fixture.fleet.metrics.operation_names();
    names.iter().map(|n| known.iter().any(|k| k == n)).collect()
}

#[tokio::test]
async fn a_deep_probe_learns_the_other_era_and_ends_its_session() {
    let server = Server::start(dual_era).await;
    let fixture = Fixture::start(often(fleet("a"), 50), &[endpoint(server.address)]);
    until("legacy is known", || fixture.known().stateful.is_some()).await;
    let known = fixture.known();
    assert_eq!((known.legacy, known.stateful), (Legacy::Yes, Some(true)));
    assert_eq!(known.listed, ["2026-07-28", "2025-11-25"]);
    assert_eq!(known.server, Some(("s".into(), "2".into())));
    until("the session was ended", || server.names().contains(&"DELETE".to_owned())).await;
    let ended = server.asked().into_iter().find(|a| a.method == "DELETE").unwrap();
    assert_eq!(ended.headers["mcp-session-id"], "s-1");
    until("it is asked again", || server.names().iter().filter(|n| *n == "server/discover").count() > 3)
        .await;
    assert_eq!(server.names().iter().filter(|n| *n == "initialize").count(), 1, "once per endpoint");
    assert_eq!(labels_of(&fixture, &["search", "fetch", "review", "rm"]), [true, true, true, false]);
    assert_eq!(server.names().iter().filter(|n| *n == "tools/list").count(), 2, "two pages, once");
}

#[tokio::test]
async fn lists_of_a_legacy_server_come_out_of_the_probes_session() {
    let server = Server::start(|asked| match asked.name().as_str() {
        "server/discover" => answer(400, "Bad Request"),
        _ if asked.name() != "initialize" && asked.headers.get("mcp-session-id").is_none() => answer(400, ""),
        _ => dual_era(asked),
    })
    .await;
    let fixture = Fixture::start(fleet("a"), &[endpoint(server.address)]);
    until("the names", || labels_of(&fixture, &["fetch", "review"]) == [true, true]).await;
    until("the end", || server.names().contains(&"DELETE".to_owned())).await;
    assert!(server.names().contains(&"notifications/initialized".to_owned()));
}

#[tokio::test]
async fn a_server_whose_sessions_are_configured_is_not_asked_for_them() {
    let server = Server::start(dual_era).await;
    let spec = FleetSpec { sessions: Sessions::Stateless, ..often(fleet("a"), 50) };
    let _fixture = Fixture::start(spec, &[endpoint(server.address)]);
    until("a few probes", || server.names().iter().filter(|n| *n == "server/discover").count() > 3).await;
    assert!(!server.names().contains(&"initialize".to_owned()));
}

#[tokio::test]
async fn failures_in_a_row_make_it_unhealthy_and_successes_healthy_again() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let fixture = Fixture::start(often(fleet("a"), 40), &[endpoint(address)]);
    until("unhealthy", || fixture.endpoint().is_unhealthy()).await;
    assert!(!fixture.known().known, "nothing was learnt");
    let _server = Server::start_at(address, |_| answer(200, MODERN)).await;
    until("healthy", || !fixture.endpoint().is_unhealthy()).await;
    until("known", || fixture.known().speaks("2026-07-28")).await;
}

#[tokio::test]
async fn the_start_of_a_server_does_not_count_against_it() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let starting = EndpointSpec { phase: Phase::NotReady, ..endpoint(address) };
    let fixture = Fixture::start(often(fleet("a"), 10), std::slice::from_ref(&starting));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let asked = fixture.fleet.metrics.probes.iter().map(|(_, n)| n).sum::<u64>();
    assert_eq!((asked, fixture.endpoint().is_unhealthy()), (0, false));
    let ready = EndpointSpec { phase: Phase::Ready, ..starting };
    fixture.gateway.set_endpoints(&fixture.fleet.key, &[ready]);
    until("unhealthy when it should serve", || fixture.endpoint().is_unhealthy()).await;
}

#[tokio::test]
async fn other_kinds_of_checks() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/health" => answer(503, ""),
        _ => answer(200, MODERN),
    })
    .await;
    let mut spec = often(fleet("a"), 40);
    spec.settings.health_check.probe = Probe::Http("/health".into());
    let http = Fixture::start(spec.clone(), &[endpoint(server.address)]);
    until("unhealthy by its path", || http.endpoint().is_unhealthy()).await;
    spec.settings.health_check.probe = Probe::Tcp;
    let tcp = Fixture::start(spec, &[endpoint(server.address)]);
    until("known in spite of the plain check", || tcp.known().speaks("2026-07-28")).await;
    assert!(!tcp.endpoint().is_unhealthy());
}

#[tokio::test]
async fn a_sse_server_is_not_asked_what_it_cannot_know() {
    let server = Server::start(|_| answer(500, "")).await;
    let spec = FleetSpec { transport: Transport::Sse, ..fleet("a") };
    let fixture = Fixture::start(spec, &[endpoint(server.address)]);
    until("known", || fixture.known().known).await;
    assert_eq!((fixture.known().legacy, fixture.known().stateful), (Legacy::Yes, Some(true)));
    assert!(server.asked().is_empty(), "a connection is enough");
}

#[tokio::test]
async fn who_drains_is_never_probed() {
    let server = Server::start(dual_era).await;
    let fixture = Fixture::start(often(fleet("a"), 20), &[endpoint(server.address)]);
    until("a few probes", || server.asked().len() > 3).await;
    fixture.endpoint().set_phase(Phase::Draining, 0);
    // What was under way may still arrive.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let count = server.asked().len();
    fixture.prober.endpoints_changed();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.asked().len(), count);
    assert!(fixture.prober.0.probed.lock().is_empty(), "its task has ended");
}

#[tokio::test]
async fn a_new_endpoint_is_probed_at_once_and_a_fleet_that_goes_takes_its_probes_along() {
    let server = Server::start(|_| answer(200, MODERN)).await;
    let fixture = Fixture::start(fleet("a"), &[]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    fixture.gateway.set_endpoints(&fixture.fleet.key, &[endpoint(server.address)]);
    let told = Instant::now();
    fixture.prober.endpoints_changed();
    until("known", || fixture.known().known).await;
    assert!(told.elapsed() < Duration::from_millis(800), "{:?}", told.elapsed());
    fixture.gateway.set_fleets(Vec::new());
    until("no tasks", || fixture.prober.0.probed.lock().is_empty()).await;
}
