//! Properties of picking, with seeded draws: legality against a plain restatement of the rules, fairness,
//! weights, zones, slow start; behaviour over time is in `simulation`, a single endpoint in `load`.

mod load;
mod simulation;

use std::time::Duration;

use proptest::prelude::*;

// By name: proptest has a Strategy as well.
use super::{Candidate, Load, Nanos, Outlook, SLOW_START, Sample, Strategy, UnknownStrategy, pick, seed};

const SECOND: Nanos = 1_000_000_000;
/// Long after every start: slow start plays no part unless a test makes an endpoint new.
const NOW: Nanos = 1_000 * SECOND;

/// An endpoint as a test wants it.
#[derive(Debug)]
struct Fake {
    load: Load,
    weight: u32,
    local: bool,
    eligible: bool,
    room: bool,
    ejected: bool,
}

impl Default for Fake {
    fn default() -> Self {
        Self { load: Load::new(0), weight: 1, local: true, eligible: true, room: true, ejected: false }
    }
}

impl Candidate for Fake {
    fn load(&self) -> &Load {
        &self.load
    }
    fn weight(&self) -> u32 {
        self.weight
    }
    fn is_local(&self) -> bool {
        self.local
    }
    fn eligible(&self) -> bool {
        self.eligible
    }
    fn has_room(&self) -> bool {
        self.room
    }
    fn is_ejected(&self) -> bool {
        self.ejected
    }
}

fn fleet(n: usize) -> Vec<Fake> {
    (0..n).map(|_| Fake::default()).collect()
}

/// How often each endpoint is picked in `n_picks`.
fn shares(strategy: Strategy, fleet: &[Fake], n_picks: usize) -> Vec<usize> {
    let outlook = Outlook::default();
    outlook.refresh(fleet, NOW, SLOW_START);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut counts = vec![0; fleet.len()];
    for _ in 0..n_picks {
        let picked = pick(strategy, fleet, |_| true, &outlook, &mut || rng.u64(..), NOW, SLOW_START);
        counts[picked.expect("some endpoint is usable")] += 1;
    }
    counts
}

fn assert_near(counts: &[usize], expected: &[f64], tolerance: f64, what: impl std::fmt::Debug) {
    for (&count, &expected) in counts.iter().zip(expected) {
        let off = (count as f64 - expected).abs() / expected;
        assert!(off <= tolerance, "{what:?}: {counts:?}, expected about {expected}");
    }
}

