//! A pod: slots, one core that its calls share, streams, and what the metrics server would say of it.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{GATEWAYS, Micros, work::Work};

/// What a pod is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not yet ready, or again not after a crash.
    Starting,
    /// It serves.
    Ready,
    /// It gets nothing new and ends what it has.
    Draining,
    /// It is no more.
    Gone,
}

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) phase: Phase,
    pub(crate) created: Micros,
    /// When it became ready, or unready, last.
    pub(crate) turned: Micros,
    /// Of which revision it is.
    pub(crate) revision: u32,
    /// Calls that run.
    pub(crate) in_flight: u32,
    /// Open streams.
    pub(crate) streams: u32,
    /// Failures in a row, and until when the gateways leave it alone.
    pub(crate) failures: u32,
    pub(crate) ejected_until: Micros,
    /// Fails every call at once.
    pub(crate) black_hole: bool,
    /// Its calls on the CPU, with their generation, by the virtual time at which they are done.
    jobs: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// CPU time that each of them got so far, in µs, and when that was true.
    virtual_time: f64,
    updated: Micros,
    /// Counts changes of what runs on the CPU: an event of an older generation is void.
    pub(crate) generation: u32,
    /// CPU time used, in µs.
    pub(crate) cpu_used: f64,
    /// The metrics server's last reading, and the last share of a core, with its time.
    pub(crate) cpu_read: Option<(Micros, f64)>,
    pub(crate) cpu: Option<(Micros, f64)>,
    /// As each gateway counts it.
    pub(crate) work: [Work; GATEWAYS],
}

impl Pod {
    pub(crate) fn new(now: Micros, revision: u32) -> Self {
        Self {
            phase: Phase::Starting,
            created: now,
            turned: now,
            revision,
            in_flight: 0,
            streams: 0,
            failures: 0,
            ejected_until: 0,
            black_hole: false,
            jobs: BinaryHeap::new(),
            virtual_time: 0.0,
            updated: now,
            generation: 0,
            cpu_used: 0.0,
            cpu_read: None,
            cpu: None,
            work: Default::default(),
        }
    }

    /// It has neither ended nor been told to.
    pub(crate) fn wanted(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Ready)
    }

    /// Brings CPU time up to now: one core, shared evenly (processor sharing).
    pub(crate) fn advance(&mut self, now: Micros) {
        if !self.jobs.is_empty() {
            let elapsed = (now - self.updated) as f64;
            self.virtual_time += elapsed / self.jobs.len() as f64;
            self.cpu_used += elapsed;
        }
        self.updated = now;
    }

    /// A call begins to need so much CPU, in µs. To be advanced before.
    pub(crate) fn push(&mut self, call: u32, generation: u32, cpu: f64) {
        self.jobs.push(Reverse(((self.virtual_time + cpu) as u64, call, generation)));
        self.generation += 1;
    }

    /// When the first of its calls is done with the CPU, if none comes or goes.
    pub(crate) fn next_done(&self, now: Micros) -> Option<Micros> {
        let Reverse((end, ..)) = self.jobs.peek()?;
        let left = (*end as f64 - self.virtual_time).max(0.0) * self.jobs.len() as f64;
        Some(now + left.ceil() as Micros)
    }

    /// Takes the first call that is done. To be advanced before.
    pub(crate) fn pop(&mut self) -> Option<(u32, u32)> {
        let Reverse((_, call, generation)) = self.jobs.pop()?;
        self.generation += 1;
        Some((call, generation))
    }

    /// Everything on it is lost.
    pub(crate) fn crash(&mut self, now: Micros) {
        self.advance(now);
        self.jobs.clear();
        self.generation += 1;
        self.cpu_read = None;
        self.cpu = None;
    }

    /// The metrics server looks: the share of the core since it looked last.
    pub(crate) fn read_cpu(&mut self, now: Micros) {
        self.advance(now);
        if let Some((at, used)) = self.cpu_read {
            self.cpu = Some((now, (self.cpu_used - used) / (now - at).max(1) as f64));
        }
        self.cpu_read = Some((now, self.cpu_used));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_share_one_core() {
        let mut pod = Pod::new(0, 0);
        pod.push(1, 0, 1000.0);
        assert_eq!(pod.next_done(0), Some(1000), "alone");
        pod.advance(500);
        pod.push(2, 0, 1000.0);
        assert_eq!(pod.next_done(500), Some(1500), "half of it at half the speed");
        pod.advance(1500);
        assert_eq!(pod.pop(), Some((1, 0)));
        assert_eq!(pod.next_done(1500), Some(2000));
        pod.advance(2000);
        assert_eq!(pod.pop(), Some((2, 0)));
        pod.advance(9000);
        assert!((pod.cpu_used - 2000.0).abs() < 1.0, "idle time costs nothing: {}", pod.cpu_used);
    }
}
