//! Which threads a sample polls. The times of the next polls are kept apart from the threads, so
//! that a sample does not touch the data of a thread that is not due. Idle threads then cost next
//! to nothing, however many there are.

use crate::ids::Tid;
use crate::units::Nanos;

/// Sleepers that a sample polls in any case, if they are due.
const MIN_SLEEPERS: usize = 8;
/// How many polls of sleepers each one that has woken is worth. The wake-up of one of N sleepers is
/// noticed after the time of N / 2 polls on average. So with this many polls for each wake-up the
/// error is at most a 64th of the time that sleepers sleep.
const POLLS_PER_WAKE: f64 = 32.0;
/// After so many samples, sleepers that became due meanwhile join the queue.
const MAX_QUEUE_AGE: u32 = 64;
/// The weight of one sample in the mean number of wake-ups.
const WAKES_GAIN: f64 = 1.0 / 8.0;

/// The next polls of all threads, by their indices.
#[derive(Debug, Default)]
pub(super) struct PollSchedule {
    /// For each thread, the time of its next poll; zero: every sample polls it.
    next_poll: Vec<(Nanos, Tid)>,
    /// The indices of the threads that this sample polls, in ascending order.
    due: Vec<usize>,
    /// Sleepers that were due when the queue was filled, the latest first.
    queue: Vec<(Nanos, usize)>,
    /// How many samples ago that was.
    queue_age: u32,
    /// Sleepers that this sample found to have woken.
    woken: u32,
    /// Their mean number in recent samples.
    wakes: f64,
}

impl PollSchedule {
    /// Adds a thread after all others.
    pub fn push(&mut self, tid: Tid) {
        self.next_poll.push((Nanos::ZERO, tid));
    }

    /// Removes a thread; the indices after it decrease by one.
    pub fn remove(&mut self, index: usize) {
        self.next_poll.remove(index);
        self.queue.clear();
        self.due.retain(|&i| i != index);
        self.due.iter_mut().filter(|i| **i > index).for_each(|i| *i -= 1);
    }

    /// Begins a sample that stands for the time until `end`. It polls threads that do not sleep,
    /// the `wanted` ones, and of the sleepers that are due by then the earliest: as many as pays
    /// off by the number of those that woke lately. The cost of a sample so grows with the threads
    /// that move, not with those that sleep.
    pub fn select_due(&mut self, end: Nanos, wanted: impl Iterator<Item = usize>) {
        self.wakes += (f64::from(std::mem::take(&mut self.woken)) - self.wakes) * WAKES_GAIN;
        let most = MIN_SLEEPERS.max((self.wakes * POLLS_PER_WAKE) as usize);
        self.queue_age += 1;
        let refill = self.queue.len() < most || self.queue_age > MAX_QUEUE_AGE;
        if refill {
            self.queue.clear();
        }
        self.due.clear();
        for (index, &(until, _)) in self.next_poll.iter().enumerate() {
            if until == Nanos::ZERO {
                self.due.push(index);
            } else if refill && until <= end {
                self.queue.push((until, index));
            }
        }
        if refill {
            self.queue_age = 0;
            self.queue.sort_unstable_by(|a, b| b.cmp(a));
        }
        let first = self.queue.len().saturating_sub(most);
        self.due.extend(self.queue.drain(first..).map(|(_, index)| index));
        self.due.extend(wanted);
        self.due.sort_unstable();
        self.due.dedup();
    }

    /// The thread ids, by index.
    pub fn tids(&self) -> impl Iterator<Item = Tid> + '_ {
        self.next_poll.iter().map(|(_, tid)| *tid)
    }

    /// Makes this sample poll every thread.
    pub fn wake_all(&mut self) {
        self.due.clear();
        self.due.extend(0..self.next_poll.len());
    }

    /// How many threads this sample polls.
    pub fn count(&self) -> usize {
        self.due.len()
    }

    /// The index of the `n`th of them.
    pub fn get(&self, n: usize) -> usize {
        self.due[n]
    }

    /// The indices of all of them.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.due.iter().copied()
    }

    /// Defers a thread's next poll to `until`. `moved`: it has run since the last sample that
    /// polled it.
    pub fn defer(&mut self, index: usize, until: Nanos, moved: bool) {
        let slept = std::mem::replace(&mut self.next_poll[index].0, until) != Nanos::ZERO;
        self.woken += u32::from(slept && moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_due_or_wanted_are_selected() {
        let mut schedule = PollSchedule::default();
        (0..4).for_each(|tid| schedule.push(Tid(tid)));
        schedule.defer(1, Nanos::from_millis(5), false);
        schedule.defer(2, Nanos::from_millis(5), false);
        schedule.select_due(Nanos::from_millis(4), [2].into_iter());
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0, 2, 3]);
        schedule.remove(2);
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0, 2]);
        schedule.select_due(Nanos::from_millis(5), std::iter::empty());
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0, 1, 2]);
    }

    /// Polls of a herd of sleepers in each of so many samples, when `moved` of those polled moved.
    fn polls(samples: u64, moved: impl Fn(u64, usize) -> bool) -> Vec<usize> {
        let mut schedule = PollSchedule::default();
        (0..3000).for_each(|tid| schedule.push(Tid(tid)));
        let mut polled = vec![0; 3000];
        let counts = (1..=samples).map(|n| {
            schedule.select_due(Nanos::from_millis(n), std::iter::empty());
            let due: Vec<usize> = schedule.indices().collect();
            for &index in &due {
                polled[index] += 1;
                schedule.defer(index, Nanos::from_millis(n), moved(n, index));
            }
            due.len()
        });
        let counts: Vec<usize> = counts.collect();
        let (least, most) = (polled.iter().min(), polled.iter().max());
        assert!(least.zip(most).is_some_and(|(least, most)| *most <= least + 1 + least / 20), "in turn: {least:?} to {most:?}");
        counts
    }

    #[test]
    fn few_of_many_sleepers_are_polled_in_turn() {
        let counts = polls(1000, |_, _| false);
        assert!(counts[0] == 3000 && counts[1..].iter().all(|&n| n == MIN_SLEEPERS), "{counts:?}");
    }

    #[test]
    fn polls_grow_with_the_wakeups_they_find_and_fall_after_them() {
        let counts = polls(300, |n, index| n > 1 && n < 200 && index % 10 == 0);
        assert!(counts[150] > 1000, "a tenth of them wake between two polls: {counts:?}");
        assert_eq!(counts[299], MIN_SLEEPERS, "{counts:?}");
    }
}
