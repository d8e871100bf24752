//! From the demands of several signals to one (autoscaling.md section 4.1 step 4). Homogeneous of degree 1 and
//! monotone: twice the load asks for twice as many, and more of anything never for fewer.

use crate::autoscale::policy::Combine;

use super::demand::Demand;

/// D while there are `n` replicas; `None` without a demand. With `few_ready`, signals of single pods do not ask for more
/// than there are (guard G2). `asked`: the weights of all signals that should be known; in a mean, one that is not known
/// keeps its weight and asks for nothing, so that its absence alone raises nothing.
pub(super) fn combine(how: Combine, demands: &[Demand], n: f64, few_ready: bool, asked: f64) -> Option<f64> {
    let replicas = |d: &Demand| {
        let wanted = d.replicas(n);
        if few_ready && d.of_pods { wanted.min(n) } else { wanted }
    };
    let all = || demands.iter().filter(|d| d.weight > 0.0).map(|d| (d.weight, replicas(d)));
    match how {
        Combine::PowerMean { exponent } => power_mean(exponent, all(), asked),
        Combine::Max | Combine::WeightedSum(_) => all().map(|(_, d)| d).reduce(f64::max),
    }
}

/// `(Σ ŵ dᵖ)^(1/p)`, taken relative to the greatest, so that no power overflows.
fn power_mean(exponent: f64, all: impl Iterator<Item = (f64, f64)> + Clone, asked: f64) -> Option<f64> {
    let greatest = all.clone().map(|(_, d)| d).reduce(f64::max)?;
    if greatest <= 0.0 {
        return Some(0.0);
    }
    let weights = all.clone().map(|(w, _)| w).sum::<f64>().max(asked);
    let sum: f64 = all.map(|(w, d)| w / weights * (d / greatest).powf(exponent)).sum();
    Some(greatest * sum.powf(1.0 / exponent))
}
