//! One GIL's figures, from its samples and from the waiting of its threads.
//!
//! `busy` and the switches come from the samples. The mean number of waiters comes from the slices
//! alone: slices hold both the waiters that a sample identified at once and those that conservation
//! identified later.
//!
//! `contended` needs to know *when* a thread waited. A sample with an identified waiter is
//! contended as a whole. To any other sample, each slice that covers it adds the chance that its
//! thread was waiting then, which is the waiting part of the slice. Chances of several threads are
//! taken as independent: 1 − Π(1 − p). Slices arrive up to a block late, so the most recent samples
//! are kept. A slice later than all of those adds nothing, which makes `contended` a floor.

use crate::ids::GilId;
use crate::sample::{GilSample, Holder};
use crate::units::Nanos;
use std::collections::VecDeque;

/// The number of samples kept for late slices: 200 ms at the highest sensible rate.
const MAX_RECENT: usize = 2048;
/// The largest number of slices that arrived before their sample.
const MAX_EARLY_WAITS: usize = 4096;

/// One GIL over the window. Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct GilProfile {
    /// Its number.
    pub id: GilId,
    /// How often the GIL was read.
    pub samples: u64,
    /// The time that those samples stand for.
    pub observed: f64,
    /// The part of `observed` in which some thread held the GIL.
    pub busy: f64,
    /// The part of `observed` in which at least one thread waited.
    pub contended: f64,
    /// Waiting of all its threads together.
    pub waiting: f64,
    /// The part of `busy` in which the cyclic garbage collector ran.
    pub collecting: f64,
    /// The same while nobody held it; with the GIL off, all time of collections.
    pub collecting_unheld: f64,
    /// Time between samples that none of them stands for: the program was stopped.
    unobserved: Nanos,
    first: Option<(Nanos, u64)>,
    last: Option<(Nanos, u64)>,
    recent: VecDeque<RecentSample>,
    early_waits: VecDeque<WaitChance>,
}

/// A sample that late slices may still add to.
#[derive(Clone, Copy, Debug)]
struct RecentSample {
    begin: u64,
    end: u64,
    /// The chance that no thread waited then.
    uncontended: f64,
}

/// The chance that one thread waited between `begin` and `end`.
#[derive(Clone, Copy, Debug)]
struct WaitChance {
    begin: u64,
    end: u64,
    chance: f64,
}

impl GilProfile {
    /// A GIL without samples.
    pub(super) fn new(id: GilId) -> GilProfile {
        GilProfile {
            id,
            samples: 0,
            observed: 0.0,
            busy: 0.0,
            contended: 0.0,
            waiting: 0.0,
            collecting: 0.0,
            collecting_unheld: 0.0,
            unobserved: Nanos::ZERO,
            first: None,
            last: None,
            recent: VecDeque::new(),
            early_waits: VecDeque::new(),
        }
    }

    /// GIL switches per second, by CPython's own count. `None` where the count cannot be read, or
    /// decreased.
    pub fn switches_per_s(&self) -> Option<f64> {
        let ((t0, n0), (t1, n1)) = (self.first?, self.last?);
        let seconds = t1.saturating_since(t0).saturating_since(self.unobserved).as_secs_f64();
        (seconds > 0.0 && n1 >= n0).then(|| (n1 - n0) as f64 / seconds)
    }

