//! Cumulative counters of a fleet at one gateway and one moment, in little space, and differences of two of them.
//! Also the check of what a report says: what passes here is finite and not negative.

use super::super::{
    load::{Completions, LATENCY_BUCKETS, Window},
    report::{self, FleetReport, PodReport},
    snapshot::PodUid,
    time::Millis,
};

/// No counter and no integral is above this; up to here an f64 counts exactly.
const MOST: f64 = 9e15;
/// Pods of one fleet that are looked at; a fleet has 1,000 replicas at most, and twice as many in a rollout.
const MAX_PODS: usize = 2_000;
/// The gateway folds its integrals beside running calls: between two reports one may step back by a moment.
const SLACK_SECONDS: f64 = 0.01;

/// A counter modulo 2^32: no two reports that are compared lie two thousand million calls apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count(u32);

impl Count {
    fn of(value: f64) -> Self {
        Self(value as u64 as u32)
    }

    fn since(self, earlier: Self) -> f64 {
        f64::from(self.0.wrapping_sub(earlier.0))
    }

    fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) > u32::MAX / 2
    }
}

/// Counters and integrals of one fleet since its start, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    /// When, on our clock.
    pub(super) at: Millis,
    /// Arrivals, admitted, shed, retries.
    requests: [Count; 4],
    ends: [Count; 5],
    /// ∫ queue, in flight, streams, in seconds.
    seconds: [f64; 3],
    /// Latency buckets, as far as there are any.
    latency: Box<[Count]>,
    /// By UID.
    pods: Box<[PodPoint]>,
}

/// The same of one pod.
#[derive(Clone, Debug, PartialEq)]
struct PodPoint {
    uid: PodUid,
    /// Points of one life count on from each other: a pod that was away, or whose counters went back, starts
    /// another.
    life: u64,
    ends: [Count; 5],
    /// ∫ in flight, streams, in seconds.
    seconds: [f64; 2],
}

/// What ran at that moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Gauges {
    pub(super) ready: u64,
    pub(super) queue: f64,
    pub(super) in_flight: f64,
    pub(super) streams: f64,
    /// By UID.
    pub(super) pods: Box<[(PodUid, PodNow)]>,
}

/// What runs on a pod now, as one gateway or all together know it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PodNow {
    /// Calls that run.
    pub in_flight: f64,
    /// Streams that are open.
    pub streams: f64,
    /// Sessions that live on it.
    pub sessions: f64,
    /// Tasks that live on it.
    pub tasks: f64,
}

impl PodNow {
    /// Adds what another gateway knows.
    pub(super) fn add(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        self.streams += other.streams;
        self.sessions += other.sessions;
        self.tasks += other.tasks;
    }
}

/// A number that cannot be, or a counter that went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Impossible;

fn is_number(value: f64) -> bool {
    (0.0..=MOST).contains(&value)
}

fn ends(of: &report::Completions) -> [f64; 5] {
    [of.ok, of.overload, of.upstream, of.client, of.tool]
}

/// Reads what a report says of a fleet; an error where a number cannot be. Pods with a UID that is none are left out.
pub(super) fn read(report: &FleetReport, at: Millis) -> Result<(Point, Gauges), Impossible> {
    let requests = [report.arrivals, report.admitted, report.shed, report.retries];
    let work = &report.work;
    let seconds = [report.queue_seconds, work.in_flight_seconds, work.stream_seconds];
    let now = [report.queue, work.in_flight, work.streams];
    let ends = ends(&work.completions);
    let latency = &work.latency_log2_micros;
    let mut all =
        requests.iter().chain(&seconds).chain(&now).chain(&ends).chain(latency.iter().take(LATENCY_BUCKETS));
    if !all.all(|n| is_number(*n)) || latency.len() > LATENCY_BUCKETS {
        return Err(Impossible);
    }
    let pods = report.pods.iter().take(MAX_PODS).filter_map(|p| pod(p).transpose());
    let mut pods = pods.collect::<Result<Vec<_>, _>>()?;
    pods.sort_unstable_by_key(|(pod, _)| pod.uid);
    pods.dedup_by_key(|(pod, _)| pod.uid);
    let gauges = Gauges {
        ready: report.ready,
        queue: report.queue,
        in_flight: work.in_flight,
        streams: work.streams,
        pods: pods.iter().map(|(point, now)| (point.uid, *now)).collect(),
    };
    let point = Point {
        at,
        requests: requests.map(Count::of),
        ends: ends.map(Count::of),
        seconds,
        latency: latency.iter().map(|n| Count::of(*n)).collect(),
        pods: pods.into_iter().map(|(point, _)| point).collect(),
    };
    Ok((point, gauges))
}

/// `None`: a UID that is none.
fn pod(report: &PodReport) -> Result<Option<(PodPoint, PodNow)>, Impossible> {
    let work = &report.work;
    let now = PodNow {
        in_flight: work.in_flight,
        streams: work.streams,
        sessions: report.sessions,
        tasks: report.tasks,
    };
    let seconds = [work.in_flight_seconds, work.stream_seconds];
    let ends = ends(&work.completions);
    let gauges = [now.in_flight, now.streams, now.sessions, now.tasks];
    if !seconds.iter().chain(&ends).chain(&gauges).all(|n| is_number(*n)) {
        return Err(Impossible);
    }
    let uid = PodUid::parse(&report.uid);
    Ok(uid.map(|uid| (PodPoint { uid, life: 0, ends: ends.map(Count::of), seconds }, now)))
}

