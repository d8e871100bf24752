//! The arrows of the design, checked on the source: who may use whom, and what the pure modules may not
//! touch. A dependency that is added in passing fails here, with the line.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test program")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A part of `src`, and the parts of the crate that it may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("api", &["api"]),
    ("autoscale", &["autoscale", "domain"]),
    ("autoscale/metrics_api", &["api", "autoscale", "domain", "runtime"]),
    ("domain", &["domain"]),
    ("agent", &["agent"]),
    ("runtime", &["runtime"]),
    (
        "operator/desired",
        &[
            "api",
            "autoscale",
            "domain",
            "operator::children",
            "operator::hash",
            "operator::scaling",
            "operator::validate",
            "operator::test_support",
        ],
    ),
    ("operator", &["api", "autoscale", "domain", "operator", "runtime"]),
    ("simulate", &["api", "autoscale", "domain", "operator::validate", "simulate"]),
    ("gateway/balance", &["gateway::balance"]),
    ("gateway", &["api", "domain", "gateway", "runtime"]),
];

/// Files that only compute: values and `now` in, values out.
const PURE: &[&str] = &[
    "api",
    "autoscale/behavior.rs",
    "autoscale/board.rs",
    "autoscale/decide.rs",
    "autoscale/decide",
    "autoscale/decision.rs",
    "autoscale/hpa.rs",
    "autoscale/ledger.rs",
    "autoscale/ledger",
    "autoscale/load.rs",
    "autoscale/metrics_api/answers.rs",
    "autoscale/metrics_api/apiservice.rs",
    "autoscale/metrics_api/bundle.rs",
    "autoscale/metrics_api/discovery.rs",
    "autoscale/metrics_api/reply.rs",
    "autoscale/metrics_api/selector.rs",
    "autoscale/metrics_api/state.rs",
    "autoscale/metrics_api/url.rs",
    "autoscale/policy.rs",
    "autoscale/report.rs",
    "autoscale/report",
    "autoscale/snapshot.rs",
    "autoscale/state.rs",
    "autoscale/time.rs",
    "autoscale/victims.rs",
    "domain",
    "gateway/balance",
    "gateway/breaker.rs",
    "gateway/breaker",
    "gateway/mcp",
    "gateway/retry.rs",
    "gateway/routing.rs",
    "gateway/routing",
    "gateway/settings.rs",
    "gateway/settings",
    "operator/desired",
    "operator/children.rs",
    "operator/compare.rs",
    "operator/gateway.rs",
    "operator/gateways/cost.rs",
    "operator/gateways/wire.rs",
    "operator/hash.rs",
    "operator/observe.rs",
    "operator/plan.rs",
    "operator/pods.rs",
    "operator/scaler/effective.rs",
    "operator/scaler/entry.rs",
    "operator/scaler/news.rs",
    "operator/scaler/pause.rs",
    "operator/scaler/snapshot.rs",
    "operator/scaler/usage.rs",
    "operator/scaling.rs",
    "operator/status.rs",
    "operator/status",
    "operator/validate.rs",
    "simulate/evaluate.rs",
    "simulate/fleet.rs",
    "simulate/measure.rs",
    "simulate/measure",
    "simulate/run.rs",
    "simulate/scalers.rs",
    "simulate/scalers",
    "simulate/scenario.rs",
    "simulate/scenarios.rs",
    "simulate/svg.rs",
    "simulate/table.rs",
    "simulate/trace.rs",
    "simulate/world.rs",
    "simulate/world",
    "operator/validate",
];

/// I/O, clocks, the environment and chance.
const IMPURE: [&str; 14] = [
    "tokio",
    "kube::Client",
    "kube::Api",
    "Api<",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "Instant::now",
    "SystemTime",
    "Timestamp::now",
    "rand::",
    "async fn",
    "thread::sleep",
];

fn sources(under: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(under);
    if root.is_file() {
        return vec![root];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() || path.extension().is_some_and(|e| e == "rs") {
            let inner =
                path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap().to_owned();
            found.extend(sources(inner.to_str().unwrap()));
        }
    }
    found
}

/// Lines of code before the unit tests, without comments, with their numbers.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(i, line)| (i + 1, line.split(" // ").next().unwrap().to_owned()))
        .collect()
}

