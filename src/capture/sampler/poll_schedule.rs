//! Which threads a sample polls. The times of the next polls are kept apart from the threads, so
//! that a sample does not touch the data of a thread that is not due. Idle threads then cost next
//! to nothing, however many there are.

use crate::units::Nanos;

/// Sleepers that a sample polls in any case, if they are due.
const MIN_SLEEPERS: usize = 4;
/// How many polls of sleepers each one that has woken is worth. The wake-up of one of N sleepers is
/// noticed after the time of N / 2 polls on average. So with this many polls for each wake-up the
/// error is at most a 64th of the time that sleepers sleep.
const POLLS_PER_WAKE: f64 = 32.0;
/// So many samples poll a thread that has run and sleeps now, before it queues with the other
/// sleepers: the sleeps of a thread that just ran are often short. That is as many polls as its
/// wake-up is worth.
const WATCHED: u8 = POLLS_PER_WAKE as u8;
/// Threads that a sample of a stopped program polls beside the holders.
const FEW: usize = 16;
/// After so many samples, sleepers that became due meanwhile join the queue.
const MAX_QUEUE_AGE: u32 = 64;
/// The weight of one sample in the mean number of wake-ups.
const WAKES_GAIN: f64 = 1.0 / 8.0;

/// The next poll of one thread.
#[derive(Debug)]
struct NextPoll {
    /// Its time; zero: every sample polls the thread.
    at: Nanos,
    /// How many samples still poll the thread although it sleeps.
    watched: u8,
}

/// The next polls of all threads, by their indices.
#[derive(Debug, Default)]
pub(super) struct PollSchedule {
    next_poll: Vec<NextPoll>,
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
    pub fn push(&mut self) {
        self.next_poll.push(NextPoll { at: Nanos::ZERO, watched: 0 });
    }

    /// Removes the threads at these indices, which are in ascending order; the indices after each
    /// decrease by one.
    pub fn remove(&mut self, gone: &[usize]) {
        let mut index = 0;
        self.next_poll.retain(|_| {
            index += 1;
            gone.binary_search(&(index - 1)).is_err()
        });
        self.queue.clear();
        self.due.retain_mut(|index| index_after(gone, *index).map(|after| *index = after).is_some());
    }

    /// Begins a sample that stands for the time until `end`. It polls threads that do not sleep or
    /// have just run, the `wanted` ones, and of the other sleepers that are due by then the
    /// earliest: as many as pays off by the number of those that woke lately. The cost of a sample
    /// so grows with the threads that move, not with those that sleep.
    pub fn select_due(&mut self, end: Nanos, wanted: impl Iterator<Item = usize>) {
        self.wakes += (f64::from(std::mem::take(&mut self.woken)) - self.wakes) * WAKES_GAIN;
        let most = MIN_SLEEPERS.max((self.wakes * POLLS_PER_WAKE) as usize);
        self.queue_age += 1;
        let refill = self.queue.len() < most || self.queue_age > MAX_QUEUE_AGE;
        if refill {
            self.queue.clear();
        }
        self.due.clear();
        for (index, next) in self.next_poll.iter().enumerate() {
            if next.at == Nanos::ZERO || next.watched > 0 {
                self.due.push(index);
            } else if refill && next.at <= end {
                self.queue.push((next.at, index));
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

    /// Begins a sample of a stopped program: it polls the `wanted` threads and a few others.
    pub fn select_few(&mut self, wanted: impl Iterator<Item = usize>) {
        self.due.clear();
        self.due.extend((0..self.next_poll.len().min(FEW)).chain(wanted));
        self.due.sort_unstable();
        self.due.dedup();
    }

    /// Whether no thread has run lately: all sleep, and none is polled by every sample.
    pub fn is_idle(&self) -> bool {
        self.next_poll.iter().all(|next| next.at != Nanos::ZERO && next.watched == 0)
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
        let next = &mut self.next_poll[index];
        let slept = std::mem::replace(&mut next.at, until) != Nanos::ZERO;
        self.woken += u32::from(slept && moved);
        // Threads that slept when they were found are not watched: of a herd that would be all.
        let runs = moved && (slept || until == Nanos::ZERO);
        next.watched = if runs { WATCHED } else { next.watched.saturating_sub(1) };
    }
}

/// Where the thread at `index` is once the threads at the ascending indices `gone` have been
/// removed; `None` for one of those.
pub(super) fn index_after(gone: &[usize], index: usize) -> Option<usize> {
    gone.binary_search(&index).err().map(|before| index - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_due_or_wanted_are_selected() {
        let mut schedule = PollSchedule::default();
        (0..4).for_each(|_| schedule.push());
        schedule.defer(1, Nanos::from_millis(5), false);
        schedule.defer(2, Nanos::from_millis(5), false);
        schedule.select_due(Nanos::from_millis(4), [2].into_iter());
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0, 2, 3]);
        schedule.remove(&[2]);
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0, 2]);
        schedule.select_due(Nanos::from_millis(5), std::iter::empty());
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0, 1, 2]);
        schedule.remove(&[0, 1]);
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_thread_that_ran_is_watched_for_a_while() {
        let mut schedule = PollSchedule::default();
        (0..3000).for_each(|_| schedule.push());
        let mut polls_of = |samples: std::ops::RangeInclusive<u64>, runs: &dyn Fn(u64) -> bool| {
            let mut polled = 0;
            for n in samples {
                schedule.select_due(Nanos::from_millis(n), std::iter::empty());
                for index in schedule.indices().collect::<Vec<_>>() {
                    let (worker, moved) = (index == 2000, index == 2000 && runs(n));
                    polled += usize::from(worker);
                    schedule.defer(index, if moved { Nanos::ZERO } else { Nanos::from_millis(n) }, moved || n == 1);
                }
            }
            polled
        };
        assert_eq!(polls_of(1..=1, &|_| true), 1);
        assert_eq!(polls_of(2..=1000, &|n| n % 20 == 0), 999, "it works at every twentieth sample");
        assert!((20..40).contains(&polls_of(1001..=1100, &|_| false)), "it sleeps for long");
    }

    /// Polls of a herd of sleepers in each of so many samples and of each sleeper, when `moved` of
    /// those polled moved.
    fn polls(samples: u64, moved: impl Fn(u64, usize) -> bool) -> (Vec<usize>, Vec<usize>) {
        let mut schedule = PollSchedule::default();
        (0..3000).for_each(|_| schedule.push());
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
        (counts.collect(), polled)
    }

    #[test]
    fn few_of_many_sleepers_are_polled_in_turn() {
        let (counts, polled) = polls(1000, |_, _| false);
        let (least, most) = (polled.iter().min(), polled.iter().max());
        assert!(least.zip(most).is_some_and(|(least, most)| *most <= least + 1), "in turn: {least:?} to {most:?}");
        assert!(counts[0] == 3000 && counts[1..].iter().all(|&n| n == MIN_SLEEPERS), "{counts:?}");
    }

    #[test]
    fn polls_grow_with_the_wakeups_they_find_and_fall_after_them() {
        let (counts, _) = polls(300, |n, index| n > 1 && n < 200 && index % 10 == 0);
        assert!(counts[150] > 1000, "a tenth of them wake between two polls: {counts:?}");
        assert_eq!(counts[299], MIN_SLEEPERS, "{counts:?}");
    }
}
