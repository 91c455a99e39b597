//! The window in blocks of equal length, each with every thread's time. The bootstrap resamples
//! these blocks for the intervals.
//!
//! Blocks begin at 20 ms, which is several switch intervals. They double by merging in pairs
//! whenever there would be more than 64. Any window longer than that has 32 to 64 blocks, long
//! enough that a block depends little on its neighbours.
//!
//! Time in which the program was stopped is part of no block: neither of a thread's times nor of
//! the length. So all figures that come from blocks are those of the rest of the window.

use super::stacks::StackId;
use crate::sample::{State, StateTimes};
use crate::units::Nanos;
use rustc_hash::FxHashMap;

/// The largest number of blocks; further blocks are merged in pairs.
const MAX_BLOCKS: u64 = 64;
/// The largest number of sleeps, by thread and stack, in one block.
const MAX_SLEEPS: usize = 1 << 12;
/// Length of a block before any merge.
const FIRST_LENGTH: Nanos = Nanos::from_millis(20);

/// One block of the window.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Its length, in nanoseconds of wall time in which the program was not stopped.
    pub nanos: f64,
    /// Nanoseconds per state of each thread (index into the profile's threads), sorted by index.
    pub threads: Vec<(usize, StateTimes)>,
    /// Nanoseconds asleep of each thread and stack, sorted; `None` if there are too many.
    pub sleeps: Option<Vec<(usize, StackId, f64)>>,
}

/// One block while slices are added.
#[derive(Clone, Debug, Default)]
struct Cell {
    threads: FxHashMap<usize, StateTimes>,
    sleeps: FxHashMap<(usize, StackId), f64>,
    /// A sleep did not fit.
    lost_sleeps: bool,
    stopped: bool,
}

impl Cell {
    fn add_sleep(&mut self, key: (usize, StackId), nanos: f64) {
        if self.sleeps.len() < MAX_SLEEPS || self.sleeps.contains_key(&key) {
            *self.sleeps.entry(key).or_default() += nanos;
        } else {
            self.lost_sleeps = true;
        }
    }
}

/// The blocks while slices are added.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    origin: Option<u64>,
    latest: u64,
    length: u64,
    cells: Vec<Cell>,
}

impl Default for Blocks {
    fn default() -> Self {
        Blocks { origin: None, latest: 0, length: FIRST_LENGTH.as_nanos(), cells: Vec::new() }
    }
}

impl Blocks {
    /// Adds a slice that ends at `end`, distributed over the blocks that it overlaps.
    pub(super) fn add(&mut self, thread: usize, stack: StackId, end: Nanos, times: &StateTimes) {
        let asleep = times.get(State::Io) + times.get(State::Lock) + times.get(State::HoldingBlocked);
        self.distribute(end, times.total(), |cell, share| {
            cell.threads.entry(thread).or_default().merge(&scaled(times, share));
            if asleep > 0.0 {
                cell.add_sleep((thread, stack), asleep * share);
            }
        });
    }

    /// Notes that a thread was stopped for `nanos` until `end`.
    pub(super) fn add_stop(&mut self, thread: usize, end: Nanos, nanos: f64) {
        self.distribute(end, nanos, |cell, _| {
            cell.stopped = true;
            cell.threads.entry(thread).or_default();
        });
    }

    /// Passes each block that overlaps the `nanos` until `end`, and its share of them, to `add`.
    fn distribute(&mut self, end: Nanos, nanos: f64, mut add: impl FnMut(&mut Cell, f64)) {
        let begin = end.saturating_since(Nanos::from_nanos(nanos as u64)).as_nanos();
        let origin = *self.origin.get_or_insert(begin);
        // The first slice to arrive need not be the first to begin. Time before it goes to the
        // first block.
        let (begin, end) = (begin.saturating_sub(origin), end.as_nanos().saturating_sub(origin));
        self.latest = self.latest.max(end);
        while end / self.length >= MAX_BLOCKS {
            self.merge_pairs();
        }
        let (first, last) = (begin / self.length, end.saturating_sub(1).max(begin) / self.length);
        for index in first..=last {
            let from = begin.max(index.saturating_mul(self.length));
            let to = end.min((index + 1).saturating_mul(self.length));
            let share = if first == last { 1.0 } else { (to - from) as f64 / (end - begin) as f64 };
            add(self.cell(index as usize), share);
        }
    }

    fn cell(&mut self, index: usize) -> &mut Cell {
        if self.cells.len() <= index {
            self.cells.resize_with(index + 1, Cell::default);
        }
        &mut self.cells[index]
    }

