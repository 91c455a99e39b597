//! When to sample: at absolute deadlines, so that errors do not add up, with jitter, so that
//! samples do not lock in phase with the target.
//!
//! CPython's switch interval of 5 ms is a multiple of most sampling periods, and so are the periods
//! of many timers in programs. Samples at exact multiples would always hit the same phase. Jitter
//! of each sample within its slot is not enough. Jitter within the middle half of a slot never
//! samples the other half. Jitter within the whole slot makes late samples follow longer gaps, and
//! so stand for more time, than early ones. So the phase is a random walk: it changes by at most
//! half a period from sample to sample, in either direction, and is reflected at `MAX_PHASE`
//! periods. Over a window all phases are sampled equally, and the length of a gap is independent of
//! the phase at its end.
//!
//! A sample also disturbs the target. On a machine without an idle CPU it preempts a thread, and
//! what the threads do next depends on how long ago that was. Weighting a sample by the gap before
//! it would give more weight to samples long after a disturbance, and so bias the states. Samples
//! at random times with equal weights give each state its true share, whatever the samples do to
//! the target (Wolff 1982: Poisson arrivals see time averages). The nearer the weights are to each
//! other, the smaller the error; `sha256 half` in docs/accuracy.md shows this most. So the end of
//! the time that a sample stands for advances by one period a sample, and follows the clock only
//! slowly.

use crate::units::Nanos;

/// The phase stays within this many periods before and after the slot, so that the number of
/// samples stays right.
const MAX_PHASE: f64 = 4.0;

/// The weight's end moves toward the clock by one part in this many of the difference.
const WEIGHT_GAIN: f64 = 8.0;
/// The largest difference between the weight's end and the clock, in periods.
const MAX_WEIGHT_ERROR: f64 = 2.0;
/// How far the weight's end may be ahead of the sample, because the window may end.
const MAX_WEIGHT_AHEAD: Nanos = Nanos::from_millis(20);

/// The slots of a window.
#[derive(Debug)]
pub struct SampleSchedule {
    start: Nanos,
    period: f64,
    slot: u64,
    /// In periods.
    phase: f64,
    missed: u64,
    random: u64,
    /// The end of the time that the last sample stands for, in periods.
    weight_until: f64,
}

impl SampleSchedule {
    /// Slots of `rate_hz` per second from `start`. The rate must be positive.
    pub fn new(start: Nanos, rate_hz: f64, seed: u64) -> SampleSchedule {
        SampleSchedule { start, period: 1e9 / rate_hz, slot: 0, phase: 0.0, missed: 0, random: seed | 1, weight_until: -0.5 }
    }

    /// The time of the next sample, given the time `now`: half a period to one and a half after the
    /// last one. That time may have passed.
    pub fn next(&mut self, now: Nanos) -> Nanos {
        self.slot += 1;
        let phase = self.phase + self.uniform() - 0.5;
        self.phase = if phase.abs() > MAX_PHASE { phase.signum() * 2.0 * MAX_PHASE - phase } else { phase };
        // A slot is missed once its successor is due.
        let current = (now.saturating_since(self.start).as_nanos() as f64 / self.period - self.phase).max(0.0) as u64;
        if current > self.slot {
            self.missed += current - self.slot;
            self.slot = current;
        }
        let at = (self.slot as f64 + self.phase) * self.period;
        Nanos::from_nanos(self.start.as_nanos().saturating_add(at.max(0.0) as u64))
    }

    /// The end of the time that a sample at `now` stands for. That time begins where the last
    /// sample's ended.
    pub fn weight_until(&mut self, now: Nanos) -> Nanos {
        let sample = now.saturating_since(self.start).as_nanos() as f64 / self.period;
        let (even, middle) = (self.weight_until + 1.0, sample + 0.5);
        let off = middle - even;
        self.weight_until = if off.abs() > MAX_WEIGHT_ERROR { middle } else { even + off / WEIGHT_GAIN };
        let until = self.start + Nanos::from_nanos((self.weight_until * self.period).max(0.0) as u64);
        until.min(now + MAX_WEIGHT_AHEAD)
    }

    /// Slots that passed without a sample.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// A uniform number in [0, 1). Marsaglia's xorshift64 is good enough for jitter.
    fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of `count` samples, in periods, each taken in time.
    fn samples(count: usize, seed: u64) -> Vec<f64> {
        let mut schedule = SampleSchedule::new(Nanos::from_millis(100), 1000.0, seed);
        let mut now = Nanos::from_millis(100);
        let mut samples = vec![0.0];
        for _ in 0..count {
            now = schedule.next(now);
            samples.push(now.saturating_since(Nanos::from_millis(100)).as_nanos() as f64 / 1e6);
        }
        assert_eq!(schedule.missed(), 0);
        samples
    }

    #[test]
    fn samples_keep_their_distance_and_their_number() {
        let samples = samples(10_000, 7);
        assert!(samples.windows(2).all(|pair| (0.49..=1.51).contains(&(pair[1] - pair[0]))));
        assert!((samples[10_000] - 10_000.0).abs() <= MAX_PHASE);
    }

    #[test]
    fn periodic_events_get_their_share_at_every_phase() {
        // Each sample stands for a period. The event lasts .4 of a period and begins at the same
        // phase of every 20th.
        let samples = samples(200_000, 0x9e37_79b9_7f4a_7c15);
        for tenth in 0..10 {
            let begins = f64::from(tenth) / 10.0;
            let hits = |at: f64| (at - begins).rem_euclid(20.0) < 0.4;
            let sampled = samples.iter().filter(|at| hits(**at)).count() as f64;
            let share = sampled / (0.4 * 200_000.0 / 20.0);
            assert!((0.93..1.07).contains(&share), "at phase {begins}: {share} of its time");
        }
    }

    #[test]
    fn sample_weights_are_nearly_equal_and_near_their_samples() {
        let start = Nanos::from_millis(100);
        let mut schedule = SampleSchedule::new(start, 1000.0, 5);
        let (mut now, mut before) = (start, start);
        let mut lengths = Vec::new();
        for _ in 0..10_000 {
            let until = schedule.weight_until(now);
            assert!(
                until >= before
                    && until.saturating_since(now) <= Nanos::from_micros(2500)
                    && now.saturating_since(until) <= Nanos::from_micros(1500)
            );
            lengths.push(until.saturating_since(before).as_nanos() as f64 / 1e6);
            (before, now) = (until, schedule.next(now));
        }
        let off = lengths.iter().map(|length| (length - 1.0).powi(2)).sum::<f64>() / lengths.len() as f64;
        assert!(off.sqrt() < 0.1, "{}", off.sqrt());
        // A late sample stands for all of the time without a sample.
        now += Nanos::from_millis(50);
        assert!(schedule.weight_until(now) > now);
    }

    #[test]
    fn slots_that_passed_are_missed() {
        let mut schedule = SampleSchedule::new(Nanos::ZERO, 1000.0, 7);
        schedule.next(Nanos::ZERO);
        let now = Nanos::from_micros(10_500);
        let at = schedule.next(now);
        assert!(at > now - Nanos::from_millis(1) && at <= now, "{at:?}");
        assert!((7..=9).contains(&schedule.missed()), "{}", schedule.missed());
    }
}
