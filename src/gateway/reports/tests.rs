//! Reports to a receiver over loopback.

use serde_json::Value;

use super::*;
use crate::gateway::{
    metrics::{Done, Outcome},
    test_support::{Server, answer, endpoint, fleet, gateway, until},
};

fn loaded() -> Arc<Gateway> {
    let gateway = gateway();
    let spec = fleet("github");
    let key = spec.key.clone();
    gateway.set_fleets(vec![spec]);
    gateway.set_endpoints(&key, &[endpoint("127.0.0.1:9".parse().unwrap())]);
    let fleet = gateway.fleet(&key).unwrap();
    fleet.totals.arrived();
    fleet.totals.arrived();
    fleet.totals.admitted();
    fleet.totals.shed();
    fleet.totals.inflight_start(gateway.clock.now());
    fleet.totals.completed(Outcome::Tool, 3_000_000);
    fleet.view().endpoints[0].totals.completed(Outcome::Upstream, 1);
    gateway
}

#[tokio::test]
async fn a_report_carries_counters_and_the_token() {
    let server = Server::start(|_| answer(202, "")).await;
    let token = std::env::temp_dir().join(format!("mcp-fleet-token-{}", std::process::id()));
    std::fs::write(&token, "secret\n").unwrap();
    let url = format!("http://{}/v1/load", server.address);
    let receivers = Receivers::new(&[url], Some(token.clone()), None).unwrap();
    let (gateway, stop) = (loaded(), CancellationToken::new());
    let urgent = Arc::new(Notify::new());
    let task = tokio::spawn(run(Arc::clone(&gateway), receivers, Arc::clone(&urgent), stop.clone()));
    until("a report", || !server.asked().is_empty()).await;
    // The next would come within a second; one that is asked for comes sooner.
    let asked_at = tokio::time::Instant::now();
    urgent.notify_one();
    until("another report", || server.asked().len() >= 2).await;
    assert!(asked_at.elapsed() < Duration::from_millis(600), "{:?}", asked_at.elapsed());
    stop.cancel();
    task.await.unwrap();
    std::fs::remove_file(token).unwrap();
    let all = server.asked();
    assert_eq!(
        (all[0].path.as_str(), &all[0].headers["authorization"]),
        ("/v1/load", &"Bearer secret".parse().unwrap())
    );
    let (first, second) = (all[0].json(), all[1].json());
    assert_eq!((&first["version"], &first["gateway"]), (&Value::from(1), &Value::from("gateway-1")));
    assert_eq!((&first["sequence"], &second["sequence"]), (&Value::from(1), &Value::from(2)));
    assert_eq!(first["epoch"], second["epoch"]);
    let fleet = &first["fleets"][0];
    for (field, value) in [("arrivals", 2), ("admitted", 1), ("shed", 1), ("inFlight", 1), ("ready", 1)] {
        assert_eq!(fleet[field], value, "{field}");
    }
    assert_eq!(fleet["queue"], Value::Null, "what is zero is not written");
    assert_eq!((&fleet["uid"], &fleet["completions"]["tool"]), (&Value::from("uid-github"), &Value::from(1)));
    assert_eq!(fleet["pods"][0]["completions"]["upstream"], 1);
    let seconds = |report: &Value| report["fleets"][0]["inFlightSeconds"].as_f64().unwrap();
    assert!(seconds(&second) > seconds(&first), "the integral grows while the call runs");
    assert_eq!(gateway.metrics.reports.get(Done::Ok), all.len() as u64);
}

#[tokio::test]
async fn failures_are_counted_and_end_nothing() {
    let server = Server::start(|_| answer(503, "")).await;
    let urls = [format!("http://{}/", server.address), "http://127.0.0.1:1/".to_owned()];
    let receivers = Receivers::new(&urls, None, None).unwrap();
    let (gateway, stop) = (gateway(), CancellationToken::new());
    let task = tokio::spawn(run(Arc::clone(&gateway), receivers, Arc::default(), stop.clone()));
    until("two failures", || gateway.metrics.reports.get(Done::Failed) >= 2).await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(gateway.metrics.reports.get(Done::Ok), 0);
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_no_other_and_not_the_end() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(|_| answer(202, "")).await;
    let urls =
        [format!("http://{}/", silent.local_addr().unwrap()), format!("http://{}/v1/load", server.address)];
    let receivers = Receivers::new(&urls, None, None).unwrap();
    let (gateway, urgent, stop) = (gateway(), Arc::new(Notify::new()), CancellationToken::new());
    let task = tokio::spawn(run(gateway, receivers, Arc::clone(&urgent), stop.clone()));
    for n in 1..4 {
        let asked_at = tokio::time::Instant::now();
        urgent.notify_one();
        until("a report", || server.asked().len() >= n).await;
        assert!(asked_at.elapsed() < Duration::from_millis(900), "{:?}", asked_at.elapsed());
    }
    let asked_at = tokio::time::Instant::now();
    stop.cancel();
    task.await.unwrap();
    assert!(asked_at.elapsed() < FAREWELL + Duration::from_millis(500), "{:?}", asked_at.elapsed());
    let reports: Vec<_> = server.asked().iter().map(|asked| asked.json()["last"].clone()).collect();
    let (last, before) = reports.split_last().unwrap();
    assert_eq!(last, &Value::from(true));
    assert!(before.iter().all(Value::is_null), "{before:?}");
}
