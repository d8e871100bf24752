//! The traps of section 6.3, and properties against the plain history.

use proptest::{collection::vec, prelude::*};

use super::*;

const SECOND: Millis = 1000;

fn rules(seconds: i64, select: Select, policies: &[(Unit, i32, i64)]) -> Rules {
    let policy = |(unit, value, seconds): &(Unit, i32, i64)| RatePolicy {
        unit: *unit,
        value: *value,
        period: seconds * SECOND,
    };
    Rules { stabilization: seconds * SECOND, select, policies: policies.iter().map(policy).collect() }
}

fn wide(up: i64, down: i64) -> Behavior {
    let all = [(Unit::Pods, 10_000, 1)];
    Behavior { up: rules(up, Select::Max, &all), down: rules(down, Select::Max, &all) }
}

fn at(current: i32, proposed: i32) -> Proposal {
    Proposal::new((1, 100), current, proposed)
}

fn replicas(behavior: &Behavior, proposal: Proposal, events: &[ScaleEvent], now: Millis) -> i32 {
    normalise(behavior, proposal, &mut Vec::new(), events, now).replicas
}

#[test]
fn one_wrong_proposal_forbids_scaling_down_for_a_whole_window() {
    let (behavior, mut history) = (Behavior::default(), Vec::new());
    let glitch = normalise(&behavior, at(10, 1000), &mut history, &[], 0);
    assert_eq!(glitch.replicas, 20, "rate: 100 % of 10");
    assert_eq!(glitch.limited, Some(LimitedBy::ScaleUpLimit));
    assert_eq!(history, [Recommendation { at: 0, min: 1000, max: 1000 }], "as it came");
    for second in [15, 150, 299] {
        let held = normalise(&behavior, at(20, 2), &mut history, &[], second * SECOND);
        assert_eq!(held.replicas, 20);
        assert_eq!(held.able, Some(LimitedBy::ScaleDownStabilized));
    }
    assert_eq!(normalise(&behavior, at(20, 2), &mut history, &[], 300 * SECOND).replicas, 2);
}

#[test]
fn what_is_not_remembered_holds_nothing_and_what_is_not_paced_goes_at_once() {
    let mut history = Vec::new();
    let unseen = Proposal { remembered: false, ..at(20, 20) };
    assert_eq!(normalise(&Behavior::balanced(), unseen, &mut history, &[], 0).replicas, 20);
    assert_eq!(history, []);
    let tenth = normalise(&Behavior::balanced(), at(20, 4), &mut history, &[], SECOND);
    assert_eq!((tenth.replicas, tenth.limited), (18, Some(LimitedBy::ScaleDownLimit)));
    history.clear();
    let unpaced = Proposal { paced: false, ..at(20, 4) };
    let gone = normalise(&Behavior::balanced(), unpaced, &mut history, &[], SECOND);
    assert_eq!((gone.replicas, gone.limited, gone.able), (4, None, None));
    let below = Proposal { paced: false, ..at(20, 0) };
    assert_eq!(
        normalise(&Behavior::balanced(), below, &mut Vec::new(), &[], SECOND).replicas,
        1,
        "the bound"
    );
    begin(&mut history, &Behavior::balanced(), 9, SECOND);
    let remembered = normalise(&Behavior::balanced(), unpaced, &mut history, &[], 2 * SECOND);
    assert_eq!(remembered.replicas, 9, "windows hold for it");
}

#[test]
fn a_window_upwards_waits_for_the_least() {
    let (behavior, mut history) = (wide(60, 0), Vec::new());
    begin(&mut history, &behavior, 4, 0);
    let held = normalise(&behavior, at(4, 9), &mut history, &[], 15 * SECOND);
    assert_eq!((held.replicas, held.able), (4, Some(LimitedBy::ScaleUpStabilized)));
    assert_eq!(normalise(&behavior, at(4, 7), &mut history, &[], 59 * SECOND).replicas, 4);
    assert_eq!(normalise(&behavior, at(4, 8), &mut history, &[], 60 * SECOND).replicas, 7);
}

