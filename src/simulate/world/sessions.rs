//! Sessions: a stream on one pod for minutes. If the pod ends first, the session is broken, and its client begins anew.

use super::{Kind, Micros, SECOND, World};
use crate::simulate::random::Random;

/// A session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Session {
    pod: u32,
    gateway: u8,
    ends: Micros,
    open: bool,
    generation: u32,
}

impl World<'_> {
    /// Draws all sessions of the run.
    pub(super) fn begin_sessions(&mut self, seed: u64) {
        let Some(sessions) = self.scenario.sessions else { return };
        let mut random = Random::new(seed, 4);
        let mut at = 0.0;
        loop {
            at += random.exponential(1.0 / sessions.per_second);
            if at >= f64::from(sessions.until) {
                return;
            }
            let micros = (random.exponential(sessions.seconds) * 1e6) as Micros;
            self.at((at * 1e6) as Micros, Kind::SessionBegin { micros });
        }
    }

    /// On the pod with the fewest; if there is none, a second later. Where each pod has all that it takes, the session is
    /// turned away, as a call for which the queue has no place.
    pub(super) fn begin_session(&mut self, micros: Micros) {
        let pods = self.serving.iter().copied();
        let Some(pod) = pods.min_by_key(|id| self.pods[*id as usize].streams) else {
            return self.at(self.now + SECOND, Kind::SessionBegin { micros });
        };
        self.measure.offered(self.now);
        if self.pods[pod as usize].streams >= self.limits.streams {
            return self.measure.shed(self.now);
        }
        let gateway = self.gateway();
        let id = self.free_sessions.pop().unwrap_or_else(|| {
            self.sessions.push(Session::default());
            self.sessions.len() as u32 - 1
        });
        let ends = self.now + micros;
        let generation = self.sessions[id as usize].generation;
        self.sessions[id as usize] = Session { pod, gateway: gateway as u8, ends, open: true, generation };
        self.streams(pod, gateway, 1.0);
        self.at(ends, Kind::SessionEnd { session: id, generation });
    }

    pub(super) fn end_session(&mut self, id: u32, generation: u32) {
        let session = self.sessions[id as usize];
        if !session.open || session.generation != generation {
            return;
        }
        self.close(id);
        self.drained(session.pod);
    }

    /// Its pod is gone.
    pub(super) fn break_sessions(&mut self, pod: u32) {
        self.break_where(|session| session.pod == pod);
    }

    /// Its gateway is gone.
    pub(super) fn break_sessions_of_gateway(&mut self, gateway: usize) {
        self.break_where(|session| session.gateway as usize == gateway);
    }

    fn break_where(&mut self, lost: impl Fn(&Session) -> bool) {
        for id in 0..self.sessions.len() as u32 {
            let session = self.sessions[id as usize];
            if session.open && lost(&session) {
                self.measure.session_broken();
                self.close(id);
                self.at(self.now + SECOND, Kind::SessionBegin { micros: session.ends - self.now });
            }
        }
    }

    fn close(&mut self, id: u32) {
        let session = &mut self.sessions[id as usize];
        session.open = false;
        session.generation += 1;
        let (pod, gateway) = (session.pod, session.gateway as usize);
        self.free_sessions.push(id);
        self.streams(pod, gateway, -1.0);
    }

    fn streams(&mut self, pod: u32, gateway: usize, change: f64) {
        let now = self.now;
        let of = &mut self.pods[pod as usize];
        of.streams = (f64::from(of.streams) + change) as u32;
        of.work[gateway].streams.add(change, now);
        self.gateways[gateway].work.streams.add(change, now);
    }
}
