//! Reports of two gateways about 10,000 fleets each second: parsed, taken into the ledger, and asked for.

use std::{fmt::Write as _, hint::black_box, time::Duration};

use anyhow::ensure;
use mcp_fleet::autoscale::{
    ledger::{Ledger, Receipt},
    policy::Windows,
    report::Report as LoadReport,
    time::Now,
};

use super::{cpu, report::Report};

const FLEETS: usize = 10_000;
const PODS: usize = 3;
const GATEWAYS: usize = 2;
/// Wall time of second 0.
const START: i64 = 1_790_000_000_000;
/// Enough for a full window.
const WARM_UP: i64 = 66;
const SECONDS: i64 = 10;

pub fn measure(report: &mut Report) -> anyhow::Result<()> {
    let before = cpu::resident_mib()?;
    let all = Measured::of(1)?;
    report.at_most(
        "ingestion of 10,000 fleets at 2 gateways, all of them busy, each second",
        20.0,
        all.share() * 100.0,
        "% of a core",
        2,
    );
    report.row("  of it: JSON", format!("{:.2} % of a core", all.parsing * 100.0));
    report.row("  of it: ledger", format!("{:.2} % of a core", all.accepting * 100.0));
    report.row("  of it: windows", format!("{:.2} % of a core", all.loading * 100.0));
    report.row("  one report", format!("{:.1} MiB", all.bytes as f64 / f64::from(1 << 20)));
    report.row("  resident memory for it", format!("{:.0} MiB", cpu::resident_mib()? - before));
    drop(all);
    let few = Measured::of(20)?;
    let share = few.share() * 100.0;
    report.row("the same, one in 20 busy", format!("{share:.2} % of a core"));
    report.row("  one report", format!("{:.1} MiB", few.bytes as f64 / f64::from(1 << 20)));
    Ok(())
}

/// Shares of one core.
struct Measured {
    parsing: f64,
    accepting: f64,
    loading: f64,
    /// Of one report.
    bytes: usize,
    _ledger: Ledger,
}

impl Measured {
    /// With one busy fleet in so many.
    fn of(one_in: usize) -> anyhow::Result<Self> {
        let uids: Vec<String> = (0..FLEETS).map(|i| uid(i, 0)).collect();
        let mut ledger = Ledger::default();
        let (mut parsing, mut accepting, mut loading) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut bytes = 0;
        for second in 0..WARM_UP + SECONDS {
            let now = Now { mono: second * 1000, wall: START + second * 1000 };
            let is_measured = second >= WARM_UP;
            let spend = |on: &mut Duration, before: Duration| -> anyhow::Result<Duration> {
                let after = cpu::used()?;
                if is_measured {
                    *on += after.saturating_sub(before);
                }
                Ok(after)
            };
            for gateway in 0..GATEWAYS {
                let json = write(gateway, second, one_in);
                bytes = json.len();
                let begun = cpu::used()?;
                let report: LoadReport = serde_json::from_slice(json.as_bytes())?;
                let parsed = spend(&mut parsing, begun)?;
                ensure!(ledger.accept(&report, now) == Receipt::Accepted, "a report was not taken");
                drop(report);
                spend(&mut accepting, parsed)?;
            }
            if !is_measured {
                continue;
            }
            let begun = cpu::used()?;
            for uid in &uids {
                let load = ledger.load(uid, &Windows::default(), Some(GATEWAYS), now);
                ensure!(load.as_ref().is_some_and(|l| l.silent == 0), "{uid} has no load");
                black_box(load);
            }
            spend(&mut loading, begun)?;
        }
        let busy = ledger.load(
            &uids[0],
            &Windows::default(),
            Some(GATEWAYS),
            Now { mono: (WARM_UP + SECONDS - 1) * 1000, wall: START + (WARM_UP + SECONDS - 1) * 1000 },
        );
        let in_flight = busy.map_or(0.0, |load| load.stable.in_flight);
        ensure!((in_flight - 6.0 * GATEWAYS as f64).abs() < 0.01, "the mean in flight is {in_flight}");
        let share = |time: Duration| time.as_secs_f64() / SECONDS as f64;
        let (parsing, accepting, loading) = (share(parsing), share(accepting), share(loading));
        Ok(Self { parsing, accepting, loading, bytes, _ledger: ledger })
    }

    fn share(&self) -> f64 {
        self.parsing + self.accepting + self.loading
    }
}

fn uid(fleet: usize, pod: usize) -> String {
    format!("0f3c2b1a-2222-3333-{pod:04x}-{fleet:012x}")
}

/// A report as a gateway writes it. A busy fleet has 6 calls in flight and 40 ends a second; one at rest is in every
/// tenth report.
fn write(gateway: usize, second: i64, one_in: usize) -> String {
    let time = jiff::Timestamp::from_millisecond(START + second * 1000).unwrap_or_default();
    let mut json = String::with_capacity(16 << 20);
    let _ = write!(
        json,
        r#"{{"version":1,"gateway":"gateway-{gateway}","epoch":1789999000000,"sequence":{},"time":"{time:.3}","fleets":["#,
        second + 1
    );
    let mut comma = "";
    for fleet in 0..FLEETS {
        let busy = fleet % one_in == 0;
        if !busy && (second + fleet as i64) % 10 != 0 {
            continue;
        }
        let n = if busy { (second + 1_000) * 40 } else { 40_000 };
        let in_flight = if busy { 6 } else { 0 };
        let _ = write!(
            json,
            r#"{comma}{{"namespace":"team-{}","name":"server-{fleet}","uid":"{}","since":1789999000000,"ready":{PODS},"arrivals":{n},"admitted":{n},"queueSeconds":{}.25,"#,
            fleet % 100,
            uid(fleet, 0),
            n / 1000,
        );
        work(&mut json, n, in_flight);
        json.push_str(r#","pods":["#);
        for pod in 0..PODS {
            let comma = if pod == 0 { "" } else { "," };
            let _ = write!(json, r#"{comma}{{"uid":"{}","sessions":7,"#, uid(fleet, pod + 1));
            work(&mut json, n / 3, in_flight / 3);
            json.push('}');
        }
        json.push_str("]}");
        comma = ",";
    }
    json.push_str("]}");
    json
}

/// Ends, and the time that the calls took: 150 ms each.
fn work(json: &mut String, n: i64, in_flight: i64) {
    let seconds = n * 3 / 20;
    let _ = write!(
        json,
        r#""inFlight":{in_flight},"inFlightSeconds":{seconds},"streams":5,"streamSeconds":{}.5,"completions":{{"ok":{n},"tool":3}},"latencyLog2Micros":[0,0,0,0,0,0,0,0,0,1,{},{},{},{},{},{},7,2,1]"#,
        n / 7,
        n / 20,
        n / 10,
        n / 4,
        n / 4,
        n / 5,
        n / 8
    );
}
