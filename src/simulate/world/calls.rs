//! A call's way: in, a slot or the queue, CPU, I/O, out.

use super::{Call, End, Kind, Micros, Phase, SECOND, World};

/// A client that got no answer, or an error, tries so often again.
const MOST_RETRIES: u8 = 2;
/// With this probability.
const RETRY_SHARE: f64 = 0.5;
/// Failures in a row after which a pod is left alone, and for how long (defaults of the API).
const BREAKER_FAILURES: u32 = 5;
const BREAKER_RECOVERY: Micros = 30 * SECOND;

impl World<'_> {
    /// A call comes in.
    pub(super) fn arrive(&mut self, attempt: u8) {
        let service = self.conditions.service;
        let cpu = self.random.exponential(service.cpu_ms * 1000.0);
        let io = self.io.draw(&mut self.random) * service.io_ms * 1000.0;
        let gateway = self.gateway();
        let generation = self.free.last().map_or(0, |id| self.calls[*id as usize].generation);
        let call = Call {
            arrived: self.now,
            idle: (cpu + io) as Micros,
            cpu: cpu as f32,
            io: io as f32,
            pod: u32::MAX,
            generation,
            gateway: gateway as u8,
            attempt,
            fails: false,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.calls.push(Call::default());
            self.calls.len() as u32 - 1
        });
        self.calls[id as usize] = call;
        self.measure.offered(self.now);
        self.gateways[gateway].arrivals += 1.0;
        if self.queue.is_empty()
            && let Some(pod) = self.pick()
        {
            return self.admit(id, pod);
        }
        if self.queue.len() >= self.limits.queue {
            return self.shed(id);
        }
        self.gateways[gateway].queue.add(1.0, self.now);
        self.queue.push_back(id);
    }

    /// One that lives; clients turn to the other if theirs is dead.
    pub(super) fn gateway(&mut self) -> usize {
        let first = self.random.index(self.gateways.len());
        let n = self.gateways.len();
        (0..n).map(|i| (first + i) % n).find(|i| self.gateways[*i].epoch.is_some()).unwrap_or(first)
    }

    /// A pod with a free slot: the one with fewer calls of two drawn, else the one with the fewest.
    fn pick(&mut self) -> Option<u32> {
        let n = self.serving.len();
        if n == 0 {
            return None;
        }
        let (a, b) = (self.random.index(n), self.random.index(n));
        let (a, b) = (self.serving[a], self.serving[b]);
        let drawn = [a, b]
            .into_iter()
            .filter(|id| self.takes(*id))
            .min_by_key(|id| self.pods[*id as usize].in_flight);
        drawn.or_else(|| {
            let free = self.serving.iter().copied().filter(|id| self.takes(*id));
            free.min_by_key(|id| self.pods[*id as usize].in_flight)
        })
    }

    fn takes(&self, id: u32) -> bool {
        let pod = &self.pods[id as usize];
        pod.in_flight < self.limits.slots && pod.ejected_until <= self.now
    }

    /// A call gets its slot.
    fn admit(&mut self, id: u32, to: u32) {
        let (now, call) = (self.now, &mut self.calls[id as usize]);
        call.pod = to;
        let (gateway, generation, cpu) = (call.gateway as usize, call.generation, f64::from(call.cpu));
        let pod = &mut self.pods[to as usize];
        pod.in_flight += 1;
        pod.work[gateway].in_flight.add(1.0, now);
        self.gateways[gateway].admitted += 1.0;
        self.gateways[gateway].work.in_flight.add(1.0, now);
        let fails_after = if pod.black_hole { Some(5.0) } else { self.conditions.fails(&mut self.random) };
        if let Some(ms) = fails_after {
            self.calls[id as usize].fails = true;
            return self.at(now + (ms * 1000.0) as Micros, Kind::CallDone { call: id, generation });
        }
        pod.advance(now);
        pod.push(id, generation, cpu);
        self.await_cpu(to);
    }

    fn await_cpu(&mut self, pod: u32) {
        let of = &self.pods[pod as usize];
        let generation = of.generation;
        if let Some(at) = of.next_done(self.now) {
            self.at(at, Kind::CpuDone { pod, generation });
        }
    }

    /// The CPU's part of a call is done: the I/O begins.
    pub(super) fn cpu_done(&mut self, pod: u32, generation: u32) {
        let now = self.now;
        if self.pods[pod as usize].generation != generation {
            return;
        }
        self.pods[pod as usize].advance(now);
        while self.pods[pod as usize].next_done(now) == Some(now) {
            let Some((id, generation)) = self.pods[pod as usize].pop() else { break };
            if self.calls[id as usize].generation != generation {
                // Its gateway died; the pod learns of it too late.
                continue;
            }
            let mut begin = now;
            if let Some(per_second) = self.conditions.capped {
                begin = self.dependency_free.max(now);
                self.dependency_free = begin + (1e6 / per_second) as Micros;
            }
            let call = &mut self.calls[id as usize];
            // What the dependency lets it wait no pod could have saved.
            call.idle += begin - now;
            let done = begin + Micros::from(call.io as i64);
            self.at(done, Kind::CallDone { call: id, generation });
        }
        self.await_cpu(pod);
    }

    /// A call that had a slot ends.
    pub(super) fn finish(&mut self, id: u32, end: End) {
        let (now, call) = (self.now, self.calls[id as usize]);
        let gateway = call.gateway as usize;
        let pod = &mut self.pods[call.pod as usize];
        pod.in_flight -= 1;
        pod.work[gateway].in_flight.add(-1.0, now);
        pod.work[gateway].ended(end, now - call.arrived);
        self.gateways[gateway].work.in_flight.add(-1.0, now);
        self.gateways[gateway].work.ended(end, now - call.arrived);
        if end == End::Upstream {
            self.measure.failed();
            self.failed(call.pod);
            self.retry(call.attempt);
        } else {
            pod.failures = 0;
            self.measure.answered(call.arrived, now - call.arrived, call.idle);
        }
        self.release(id);
        self.drained(call.pod);
    }

    /// The breaker: no more than half of the pods are left alone at a time.
    fn failed(&mut self, id: u32) {
        let now = self.now;
        let pod = &mut self.pods[id as usize];
        pod.failures += 1;
        if pod.failures < BREAKER_FAILURES || pod.phase != Phase::Ready || pod.ejected_until > now {
            return;
        }
        pod.failures = 0;
        let n_ejected = self.serving.iter().filter(|i| self.pods[**i as usize].ejected_until > now).count();
        if n_ejected < (self.serving.len() / 2).max(1) {
            self.pods[id as usize].ejected_until = now + BREAKER_RECOVERY;
        }
    }

    /// A call gets no place.
    fn shed(&mut self, id: u32) {
        let call = self.calls[id as usize];
        let gateway = &mut self.gateways[call.gateway as usize];
        gateway.shed += 1.0;
        gateway.work.ended(End::Shed, self.now - call.arrived);
        self.measure.shed(call.arrived);
        self.retry(call.attempt);
        self.release(id);
    }

    fn retry(&mut self, attempt: u8) {
        if attempt < MOST_RETRIES && self.random.chance(RETRY_SHARE) {
            let pause = self.random.uniform(0.5, 1.5) * f64::from(1 << attempt);
            self.at(self.now + (pause * 1e6) as Micros, Kind::Retry { attempt: attempt + 1 });
        }
    }

    fn release(&mut self, id: u32) {
        self.calls[id as usize].generation += 1;
        self.free.push(id);
    }

    /// Calls whose time in the queue is over.
    pub(super) fn expire(&mut self) {
        while let Some(id) = self.queue.front().copied() {
            if self.calls[id as usize].arrived + self.limits.queue_timeout > self.now {
                break;
            }
            self.queue.pop_front();
            let gateway = self.calls[id as usize].gateway as usize;
            self.gateways[gateway].queue.add(-1.0, self.now);
            self.shed(id);
        }
    }

    /// Those who wait get what is free.
    pub(super) fn dispatch(&mut self) {
        while let Some(id) = self.queue.front().copied() {
            let Some(pod) = self.pick() else { return };
            self.queue.pop_front();
            let gateway = self.calls[id as usize].gateway as usize;
            self.gateways[gateway].queue.add(-1.0, self.now);
            self.admit(id, pod);
        }
    }

    /// All calls on a pod, or of a gateway, end with an error.
    pub(super) fn lose(&mut self, lost: impl Fn(u32, usize) -> bool) {
        let free: std::collections::HashSet<u32> = self.free.iter().copied().collect();
        let waiting: std::collections::HashSet<u32> = self.queue.iter().copied().collect();
        for id in 0..self.calls.len() as u32 {
            let call = self.calls[id as usize];
            if free.contains(&id) || !lost(call.pod, call.gateway as usize) {
                continue;
            }
            if waiting.contains(&id) {
                self.queue.retain(|other| *other != id);
                self.gateways[call.gateway as usize].queue.add(-1.0, self.now);
                self.measure.shed(call.arrived);
                self.retry(call.attempt);
                self.release(id);
            } else {
                self.finish(id, End::Upstream);
            }
        }
    }
}
