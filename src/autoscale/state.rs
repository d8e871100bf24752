//! What a decision has to remember, and the part of it that outlives a process in `status.autoscaling`.

use super::time::{Millis, Now};

/// Memory of one fleet. Times are of the monotonic clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// N as it was seen last: a change of it, whoever made it, starts the cooldown.
    pub replicas: Option<i32>,
    /// When this fleet was seen first by this process.
    pub since: Option<Millis>,
    /// Last observed step up.
    pub last_up: Option<Millis>,
    /// Last observed step down.
    pub last_down: Option<Millis>,
    /// Last time that the short window's demand was panic.
    pub last_panic: Option<Millis>,
    /// Hold time W_b of a call while nothing is wrong, in seconds, and when it was updated.
    pub baseline_hold: Option<f64>,
    /// When [`Self::baseline_hold`] was updated.
    pub baseline_at: Option<Millis>,
    /// Calls have taken longer than they used to, and since then something has forbidden to take away all the time.
    pub slow: bool,
    /// That is over, and what it had asked for is on its way down.
    pub slow_over: bool,
    /// D before the servers failed.
    pub last_good_demand: Option<f64>,
    /// Since when there are no metrics.
    pub blind_since: Option<Millis>,
    /// Since when nobody called and nothing is open.
    pub idle_since: Option<Millis>,
    /// When the last step from zero was made, while none of its pods has become ready.
    pub activated_at: Option<Millis>,
    /// Activations that failed in a row.
    pub activation_failures: u32,
    /// What was wanted at the last decision, if we act: tells our own change of N from somebody else's.
    pub wanted: Option<i32>,
    /// CPU or memory of pods was known at some time of this process: there is a metrics server.
    pub pod_samples_seen: bool,
    /// Recommendations, oldest first; at most [`MAX_RING`]. Each stands for all since the one before it.
    pub recommendations: Vec<Recommendation>,
    /// Changes of N, oldest first; at most [`MAX_RING`].
    pub scale_events: Vec<ScaleEvent>,
}

/// Most entries of a ring.
pub const MAX_RING: usize = 64;

/// What was recommended in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// The end of the stretch.
    pub at: Millis,
    /// Least.
    pub min: i32,
    /// Most.
    pub max: i32,
}

/// A change of N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleEvent {
    /// When.
    pub at: Millis,
    /// By how much; negative: down.
    pub change: i32,
}

/// What is kept in `status.autoscaling`. Times are wall times in ms since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Persisted {
    /// N as it was seen last.
    pub replicas: Option<i32>,
    /// Last observed step up.
    pub last_up: Option<i64>,
    /// Last observed step down.
    pub last_down: Option<i64>,
    /// W_b in ms.
    pub baseline_hold_ms: Option<i64>,
    /// Recommendations: time, least, most.
    pub recommendations: Vec<(i64, i32, i32)>,
    /// Changes: time, by how much.
    pub scale_events: Vec<(i64, i32)>,
}

impl State {
    /// From what another process left. A change of N since then that nobody wrote down counts as made now (in
    /// `decide`, which compares [`Self::replicas`]); times in the future are now.
    pub fn restore(persisted: &Persisted, now: Now) -> Self {
        let at = |wall: i64| now.to_mono(wall);
        let from = persisted.recommendations.len().saturating_sub(MAX_RING);
        let events_from = persisted.scale_events.len().saturating_sub(MAX_RING);
        Self {
            replicas: persisted.replicas,
            last_up: persisted.last_up.map(at),
            last_down: persisted.last_down.map(at),
            baseline_hold: persisted.baseline_hold_ms.filter(|ms| *ms > 0).map(|ms| ms as f64 / 1000.0),
            recommendations: persisted.recommendations[from..]
                .iter()
                .map(|(wall, min, max)| Recommendation { at: at(*wall), min: *min, max: *max })
                .collect(),
            scale_events: persisted.scale_events[events_from..]
                .iter()
                .map(|(wall, change)| ScaleEvent { at: at(*wall), change: *change })
                .collect(),
            ..Self::default()
        }
    }

    /// What another process needs.
    pub fn persist(&self, now: Now) -> Persisted {
        let wall = |at: Millis| now.to_wall(at);
        Persisted {
            replicas: self.replicas,
            last_up: self.last_up.map(wall),
            last_down: self.last_down.map(wall),
            baseline_hold_ms: self.baseline_hold.map(|s| (s * 1000.0).round() as i64),
            recommendations: self.recommendations.iter().map(|r| (wall(r.at), r.min, r.max)).collect(),
            scale_events: self.scale_events.iter().map(|e| (wall(e.at), e.change)).collect(),
        }
    }
}