    /// Adds a sample.
    pub(super) fn add_sample(&mut self, sample: &GilSample) {
        let span = sample.span.as_nanos();
        self.samples += 1;
        self.observed += span as f64;
        if sample.holder != Holder::Nobody {
            self.busy += span as f64;
        }
        if sample.collecting == Some(true) {
            let sum = if sample.holder == Holder::Nobody { &mut self.collecting_unheld } else { &mut self.collecting };
            *sum += span as f64;
        }
        if sample.waiters > 0 {
            self.contended += span as f64;
        }
        if let Some(switches) = sample.switches {
            self.first.get_or_insert((sample.at, switches));
            if let Some((last, _)) = self.last {
                self.unobserved += sample.at.saturating_since(last + sample.span);
            }
            self.last = Some((sample.at, switches));
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        let end = sample.at.as_nanos();
        self.recent.push_back(RecentSample { begin: end.saturating_sub(span), end, uncontended: f64::from(u8::from(sample.waiters == 0)) });
        self.apply_early_waits(end);
    }

    /// Adds a slice's waiting: `waiting` out of the `total` nanoseconds that end at `end`.
    pub(super) fn add_wait(&mut self, end: Nanos, waiting: f64, total: f64) {
        self.waiting += waiting;
        let begin = end.saturating_since(Nanos::from_nanos(total as u64)).as_nanos();
        let wait = WaitChance { begin, end: end.as_nanos(), chance: waiting / total };
        let newest = self.recent.back().map_or(0, |r| r.end);
        self.apply_wait(wait);
        if wait.end > newest && self.early_waits.len() < MAX_EARLY_WAITS {
            self.early_waits.push_back(WaitChance { begin: begin.max(newest), ..wait });
        }
    }

    /// Applies slices that arrived before their sample to the newest sample.
    fn apply_early_waits(&mut self, newest: u64) {
        for _ in 0..self.early_waits.len() {
            let Some(wait) = self.early_waits.pop_front() else { return };
            if let Some(sample) = self.recent.back_mut() {
                self.contended += sample.apply(&wait);
            }
            if wait.end > newest {
                self.early_waits.push_back(WaitChance { begin: wait.begin.max(newest), ..wait });
            }
        }
    }

    /// Applies a slice to every sample that it covers.
    fn apply_wait(&mut self, wait: WaitChance) {
        let from = self.recent.partition_point(|r| r.end <= wait.begin);
        for sample in self.recent.iter_mut().skip(from).take_while(|r| r.begin < wait.end) {
            self.contended += sample.apply(&wait);
        }
    }
}

impl RecentSample {
    /// Lowers the chance that no thread waited. Returns the contended time that this adds.
    fn apply(&mut self, wait: &WaitChance) -> f64 {
        let overlap = wait.end.min(self.end).saturating_sub(wait.begin.max(self.begin)) as f64;
        let span = (self.end - self.begin) as f64;
        if overlap <= 0.0 || span <= 0.0 {
            return 0.0;
        }
        let before = self.uncontended;
        self.uncontended *= 1.0 - (wait.chance * overlap / span).clamp(0.0, 1.0);
        (before - self.uncontended) * span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ThreadId;

    fn sample(ms: u64, waiters: u32, switches: Option<u64>) -> GilSample {
        let holder = if ms.is_multiple_of(2) { Holder::Nobody } else { Holder::Thread(ThreadId(0)) };
        GilSample { gil: GilId(0), at: Nanos::from_millis(ms), span: Nanos::from_millis(1), holder, switches, waiters, collecting: None }
    }

    #[test]
    fn identified_waiters_and_exact_switches() {
        let mut gil = GilProfile::new(GilId(0));
        (1..=1001).for_each(|ms| gil.add_sample(&sample(ms, u32::from(ms > 501), Some(7 + ms / 5))));
        assert!((gil.busy / gil.observed - 0.5).abs() < 0.01);
        assert!((gil.contended / gil.observed - 0.5).abs() < 0.01);
        assert_eq!(gil.switches_per_s(), Some(200.0));
    }

    #[test]
    fn missing_or_decreasing_switch_counts_are_unknown() {
        let mut gil = GilProfile::new(GilId(0));
        gil.add_sample(&sample(1, 0, None));
        assert_eq!(gil.switches_per_s(), None);
        gil.add_sample(&sample(2, 0, Some(9)));
        gil.add_sample(&sample(3, 0, Some(3)));
        assert_eq!(gil.switches_per_s(), None);
    }

    #[test]
    fn late_waiting_counts_only_where_no_waiter_was_identified() {
        let mut gil = GilProfile::new(GilId(0));
        (1..=10).for_each(|ms| gil.add_sample(&sample(ms, u32::from(ms > 5), None)));
        assert_eq!(gil.contended, 5e6);
        // Two threads each wait in half of samples 1 to 5: at least one waits in three quarters of
        // that time.
        for _ in 0..2 {
            (1..=10).for_each(|ms| gil.add_wait(Nanos::from_millis(ms), 0.5e6, 1e6));
        }
        assert!((gil.contended - 8.75e6).abs() < 1.0, "{}", gil.contended);
        assert_eq!(gil.waiting, 10e6);
    }

    #[test]
    fn a_slice_may_arrive_before_its_sample() {
        let mut gil = GilProfile::new(GilId(0));
        gil.add_sample(&sample(1, 0, None));
        gil.add_wait(Nanos::from_millis(3), 2e6, 2e6);
        assert_eq!(gil.contended, 0.0);
        gil.add_sample(&sample(2, 0, None));
        gil.add_sample(&sample(3, 0, None));
        assert!((gil.contended - 2e6).abs() < 1.0);
    }
}
