//! Coalesces a thread's equal consecutive slices, in whole nanoseconds, before any other sink sees
//! them.
//!
//! At a thousand samples a second, most slices repeat the thread's previous state and stack. A
//! recording and a profile both receive the coalesced slices, so a replay gives the same profile to
//! the last bit.

use crate::ids::ThreadId;
use crate::sample::{Evidence, GilSample, MeasuredInterval, Sink, Stack, State, StateSlice, StateTimes, ThreadInfo, ThreadTotals};
use crate::units::Nanos;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The longest slice that coalescing makes.
const MAX_COALESCED_NANOS: f64 = 20e6;
/// The largest gap between two contiguous slices: both ends were rounded.
const CONTIGUOUS_WITHIN_NANOS: u64 = 1_000;

/// Coalesces slices on their way to another sink.
#[derive(Debug)]
pub struct CoalescingSink<S> {
    inner: S,
    open: FxHashMap<ThreadId, OpenSlice>,
}

/// A slice that the next one may extend.
#[derive(Debug)]
struct OpenSlice {
    end: Nanos,
    times: StateTimes,
    /// The sum of `times`, in nanoseconds.
    total: f64,
    /// The only state in it; `None` for time divided by conservation.
    state: Option<State>,
    evidence: Evidence,
    stack: Arc<Stack>,
    holder: Option<(ThreadId, Arc<Stack>)>,
}

impl<S: Sink> CoalescingSink<S> {
    /// Coalesces slices for `inner`.
    pub fn new(inner: S) -> CoalescingSink<S> {
        CoalescingSink { inner, open: FxHashMap::default() }
    }

    /// The inner sink, which has not received the open slices yet.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The inner sink, mutable.
    pub fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Emits all open slices and returns the inner sink.
    pub fn finish(mut self) -> S {
        let mut ids: Vec<ThreadId> = self.open.keys().copied().collect();
        ids.sort();
        ids.into_iter().for_each(|id| self.emit(id));
        self.inner
    }

    fn emit(&mut self, thread: ThreadId) {
        if let Some(open) = self.open.remove(&thread) {
            open.emit(thread, &mut self.inner);
        }
    }
}

impl OpenSlice {
    fn emit(&self, thread: ThreadId, sink: &mut impl Sink) {
        let holder = self.holder.as_ref().map(|(id, stack)| (*id, stack));
        let OpenSlice { end, times, evidence, stack, .. } = self;
        sink.slice(&StateSlice { thread, end: *end, times: *times, evidence: *evidence, stack, holder });
    }

    /// Whether `slice` follows without a gap and has the same state, evidence, stack and holder.
    /// What a holder did is reported by function, so its lines may differ.
    fn continues(&self, slice: &StateSlice<'_>, state: Option<State>, total: f64) -> bool {
        let begin = slice.end.saturating_since(Nanos::from_nanos(total as u64));
        let contiguous = begin.saturating_since(self.end).max(self.end.saturating_since(begin)).as_nanos() <= CONTIGUOUS_WITHIN_NANOS;
        let same_holder = match (&self.holder, slice.holder) {
            (None, None) => true,
            (Some((id, held)), Some((next_id, next_held))) => *id == next_id && held.same_functions(next_held),
            _ => false,
        };
        contiguous
            && self.state == state
            && self.evidence == slice.evidence
            && self.total + total <= MAX_COALESCED_NANOS
            && same_holder
            && same_lines(&self.stack, slice.stack)
    }
}

/// Whether two stacks have the same functions on the same lines.
fn same_lines(a: &Arc<Stack>, b: &Arc<Stack>) -> bool {
    Arc::ptr_eq(a, b) || a.same_functions(b) && a.frames.iter().zip(&b.frames).all(|(a, b)| a.line == b.line)
}

/// The times in whole nanoseconds, and the only state where there is one. Invalid times (negative,
/// infinite, not a number) stay as they are: the builder refuses and counts them.
fn rounded(times: &StateTimes) -> (StateTimes, Option<State>) {
    let (mut rounded, mut only, mut parts) = (StateTimes::default(), None, 0);
    for state in State::ALL.into_iter().filter(|state| times.get(*state) != 0.0) {
        let nanos = times.get(state).round();
        if nanos != 0.0 {
            rounded.add(state, nanos);
            only = Some(state);
            parts += 1;
        }
    }
    (rounded, only.filter(|_| parts == 1))
}

