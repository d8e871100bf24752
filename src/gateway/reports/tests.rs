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
    until("another report", || server.asked().len() == 2).await;
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
    for (field, value) in
        [("arrivals", 2), ("admitted", 1), ("shed", 1), ("inFlight", 1), ("ready", 1), ("queue", 0)]
    {
        assert_eq!(fleet[field], value, "{field}");
    }
    assert_eq!((&fleet["uid"], &fleet["completions"]["tool"]), (&Value::from("uid-github"), &Value::from(1)));
    assert_eq!(fleet["pods"][0]["completions"]["upstream"], 1);
    let seconds = |report: &Value| report["fleets"][0]["inFlightSeconds"].as_f64().unwrap();
    assert!(seconds(&second) > seconds(&first), "the integral grows while the call runs");
    until("both are counted", || gateway.metrics.reports.get(Done::Ok) == 2).await;
}

#[tokio::test]
async fn failures_are_counted_and_end_nothing() {
    let server = Server::start(|_| answer(503, "")).await;
    let urls = [format!("http://{}/", server.address), "http://127.0.0.1:1/".to_owned()];
    let receivers = Receivers::new(&urls, None, None).unwrap();
    let (gateway, mut pushes) = (gateway(), push::Pushes::default());
    pushes.send(&receivers, "{}".into(), &gateway.metrics).await;
    assert_eq!((gateway.metrics.reports.get(Done::Failed), gateway.metrics.reports.get(Done::Ok)), (2, 0));
}

#[test]
fn receivers_are_checked() {
    for bad in ["x", "ftp://a/", "//a", "https://"] {
        assert!(
            matches!(Receivers::new(&[bad.to_owned()], None, None), Err(ReceiversError::Url(_))),
            "{bad}"
        );
    }
    let https = ["https://a:1/".to_owned()];
    assert!(matches!(Receivers::new(&https, None, None), Err(ReceiversError::NoCa(_))));
    let missing = std::path::Path::new("/nonexistent/ca.pem");
    assert!(matches!(Receivers::new(&https, None, Some(missing)), Err(ReceiversError::Ca { .. })));
    assert!(Receivers::new(&[], None, None).unwrap().is_empty());
}
