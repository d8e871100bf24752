//! What the scaler remembers of one fleet. Pure: values and `now` in, values out.

use std::{collections::BTreeMap, sync::Arc};

use kube::{Resource, ResourceExt};

use super::{
    news::{News, Told, is_premature},
    pause,
};
use crate::{
    api::conditions::{reasons, types},
    autoscale::{
        decision::Decision,
        head_start::HeadStart,
        policy::Policy,
        snapshot::Pause,
        state::{Persisted, State},
        time::{Millis, Now},
    },
    operator::{
        gateway::Install,
        scaling::{EffectiveActuator, Scaled},
        state::WatchedFleet,
        status,
        validate::{Scaling, validate},
    },
};

/// First and longest rest, in ms, after a scale that could not be written.
const RETRY: Millis = 1_000;
const RETRY_MOST: Millis = 60_000;

/// For so long, in ms, a decision may wait for whoever reads it: an HPA looks every 15 s.
const LED: Millis = 30_000;

/// From one look of an HPA to the next, in ms.
const LOOK: Millis = 15_000;
/// After so many looks, and as long as its policies make it wait, an HPA does not follow any more.
const LOOKS: Millis = 4;

/// One fleet.
pub struct Entry {
    /// As it was seen last.
    pub object: Arc<WatchedFleet>,
    /// Its scaling; `None` where the specification cannot be used. Something that cannot be used holds.
    pub scaling: Option<Scaling>,
    /// What a person stopped.
    pub pause: Pause,
    /// What decisions remember.
    pub state: State,
    /// The newest decision.
    pub made: Option<Made>,
    /// The last one that asked for another N.
    asked: Option<Made>,
    /// The one that led to the present N, where it was one of ours.
    cause: Option<Decision>,
    /// What this process wants of the Deployment, since it leads.
    ahead: Option<HeadStart>,
    /// Since when `spec.replicas` has had this value while something is ahead of it.
    behind: Option<(i32, Millis)>,
    /// Our own newest write of the scale, until the watch tells of it.
    pub wrote: Option<Wrote>,
    /// A write is under way.
    pub writing: bool,
    /// Writes that failed in a row, and when the next may be.
    pub failures: (u32, Millis),
    /// What was told.
    pub news: News,
    /// Decisions by reason, for the metrics.
    pub counts: BTreeMap<&'static str, u64>,
    /// Why pods cannot be made, by the version of the Deployment that said it.
    pub failure: Option<(u64, Option<(String, i64)>)>,
    /// When this process saw the fleet first.
    since: Millis,
    /// An earlier process has left a status.
    known: bool,
}

/// A decision, and what it was made on.
#[derive(Clone, Debug)]
pub struct Made {
    /// The decision.
    pub decision: Decision,
    /// Who acts.
    pub effective: EffectiveActuator,
    /// N.
    pub replicas: i32,
    /// What the Deployment gets before `spec.replicas` says so.
    pub ahead: Option<HeadStart>,
    /// What an HPA reads.
    pub exported: Option<i32>,
    /// When.
    pub at: Now,
    /// Age of the samples behind it, in ms; `None`: there are none.
    pub age: Option<Millis>,
}

impl Made {
    /// What it asks for: of whoever reads it, or of ourselves.
    fn wants(&self) -> i32 {
        let asks = self.decision.recommended.filter(|n| *n != self.replicas);
        asks.unwrap_or(self.decision.desired)
    }

    /// Whether it led from N = `from` to what is `now`: it asked for a step in that direction, not long ago.
    fn led(&self, from: i32, now: &Self) -> bool {
        let recent = now.at.mono.saturating_sub(self.at.mono) <= LED;
        recent && self.replicas == from && (self.wants() > from) == (now.replicas > from)
    }
}

/// A write of the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// Version of the fleet that it made.
    pub version: u64,
    /// What was written.
    pub replicas: i32,
}

