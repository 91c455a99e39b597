//! Intervals by a block bootstrap at 90 %: the blocks of the window are drawn with replacement, and
//! each draw is measured like the whole window.
//!
//! Whole blocks keep what is correlated in time (a wait and the hold that it waits for, a phase of
//! the program). The random generator is part of gilprof and has a fixed seed, so one profile
//! always gives the same report.

use super::report::Estimate;
use crate::profile::{Block, Profile};
use crate::sample::{State, StateTimes};

/// Number of draws.
const DRAWS: usize = 200;
/// Number of draws for thousands of threads: 40 draws still have a 5 % quantile.
const MIN_DRAWS: usize = 40;
/// Threads times draws above which the number of draws shrinks.
const DRAW_BUDGET: usize = 100_000;
/// Quantile of each end of the interval.
const TAIL: f64 = 0.05;

/// The measures of the whole window and of each draw.
pub(super) struct Bootstrap<M> {
    whole: M,
    draws: Vec<M>,
}

impl<M> Bootstrap<M> {
    /// Measures the window and each draw. `measure` gets the time of each thread, by index into the
    /// threads of the profile, in thread-seconds per second of wall time.
    pub(super) fn new(profile: &Profile, measure: impl Fn(&[StateTimes]) -> M) -> Bootstrap<M> {
        Bootstrap::of_blocks(profile.blocks.len(), profile.threads.len(), |blocks| measure(&rates(profile, blocks)))
    }

    /// Measures the window and each draw, given as indices of blocks. More threads take longer to
    /// measure, so that there are fewer draws.
    pub(super) fn of_blocks(blocks: usize, threads: usize, measure: impl Fn(&[usize]) -> M) -> Bootstrap<M> {
        let draws = (DRAW_BUDGET / threads.max(1)).clamp(MIN_DRAWS, DRAWS);
        let all: Vec<usize> = (0..blocks).collect();
        let mut rng = Rng(0x6769_6c70_726f_6621);
        let mut draw = || {
            let drawn: Vec<usize> = all.iter().map(|_| rng.below(all.len())).collect();
            measure(&drawn)
        };
        let draws = (0..draws).map(|_| draw()).collect();
        Bootstrap { whole: measure(&all), draws }
    }

    /// The measures of the whole window.
    pub(super) fn whole(&self) -> &M {
        &self.whole
    }

    /// A prediction of the window. Each of its ends is a figure of its own, whose outer quantile is
    /// the end of the interval.
    pub(super) fn prediction(&self, of: impl Fn(&M) -> Estimate) -> Estimate {
        Estimate {
            estimate: of(&self.whole).estimate,
            low: self.interval(|measures| of(measures).low).low,
            high: self.interval(|measures| of(measures).high).high,
        }
    }

    /// One figure of the window, with its interval from the draws.
    pub(super) fn interval(&self, figure: impl Fn(&M) -> f64) -> Estimate {
        let estimate = figure(&self.whole);
        let mut drawn: Vec<f64> = self.draws.iter().map(&figure).collect();
        drawn.sort_by(f64::total_cmp);
        let at = |q: f64| drawn[((drawn.len() - 1) as f64 * q).round() as usize];
        Estimate { estimate, low: at(TAIL).min(estimate), high: at(1.0 - TAIL).max(estimate) }
    }
}

/// A single figure with its interval.
pub(super) fn interval(profile: &Profile, measure: impl Fn(&[StateTimes]) -> f64) -> Estimate {
    Bootstrap::new(profile, measure).interval(|figure| *figure)
}

/// A share with its interval, from the part and the whole of each block; zero where the whole is.
pub(super) fn block_share(profile: &Profile, of_block: impl Fn(&Block) -> (f64, f64)) -> Estimate {
    let parts: Vec<(f64, f64)> = profile.blocks.iter().map(of_block).collect();
    let share = |blocks: &[usize]| {
        let (part, of) = blocks.iter().fold((0.0, 0.0), |sum, &block| (sum.0 + parts[block].0, sum.1 + parts[block].1));
        if of > 0.0 {
            part / of
        } else {
            0.0
        }
    };
    Bootstrap::of_blocks(profile.blocks.len(), 1, share).interval(|share| *share)
}

/// The normal distribution's 95 % quantile, for both ends of a 90 % interval.
const Z: f64 = 1.645;

