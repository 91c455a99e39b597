//! When to look: absolute deadlines, so that errors do not add up, with jitter, so that looks do not march in step with the target.
//!
//! CPython's switch interval is 5 ms and so a multiple of most sampling periods, and what a program does by a timer comes at multiples of
//! them too: looks at exact multiples would always see the same phase. Nor is it enough to jitter each look within its slot. A slot's middle
//! half leaves the other half unseen for ever, and within a whole slot late looks would follow longer gaps, and so stand for more time, than
//! early ones. So the phase wanders: from look to look by at most half a period, whichever way, between bounds a few periods apart. Over a
//! window every phase is met alike, and how long a gap was says nothing about the phase at its end.
//!
//! But a look disturbs the target: on a machine without an idle CPU it takes one from a thread, and what the threads do then depends on how
//! long ago that was. A look that stands for the gap before it counts the more the longer ago the last one was, and so counts some states too
//! much. Looks that come at random times and count alike see each state for its true share, whatever they do to the target (Wolff 1982:
//! Poisson arrivals see time averages); the nearer the weights are to each other, the smaller the error, which `sha256 half` in
//! docs/accuracy.md shows most. So the time that looks stand for goes on by one period each, and follows the clock only slowly.

use crate::units::Nanos;

/// The phase wanders between this many periods before and after the slot, so that looks keep their number.
const MAX_PHASE: f64 = 4.0;

/// A look's time follows the clock by one part in so many of how far it is off.
const WEIGHT_GAIN: f64 = 8.0;
/// It is off by so many periods at most.
const MAX_WEIGHT_ERROR: f64 = 2.0;
/// It is so far ahead of the look at most, for the window may end.
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
    /// Until when the last look stands for what threads do, in periods.
    weight_until: f64,
}

impl SampleSchedule {
    /// Slots of `rate_hz` per second from `start`. The rate must be positive.
    pub fn new(start: Nanos, rate_hz: f64, seed: u64) -> SampleSchedule {
        SampleSchedule { start, period: 1e9 / rate_hz, slot: 0, phase: 0.0, missed: 0, random: seed | 1, weight_until: -0.5 }
    }

    /// The time of the next look, given that it is `now`: half a period to one and a half after the last one. It may have passed.
    pub fn next(&mut self, now: Nanos) -> Nanos {
        self.slot += 1;
        let phase = self.phase + self.uniform() - 0.5;
        self.phase = if phase.abs() > MAX_PHASE { phase.signum() * 2.0 * MAX_PHASE - phase } else { phase };
        // A slot whose successor is due cannot be used any more.
        let current = (now.saturating_since(self.start).as_nanos() as f64 / self.period - self.phase).max(0.0) as u64;
        if current > self.slot {
            self.missed += current - self.slot;
            self.slot = current;
        }
        let at = (self.slot as f64 + self.phase) * self.period;
        Nanos::from_nanos(self.start.as_nanos().saturating_add(at.max(0.0) as u64))
    }

    /// Until when a look at `now` stands for what the threads do. What it stands for begins where the last one's ended.
    pub fn weight_until(&mut self, now: Nanos) -> Nanos {
        let sample = now.saturating_since(self.start).as_nanos() as f64 / self.period;
        let (even, middle) = (self.weight_until + 1.0, sample + 0.5);
        let off = middle - even;
        self.weight_until = if off.abs() > MAX_WEIGHT_ERROR { middle } else { even + off / WEIGHT_GAIN };
        let until = self.start + Nanos::from_nanos((self.weight_until * self.period).max(0.0) as u64);
        until.min(now + MAX_WEIGHT_AHEAD)
    }

    /// Slots that passed without a look.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// In [0, 1). Marsaglia's xorshift64: the quality of a coin is enough here.
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

    /// The times of `count` looks, in periods, where each is made in time.
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
    fn looks_keep_their_distance_and_their_number() {
        let samples = samples(10_000, 7);
        assert!(samples.windows(2).all(|pair| (0.49..=1.51).contains(&(pair[1] - pair[0]))));
        assert!((samples[10_000] - 10_000.0).abs() <= MAX_PHASE);
    }

    #[test]
    fn what_comes_by_a_timer_gets_its_share_at_every_phase() {
        // Each look stands for a period. What lasts .4 of one and begins at the same phase of every 20th.
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
    fn looks_stand_for_nearly_the_same_time_near_to_them() {
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
        // One that comes late stands for all of the time that nobody looked.
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