impl Point {
    /// Before the first call.
    pub(super) fn zero(at: Millis) -> Self {
        Self {
            at,
            requests: Default::default(),
            ends: Default::default(),
            seconds: [0.0; 3],
            latency: Box::default(),
            pods: Box::default(),
        }
    }

    /// Whether counters stand as they stood.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let Self { at: _, requests, ends, seconds, latency, pods } = self;
        *requests == other.requests
            && *ends == other.ends
            && seconds.iter().zip(&other.seconds).all(|(a, b)| a.total_cmp(b).is_eq())
            && *latency == other.latency
            && *pods == other.pods
    }

    /// Makes this the successor of `earlier`. An error where a counter has gone back. A pod that `earlier` lacks, or
    /// whose counters went back, is counted from here on, as the life `next`.
    pub(super) fn follow(&mut self, earlier: &Self, next: u64) -> Result<(), Impossible> {
        let counts = |p: &Self| p.requests.into_iter().chain(p.ends).chain(p.latency.clone());
        let gone_back = self.latency.len() < earlier.latency.len()
            || counts(self).zip(counts(earlier)).any(|(new, old)| new.is_before(old))
            || !follow_seconds(&mut self.seconds, &earlier.seconds);
        if gone_back {
            return Err(Impossible);
        }
        for pod in &mut self.pods {
            let goes_on = earlier.pod(pod.uid).filter(|old| {
                pod.ends.iter().zip(&old.ends).all(|(new, old)| !new.is_before(*old))
                    && follow_seconds(&mut pod.seconds, &old.seconds)
            });
            pod.life = goes_on.map_or(next, |old| old.life);
        }
        Ok(())
    }

    fn pod(&self, uid: PodUid) -> Option<&PodPoint> {
        self.pods.binary_search_by_key(&uid, |p| p.uid).ok().map(|i| &self.pods[i])
    }

    fn life(&self, pod: &PodPoint) -> Option<&PodPoint> {
        self.pod(pod.uid).filter(|p| p.life == pod.life)
    }

    /// Adds `share` of what happened between `earlier` and this to the sums of a window; integrals as they are.
    pub(super) fn add_since(&self, earlier: &Self, share: f64, to: &mut Window) {
        let counts = self.requests.iter().zip(&earlier.requests);
        let sums = [&mut to.arrivals, &mut to.admitted, &mut to.shed, &mut to.retries];
        for (sum, (new, old)) in sums.into_iter().zip(counts) {
            *sum += share * new.since(*old);
        }
        let means = [&mut to.queue, &mut to.in_flight, &mut to.streams];
        for (sum, (new, old)) in means.into_iter().zip(self.seconds.iter().zip(&earlier.seconds)) {
            *sum += share * (new - old);
        }
        add_ends(&mut to.completions, &self.ends, &earlier.ends, share);
        for (i, (new, sum)) in self.latency.iter().zip(&mut to.latency.0).enumerate() {
            *sum += share * new.since(earlier.latency.get(i).copied().unwrap_or_default());
        }
    }

    /// The same for the pods of this point. `before` is where the window starts, `share` of the way to `after`; a
    /// pod that was not there yet counts from the first point that has it.
    pub(super) fn add_pods_since<'a>(
        &'a self,
        (before, after, share): (&'a Self, &'a Self, f64),
        between: &(impl Iterator<Item = &'a Self> + Clone),
        weight: f64,
        to: &mut Window,
    ) {
        for pod in &self.pods {
            let sums = to.pods.entry(pod.uid).or_default();
            let mut add = |new: &PodPoint, old: &PodPoint, share: f64| {
                let share = share * weight;
                add_ends(&mut sums.completions, &new.ends, &old.ends, share);
                sums.in_flight += share * (new.seconds[0] - old.seconds[0]);
                sums.streams += share * (new.seconds[1] - old.seconds[1]);
            };
            if let Some(old) = after.life(pod) {
                add(pod, old, 1.0);
                if let Some(older) = before.life(pod) {
                    add(old, older, share);
                }
            } else if let Some(first) = between.clone().find_map(|point| point.life(pod)) {
                add(pod, first, 1.0);
            }
        }
    }
}

/// Lets integrals stand still where they went back by a moment; false where it is more than that.
fn follow_seconds<const N: usize>(new: &mut [f64; N], old: &[f64; N]) -> bool {
    for (new, old) in new.iter_mut().zip(old) {
        if *new + SLACK_SECONDS < *old {
            return false;
        }
        *new = new.max(*old);
    }
    true
}

fn add_ends(to: &mut Completions, new: &[Count; 5], old: &[Count; 5], share: f64) {
    let sums = [&mut to.ok, &mut to.overload, &mut to.upstream, &mut to.client, &mut to.tool];
    for (sum, (new, old)) in sums.into_iter().zip(new.iter().zip(old)) {
        *sum += share * new.since(*old);
    }
}
