//! Which threads a sample polls. The times of the next polls are kept apart from the threads, so
//! that a sample does not touch the data of a thread that is not due. Idle threads then cost next
//! to nothing, however many there are.

use crate::ids::Tid;
use crate::units::Nanos;

/// The next polls of all threads, by their indices.
#[derive(Debug, Default)]
pub(super) struct PollSchedule {
    /// For each thread, the time of its next poll.
    next_poll: Vec<(Nanos, Tid)>,
    /// The indices of the threads that this sample polls, in ascending order.
    due: Vec<usize>,
}

impl PollSchedule {
    /// Adds a thread after all others.
    pub fn push(&mut self, tid: Tid) {
        self.next_poll.push((Nanos::ZERO, tid));
    }

    /// Removes a thread; the indices after it decrease by one.
    pub fn remove(&mut self, index: usize) {
        self.next_poll.remove(index);
        self.due.retain(|&i| i != index);
        self.due.iter_mut().filter(|i| **i > index).for_each(|i| *i -= 1);
    }

    /// Begins a sample that stands for the time until `end`. It polls threads that are due by then,
    /// and others for which `wanted` is true.
    pub fn select_due(&mut self, end: Nanos, wanted: impl Fn(usize, Tid) -> bool) {
        self.due.clear();
        let is_due = |&(index, &(until, tid)): &(usize, &(Nanos, Tid))| until <= end || wanted(index, tid);
        self.due.extend(self.next_poll.iter().enumerate().filter(is_due).map(|(index, _)| index));
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

    /// Defers a thread's next poll to `until`.
    pub fn defer(&mut self, index: usize, until: Nanos) {
        self.next_poll[index].0 = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_due_or_wanted_are_selected() {
        let mut schedule = PollSchedule::default();
        (0..4).for_each(|tid| schedule.push(Tid(tid)));
        schedule.defer(1, Nanos::from_millis(5));
        schedule.defer(2, Nanos::from_millis(5));
        schedule.select_due(Nanos::from_millis(4), |index, tid| index == 2 && tid == Tid(2));
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0, 2, 3]);
        schedule.remove(2);
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0, 2]);
        schedule.select_due(Nanos::from_millis(5), |_, _| false);
        assert_eq!(schedule.indices().collect::<Vec<_>>(), [0, 1, 2]);
    }
}
