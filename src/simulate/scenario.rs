//! What happens in a run: the load over time, what a call costs, and what goes wrong when. Values only.

use super::random::Random;

/// A run's world.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: String,
    /// One line.
    pub about: String,
    /// How long, in seconds.
    pub seconds: u32,
    /// Calls per second over time.
    pub load: Shape,
    /// What a call costs on an idle pod.
    pub service: Service,
    /// Sessions with a stream, beside the calls.
    pub sessions: Option<Sessions>,
    /// What goes wrong.
    pub disturbances: Vec<Disturbance>,
    /// Whether going to zero is looked at: policies that can, may.
    pub zero: bool,
    /// Most replicas.
    pub max: i32,
}

/// What a call costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Service {
    /// Mean time in which it waits for others (I/O), in ms; log-normal.
    pub io_ms: f64,
    /// Mean CPU time, in ms; exponential, shared by the calls that run on a pod (one core).
    pub cpu_ms: f64,
}

/// Sessions with an open stream each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sessions {
    /// New ones per second while they come.
    pub per_second: f64,
    /// Mean length, in seconds; exponential.
    pub seconds: f64,
    /// No more come after this second.
    pub until: u32,
}

/// Calls per second over time.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Waves with a day's and an hour's part, and noise, as of a public site; the day is as long as the run.
    Diurnal {
        /// Mean.
        mean: f64,
    },
    /// Two states of exponential length (Markov-modulated Poisson).
    Bursts {
        /// Rate between bursts.
        low: f64,
        /// Rate in a burst.
        high: f64,
        /// Mean seconds between bursts.
        quiet: f64,
        /// Mean seconds of a burst.
        busy: f64,
    },
    /// A rise within a minute to `peak`, held, and a slow decay.
    Flash {
        /// Before and after.
        base: f64,
        /// At the top.
        peak: f64,
        /// Second of the rise.
        at: f64,
        /// Seconds at the top.
        hold: f64,
    },
    /// `base`, and `base · factor` between two moments.
    Step {
        /// Outside.
        base: f64,
        /// Inside.
        factor: f64,
        /// From this second.
        from: f64,
        /// To this second.
        to: f64,
    },
    /// From one rate to another between two moments.
    Ramp {
        /// Before.
        low: f64,
        /// After.
        high: f64,
        /// From this second.
        from: f64,
        /// To this second.
        to: f64,
    },
    /// Agents: gaps of a hyper-exponential distribution (coefficient of variation 9), so that many calls come at once.
    Agents {
        /// Mean.
        mean: f64,
    },
    /// On and off in turns.
    OnOff {
        /// While on.
        rate: f64,
        /// Seconds on.
        on: f64,
        /// Seconds off.
        off: f64,
    },
    /// A recorded load; see [`super::trace`].
    Trace(super::trace::Trace),
}

/// What goes wrong, between two seconds or at one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disturbance {
    /// A share of all calls fails within some ms, whatever pod they go to.
    Outage {
        /// From.
        from: u32,
        /// To.
        to: u32,
        /// Share, 0..=1.
        share: f64,
        /// After so long.
        ms: f64,
    },
    /// Calls take longer.
    Slow {
        /// From.
        from: u32,
        /// To.
        to: u32,
        /// By this factor.
        factor: f64,
    },
    /// What all pods depend on serves no more than so many calls per second.
    Capped {
        /// From.
        from: u32,
        /// To.
        to: u32,
        /// Calls per second.
        per_second: f64,
    },
    /// Neither reports nor the metrics server arrive.
    Blind {
        /// From.
        from: u32,
        /// To.
        to: u32,
    },
    /// All pods are replaced, a quarter at a time.
    Rollout {
        /// At.
        at: u32,
    },
    /// One pod fails each call within 5 ms.
    BlackHole {
        /// From.
        from: u32,
        /// To.
        to: u32,
    },
    /// One of two gateways dies without a word, and comes back as a new process.
    GatewayLoss {
        /// From.
        from: u32,
        /// To.
        to: u32,
    },
    /// The process that decides starts anew, again and again; what it keeps in the cluster it still has.
    Restarts {
        /// Mean seconds between.
        every: f64,
    },
    /// Pods crash and start anew.
    Crashes {
        /// Mean seconds between.
        every: f64,
    },
}

/// Draws arrivals.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    shape: Shape,
    seconds: f64,
    gaps: Random,
    /// Of the rate alone, so that a clone that is only asked for rates says the same.
    states: Random,
    /// State of [`Shape::Bursts`], and until when.
    busy: bool,
    until: f64,
    /// Slow noise of [`Shape::Diurnal`], and the second that it is of.
    noise: f64,
    noise_at: f64,
}

impl Arrivals {
    /// Of a scenario.
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        Self {
            shape: scenario.load.clone(),
            seconds: f64::from(scenario.seconds),
            gaps: Random::new(seed, 1),
            states: Random::new(seed, 2),
            busy: false,
            until: 0.0,
            noise: 0.0,
            noise_at: 0.0,
        }
    }

    /// The next one after `now`, in seconds. Within one second the rate is even.
    pub(crate) fn next(&mut self, mut now: f64) -> f64 {
        if let Shape::Agents { mean } = self.shape {
            let (share, short) = (0.98, 0.1);
            let long = (1.0 - share * short) / (1.0 - share);
            let factor = if self.gaps.chance(share) { short } else { long };
            return now + self.gaps.exponential(factor / mean);
        }
        while now < self.seconds {
            let rate = self.rate(now);
            let end = now.floor() + 1.0;
            let next = if rate > 0.0 { now + self.gaps.exponential(1.0 / rate) } else { end };
            if next < end {
                return next;
            }
            now = end;
        }
        f64::INFINITY
    }

    /// Calls per second at a moment; not before the moment that was asked for last.
    pub(crate) fn rate(&mut self, now: f64) -> f64 {
        match &self.shape {
            Shape::Diurnal { mean } => {
                let day = now / self.seconds * std::f64::consts::TAU;
                let wave = 1.0 - 0.65 * day.cos() + 0.12 * (7.0 * day).sin();
                let mean = *mean;
                while self.noise_at + 1.0 <= now {
                    self.noise_at += 1.0;
                    self.noise = 0.98 * self.noise + 0.02 * self.states.normal();
                }
                mean * (wave * (1.0 + self.noise)).max(0.02)
            }
            Shape::Bursts { low, high, quiet, busy } => {
                let (low, high, quiet, busy) = (*low, *high, *quiet, *busy);
                while self.until <= now {
                    self.busy = self.until > 0.0 && !self.busy;
                    self.until += self.states.exponential(if self.busy { busy } else { quiet }).max(1.0);
                }
                if self.busy { high } else { low }
            }
            Shape::Flash { base, peak, at, hold } => {
                let since = now - at;
                let share = if since < 0.0 {
                    0.0
                } else if since < 60.0 {
                    since / 60.0
                } else if since < 60.0 + hold {
                    1.0
                } else {
                    (-(since - 60.0 - hold) / 300.0).exp()
                };
                base + (peak - base) * share
            }
            Shape::Step { base, factor, from, to } => {
                if (*from..*to).contains(&now) {
                    base * factor
                } else {
                    *base
                }
            }
            Shape::Ramp { low, high, from, to } => {
                low + (high - low) * ((now - from) / (to - from)).clamp(0.0, 1.0)
            }
            Shape::Agents { mean } => *mean,
            Shape::OnOff { rate, on, off } => {
                if now % (on + off) < *on {
                    *rate
                } else {
                    0.0
                }
            }
            Shape::Trace(trace) => trace.at(now).rate,
        }
    }
}