fn is_test(file: &Path) -> bool {
    let in_folder = file.components().any(|part| part.as_os_str() == "tests");
    in_folder || file.ends_with("tests.rs") || file.ends_with("test_support.rs")
}

/// Paths that follow `crate::`, with braces opened, and the line on which each `crate::` stands.
fn crate_paths(code: &[(usize, String)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (i, (number, line)) in code.iter().enumerate() {
        for (at, prefix) in line.match_indices("crate::") {
            let rest = std::iter::once(&line[at + prefix.len()..])
                .chain(code[i + 1..].iter().map(|(_, l)| l.as_str()));
            let rest: String = rest.take_while_inclusive_of_group();
            found.extend(expand(&rest).into_iter().map(|path| (*number, path)));
        }
    }
    found
}

trait Group {
    fn take_while_inclusive_of_group(self) -> String;
}

impl<'a, I: Iterator<Item = &'a str>> Group for I {
    /// The lines up to the one that closes the braces of the first.
    fn take_while_inclusive_of_group(self) -> String {
        let (mut text, mut depth) = (String::new(), 0_i32);
        for line in self {
            text.push_str(line.trim());
            depth += line.chars().map(|c| i32::from(c == '{') - i32::from(c == '}')).sum::<i32>();
            if depth <= 0 {
                break;
            }
        }
        text
    }
}

/// `a::{b, c::{d, e}}` → `a::b`, `a::c::d`, `a::c::e`.
fn expand(text: &str) -> Vec<String> {
    let head: String = text.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
    let Some(group) = text[head.len()..].strip_prefix('{') else {
        return if head.is_empty() { Vec::new() } else { vec![head] };
    };
    let (mut depth, mut parts) = (1, vec![String::new()]);
    for c in group.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            _ if depth == 0 => break,
            ',' if depth == 1 => parts.push(String::new()),
            c => parts.last_mut().unwrap().push(c),
        }
    }
    parts.iter().flat_map(|p| expand(p.trim())).map(|p| format!("{head}{p}")).collect()
}

#[test]
fn arrows_point_one_way() {
    let mut wrong = Vec::new();
    for (part, allowed) in MAY_USE.iter().copied() {
        for file in sources(part) {
            // The one part of the autoscaler that listens has lines of its own.
            if part == "autoscale" && file.to_str().unwrap().contains("/metrics_api") {
                continue;
            }
            // `operator/desired` has a stricter line of its own.
            if part == "operator" && file.to_str().unwrap().contains("/desired/") {
                continue;
            }
            for (line, path) in crate_paths(&code(&file)) {
                let allowed = allowed.iter().any(|a| path == *a || path.starts_with(&format!("{a}::")));
                if !allowed {
                    wrong.push(format!("{}:{line}: {part} must not use {path}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_decides_is_pure() {
    let mut wrong = Vec::new();
    for file in PURE.iter().flat_map(|part| sources(part)).filter(|f| !is_test(f)) {
        for (line, text) in code(&file) {
            if let Some(word) = IMPURE.iter().find(|word| text.contains(**word)) {
                wrong.push(format!(
                    "{}:{line}: a pure module must not use {word}: {}",
                    file.display(),
                    text.trim()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_agent_needs_nothing_but_std() {
    for file in sources("agent").into_iter().chain(sources("bin/mcp-fleet-agent.rs")) {
        for (line, text) in code(&file) {
            let foreign = ["tokio", "kube", "serde", "clap", "anyhow", "tracing"]
                .iter()
                .find(|c| text.contains(&format!("{c}::")));
            assert!(
                foreign.is_none(),
                "{}:{line}: the agent is copied into every pod and stays small: {text}",
                file.display()
            );
        }
    }
}

#[test]
fn this_test_sees_a_wrong_arrow() {
    let code = vec![
        (7, "use crate::{api::names, runtime::{lease, admin}};".to_owned()),
        (9, "crate::operator::run()".to_owned()),
    ];
    let paths: Vec<String> = crate_paths(&code).into_iter().map(|(_, p)| p).collect();
    assert_eq!(paths, ["api::names", "runtime::lease", "runtime::admin", "operator::run"]);
}
