//! Durations in logarithmic buckets, eight per doubling, so that a quantile is within 5 % of the
//! true value at any scale.

use serde::{Deserialize, Serialize};

/// The lower bound of the first bucket, in nanoseconds; shorter durations share bucket 0.
const FIRST: f64 = 1_000.0;
/// Buckets per doubling.
const PER_OCTAVE: f64 = 8.0;
/// The last bucket, which takes everything longer than about an hour.
const LAST: usize = 256;

/// Bounds on what a file may claim, so that sums cannot overflow. No capture reaches them.
const MAX_COUNTED: u64 = 1 << 48;
const MAX_NANOS: f64 = 1e20;

/// The ratio of a bucket's end to its middle: a quantile may be off by this factor.
pub const QUANTILE_ERROR: f64 = 1.0443;

/// Counts of durations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: f64,
    sum: f64,
}

impl Histogram {
    /// Counts one duration, in nanoseconds.
    pub fn record(&mut self, nanos: f64) {
        let bucket = if nanos < FIRST { 0 } else { 1 + ((nanos / FIRST).log2() * PER_OCTAVE) as usize }.min(LAST);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
        self.sum += nanos;
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
        self.sum += other.sum;
    }

    /// Whether the fields are consistent and within bounds: a histogram may come from a file.
    pub fn is_sound(&self) -> bool {
        let counted = self.counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
        let times = [self.max, self.sum].iter().all(|nanos| (0.0..=MAX_NANOS).contains(nanos));
        self.counts.len() <= LAST + 1 && counted == Some(self.count) && self.count < MAX_COUNTED && times
    }

    /// The number of durations counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The exact mean, in nanoseconds; `None` when nothing was counted.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The exact maximum, in nanoseconds.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The duration that a share `q` of all durations does not exceed, in nanoseconds; `None` when
    /// nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((self.count as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && self.count > 0 {
                let middle = FIRST * 2f64.powf((bucket as f64 - 0.5) / PER_OCTAVE);
                return Some(middle.min(self.max));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_one_bucket() {
        let mut h = Histogram::default();
        assert_eq!((h.quantile(0.5), h.mean()), (None, None));
        (1..=1000).for_each(|ms| h.record(f64::from(ms) * 1e6));
        assert_eq!(h.mean(), Some(500.5e6));
        let near = |q: f64, ms: f64| (h.quantile(q).unwrap() / 1e6 / ms - 1.0).abs() < 0.06;
        assert!(near(0.5, 500.0) && near(0.99, 990.0));
        assert_eq!(h.max(), 1e9);
    }

    #[test]
    fn merging_equals_recording_both() {
        let (mut a, mut b, mut both) = (Histogram::default(), Histogram::default(), Histogram::default());
        for n in [0.0, 5e3, 5e6] {
            a.record(n);
            b.record(n * 10.0);
            both.record(n);
            both.record(n * 10.0);
        }
        a.merge(&b);
        assert_eq!(a, both);
    }
}
