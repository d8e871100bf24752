//! `behavior` of `autoscaling/v2`: stabilization windows and rate policies, as the HPA controller applies them
//! (autoscaling.md section 6.3), for scales that we write ourselves. Pure; the caller keeps the history.

use super::{
    decision::LimitedBy,
    state::{MAX_RING, Recommendation, ScaleEvent},
    time::Millis,
};

/// Both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// Upwards.
    pub up: Rules,
    /// Downwards.
    pub down: Rules,
}

/// One direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// The safest recommendation of so long counts; 0..=3,600,000.
    pub stabilization: Millis,
    /// Which of the policies counts.
    pub select: Select,
    /// Policies; at least one, unless disabled.
    pub policies: Vec<RatePolicy>,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the greatest change.
    Max,
    /// The one that allows the smallest change.
    Min,
    /// None: no change in this direction.
    Disabled,
}

/// At most `value` in `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatePolicy {
    /// What `value` counts.
    pub unit: Unit,
    /// How much, greater than 0.
    pub value: i32,
    /// In how long, 1..=1,800,000 ms.
    pub period: Millis,
}

/// What a policy's value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Pods.
    Pods,
    /// Percent of the scale at the start of the period.
    Percent,
}

impl Default for Behavior {
    /// Kubernetes' own (autoscaling.md section 6.1).
    fn default() -> Self {
        let policy = |unit, value| RatePolicy { unit, value, period: 15_000 };
        Self {
            up: Rules {
                stabilization: 0,
                select: Select::Max,
                policies: vec![policy(Unit::Pods, 4), policy(Unit::Percent, 100)],
            },
            down: Rules {
                stabilization: 300_000,
                select: Select::Max,
                policies: vec![policy(Unit::Percent, 100)],
            },
        }
    }
}

/// Pods of a policy that limits nothing: no bound of a fleet is greater.
pub const ALL: i32 = 1000;

/// The window downwards of an otherwise open HPA that takes steps of a tenth for noise. It then proposes
/// `status.replicas`, which may lack a pod for a moment.
pub const COARSE_WINDOW: Millis = 60_000;

impl Rules {
    /// All that is asked for, at once.
    pub fn at_once() -> Self {
        Self {
            stabilization: 0,
            select: Select::Max,
            policies: vec![RatePolicy { unit: Unit::Pods, value: ALL, period: 15_000 }],
        }
    }

    /// Whether an HPA with these lets everything through: its window is so short, at most, that one which takes small steps
    /// for noise needs it.
    pub fn is_open(&self) -> bool {
        let all = |policy: &RatePolicy| policy.unit == Unit::Pods && policy.value >= ALL;
        self.stabilization <= COARSE_WINDOW && self.select == Select::Max && self.policies.iter().any(all)
    }
}

impl Behavior {
    /// The preset `Balanced`. Up at once: what is asked for does not depend on how many there are, so a slower pace would
    /// only be later. Down late and little by little, as each pod that goes makes its sessions move and load tends to come
    /// back: after eight minutes, a tenth of the pods a minute.
    pub fn balanced() -> Self {
        Self {
            up: Rules::at_once(),
            down: Rules {
                stabilization: 480_000,
                select: Select::Max,
                policies: vec![RatePolicy { unit: Unit::Percent, value: 10, period: 60_000 }],
            },
        }
    }
}

/// Where a scale stands, and what is proposed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Fewest replicas.
    pub min: i32,
    /// Most replicas.
    pub max: i32,
    /// N.
    pub current: i32,
    /// What is proposed, not yet held within the bounds.
    pub proposed: i32,
    /// Windows are to remember it.
    pub remembered: bool,
    /// Rate policies hold it on its way down.
    pub paced: bool,
}

