//! Which threads a look goes to. When each of the others is due again is kept apart from them: a look does not even touch a thread that rests,
//! and so threads that idle cost next to nothing, however many there are.

use crate::ids::Tid;
use crate::units::Nanos;

/// All threads, by their places.
#[derive(Debug, Default)]
pub(super) struct Awake {
    /// Of each thread: until when it rests.
    rest: Vec<(Nanos, Tid)>,
    /// The places of the threads that this look goes to, in their order.
    awake: Vec<usize>,
}

impl Awake {
    /// A thread has come, at the end of all.
    pub fn push(&mut self, tid: Tid) {
        self.rest.push((Nanos::ZERO, tid));
    }

    /// A thread has gone; the others move up.
    pub fn remove(&mut self, index: usize) {
        self.rest.remove(index);
        self.awake.retain(|&i| i != index);
        self.awake.iter_mut().filter(|i| **i > index).for_each(|i| *i -= 1);
    }

    /// A look that stands for the time until `end` begins: it goes to those that are due by then, and to the others that are `wanted`.
    pub fn begin(&mut self, end: Nanos, wanted: impl Fn(usize, Tid) -> bool) {
        self.awake.clear();
        let due = |&(index, &(until, tid)): &(usize, &(Nanos, Tid))| until <= end || wanted(index, tid);
        self.awake.extend(self.rest.iter().enumerate().filter(due).map(|(index, _)| index));
    }

    /// The look goes to every thread.
    pub fn rouse(&mut self) {
        self.awake.clear();
        self.awake.extend(0..self.rest.len());
    }

    /// How many threads this look goes to.
    pub fn count(&self) -> usize {
        self.awake.len()
    }

    /// The place of one of them.
    pub fn nth(&self, n: usize) -> usize {
        self.awake[n]
    }

    /// The places of all of them.
    pub fn places(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.awake.iter().copied()
    }

    /// A thread rests until then.
    pub fn rest(&mut self, index: usize, until: Nanos) {
        self.rest[index].0 = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_due_or_wanted() {
        let mut awake = Awake::default();
        (0..4).for_each(|tid| awake.push(Tid(tid)));
        awake.rest(1, Nanos::from_millis(5));
        awake.rest(2, Nanos::from_millis(5));
        awake.begin(Nanos::from_millis(4), |index, tid| index == 2 && tid == Tid(2));
        assert_eq!(awake.places().collect::<Vec<_>>(), [0, 2, 3]);
        awake.remove(2);
        assert_eq!(awake.places().collect::<Vec<_>>(), [0, 2]);
        awake.begin(Nanos::from_millis(5), |_, _| false);
        assert_eq!(awake.places().collect::<Vec<_>>(), [0, 1, 2]);
    }
}
