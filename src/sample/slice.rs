//! What the capture side emits: slices of thread time, samples of a GIL, intervals from kernel
//! events, and totals.

use super::{Evidence, Stack, StateTimes};
use crate::ids::{GilId, ThreadId};
use crate::units::Nanos;
use std::sync::Arc;

/// A piece of one thread's wall time whose state has been classified.
///
/// One sample may be ambiguous: a runnable thread may run native code, be starved of CPU, or have
/// just been woken to take the GIL. Such time is divided between states by the CPU time that the
/// kernel counted.
#[derive(Clone, Debug)]
pub struct StateSlice<'a> {
    /// The thread.
    pub thread: ThreadId,
    /// When the slice ends, on the monotonic clock; it begins `times.total()` earlier.
    pub end: Nanos,
    /// The time in each state.
    pub times: StateTimes,
    /// How the state is known.
    pub evidence: Evidence,
    /// The thread's stack at the sample that ends the slice.
    pub stack: &'a Arc<Stack>,
    /// The holder of this thread's GIL at that sample with its stack; `None` for no holder, and for
    /// this thread itself.
    pub holder: Option<(ThreadId, &'a Arc<Stack>)>,
}

/// One sample of one GIL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilSample {
    /// Which GIL.
    pub gil: GilId,
    /// The time of the sample, on the monotonic clock.
    pub at: Nanos,
    /// The wall time that this sample stands for.
    pub span: Nanos,
    /// The thread that holds it.
    pub holder: Holder,
    /// CPython's exact count of GIL switches; `None` where this version's place for it is not
    /// known.
    pub switches: Option<u64>,
    /// How many threads are known to wait, ambiguous ones left out.
    pub waiters: u32,
    /// Whether the cyclic garbage collector runs under this GIL; `None` where that is not known.
    pub collecting: Option<bool>,
}

/// The holder of a GIL at one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// `locked` is 0, or the GIL is switched off.
    Nobody,
    /// This thread.
    Thread(ThreadId),
    /// A thread state that could not be matched with a thread holds the GIL.
    Unmatched,
}

/// Exact per-thread totals over the window, from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ThreadTotals {
    /// CPU time used in the window.
    pub cpu: Nanos,
    /// Time runnable without a CPU in the window.
    pub run_queue: Nanos,
    /// Time between the thread's first and last sample.
    pub seen: Nanos,
}

/// An interval of a thread's time measured from kernel events, without samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredInterval {
    /// The thread.
    pub thread: ThreadId,
    /// The GIL.
    pub gil: GilId,
    /// What the thread did.
    pub kind: IntervalKind,
    /// Its start, on the monotonic clock.
    pub begin: Nanos,
    /// Its end, on the same clock.
    pub end: Nanos,
}

/// What a thread did in a [`MeasuredInterval`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalKind {
    /// One `take_gil` that had to sleep, with the forced switch before it.
    Wait,
    /// A forced switch that no `take_gil` followed.
    ForcedSwitch,
    /// From a wait's end to the next release. Emitted only where both are seen, that is, where
    /// another thread waited at the release.
    Hold,
}
