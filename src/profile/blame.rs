//! Who waited behind whom: innermost function of the waiter, innermost function of the holder, time.
//!
//! The rows add up to all waiting. A row without a holder is waiting at looks at which nobody was seen to hold: the hand-off itself.

use super::functions::{FunctionId, OTHER_FUNCTIONS};
use rustc_hash::FxHashMap;

/// How many pairs are kept.
const MOST: usize = 1 << 14;

/// One pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlameRow {
    /// The waiter's innermost function.
    pub waiter: FunctionId,
    /// The holder's innermost function.
    pub holder: Option<FunctionId>,
    /// Waiting, in nanoseconds of the waiter's time.
    pub nanos: f64,
}

/// The pairs met so far.
#[derive(Debug, Default)]
pub(super) struct Blame {
    pairs: FxHashMap<(FunctionId, Option<FunctionId>), f64>,
}

impl Blame {
    /// Adds waiting to a pair; true when it did not fit and went to the row for others.
    pub(super) fn add(&mut self, waiter: FunctionId, holder: Option<FunctionId>, nanos: f64) -> bool {
        let full = self.pairs.len() >= MOST && !self.pairs.contains_key(&(waiter, holder));
        let key = if full { (OTHER_FUNCTIONS, holder.map(|_| OTHER_FUNCTIONS)) } else { (waiter, holder) };
        *self.pairs.entry(key).or_default() += nanos;
        full
    }

    /// The rows, most first.
    pub(super) fn finish(self) -> Vec<BlameRow> {
        let mut rows: Vec<BlameRow> = self.pairs.into_iter().map(|((waiter, holder), nanos)| BlameRow { waiter, holder, nanos }).collect();
        rows.sort_by(|a, b| b.nanos.total_cmp(&a.nanos).then((a.waiter, a.holder).cmp(&(b.waiter, b.holder))));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_time_is_kept_but_not_the_pair() {
        let mut blame = Blame::default();
        let most = MOST as u32;
        let lost = (0..most + 10).filter(|&n| blame.add(FunctionId(n + 2), Some(FunctionId(2)), 1.0)).count();
        assert_eq!(lost, 10);
        let rows = blame.finish();
        assert_eq!(rows[0], BlameRow { waiter: OTHER_FUNCTIONS, holder: Some(OTHER_FUNCTIONS), nanos: 10.0 });
        assert_eq!(rows.iter().map(|r| r.nanos).sum::<f64>(), f64::from(most + 10));
    }
}
