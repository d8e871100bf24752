//! What people and Prometheus see of a gateway, and what nobody may see.

use serde_json::json;

use crate::{
    client::{modern, send, soon, text, tool, until},
    pod::{Pod, Speaks},
    world::{Alone, World},
};

// G29: names of the conventions, bounded labels, a class of their own for failed tools.
#[tokio::test]
async fn metrics_name_operations_with_labels_from_the_fleet_only() {
    let pods = [Pod::start("one", Speaks::Modern).await, Pod::start("old", Speaks::Legacy).await];
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    // Both gateways ask for the names of tools once they know what the pods speak.
    until("questions for names", || {
        let asked = |p: &Pod| p.all().iter().filter(|s| s.method() == "prompts/list" && s.answered).count();
        pods.iter().map(asked).sum::<usize>() == 2
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    for name in ["whoami", "whoami", "failing", "../../invented-by-a-client"] {
        world.a.modern(&modern(1, "tools/call", json!({"name": name}))).await.json().await;
    }
    world.a.on(&session, &tool(1, "failing")).await.json().await;
    world.a.modern(&modern(1, "vendor/invented", json!({}))).await.json().await;
    let count = "mcp_server_operation_duration_seconds_count";
    let call = "mcp_method_name=\"tools/call\"";
    let fleet = ["namespace=\"tools\"", "fleet=\"demo\"", call];
    assert_eq!(world.a.metric(count, &fleet).await as u64, 5);
    let listed =
        [call, "gen_ai_tool_name=\"whoami\"", "mcp_protocol_version=\"2026-07-28\"", "error_type=\"\""];
    assert_eq!(world.a.metric(count, &listed).await as u64, 2);
    assert_eq!(world.a.metric(count, &[call, "gen_ai_tool_name=\"other\""]).await as u64, 3);
    let failed = [call, "error_type=\"tool_error\""];
    assert_eq!(world.a.metric(count, &failed).await as u64, 2, "isError of either era");
    assert_eq!(world.a.metric(count, &[call, "mcp_protocol_version=\"2025-11-25\""]).await as u64, 1);
    let metrics = world.a.metrics().await;
    assert!(!metrics.contains("invented"), "nothing of a client becomes a label");
    for bucket in ["0.01", "0.1", "1", "10", "300", "+Inf"] {
        assert!(
            metrics.contains(&format!("le=\"{bucket}\"")) || metrics.contains(&format!("le=\"{bucket}.0\"")),
            "{bucket}"
        );
    }
    let requests = "mcp_fleet_gateway_requests_total";
    assert_eq!(world.a.metric(requests, &["outcome=\"tool\""]).await as u64, 2);
    assert!(world.a.metric(requests, &["outcome=\"ok\"", "status=\"200\""]).await >= 4.0);
    assert_eq!(world.b.metric(count, &fleet).await as u64, 0, "each gateway counts its own");
}

// gateway.md section 5: what runs where, for people.
#[tokio::test]
async fn the_debug_port_shows_pods_and_what_runs_on_them() {
    let pods = [Pod::start("one", Speaks::Modern).await, Pod::start("old", Speaks::Legacy).await];
    let world = World::new(&pods, json!({"maxRequestsPerPod": 7})).await;
    let slow = modern(1, "tools/call", json!({"name": "slow"}));
    let (reply, ()) = tokio::join!(world.a.modern(&slow), async {
        until("a running call", || pods[0].calls("slow").len() == 1).await;
        let fleet = world.a.fleet().await;
        assert_eq!(
            (&fleet["namespace"], &fleet["name"], &fleet["running"]),
            (&json!("tools"), &json!("demo"), &json!(1))
        );
        assert_eq!((&fleet["anyModern"], &fleet["settings"]["maxRequestsPerPod"]), (&json!(true), &json!(7)));
        let [new, old] = [world.a.endpoint(&pods[0]).await, world.a.endpoint(&pods[1]).await];
        assert_eq!((&new["inflight"], &old["inflight"]), (&json!(1), &json!(0)));
        assert_eq!(
            (&new["phase"], &new["breaker"], &new["healthy"]),
            (&json!("ready"), &json!("closed"), &json!(true))
        );
        assert_eq!(new["capability"]["modern"], json!(["2026-07-28"]));
        assert_eq!((&old["capability"]["modern"], &old["capability"]["legacy"]), (&json!([]), &json!(true)));
        pods[0].release(1);
    });
    assert_eq!(reply.status, 200);
    let peers = world.a.debug("/admin/peers").await;
    assert_eq!(peers["ready"].as_array().unwrap().len(), 1);
    assert_ne!(peers["ready"][0], peers["own"]);
    let config = world.b.debug("/admin/config").await;
    assert_eq!((&config["keys"], &config["ending"]), (&json!(1), &json!(false)));
    assert_eq!(world.a.ready().await, Some(200));
}

// gateway.md section 5: no token, no identifier of a server and no credential, in any output and in the log.
#[tokio::test]
async fn nothing_shows_tokens_identifiers_or_credentials() {
    let pods = [Pod::start("one", Speaks::Both).await, Pod::start("two", Speaks::Both).await];
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let body = world.a.modern(&modern(1, "tools/call", json!({"name": "task"}))).await.json().await;
    let task = body["result"]["taskId"].as_str().unwrap();
    let body = world.b.modern(&modern(1, "tools/call", json!({"name": "ask"}))).await.json().await;
    let state = body["result"]["requestState"].as_str().unwrap();
    world.b.modern(&modern(1, "tasks/get", json!({"taskId": task}))).await;
    world.b.modern(&modern(1, "tools/call", json!({"name": "ask", "requestState": state}))).await;
    world.b.on("mf1.not-a-token", &tool(1, "x")).await;
    let owner = pods.iter().find(|p| !p.seen("initialize").is_empty()).unwrap();
    owner.kill();
    assert_eq!(
        (world.b.count(&session).await, world.a.count(&session).await),
        (1, 2),
        "a session that moved"
    );
    for gateway in world.both() {
        let internal = send(gateway.peer, "GET", "/internal/fleets", &[], Vec::new()).await.bytes().await;
        let mut shown = vec![
            ("metrics", gateway.metrics().await),
            ("log", gateway.log()),
            ("internal", String::from_utf8(internal).unwrap()),
        ];
        for path in ["/admin/fleets", "/admin/peers", "/admin/config"] {
            shown.push((path, gateway.debug(path).await.to_string()));
        }
        for (what, text) in shown {
            assert!(text.len() > 20, "{what} is empty");
            for secret in ["raw-", "mf1.", "Bearer", &session, task, state] {
                let line = text.lines().find(|l| l.contains(secret) && !l.starts_with("# HELP"));
                assert!(line.is_none(), "{what} shows {secret}: {}", line.unwrap_or_default());
            }
        }
    }
}

// The ports that are not for clients: read-only, and closed to who has no key.
#[tokio::test]
async fn the_other_ports_change_nothing_and_answer_peers_only() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let world = World::new(&pods, json!({})).await;
    let session = world.a.open_session().await;
    let question = json!({"at": 0, "question": "All"}).to_string().into_bytes();
    for body in [Vec::new(), question, session.clone().into_bytes(), vec![0; 100]] {
        let mut reply = send(world.a.peer, "POST", "/internal/session", &[], body).await;
        assert!(reply.status >= 400, "{}", reply.status);
        assert!(reply.bytes().await.len() < 200);
    }
    let oversize = send(world.a.peer, "POST", "/internal/session", &[], vec![b'x'; 70_000]).await;
    assert!(oversize.status >= 400);
    for path in ["/admin/fleets", "/internal/fleets", "/metrics"] {
        let reply = send(world.a.port, "GET", path, &[], Vec::new()).await;
        assert_eq!(reply.status, 404, "{path} is not for clients");
    }
    for method in ["POST", "PUT", "DELETE"] {
        assert_eq!(world.a.debug_status(method, "/admin/fleets").await, 405);
    }
    assert_eq!(world.a.count(&session).await, 1);
}

// One line for each request, of either era, with what a person asks first; and nothing that is secret.
#[tokio::test]
async fn the_access_log_has_a_line_for_each_request() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let alone = Alone::new(&pods, json!({})).await;
    let session = alone.gateway.open_session().await;
    alone.gateway.count(&session).await;
    let trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let more = [("x-request-id", "mine-7"), trace, ("authorization", "Bearer hidden")];
    let call = modern(1, "tools/call", json!({"name": "whoami"}));
    assert_eq!(alone.gateway.modern_with(&more, &call).await.status, 200);
    assert_eq!(send(alone.gateway.port, "POST", "/no/such/mcp", &[], b"{}".to_vec()).await.status, 404);
    soon("the lines", async {
        while alone.gateway.access_log().len() < 5 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let lines = alone.gateway.access_log();
    let by_method = |method: &str| lines.iter().find(|l| l["mcp_method"] == method).unwrap().clone();
    let modern = lines.iter().find(|l| l["request_id"] == "mine-7").expect("its own id").clone();
    assert_eq!((&modern["era"], &modern["tool"]), (&json!("modern"), &json!("whoami")));
    assert_eq!(modern["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((&modern["status"], &modern["fleet"]), (&json!(200), &json!("tools/demo")));
    assert_eq!(modern["endpoint"], pods[0].address().to_string());
    assert!(modern["duration_ms"].as_f64() > Some(0.0) && modern["bytes_out"].as_u64() > Some(0), "{modern}");
    assert_eq!(by_method("initialize")["era"], "legacy");
    assert_eq!(lines.iter().filter(|l| l["status"] == 404).count(), 1);
    let text = lines.iter().map(ToString::to_string).collect::<String>();
    for secret in ["hidden", "Bearer", &session] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

// A fleet by name: its addresses are looked up, and served.
#[tokio::test]
async fn endpoints_may_be_a_name() {
    let pods = [Pod::start("one", Speaks::Both).await];
    let mut fleet = crate::world::fleet("demo", &pods, &json!({}));
    fleet.as_object_mut().unwrap().remove("endpoints");
    fleet["dns"] = json!(format!("localhost:{}", pods[0].address().port()));
    let alone = Alone::configured(&pods, &fleet, |_, _| {}).await;
    let session = alone.gateway.open_session().await;
    assert_eq!((alone.gateway.count(&session).await, alone.gateway.count(&session).await), (1, 2));
    let mut reply = alone.gateway.modern(&modern(1, "tools/call", json!({"name": "whoami"}))).await;
    assert_eq!(text(&reply.json().await), "one");
}
