//! A small pod in which connections come and go, and the drain that watches it.

use super::super::sockets::Endpoint;
use super::*;
use proptest::prelude::*;

/// A connection of the model: from, to (in milliseconds since the start), kind.
#[derive(Debug, Clone, Copy)]
struct Visit(u64, u64, Kind);

/// Stays for ever.
const FOREVER: u64 = u64::MAX;

fn ends(client: usize) -> Ends {
    Ends {
        local: Endpoint { address: 1, port: 8080 },
        remote: Endpoint { address: 2, port: u16::try_from(client).unwrap() },
    }
}

fn at(visits: &[Visit], now: Duration) -> Connections {
    let now = u64::try_from(now.as_millis()).unwrap();
    let here = |visit: &Visit| visit.0 <= now && now < visit.1;
    visits.iter().enumerate().filter(|(_, v)| here(v)).map(|(i, v)| (ends(i), v.2)).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs a drain to its end, looking exactly when it asks to.
fn run(limits: Limits, visits: &[Visit]) -> Outcome {
    let mut drain = Drain::new(limits);
    let mut now = Duration::ZERO;
    loop {
        match drain.observe(now, Some(&at(visits, now))) {
            Step::Wait(wait) => {
                assert!(!wait.is_zero() && wait <= LOOK_INTERVAL);
                now += wait;
            }
            Step::Done(outcome) => return outcome,
        }
    }
}

fn drained_after(millis: u64) -> Outcome {
    Outcome::Drained { after: Duration::from_millis(millis) }
}

#[test]
fn when_a_pod_may_go() {
    let deadline = |held| Outcome::Deadline { after: seconds(300), held };
    for (what, visits, expected) in [
        ("an empty pod goes at the minimum", vec![], drained_after(5_000)),
        (
            "a call of 20 s is awaited, and the quiet time after it",
            vec![Visit(0, 20_000, Kind::Open)],
            drained_after(22_000),
        ),
        (
            "a call that ends early enough costs nothing",
            vec![Visit(0, 3_000, Kind::Open)],
            drained_after(5_000),
        ),
        (
            "an idle connection that nobody closes holds to the deadline",
            vec![Visit(0, FOREVER, Kind::Open)],
            deadline(1),
        ),
        (
            "anchors that take over from each other hold without a gap",
            (0..10).map(|i| Visit(i * 20_000, i * 20_000 + 20_500, Kind::Open)).collect(),
            // The last look that saw the last one is at 200 250.
            drained_after(202_500),
        ),
        (
            "a reconnect within the quiet time holds",
            vec![Visit(0, 10_000, Kind::Open), Visit(11_500, 30_000, Kind::Open)],
            drained_after(32_000),
        ),
        (
            "probes of a few milliseconds do not hold",
            (0..300).map(|i| Visit(i * 1_000, i * 1_000 + 5, Kind::Open)).collect(),
            // One of them is there at the very look at 5 s and puts the decision off.
            drained_after(5_250),
        ),
        (
            "a call that begins at the last moment is seen",
            vec![Visit(5_000, 25_000, Kind::Open)],
            drained_after(27_000),
        ),
        (
            "a half-closed client gets its answer",
            vec![Visit(0, 12_000, Kind::HalfClosed)],
            drained_after(14_000),
        ),
        (
            "a leaked half-closed connection does not hold for ever",
            vec![Visit(0, FOREVER, Kind::HalfClosed)],
            drained_after(32_000),
        ),
        (
            "the last bytes of an answer are awaited",
            vec![Visit(0, 40_000, Kind::Flushing)],
            drained_after(42_000),
        ),
    ] {
        assert_eq!(run(Limits::default(), &visits), expected, "{what}");
    }
}

#[test]
fn the_timeout_wins_over_the_minimum() {
    let limits = Limits { min: seconds(5), quiet: seconds(2), timeout: seconds(3) };
    assert_eq!(run(limits, &[]), Outcome::Deadline { after: seconds(3), held: 0 });
    let at_once = Limits { timeout: Duration::ZERO, ..limits };
    assert_eq!(run(at_once, &[]), Outcome::Deadline { after: Duration::ZERO, held: 0 });
}

#[test]
fn a_drain_that_never_sees_anything_waits_the_minimum() {
    let mut drain = Drain::new(Limits::default());
    for second in 0..5 {
        assert!(matches!(drain.observe(seconds(second), None), Step::Wait(_)));
    }
    let done = drain.observe(seconds(5), None);
    assert_eq!(done, Step::Done(Outcome::Blind { after: seconds(5) }));
}

#[test]
fn a_drain_that_goes_blind_does_not_believe_that_everybody_left() {
    let mut drain = Drain::new(Limits::default());
    let one = at(&[Visit(0, FOREVER, Kind::Open)], Duration::ZERO);
    drain.observe(Duration::ZERO, Some(&one));
    drain.observe(LOOK_INTERVAL, Some(&one));
    for second in 1..300 {
        assert!(matches!(drain.observe(seconds(second), None), Step::Wait(_)));
    }
    let done = drain.observe(seconds(300), None);
    assert_eq!(done, Step::Done(Outcome::Deadline { after: seconds(300), held: 1 }));
}

#[test]
fn a_failed_look_breaks_the_quiet_time() {
    let mut drain = Drain::new(Limits::default());
    let nobody = Connections::default();
    drain.observe(seconds(0), Some(&nobody));
    drain.observe(seconds(4), None);
    assert!(matches!(drain.observe(seconds(5), Some(&nobody)), Step::Wait(_)));
    assert!(matches!(drain.observe(seconds(7), Some(&nobody)), Step::Done(_)));
}

#[test]
fn outcomes_read_like_sentences() {
    for (outcome, line) in [
        (drained_after(5_250), "drained: nobody is connected, after 5.2 s"),
        (
            Outcome::Deadline { after: seconds(300), held: 2 },
            "deadline: the drain time of 300.0 s is over with 2 connection(s) held; they are cut",
        ),
        (
            Outcome::Blind { after: seconds(5) },
            "blind: connections cannot be seen; waited the minimum of 5.0 s only",
        ),
    ] {
        assert_eq!(outcome.to_string(), line);
    }
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (0..10_u64, 0..5_u64, 0..40_u64).prop_map(|(min, quiet, timeout)| Limits {
        min: seconds(min),
        quiet: seconds(quiet),
        timeout: seconds(timeout),
    })
}

fn any_visits() -> impl Strategy<Value = Vec<Visit>> {
    let kind = prop_oneof![Just(Kind::Open), Just(Kind::HalfClosed), Just(Kind::Flushing)];
    let visit = (0..40_000_u64, 0..40_000_u64, kind)
        .prop_map(|(from, lasts, kind)| Visit(from, from.saturating_add(lasts), kind));
    proptest::collection::vec(visit, 0..8)
}

proptest! {
    #[test]
    fn no_drain_ends_too_early_or_too_late(limits in any_limits(), visits in any_visits()) {
        let (Outcome::Drained { after } | Outcome::Deadline { after, .. } | Outcome::Blind { after }) =
            run(limits, &visits);
        prop_assert!(after >= limits.min.min(limits.timeout));
        prop_assert!(after <= limits.timeout);
    }

    #[test]
    fn nobody_is_cut_before_the_deadline(limits in any_limits(), visits in any_visits()) {
        if let Outcome::Drained { after } = run(limits, &visits) {
            let after = u64::try_from(after.as_millis()).unwrap();
            for Visit(from, to, kind) in visits {
                let patience = HALF_CLOSED_PATIENCE.as_millis() as u64;
                let abandoned = kind == Kind::HalfClosed && from + patience <= after;
                // Whoever is connected at the end has come since the last look.
                prop_assert!(to <= after || from > after || from == to || abandoned);
            }
        }
    }

    #[test]
    fn connections_shorter_than_a_look_cost_at_most_one_look_each(
        starts in proptest::collection::vec(0..40_u64, 0..20),
    ) {
        let visits: Vec<_> =
            starts.iter().map(|second| Visit(second * 1_000, second * 1_000 + 100, Kind::Open)).collect();
        let limits = Limits { timeout: seconds(60), ..Limits::default() };
        let is_prompt = matches!(
            run(limits, &visits),
            Outcome::Drained { after } if after <= seconds(5) + LOOK_INTERVAL
        );
        prop_assert!(is_prompt);
    }

    #[test]
    fn any_sequence_of_looks_ends_at_the_deadline(
        limits in any_limits(),
        looks in proptest::collection::vec((0..5_000_u64, proptest::option::of(any_visits())), 1..50),
    ) {
        let mut drain = Drain::new(limits);
        let mut now = Duration::ZERO;
        for (pause, visits) in looks {
            now += Duration::from_millis(pause);
            let connections = visits.map(|visits| at(&visits, now));
            let step = drain.observe(now, connections.as_ref());
            prop_assert!(now < limits.timeout || matches!(step, Step::Done(_)));
            if matches!(step, Step::Done(_)) {
                break;
            }
        }
    }
}
