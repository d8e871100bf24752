//! From the series of a fleet to its [`Load`].
//!
//! Each gateway's window ends at its own newest sample, and what several say is added as rates, so that it does not
//! matter that they report at different moments. A gateway that ended in order counts with what it did until then.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    super::{
        load::{Load, Window},
        policy::Windows,
        time::{Millis, Now},
    },
    Fleet, Ledger, SAID,
    gateway::{Gateway, SILENT},
    series::Series,
};

/// How a gateway stands to a fleet at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It reports.
    Heard,
    /// It should, and does not: its newest sample is so old, and until then its counters are known.
    Silent { age: Millis, end: Millis },
    /// It has ended in order.
    Ended,
    /// It is gone, or does not know the fleet any more.
    Gone,
}

fn standing(series: &Series, gateway: &Gateway, windows: &Windows, now: Millis) -> Standing {
    let is_current = gateway.epoch == series.epoch && !series.doubtful;
    // Not what the process said that came after it, nor what was refused.
    let (quiet, age, end) = if is_current {
        (now - gateway.heard, gateway.age(now), gateway.at)
    } else {
        (now - series.said, now - series.seen, series.seen)
    };
    if is_current && gateway.ended {
        return Standing::Ended;
    }
    if is_current && now - series.said > SAID {
        return Standing::Gone;
    }
    let is_fresh = age <= windows.max_sample_age;
    if is_current && quiet <= SILENT && is_fresh {
        Standing::Heard
    } else if quiet <= windows.stable || is_fresh {
        Standing::Silent { age, end }
    } else {
        Standing::Gone
    }
}

/// A series that is part of the sums.
struct Part<'a> {
    series: &'a Series,
    /// Where its windows end.
    end: Millis,
    /// What it saw at last still runs.
    lives: bool,
}

impl Ledger {
    /// What the gateways said of a fleet; `None` where none has said anything that is fresh enough. `expected`
    /// gateways should report, where that is known. Remembers how far back it was asked to look.
    pub fn load(&self, uid: &str, windows: &Windows, expected: Option<usize>, now: Now) -> Option<Load> {
        let fleet = self.fleets.get(uid)?;
        self.remember(fleet, windows);
        let mut load = Load::default();
        let (mut parts, mut silent, mut fresh) = (Vec::new(), Vec::new(), false);
        let mut absent = 0;
        for series in &fleet.series {
            let Some(gateway) = self.gateways.get(&series.gateway) else { continue };
            match standing(series, gateway, windows, now.mono) {
                Standing::Heard => {
                    fresh = true;
                    load.age = load.age.max(gateway.age(now.mono));
                    parts.push(Part { series, end: gateway.at, lives: true });
                }
                // After its end it does nothing.
                Standing::Ended => parts.push(Part { series, end: now.mono, lives: false }),
                Standing::Silent { age, end } => {
                    absent += usize::from(!gateway.is_heard(now.mono));
                    silent.push((series, age, end));
                }
                Standing::Gone => {}
            }
        }
        load.silent = (silent.len() + expected.unwrap_or(0).saturating_sub(self.heard(now) + absent)) as u32;
        for (series, age, end) in silent {
            if !fresh && age <= windows.max_sample_age {
                // Nobody is fresher: then nobody else has taken over its calls, either.
                load.age = load.age.max(age);
                parts.push(Part { series, end, lives: true });
            } else {
                load.silent_in_flight += carried(series, windows.stable, end);
            }
        }
        if !parts.iter().any(|part| part.lives) {
            return None;
        }
        load.complete = true;
        load.stable = sum(&parts, windows.stable, &mut load.complete);
        load.panic = sum(&parts, windows.panic, &mut true);
        for part in parts.iter().filter(|part| part.lives) {
            load.waiting += part.series.gauges.queue;
            load.sessions += part.series.gauges.pods.iter().map(|(_, now)| now.sessions).sum::<f64>();
        }
        Some(load)
    }

    fn remember(&self, fleet: &Fleet, windows: &Windows) {
        self.max_age.fetch_max(windows.max_sample_age, Relaxed);
        fleet.stable.store(windows.stable, Relaxed);
        fleet.panic.store(windows.panic, Relaxed);
    }
}

/// Calls that a silent gateway carried at last: now or over its last window, whichever is more.
fn carried(series: &Series, window: Millis, end: Millis) -> f64 {
    let mut sums = Window::default();
    series.add_to(&mut sums, window, end, false);
    sums.in_flight.max(series.gauges.in_flight)
}

/// One window over all parts. `complete` turns false where they do not reach back to its start.
fn sum(parts: &[Part<'_>], window: Millis, complete: &mut bool) -> Window {
    let mut sums = Window::default();
    let mut longest = 0;
    for Part { series, end, lives } in parts {
        let cover = series.add_to(&mut sums, window, *end, true);
        if cover.millis == 0 && *lives {
            // One sample alone has no mean; what it saw is the best guess.
            sums.queue += series.gauges.queue;
            sums.in_flight += series.gauges.in_flight;
            sums.streams += series.gauges.streams;
        }
        *complete &= cover.millis >= window && !cover.hole;
        longest = longest.max(cover.millis);
    }
    for Part { series, .. } in parts.iter().filter(|part| part.lives) {
        for (pod, now) in &series.gauges.pods {
            sums.pods.entry(*pod).or_default().sessions += now.sessions;
        }
    }
    let seconds = longest as f64 / 1000.0;
    sums.seconds = seconds;
    scale_counts(&mut sums, seconds);
    sums
}

/// From counts per second to counts.
fn scale_counts(sums: &mut Window, seconds: f64) {
    for count in [&mut sums.arrivals, &mut sums.admitted, &mut sums.shed, &mut sums.retries] {
        *count *= seconds;
    }
    sums.latency.0.iter_mut().for_each(|n| *n *= seconds);
    let pods = sums.pods.values_mut().map(|pod| &mut pod.completions);
    for ends in pods.chain([&mut sums.completions]) {
        for n in [&mut ends.ok, &mut ends.overload, &mut ends.upstream, &mut ends.client, &mut ends.tool] {
            *n *= seconds;
        }
    }
}
