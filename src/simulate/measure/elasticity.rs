//! Elasticity as SPEC's research group measures it (SPEC-RG-2016-01), over the seconds of a run.

use super::Second;

/// How well supply s (ready pods) followed demand d (pods needed).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Elasticity {
    /// θ_U: mean shortage, in percent of demand.
    pub theta_under: f64,
    /// θ_O: mean excess, in percent of demand.
    pub theta_over: f64,
    /// τ_U: percent of the time that was short.
    pub tau_under: f64,
    /// τ_O: percent of the time with excess.
    pub tau_over: f64,
    /// υ: percent of the time in which supply and demand moved differently.
    pub upsilon: f64,
}

impl Elasticity {
    pub(super) fn of(seconds: &[Second]) -> Self {
        let n = seconds.len().max(1) as f64;
        let mut sums = Self::default();
        for second in seconds {
            let (d, s) = (second.demand, f64::from(second.ready));
            // Without demand every pod is excess, measured against one.
            sums.theta_under += (d - s).max(0.0) / d.max(1.0);
            sums.theta_over += (s - d).max(0.0) / d.max(1.0);
            sums.tau_under += f64::from(d > s);
            sums.tau_over += f64::from(s > d);
        }
        for pair in seconds.windows(2) {
            let sign = |change: f64| {
                if change > 0.0 {
                    1.0
                } else if change < 0.0 {
                    -1.0
                } else {
                    0.0_f64
                }
            };
            let supply = sign(f64::from(pair[1].ready) - f64::from(pair[0].ready));
            let demand = sign(pair[1].demand - pair[0].demand);
            sums.upsilon += (supply - demand).abs().min(1.0);
        }
        Self {
            theta_under: 100.0 * sums.theta_under / n,
            theta_over: 100.0 * sums.theta_over / n,
            tau_under: 100.0 * sums.tau_under / n,
            tau_over: 100.0 * sums.tau_over / n,
            upsilon: 100.0 * sums.upsilon / (n - 1.0).max(1.0),
        }
    }

    /// How many times better than a baseline: the geometric mean over θ_U, θ_O, τ_U, τ_O. Each is raised by a tenth of a
    /// percent, so that a perfect one can be divided by.
    pub fn speedup(&self, baseline: &Self) -> f64 {
        let parts = |e: &Self| [e.theta_under, e.theta_over, e.tau_under, e.tau_over].map(|v| v + 0.1);
        let ratios = parts(baseline).into_iter().zip(parts(self)).map(|(theirs, ours)| theirs / ours);
        ratios.product::<f64>().powf(0.25)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_small_case() {
        let second = |demand: f64, ready: u32| Second { demand, ready, ..Second::default() };
        let e = Elasticity::of(&[second(4.0, 2), second(4.0, 4), second(2.0, 4), second(2.0, 2)]);
        assert!((e.theta_under - 12.5).abs() < 1e-9, "{e:?}");
        assert!((e.theta_over - 25.0).abs() < 1e-9);
        assert!((e.tau_under - 25.0).abs() < 1e-9);
        assert!((e.tau_over - 25.0).abs() < 1e-9);
        assert!((e.upsilon - 100.0).abs() < 1e-9, "supply moved a second after demand each time");
        assert!((e.speedup(&e) - 1.0).abs() < 1e-9);
    }
}
