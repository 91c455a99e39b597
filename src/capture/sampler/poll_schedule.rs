//! Which threads a look goes to. When each of the others is due again is kept apart from them: a look does not even touch a thread that rests,
//! and so threads that idle cost next to nothing, however many there are.

use crate::ids::Tid;
use crate::units::Nanos;

/// All threads, by their places.
#[derive(Debug, Default)]
pub(super) struct PollSchedule {
    /// Of each thread: until when it rests.
    next_poll: Vec<(Nanos, Tid)>,
    /// The places of the threads that this look goes to, in their order.
    due: Vec<usize>,
}

impl PollSchedule {
    /// A thread has come, at the end of all.
    pub fn push(&mut self, tid: Tid) {
        self.next_poll.push((Nanos::ZERO, tid));
    }

    /// A thread has gone; the others move up.
    pub fn remove(&mut self, index: usize) {
        self.next_poll.remove(index);
        self.due.retain(|&i| i != index);
        self.due.iter_mut().filter(|i| **i > index).for_each(|i| *i -= 1);
    }

    /// A look that stands for the time until `end` begins: it goes to those that are due by then, and to the others that are `wanted`.
    pub fn select_due(&mut self, end: Nanos, wanted: impl Fn(usize, Tid) -> bool) {
        self.due.clear();
        let is_due = |&(index, &(until, tid)): &(usize, &(Nanos, Tid))| until <= end || wanted(index, tid);
        self.due.extend(self.next_poll.iter().enumerate().filter(is_due).map(|(index, _)| index));
    }

    /// The look goes to every thread.
    pub fn wake_all(&mut self) {
        self.due.clear();
        self.due.extend(0..self.next_poll.len());
    }

    /// How many threads this look goes to.
    pub fn count(&self) -> usize {
        self.due.len()
    }

    /// The place of one of them.
    pub fn get(&self, n: usize) -> usize {
        self.due[n]
    }

    /// The places of all of them.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.due.iter().copied()
    }

    /// A thread rests until then.
    pub fn defer(&mut self, index: usize, until: Nanos) {
        self.next_poll[index].0 = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_due_or_wanted() {
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
