//! What goes wrong now: the disturbances of the scenario, second by second.

use super::{BEGIN, Gateway, Phase, SECOND, World};
use crate::simulate::{
    random::Random,
    scenario::{Disturbance, Service, Shape},
};

/// What holds in a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// What a call costs.
    pub(crate) service: Service,
    /// Share of calls that fail, and after how many ms.
    pub(crate) outage: Option<(f64, f64)>,
    /// Most calls per second of what all pods depend on.
    pub(crate) capped: Option<f64>,
    /// No measurement arrives.
    pub(crate) blind: bool,
    /// The process that decides starts anew in this second.
    pub(crate) restart: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            service: Service { io_ms: 0.0, cpu_ms: 0.0 },
            outage: None,
            capped: None,
            blind: false,
            restart: false,
        }
    }
}

impl Conditions {
    /// Whether a call fails, and after how many ms.
    pub(super) fn fails(&self, random: &mut Random) -> Option<f64> {
        self.outage.filter(|(share, _)| random.chance(*share)).map(|(_, ms)| ms)
    }
}

impl World<'_> {
    /// Sets what holds from now on.
    pub(super) fn disturb(&mut self) {
        let second = (self.now / SECOND) as u32;
        let mut now = Conditions { service: self.scenario.service, ..Conditions::default() };
        if let Shape::Trace(trace) = &self.scenario.load {
            let row = trace.at(f64::from(second));
            now.service.io_ms = row.service_ms.unwrap_or(now.service.io_ms);
            now.service.cpu_ms = row.cpu_ms.unwrap_or(now.service.cpu_ms);
            now.outage = row.error_rate.filter(|share| *share > 0.0).map(|share| (share, 5.0));
        }
        for disturbance in self.scenario.disturbances.clone() {
            self.apply(disturbance, second, &mut now);
        }
        self.conditions = now;
    }

    fn apply(&mut self, disturbance: Disturbance, second: u32, now: &mut Conditions) {
        match disturbance {
            Disturbance::Outage { from, to, share, ms } if (from..to).contains(&second) => {
                now.outage = Some((share, ms));
            }
            Disturbance::Slow { from, to, factor } if (from..to).contains(&second) => {
                now.service.io_ms *= factor;
            }
            Disturbance::Capped { from, to, per_second } if (from..to).contains(&second) => {
                now.capped = Some(per_second);
            }
            Disturbance::Blind { from, to } if (from..to).contains(&second) => now.blind = true,
            Disturbance::Rollout { at } if at == second => self.roll_out(),
            Disturbance::BlackHole { from, to } => self.black_hole(second == from, second == to),
            Disturbance::GatewayLoss { from, .. } if from == second => {
                self.gateways[0].epoch = None;
                self.lose(|_, gateway| gateway == 0);
                self.break_sessions_of_gateway(0);
            }
            Disturbance::GatewayLoss { to, .. } if to == second => {
                let epoch = Some((BEGIN + self.now / 1000) as u64);
                self.gateways[0] = Gateway { epoch, ..Gateway::default() };
                self.pods.iter_mut().for_each(|pod| pod.work[0] = super::work::Work::default());
            }
            Disturbance::Restarts { every } => now.restart = self.random.chance(1.0 / every),
            Disturbance::Crashes { every } if self.random.chance(1.0 / every) => {
                let ready: Vec<u32> =
                    self.alive().filter(|(_, pod)| pod.phase == Phase::Ready).map(|(id, _)| id).collect();
                if !ready.is_empty() {
                    let pod = ready[self.random.index(ready.len())];
                    self.crash(pod);
                }
            }
            _ => {}
        }
    }

    fn black_hole(&mut self, begins: bool, ends: bool) {
        if begins && let Some(id) = self.serving.first() {
            self.pods[*id as usize].black_hole = true;
        }
        if ends {
            self.pods.iter_mut().for_each(|pod| pod.black_hole = false);
        }
    }
}
