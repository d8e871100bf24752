//! The file as people write it, and as they get it wrong.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{fs, sync::Arc, time::Duration};

use super::{
    check::{Output, check},
    watch::{Event, Watcher},
    *,
};
use crate::gateway::settings::{Settings, Strategy};

/// A folder of its own that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mcp-fleet-config-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read_text(text: &str) -> Result<GatewayConfig, ConfigError> {
    parse(text, Path::new("gateway.yaml")).map(|(config, _)| config)
}

/// Each problem as `line:column at message`.
fn problems(text: &str) -> Vec<String> {
    let error = read_text(text).expect_err(text);
    let one = |p: &Problem| {
        let (line, column) = p.place.unwrap_or_default();
        format!("{line}:{column} {} {}", p.at, p.message)
    };
    error.problems().iter().map(one).collect()
}

const KEYS: &str = r#"[{"id": "k1", "key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "notBefore": "2026-01-01T00:00:00Z"}]"#;
const FLEET: &str = "fleets: [{namespace: tools, name: weather, endpoints: [{address: 127.0.0.1:9001}]}]";

#[test]
fn the_documented_file_is_read() {
    let folder = Folder::new("documented");
    folder.write("keys.json", KEYS);
    let text = "
listen: 0.0.0.0:8080
adminListen: 127.0.0.1:9090
peerListen: 0.0.0.0:8082
keys: {file: keys.json}
peers: ['gateway-2:8082', '[::1]:8082']
reports: ['https://reports.example.com/v1']
fleets:
- namespace: tools
  name: github
  path: /mcp
  hostnames: [github.example.com]
  endpoints: [{address: 127.0.0.1:9001, weight: 2, zone: a}, {address: '[::1]:9001'}]
  gateway: {strategy: PeakEWMA, queue: {capacity: 5}, hostnames: [gh.example.com]}
- {namespace: tools, name: old, transport: SSE, dns: 'old-server:8000'}
";
    let path = folder.write("gateway.yaml", text);
    let config = load(&path).unwrap();
    assert_eq!(config.keys_file.as_deref(), Some(folder.0.join("keys.json").as_path()));
    assert_eq!(config.peer_listen, Some(([0, 0, 0, 0], 8082).into()));
    let [github, old] = &config.fleets[..] else { panic!("{config:?}") };
    assert_eq!(github.hostnames, ["github.example.com", "gh.example.com"]);
    assert_eq!(github.settings.hostnames, github.hostnames);
    assert_eq!((github.settings.strategy, github.settings.queue.capacity), (Strategy::PeakEwma, 5));
    let EndpointSource::Static(endpoints) = &github.source else { panic!("{github:?}") };
    assert_eq!(
        endpoints[0],
        StaticEndpoint { address: ([127, 0, 0, 1], 9001).into(), weight: 2, zone: Some("a".into()) }
    );
    assert_eq!((endpoints[1].weight, endpoints[1].address.is_ipv6()), (1, true));
    assert_eq!(old.source, EndpointSource::Dns { name: "old-server".into(), port: 8000 });
    assert_eq!((old.path.as_str(), old.transport), ("/sse", Transport::SSE));
    assert_eq!(old.settings, Settings::default());
}

#[test]
fn little_is_needed() {
    let config = read_text(FLEET).unwrap();
    assert_eq!(config.listen, ([0, 0, 0, 0], 8080).into());
    assert_eq!(config.admin_listen, ([127, 0, 0, 1], 9090).into());
    assert_eq!(config.debug_listen, ([127, 0, 0, 1], 9091).into());
    assert_eq!(config.fleets[0].path, "/mcp");
    assert!(read_text("").unwrap().fleets.is_empty());
}

