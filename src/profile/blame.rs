//! Which functions waited for which: the waiter's leaf function, the holder's leaf function, time.
//!
//! The rows add up to all waiting. A row without a holder counts waiting at samples in which no
//! thread held the GIL, that is, during a GIL switch.

use super::functions::{FunctionId, OTHER_FUNCTIONS};
use super::stacks::{StackId, OTHER_STACKS};
use rustc_hash::FxHashMap;

/// The largest number of pairs of functions. Waiting of further pairs goes to one row for others.
const MAX_PAIRS: usize = 1 << 14;
/// The largest number of pairs of stacks.
const MAX_STACK_PAIRS: usize = 1 << 17;

/// Waiting of one function while another function held the GIL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlameRow {
    /// The waiter's leaf function.
    pub waiter: FunctionId,
    /// The holder's leaf function; `None` where no thread held the GIL.
    pub holder: Option<FunctionId>,
    /// Waiting, in nanoseconds of the waiter's time.
    pub nanos: f64,
}

/// The pairs of functions seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct BlameTable {
    pairs: FxHashMap<(FunctionId, Option<FunctionId>), f64>,
}

impl BlameTable {
    /// Adds waiting to a pair. Returns true when the table is full and the row for others took the
    /// time.
    pub(super) fn add(&mut self, waiter: FunctionId, holder: Option<FunctionId>, nanos: f64) -> bool {
        let full = self.pairs.len() >= MAX_PAIRS && !self.pairs.contains_key(&(waiter, holder));
        let key = if full { (OTHER_FUNCTIONS, holder.map(|_| OTHER_FUNCTIONS)) } else { (waiter, holder) };
        *self.pairs.entry(key).or_default() += nanos;
        full
    }

    /// The rows, longest waiting first.
    pub(super) fn finish(self) -> Vec<BlameRow> {
        let mut rows: Vec<BlameRow> = self.pairs.into_iter().map(|((waiter, holder), nanos)| BlameRow { waiter, holder, nanos }).collect();
        rows.sort_by(|a, b| b.nanos.total_cmp(&a.nanos).then((a.waiter, a.holder).cmp(&(b.waiter, b.holder))));
        rows
    }
}

/// Waiting of one thread on one stack while another stack held the GIL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WaitedOnRow {
    /// Index into the profile's threads.
    pub thread: usize,
    /// The stack that waited.
    pub waiter: StackId,
    /// The holder's stack; `None` where no thread held the GIL.
    pub holder: Option<StackId>,
    /// Waiting, in nanoseconds of the waiter's time.
    pub nanos: f64,
}

/// The pairs of stacks seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitedOnTable {
    pairs: FxHashMap<(usize, StackId, Option<StackId>), f64>,
}

impl WaitedOnTable {
    /// Adds waiting to a pair. When the table is full, the time goes to the stack that stands for
    /// others.
    pub(super) fn add(&mut self, thread: usize, waiter: StackId, holder: Option<StackId>, nanos: f64) {
        let full = self.pairs.len() >= MAX_STACK_PAIRS && !self.pairs.contains_key(&(thread, waiter, holder));
        let key = if full { (thread, OTHER_STACKS, holder.map(|_| OTHER_STACKS)) } else { (thread, waiter, holder) };
        *self.pairs.entry(key).or_default() += nanos;
    }

    /// The rows, sorted by thread, then stacks.
    pub(super) fn finish(self) -> Vec<WaitedOnRow> {
        let row = |((thread, waiter, holder), nanos)| WaitedOnRow { thread, waiter, holder, nanos };
        let mut rows: Vec<WaitedOnRow> = self.pairs.into_iter().map(row).collect();
        rows.sort_by_key(|row| (row.thread, row.waiter, row.holder));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_keeps_the_time_of_further_pairs() {
        let mut blame = BlameTable::default();
        let most = MAX_PAIRS as u32;
        let lost = (0..most + 10).filter(|&n| blame.add(FunctionId(n + 2), Some(FunctionId(2)), 1.0)).count();
        assert_eq!(lost, 10);
        let rows = blame.finish();
        assert_eq!(rows[0], BlameRow { waiter: OTHER_FUNCTIONS, holder: Some(OTHER_FUNCTIONS), nanos: 10.0 });
        assert_eq!(rows.iter().map(|r| r.nanos).sum::<f64>(), f64::from(most + 10));
    }
}
