//! Tables for single decisions, and a world of several candidates with clocks of their own.

use super::*;
use proptest::prelude::*;

fn record(holder: Option<&str>, renewed: i64) -> Record {
    Record {
        holder: holder.map(str::to_owned),
        renewed: Some(Timestamp::from_second(renewed).unwrap()),
        transitions: 0,
        duration: Some(Duration::from_secs(15)),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn candidate(me: &str) -> Candidate {
    Candidate::new(me.to_owned(), Timing::default())
}

#[test]
fn what_a_candidate_may_do() {
    let start = Instant::now();
    let wait = |left| Decision::Wait(seconds(left));
    for (what, record, respite, elapsed, expected) in [
        ("nobody has ever held it", None, 0, 0, Decision::Create),
        ("it was deleted under a holder", None, 15, 4, wait(11)),
        ("it has been gone for a whole duration", None, 15, 15, Decision::Create),
        ("it was released", Some(record(None, 0)), 15, 0, Decision::Acquire),
        ("it is ours", Some(record(Some("me"), 0)), 15, 0, Decision::Renew),
        ("it is somebody else's", Some(record(Some("other"), 0)), 15, 14, wait(1)),
        ("its holder is silent", Some(record(Some("other"), 0)), 15, 15, Decision::Acquire),
        // The time in the record is long past, or far ahead: neither means anything.
        ("an old renew time", Some(record(Some("other"), -1_000_000)), 15, 0, wait(15)),
        ("a renew time to come", Some(record(Some("other"), 4_000_000_000)), 15, 15, Decision::Acquire),
    ] {
        let view = View { record, observed_at: start, respite: seconds(respite) };
        assert_eq!(decide(&view, "me", start + seconds(elapsed)), expected, "{what}");
    }
}

#[test]
fn only_a_change_of_the_term_starts_the_patience_anew() {
    let start = Instant::now();
    let mut me = candidate("me");
    me.see(Some(record(Some("other"), 1)), start);
    me.see(Some(record(Some("other"), 1)), start + seconds(10));
    assert_eq!(me.next(start + seconds(12)), Ok(Some(Decision::Wait(seconds(3)))));
    me.see(Some(record(Some("other"), 2)), start + seconds(12));
    assert_eq!(me.next(start + seconds(12)), Ok(Some(Decision::Wait(seconds(15)))));
}

#[test]
fn the_holder_is_believed_about_its_duration_within_limits() {
    let start = Instant::now();
    for (asked, respite) in [(None, 15), (Some(seconds(40)), 40), (Some(seconds(1_000_000)), 600)] {
        let mut me = candidate("me");
        me.see(Some(Record { duration: asked, ..record(Some("other"), 1) }), start);
        assert_eq!(me.next(start), Ok(Some(Decision::Wait(seconds(respite)))));
    }
}

#[test]
fn the_deadline_runs_from_the_start_of_the_renewal() {
    let start = Instant::now();
    let mut me = candidate("me");
    me.see(None, start);
    let held = me.held(Timestamp::UNIX_EPOCH);
    me.wrote(held, start, start + seconds(3));
    assert_eq!(me.claim(start + seconds(3)), Some(start + seconds(10)));
    assert_eq!(me.next(start + seconds(3)), Ok(Some(Decision::Renew)));
    assert_eq!(me.claim(start + seconds(10)), None);
    assert_eq!(me.next(start + seconds(10)), Err(Loss::Expired));
}

#[test]
fn a_leader_that_sees_another_holder_stops_at_once() {
    let start = Instant::now();
    let mut me = candidate("me");
    me.see(None, start);
    let held = me.held(Timestamp::UNIX_EPOCH);
    me.wrote(held, start, start);
    me.see(Some(record(Some("other"), 5)), start + seconds(1));
    let taken = Loss::Taken { by: Some("other".to_owned()) };
    assert_eq!(me.next(start + seconds(1)), Err(taken));
}

#[test]
fn a_write_whose_answer_was_lost_is_found_again() {
    let start = Instant::now();
    let mut me = candidate("me");
    me.see(None, start);
    let lost = me.held(Timestamp::UNIX_EPOCH);
    // No call to `wrote`: the answer never came. The next read shows our own name.
    me.see(Some(lost), start + seconds(3));
    assert_eq!(me.claim(start + seconds(3)), None);
    assert_eq!(me.next(start + seconds(3)), Ok(Some(Decision::Renew)));
}

#[test]
fn a_released_lease_is_taken_at_once_and_counted_as_a_transition() {
    let start = Instant::now();
    let (mut old, mut new) = (candidate("old"), candidate("new"));
    old.see(None, start);
    let held = old.held(Timestamp::UNIX_EPOCH);
    old.wrote(held.clone(), start, start);
    new.see(Some(held), start);
    let released = old.resign(Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(old.claim(start), None);
    new.see(Some(released), start);
    assert_eq!(new.next(start), Ok(Some(Decision::Acquire)));
    assert_eq!(new.held(Timestamp::UNIX_EPOCH).transitions, 1);
    // Who does not hold it has nothing to release.
    assert_eq!(new.resign(Timestamp::UNIX_EPOCH), None);
}

/// What one candidate of the world does next, or what the network does for it.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Reads the stored record.
    Read,
    /// Sees an old state again, from a watch that lags: filtered by version, as the elector does.
    ReadLate,
    /// Sends what it decides to write, if anything.
    Send,
    /// The write under way arrives at the store and is judged there.
    Arrive,
    /// The store's answer arrives.
    Answer,
    /// The candidate gives up on the call that is under way; the write may still arrive.
    GiveUp,
    /// The candidate releases the lease.
    Release,
    /// Reads, decides, writes and hears the answer, all in no time: a healthy turn.
    Turn,
}

/// A write on its way: the version it was read at, what to store, when it was begun.
#[derive(Debug, Clone)]
struct Write {
    base: u64,
    record: Record,
    started: Instant,
    accepted: Option<bool>,
    given_up: bool,
}

/// A candidate with clocks of its own.
struct Node {
    candidate: Candidate,
    /// Runs of its monotonic clock against true time, in per mille.
    rate: u64,
    /// How wrong its wall clock is, in seconds.
    skew: i64,
    version: u64,
    writes: Vec<Write>,
}

/// One lease in a store that compares versions, as the API server does.
struct World {
    start: Instant,
    true_millis: u64,
    stored: Option<Record>,
    version: u64,
    older: Option<(Option<Record>, u64)>,
    nodes: Vec<Node>,
}

impl World {
    fn new(clocks: &[(u64, i64)]) -> Self {
        let node = |(index, (rate, skew)): (usize, &(u64, i64))| Node {
            candidate: candidate(&format!("node-{index}")),
            rate: *rate,
            skew: *skew,
            version: 0,
            writes: Vec::new(),
        };
        Self {
            start: Instant::now(),
            true_millis: 0,
            stored: None,
            version: 0,
            older: None,
            nodes: clocks.iter().enumerate().map(node).collect(),
        }
    }

    fn local(&self, node: usize) -> Instant {
        self.start + Duration::from_millis(self.true_millis * self.nodes[node].rate / 1_000)
    }

    fn wall(&self, node: usize) -> Timestamp {
        let millis = i64::try_from(self.true_millis).unwrap() + self.nodes[node].skew * 1_000;
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn store(&mut self, record: Record) {
        self.older = Some((self.stored.replace(record), self.version));
        self.version += 1;
    }

    fn act(&mut self, index: usize, act: Act) {
        let (now, wall) = (self.local(index), self.wall(index));
        let (stored, version, older) = (self.stored.clone(), self.version, self.older.clone());
        let node = &mut self.nodes[index];
        // A candidate does one thing at a time: whoever does something else waits for no answer.
        if matches!(act, Act::Read | Act::ReadLate | Act::Send | Act::Release) {
            node.writes.iter_mut().for_each(|write| write.given_up = true);
        }
        match act {
            Act::Read => {
                node.candidate.see(stored, now);
                node.version = version;
            }
            Act::ReadLate => {
                if let Some((record, version)) = older.filter(|(_, version)| *version > node.version) {
                    node.candidate.see(record, now);
                    node.version = version;
                }
            }
            Act::Send => {
                if matches!(
                    node.candidate.next(now),
                    Ok(Some(Decision::Create | Decision::Acquire | Decision::Renew))
                ) {
                    let record = node.candidate.held(wall);
                    let base = node.version;
                    node.writes.push(Write { base, record, started: now, accepted: None, given_up: false });
                }
            }
            Act::Arrive => {
                if let Some(write) = node.writes.iter_mut().find(|write| write.accepted.is_none()) {
                    let accepted = write.base == version;
                    write.accepted = Some(accepted);
                    let record = write.record.clone();
                    if accepted {
                        self.store(record);
                    }
                }
            }
            Act::Answer => {
                if let Some(at) = node.writes.iter().position(|write| write.accepted.is_some()) {
                    let write = node.writes.remove(at);
                    if write.accepted == Some(true) && !write.given_up {
                        node.candidate.wrote(write.record, write.started, now);
                        node.version = write.base + 1;
                    }
                }
            }
            Act::GiveUp => {
                if let Some(write) = node.writes.last_mut() {
                    write.given_up = true;
                }
            }
            Act::Release => {
                if let Some(record) = node.candidate.resign(wall)
                    && node.version == version
                {
                    self.store(record);
                }
            }
            Act::Turn => {
                for act in [Act::Read, Act::Send, Act::Arrive, Act::Answer] {
                    self.act(index, act);
                }
            }
        }
    }

    fn leaders(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|index| self.nodes[*index].candidate.claim(self.local(*index)).is_some())
            .collect()
    }
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Turn),
        4 => Just(Act::Read),
        1 => Just(Act::ReadLate),
        4 => Just(Act::Send),
        4 => Just(Act::Arrive),
        4 => Just(Act::Answer),
        1 => Just(Act::GiveUp),
        1 => Just(Act::Release),
    ]
}