impl Entry {
    /// A fleet that is seen for the first time.
    pub fn new(object: Arc<WatchedFleet>, gateway: Option<&Install>, now: Now) -> Self {
        let persisted = persisted(&object);
        let state = persisted.as_ref().map(|p| State::restore(p, now)).unwrap_or_default();
        let mut entry = Self {
            scaling: scaling(&object, gateway),
            pause: pause::of(object.annotations()),
            state,
            made: None,
            asked: None,
            cause: None,
            ahead: None,
            behind: None,
            wrote: None,
            writing: false,
            failures: (0, 0),
            news: News::default(),
            counts: BTreeMap::new(),
            failure: None,
            since: now.mono,
            known: persisted.is_some(),
            object,
        };
        let long_ago = now.mono.saturating_sub(entry.patience() + 1);
        entry.behind = unfollowed(&entry.object).map(|spec| (spec, long_ago));
        entry
    }

    /// Takes in what the watch has now. Another object of the same name starts anew.
    pub fn refresh(&mut self, object: &Arc<WatchedFleet>, gateway: Option<&Install>, now: Now) {
        if Arc::ptr_eq(&self.object, object) {
            return;
        }
        let (before, meta) = (self.object.meta(), object.meta());
        if before.uid != meta.uid {
            *self = Self::new(Arc::clone(object), gateway, now);
            return;
        }
        if before.generation != meta.generation {
            self.scaling = scaling(object, gateway);
        }
        self.pause = pause::of(object.annotations());
        if let Some(persisted) = persisted(object) {
            adopt(&mut self.state, &persisted, now);
        }
        let seen = version(object);
        self.wrote = self.wrote.filter(|wrote| wrote.version > seen);
        self.object = Arc::clone(object);
    }

    /// The policy, where the fleet is scaled by MCP signals.
    pub fn policy(&self) -> Option<&Policy> {
        match &self.scaling {
            Some(Scaling::Mcp(mcp)) => Some(&mcp.policy),
            _ => None,
        }
    }

    /// N, and the version of the fleet that has it; `None` before the first value is written.
    pub fn replicas(&self) -> Option<(i32, u64)> {
        if let Some(Wrote { version, replicas }) = self.wrote {
            return Some((replicas, version));
        }
        let fleet = self.object.0.as_ref().ok()?;
        Some((fleet.spec.replicas?, version(&self.object)))
    }

    /// What is ahead of `spec.replicas`. Its leader knows; anybody else, and a leader who has only just begun, follows what
    /// stands in the status.
    pub fn ahead(&self) -> Option<HeadStart> {
        self.ahead.or_else(|| status::head_start(self.object.0.as_ref().ok()?.status.as_ref()?))
    }

    /// Remembers what is ahead of `spec`, if this process `leads`, and for how long the HPA has been able to follow it:
    /// `read`, there is a number, and it is reached.
    pub fn goes_ahead(&mut self, ahead: HeadStart, spec: i32, leads: bool, (read, now): (bool, Millis)) {
        self.ahead = leads.then_some(ahead);
        let stands = HeadStart::standing(Some(ahead), spec).is_some();
        let counts = read || self.is_unfollowed(now);
        let before = self.behind.filter(|(before, _)| counts && *before == spec);
        self.behind = stands.then_some((spec, before.map_or(now, |(_, since)| since)));
    }

    /// The fleet is not scaled by us any more.
    pub fn leaves_ahead(&mut self) {
        (self.ahead, self.behind) = (None, None);
    }

    /// Whether the HPA has left several looks unused to follow what is ahead.
    pub fn is_unfollowed(&self, now: Millis) -> bool {
        self.behind.is_some_and(|(_, since)| now.saturating_sub(since) > self.patience())
    }

    /// For how long, in ms, an HPA that follows may leave `spec.replicas` as it is.
    fn patience(&self) -> Millis {
        let rules = self.policy().map(|policy| &policy.behavior.up);
        let longest = rules.and_then(|up| up.policies.iter().map(|p| p.period).max()).unwrap_or_default();
        LOOKS * LOOK + longest.saturating_sub(LOOK).max(0)
    }