#[test]
fn unknown_fields_are_all_named_with_their_place() {
    let text = "listn: 1\nfleets:\n- namespace: tools\n  name: weather\n  endpoints: [{address: 127.0.0.1:9001, wieght: 2}]\n  gateway:\n    queue: {capacty: 4}\n    absolutelyNothing: 1\n    healthCheck: {typ: MCP}\n";
    let found = problems(text);
    assert_eq!(found.len(), 5, "{found:#?}");
    assert_eq!(found[0], "1:1 listn there is no such field; did you mean listen?");
    assert!(found[1].starts_with("5:41 fleets[0].endpoints[0].wieght "), "{found:#?}");
    assert!(found[1].ends_with("did you mean weight?"), "{found:#?}");
    assert!(found[2].starts_with("7:13 fleets[0].gateway.queue.capacty "), "{found:#?}");
    assert!(
        found[3].starts_with("8:5 ") && found[3].contains("there are circuitBreaker, class"),
        "{found:#?}"
    );
    assert!(found[4].contains("did you mean type?"), "{found:#?}");
}

#[test]
fn what_is_not_yaml_or_of_another_type_has_its_place() {
    let found = problems("listen: [1, 2\nfleets: []\n");
    assert!(found.len() == 1 && !found[0].starts_with("0:0"), "{found:#?}");
    let found =
        problems("fleets:\n- namespace: tools\n  name: weather\n  endpoints: nonsense\n  hostnmes: []\n");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[1].starts_with("4:14 "), "{found:#?}");
    let found = problems("- listen: 1\n");
    assert!(found[0].contains("must be a mapping"), "{found:#?}");
    let found = problems("fleets: [{name: a}]");
    assert!(found[0].contains("namespace"), "{found:#?}");
    let found = problems("listen: a\nlisten: b\n");
    assert!(found[0].contains("duplicate") && found[0].starts_with("2:1"), "{found:#?}");
}

