//! `mcp-fleet gateway --config FILE --check`: what is wrong with a file, or what it means, for people and as JSON.
//! Reads files; opens no socket and looks up no name.

use std::{fmt::Write as _, path::Path};

use serde_json::{Value, json};

use super::{EndpointSource, FleetConfig, GatewayConfig, Problem, parse, read};

/// How the report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Report {
    /// What to print; ends with a newline.
    pub text: String,
    /// The configuration can be used: the command ends with 0, else with 1.
    pub valid: bool,
}

/// Checks the file at `path`.
pub fn check(path: &Path, output: Output) -> Report {
    let result = read(path).and_then(|text| parse(&text, path));
    let (config, problems, notes) = match result {
        Ok((config, notes)) => (Some(config), Vec::new(), notes),
        Err(error) => (None, error.problems(), Vec::new()),
    };
    let text = match output {
        Output::Text => text(path, config.as_ref(), &problems, &notes),
        Output::Json => format!("{:#}\n", json(path, config.as_ref(), &problems, &notes)),
    };
    Report { text, valid: config.is_some() }
}

fn text(path: &Path, config: Option<&GatewayConfig>, problems: &[Problem], notes: &[Problem]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    if let Some(config) = config {
        let _ = writeln!(out, "{}: good", path.display());
        let _ = writeln!(
            out,
            "  clients on {}{}",
            config.listen,
            if config.tls.is_empty() { "" } else { " (TLS)" }
        );
        let _ = writeln!(out, "  admin on {}, debug on {}", config.admin_listen, config.debug_listen);
        if let Some(peer) = config.peer_listen {
            let _ =
                writeln!(out, "  other gateways on {peer}; they are {}", or_dash(&config.peers.join(", ")));
        }
        if !config.fleets.is_empty() {
            let rows: Vec<[String; 5]> = config.fleets.iter().map(row).collect();
            out.push('\n');
            table(&mut out, ["FLEET", "PATH", "HOSTNAMES", "SERVERS", "STRATEGY"], &rows);
        }
    } else {
        let count = problems.len();
        let _ = writeln!(out, "{}: {count} problem{}", path.display(), if count == 1 { "" } else { "s" });
        for problem in problems {
            let _ = writeln!(out, "  {problem}");
        }
    }
    if !notes.is_empty() {
        out.push('\n');
        for note in notes {
            let _ = writeln!(out, "note: {note}");
        }
    }
    out
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn row(fleet: &FleetConfig) -> [String; 5] {
    let servers = match &fleet.source {
        EndpointSource::Static(endpoints) if endpoints.len() <= 3 => {
            endpoints.iter().map(|e| e.address.to_string()).collect::<Vec<_>>().join(", ")
        }
        EndpointSource::Static(endpoints) => format!("{} addresses", endpoints.len()),
        EndpointSource::Dns { name, port } => format!("dns {name}:{port}"),
    };
    [
        format!("{}/{}", fleet.namespace, fleet.name),
        fleet.path.clone(),
        or_dash(&fleet.hostnames.join(", ")).to_owned(),
        or_dash(&servers).to_owned(),
        format!("{:?}", fleet.settings.strategy),
    ]
}

/// Columns as wide as their widest cell.
fn table(out: &mut String, head: [&str; 5], rows: &[[String; 5]]) {
    let width = |column: usize| {
        rows.iter().map(|r| r[column].chars().count()).chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let head = head.map(str::to_owned);
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, " {cell:<width$} ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

fn json(path: &Path, config: Option<&GatewayConfig>, problems: &[Problem], notes: &[Problem]) -> Value {
    let list = |all: &[Problem]| -> Vec<Value> {
        let one = |p: &Problem| json!({"at": p.at, "line": p.place.map(|p| p.0), "column": p.place.map(|p| p.1), "message": p.message});
        all.iter().map(one).collect()
    };
    let mut report = json!({
        "file": path.display().to_string(),
        "valid": config.is_some(),
        "problems": list(problems),
        "notes": list(notes),
    });
    if let Some(config) = config {
        report["listen"] = json!(config.listen);
        report["adminListen"] = json!(config.admin_listen);
        report["debugListen"] = json!(config.debug_listen);
        report["peerListen"] = json!(config.peer_listen);
        report["tls"] = json!(!config.tls.is_empty());
        report["fleets"] = config.fleets.iter().map(fleet).collect();
    }
    report
}

fn fleet(fleet: &FleetConfig) -> Value {
    let (endpoints, dns) = match &fleet.source {
        EndpointSource::Static(all) => {
            let one =
                |e: &super::StaticEndpoint| json!({"address": e.address, "weight": e.weight, "zone": e.zone});
            (Some(all.iter().map(one).collect::<Vec<_>>()), None)
        }
        EndpointSource::Dns { name, port } => (None, Some(format!("{name}:{port}"))),
    };
    json!({
        "namespace": fleet.namespace, "name": fleet.name, "path": fleet.path, "transport": fleet.transport,
        "hostnames": fleet.hostnames, "endpoints": endpoints, "dns": dns,
        "strategy": format!("{:?}", fleet.settings.strategy), "enabled": fleet.settings.enabled,
    })
}
