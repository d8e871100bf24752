//! The breaker against a reference model that keeps every call in a list, and the rules one by one.

use std::time::Duration;

use proptest::prelude::*;

use super::{Breaker, Nanos, Outcome, Settings, State, Transition, may_eject};

const SECOND: Nanos = 1_000_000_000;
/// The draw in the middle: no jitter.
const MIDDLE: u64 = 1 << 63;

fn settings() -> Settings {
    Settings { failure_threshold: 3, min_requests: 6, half_open_max: 2, ..Settings::default() }
}

/// The rules restated without atomics, rings or locks. Times in seconds.
struct Model {
    open: bool,
    /// Calls since it closed: (second, counts as failed).
    calls: Vec<(u64, bool)>,
    in_row: u32,
    n_opened: u32,
    closed_at: u64,
    opened_at: u64,
    backoff: u64,
    /// What probes said since it opened.
    probe_failed: bool,
    probe_succeeded_last: Option<bool>,
    trials: u32,
    successes: u32,
}

impl Model {
    fn new() -> Self {
        Self {
            open: false,
            calls: Vec::new(),
            in_row: 0,
            n_opened: 0,
            closed_at: 0,
            opened_at: 0,
            backoff: 0,
            probe_failed: false,
            probe_succeeded_last: None,
            trials: 0,
            successes: 0,
        }
    }

    fn state(&self, now: u64) -> State {
        let patience = match self.probe_succeeded_last {
            Some(true) => self.backoff,
            Some(false) => u64::MAX / 2,
            None => self.backoff + 30,
        };
        match self.open {
            false => State::Closed,
            true if now >= self.opened_at + patience => State::HalfOpen,
            true => State::Open,
        }
    }

    fn allows(&mut self, now: u64) -> bool {
        match self.state(now) {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => {
                let free = self.trials < settings().half_open_max;
                self.trials += u32::from(free);
                free
            }
        }
    }

    fn opens(&mut self, now: u64) -> Transition {
        self.backoff = (30 << self.n_opened.min(10)).min(300);
        self.n_opened += 1;
        self.opened_at = now;
        self.probe_failed = false;
        self.probe_succeeded_last = None;
        self.trials = 0;
        self.successes = 0;
        self.open = true;
        Transition::Opened
    }

    fn closes(&mut self, now: u64) -> Transition {
        self.open = false;
        self.closed_at = now;
        self.in_row = 0;
        self.calls.clear();
        Transition::Closed
    }

    fn record(&mut self, now: u64, outcome: Outcome) -> Option<Transition> {
        match (self.state(now), outcome) {
            (State::Open, _) | (State::Closed, Outcome::Ignored) => None,
            (State::HalfOpen, _) => {
                self.trials = self.trials.saturating_sub(1);
                match outcome {
                    Outcome::Ignored => None,
                    Outcome::Failure | Outcome::Overload => Some(self.opens(now)),
                    Outcome::Success => {
                        self.successes += 1;
                        if self.successes == settings().half_open_max { Some(self.closes(now)) } else { None }
                    }
                }
            }
            (State::Closed, _) => {
                self.calls.push((now, outcome != Outcome::Success));
                match outcome {
                    Outcome::Success => self.in_row = 0,
                    Outcome::Failure => self.in_row += 1,
                    _ => {}
                }
                let recent: Vec<bool> =
                    self.calls.iter().filter(|(at, _)| at + 10 > now).map(|(_, failed)| *failed).collect();
                let failed = recent.iter().filter(|failed| **failed).count();
                let ratio = recent.len() >= 6 && 2 * failed >= recent.len();
                let row = outcome == Outcome::Failure && self.in_row >= settings().failure_threshold;
                if outcome == Outcome::Success || !(ratio || row) {
                    return None;
                }
                if now - self.closed_at > 300 {
                    self.n_opened = 0;
                }
                Some(self.opens(now))
            }
        }
    }

    fn probe(&mut self, now: u64, succeeded: bool) -> Option<Transition> {
        if !self.open {
            return None;
        }
        if succeeded && self.probe_failed {
            return Some(self.closes(now));
        }
        self.probe_failed |= !succeeded;
        self.probe_succeeded_last = Some(succeeded);
        None
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Record(Outcome),
    Allows,
    Probe(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Success),
        3 => Just(Outcome::Failure),
        1 => Just(Outcome::Overload),
        1 => Just(Outcome::Ignored),
    ];
    prop_oneof![
        2 => prop_oneof![0_u64..3, 25_u64..40, 250_u64..400].prop_map(Step::Pass),
        8 => outcome.prop_map(Step::Record),
        2 => Just(Step::Allows),
        1 => any::<bool>().prop_map(Step::Probe),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_like_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let (breaker, mut model, mut now) = (Breaker::new(settings()), Model::new(), 0_u64);
        for (i, step) in steps.iter().enumerate() {
            let at = now * SECOND;
            match *step {
                Step::Pass(seconds) => now += seconds,
                Step::Record(outcome) => prop_assert_eq!(
                    breaker.record(at, outcome, || MIDDLE), model.record(now, outcome), "step {}", i),
                Step::Allows => prop_assert_eq!(breaker.allows(at), model.allows(now), "step {}", i),
                Step::Probe(true) =>
                    prop_assert_eq!(breaker.probe_succeeded(at), model.probe(now, true), "step {}", i),
                Step::Probe(false) => {
                    breaker.probe_failed();
                    prop_assert_eq!(None, model.probe(now, false));
                }
            }
            prop_assert_eq!(breaker.state(now * SECOND), model.state(now), "after step {}", i);
        }
    }

