//! The configuration that Docker Compose users start with, without Docker: it checks out, and it serves.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use crate::{
    client::{MODERN, modern, send, until},
    pod::{Pod, Speaks},
    world::free_port,
};

#[tokio::test]
async fn the_compose_configuration_checks_out_and_serves_all_three() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose/gateway.yaml");
    let program = env!("CARGO_BIN_EXE_mcp-fleet");
    let checked = Command::new(program).args(["gateway", "--check", "--config"]).arg(&file).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("tools/weather"));

    // The same file, with ports that are free here.
    let mut text = fs::read_to_string(&file).unwrap();
    let mut pods = Vec::new();
    for (listed, name) in [("127.0.0.1:9001", "one"), ("127.0.0.1:9002", "two"), ("127.0.0.1:9003", "three")] {
        let pod = Pod::start(name, Speaks::Modern).await;
        assert!(text.contains(listed), "the file lists {listed}");
        text = text.replace(listed, &format!("'{}'", pod.address()));
        pods.push(pod);
    }
    let port = free_port();
    text = text.replace("0.0.0.0:8080", &format!("127.0.0.1:{port}"));
    text = text.replace("0.0.0.0:9090", &format!("127.0.0.1:{}\ndebugListen: 127.0.0.1:{}", free_port(), free_port()));
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("compose-{port}.yaml"));
    fs::write(&own, text).unwrap();
    let mut gateway =
        Command::new(program).args(["gateway", "--ephemeral-key", "--config"]).arg(&own).spawn().unwrap();
    until("the gateway listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let call = modern(1, "tools/call", json!({"name": "whoami"})).to_string().into_bytes();
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", "whoami"),
    ];
    for _ in 0..60 {
        let reply = send(port, "POST", "/tools/weather/mcp", &headers, call.clone()).await;
        assert_eq!(reply.status, 200);
    }
    let _ = gateway.kill();
    let _ = gateway.wait();
    let _ = fs::remove_file(&own);
    for pod in &pods {
        assert!(!pod.calls("whoami").is_empty(), "{} served nothing", pod.name());
    }
}
