//! The interface between capture and report.

use super::{GilSample, MeasuredInterval, RawEvent, StateSlice, ThreadInfo, ThreadTotals};
use crate::ids::ThreadId;

/// Receives what the capture side has classified. Called on the sampling thread: an implementation
/// must not block.
pub trait Sink {
    /// A thread was found, or its name became known.
    fn thread(&mut self, info: &ThreadInfo);
    /// A slice of a thread's time. Slices of one thread arrive in order, possibly some 100 ms late.
    fn slice(&mut self, slice: &StateSlice<'_>);
    /// A GIL was read.
    fn gil(&mut self, sample: &GilSample);
    /// Kernel engine: an interval has been measured. The slices already hold the total of waiting;
    /// this call gives its parts.
    fn interval(&mut self, _measured: &MeasuredInterval) {}
    /// What the estimator is about to be given; the slices follow from that alone.
    fn raw(&mut self, _event: &RawEvent<'_>) {}
    /// A thread has ended, or the window ends.
    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals);
}