    /// Remembers a decision; whether a pass has to be asked for.
    pub fn decided(&mut self, made: Made, state: State, leads: bool) -> bool {
        self.state = state;
        if let Some(from) = self.made.as_ref().map(|before| before.replicas).filter(|n| *n != made.replicas) {
            let asked = self.asked.take().filter(|asked| asked.led(from, &made));
            self.cause = asked.map(|asked| asked.decision);
        }
        if made.wants() != made.replicas {
            self.asked = Some(made.clone());
        }
        *self.counts.entry(made.decision.reason.as_str()).or_default() += 1;
        let cooling = self.cooldown_until(made.at.mono).is_some();
        let told = Told::of(&made, cooling, self.is_unfollowed(made.at.mono));
        let now = made.at.mono;
        let quiet = is_premature(&made.decision, self.known, self.since, now);
        let due = !quiet && self.news.is_due(&told, leads, now);
        if due || (!leads && !quiet) {
            self.news.told(told, due.then_some(now));
        }
        self.made = Some(made);
        due
    }

    /// The end of the rest after the last change, while it lasts.
    fn cooldown_until(&self, now: Millis) -> Option<Millis> {
        let cooldown = self.policy()?.cooldown;
        let up = self.state.last_up.map(|at| at.saturating_add(cooldown.after_up));
        let down = self.state.last_down.map(|at| at.saturating_add(cooldown.after_down));
        up.max(down).filter(|until| *until > now)
    }

    /// What passes and the status need; `None` where there is nothing better to say than what stands there.
    pub fn scaled(&self) -> Option<Scaled> {
        let made = self.made.as_ref()?;
        self.policy()?;
        if is_premature(&made.decision, self.known, self.since, made.at.mono) {
            return None;
        }
        Some(Scaled {
            decision: made.decision.clone(),
            cause: self.cause.clone(),
            persisted: self.state.persist(made.at),
            effective: made.effective,
            replicas: made.replicas,
            ahead: made.ahead,
            unfollowed: self.is_unfollowed(made.at.mono),
            at: made.at.wall,
            cooldown_until: self.cooldown_until(made.at.mono).map(|until| made.at.to_wall(until)),
        })
    }

    /// Whether a write may begin.
    pub fn may_write(&self, now: Millis) -> bool {
        !self.writing && now >= self.failures.1
    }

    /// A write took effect. The watch may have told of it, and of later ones, already.
    pub fn wrote(&mut self, wrote: Wrote) {
        self.failures = (0, 0);
        if wrote.version > version(&self.object) {
            self.wrote = Some(wrote);
        }
    }

    /// A write failed; how long the next one waits, in ms.
    pub fn failed(&mut self, now: Millis) -> Millis {
        let (failures, _) = self.failures;
        let wait = RETRY.saturating_mul(1 << failures.min(10)).min(RETRY_MOST);
        self.failures = (failures.saturating_add(1), now.saturating_add(wait));
        wait
    }
}

/// A specification that cannot be used has no scaling; the pass says why.
fn scaling(object: &WatchedFleet, gateway: Option<&Install>) -> Option<Scaling> {
    let fleet = object.0.as_ref().ok()?;
    validate(fleet).ok().map(|valid| Install::bind(gateway, valid).scaling)
}

fn persisted(object: &WatchedFleet) -> Option<Persisted> {
    let fleet = object.0.as_ref().ok()?;
    fleet.status.as_ref()?.autoscaling.as_ref().map(status::persisted)
}

/// `spec.replicas` that an HPA did not follow from, as an earlier process said.
fn unfollowed(object: &WatchedFleet) -> Option<i32> {
    let status = object.0.as_ref().ok()?.status.as_ref()?;
    let said = status::condition(status, types::ABLE_TO_SCALE)?;
    (said.reason == reasons::HPA_NOT_FOLLOWING).then(|| status::head_start(status)).flatten().map(|a| a.over)
}

/// What the leader wrote of changes that this process has not seen itself.
fn adopt(state: &mut State, persisted: &Persisted, now: Now) {
    // One in the future would count as now at each look, for ever: the clock was set back.
    let at = |wall: Option<i64>| wall.filter(|wall| *wall <= now.wall).map(|wall| now.to_mono(wall));
    state.last_up = state.last_up.max(at(persisted.last_up));
    state.last_down = state.last_down.max(at(persisted.last_down));
}

fn version(object: &WatchedFleet) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default()
}
