//! Chance, from a seed: the same seed gives the same run.

/// A generator.
#[derive(Clone, Debug)]
pub(crate) struct Random(fastrand::Rng);

impl Random {
    /// One for each purpose: `stream` keeps them apart, so that what one policy draws does not move another's load.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(stream)))
    }

    /// 0..1, never 0.
    fn open(&mut self) -> f64 {
        1.0 - self.0.f64()
    }

    /// Exponential.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.open().ln()
    }

    /// Even between two values.
    pub(crate) fn uniform(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.0.f64()
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.0.f64() < share
    }

    /// 0..n; 0 for none.
    pub(crate) fn index(&mut self, n: usize) -> usize {
        if n < 2 { 0 } else { self.0.usize(..n) }
    }

    /// Standard normal (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        (-2.0 * self.open().ln()).sqrt() * (std::f64::consts::TAU * self.0.f64()).cos()
    }
}

/// Log-normal with mean 1, drawn from a table: a draw costs a few nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct LogNormal(Vec<f64>);

impl LogNormal {
    /// `sigma` of the logarithm.
    pub(crate) fn new(sigma: f64, random: &mut Random) -> Self {
        let draw = |_| (sigma * random.normal() - sigma * sigma / 2.0).exp();
        let mut table: Vec<f64> = (0..4096).map(draw).collect();
        let mean = table.iter().sum::<f64>() / table.len() as f64;
        for value in &mut table {
            *value /= mean;
        }
        Self(table)
    }

    /// A draw.
    pub(crate) fn draw(&self, random: &mut Random) -> f64 {
        self.0[random.index(self.0.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_what_was_asked_for() {
        let mut random = Random::new(7, 1);
        let n = 100_000;
        let exponential: f64 = (0..n).map(|_| random.exponential(3.0)).sum::<f64>() / f64::from(n);
        assert!((2.95..3.05).contains(&exponential), "{exponential}");
        let table = LogNormal::new(0.5, &mut random);
        let mean: f64 = (0..n).map(|_| table.draw(&mut random)).sum::<f64>() / f64::from(n);
        assert!((0.98..1.02).contains(&mean), "{mean}");
        let (mut one, mut other) = (Random::new(7, 1), Random::new(7, 2));
        assert!((0..10).any(|_| one.index(1000) != other.index(1000)), "streams differ");
    }
}