/// A file with one thing wrong, and part of what must be said.
const WRONG: &[(&str, &str)] = &[
    ("listen: 8080", "listen '8080' is not an address and port such as 0.0.0.0:8080"),
    (
        "{listen: '0.0.0.0:9000', adminListen: '127.0.0.1:9000'}",
        "adminListen 127.0.0.1:9000 is taken by listen already",
    ),
    ("adminListen: 127.0.0.1:9091", "debugListen 127.0.0.1:9091 is taken by adminListen"),
    ("keys: {file: missing.json}", "missing.json does not exist; relative paths count from the folder"),
    ("tls: [{cert: missing.pem, key: Cargo.toml}]", "tls[0].cert missing.pem does not exist"),
    (
        "tls: [{cert: Cargo.toml, key: Cargo.toml}]",
        "tls[0].cert Cargo.toml is not a PEM file with certificates",
    ),
    (
        "tls: [{cert: Cargo.toml, key: Cargo.toml}]",
        "tls[0].key Cargo.toml is not a PEM file with a private key",
    ),
    ("tls: [{hosts: ['a.*'], cert: a, key: b}]", "tls[0].hosts[0] 'a.*' is not a host name"),
    (
        "tls: [{hosts: [a], cert: a, key: b}, {hosts: [a], cert: a, key: b}]",
        "tls[1].hosts[0] 'a' has a certificate already, in tls[0]",
    ),
    ("tls: [{cert: a, key: b}, {cert: a, key: b}]", "only one entry can be without hosts"),
    (
        "{peerListen: '0.0.0.0:8082', keys: {file: Cargo.toml}, peers: [gateway-2]}",
        "peers[0] 'gateway-2' is not host:port",
    ),
    (
        "{peerListen: '0.0.0.0:8082', keys: {file: Cargo.toml}, peers: ['a:1', 'a:1']}",
        "peers[1] 'a:1' stands there twice",
    ),
    ("{keys: {file: Cargo.toml}, peers: ['a:1']}", "peers peers ask back; set peerListen"),
    ("{peerListen: '0.0.0.0:8082', peers: ['a:1']}", "keys.file gateways of one set must share their keys"),
    ("reports: ['ftp://a/']", "reports[0] 'ftp://a/' is not a URL such as https://"),
    ("reports: ['https://user@a/']", "is not a URL"),
    (
        "fleets: [{namespace: Tools, name: weather, endpoints: []}]",
        "fleets[0].namespace 'Tools' is not at most 63",
    ),
    (
        "fleets: [{namespace: tools, name: 1weather, endpoints: []}]",
        "fleets[0].name '1weather' is not at most 50",
    ),
    (
        "fleets: [{namespace: tools, name: weather, path: mcp, endpoints: []}]",
        "fleets[0].path 'mcp' is not a path such as /mcp",
    ),
    ("fleets: [{namespace: tools, name: weather, path: '/a/../b', endpoints: []}]", "is not a path"),
    ("fleets: [{namespace: tools, name: weather}]", "fleets[0] has neither endpoints nor dns"),
    (
        "fleets: [{namespace: tools, name: weather, dns: 'a:1', endpoints: []}]",
        "fleets[0] has both endpoints and dns",
    ),
    ("fleets: [{namespace: tools, name: weather, dns: weather}]", "fleets[0].dns 'weather' is not name:port"),
    ("fleets: [{namespace: tools, name: weather, dns: '10.0.0.1:80'}]", "list it under endpoints"),
    ("fleets: [{namespace: tools, name: weather, dns: 'https://weather:443'}]", "cleartext HTTP/1.1 only"),
    (
        "fleets: [{namespace: tools, name: weather, dns: 'http://weather:80/'}]",
        "leave out the scheme: write weather:80",
    ),
    (
        "fleets: [{namespace: tools, name: weather, endpoints: [{address: 'https://10.0.0.1:443'}]}]",
        "cleartext HTTP/1.1 only",
    ),
    (
        "fleets: [{namespace: tools, name: weather, endpoints: [{address: 'http://10.0.0.1:80/mcp'}]}]",
        "write 10.0.0.1:80",
    ),
    (
        "fleets: [{namespace: tools, name: weather, endpoints: [{address: 'weather:80'}]}]",
        "write dns: weather:80 instead",
    ),
    (
        "fleets: [{namespace: tools, name: weather, endpoints: [{address: 10.0.0.1}]}]",
        "is not an address and port",
    ),
    (
        "fleets: [{namespace: tools, name: weather, endpoints: [{address: '10.0.0.1:0'}]}]",
        "cannot be connected to",
    ),
    (
        "fleets: [{namespace: tools, name: weather, endpoints: [{address: '10.0.0.1:99999'}]}]",
        "is not an address and port",
    ),
    (
        "fleets: [{namespace: tools, name: weather, endpoints: [{address: 'a:1', weight: 0}]}]",
        "weight 0 is not a number from 1",
    ),
    (
        "fleets: [{namespace: tools, name: weather, endpoints: [{address: 'a:1', zone: ''}]}]",
        "zone must have 1 to 63",
    ),
    (
        "fleets: [{namespace: tools, name: weather, endpoints: [{address: '10.0.0.1:1'}, {address: '10.0.0.1:1'}]}]",
        "endpoints[1].address 10.0.0.1:1 stands there twice",
    ),
    (
        "fleets: [{namespace: a, name: b, endpoints: []}, {namespace: a, name: b, endpoints: []}]",
        "fleets[1].name a/b is fleets[0] already",
    ),
    (
        "fleets: [{namespace: a, name: b, hostnames: [h], endpoints: []}, {namespace: a, name: c, gateway: {hostnames: [h]}, endpoints: []}]",
        "fleets[1].hostnames 'h' belongs to fleets[0] already",
    ),
    (
        "fleets: [{namespace: a, name: b, hostnames: [h, h], endpoints: []}]",
        "hostnames[1] 'h' stands there twice",
    ),
    (
        "fleets: [{namespace: a, name: b, hostnames: ['h:80'], endpoints: []}]",
        "hostnames[0] 'h:80' is not a host name",
    ),
    (
        "fleets: [{namespace: a, name: b, endpoints: [], gateway: {queue: {capacity: -1}}}]",
        "fleets[0].gateway.queue.capacity -1 is out of range",
    ),
];

#[test]
fn each_wrong_thing_is_said_with_what_to_do() {
    for (text, says) in WRONG {
        let found = problems(text);
        assert!(found.iter().any(|p| p.contains(says)), "{text}: {found:#?}");
        assert!(
            found
                .iter()
                .all(|p| !p.starts_with("0:0") || p.contains("debugListen") || p.contains("keys.file")),
            "no place: {found:#?}"
        );
    }
}

