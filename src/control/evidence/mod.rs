//! What counts say, at whatever moment one looks.
//!
//! Always: every `…_evidence` is ln E of an e-process: under its null, E reaches 1/α at any moment of a stream with
//! probability ≤ α (Ville 1939; Ramdas, Grünwald, Vovk, Shafer 2023, "Game-theoretic statistics and safe anytime-valid
//! inference"). Every interval covers at all moments at once. So looking after each request costs nothing.
//! Equal counts give equal bits on every machine: logarithms and gammas are `libm`'s.
//! Not here: thresholds, decisions, clocks.

mod difference;
mod exceeds;
mod interval;
mod restarts;
mod split;

pub use difference::{Moments, difference_evidence};
pub use exceeds::{Excess, exceeds_evidence};
pub use interval::{Interval, mean_interval, proportion_interval, proportion_lower, proportion_upper};
pub use restarts::Restarts;
pub use split::split_evidence;

/// ln of the beta function, for `a`, `b` > 0.
fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// ln of the sum of the values' exponentials; never overflows. −∞ for no values.
pub(super) fn ln_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    largest + libm::log(values.map(|value| libm::exp(value - largest)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_exponentials_neither_overflow_nor_vanish() {
        for (values, sum) in [
            (&[][..], f64::NEG_INFINITY),
            (&[0.0, 0.0], std::f64::consts::LN_2),
            (&[5000.0, 5000.0], 5000.0 + std::f64::consts::LN_2),
            (&[-5000.0, -5000.0], -5000.0 + std::f64::consts::LN_2),
            (&[1.0, f64::INFINITY], f64::INFINITY),
            (&[1.0, f64::NEG_INFINITY], 1.0),
        ] {
            let found = ln_sum_exp(values.iter().copied());
            assert!(found == sum || (found - sum).abs() < 1e-9, "{values:?}: {found}");
        }
    }
}