    #[test]
    fn at_most_the_share_is_ejected_and_always_one(n in 0_usize..200, percent in 0_u32..=100) {
        let mut ejected = 0;
        while may_eject(n, ejected, percent) {
            ejected += 1;
        }
        prop_assert_eq!(ejected, (n * percent as usize / 100).max(1));
    }
}

fn fail(breaker: &Breaker, now: Nanos, times: usize) -> Option<Transition> {
    (0..times).map(|_| breaker.record(now, Outcome::Failure, || MIDDLE)).last().flatten()
}

#[test]
fn five_failures_in_a_row_open_the_default_breaker() {
    let breaker = Breaker::new(Settings::default());
    assert_eq!(fail(&breaker, SECOND, 4), None);
    assert_eq!(breaker.record(SECOND, Outcome::Success, || MIDDLE), None);
    assert_eq!(fail(&breaker, SECOND, 4), None);
    assert_eq!(breaker.failures_in_row(), 4);
    assert_eq!(breaker.record(SECOND, Outcome::Ignored, || MIDDLE), None);
    assert_eq!(fail(&breaker, SECOND, 1), Some(Transition::Opened));
    assert!(!breaker.allows(SECOND));
}

#[test]
fn every_second_failure_opens_it_after_twenty_calls() {
    let breaker = Breaker::new(Settings::default());
    let opened = (0..40_u64).find(|&i| {
        let outcome = if i % 2 == 0 { Outcome::Success } else { Outcome::Failure };
        breaker.record(i * SECOND / 10, outcome, || MIDDLE).is_some()
    });
    assert_eq!(opened, Some(19));
}

#[test]
fn overload_opens_by_ratio_alone_and_fails_a_trial() {
    let breaker = Breaker::new(Settings::default());
    let opened = (0..40).find(|_| breaker.record(SECOND, Outcome::Overload, || MIDDLE).is_some());
    assert_eq!(opened, Some(19), "never by the count in a row");
    assert_eq!(breaker.probe_succeeded(2 * SECOND), None);
    assert!(breaker.allows(31 * SECOND));
    assert_eq!(breaker.record(31 * SECOND, Outcome::Overload, || MIDDLE), Some(Transition::Opened));
}

#[test]
fn old_failures_leave_the_window() {
    let breaker = Breaker::new(Settings { failure_threshold: 1_000, ..Settings::default() });
    assert_eq!(fail(&breaker, 0, 19), None);
    assert_eq!(fail(&breaker, 10 * SECOND, 19), None);
    assert_eq!(fail(&breaker, 19 * SECOND, 1), Some(Transition::Opened), "both within ten seconds");
}

#[test]
fn a_probe_that_saw_the_fault_closes_it_before_any_call_is_tried() {
    let breaker = Breaker::new(Settings::default());
    fail(&breaker, 0, 5);
    breaker.probe_failed();
    assert_eq!(breaker.state(1_000 * SECOND), State::Open, "no call is tried while probes fail");
    assert_eq!(breaker.probe_succeeded(1_000 * SECOND), Some(Transition::Closed));
    assert!(breaker.allows(1_000 * SECOND));
}

#[test]
fn a_probe_blind_to_the_fault_leaves_the_judgement_to_calls() {
    let breaker = Breaker::new(Settings::default());
    fail(&breaker, 0, 5);
    assert_eq!(breaker.probe_succeeded(SECOND), None);
    assert_eq!(breaker.state(29 * SECOND), State::Open);
    let now = 30 * SECOND;
    assert_eq!(breaker.state(now), State::HalfOpen);
    assert_eq!([(); 4].map(|()| breaker.allows(now)), [true, true, true, false]);
    assert_eq!(breaker.record(now, Outcome::Ignored, || MIDDLE), None);
    assert!(breaker.allows(now), "a client that left gives its place back");
    assert_eq!(fail(&breaker, now, 1), Some(Transition::Opened));
    breaker.probe_succeeded(now + SECOND);
    assert_eq!(breaker.state(now + 59 * SECOND), State::Open, "twice as long");
    assert_eq!(breaker.state(now + 60 * SECOND), State::HalfOpen);
    let closed = [(); 3].map(|()| breaker.record(now + 60 * SECOND, Outcome::Success, || MIDDLE));
    assert_eq!(closed, [None, None, Some(Transition::Closed)]);
}

#[test]
fn the_backoff_varies_by_a_fifth_and_ends_at_five_minutes() {
    for (draw, seconds) in [(0, 24), (MIDDLE, 30), (u64::MAX, 36)] {
        let breaker = Breaker::new(Settings { failure_threshold: 1, ..Settings::default() });
        breaker.record(0, Outcome::Failure, || draw);
        breaker.probe_succeeded(0);
        assert_eq!(breaker.state((seconds - 1) * SECOND), State::Open);
        assert_eq!(breaker.state(seconds * SECOND), State::HalfOpen);
    }
    let breaker = Breaker::new(Settings { failure_threshold: 1, ..Settings::default() });
    let mut now = 0;
    for seconds in [30, 60, 120, 240, 300, 300] {
        assert_eq!(fail(&breaker, now, 1), Some(Transition::Opened));
        breaker.probe_succeeded(now);
        now += seconds * SECOND;
        assert_eq!(breaker.state(now - 1), State::Open, "{seconds} s");
        assert_eq!(breaker.state(now), State::HalfOpen, "{seconds} s");
    }
}

#[test]
fn threads_open_it_once() {
    let breaker = Breaker::new(Settings::default());
    let n_opened: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..500).filter(|_| fail(&breaker, SECOND, 1).is_some()).count()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(n_opened, 1);
}

#[test]
fn defaults_are_those_of_the_api() {
    let defaults = Settings::default();
    assert_eq!(defaults.window, Duration::from_secs(10));
    assert_eq!((defaults.failure_threshold, defaults.half_open_max, defaults.min_requests), (5, 3, 20));
}