fn any_clocks() -> impl Strategy<Value = Vec<(u64, i64)>> {
    // Monotonic clocks 10 % fast or slow, far worse than any hardware; wall clocks days apart.
    proptest::collection::vec((900..1_100_u64, -200_000..200_000_i64), 2..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn never_two_leaders(
        clocks in any_clocks(),
        steps in proptest::collection::vec((0..5_usize, prop_oneof![2 => 0..300_u64, 2 => 0..4_000_u64, 1 => 0..20_000_u64], any_act()), 1..200),
    ) {
        let mut world = World::new(&clocks);
        for (node, pause, act) in steps {
            world.true_millis += pause;
            world.act(node % clocks.len(), act);
            let leaders = world.leaders();
            prop_assert!(leaders.len() <= 1, "{leaders:?} at {} ms", world.true_millis);
        }
    }

    #[test]
    fn somebody_leads_soon_after_the_leader_died(clocks in any_clocks(), step in 100..1_000_u64) {
        let mut world = World::new(&clocks);
        let everybody: Vec<_> = (0..clocks.len()).collect();
        let mut dead = None;
        let mut died_at = 0;
        // Everybody alive reads and writes in turn, without faults.
        while world.true_millis < 120_000 {
            world.true_millis += step;
            for node in everybody.iter().copied().filter(|node| Some(*node) != dead) {
                world.act(node, Act::Turn);
            }
            match (world.leaders().as_slice(), dead) {
                ([leader], None) if world.true_millis > 60_000 => {
                    (dead, died_at) = (Some(*leader), world.true_millis);
                }
                ([leader], Some(gone)) if *leader != gone => {
                    // 15 s on the slowest clock, and one turn.
                    prop_assert!(world.true_millis - died_at <= 17_000 + 2 * step);
                    return Ok(());
                }
                _ => {}
            }
        }
        prop_assert!(false, "nobody took over");
    }
}