#[test]
fn all_problems_are_said_at_once() {
    let found = problems("listen: x\nadminListen: y\nfleets: [{namespace: A, name: B, hostnames: [C]}]\n");
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn the_check_reports_for_people_and_programs() {
    let folder = Folder::new("check");
    let good = folder.write("good.yaml", FLEET);
    let report = check(&good, Output::Text);
    assert!(report.valid);
    assert!(report.text.contains("good.yaml: good\n"), "{}", report.text);
    assert!(
        report.text.contains("tools/weather  /mcp  -          127.0.0.1:9001  LeastRequest\n"),
        "{}",
        report.text
    );
    assert!(report.text.contains("note: keys.file: is not set"), "{}", report.text);
    let bad = folder.write("bad.yaml", "listen: x\npath: y\n");
    let report = check(&bad, Output::Text);
    assert!(!report.valid);
    assert!(
        report.text.contains("bad.yaml: 2 problems\n  line 2, column 1: path: there is no such field"),
        "{}",
        report.text
    );
    let report = check(&bad, Output::Json);
    let json: serde_json::Value = serde_json::from_str(&report.text).unwrap();
    assert_eq!(json["valid"], false);
    assert_eq!((&json["problems"][1]["at"], &json["problems"][1]["line"]), (&"listen".into(), &1.into()));
    let json: serde_json::Value = serde_json::from_str(&check(&good, Output::Json).text).unwrap();
    assert_eq!(json["fleets"][0]["endpoints"][0]["address"], "127.0.0.1:9001");
    let missing = check(&folder.0.join("none.yaml"), Output::Text);
    assert!(!missing.valid && missing.text.contains("failed to read the configuration"), "{}", missing.text);
}

fn reloaded(event: Option<Event>) -> (Arc<GatewayConfig>, Vec<&'static str>) {
    match event {
        Some(Event::Reloaded { config, restart }) => (config, restart),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_is_taken_once_it_rests() {
    let folder = Folder::new("watch");
    let path = folder.write("gateway.yaml", FLEET);
    let mut watcher = Watcher::new(path.clone(), Arc::new(load(&path).unwrap()));
    assert!(watcher.look().is_none());
    fs::write(&path, "fleets: []").unwrap();
    assert!(watcher.look().is_none(), "it may still be written");
    fs::write(&path, FLEET.replace("9001", "9002")).unwrap();
    assert!(watcher.look().is_none(), "it has changed again");
    let (config, restart) = reloaded(watcher.look());
    assert!(restart.is_empty());
    assert_eq!(
        config.fleets[0].source,
        EndpointSource::Static(vec![StaticEndpoint {
            address: ([127, 0, 0, 1], 9002).into(),
            weight: 1,
            zone: None
        }])
    );
    assert!(watcher.look().is_none());
}

#[test]
fn what_is_wrong_changes_nothing_and_is_said_once() {
    let folder = Folder::new("refuse");
    let path = folder.write("gateway.yaml", FLEET);
    let mut watcher = Watcher::new(path.clone(), Arc::new(load(&path).unwrap()));
    fs::write(&path, "listen: x").unwrap();
    assert!(watcher.look().is_none());
    assert!(matches!(watcher.look(), Some(Event::Refused(ConfigError::Invalid { .. }))));
    for _ in 0..40 {
        assert!(watcher.look().is_none(), "said once");
    }
    fs::write(&path, FLEET).unwrap();
    assert!(watcher.look().is_none());
    assert_eq!(reloaded(watcher.look()).0.fleets.len(), 1, "and good again");
    fs::remove_file(&path).unwrap();
    assert!(watcher.look().is_none());
    assert!(matches!(watcher.look(), Some(Event::Refused(ConfigError::Read { .. }))));
}

#[test]
fn a_refused_file_is_tried_again_when_what_it_names_has_come() {
    let folder = Folder::new("later");
    let path = folder.write("gateway.yaml", FLEET);
    let mut watcher = Watcher::new(path.clone(), Arc::new(load(&path).unwrap()));
    fs::write(&path, format!("keys: {{file: keys.json}}\n{FLEET}")).unwrap();
    assert!(watcher.look().is_none());
    assert!(matches!(watcher.look(), Some(Event::Refused(_))));
    folder.write("keys.json", KEYS);
    let event = (0..20).find_map(|_| watcher.look());
    assert!(reloaded(event).0.keys_file.is_some());
    folder.write("keys.json", &format!("{KEYS}\n"));
    assert!(watcher.look().is_none());
    reloaded(watcher.look());
}

#[test]
fn keys_that_cannot_be_used_are_named_without_being_shown() {
    let folder = Folder::new("keys");
    let path = folder.write("gateway.yaml", &format!("keys: {{file: keys.json}}\n{FLEET}"));
    for (text, what) in [
        ("[]", "holds no key"),
        (r#"[{"id": "k", "key": "c2VjcmV0", "notBefore": "2026-01-01T00:00:00Z"}]"#, "\"k\" is not 32 bytes"),
    ] {
        folder.write("keys.json", text);
        let error = load(&path).expect_err(text).to_string();
        assert!(error.contains(what) && !error.contains("c2VjcmV0"), "{error}");
    }
}

#[test]
fn addresses_stay_until_a_restart_and_are_named() {
    let folder = Folder::new("restart");
    let path = folder.write("gateway.yaml", FLEET);
    let before = load(&path).unwrap();
    let mut watcher = Watcher::new(path.clone(), Arc::new(before.clone()));
    fs::write(
        &path,
        format!("listen: 127.0.0.1:1\npeerListen: 127.0.0.1:2\n{}", FLEET.replace("weather", "other")),
    )
    .unwrap();
    assert!(watcher.look().is_none());
    let (config, restart) = reloaded(watcher.look());
    assert_eq!(restart, ["listen", "peerListen"]);
    assert_eq!((config.listen, config.peer_listen), (before.listen, None));
    assert_eq!(config.fleets[0].name, "other");
}

#[cfg(unix)]
#[test]
fn the_swap_of_a_config_map_is_seen() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("swap");
    for (version, text) in [("1", FLEET.to_owned()), ("2", FLEET.replace("weather", "other"))] {
        fs::create_dir(folder.0.join(version)).unwrap();
        folder.write(&format!("{version}/gateway.yaml"), &text);
    }
    symlink("1", folder.0.join("data")).unwrap();
    symlink("data/gateway.yaml", folder.0.join("gateway.yaml")).unwrap();
    let path = folder.0.join("gateway.yaml");
    let mut watcher = Watcher::new(path.clone(), Arc::new(load(&path).unwrap()));
    symlink("2", folder.0.join("tmp")).unwrap();
    fs::rename(folder.0.join("tmp"), folder.0.join("data")).unwrap();
    assert!(watcher.look().is_none());
    assert_eq!(reloaded(watcher.look()).0.fleets[0].name, "other");
}

#[tokio::test]
async fn the_loop_tells_its_hook_and_ends() {
    let folder = Folder::new("loop");
    let path = folder.write("gateway.yaml", FLEET);
    let watcher = Watcher::new(path.clone(), Arc::new(load(&path).unwrap()));
    let cancel = tokio_util::sync::CancellationToken::new();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let task = tokio::spawn(watch::watch(watcher, cancel.clone(), move |event| {
        let _ = tell.send(matches!(event, Event::Reloaded { .. }));
    }));
    fs::write(&path, "listen: x").unwrap();
    let event = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap();
    assert_eq!(event, Some(false));
    fs::write(&path, FLEET).unwrap();
    let event = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap();
    assert_eq!(event, Some(true));
    cancel.cancel();
    task.await.unwrap();
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z:\\[\\]{} \n'\"0-9#&*|>-]{0,80}") {
        if let Err(error) = read_text(&text) {
            proptest::prop_assert!(!error.problems().is_empty());
        }
    }
}
