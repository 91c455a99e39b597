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

use crate::ids::{GilId, ThreadId};
use crate::sample::{GilSample, Holder};
use crate::units::Nanos;
use std::collections::{BTreeMap, VecDeque};

/// The number of samples kept for late slices: 200 ms at the highest sensible rate.
const MAX_RECENT: usize = 2048;
/// The largest number of slices that arrived before their sample: a second of the kernel engine's,
/// whose samples of a GIL follow its slices.
const MAX_EARLY_WAITS: usize = 1 << 16;

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
    /// Time of threads that samples saw wait, and the part of it during collections.
    pub seen_waiting: f64,
    /// See `seen_waiting`.
    pub seen_waiting_for_collector: f64,
    /// The last thread that a sample saw hold the GIL, unless an unseen thread held it since.
    last_holder: Option<ThreadId>,
    /// How many of the recent samples had an unseen turn before them.
    unseen_turns: usize,
    /// Time between samples that none of them stands for: the program was stopped.
    unobserved: Nanos,
    first: Option<(Nanos, u64)>,
    last: Option<(Nanos, u64)>,
    recent: VecDeque<RecentSample>,
    /// By their begin; the number tells those apart that begin together.
    early_waits: BTreeMap<(u64, u64), WaitChance>,
    early_count: u64,
}

