//! What a benchmark hands over: a table for people, `target/reports/NAME.json` for machines, and a verdict.
//! Knows nothing of what was measured.

use std::{fmt::Write as _, fs, path::Path, process::ExitCode};

use serde_json::{Value, json};

/// Rows and targets of one benchmark.
pub struct Report {
    name: &'static str,
    rows: Vec<(String, String)>,
    targets: Vec<Target>,
}

struct Target {
    what: String,
    goal: String,
    got: String,
    holds: bool,
}

impl Report {
    /// An empty one; `name` is that of the file.
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new(), targets: Vec::new() }
    }

    /// Something that was measured and is not judged.
    pub fn row(&mut self, what: impl Into<String>, got: impl Into<String>) {
        self.rows.push((what.into(), got.into()));
    }

    /// A number that must not be above `limit`. `digits` after the point are shown, all are compared.
    pub fn at_most(&mut self, what: &str, limit: f64, got: f64, unit: &str, digits: usize) {
        self.targets.push(Target {
            what: what.into(),
            goal: format!("≤ {}", number(limit, unit, 2).replace(".00", "")),
            got: number(got, unit, digits),
            holds: got <= limit,
        });
    }

    /// A number that must not be below `limit`.
    #[allow(dead_code, reason = "not every benchmark has such a target")]
    pub fn at_least(&mut self, what: &str, limit: f64, got: f64, unit: &str, digits: usize) {
        self.targets.push(Target {
            what: what.into(),
            goal: format!("≥ {}", number(limit, unit, 2).replace(".00", "")),
            got: number(got, unit, digits),
            holds: got >= limit,
        });
    }

    /// A count that must be zero; `details` name what it was instead.
    pub fn zero(&mut self, what: &str, got: usize, details: &str) {
        let more = if details.is_empty() { String::new() } else { format!(" ({details})") };
        self.targets.push(Target {
            what: what.into(),
            goal: "0".into(),
            got: format!("{got}{more}"),
            holds: got == 0,
        });
    }

    /// Prints the table, writes the file; failure where a target does not hold.
    pub fn finish(&self) -> anyhow::Result<ExitCode> {
        println!("\n{}", self.table());
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        // A benchmark may be a crate of its own; the reports of all stand in the workspace's folder.
        let root = here.ancestors().find(|dir| dir.join("Cargo.lock").is_file()).unwrap_or(here);
        let path = root.join(format!("target/reports/{}.json", self.name));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, serde_json::to_string_pretty(&self.json())?)?;
        println!("{}", path.display());
        let missed = self.targets.iter().filter(|t| !t.holds).count();
        if missed == 0 {
            println!("all {} targets hold", self.targets.len());
            return Ok(ExitCode::SUCCESS);
        }
        println!("{missed} of {} targets do not hold", self.targets.len());
        Ok(ExitCode::FAILURE)
    }

    fn json(&self) -> Value {
        let rows: Vec<_> = self.rows.iter().map(|(what, got)| json!({"what": what, "got": got})).collect();
        let targets: Vec<_> = self
            .targets
            .iter()
            .map(|t| json!({"what": t.what, "goal": t.goal, "got": t.got, "holds": t.holds}))
            .collect();
        json!({"name": self.name, "rows": rows, "targets": targets})
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let width = self.rows.iter().map(|r| r.0.chars().count());
        let width =
            width.chain(self.targets.iter().map(|t| t.what.chars().count())).max().unwrap_or_default();
        for (what, got) in &self.rows {
            let _ = writeln!(text, "     {what:<width$}  {got}");
        }
        for Target { what, goal, got, holds } in &self.targets {
            let mark = if *holds { "ok  " } else { "MISS" };
            let _ = writeln!(text, "{mark} {what:<width$}  {got}  (target {goal})");
        }
        text
    }
}

fn number(value: f64, unit: &str, digits: usize) -> String {
    if unit.is_empty() { format!("{value:.digits$}") } else { format!("{value:.digits$} {unit}") }
}

/// The value below which `share` (0..1) of the sorted values lie; NaN of none.
#[allow(dead_code, reason = "not every benchmark sorts its values")]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
