//! When to look: absolute deadlines, so that errors do not add up, with jitter, so that looks do not march in step with the target.
//!
//! CPython's switch interval is 5 ms and so a multiple of most sampling periods; looks at exact multiples would always see the same phase
//! of the hand-off. Each look falls somewhere in the middle half of its slot, and slots that have passed unused are counted as missed.

use crate::units::Nanos;

/// The slots of a window.
#[derive(Debug)]
pub struct Clock {
    start: Nanos,
    period: f64,
    slot: u64,
    missed: u64,
    random: u64,
}

impl Clock {
    /// Slots of `rate_hz` per second from `start`. The rate must be positive.
    pub fn new(start: Nanos, rate_hz: f64, seed: u64) -> Clock {
        Clock { start, period: 1e9 / rate_hz, slot: 0, missed: 0, random: seed | 1 }
    }

    /// The time of the next look, given that it is `now`.
    pub fn next(&mut self, now: Nanos) -> Nanos {
        self.slot += 1;
        // The slot that `now` lies in can still be used; those before it cannot.
        let current = (now.since(self.start).as_nanos() as f64 / self.period) as u64;
        if current > self.slot {
            self.missed += current - self.slot;
            self.slot = current;
        }
        let at = (self.slot as f64 + 0.25 + 0.5 * self.uniform()) * self.period;
        Nanos::from_nanos(self.start.as_nanos().saturating_add(at as u64))
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

    #[test]
    fn looks_stay_in_their_slots_and_are_not_periodic() {
        let mut clock = Clock::new(Nanos::from_millis(100), 1000.0, 7);
        let mut now = Nanos::from_millis(100);
        let mut phases = std::collections::HashSet::new();
        for slot in 1..=1000u64 {
            let at = clock.next(now);
            let from = Nanos::from_millis(100 + slot);
            assert!(at >= from && at < from + Nanos::from_millis(1), "look {slot} at {at:?}");
            phases.insert(at.since(from).as_nanos() / 50_000);
            now = at;
        }
        assert_eq!(clock.missed(), 0);
        assert!(phases.len() >= 9, "{phases:?}");
    }

    #[test]
    fn slots_that_passed_are_missed() {
        let mut clock = Clock::new(Nanos::ZERO, 1000.0, 7);
        clock.next(Nanos::ZERO);
        let at = clock.next(Nanos::from_micros(10_500));
        assert_eq!(clock.missed(), 8);
        assert!(at >= Nanos::from_millis(10) && at < Nanos::from_millis(11));
    }
}
