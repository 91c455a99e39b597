//! What was captured, as figures with definitions: a [`ProfileBuilder`] receives what the capture
//! side emits and becomes a [`Profile`].
//!
//! Everything is bounded, because a profile may run for days beside a program that starts a thread
//! per request. Strings, functions, stacks, threads, pairs of blame and blocks of time each have a
//! named maximum. What exceeds a maximum goes to a row of its own ("other …") and is counted in
//! [`Losses`], so that sums stay right. This layer draws no conclusions: those are for `analysis`.

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

use crate::sample::{CaptureStats, Evidence, Function, Stack, State, StateTimes, TargetInfo};
use crate::units::Nanos;
use std::sync::Arc;

/// One window of one process, as figures.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The process.
    pub target: TargetInfo,
    /// The capture statistics.
    pub window: CaptureStats,
    /// Every thread, in the order of first appearance.
    pub threads: Vec<ThreadProfile>,
    /// Every GIL, by number.
    pub gils: Vec<GilProfile>,
    /// The window cut into blocks of equal length, for resampling; the last may be shorter.
    pub blocks: Vec<Block>,
    /// Time per thread and stack. Sorted by thread, then stack.
    pub stack_times: Vec<StackTime>,
    /// Which function waited while which held the GIL, longest waiting first.
    pub blame: Vec<BlameRow>,
    /// The leaf functions in which the collector ran, with nanoseconds, longest first.
    pub collecting: Vec<(FunctionId, f64)>,
    /// What holders of the GIL slept in.
    pub holder_sleep: HolderSleep,
    /// The same by thread and whole stacks. Sorted by thread, then stacks.
    waited_on: Vec<WaitedOnRow>,
    /// What did not fit or was invalid.
    pub losses: Losses,
    functions: Vec<Arc<Function>>,
    stacks: Vec<Arc<Stack>>,
    leaves: Vec<FunctionId>,
}

/// What threads slept in while they held the GIL, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HolderSleep {
    /// All of it.
    pub total: f64,
    /// In page faults.
    pub faults: f64,
    /// On a futex that is not the GIL: a lock, or another thread.
    pub locks: f64,
}

impl HolderSleep {
    fn add(&mut self, times: &StateTimes, evidence: Evidence) {
        let nanos = times.get(State::HoldingBlocked);
        self.total += nanos;
        match evidence {
            Evidence::HolderFault => self.faults += nanos,
            Evidence::HolderLock => self.locks += nanos,
            _ => {}
        }
    }
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
    /// Slices with invalid parts: negative, infinite or not a number.
    pub invalid: u64,
}

impl Profile {
    /// The CPU time of its threads.
    pub fn cpu(&self) -> Nanos {
        self.threads.iter().filter_map(|thread| thread.totals).fold(Nanos::ZERO, |sum, totals| sum + totals.cpu)
    }

    /// Seconds of wall time that the window covers: as the capture statistics say, else from the
    /// first slice to the last.
    pub fn seconds(&self) -> f64 {
        if self.window.seconds > 1e-6 {
            self.window.seconds
        } else {
            // The sum of an empty iterator is -0.0.
            self.blocks.iter().map(|b| b.nanos).sum::<f64>() / 1e9 + 0.0
        }
    }

    /// Seconds of the window in which the program as a whole was stopped.
    pub fn stopped_seconds(&self) -> f64 {
        self.window.stops.iter().map(|stop| stop.seconds).sum::<f64>().clamp(0.0, self.seconds())
    }

    /// Seconds of the window in which it was not.
    pub fn running_seconds(&self) -> f64 {
        self.seconds() - self.stopped_seconds()
    }

    /// A function by its number.
    pub fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.index().min(self.functions.len() - 1)]
    }

    /// Every function of every stack.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().map(|function| &**function)
    }

    /// A stack by its number.
    pub fn stack(&self, id: StackId) -> &Arc<Stack> {
        &self.stacks[id.index().min(self.stacks.len() - 1)]
    }

    /// The leaf function of a stack; [`NO_PYTHON`] for an empty one.
    pub fn leaf(&self, id: StackId) -> FunctionId {
        self.leaves.get(id.index()).copied().unwrap_or(NO_PYTHON)
    }

    /// Every thread's stacks with their nanoseconds per state: the data of flame graphs.
    pub fn stacks(&self) -> impl Iterator<Item = (&ThreadProfile, &Stack, &StateTimes)> {
        self.stack_times.iter().filter_map(|w| Some((self.threads.get(w.thread)?, self.stack(w.stack).as_ref(), &w.times)))
    }

    /// The waiting behind each holder's stack, in nanoseconds. A stack comes once for each thread
    /// and stack that waited.
    pub fn inflicted(&self) -> impl Iterator<Item = (StackId, f64)> + '_ {
        self.waited_on.iter().filter_map(|row| Some((row.holder?, row.nanos)))
    }

    /// Every thread's waiting by the waiting stack and the holder's stack, in nanoseconds.
    pub fn waited_on(&self) -> impl Iterator<Item = (&ThreadProfile, &Stack, Option<&Stack>, f64)> {
        let stack = |id| self.stack(id).as_ref();
        self.waited_on
            .iter()
            .filter_map(move |row| Some((self.threads.get(row.thread)?, stack(row.waiter), row.holder.map(stack), row.nanos)))
    }
}

/// The longest valid part of a slice, in nanoseconds: three years. A longer one is an error and
/// would swamp every sum.
const MAX_PART_NANOS: f64 = 1e17;

/// `times` without its invalid parts, and whether there were any.
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
