//! The debug port over loopback.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::gateway::{
    fleet::{EndpointSpec, Phase},
    seal::PodId,
    test_support,
};

const POD: &str = "0f3c2b1a-2222-3333-4444-555555555555";

fn gateway() -> Arc<Gateway> {
    let gateway = test_support::gateway();
    gateway.set_fleets(vec![test_support::fleet("github")]);
    let pod = |phase, uid, port| EndpointSpec {
        id: PodId::from_uid(uid),
        phase,
        name: format!("github-{port}"),
        ..test_support::endpoint(SocketAddr::from(([10, 0, 0, 1], port)))
    };
    let other = "9f3c2b1a-2222-3333-4444-555555555555";
    let specs = [pod(Phase::Ready, POD, 1), pod(Phase::Draining, other, 2)];
    gateway.set_endpoints(&FleetKey::new("tools", "github"), &specs);
    let view = gateway.fleet(&FleetKey::new("tools", "github")).unwrap().view_full();
    let first = &view.endpoints[0];
    first.capability.store(Arc::new(Capability {
        known: true,
        listed: vec!["2026-07-28".into(), "2025-11-25".into()],
        modern: vec!["2026-07-28".into()],
        legacy: Legacy::Yes,
        stateful: Some(true),
        server: Some(("github".into(), "1.4.0".into())),
        ..Capability::default()
    }));
    first.load.started();
    first.load.stream_opened();
    first.sessions.store(3, std::sync::atomic::Ordering::Relaxed);
    gateway
}

async fn ask(gateway: Arc<Gateway>, path: &str) -> (String, Value) {
    let admin = bind(SocketAddr::from(([127, 0, 0, 1], 0)), gateway).await.unwrap();
    let address = admin.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(admin.serve(stop.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    stop.cancel();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn fleets_show_their_endpoints_and_settings() {
    let (status, all) = ask(gateway(), "/admin/fleets").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let (_, one) = ask(gateway(), "/admin/fleets/tools/github").await;
    assert_eq!(all["fleets"][0]["name"], one["name"]);
    assert_eq!(one["settings"]["circuitBreaker"]["failureThreshold"], 5);
    assert_eq!(one["settings"]["timeouts"]["activationSeconds"], 55);
    let endpoint = &one["endpoints"][0];
    for (field, value) in [
        ("podUid", json!(POD)),
        ("phase", json!("ready")),
        ("healthy", json!(true)),
        ("breaker", json!("closed")),
        ("ejected", json!(false)),
        ("inflight", json!(1)),
        ("streams", json!(1)),
        ("sessions", json!(3)),
        ("ewmaMs", Value::Null),
    ] {
        assert_eq!(endpoint[field], value, "{field}");
    }
    assert_eq!(endpoint["capability"]["versions"], json!(["2026-07-28", "2025-11-25"]));
    assert_eq!(one["endpoints"][1]["phase"], "draining");
    let (status, _) = ask(gateway(), "/admin/fleets/tools/none").await;
    assert_eq!(status, "HTTP/1.1 404 Not Found");
}

#[tokio::test]
async fn peers_and_config() {
    let gateway = gateway();
    let peer = |port| crate::gateway::shared::Peer { address: SocketAddr::from(([10, 0, 0, 9], port)) };
    gateway.own.store(Arc::new(Some(peer(1))));
    gateway.peers.store(Arc::new(vec![peer(2)]));
    let (_, peers) = ask(Arc::clone(&gateway), "/admin/peers").await;
    assert_eq!(peers, json!({"own": "10.0.0.9:1", "ready": ["10.0.0.9:2"]}));
    let (_, config) = ask(gateway, "/admin/config").await;
    assert_eq!((&config["name"], &config["keys"]), (&json!("gateway-1"), &json!(1)));
}

#[test]
fn the_operator_learns_what_it_asks_for() {
    let told: Value = serde_json::from_slice(&internal_fleets(&gateway())).unwrap();
    assert_eq!(told["gateway"], "gateway-1");
    let fleet = &told["fleets"][0];
    assert_eq!(
        (&fleet["namespace"], &fleet["name"], &fleet["uid"]),
        (&json!("tools"), &json!("github"), &json!("uid-github"))
    );
    let protocol = json!({
        "versions": ["2025-11-25", "2026-07-28"], "server": {"name": "github", "version": "1.4.0"}, "sessions": "Stateful",
    });
    assert_eq!(fleet["protocol"], protocol);
    assert_eq!(fleet["endpoints"][0], json!({"podUid": POD, "sessions": 3, "inflight": 1, "streams": 1}));
    assert_eq!(fleet["endpoints"].as_array().map(Vec::len), Some(2));
}

#[test]
fn sessions_of_a_fleet_are_the_sum_of_its_pods() {
    let with = |stateful| Capability { stateful, ..Capability::default() };
    let of = |all: &[Capability]| protocol(&all.iter())["sessions"].clone();
    assert_eq!(of(&[]), "Unknown");
    assert_eq!(of(&[with(None), with(Some(false))]), "Stateless");
    assert_eq!(of(&[with(Some(false)), with(Some(true))]), "Stateful");
}
