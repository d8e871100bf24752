//! Latencies in a histogram of logarithmic buckets: bounded memory, error below 1.6 %.

/// Buckets of an octave, as a power of two.
const BITS: u32 = 6;

/// Counts of durations in nanoseconds.
#[derive(Clone, Default)]
pub struct Hist {
    counts: Vec<u64>,
    total: u64,
}

impl Hist {
    /// One more value.
    pub fn record(&mut self, nanos: u64) {
        let at = index(nanos);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
    }

    /// How many values.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// The value in microseconds at or below which `share` (0..1) of all lie; NaN of none.
    pub fn micros(&self, share: f64) -> f64 {
        let rank = (share * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, n) in self.counts.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return middle(at) / 1e3;
            }
        }
        f64::NAN
    }
}

fn index(v: u64) -> usize {
    let shift = (v | 1).ilog2().saturating_sub(BITS);
    ((u64::from(shift) << BITS) + (v >> shift)) as usize
}

fn middle(at: usize) -> f64 {
    let per = 1_usize << BITS;
    if at < 2 * per {
        return at as f64;
    }
    let shift = (at >> BITS) - 1;
    let low = ((at & (per - 1)) + per) << shift;
    low as f64 + ((1_u64 << shift) as f64 - 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_within_the_promised_error() {
        for v in (0..64).map(|e| 1_u64 << e).flat_map(|v| [v - 1, v, v + v / 3]) {
            let mut hist = Hist::default();
            hist.record(v);
            let got = hist.micros(1.0) * 1e3;
            assert!((got - v as f64).abs() <= v as f64 * 0.016, "{v} came back as {got}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut hist = Hist::default();
        (1..=1000).for_each(|v| hist.record(v * 1000));
        assert!((hist.micros(0.5) - 500.0).abs() < 8.0);
        assert!((hist.micros(0.99) - 990.0).abs() < 16.0);
    }
}