impl Proposal {
    /// As the HPA treats any.
    pub fn new((min, max): (i32, i32), current: i32, proposed: i32) -> Self {
        Self { min, max, current, proposed, remembered: true, paced: true }
    }
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normalised {
    /// What to set.
    pub replicas: i32,
    /// `AbleToScale`: a stabilization window held it; `None` is `ReadyForNewScale`.
    pub able: Option<LimitedBy>,
    /// `ScalingLimited`: a policy or a bound held it; `None` is `DesiredWithinRange`.
    pub limited: Option<LimitedBy>,
}

/// The longest period that a policy may have.
const LONGEST_PERIOD: Millis = 1_800_000;

/// A scale outside its bounds goes to the bound at once: without windows and policies, and nothing is recorded but the
/// change itself (autoscaling.md section 6.1).
pub fn jump(min: i32, max: i32, current: i32) -> Option<i32> {
    let bound = current.min(max).max(min);
    (bound != current).then_some(bound)
}

/// Without any history the current scale is what was recommended last. To be called before the first [`normalise`] of a
/// process even where a history was restored: at rest nothing is written, so what was restored may be long ago, and the
/// scale that stands was recommended until just now.
pub fn begin(history: &mut Vec<Recommendation>, behavior: &Behavior, current: i32, now: Millis) {
    record(history, behavior, current, now);
}

/// Stabilizes a proposal, holds it to the policies and then to the bounds, and records it as it came: neither stabilized
/// nor bounded, so that one wrong proposal of 1000 forbids scaling down for a whole window, as with the HPA.
///
/// The scale must be within its bounds; see [`jump`].
pub fn normalise(
    behavior: &Behavior,
    proposal: Proposal,
    history: &mut Vec<Recommendation>,
    events: &[ScaleEvent],
    now: Millis,
) -> Normalised {
    let Proposal { current, proposed, remembered, .. } = proposal;
    let stable = stabilise(behavior, current, proposed, history, now);
    if remembered {
        record(history, behavior, proposed, now);
    }
    let able = (stable != proposed).then_some(if proposed >= current {
        LimitedBy::ScaleUpStabilized
    } else {
        LimitedBy::ScaleDownStabilized
    });
    let (replicas, limited) = limit(behavior, proposal, stable, events, now);
    Normalised { replicas, able, limited }
}

/// No higher than the least of the window upwards, no lower than the greatest of the window downwards. Moments that lie
/// exactly one window back count no more.
fn stabilise(
    behavior: &Behavior,
    current: i32,
    proposed: i32,
    history: &[Recommendation],
    now: Millis,
) -> i32 {
    let within = |rules: &Rules| {
        let from = now - rules.stabilization;
        history.iter().filter(move |r| r.at > from)
    };
    let up = within(&behavior.up).map(|r| r.min).fold(proposed, i32::min);
    let down = within(&behavior.down).map(|r| r.max).fold(proposed, i32::max);
    // `down` is never below `up`: both contain the proposal.
    current.max(up).min(down)
}

/// Holds a stabilized recommendation to the policies and bounds.
fn limit(
    behavior: &Behavior,
    proposal: Proposal,
    wanted: i32,
    events: &[ScaleEvent],
    now: Millis,
) -> (i32, Option<LimitedBy>) {
    let Proposal { min, max, current, paced, .. } = proposal;
    if wanted > current {
        // A limit below the scale, after much was added, forbids more; it does not take away.
        let policy = up_limit(&behavior.up, current, events, now).max(current);
        let (most, why) =
            if max > policy { (policy, LimitedBy::ScaleUpLimit) } else { (max, LimitedBy::TooManyReplicas) };
        return if wanted > most { (most, Some(why)) } else { (wanted, None) };
    }
    if wanted < current {
        let policy =
            if paced { down_limit(&behavior.down, current, events, now).min(current) } else { wanted };
        let (least, why) =
            if min < policy { (policy, LimitedBy::ScaleDownLimit) } else { (min, LimitedBy::TooFewReplicas) };
        return if wanted < least { (least, Some(why)) } else { (wanted, None) };
    }
    (wanted, None)
}

/// The most that the policies allow; a percentage rounds up, or small scales would never grow.
fn up_limit(rules: &Rules, current: i32, events: &[ScaleEvent], now: Millis) -> i32 {
    let limits = rules.policies.iter().map(|policy| {
        let start = start(policy.period, current, events, now);
        match policy.unit {
            Unit::Pods => start.saturating_add(policy.value),
            Unit::Percent => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
        }
    });
    match rules.select {
        Select::Disabled => current,
        Select::Max => limits.max().unwrap_or(current),
        Select::Min => limits.min().unwrap_or(current),
    }
}

/// The least that the policies allow; a percentage is cut off.
fn down_limit(rules: &Rules, current: i32, events: &[ScaleEvent], now: Millis) -> i32 {
    let limits = rules.policies.iter().map(|policy| {
        let start = start(policy.period, current, events, now);
        match policy.unit {
            Unit::Pods => start.saturating_sub(policy.value),
            Unit::Percent => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
        }
    });
    match rules.select {
        Select::Disabled => current,
        Select::Max => limits.min().unwrap_or(current),
        Select::Min => limits.max().unwrap_or(current),
    }
}

/// The scale at the start of a policy's period.
fn start(period: Millis, current: i32, events: &[ScaleEvent], now: Millis) -> i32 {
    let changed: i64 = events.iter().filter(|e| e.at > now - period).map(|e| i64::from(e.change)).sum();
    (i64::from(current) - changed).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// Notes a recommendation. What later ones outdo on both sides is dropped, which no window can tell; only if more than
/// [`MAX_RING`] are left, two neighbours become one stretch, and its values count until its end: a window may become
/// longer by that, never shorter.
pub fn record(history: &mut Vec<Recommendation>, behavior: &Behavior, proposed: i32, now: Millis) {
    let longest = behavior.up.stabilization.max(behavior.down.stabilization);
    history.retain(|r| r.at > now - longest);
    history.push(Recommendation { at: now, min: proposed, max: proposed });
    let (mut least, mut most) = (i32::MAX, i32::MIN);
    for i in (0..history.len()).rev() {
        let Recommendation { min, max, .. } = history[i];
        if min >= least && max <= most {
            history.remove(i);
        } else {
            (least, most) = (least.min(min), most.max(max));
        }
    }
    while history.len() > MAX_RING {
        let gap = |i: &usize| history[i + 1].at - history[*i].at;
        let Some(first) = (0..history.len() - 1).min_by_key(gap) else { return };
        let earlier = history.remove(first);
        let merged = &mut history[first];
        merged.min = merged.min.min(earlier.min);
        merged.max = merged.max.max(earlier.max);
    }
}

/// Notes a change of the scale, whoever made it. Beyond [`MAX_RING`] two changes of the same direction become one at the
/// time of the later: what was added or taken counts longer against a policy of its direction, never shorter.
pub fn record_scale(events: &mut Vec<ScaleEvent>, from: i32, to: i32, now: Millis) {
    events.retain(|e| e.at > now - LONGEST_PERIOD);
    if from != to {
        events.push(ScaleEvent { at: now, change: to.saturating_sub(from) });
    }
    while events.len() > MAX_RING {
        let next = |i: usize| {
            let alike = |e: &ScaleEvent| e.change.signum() == events[i].change.signum();
            events[i + 1..].iter().position(alike).map(|n| i + 1 + n)
        };
        let pairs = (0..events.len()).filter_map(|i| next(i).map(|j| (i, j)));
        let Some((i, j)) = pairs.min_by_key(|(i, j)| events[*j].at - events[*i].at) else { return };
        events[j].change = events[j].change.saturating_add(events[i].change);
        events.remove(i);
    }
}

#[cfg(test)]
mod tests;
