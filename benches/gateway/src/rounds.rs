//! Rounds: the order is reversed in each, a measurement that others disturbed is dropped, counted and made again,
//! and what is told of the rest is the median with the least and the most.

use std::{collections::BTreeMap, time::Duration};

use crate::machine::Watch;

/// The numbers of one measurement, by name.
pub type Numbers = BTreeMap<&'static str, f64>;

/// All measurements of one target.
#[derive(Default)]
pub struct Samples {
    kept: Vec<Numbers>,
    disturbed: Vec<Numbers>,
    /// Why there is none.
    pub failure: Option<String>,
}

/// Median, least and most.
#[derive(Clone, Copy)]
pub struct Spread {
    /// Of the kept ones; NaN of none.
    pub median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// As "median (least–most)".
    pub fn show(self, digits: usize) -> String {
        let Self { median, least, most } = self;
        if median.is_nan() {
            return "–".into();
        }
        if (least - most).abs() < f64::EPSILON {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

impl Samples {
    /// Measures until a measurement is undisturbed, `again` times more at most. What the work hands back beside
    /// its numbers are processes that must live until it is known who used the machine.
    pub fn measure<T>(
        &mut self,
        limit: f64,
        again: usize,
        mut work: impl FnMut() -> anyhow::Result<(Numbers, T)>,
    ) {
        for _ in 0..=again {
            quiet(limit);
            let watch = Watch::start();
            match work() {
                Ok((numbers, _processes)) if watch.foreign() <= limit => return self.kept.push(numbers),
                Ok((numbers, _)) => self.disturbed.push(numbers),
                Err(error) => {
                    self.failure = Some(format!("{error:#}"));
                    return;
                }
            }
        }
    }

    /// One number over the rounds: the undisturbed ones, or all if there is no such.
    pub fn of(&self, name: &str) -> Spread {
        let from = if self.kept.is_empty() { &self.disturbed } else { &self.kept };
        let mut values: Vec<f64> = from.iter().filter_map(|n| n.get(name).copied()).collect();
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        let n = values.len();
        let median =
            if n % 2 == 1 { at(n / 2) } else { f64::midpoint(at(n / 2), at((n / 2).wrapping_sub(1))) };
        Spread { median, least: at(0), most: at(n.wrapping_sub(1)) }
    }

    /// Kept and dropped.
    pub fn counts(&self) -> (usize, usize) {
        (self.kept.len(), self.disturbed.len())
    }

    /// What to say of the rounds behind a row.
    pub fn remark(&self) -> String {
        match (&self.failure, self.counts()) {
            (Some(failure), (0, 0)) => failure.clone(),
            (_, (0, n)) => format!("  [all {n} disturbed]"),
            (_, (n, 0)) => format!("  [{n} rounds]"),
            (_, (n, dropped)) => format!("  [{n} rounds, {dropped} dropped]"),
        }
    }
}

/// Waits a little for a machine that nobody else uses.
fn quiet(limit: f64) {
    for _ in 0..if limit.is_finite() { 6 } else { 0 } {
        let watch = Watch::start();
        std::thread::sleep(Duration::from_millis(300));
        if watch.foreign() <= limit {
            return;
        }
    }
}

/// The order of a round: forwards and backwards in turn.
pub fn order<T: Copy>(all: &[T], round: usize) -> Vec<T> {
    let mut order = all.to_vec();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_undisturbed_rounds() {
        let numbers = |v: f64| Numbers::from([("x", v)]);
        let mut samples =
            Samples { kept: [3.0, 1.0].map(numbers).into(), disturbed: vec![numbers(99.0)], failure: None };
        assert_eq!(samples.of("x").show(1), "2.0 (1.0–3.0)");
        samples.kept.push(numbers(7.0));
        assert_eq!(samples.of("x").show(0), "3 (1–7)");
        samples.kept.clear();
        assert_eq!(samples.of("x").show(0), "99", "with no better ones, the disturbed are shown");
    }

    #[test]
    fn every_second_round_is_backwards() {
        assert_eq!([order(&[1, 2, 3], 0), order(&[1, 2, 3], 1)], [[1, 2, 3], [3, 2, 1]]);
    }
}