prop_compose! {
    fn any_fake()(
        weight in 0_u32..4, local: bool, eligible in prop::bool::weighted(0.8), room in prop::bool::weighted(0.8),
        ejected: bool, penalised in prop::bool::weighted(0.3), inflight in 0_u32..5, new: bool,
    ) -> Fake {
        let load = Load::new(if new { NOW - SECOND } else { 0 });
        (0..inflight).for_each(|_| load.started());
        if penalised {
            load.observe(NOW - SECOND, Sample::Failed);
        }
        Fake { load, weight, local, eligible, room, ejected }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Never an ineligible or full endpoint; never an ejected one unless fewer than half of the eligible
    /// would remain; never a penalised one while another is left; and always one while any may be used.
    #[test]
    fn a_pick_is_legal(
        fleet in prop_oneof![
            4 => prop::collection::vec(any_fake(), 0..12),
            1 => prop::collection::vec(any_fake(), 60..140),
        ],
        seed: u64,
    ) {
        let eligible: Vec<usize> =
            (0..fleet.len()).filter(|&i| fleet[i].eligible && fleet[i].weight > 0).collect();
        let n_sound = eligible.iter().filter(|&&i| !fleet[i].ejected).count();
        let panic = 2 * n_sound < eligible.len();
        let usable: Vec<usize> =
            eligible.into_iter().filter(|&i| fleet[i].room && (panic || !fleet[i].ejected)).collect();
        let unpenalised: Vec<usize> =
            usable.iter().copied().filter(|&i| fleet[i].load.penalty_ns(NOW) == 0).collect();
        let legal = if unpenalised.is_empty() { usable } else { unpenalised };

        let outlook = Outlook::default();
        outlook.refresh(&fleet, NOW, SLOW_START);
        let mut rng = fastrand::Rng::with_seed(seed);
        for strategy in Strategy::ALL {
            let mut reached = vec![false; fleet.len()];
            for _ in 0..50 {
                let picked =
                    pick(strategy, &fleet, |_| true, &outlook, &mut || rng.u64(..), NOW, SLOW_START);
                prop_assert_eq!(picked.is_some(), !legal.is_empty(), "{:?}", strategy);
                if let Some(i) = picked {
                    prop_assert!(legal.contains(&i), "{:?} picked {} of {:?}", strategy, i, legal);
                    reached[i] = true;
                }
            }
            // No starvation where nothing but chance decides.
            if strategy == Strategy::Random && (1..=3).contains(&legal.len()) && !fleet.iter().any(|f| !f.local)
                && !fleet.iter().any(|f| f.load.is_new(NOW, SLOW_START)) {
                prop_assert!(legal.iter().all(|&i| reached[i]));
            }
        }
    }

    /// Equal endpoints get equal shares in turn, to the call, whoever is out.
    #[test]
    fn round_robin_is_exact(out in prop::collection::vec(any::<bool>(), 1..90), rounds in 1_usize..5) {
        let mut fleet = fleet(out.len());
        for (fake, &out) in fleet.iter_mut().zip(&out) {
            fake.room = !out;
        }
        let n_in = out.iter().filter(|&&out| !out).count();
        prop_assume!(n_in > 0);
        let counts = shares(Strategy::RoundRobin, &fleet, n_in * rounds);
        for (count, out) in counts.into_iter().zip(out) {
            prop_assert_eq!(count, if out { 0 } else { rounds });
        }
    }

    /// Calls that never end pile up in proportion to the weights.
    #[test]
    fn costs_honour_weights(weights in prop::collection::vec(1_u32..6, 2..8), seed: u64) {
        for strategy in [Strategy::LeastRequest, Strategy::PeakEwma, Strategy::LeastConnections] {
            let mut fleet = fleet(weights.len());
            for (fake, &weight) in fleet.iter_mut().zip(&weights) {
                fake.weight = weight;
            }
            let outlook = Outlook::default();
            let mut rng = fastrand::Rng::with_seed(seed);
            let total: u32 = weights.iter().sum();
            for _ in 0..total * 40 {
                let i = pick(strategy, &fleet, |_| true, &outlook, &mut || rng.u64(..), NOW, SLOW_START);
                fleet[i.unwrap()].load.started();
            }
            for fake in &fleet {
                let per_weight = f64::from(fake.load.inflight()) / f64::from(fake.weight);
                prop_assert!((36.0..=44.0).contains(&per_weight), "{:?}: {}", strategy, per_weight);
            }
        }
    }
}

#[test]
fn names_are_those_of_the_api() {
    for strategy in Strategy::ALL {
        assert_eq!(strategy.as_str().parse(), Ok(strategy));
    }
    assert_eq!("PeakEWMA".parse(), Ok(Strategy::PeakEwma));
    assert_eq!("peakewma".parse::<Strategy>(), Err(UnknownStrategy("peakewma".to_owned())));
}

#[test]
fn equal_endpoints_get_equal_shares() {
    for n in [2, 3, 7, 100] {
        for strategy in Strategy::ALL {
            let counts = shares(strategy, &fleet(n), 1_000 * n);
            assert_near(&counts, &vec![1_000.0; n], 0.15, (strategy, n));
        }
    }
}

#[test]
fn weighted_follows_the_weights() {
    for n in [3, 99] {
        let mut fleet = fleet(n);
        for (i, fake) in fleet.iter_mut().enumerate() {
            fake.weight = [1, 2, 5][i % 3];
        }
        let counts = shares(Strategy::Weighted, &fleet, n * 3_000);
        let expected: Vec<f64> = fleet.iter().map(|f| f64::from(f.weight) * 9_000.0 / 8.0).collect();
        assert_near(&counts, &expected, 0.12, n);
    }
}

#[test]
fn costs_honour_weights_in_a_large_fleet() {
    for strategy in [Strategy::LeastRequest, Strategy::PeakEwma, Strategy::LeastConnections] {
        let mut fleet = fleet(99);
        for (i, fake) in fleet.iter_mut().enumerate() {
            fake.weight = [1, 2, 5][i % 3];
        }
        let outlook = Outlook::default();
        outlook.refresh(&fleet, NOW, SLOW_START);
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..33 * 8 * 40 {
            let i = pick(strategy, &fleet, |_| true, &outlook, &mut || rng.u64(..), NOW, SLOW_START);
            fleet[i.unwrap()].load.started();
        }
        let inflight: Vec<usize> = fleet.iter().map(|f| f.load.inflight() as usize).collect();
        let expected: Vec<f64> = fleet.iter().map(|f| 40.0 * f64::from(f.weight)).collect();
        assert_near(&inflight, &expected, 0.15, strategy);
    }
}

#[test]
fn half_may_be_ejected_but_not_more() {
    for strategy in Strategy::ALL {
        let mut fleet = fleet(4);
        fleet[0].ejected = true;
        fleet[1].ejected = true;
        let counts = shares(strategy, &fleet, 200);
        assert_eq!(counts[..2], [0, 0], "{strategy:?}");
        fleet[2].ejected = true;
        assert!(shares(strategy, &fleet, 200).iter().all(|&n| n > 0), "{strategy:?}: panic");
        fleet[3].ejected = true;
        assert!(shares(strategy, &fleet, 200).iter().all(|&n| n > 0), "{strategy:?}: all ejected");
    }
}

#[test]
fn busy_endpoints_are_no_reason_to_panic() {
    for strategy in Strategy::ALL {
        let mut fleet = fleet(3);
        fleet[0].ejected = true;
        fleet[1].room = false;
        fleet[2].room = false;
        let picked = pick(strategy, &fleet, |_| true, &Outlook::default(), &mut || 0, NOW, SLOW_START);
        assert_eq!(picked, None, "{strategy:?}: the broken one must not get all calls");
    }
}

#[test]
fn a_call_may_narrow_the_choice_in_any_size_of_fleet() {
    for n in [1, 2, 10, 200] {
        let fleet = fleet(n);
        for strategy in Strategy::ALL {
            let mut rng = fastrand::Rng::with_seed(1);
            let outlook = Outlook::default();
            let mut draw = || rng.u64(..);
            let last = &raw const fleet[n - 1];
            let only =
                pick(strategy, &fleet, |f| std::ptr::eq(f, last), &outlook, &mut draw, NOW, SLOW_START);
            assert_eq!(only, Some(n - 1), "{strategy:?} of {n}");
            assert_eq!(pick(strategy, &fleet, |_| false, &outlook, &mut draw, NOW, SLOW_START), None);
        }
    }
    let none: [Fake; 0] = [];
    assert_eq!(pick(Strategy::Random, &none, |_| true, &Outlook::default(), &mut || 0, 0, SLOW_START), None);
}

#[test]
fn one_sound_endpoint_beats_two_penalised_ones() {
    for strategy in Strategy::ALL {
        let fleet = fleet(3);
        fleet[0].load.observe(NOW - SECOND, Sample::Failed);
        fleet[1].load.observe(NOW - SECOND, Sample::Failed);
        assert_eq!(shares(strategy, &fleet, 300), [0, 0, 300], "{strategy:?}");
    }
}

#[test]
fn a_new_endpoint_starts_slowly() {
    for n in [4, 100] {
        for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::Weighted] {
            let mut fleet = fleet(n);
            fleet[0].load = Load::new(NOW - 3 * SECOND);
            let counts = shares(strategy, &fleet, 4_000 * n);
            let others = (n - 1) as f64;
            let expected = 4_000.0 * n as f64 * 0.2 / (others + 0.2);
            assert_near(&counts[..1], &[expected], 0.3, (strategy, n, 0.2));
        }
    }
    for strategy in [Strategy::LeastRequest, Strategy::PeakEwma, Strategy::LeastConnections] {
        let mut fleet = fleet(4);
        fleet[0].load = Load::new(NOW - 3 * SECOND);
        // Four calls with the others: a fifth costs 5, the first of the new one 1 / 0.2.
        fleet[1..].iter().for_each(|f| (0..3).for_each(|_| f.load.started()));
        assert_eq!(shares(strategy, &fleet, 500)[0], 0, "{strategy:?}");
        fleet[1..].iter().for_each(|f| (0..2).for_each(|_| f.load.started()));
        assert!(shares(strategy, &fleet, 500)[0] > 200, "{strategy:?}");
    }
}

