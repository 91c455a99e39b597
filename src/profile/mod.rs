//! What was captured, as numbers with definitions: a [`ProfileBuilder`] takes what the capture side judged and becomes a [`Profile`].
//!
//! Everything is bounded, because a profile runs for as long as its user likes beside a program that may start a thread per
//! request: strings, functions, stacks, threads, pairs of blame and blocks of time each have a named maximum, what is beyond goes
//! to a row of its own ("other …") and is counted in [`Losses`], so that sums stay right. No judgement is made here.

mod blame;
mod blocks;
pub mod buckets;
mod builder;
mod coalesce;
pub mod file;
mod functions;
mod gils;
mod histogram;
mod intern;
mod stacks;
mod threads;

pub use blame::BlameRow;
use blame::WaitedOnRow;
pub use blocks::Block;
pub use builder::{LiveStats, ProfileBuilder};
pub use coalesce::CoalescingSink;
pub use functions::{FunctionId, NO_PYTHON, OTHER_FUNCTIONS};
pub use gils::GilProfile;
pub use histogram::{Histogram, QUANTILE_ERROR};
pub use stacks::{StackId, StackTime};
pub use threads::{Measured, ThreadProfile};

use crate::sample::{CaptureStats, Function, Stack, StateTimes, TargetInfo};
use std::sync::Arc;

/// One window of one process, as numbers.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The process.
    pub target: TargetInfo,
    /// The measuring.
    pub window: CaptureStats,
    /// Every thread, in the order in which they were met.
    pub threads: Vec<ThreadProfile>,
    /// Every GIL, by number.
    pub gils: Vec<GilProfile>,
    /// The window cut into stretches of equal length, for resampling; the last may be shorter.
    pub blocks: Vec<Block>,
    /// Time per thread and stack. Sorted by thread, then stack.
    pub stack_times: Vec<StackTime>,
    /// Who waited behind whom, most first.
    pub blame: Vec<BlameRow>,
    /// The same by thread and whole stacks. Sorted by thread, then stacks.
    waited_on: Vec<WaitedOnRow>,
    /// What did not fit or made no sense.
    pub losses: Losses,
    functions: Vec<Arc<Function>>,
    stacks: Vec<Arc<Stack>>,
    leaves: Vec<FunctionId>,
}

/// What went into the "other …" rows, or was refused. Zero everywhere in ordinary profiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Frames whose function did not fit.
    pub functions: u64,
    /// Slices whose stack did not fit.
    pub stacks: u64,
    /// Slices of threads that did not fit.
    pub threads: u64,
    /// Waits whose pair of functions did not fit.
    pub blame: u64,
    /// Slices with parts that are no time at all (negative, infinite, not a number).
    pub invalid: u64,
}

impl Profile {
    /// Seconds of wall time that the window covers: as the capture side says, else from the first to the last slice.
    pub fn seconds(&self) -> f64 {
        if self.window.seconds > 1e-6 {
            self.window.seconds
        } else {
            // The sum of nothing is -0.0.
            self.blocks.iter().map(|b| b.nanos).sum::<f64>() / 1e9 + 0.0
        }
    }

    /// A function by its number.
    pub fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.index().min(self.functions.len() - 1)]
    }

    /// A stack by its number.
    pub fn stack(&self, id: StackId) -> &Arc<Stack> {
        &self.stacks[id.index().min(self.stacks.len() - 1)]
    }

    /// The innermost function of a stack; [`NO_PYTHON`] for an empty one.
    pub fn leaf(&self, id: StackId) -> FunctionId {
        self.leaves.get(id.index()).copied().unwrap_or(NO_PYTHON)
    }

    /// Every thread's stacks with their time, in nanoseconds per state: what flame graphs are made of.
    pub fn stacks(&self) -> impl Iterator<Item = (&ThreadProfile, &Stack, &StateTimes)> {
        self.stack_times.iter().filter_map(|w| Some((self.threads.get(w.thread)?, self.stack(w.stack).as_ref(), &w.times)))
    }

    /// Every thread's waiting by the stack that waited and the one that held, in nanoseconds.
    pub fn waited_on(&self) -> impl Iterator<Item = (&ThreadProfile, &Stack, Option<&Stack>, f64)> {
        let stack = |id| self.stack(id).as_ref();
        self.waited_on
            .iter()
            .filter_map(move |row| Some((self.threads.get(row.thread)?, stack(row.waiter), row.holder.map(stack), row.nanos)))
    }
}

/// The largest time that a part of a slice may have, in nanoseconds: three years. More is a mistake, and would swallow every sum.
const MAX_PART_NANOS: f64 = 1e17;

/// A split with only times in it, and whether anything had to go.
fn sanitize(times: &StateTimes) -> (StateTimes, bool) {
    let mut clean = StateTimes::default();
    let mut lost = false;
    for state in crate::sample::State::ALL {
        let nanos = times.get(state);
        if (0.0..=MAX_PART_NANOS).contains(&nanos) {
            clean.add(state, nanos);
        } else {
            lost = true;
        }
    }
    (clean, lost)
}