    fn merge_pairs(&mut self) {
        let mut old = std::mem::take(&mut self.cells).into_iter();
        while let Some(mut pair) = old.next() {
            let second = old.next().unwrap_or_default();
            pair.stopped |= second.stopped;
            pair.lost_sleeps |= second.lost_sleeps;
            second.sleeps.into_iter().for_each(|(key, nanos)| pair.add_sleep(key, nanos));
            for (thread, times) in second.threads {
                pair.threads.entry(thread).or_default().merge(&times);
            }
            self.cells.push(pair);
        }
        self.length = self.length.saturating_mul(2);
    }

    /// The blocks, earliest first.
    pub(super) fn finish(self) -> Vec<Block> {
        let (length, latest) = (self.length, self.latest);
        let block = |(index, cell): (usize, Cell)| {
            let mut threads: Vec<(usize, StateTimes)> = cell.threads.into_iter().collect();
            threads.sort_by_key(|&(thread, _)| thread);
            let begin = (index as u64).saturating_mul(length);
            let whole = latest.saturating_sub(begin).min(length) as f64;
            // The thread that was there for longest was there whenever the program ran.
            let ran = threads.iter().map(|(_, times)| times.total()).fold(0.0, f64::max);
            let mut sleeps: Vec<(usize, StackId, f64)> =
                cell.sleeps.into_iter().map(|((thread, stack), nanos)| (thread, stack, nanos)).collect();
            sleeps.sort_by_key(|&(thread, stack, _)| (thread, stack));
            let nanos = if cell.stopped { whole.min(ran) } else { whole };
            Block { nanos, threads, sleeps: (!cell.lost_sleeps).then_some(sleeps) }
        };
        self.cells.into_iter().enumerate().map(block).collect()
    }
}

/// `times` with every part multiplied by `by`.
fn scaled(times: &StateTimes, by: f64) -> StateTimes {
    let mut out = StateTimes::default();
    for state in State::ALL {
        out.add(state, times.get(state) * by);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::stacks::OTHER_STACKS;
    use super::*;

    fn total(blocks: &[Block]) -> f64 {
        blocks.iter().flat_map(|b| &b.threads).map(|(_, s)| s.total()).sum()
    }

    #[test]
    fn long_windows_keep_32_to_64_blocks_and_all_time() {
        let mut blocks = Blocks::default();
        for ms in 1..=10_000u64 {
            blocks.add(0, OTHER_STACKS, Nanos::from_millis(1_000_000 + ms), &StateTimes::single(State::Io, 1e6));
        }
        let blocks = blocks.finish();
        assert!((32..=64).contains(&blocks.len()), "{}", blocks.len());
        assert!((total(&blocks) - 1e10).abs() < 1.0);
        assert_eq!(blocks.iter().map(|b| b.nanos).sum::<f64>(), 1e10);
    }

    #[test]
    fn a_long_slice_is_distributed() {
        let mut blocks = Blocks::default();
        blocks.add(3, OTHER_STACKS, Nanos::from_millis(1_100), &StateTimes::single(State::Io, 100e6));
        let blocks = blocks.finish();
        assert_eq!(blocks.len(), 5);
        assert!(blocks.iter().all(|b| (b.threads[0].1.get(State::Io) - 20e6).abs() < 1.0));
    }

    #[test]
    fn stopped_time_is_in_no_block() {
        let mut blocks = Blocks::default();
        for ms in 1..=80 {
            let end = Nanos::from_millis(1_000 + ms);
            for thread in 0..2 {
                match ms {
                    0..=30 => blocks.add(thread, OTHER_STACKS, end, &StateTimes::single(State::Io, 1e6)),
                    _ => blocks.add_stop(thread, end, 1e6),
                }
            }
        }
        let blocks = blocks.finish();
        assert_eq!(blocks.iter().map(|block| block.nanos).collect::<Vec<_>>(), [20e6, 10e6, 0.0, 0.0]);
        assert!((total(&blocks) - 60e6).abs() < 1.0 && blocks.iter().all(|block| block.threads.len() == 2));
    }

    #[test]
    fn a_jumping_clock_loses_no_time() {
        let mut blocks = Blocks::default();
        blocks.add(0, OTHER_STACKS, Nanos::from_nanos(5), &StateTimes::single(State::Io, 1e6));
        blocks.add(0, OTHER_STACKS, Nanos::from_nanos(u64::MAX), &StateTimes::single(State::Io, 1e6));
        blocks.add(0, OTHER_STACKS, Nanos::ZERO, &StateTimes::single(State::Io, 1e6));
        assert!((total(&blocks.finish()) - 3e6).abs() < 1.0);
    }
}
