//! The choice itself. Fleets of up to 64 endpoints are surveyed exactly, in one pass over a bit mask;
//! larger ones are sampled, with a scan only when sampling found nothing.
//!
//! Two classes come before any strategy: an endpoint must be usable (eligible, with room, of a weight
//! above 0, not ejected unless too few remain), and penalised ones are left out while others exist. Drawing
//! two penalised endpoints of three would otherwise send a third of all calls to what is known to fail.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{Candidate, Nanos, Outlook, Strategy, outlook::Counts};

/// Up to this many endpoints fit the mask.
const MASK_BITS: usize = u64::BITS as usize;
/// Draws before a scan: with half of a large fleet usable, 32 draws miss two of them once in 10⁸.
const DRAWS: usize = 32;
/// An endpoint in another zone costs so much more, or gets so much less.
const OTHER_ZONE: f64 = 3.0;

/// Picks one of `candidates` that also `admits`; `None` when none may take a call now.
///
/// `admits` narrows eligibility for this call (its era, endpoints tried before). `draw` returns uniformly
/// distributed bits. `slow_start` is the window of new endpoints; zero turns it off.
pub fn pick<C: Candidate>(
    strategy: Strategy,
    candidates: &[C],
    admits: impl Fn(&C) -> bool,
    outlook: &Outlook,
    draw: &mut impl FnMut() -> u64,
    now: Nanos,
    slow_start: Duration,
) -> Option<usize> {
    let mut field =
        Field { strategy, candidates, admits, outlook, now, slow_start, panic: false, uneven: false };
    if candidates.len() <= MASK_BITS { field.pick_exactly(draw) } else { field.pick_by_sample(draw) }
}

/// The circumstances of one pick.
struct Field<'a, C, F> {
    strategy: Strategy,
    candidates: &'a [C],
    admits: F,
    outlook: &'a Outlook,
    now: Nanos,
    /// Zero when slow start does not apply.
    slow_start: Duration,
    panic: bool,
    /// Weights differ.
    uneven: bool,
}

