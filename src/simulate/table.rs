//! Figures of one run of each policy, for people and for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{measure::Summary, scalers::Kind};

/// A column: heading, digits after the point, value.
type Column = (&'static str, usize, fn(&Summary, &Summary) -> f64);

/// What is shown, in order. The second summary is that of the first policy, which speedups compare with.
const COLUMNS: [Column; 17] = [
    ("violations %", 2, |s, _| s.violations),
    ("shed %", 2, |s, _| s.shed),
    ("failed %", 2, |s, _| s.failed),
    ("p95 wait s", 2, |s, _| s.p95_wait),
    ("pod-hours", 2, |s, _| s.pod_hours),
    ("changes", 0, |s, _| f64::from(s.scale_events)),
    ("flaps", 0, |s, _| f64::from(s.flaps)),
    ("removed", 0, |s, _| f64::from(s.removed)),
    ("broken", 0, |s, _| f64::from(s.sessions_broken)),
    ("recovery s", 0, |s, _| f64::from(s.recovery)),
    ("outage downs", 0, |s, _| f64::from(s.downs_in_outage)),
    ("θ_U %", 1, |s, _| s.elasticity.theta_under),
    ("θ_O %", 1, |s, _| s.elasticity.theta_over),
    ("τ_U %", 1, |s, _| s.elasticity.tau_under),
    ("τ_O %", 1, |s, _| s.elasticity.tau_over),
    ("υ %", 1, |s, _| s.elasticity.upsilon),
    ("speedup", 2, |s, first| first.elasticity.speedup(&s.elasticity)),
];

/// A table with a line for each policy.
pub(super) fn text(rows: &[(Kind, Summary)]) -> String {
    let Some((_, first)) = rows.first() else { return String::new() };
    let mut out = format!("{:<16}", "policy");
    for (heading, ..) in COLUMNS {
        let _ = write!(out, "  {heading}");
    }
    out.push('\n');
    for (kind, summary) in rows {
        let _ = write!(out, "{:<16}", kind.name());
        for (heading, digits, value) in COLUMNS {
            let width = heading.chars().count();
            let _ = write!(out, "  {:>width$.digits$}", value(summary, first));
        }
        out.push('\n');
    }
    out
}

/// The same for machines.
pub(super) fn json(scenario: &str, seed: u64, rows: &[(Kind, Summary)]) -> Value {
    let policy = |(kind, s): &(Kind, Summary)| {
        json!({
            "policy": kind.name(),
            "violationsPercent": s.violations,
            "shedPercent": s.shed,
            "failedPercent": s.failed,
            "p95WaitSeconds": s.p95_wait,
            "podHours": s.pod_hours,
            "changes": s.scale_events,
            "flaps": s.flaps,
            "podsRemoved": s.removed,
            "sessionsBroken": s.sessions_broken,
            "recoverySeconds": s.recovery,
            "downsInOutage": s.downs_in_outage,
            "elasticity": {
                "thetaUnder": s.elasticity.theta_under,
                "thetaOver": s.elasticity.theta_over,
                "tauUnder": s.elasticity.tau_under,
                "tauOver": s.elasticity.tau_over,
                "upsilon": s.elasticity.upsilon,
                "speedupOfFirst": rows[0].1.elasticity.speedup(&s.elasticity),
            },
        })
    };
    json!({"scenario": scenario, "seed": seed, "policies": rows.iter().map(policy).collect::<Vec<_>>()})
}