/// A sample that late slices may still add to.
#[derive(Clone, Copy, Debug)]
struct RecentSample {
    begin: u64,
    end: u64,
    /// The chance that no thread waited then.
    uncontended: f64,
    /// How many threads that no sample saw hold the GIL had it since the sample before, and how
    /// many of these are not yet assigned to a thread that waited.
    unseen_turns: u64,
    unassigned_turns: u64,
    collecting: bool,
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
            seen_waiting: 0.0,
            seen_waiting_for_collector: 0.0,
            last_holder: None,
            unseen_turns: 0,
            unobserved: Nanos::ZERO,
            first: None,
            last: None,
            recent: VecDeque::new(),
            early_waits: BTreeMap::new(),
            early_count: 0,
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
            let waited = span as f64 * f64::from(sample.waiters);
            self.seen_waiting += waited;
            self.seen_waiting_for_collector += if sample.collecting == Some(true) { waited } else { 0.0 };
        }
        let unseen_turns = self.count_unseen_turns(sample);
        if let Some(switches) = sample.switches {
            self.first.get_or_insert((sample.at, switches));
            if let Some((last, _)) = self.last {
                self.unobserved += sample.at.saturating_since(last + sample.span);
            }
            self.last = Some((sample.at, switches));
        }
        if self.recent.len() >= MAX_RECENT {
            self.unseen_turns -= usize::from(self.recent.pop_front().is_some_and(|oldest| oldest.unseen_turns > 0));
        }
        self.unseen_turns += usize::from(unseen_turns > 0);
        let end = sample.at.as_nanos();
        self.recent.push_back(RecentSample {
            begin: end.saturating_sub(span),
            end,
            uncontended: f64::from(u8::from(sample.waiters == 0)),
            unseen_turns,
            unassigned_turns: unseen_turns,
            collecting: sample.collecting == Some(true),
        });
        self.apply_early_waits(end);
    }

    /// How many threads had the GIL since the last sample that neither sample saw hold it: CPython
    /// counts each GIL switch to another thread, and the last switch is the one to the holder of
    /// this sample.
    fn count_unseen_turns(&mut self, sample: &GilSample) -> u64 {
        let Some(now) = sample.switches else {
            self.last_holder = None;
            return 0;
        };
        let switches = self.last.map_or(0, |(_, before)| now.saturating_sub(before));
        let (turns, holder) = match (sample.holder, self.last_holder) {
            (Holder::Nobody, last) => (switches, last.filter(|_| switches == 0)),
            (Holder::Thread(id), Some(last)) if id == last => (switches.saturating_sub(1).max(switches.min(1)), Some(id)),
            (Holder::Thread(id), _) => (switches.saturating_sub(1), Some(id)),
            (Holder::Unmatched, _) => (switches.saturating_sub(1), None),
        };
        self.last_holder = holder;
        turns
    }

    /// The times at which an unseen thread had its turn within the `total` nanoseconds that end at
    /// `end`, in nanoseconds from their begin. Each such turn ends the hold of the thread that has
    /// the GIL before and after it, and one wait: `of_waiter` takes it for a thread that waited.
    pub(super) fn unseen_turns(&mut self, end: Nanos, total: f64, of_waiter: bool) -> impl Iterator<Item = f64> + use<'_> {
        let (begin, end) = (end.saturating_since(Nanos::from_nanos(total as u64)).as_nanos(), end.as_nanos());
        let from = if self.unseen_turns == 0 { self.recent.len() } else { self.first_within(begin) };
        let within = self.recent.iter_mut().skip(from).take_while(move |r| r.begin < end);
        within.filter_map(move |sample| {
            let middle = sample.begin + (sample.end - sample.begin) / 2;
            let left = if of_waiter { sample.unassigned_turns } else { sample.unseen_turns };
            if left == 0 || !(begin..end).contains(&middle) {
                return None;
            }
            sample.unassigned_turns -= u64::from(of_waiter);
            Some((middle - begin) as f64)
        })
    }

    /// The time of collections within the `total` nanoseconds that end at `end`.
    pub(super) fn collecting_within(&self, end: Nanos, total: f64) -> f64 {
        if self.collecting <= 0.0 {
            return 0.0;
        }
        let (begin, end) = (end.saturating_since(Nanos::from_nanos(total as u64)).as_nanos(), end.as_nanos());
        let overlap = |r: &RecentSample| r.end.min(end).saturating_sub(r.begin.max(begin)) as f64;
        let within = self.recent.iter().skip(self.first_within(begin)).take_while(|r| r.begin < end);
        within.filter(|r| r.collecting).map(overlap).sum::<f64>().min(total)
    }

    /// The index of the first recent sample that does not end before `begin`.
    fn first_within(&self, begin: u64) -> usize {
        self.recent.partition_point(|r| r.end <= begin)
    }

    /// Adds a slice's waiting: `waiting` out of the `total` nanoseconds that end at `end`.
    pub(super) fn add_wait(&mut self, end: Nanos, waiting: f64, total: f64) {
        self.waiting += waiting;
        let begin = end.saturating_since(Nanos::from_nanos(total as u64)).as_nanos();
        let wait = WaitChance { begin, end: end.as_nanos(), chance: waiting / total };
        let newest = self.recent.back().map_or(0, |r| r.end);
        self.apply_wait(wait);
        if wait.end > newest && self.early_waits.len() < MAX_EARLY_WAITS {
            self.add_early_wait(WaitChance { begin: begin.max(newest), ..wait });
        }
    }

    fn add_early_wait(&mut self, wait: WaitChance) {
        self.early_count += 1;
        self.early_waits.insert((wait.begin, self.early_count), wait);
    }

    /// Applies slices that arrived before their sample to the newest sample.
    fn apply_early_waits(&mut self, newest: u64) {
        while let Some(first) = self.early_waits.first_entry().filter(|first| first.get().begin < newest) {
            let wait = first.remove();
            if let Some(sample) = self.recent.back_mut() {
                self.contended += sample.apply(&wait);
            }
            if wait.end > newest {
                self.add_early_wait(WaitChance { begin: newest, ..wait });
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
    fn each_unseen_turn_ends_the_hold_around_it_and_one_wait() {
        let mut gil = GilProfile::new(GilId(0));
        // Thread 0 holds at every sample. Another thread had a turn before sample 5, and two
        // before sample 8.
        let switches = |ms: u64| 2 * u64::from(ms > 4) + 3 * u64::from(ms > 7);
        for ms in 1..=10 {
            gil.add_sample(&GilSample { holder: Holder::Thread(ThreadId(0)), ..sample(ms, 2, Some(switches(ms))) });
        }
        let end = Nanos::from_millis(10);
        let mut turns = |of_waiter| gil.unseen_turns(end, 10e6, of_waiter).collect::<Vec<f64>>();
        assert_eq!(turns(false), [4.5e6, 7.5e6]);
        assert_eq!([turns(true), turns(true), turns(true)], [vec![4.5e6, 7.5e6], vec![7.5e6], vec![]]);
        assert_eq!(turns(false), [4.5e6, 7.5e6]);
    }

    #[test]
    fn holders_that_samples_see_account_for_switches() {
        let mut gil = GilProfile::new(GilId(0));
        for ms in 1..=10 {
            let holder = if ms % 3 == 0 { Holder::Nobody } else { Holder::Thread(ThreadId(ms as u32 / 3)) };
            gil.add_sample(&GilSample { holder, ..sample(ms, 0, Some(ms / 3)) });
        }
        // At samples 3, 6 and 9 the count has changed and nobody holds the GIL.
        assert_eq!(gil.unseen_turns(Nanos::from_millis(10), 10e6, false).collect::<Vec<f64>>(), [2.5e6, 5.5e6, 8.5e6]);
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
    fn many_slices_may_arrive_before_their_samples() {
        let mut gil = GilProfile::new(GilId(0));
        gil.add_sample(&sample(1, 0, None));
        // Twenty threads wait for a second.
        (0..20_000).for_each(|n| gil.add_wait(Nanos::from_millis(2 + n / 20), 1e6, 1e6));
        (2..=1001).for_each(|ms| gil.add_sample(&sample(ms, 0, None)));
        assert!((gil.contended - 1e9).abs() < 1e3, "{}", gil.contended);
        assert_eq!(gil.early_waits.len(), 0);
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