#[test]
fn slow_start_is_off_when_most_are_new() {
    let mut fleet = fleet(3);
    fleet[0].load = Load::new(NOW);
    fleet[1].load = Load::new(NOW);
    assert_near(&shares(Strategy::Random, &fleet, 3_000), &[1_000.0; 3], 0.12, "two of three are new");
    let mut large = self::fleet(100);
    large.iter_mut().take(60).for_each(|f| f.load = Load::new(NOW));
    assert_near(&shares(Strategy::Random, &large, 100_000), &[1_000.0; 100], 0.15, "sixty of a hundred");
}

#[test]
fn other_zones_help_when_the_own_is_busy_or_gone() {
    for strategy in [Strategy::LeastRequest, Strategy::PeakEwma, Strategy::LeastConnections] {
        let mut fleet = fleet(2);
        fleet[1].local = false;
        assert_eq!(shares(strategy, &fleet, 100), [100, 0], "{strategy:?}");
        (0..3).for_each(|_| fleet[0].load.started());
        assert_eq!(shares(strategy, &fleet, 100), [0, 100], "{strategy:?}: 4 calls against 3 × 1");
        fleet[0].load = Load::new(0);
        fleet[0].room = false;
        assert_eq!(shares(strategy, &fleet, 100), [0, 100], "{strategy:?}: full");
    }
    let mut fleet = fleet(2);
    fleet[1].local = false;
    for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::Weighted] {
        assert_near(&shares(strategy, &fleet, 8_000), &[6_000.0, 2_000.0], 0.1, strategy);
    }
    for fake in &mut fleet {
        fake.local = false;
    }
    for strategy in Strategy::ALL {
        assert_near(&shares(strategy, &fleet, 8_000), &[4_000.0; 2], 0.1, strategy);
    }
}

