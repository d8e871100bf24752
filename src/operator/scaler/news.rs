//! When a decision is worth a pass, and so perhaps a write of the status. Pure.
//!
//! Who waits for it decides: a change of N is told at once, the words of a decision too unless they change all the time,
//! a score that moves alone every 15 s at most. At rest nothing is told.

use super::entry::Made;
use crate::{
    autoscale::{
        decision::{Decision, LimitedBy, Reason},
        head_start::HeadStart,
        time::Millis,
    },
    operator::scaling::EffectiveActuator,
};

/// A score that moved by less is no news.
const UTILIZATION_STEP: f64 = 0.05;
/// Between two that tell of the score alone, in ms.
const UTILIZATION_PERIOD: Millis = 15_000;
/// Between two that tell of words, in ms. The first one is told at once.
const WORDS_PERIOD: Millis = 5_000;
/// After the start of the process, in ms: so long a fleet whose gateways have not said enough yet keeps the status that
/// an earlier process left. A restart is no news.
const GRACE: Millis = 90_000;

/// What of a decision a person reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// N.
    pub replicas: i32,
    /// What the Deployment gets before `spec.replicas` says so.
    pub ahead: Option<HeadStart>,
    /// Who acts.
    pub effective: EffectiveActuator,
    /// What is recommended, and what would be written.
    pub wanted: (Option<i32>, i32),
    /// Why.
    pub words: (Reason, Option<LimitedBy>),
    /// It rests after a change.
    pub cooling: bool,
    /// The HPA does not follow.
    pub unfollowed: bool,
    /// The score.
    pub utilization: Option<f64>,
}

impl Told {
    /// Of a decision.
    pub fn of(made: &Made, cooling: bool, unfollowed: bool) -> Self {
        let Made { decision, replicas, ahead, effective, .. } = made;
        Self {
            replicas: *replicas,
            ahead: *ahead,
            effective: *effective,
            wanted: (decision.recommended, decision.desired),
            words: (decision.reason, decision.limited_by),
            cooling,
            unfollowed,
            utilization: decision.utilization,
        }
    }

    fn said(&self) -> impl PartialEq {
        (self.wanted, self.words, self.cooling, self.unfollowed)
    }

    fn differs(&self, other: &Self) -> Difference {
        let moved = match (self.utilization, other.utilization) {
            (Some(a), Some(b)) => (a - b).abs() >= UTILIZATION_STEP,
            (a, b) => a.is_some() != b.is_some(),
        };
        if (self.replicas, self.ahead, self.effective) != (other.replicas, other.ahead, other.effective) {
            Difference::Scale
        } else if self.said() != other.said() {
            Difference::Words
        } else if moved {
            Difference::Utilization
        } else {
            Difference::None
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Difference {
    None,
    Utilization,
    Words,
    Scale,
}

/// What was told of one fleet.
#[derive(Clone, Debug, Default)]
pub struct News {
    told: Option<Told>,
    at: Option<Millis>,
}

impl News {
    /// Whether a pass is to be asked for now. `leads`: only the leader tells; becoming it brings a pass by itself.
    pub fn is_due(&self, told: &Told, leads: bool, now: Millis) -> bool {
        if !leads {
            return false;
        }
        let since = self.at.map_or(Millis::MAX, |at| now.saturating_sub(at));
        match self.told.as_ref().map_or(Difference::Words, |before| told.differs(before)) {
            Difference::None => false,
            Difference::Utilization => since >= UTILIZATION_PERIOD,
            Difference::Words => since >= WORDS_PERIOD,
            Difference::Scale => true,
        }
    }

    /// Remembers what was told, or what a standby need not tell.
    pub fn told(&mut self, told: Told, now: Option<Millis>) {
        self.told = Some(told);
        self.at = now.or(self.at);
    }
}

/// Whether a decision says no more than that this process has not seen enough yet, although an earlier one had:
/// `known`, when this process saw the fleet first, says so.
pub fn is_premature(decision: &Decision, known: bool, since: Millis, now: Millis) -> bool {
    let blank = matches!(decision.reason, Reason::MetricsUnavailable | Reason::WarmingUp);
    known && blank && now.saturating_sub(since) < GRACE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        Told {
            replicas: 3,
            ahead: None,
            effective: EffectiveActuator::Direct,
            wanted: (Some(3), 3),
            words: (Reason::Steady, None),
            cooling: false,
            unfollowed: false,
            utilization: Some(0.9),
        }
    }

    /// When a change is told that comes 1, 6 and 16 s after the last one.
    fn due(change: impl Fn(&mut Told)) -> [bool; 3] {
        let mut news = News::default();
        news.told(told(), Some(0));
        let mut next = told();
        change(&mut next);
        [1_000, 6_000, 16_000].map(|now| news.is_due(&next, true, now))
    }

    #[test]
    fn what_somebody_waits_for_is_told_first() {
        assert_eq!(due(|_| {}), [false; 3]);
        assert_eq!(due(|t| t.utilization = Some(0.94)), [false; 3]);
        assert_eq!(due(|t| t.utilization = Some(0.96)), [false, false, true]);
        assert_eq!(due(|t| t.utilization = None), [false, false, true]);
        assert_eq!(due(|t| t.words.1 = Some(LimitedBy::Cooldown)), [false, true, true]);
        assert_eq!(due(|t| t.wanted = (Some(4), 4)), [false, true, true]);
        assert_eq!(due(|t| t.cooling = true), [false, true, true]);
        assert_eq!(due(|t| t.unfollowed = true), [false, true, true]);
        assert_eq!(due(|t| t.replicas = 4), [true; 3]);
        assert_eq!(due(|t| t.ahead = Some(HeadStart { over: 3, replicas: 4 })), [true; 3]);
        assert_eq!(due(|t| t.effective = EffectiveActuator::Hpa), [true; 3]);
    }

    #[test]
    fn the_first_is_told_at_once_and_by_the_leader_alone() {
        let mut news = News::default();
        assert!(!news.is_due(&told(), false, 0));
        assert!(news.is_due(&told(), true, 0));
        news.told(told(), None);
        assert!(!news.is_due(&told(), true, 0));
        let changed = Told { wanted: (Some(4), 4), ..told() };
        assert!(news.is_due(&changed, true, 0), "after rest");
    }

    #[test]
    fn a_restart_is_no_news() {
        let decision = |reason| Decision::bare(None, 3, reason);
        let blind = decision(Reason::MetricsUnavailable);
        assert!(is_premature(&blind, true, 0, 89_999));
        assert!(!is_premature(&blind, true, 0, 90_000), "nobody reports");
        assert!(!is_premature(&blind, false, 0, 0), "a new fleet");
        assert!(!is_premature(&decision(Reason::ScaleUp), true, 0, 0));
    }
}