impl<C: Candidate, F: Fn(&C) -> bool> Field<'_, C, F> {
    fn pick_exactly(&mut self, draw: &mut impl FnMut() -> u64) -> Option<usize> {
        let pool = self.survey();
        match self.strategy {
            Strategy::RoundRobin => {
                self.in_turn(|i| pool & (1 << i) != 0, draw).or_else(|| self.lottery(Bits(pool), draw))
            }
            Strategy::Random | Strategy::Weighted => self.lottery(Bits(pool), draw),
            // Connections last: worth the exact minimum.
            Strategy::LeastConnections => self.cheapest_of_all(pool, draw),
            // Two of n drawn alike never give one endpoint more than 2/n, whatever its weight.
            _ if self.uneven => self.cheapest_of_all(pool, draw),
            Strategy::LeastRequest | Strategy::PeakEwma => {
                let n = pool.count_ones() as usize;
                if n <= 1 {
                    return first(pool);
                }
                let one = below(draw(), n);
                // Distinct from the first: one of the n - 1 others, counted on from it.
                let other = (one + 1 + below(draw(), n - 1)) % n;
                self.cheapest([nth(pool, one), nth(pool, other)].into_iter())
            }
        }
    }

    /// A drawn order decides between equals.
    fn cheapest_of_all(&self, pool: u64, draw: &mut impl FnMut() -> u64) -> Option<usize> {
        let after = u64::MAX << below(draw(), self.candidates.len());
        self.cheapest(Bits(pool & after).chain(Bits(pool & !after)))
    }

    /// One pass: decides panic and slow start, returns whom the strategy may choose from.
    fn survey(&mut self) -> u64 {
        let (mut open, mut ejected, mut penalised) = (0_u64, 0_u64, 0_u64);
        let mut counts = Counts::default();
        let mut weight = None;
        for (i, candidate) in self.candidates.iter().enumerate() {
            if !self.is_eligible(candidate) {
                continue;
            }
            self.uneven |= *weight.get_or_insert(candidate.weight()) != candidate.weight();
            counts.add(candidate, self.now, self.slow_start);
            let bit = 1 << i;
            open |= if candidate.has_room() { bit } else { 0 };
            ejected |= if candidate.is_ejected() { bit } else { 0 };
            penalised |= if candidate.load().penalty_ns(self.now) > 0 { bit } else { 0 };
        }
        if counts.mostly_new() {
            self.slow_start = Duration::ZERO;
        }
        let usable = if counts.panic() { open } else { open & !ejected };
        if usable & !penalised == 0 { usable } else { usable & !penalised }
    }

    fn pick_by_sample(&mut self, draw: &mut impl FnMut() -> u64) -> Option<usize> {
        self.panic = self.outlook.panic.load(Relaxed);
        if self.outlook.mostly_new.load(Relaxed) {
            self.slow_start = Duration::ZERO;
        }
        let n = self.candidates.len();
        let found = match self.strategy {
            Strategy::RoundRobin => self.in_turn(|i| self.is_preferred(i), draw),
            Strategy::Random | Strategy::Weighted => {
                let most = match self.strategy {
                    Strategy::Weighted => f64::from(self.outlook.most_weight.load(Relaxed)),
                    _ => 1.0,
                };
                (0..DRAWS).find_map(|_| {
                    let i = below(draw(), n);
                    (self.is_preferred(i) && unit(draw()) * most < self.share(i)).then_some(i)
                })
            }
            Strategy::LeastConnections | Strategy::LeastRequest | Strategy::PeakEwma => {
                self.sample_two(draw).and_then(|two| self.cheapest(two.into_iter()))
            }
        };
        found.or_else(|| self.scan(draw))
    }

    /// Drawn in proportion to the weights, or the heavy ones would be drawn too seldom to get their share.
    fn sample_two(&self, draw: &mut impl FnMut() -> u64) -> Option<[usize; 2]> {
        let most = self.outlook.most_weight.load(Relaxed);
        let mut one = None;
        for _ in 0..DRAWS {
            let i = below(draw(), self.candidates.len());
            let weight = self.candidates[i].weight();
            if one == Some(i)
                || !self.is_preferred(i)
                || (weight < most && unit(draw()) * f64::from(most) >= f64::from(weight))
            {
                continue;
            }
            match one {
                Some(first) => return Some([first, i]),
                None => one = Some(i),
            }
        }
        None
    }

    /// The last resort of a large fleet in which few endpoints are usable.
    fn scan(&mut self, draw: &mut impl FnMut() -> u64) -> Option<usize> {
        let n = self.candidates.len();
        if !(0..n).any(|i| self.is_usable(i)) {
            // The outlook may be a second old; what it could not know yet must not lose the call.
            self.panic = self.panic_now();
        }
        let any_preferred = (0..n).any(|i| self.is_preferred(i));
        let pool = (0..n).filter(|&i| if any_preferred { self.is_preferred(i) } else { self.is_usable(i) });
        match self.strategy {
            Strategy::RoundRobin | Strategy::Random | Strategy::Weighted => self.lottery(pool, draw),
            _ => self.cheapest(pool),
        }
    }

    fn panic_now(&self) -> bool {
        let mut counts = Counts::default();
        for candidate in self.candidates.iter().filter(|c| self.is_eligible(c)) {
            counts.add(candidate, self.now, self.slow_start);
        }
        counts.panic()
    }

    /// Round robin by tickets. A refused ticket is used up, so that the neighbour of an endpoint that is
    /// out does not get that one's share on top of its own. `None` after two rounds without a taker.
    fn in_turn(&self, may: impl Fn(usize) -> bool, draw: &mut impl FnMut() -> u64) -> Option<usize> {
        let n = self.candidates.len();
        (0..2 * n).find_map(|_| {
            let i = self.outlook.cursor.fetch_add(1, Relaxed) % n;
            if !may(i) {
                return None;
            }
            let share = self.share(i);
            (share >= 1.0 || unit(draw()) < share).then_some(i)
        })
    }

    /// Chooses in proportion to the shares, in one pass.
    fn lottery(&self, pool: impl Iterator<Item = usize>, draw: &mut impl FnMut() -> u64) -> Option<usize> {
        let (mut total, mut chosen) = (0.0, None);
        for i in pool {
            let share = self.share(i);
            total += share;
            if chosen.is_none() || unit(draw()) * total < share {
                chosen = Some(i);
            }
        }
        chosen
    }

    fn cheapest(&self, pool: impl Iterator<Item = usize>) -> Option<usize> {
        let mut best = None;
        for i in pool {
            let cost = self.cost(i);
            if best.is_none_or(|(_, least)| cost < least) {
                best = Some((i, cost));
            }
        }
        best.map(|(i, _)| i)
    }

    fn cost(&self, i: usize) -> f64 {
        let candidate = &self.candidates[i];
        let load = candidate.load();
        let cost = match self.strategy {
            Strategy::PeakEwma => load.cost_peak_ewma(self.now, self.outlook.seed_ns()),
            Strategy::LeastConnections => load.cost_least_connections(self.now),
            _ => load.cost_least_request(self.now),
        };
        cost / (f64::from(candidate.weight()) * self.standing(candidate))
    }

    /// The share for strategies without costs.
    fn share(&self, i: usize) -> f64 {
        let candidate = &self.candidates[i];
        let weight = if self.strategy == Strategy::Weighted { f64::from(candidate.weight()) } else { 1.0 };
        weight * self.standing(candidate)
    }

    /// Slow start and zone, 0..=1. When no endpoint of the own zone may take the call, the zone's factor is
    /// the same for all others and decides nothing.
    fn standing(&self, candidate: &C) -> f64 {
        let zone = if candidate.is_local() { 1.0 } else { OTHER_ZONE };
        candidate.load().warmth(self.now, self.slow_start) / zone
    }

    fn is_eligible(&self, candidate: &C) -> bool {
        candidate.eligible() && candidate.weight() > 0 && (self.admits)(candidate)
    }

    fn is_usable(&self, i: usize) -> bool {
        let candidate = &self.candidates[i];
        self.is_eligible(candidate) && candidate.has_room() && (self.panic || !candidate.is_ejected())
    }

    fn is_preferred(&self, i: usize) -> bool {
        self.is_usable(i) && self.candidates[i].load().penalty_ns(self.now) == 0
    }
}

/// The indices of the bits that are set.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let i = first(self.0)?;
        self.0 &= self.0 - 1;
        Some(i)
    }
}

fn first(mask: u64) -> Option<usize> {
    (mask != 0).then(|| mask.trailing_zeros() as usize)
}

/// The `n`-th bit that is set; fewer must be an error of the caller.
fn nth(mut mask: u64, n: usize) -> usize {
    for _ in 0..n {
        mask &= mask - 1;
    }
    mask.trailing_zeros() as usize
}

/// Maps 64 random bits to 0..n without a division.
fn below(bits: u64, n: usize) -> usize {
    ((u128::from(bits) * n as u128) >> 64) as usize
}

/// Maps 64 random bits to 0..1.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