#[test]
fn least_connections_counts_streams_and_sessions() {
    let fleet = fleet(4);
    fleet[0].load.started();
    fleet[1].load.stream_opened();
    fleet[2].load.session_opened();
    assert_eq!(shares(Strategy::LeastConnections, &fleet, 100), [0, 0, 0, 100]);
    assert_eq!(shares(Strategy::LeastRequest, &fleet[..2], 100), [0, 100], "streams are not in flight");
}

#[test]
fn a_large_fleet_costs_a_few_draws() {
    let mut fleet = fleet(1_000);
    fleet.iter_mut().step_by(2).for_each(|f| f.room = false);
    for strategy in [Strategy::Random, Strategy::LeastRequest, Strategy::PeakEwma] {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut n_draws = 0;
        let outlook = Outlook::default();
        for _ in 0..1_000 {
            let mut draw = || {
                n_draws += 1;
                rng.u64(..)
            };
            pick(strategy, &fleet, |_| true, &outlook, &mut draw, NOW, SLOW_START).unwrap();
        }
        assert!(n_draws < 6_000, "{strategy:?}: {n_draws} draws for 1,000 picks");
    }
}

#[test]
fn the_seed_is_the_median_of_what_was_measured() {
    let mut fleet = fleet(5);
    assert_eq!(seed(&fleet), 30_000_000, "nothing measured");
    for (fake, ms) in fleet.iter().zip([80, 10, 20]) {
        fake.load.observe(NOW, Sample::Answered(ms * 1_000_000));
    }
    assert_eq!(seed(&fleet), 20_000_000);
    fleet[0].eligible = false;
    fleet[2].eligible = false;
    assert_eq!(seed(&fleet), 10_000_000);
    fleet[1].load = Load::new(0);
    fleet[1].load.observe(NOW, Sample::Answered(1));
    assert_eq!(seed(&fleet), 1_000_000, "never so low that a new endpoint looks free");
    let outlook = Outlook::default();
    fleet[1].load.observe(NOW, Sample::Answered(7_000_000));
    outlook.refresh(&fleet, NOW, Duration::ZERO);
    assert_eq!(outlook.seed_ns(), 7_000_000);
}
