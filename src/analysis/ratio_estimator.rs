//! Intervals of figures from their scatter between buckets of a window, or between runs.
//!
//! A ratio of two sums is linearised around its value (Cochran, Sampling Techniques, 1977, section
//! 6.4). Successive buckets may be correlated; the scatter over buckets of twice the length is then
//! larger, and the larger of the two counts (batch means). For quantiles, whole buckets are drawn
//! with replacement, as `bootstrap` does with blocks.

use super::bootstrap::Rng;
use super::report::Estimate;
use crate::profile::Histogram;

/// Student's t at 99 %, two-sided, for 1 to 15 degrees of freedom.
const STUDENT: [f64; 15] = [63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012, 2.977, 2.947];
/// The same for more degrees of freedom.
const STUDENT_MORE: [(usize, f64); 4] = [(20, 2.947), (30, 2.845), (60, 2.750), (usize::MAX, 2.660)];
/// Number of draws.
const DRAWS: usize = 400;
/// Quantile of each end of an interval at 99 %.
const TAIL: f64 = 0.005;

/// Student's t at 99 %, two-sided. Never too small: between two rows of the table the row with
/// fewer degrees of freedom counts.
pub fn student_t(freedom: usize) -> f64 {
    let more = || STUDENT_MORE.iter().find(|(most, _)| freedom < *most).map_or(STUDENT_MORE[3].1, |(_, t)| *t);
    match freedom {
        0 => f64::INFINITY,
        n => STUDENT.get(n - 1).copied().unwrap_or_else(more),
    }
}

/// The ratio of two sums, and its variance from the scatter of the parts.
pub fn ratio(parts: &[f64], wholes: &[f64]) -> (f64, f64) {
    let (part, whole): (f64, f64) = (parts.iter().sum(), wholes.iter().sum());
    let n = parts.len().min(wholes.len()) as f64;
    if whole <= 0.0 || n < 2.0 {
        return (0.0, 0.0);
    }
    let ratio = part / whole;
    let residual = |(p, w): (&f64, &f64)| (p - ratio * w) / (whole / n);
    let squares: f64 = parts.iter().zip(wholes).map(|pair| residual(pair).powi(2)).sum();
    (ratio, squares / (n * (n - 1.0)))
}

/// The ratio of two sums with its interval at 99 %, for parts that may be correlated. `None` if the
/// wholes add to zero.
pub fn interval(parts: &[f64], wholes: &[f64]) -> Option<Estimate> {
    if wholes.iter().sum::<f64>() <= 0.0 {
        return None;
    }
    let (value, scatter) = ratio(parts, wholes);
    let (_, of_pairs) = ratio(&pairs(parts), &pairs(wholes));
    let half = student_t(parts.len().saturating_sub(1)) * scatter.max(of_pairs).sqrt();
    Some(Estimate { estimate: value, low: value - half, high: value + half })
}

fn pairs(series: &[f64]) -> Vec<f64> {
    series.chunks(2).map(|pair| pair.iter().sum()).collect()
}

/// A figure of lengths with its interval at 99 %, from draws of whole buckets. `None` when nothing
/// was counted.
pub fn length_interval(buckets: &[Histogram], measure: impl Fn(&Histogram) -> Option<f64>) -> Option<Estimate> {
    let of = |drawn: &mut dyn Iterator<Item = usize>| {
        let mut all = Histogram::default();
        drawn.filter_map(|n| buckets.get(n)).for_each(|bucket| all.merge(bucket));
        measure(&all)
    };
    let estimate = of(&mut (0..buckets.len()))?;
    let mut rng = Rng(0x6761_7465_2121_2121);
    let mut draws: Vec<f64> = (0..DRAWS).filter_map(|_| of(&mut buckets.iter().map(|_| rng.below(buckets.len())))).collect();
    draws.sort_by(f64::total_cmp);
    let at = |q: f64| draws.get((draws.len().saturating_sub(1) as f64 * q).round() as usize).copied().unwrap_or(estimate);
    Some(Estimate { estimate, low: at(TAIL).min(estimate), high: at(1.0 - TAIL).max(estimate) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_falls_towards_the_normal_quantile() {
        assert_eq!((student_t(15), student_t(2), student_t(17), student_t(25)), (2.947, 9.925, 2.947, 2.845));
        assert!(student_t(0).is_infinite() && (1..200).all(|n| student_t(n) >= student_t(n + 1) && student_t(n) > 2.576));
    }

    #[test]
    fn correlated_buckets_make_an_interval_wider() {
        let wholes = [1.0; 16];
        let alternating: [f64; 16] = std::array::from_fn(|n| if n % 2 == 0 { 0.4 } else { 0.6 });
        let phases: [f64; 16] = std::array::from_fn(|n| if n % 4 < 2 { 0.4 } else { 0.6 });
        let half = |series: &[f64]| interval(series, &wholes).unwrap().high - 0.5;
        // Single buckets have the same scatter; in pairs the alternation vanishes and the phases
        // stay.
        assert_eq!(ratio(&alternating, &wholes), ratio(&phases, &wholes));
        assert!((half(&alternating) - 2.947 * (0.01f64 / 15.0).sqrt()).abs() < 1e-9, "{}", half(&alternating));
        assert!(half(&phases) > 1.4 * half(&alternating));
        assert_eq!(interval(&[0.0; 16], &[0.0; 16]), None);
    }

    #[test]
    fn quantiles_are_drawn_by_buckets() {
        let bucket = |ms: f64| {
            let mut h = Histogram::default();
            (0..50).for_each(|_| h.record(ms * 1e6));
            h
        };
        let p99 = |h: &Histogram| h.quantile(0.99);
        let alike = length_interval(&vec![bucket(5.0); 16], p99).unwrap();
        assert_eq!(alike.low, alike.high);
        let one: Vec<Histogram> = (0..16).map(|n| bucket(if n == 3 { 50.0 } else { 5.0 })).collect();
        let e = length_interval(&one, p99).unwrap();
        // One odd bucket of 16 is missing from every third draw: p99 is uncertain.
        assert!(e.low < 6e6 && e.high > 45e6, "{e:?}");
        assert_eq!(length_interval(&[], p99), None);
        assert_eq!(length_interval(&vec![Histogram::default(); 16], p99), None);
    }
}