impl<S: Sink> Sink for CoalescingSink<S> {
    fn thread(&mut self, info: &ThreadInfo) {
        self.emit(info.id);
        self.inner.thread(info);
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        let (times, state) = rounded(&slice.times);
        let total = times.total();
        if total == 0.0 {
            return;
        }
        let slice = StateSlice { times, ..slice.clone() };
        if let Some(open) = self.open.get_mut(&slice.thread) {
            if open.continues(&slice, state, total) {
                match state {
                    Some(state) => open.times.add(state, total),
                    None => open.times.merge(&times),
                }
                (open.total, open.end) = (open.total + total, slice.end);
                return;
            }
        }
        self.emit(slice.thread);
        // Also false for NaN.
        if total < MAX_COALESCED_NANOS {
            let holder = slice.holder.map(|(id, stack)| (id, stack.clone()));
            let StateSlice { thread, end, evidence, stack, .. } = slice;
            self.open.insert(thread, OpenSlice { end, times, total, state, evidence, stack: stack.clone(), holder });
        } else {
            self.inner.slice(&slice);
        }
    }

    fn gil(&mut self, sample: &GilSample) {
        self.inner.gil(sample);
    }

    fn interval(&mut self, measured: &MeasuredInterval) {
        self.inner.interval(measured);
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.emit(thread);
        self.inner.thread_end(thread, totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Frame, Function};

    #[derive(Default)]
    struct Emitted(Vec<(u32, u64, f64)>);

    impl Sink for Emitted {
        fn thread(&mut self, _: &ThreadInfo) {}
        fn gil(&mut self, _: &GilSample) {}
        fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
        fn slice(&mut self, slice: &StateSlice<'_>) {
            self.0.push((slice.thread.0, slice.end.as_nanos() / 1000, slice.times.total()));
        }
    }

    /// One letter per millisecond gives the state; a capital letter means another line.
    fn emitted(timeline: &str) -> Vec<(u32, u64, f64)> {
        let function = Arc::new(Function { name: "f".into(), file: "a.py".into(), first_line: 1 });
        let stack = |line| Arc::new(Stack { frames: vec![Frame { function: function.clone(), line }], status: Default::default() });
        let mut coalescing = CoalescingSink::new(Emitted::default());
        for (ms, letter) in timeline.chars().enumerate() {
            let state = if letter.eq_ignore_ascii_case(&'w') { State::Waiting } else { State::Io };
            let end = Nanos::from_micros((ms as u64 + 1) * 1000);
            let stack = stack(if letter.is_uppercase() { 2 } else { 1 });
            let times = StateTimes::single(state, 1e6 + 0.3);
            coalescing.slice(&StateSlice { thread: ThreadId(7), end, times, evidence: Evidence::GilFutex, stack: &stack, holder: None });
        }
        coalescing.finish().0
    }

    #[test]
    fn equal_slices_coalesce_and_others_do_not() {
        assert_eq!(emitted("wwwWWiw"), [(7, 3000, 3e6), (7, 5000, 2e6), (7, 6000, 1e6), (7, 7000, 1e6)]);
    }

    #[test]
    fn coalesced_slices_are_bounded_in_length() {
        assert_eq!(emitted(&"w".repeat(50)), [(7, 20_000, 20e6), (7, 40_000, 20e6), (7, 50_000, 10e6)]);
    }

    #[test]
    fn a_gap_ends_a_slice_and_invalid_times_pass() {
        let stack = Arc::new(Stack::empty());
        let mut coalescing = CoalescingSink::new(Emitted::default());
        for (ms, nanos) in [(1, 1e6), (5, 1e6), (6, f64::NAN), (7, 1e6)] {
            let times = StateTimes::single(State::Io, nanos);
            let end = Nanos::from_millis(ms);
            coalescing.slice(&StateSlice { thread: ThreadId(0), end, times, evidence: Evidence::Syscall, stack: &stack, holder: None });
        }
        let emitted = coalescing.finish().0;
        assert_eq!(emitted.iter().map(|t| t.1).collect::<Vec<_>>(), [1000, 5000, 6000, 7000]);
        assert!(emitted[2].2.is_nan());
    }
}