/// A share of a number of samples: Wilson's interval (1927), which also holds near 0 and 1.
/// Successive samples are not independent, so this is only for figures without blocks.
pub(super) fn share_interval(part: f64, of: f64, samples: f64) -> Estimate {
    if of <= 0.0 || samples <= 0.0 {
        return Estimate { estimate: 0.0, low: 0.0, high: if of > 0.0 { 1.0 } else { 0.0 } };
    }
    let (p, n) = ((part / of).clamp(0.0, 1.0), samples);
    let (middle, scale) = (p + Z * Z / (2.0 * n), 1.0 + Z * Z / n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Estimate { estimate: p, low: ((middle - half) / scale).clamp(0.0, p), high: ((middle + half) / scale).clamp(p, 1.0) }
}

/// A rate from a count of events in `seconds`, assumed to be a Poisson process.
pub(super) fn rate_interval(events: f64, seconds: f64) -> Estimate {
    if seconds <= 0.0 {
        return Estimate { estimate: 0.0, low: 0.0, high: f64::INFINITY };
    }
    let half = Z * events.max(0.0).sqrt() + Z;
    Estimate { estimate: events / seconds, low: (events - half).max(0.0) / seconds, high: (events + half) / seconds }
}

/// Every thread's time over some blocks, per second of those blocks.
pub(super) fn rates(profile: &Profile, blocks: &[usize]) -> Vec<StateTimes> {
    let wall: f64 = blocks.iter().map(|&b| profile.blocks[b].nanos).sum();
    let mut sums = vec![StateTimes::default(); profile.threads.len()];
    for &block in blocks {
        for (thread, times) in &profile.blocks[block].threads {
            sums[*thread].merge(times);
        }
    }
    sums.iter().map(|sum| divided(sum, wall)).collect()
}

/// Times divided by a time; zero when that time is zero.
pub(super) fn divided(times: &StateTimes, nanos: f64) -> StateTimes {
    let mut out = StateTimes::default();
    if nanos > 0.0 {
        State::ALL.iter().for_each(|&s| out.add(s, times.get(s) / nanos));
    }
    out
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Rng(pub(super) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; the bias for such small `n` is below 2^-50.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::Scene;

    fn holding(profile: &Profile) -> Estimate {
        interval(profile, |threads| threads.iter().map(StateTimes::holding).sum())
    }

    #[test]
    fn a_steady_program_has_a_narrow_interval_and_a_phased_one_a_wide_one() {
        let steady = Scene::new(2.0).run(4000, |t| vec![if t % 2 == 0 { "P burn" } else { "I sleep" }]);
        let phased = Scene::new(2.0).run(4000, |t| vec![if t < 2000 { "P burn" } else { "I sleep" }]);
        let (s, p) = (holding(&steady), holding(&phased));
        assert!((s.estimate - 0.5).abs() < 1e-9 && (p.estimate - 0.5).abs() < 1e-9);
        assert!(s.high - s.low < 0.02, "{s:?}");
        assert!(p.high - p.low > 0.1 && p.low > 0.2 && p.high < 0.8, "{p:?}");
    }

    #[test]
    fn the_same_profile_gives_the_same_interval() {
        let profile = Scene::new(2.0).run(500, |t| vec![if t % 70 < 30 { "P burn" } else { "I sleep" }]);
        assert_eq!(holding(&profile), holding(&profile));
    }

    #[test]
    fn shares_and_counts_have_intervals() {
        let s = share_interval(2.0, 10.0, 1000.0);
        assert!(s.estimate == 0.2 && (0.178..0.182).contains(&s.low) && (0.219..0.223).contains(&s.high), "{s:?}");
        assert_eq!(share_interval(0.0, 0.0, 5.0).high, 0.0);
        assert!(share_interval(0.0, 1.0, 100.0).high < 0.03 && share_interval(0.0, 1.0, 0.0).high == 1.0);
        let c = rate_interval(100.0, 2.0);
        assert!(c.estimate == 50.0 && c.low < 42.0 && c.high > 58.0 && rate_interval(0.0, 1.0).high < 2.0);
    }

    #[test]
    fn an_empty_profile_gives_zero() {
        assert_eq!(holding(&Scene::new(2.0).run(0, |_| vec![])), Estimate { estimate: 0.0, low: 0.0, high: 0.0 });
    }
}
