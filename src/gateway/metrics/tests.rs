use prometheus_client::encoding::text;

use super::*;

fn scrape(registry: &Registry) -> String {
    let mut text = String::new();
    text::encode(&mut text, registry).unwrap();
    text
}

#[test]
fn a_fleet_appears_under_its_labels_and_goes_with_it() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let key = FleetKey::new("tools", "github");
    let fleet = metrics.fleet(&key);
    assert!(fleet.same(&metrics.fleet(&key)));
    fleet.set_names(["search"].into_iter(), ["review"].into_iter());
    fleet.observe(&Observation {
        method: Method::ToolsCall,
        tool: Some("search"),
        version: Version::V20251125,
        error: Some(ErrorType::Tool),
        seconds: 0.3,
    });
    fleet.requested(Outcome::Tool, 200);
    fleet.requested(Outcome::Client, 418);
    fleet.waited(0.004);
    fleet.shed.inc(Shed::Full);
    fleet.listens.inc();
    metrics.reloads.inc(Done::Failed);
    let text = scrape(&registry);
    for line in [
        "mcp_server_operation_duration_seconds_bucket{le=\"0.2\",namespace=\"tools\",fleet=\"github\",\
         mcp_method_name=\"tools/call\",gen_ai_tool_name=\"search\",mcp_protocol_version=\"2025-11-25\",\
         error_type=\"tool_error\"} 0",
        "mcp_server_operation_duration_seconds_bucket{le=\"+Inf\",namespace=\"tools\",fleet=\"github\",\
         mcp_method_name=\"tools/call\",gen_ai_tool_name=\"search\",mcp_protocol_version=\"2025-11-25\",\
         error_type=\"tool_error\"} 1",
        "mcp_fleet_gateway_requests_total{namespace=\"tools\",fleet=\"github\",outcome=\"tool\",status=\"200\"} 1",
        "mcp_fleet_gateway_requests_total{namespace=\"tools\",fleet=\"github\",outcome=\"client\",status=\"other\"} 1",
        "mcp_fleet_gateway_queue_wait_seconds_count{namespace=\"tools\",fleet=\"github\"} 1",
        "mcp_fleet_gateway_shed_total{namespace=\"tools\",fleet=\"github\",reason=\"queue_full\"} 1",
        "mcp_fleet_gateway_listens{namespace=\"tools\",fleet=\"github\"} 1",
        "mcp_fleet_gateway_reloads_total{result=\"failed\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
    }
    metrics.forget(&key);
    fleet.listens.inc();
    assert!(!scrape(&registry).contains("github"));
    assert!(!fleet.same(&metrics.fleet(&key)), "a fleet that comes back starts at zero");
}

#[test]
fn every_family_is_explained_and_stands_once() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.fleet(&FleetKey::new("a", "b"));
    let text = scrape(&registry);
    let types: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
    let mut names: Vec<&str> = types.iter().filter_map(|t| t.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), types.len(), "{text}");
    for name in names {
        let help = format!("# HELP {name} ");
        assert!(text.lines().any(|l| l.strip_prefix(&help).is_some_and(|h| h.len() > 10)), "{name}");
        assert!(name.starts_with("mcp_"), "{name}");
    }
}
