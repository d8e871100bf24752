//! The ledger against gateways whose every call is known.

use proptest::prelude::*;

use super::{
    super::{
        load::Load,
        report::{Completions, PodReport, Work},
    },
    *,
};

/// Wall time of the moment 0.
const START: i64 = 1_790_000_000_000;
const UID: &str = "0f3c2b1a-2222-3333-4444-555555555555";
const POD: &str = "0f3c2b1a-2222-3333-4444-000000000001";

fn at(mono: Millis) -> Now {
    Now { mono, wall: START + mono }
}

fn time(mono: Millis) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(START + mono).unwrap())
}

fn windows() -> Windows {
    Windows { panic: 6_000, ..Windows::default() }
}

/// A gateway: its calls, as (start, length) in ms.
#[derive(Clone, Debug)]
struct World {
    name: &'static str,
    boot: Millis,
    since: u64,
    calls: Vec<(Millis, Millis)>,
}

fn world(name: &'static str, calls: &[(Millis, Millis)]) -> World {
    World { name, boot: -100_000, since: 0, calls: calls.to_vec() }
}

impl World {
    /// ∫ calls in flight over a time, in seconds.
    fn integral(&self, from: Millis, to: Millis) -> f64 {
        let ran = |(start, length): &(Millis, Millis)| ((start + length).min(to) - (*start).max(from)).max(0);
        self.calls.iter().map(ran).sum::<Millis>() as f64 / 1000.0
    }

    fn started(&self, to: Millis) -> f64 {
        self.calls.iter().filter(|(start, _)| *start < to).count() as f64
    }

    fn fleet(&self, t: Millis) -> FleetReport {
        let ended = self.calls.iter().filter(|(start, length)| start + length < t).count() as f64;
        let running = self.started(t) - ended;
        let work = Work {
            in_flight: running,
            in_flight_seconds: self.integral(Millis::MIN / 2, t),
            completions: Completions { ok: ended, ..Completions::default() },
            latency_log2_micros: vec![0.0, ended],
            ..Work::default()
        };
        FleetReport {
            uid: UID.into(),
            since: self.since,
            ready: 1,
            arrivals: self.started(t),
            admitted: self.started(t),
            pods: vec![PodReport { uid: POD.into(), work: work.clone(), ..PodReport::default() }],
            work,
            ..FleetReport::default()
        }
    }

    fn report(&self, sequence: u64, t: Millis) -> Report {
        self.with(sequence, t, vec![self.fleet(t)])
    }

    fn with(&self, sequence: u64, t: Millis, fleets: Vec<FleetReport>) -> Report {
        Report {
            version: 1,
            gateway: self.name.into(),
            epoch: (START + self.boot) as u64,
            sequence,
            time: time(t),
            last: false,
            fleets,
        }
    }

    /// Reports each second from `from` to `to`.
    fn run(&self, ledger: &mut Ledger, from: i64, to: i64) {
        for second in from..=to {
            let report = self.report((second + 1_000) as u64, second * 1000);
            assert_eq!(ledger.accept(&report, at(second * 1000)), Receipt::Accepted);
        }
    }
}

