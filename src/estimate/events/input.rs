//! What the kernel engine's estimate is given beside runs, and what it found wrong with it.

use crate::sample::{GilView, Stack};
use crate::units::Nanos;
use std::sync::Arc;

/// A tick of the clock that found a thread on a CPU.
#[derive(Clone, Debug)]
pub struct Tick {
    /// Its time.
    pub at: Nanos,
    /// The GIL at that time.
    pub view: GilView,
    /// The leaf frame's current instruction is a call of a C function.
    pub in_c_call: bool,
    /// The thread's Python stack.
    pub stack: Arc<Stack>,
}

/// How a thread became known. Until its first event its state follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It started at that time.
    Started,
    /// It existed; nothing else is known of it.
    Running,
}

/// What was wrong with the events. Zero everywhere on a quiet machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputFaults {
    /// Runs that were lost. Their threads' time is unknown until the next run.
    pub lost_runs: u64,
    /// Runs that were delivered twice, or after a later one.
    pub repeated_runs: u64,
    /// Runs whose times were out of order or out of any reason. They were clamped or left out.
    pub clamped_runs: u64,
    /// Ticks of runs that are lost, or in excess of what is kept for one run.
    pub dropped_ticks: u64,
}