#[test]
fn percentages_round_as_the_controller_rounds() {
    let percent = |value| Behavior {
        up: rules(0, Select::Max, &[(Unit::Percent, value, 15)]),
        down: rules(0, Select::Max, &[(Unit::Percent, value, 15)]),
    };
    assert_eq!(replicas(&percent(10), at(1, 50), &[], 0), 2, "up: rounded up");
    let large = Proposal { max: 1000, ..at(100, 500) };
    assert_eq!(replicas(&percent(10), large, &[], 0), 111, "100 · 1.1 is a little more than 110 in binary");
    assert_eq!(replicas(&percent(10), at(15, 1), &[], 0), 13, "down: 13.5 is cut off");
    let to_zero = Proposal { min: 0, ..at(10, 0) };
    assert_eq!(
        replicas(&percent(90), to_zero, &[], 0),
        0,
        "10 · (1 − 0.9) is a little less than 1 in binary"
    );
}

#[test]
fn policies_count_from_the_start_of_their_period() {
    let behavior = Behavior {
        up: rules(0, Select::Max, &[(Unit::Pods, 4, 60)]),
        down: rules(0, Select::Max, &[(Unit::Pods, 4, 60)]),
    };
    let events = [ScaleEvent { at: 0, change: 3 }];
    assert_eq!(replicas(&behavior, at(13, 50), &events, 59 * SECOND), 14, "10 + 4");
    assert_eq!(replicas(&behavior, at(13, 50), &events, 60 * SECOND), 17, "one period ago counts no more");
    assert_eq!(replicas(&behavior, at(13, 1), &events, 59 * SECOND), 6, "down: 10 − 4");
    let events = [ScaleEvent { at: 0, change: -3 }];
    assert_eq!(replicas(&behavior, at(7, 50), &events, SECOND), 14, "up after down: 10 + 4");
}

#[test]
fn a_limit_on_the_wrong_side_becomes_the_scale() {
    let behavior = Behavior {
        up: rules(0, Select::Max, &[(Unit::Pods, 4, 60)]),
        down: rules(0, Select::Max, &[(Unit::Pods, 4, 60)]),
    };
    // Somebody added 30 by hand: the limit is 4 + 4 = 8, and 34 stays 34.
    let added = [ScaleEvent { at: 0, change: 30 }];
    let held = normalise(&behavior, at(34, 50), &mut Vec::new(), &added, SECOND);
    assert_eq!((held.replicas, held.limited), (34, Some(LimitedBy::ScaleUpLimit)));
    let taken = [ScaleEvent { at: 0, change: -30 }];
    let held = normalise(&behavior, at(4, 1), &mut Vec::new(), &taken, SECOND);
    assert_eq!((held.replicas, held.limited), (4, Some(LimitedBy::ScaleDownLimit)));
}

#[test]
fn the_greatest_and_the_smallest_change() {
    let both = [(Unit::Pods, 4, 15), (Unit::Percent, 100, 15)];
    let with = |select| Behavior { up: rules(0, select, &both), down: rules(0, select, &both) };
    assert_eq!(replicas(&with(Select::Max), at(10, 90), &[], 0), 20);
    assert_eq!(replicas(&with(Select::Min), at(10, 90), &[], 0), 14);
    assert_eq!(replicas(&with(Select::Max), at(10, 1), &[], 0), 1);
    assert_eq!(replicas(&with(Select::Min), at(10, 1), &[], 0), 6);
    for proposed in [1, 90] {
        let held = normalise(&with(Select::Disabled), at(10, proposed), &mut Vec::new(), &[], 0);
        assert_eq!(held.replicas, 10);
        assert!(held.limited.is_some());
    }
}

#[test]
fn bounds_come_last_and_are_named() {
    let reason = |proposal| normalise(&wide(0, 0), proposal, &mut Vec::new(), &[], 0).limited;
    assert_eq!(reason(at(10, 200)), Some(LimitedBy::TooManyReplicas));
    assert_eq!(reason(at(10, 0)), Some(LimitedBy::TooFewReplicas));
    assert_eq!(reason(at(10, 100)), None);
    assert_eq!(jump(2, 10, 1), Some(2));
    assert_eq!(jump(2, 10, 11), Some(10));
    assert_eq!(jump(2, 10, 5), None);
}