fn load(ledger: &Ledger, now: Millis) -> Load {
    ledger.load(UID, &windows(), None, at(now)).unwrap()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

#[test]
fn steady_reports_give_the_exact_mean() {
    // A call of a minute, and 100 of 50 ms between two reports.
    let mut calls = vec![(5_000, 60_000)];
    calls.extend((0..100).map(|i| (70_100 + i, 50)));
    let (world, mut ledger) = (world("a", &calls), Ledger::default());
    world.run(&mut ledger, 0, 75);
    let load = load(&ledger, 75_200);
    assert!(load.complete && load.silent == 0 && load.age == 200, "{load:?}");
    assert!(near(load.stable.in_flight, world.integral(15_000, 75_000) / 60.0), "{load:?}");
    assert!(near(load.panic.in_flight, 5.0 / 6.0), "{load:?}");
    assert!(near(load.panic.arrivals, 100.0) && near(load.panic.completions.ok, 100.0), "{load:?}");
    assert!(near(load.stable.arrivals, 100.0) && near(load.stable.latency.0[1], 101.0), "{load:?}");
    assert_eq!((load.stable.seconds, load.panic.seconds), (60.0, 6.0));
    let pod = &load.panic.pods[&PodUid::parse(POD).unwrap()];
    assert!(near(pod.in_flight, 5.0 / 6.0) && near(pod.completions.ok, 100.0), "{pod:?}");
}

#[test]
fn gateways_add_up_whenever_they_report() {
    let (a, b) = (world("a", &[(0, 1_000_000)]), world("b", &[(0, 1_000_000), (1, 1_000_000)]));
    let mut ledger = Ledger::default();
    a.run(&mut ledger, 0, 70);
    for i in 0..70 {
        let t = 400 + i * 1000;
        ledger.accept(&b.report(i as u64, t), at(t + 30));
    }
    let load = load(&ledger, 70_500);
    assert!(near(load.stable.in_flight, 3.0) && near(load.panic.in_flight, 3.0), "{load:?}");
    assert!(load.complete);
    assert_eq!((load.silent, load.age), (0, 1_100));
}

#[test]
fn before_the_first_window_is_full_nothing_is_complete() {
    let (world, mut ledger) = (world("a", &[(0, 1_000_000)]), Ledger::default());
    assert_eq!(ledger.load(UID, &windows(), None, at(0)), None);
    world.run(&mut ledger, 10, 10);
    let one = load(&ledger, 10_000);
    assert!(!one.complete && near(one.stable.seconds, 0.0) && near(one.stable.in_flight, 1.0), "{one:?}");
    world.run(&mut ledger, 11, 40);
    let some = load(&ledger, 40_000);
    assert!(
        !some.complete && near(some.stable.seconds, 30.0) && near(some.stable.in_flight, 1.0),
        "{some:?}"
    );
    world.run(&mut ledger, 41, 70);
    assert!(load(&ledger, 70_000).complete);
}

#[test]
fn a_gateway_that_has_just_started_is_known_from_its_start() {
    // A call of 100 ms before its first report.
    let (old, mut new) = (world("a", &[]), world("b", &[(65_100, 100)]));
    (new.boot, new.since) = (65_000, (START + 65_000) as u64);
    let mut ledger = Ledger::default();
    old.run(&mut ledger, 0, 66);
    new.run(&mut ledger, 66, 66);
    let load = load(&ledger, 66_000);
    assert!(load.complete, "{load:?}");
    assert!(near(load.stable.arrivals, 1.0) && near(load.stable.in_flight, 0.1 / 60.0), "{load:?}");
    assert!(near(load.panic.in_flight, 0.1 / 6.0), "{load:?}");
}

#[test]
fn a_new_process_starts_anew_and_is_not_complete() {
    let (mut world, mut ledger) = (world("a", &[(0, 1_000_000)]), Ledger::default());
    world.run(&mut ledger, 0, 70);
    let late = world.report(2_000, 70_500);
    world.boot = 70_000;
    world.calls = vec![(70_500, 1_000_000), (70_500, 1_000_000)];
    world.run(&mut ledger, 71, 72);
    assert_eq!(ledger.accept(&late, at(72_500)), Receipt::Duplicate, "of the process before");
    let load = load(&ledger, 72_500);
    assert!(!load.complete && near(load.stable.in_flight, 2.0) && load.silent == 0, "{load:?}");
    // A clock that was set back across a restart does not shut a gateway out.
    world.boot = 60_000;
    assert_eq!(ledger.accept(&world.report(1, 78_000), at(78_000)), Receipt::Accepted);
}

#[test]
fn what_is_untimely_or_malformed_or_repeated_is_told() {
    let (world, mut ledger) = (world("a", &[]), Ledger::default());
    for (t, now, receipt) in [
        (0, 30_001, Receipt::Untimely),
        (35_002, 30_001, Receipt::Untimely),
        (35_000, 30_001, Receipt::Accepted),
        (30_000, 30_001, Receipt::Duplicate),
    ] {
        assert_eq!(ledger.accept(&world.report(1, t), at(now)), receipt, "{t} at {now}");
    }
    let good = world.report(2, 30_500);
    for bad in [
        Report { version: 2, ..good.clone() },
        Report { time: "yesterday".into(), ..good.clone() },
        Report { gateway: String::new(), ..good.clone() },
        Report { gateway: "x".repeat(254), ..good.clone() },
    ] {
        assert_eq!(ledger.accept(&bad, at(30_500)), Receipt::Malformed);
    }
    assert_eq!(ledger.accept(&good, at(30_500)), Receipt::Accepted);
    // Who tolerates older samples gets them.
    ledger.load(UID, &Windows { max_sample_age: 100_000, ..windows() }, None, at(31_000));
    assert_eq!(ledger.accept(&world.report(3, 31_000), at(131_000)), Receipt::Accepted);
}

#[test]
fn numbers_that_cannot_be_are_dropped_and_the_gateway_is_missed() {
    let spoil: [fn(&mut FleetReport); 8] = [
        |f| f.arrivals = f64::NAN,
        |f| f.work.in_flight_seconds = f64::INFINITY,
        |f| f.queue = -1.0,
        |f| f.work.streams = 1e300,
        |f| f.pods[0].sessions = f64::NEG_INFINITY,
        |f| f.work.latency_log2_micros = vec![0.0; 33],
        |f| f.work.in_flight_seconds -= 5.0,
        |f| f.arrivals -= 1.0,
    ];
    for (i, spoil) in spoil.iter().enumerate() {
        let (world, mut ledger) = (world("a", &[(0, 1_000_000)]), Ledger::default());
        world.run(&mut ledger, 0, 70);
        let good = load(&ledger, 70_000);
        let mut fleet = world.fleet(71_000);
        spoil(&mut fleet);
        assert_eq!(ledger.accept(&world.with(2_000, 71_000, vec![fleet]), at(71_000)), Receipt::Accepted);
        assert_eq!(ledger.drops(UID).impossible, 1, "{i}");
        let bad = load(&ledger, 71_000);
        assert_eq!((bad.silent, bad.stable), (1, good.stable.clone()), "{i}");
        // The next good one makes up for it.
        let next = world.report(2_001, 72_000);
        ledger.accept(&next, at(72_000));
        let healed = load(&ledger, 72_000);
        assert!(healed.silent == 0 && near(healed.stable.in_flight, 1.0), "{i}: {healed:?}");
    }
}

#[test]
fn counters_that_stay_back_are_a_new_start() {
    let (mut world, mut ledger) = (world("a", &[(0, 1_000_000)]), Ledger::default());
    world.run(&mut ledger, 0, 70);
    world.calls = vec![(70_000, 1_000_000)];
    world.run(&mut ledger, 71, 74);
    assert_eq!(load(&ledger, 74_000).silent, 1);
    world.run(&mut ledger, 75, 78);
    let load = load(&ledger, 78_000);
    assert!(load.silent == 0 && !load.complete && near(load.stable.in_flight, 1.0), "{load:?}");
    assert_eq!(ledger.drops(UID).impossible, 5);
}

#[test]
fn a_pod_whose_counters_went_back_counts_from_there() {
    let (world, mut ledger) = (world("a", &[(0, 1_000_000)]), Ledger::default());
    world.run(&mut ledger, 0, 70);
    let pod = PodUid::parse(POD).unwrap();
    for second in 71..74 {
        let mut fleet = world.fleet(second * 1000);
        fleet.pods[0].work.in_flight_seconds = (second - 70) as f64 * 2.0;
        ledger.accept(&world.with(2_000 + second as u64, second * 1000, vec![fleet]), at(second * 1000));
    }
    let load = load(&ledger, 73_000);
    assert!(near(load.panic.pods[&pod].in_flight, 4.0 / 6.0), "{load:?}");
    assert!(load.silent == 0 && near(load.panic.in_flight, 1.0));
}

#[test]
fn a_pod_that_was_away_counts_from_where_it_came_back() {
    let (world, mut ledger) = (world("a", &[(0, 1_000_000)]), Ledger::default());
    world.run(&mut ledger, 0, 70);
    for second in 71..74 {
        let mut fleet = world.fleet(second * 1000);
        match second {
            71 => fleet.pods.clear(),
            // Its endpoint was listed anew, with counters of its own.
            _ => fleet.pods[0].work.in_flight_seconds = (second - 70) as f64 * 2.0,
        }
        ledger.accept(&world.with(2_000 + second as u64, second * 1000, vec![fleet]), at(second * 1000));
    }
    let load = load(&ledger, 73_000);
    assert!(near(load.stable.pods[&PodUid::parse(POD).unwrap()].in_flight, 2.0 / 60.0), "{load:?}");
}

#[test]
fn a_silent_gateway_keeps_its_last_contribution_for_one_window() {
    let (a, b) = (world("a", &[(0, 1_000_000)]), world("b", &[(0, 1_000_000), (0, 1_000_000)]));
    let mut ledger = Ledger::default();
    b.run(&mut ledger, 0, 70);
    a.run(&mut ledger, 0, 75);
    let still = load(&ledger, 75_000);
    assert!(still.silent == 0 && near(still.stable.in_flight, 3.0), "{still:?}");
    a.run(&mut ledger, 76, 76);
    let silent = load(&ledger, 76_000);
    assert_eq!((silent.silent, silent.silent_in_flight), (1, 2.0));
    assert!(near(silent.stable.in_flight, 1.0), "{silent:?}");
    a.run(&mut ledger, 77, 130);
    assert_eq!(load(&ledger, 130_000).silent, 1);
    a.run(&mut ledger, 131, 131);
    assert_eq!((load(&ledger, 131_000).silent, load(&ledger, 131_000).silent_in_flight), (0, 0.0));
}

#[test]
fn where_all_are_silent_the_newest_samples_count_until_they_are_too_old() {
    let (a, mut ledger) = (world("a", &[(0, 1_000_000)]), Ledger::default());
    a.run(&mut ledger, 0, 70);
    let load = load(&ledger, 90_000);
    assert_eq!((load.silent, load.silent_in_flight, load.age), (1, 0.0, 20_000));
    assert!(near(load.stable.in_flight, 1.0), "{load:?}");
    assert_eq!(ledger.load(UID, &windows(), None, at(100_001)), None);
}

#[test]
fn who_ends_in_order_is_not_missed_and_what_it_did_still_counts() {
    let (a, b) = (world("a", &[(0, 1_000_000)]), world("b", &[(10_000, 30_000)]));
    let mut ledger = Ledger::default();
    b.run(&mut ledger, 0, 40);
    let mut last = b.report(9_000, 41_000);
    last.last = true;
    ledger.accept(&last, at(41_000));
    a.run(&mut ledger, 0, 80);
    let load = load(&ledger, 80_000);
    assert_eq!((load.silent, load.silent_in_flight), (0, 0.0));
    assert!(
        load.complete && near(load.stable.in_flight, 1.0 + b.integral(20_000, 80_000) / 60.0),
        "{load:?}"
    );
    assert!(near(load.panic.in_flight, 1.0), "{load:?}");
}

#[test]
fn who_was_expected_and_never_heard_is_silent() {
    let (world, mut ledger) = (world("a", &[]), Ledger::default());
    world.run(&mut ledger, 0, 70);
    let silent = |expected| ledger.load(UID, &windows(), expected, at(70_000)).unwrap().silent;
    assert_eq!([None, Some(0), Some(1), Some(3)].map(silent), [0, 0, 0, 2]);
    // The gateway that fell silent is the one that is expected.
    let (ledger, mut both) = (ledger, Ledger::default());
    drop(ledger);
    world.run(&mut both, 0, 70);
    super::tests::world("b", &[]).run(&mut both, 0, 64);
    assert_eq!(both.load(UID, &windows(), Some(2), at(70_000)).unwrap().silent, 1);
}

#[test]
fn a_fleet_that_is_left_out_is_as_it_was_and_not_silent() {
    let (mut world, mut ledger) = (world("a", &[(0, 500)]), Ledger::default());
    for second in 0..=200_i64 {
        let all =
            if second <= 10 || second % 10 == 0 { vec![world.fleet(second * 1000)] } else { Vec::new() };
        ledger.accept(&world.with(second as u64, second * 1000, all), at(second * 1000));
    }
    let idle = load(&ledger, 200_300);
    assert_eq!((idle.silent, idle.complete, idle.age), (0, true, 300));
    assert_eq!((idle.stable.in_flight, idle.stable.arrivals, idle.stable.seconds), (0.0, 0.0, 60.0));
    assert_eq!(ledger.fleets[UID].series[0].len(), 1, "rest costs one point");
    // What happens next lies where it happened, not in the pause before.
    world.calls.push((203_100, 800));
    for second in 201..=205_i64 {
        let all = if second >= 204 { vec![world.fleet(second * 1000)] } else { Vec::new() };
        ledger.accept(&world.with(second as u64, second * 1000, all), at(second * 1000));
    }
    let busy = load(&ledger, 205_000);
    assert!(busy.complete && near(busy.panic.in_flight, 0.8 / 6.0), "{busy:?}");
    assert!(near(busy.stable.in_flight, 0.8 / 60.0) && near(busy.stable.arrivals, 1.0), "{busy:?}");
}

#[test]
fn a_gateway_that_does_not_know_a_fleet_any_more_says_nothing_of_it() {
    let (world, mut ledger) = (world("a", &[(0, 500)]), Ledger::default());
    world.run(&mut ledger, 0, 10);
    for second in 11..=75_i64 {
        ledger.accept(&world.with(second as u64 + 2_000, second * 1000, Vec::new()), at(second * 1000));
    }
    assert_eq!(ledger.load(UID, &windows(), None, at(75_000)), None);
    ledger.prune(at(75_000));
    assert_eq!((ledger.fleets.len(), ledger.gateways.len()), (0, 1));
    ledger.prune(at(200_000));
    assert_eq!((ledger.names.len(), ledger.gateways.len()), (0, 0));
}

#[test]
fn who_waits_for_a_first_pod_is_found_at_once() {
    let (world, mut ledger) = (world("a", &[]), Ledger::default());
    let mut fleet = world.fleet(0);
    (fleet.ready, fleet.queue) = (0, 2.0);
    ledger.accept(&world.with(1, 0, vec![fleet.clone()]), at(0));
    assert_eq!(ledger.fleets_waiting(at(10)).collect::<Vec<_>>(), [UID]);
    assert!(near(load(&ledger, 10).waiting, 2.0));
    assert_eq!(ledger.fleets_waiting(at(5_001)).count(), 0, "the gateway is silent");
    fleet.ready = 1;
    ledger.accept(&world.with(2, 1_000, vec![fleet.clone()]), at(1_000));
    assert_eq!((ledger.fleets_waiting(at(1_000)).count(), ledger.waiting.len()), (0, 0));
    (fleet.ready, fleet.queue) = (0, 0.0);
    ledger.accept(&world.with(3, 2_000, vec![fleet]), at(2_000));
    assert_eq!(ledger.fleets_waiting(at(2_000)).count(), 0);
}

#[test]
fn the_newest_is_summed_over_gateways() {
    let mut ledger = Ledger::default();
    for (name, t) in [("a", 1_000), ("b", 2_000)] {
        let world = world(name, &[(0, 10_000)]);
        let mut fleet = world.fleet(t);
        fleet.pods[0].sessions = 3.0;
        fleet.pods.push(PodReport { uid: "no uid".into(), ..PodReport::default() });
        ledger.accept(&world.with(1, t, vec![fleet]), at(t));
    }
    let newest = ledger.newest(UID).unwrap();
    assert_eq!(newest.wall, START + 2_000);
    let now = PodNow { in_flight: 2.0, sessions: 6.0, ..PodNow::default() };
    assert_eq!(newest.pods, [(PodUid::parse(POD).unwrap(), now)].into());
    assert_eq!((ledger.newest("other"), ledger.heard(at(2_000))), (None, 2));
}

#[test]
fn a_fleet_of_the_same_name_with_another_uid_is_another() {
    let (world, mut ledger) = (world("a", &[(0, 1_000_000)]), Ledger::default());
    world.run(&mut ledger, 0, 70);
    let again = FleetReport { uid: "new".into(), ..world.fleet(71_000) };
    ledger.accept(&world.with(9_000, 71_000, vec![again]), at(71_000));
    let load = ledger.load("new", &windows(), None, at(71_000)).unwrap();
    assert!(!load.complete && load.stable.arrivals == 0.0, "{load:?}");
}

#[test]
fn clocks_that_jump_move_no_window() {
    for (jump, ours) in [(3_600_000, true), (-3_600_000, true), (20_000, false), (-20_000, false)] {
        let (world, mut ledger) = (world("a", &[(0, 1_000_000)]), Ledger::default());
        // Samples of a clock that is an hour off are not believed, but only because they look too old.
        let lax = Windows { max_sample_age: 10_000_000, ..windows() };
        world.run(&mut ledger, 0, 70);
        ledger.load(UID, &lax, None, at(70_000));
        for second in 71..=100_i64 {
            let mut report = world.report(5_000 + second as u64, second * 1000);
            let mut now = at(second * 1000);
            if ours {
                now.wall += jump;
            } else {
                report.time = time(second * 1000 + jump);
            }
            ledger.accept(&report, now);
        }
        let now = Now { mono: 100_000, wall: START + 100_000 + if ours { jump } else { 0 } };
        let Some(load) = ledger.load(UID, &lax, None, now) else { continue };
        assert!((0.95..1.05).contains(&load.stable.in_flight), "{jump} {ours}: {load:?}");
        assert!((0.8..1.2).contains(&load.panic.in_flight), "{jump} {ours}: {load:?}");
    }
}

#[test]
fn memory_is_bounded() {
    let (world, mut ledger) = (world("a", &[]), Ledger::default());
    let long = Windows { stable: 3_600_000, panic: 60_000, ..windows() };
    let mut sequence = 0;
    // 300 ms of work every 400 ms.
    for t in (0..4_000_000_i64).step_by(500) {
        sequence += 1;
        let ended = (t / 400) as f64;
        let mut fleet = world.fleet(-1);
        (fleet.arrivals, fleet.work.in_flight_seconds) = (ended, ended * 0.3);
        ledger.accept(&world.with(sequence, t, vec![fleet]), at(t));
        if t == 0 {
            ledger.load(UID, &long, None, at(t));
        }
        assert!(ledger.fleets[UID].series[0].len() <= 64);
    }
    let load = ledger.load(UID, &long, None, at(4_000_000)).unwrap();
    assert!(load.complete && (load.stable.in_flight - 0.75).abs() < 0.01, "{load:?}");
    assert!((load.panic.in_flight - 0.75).abs() < 0.05, "{load:?}");
    for i in 0..600_i64 {
        let gateway = Report { gateway: format!("g{i}"), ..world.with(1, 4_000_000 + i, Vec::new()) };
        assert_eq!(ledger.accept(&gateway, at(4_000_000 + i)), Receipt::Accepted);
    }
    assert_eq!((ledger.gateways.len(), ledger.names.len()), (512, 512));
}

fn calls() -> impl Strategy<Value = Vec<(Millis, Millis)>> {
    prop::collection::vec((0_i64..150_000, prop_oneof![1_i64..200, 1_i64..40_000]), 0..60)
}

/// For each report of 150 s: how often it comes (0: lost), and how late, in ms.
fn fates() -> impl Strategy<Value = Vec<(usize, Millis)>> {
    let fate = (prop_oneof![4 => Just(1_usize), 2 => Just(0), 1 => Just(2)], 0_i64..4_000);
    prop::collection::vec(fate, 151)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Lost, repeated and overtaken reports: what a window says lies between what really happened in one that is
    /// shorter by the hole, and one that is longer by it. So whatever leaves the window leaves it a few seconds early
    /// at most, and never the rest of it.
    #[test]
    fn no_loss_makes_load_smaller(calls in calls(), fates in fates(), end in 62_i64..150) {
        let (world, mut ledger) = (world("a", &calls), Ledger::default());
        let mut pushes: Vec<(Millis, i64)> = Vec::new();
        for second in 0..=150_i64 {
            let (times, late) = fates[second as usize];
            pushes.extend((0..times as i64).map(|i| (second * 1000 + late + i * 700, second)));
        }
        pushes.sort_unstable();
        let mut newest = None;
        for (comes, second) in pushes.into_iter().filter(|(comes, _)| *comes <= end * 1000) {
            let receipt = ledger.accept(&world.report(second as u64, second * 1000), at(comes));
            prop_assert_eq!(receipt == Receipt::Accepted, newest < Some(second));
            newest = newest.max(Some(second));
        }
        let Some(load) = ledger.load(UID, &windows(), None, at(end * 1000)) else { return Ok(()) };
        let newest = newest.unwrap() * 1000;
        for (window, length) in [(&load.stable, 60_000), (&load.panic, 6_000)] {
            if !load.complete || (length == 6_000 && load.silent > 0) {
                continue;
            }
            // For the short window nothing is flagged: it is never what a scale-down follows.
            let hole = if length == 60_000 { 5_000 } else { 60_000 };
            let start = newest - length;
            let least = world.integral((start + hole).min(newest), newest);
            let most = world.integral(start - hole, newest);
            let said = window.in_flight * length as f64 / 1000.0;
            prop_assert!(least - 1e-6 <= said && said <= most + 1e-6, "{least} ≤ {said} ≤ {most}");
            let least = world.started(newest) - world.started((start + hole).min(newest));
            let most = world.started(newest) - world.started(start - hole);
            prop_assert!(least - 1e-6 <= window.arrivals && window.arrivals <= most + 1e-6);
        }
    }

    /// Where every report comes, whatever the window starts at a report, the mean is exact.
    #[test]
    fn without_loss_the_mean_is_exact(calls in calls(), end in 62_i64..150) {
        let (world, mut ledger) = (world("a", &calls), Ledger::default());
        world.run(&mut ledger, 0, end);
        let load = load(&ledger, end * 1000 + 300);
        let to = end * 1000;
        prop_assert!(near(load.panic.in_flight, world.integral(to - 6_000, to) / 6.0), "{:?}", load.panic);
        let (said, exact) = (load.stable.in_flight, world.integral(to - 60_000, to) / 60.0);
        // Older points are merged: the start of the long window may lie between two of them.
        let slack = world.integral(to - 62_500, to - 57_500) / 60.0;
        prop_assert!((said - exact).abs() <= slack + 1e-6, "{said} {exact} {slack}");
        prop_assert!(load.complete && load.silent == 0);
    }

    /// Anything at all: finite, not negative, no panic.
    #[test]
    fn whatever_is_reported_the_load_is_finite(
        numbers in prop::collection::vec(prop_oneof![
            any::<f64>(), 0.0..1e6, Just(f64::NAN), Just(9e15), Just(0.0)], 200),
        steps in prop::collection::vec((0_u64..3, 0_u64..6, -40_000_i64..10_000, 0_i64..20_000, 0_u64..3), 1..30),
    ) {
        let mut ledger = Ledger::default();
        let mut numbers = numbers.into_iter().cycle();
        let mut n = move || numbers.next().unwrap();
        let mut now = 0;
        for (epoch, sequence, off, passed, since) in steps {
            now += passed;
            let world = world("a", &[]);
            let mut fleet = world.fleet(0);
            fleet.since = if since == 0 { 0 } else { (START + since as i64 * 1_000) as u64 };
            (fleet.arrivals, fleet.shed, fleet.queue, fleet.queue_seconds) = (n(), n(), n(), n());
            fleet.work.in_flight_seconds = n();
            fleet.pods[0].work.stream_seconds = n();
            let mut report = world.with(sequence, now + off, vec![fleet]);
            report.epoch = epoch;
            ledger.accept(&report, at(now));
            let wide = Windows { stable: 3_600_000, panic: 1, max_sample_age: 86_400_000, panic_threshold: 2.0 };
            for windows in [windows(), wide] {
                let Some(load) = ledger.load(UID, &windows, Some(2), at(now)) else { continue };
                for w in [&load.stable, &load.panic] {
                    let mut all = vec![w.seconds, w.arrivals, w.shed, w.queue, w.in_flight, w.streams];
                    all.extend(w.latency.0);
                    all.extend(w.pods.values().flat_map(|p| [p.in_flight, p.streams, p.completions.served()]));
                    all.extend([load.waiting, load.sessions, load.silent_in_flight, load.age as f64]);
                    prop_assert!(all.iter().all(|n| n.is_finite() && *n >= 0.0), "{load:?}");
                }
            }
            ledger.prune(at(now));
        }
    }
}
