//! Load reports as gateways might send them: what the ledger makes of them is finite and not negative, it stays
//! within its bounds, and a report that comes twice changes nothing.

use mcp_fleet::autoscale::{
    ledger::{Ledger, Receipt},
    load::{Load, Window},
    policy::Windows,
    report::Report,
    time::Now,
};

/// 2026-11-20T21:00:00Z, about when the reports of the corpus were taken.
const START: i64 = 1_795_208_400_000;

/// Lines: milliseconds until the report comes, a blank, the report.
pub(crate) fn load(input: &[u8]) {
    let (mut ledger, mut mono) = (Ledger::default(), 0_i64);
    for line in input.split(|byte| *byte == b'\n').take(64) {
        let Some(blank) = line.iter().position(|byte| *byte == b' ') else { continue };
        let passed = std::str::from_utf8(&line[..blank]).ok().and_then(|text| text.parse::<i64>().ok());
        mono += passed.unwrap_or(1_000).clamp(0, 4_000_000);
        let now = Now { mono, wall: START + mono };
        let Ok(report) = serde_json::from_slice::<Report>(&line[blank..]) else { continue };
        let receipt = ledger.accept(&report, now);
        let before = loads(&ledger, &report, now);
        if receipt == Receipt::Accepted {
            assert_eq!(ledger.accept(&report, now), Receipt::Duplicate);
            assert_eq!(before, loads(&ledger, &report, now), "a report that came twice");
        }
        if mono % 7 == 0 {
            ledger.prune(now);
        }
    }
}

fn loads(ledger: &Ledger, report: &Report, now: Now) -> Vec<Load> {
    let narrow = Windows { stable: 1, panic: 1, ..Windows::default() };
    let wide = Windows { stable: 3_600_000, max_sample_age: 3_600_000, ..Windows::default() };
    let mut all = Vec::new();
    for fleet in &report.fleets {
        for windows in [Windows::default(), narrow, wide, Windows::default()] {
            all.extend(ledger.load(&fleet.uid, &windows, Some(2), now));
        }
        for (pod, runs) in ledger.newest(&fleet.uid).map(|newest| newest.pods).unwrap_or_default() {
            let all = [runs.in_flight, runs.streams, runs.sessions, runs.tasks];
            assert!(all.iter().all(|n| good(*n)), "{pod:?}: {runs:?}");
        }
    }
    for load in &all {
        let gauges = [load.waiting, load.sessions, load.silent_in_flight];
        assert!(gauges.iter().all(|n| good(*n)) && load.age >= 0 && load.silent <= 66, "{load:?}");
        check(&load.stable);
        check(&load.panic);
    }
    assert!(ledger.fleets_waiting(now).count() <= 50_000 && ledger.heard(now) <= 512);
    all
}

fn good(n: f64) -> bool {
    n.is_finite() && n >= 0.0
}

fn check(window: &Window) {
    let sums = [window.seconds, window.arrivals, window.admitted, window.shed, window.retries];
    let means = [window.queue, window.in_flight, window.streams];
    let pods =
        window.pods.values().flat_map(|p| [p.in_flight, p.streams, p.sessions, p.completions.served()]);
    let ends = [window.completions.served(), window.completions.overload];
    let mut all = sums.into_iter().chain(means).chain(pods).chain(ends).chain(window.latency.0);
    assert!(all.all(good), "{window:?}");
    for percent in [0.1, 50.0, 99.9] {
        assert!(window.latency.percentile(percent).is_none_or(good), "{window:?}");
    }
}