#[test]
fn equal_recommendations_take_one_entry() {
    let (behavior, mut history) = (Behavior::default(), Vec::new());
    for second in 0..300 {
        normalise(&behavior, at(5, 5), &mut history, &[], second * SECOND);
    }
    assert_eq!(history.len(), 1);
}

#[test]
fn many_changes_stay_bounded_and_none_is_lost() {
    let mut events = Vec::new();
    for i in 0..500 {
        let (from, to) = if i % 2 == 0 { (10, 13) } else { (13, 10) };
        record_scale(&mut events, from, to, i * 100);
        assert!(events.len() <= MAX_RING);
    }
    let sum = |up: bool| events.iter().filter(|e| (e.change > 0) == up).map(|e| e.change).sum::<i32>();
    assert_eq!((sum(true), sum(false)), (750, -750), "all within the longest period");
    record_scale(&mut events, 10, 10, LONGEST_PERIOD + 50_000);
    assert!(events.is_empty(), "nothing is left after the longest period");
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let select = prop_oneof![Just(Select::Max), Just(Select::Min), Just(Select::Disabled)];
    let unit = prop_oneof![Just(Unit::Pods), Just(Unit::Percent)];
    let policy = (unit, 1..200_i32, 1..120_i64);
    (0..400_i64, select, vec(policy, 1..3)).prop_map(|(window, select, p)| rules(window, select, &p))
}

proptest! {
    #[test]
    fn always_within_bounds_and_never_past_the_proposal(
        up in any_rules(), down in any_rules(), current in 1..100, proposed in -5..2000, now in 0..10_000_i64,
    ) {
        let held = normalise(&Behavior { up, down }, at(current, proposed), &mut Vec::new(), &[], now);
        prop_assert!((1..=100).contains(&held.replicas));
        prop_assert!(held.replicas >= current.min(proposed) && held.replicas <= current.max(proposed));
    }

    /// The compressed history says what the plain one says, as long as 64 entries suffice.
    #[test]
    fn short_histories_are_exact(
        up in 0..400_i64, down in 0..400_i64, steps in vec((1..40_i64, 1..40_i32), 1..300),
    ) {
        let behavior = wide(up, down);
        let (mut history, mut plain, mut now) = (Vec::new(), Vec::new(), 0);
        for (gap, proposed) in steps {
            now += gap * SECOND;
            prop_assert_eq!(
                stabilise(&behavior, 20, proposed, &history, now),
                stabilise(&behavior, 20, proposed, &plain, now)
            );
            record(&mut history, &behavior, proposed, now);
            plain.push(Recommendation { at: now, min: proposed, max: proposed });
        }
    }

    /// With more than 64 distinct values a window may last longer, never shorter.
    #[test]
    fn long_histories_never_shorten_a_window(steps in vec((1..20_i64, 1..1000_i32), 200..400)) {
        let behavior = wide(600, 600);
        let (mut history, mut plain, mut now) = (Vec::new(), Vec::new(), 0);
        // Descending within the noise: almost every value is an extreme of what follows it.
        for (i, (gap, noise)) in steps.into_iter().enumerate() {
            now += gap * SECOND / 4;
            let proposed = 100_000 - 1000 * i as i32 + noise;
            record(&mut history, &behavior, proposed, now);
            plain.push(Recommendation { at: now, min: proposed, max: proposed });
            prop_assert!(history.len() <= MAX_RING);
            let held = |h: &[Recommendation]| stabilise(&behavior, 500_000, -500_000, h, now);
            prop_assert!(held(&history) >= held(&plain));
            let held = |h: &[Recommendation]| stabilise(&behavior, -500_000, 500_000, h, now);
            prop_assert!(held(&history) <= held(&plain));
        }
    }
}
