//! Joins slices into spans of one state and one path of functions, for the formats that are
//! timelines.
//!
//! A slice that was split by conservation of CPU time has several states, whose order is not known;
//! they follow in the palette's order. Spans of one thread do not overlap.

use crate::ids::ThreadId;
use crate::sample::{Evidence, GilSample, Sink, Stack, State, StateSlice, ThreadInfo, ThreadTotals};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// One thread in one state for a while.
#[derive(Clone, Debug)]
pub struct Span {
    /// The thread.
    pub thread: ThreadId,
    /// The begin, nanoseconds on the monotonic clock.
    pub begin: u64,
    /// The end.
    pub end: u64,
    /// The state.
    pub state: State,
    /// The evidence for the state, at the begin.
    pub evidence: Evidence,
    /// The thread's stack at the end.
    pub stack: Arc<Stack>,
    /// The holder and its stack, if the thread waited.
    pub holder: Option<(ThreadId, Arc<Stack>)>,
}

/// Receives spans.
pub trait SpanSink {
    /// A thread was found, or its name became known.
    fn thread(&mut self, info: &ThreadInfo);
    /// A span has ended. Spans of one thread come in order.
    fn span(&mut self, span: Span);
    /// A GIL was read.
    fn gil(&mut self, sample: &GilSample);
}

/// Joins slices into spans.
#[derive(Debug)]
pub struct SpanBuilder<C> {
    inner: C,
    /// The open span of each thread, and the end of the thread's last slice.
    open: FxHashMap<ThreadId, Span>,
    ends: FxHashMap<ThreadId, u64>,
}

impl<C: SpanSink> SpanBuilder<C> {
    /// Passes spans on to `inner`.
    pub fn new(inner: C) -> SpanBuilder<C> {
        SpanBuilder { inner, open: FxHashMap::default(), ends: FxHashMap::default() }
    }

    /// Ends the open spans.
    pub fn finish(mut self) -> C {
        let mut open: Vec<Span> = self.open.into_values().collect();
        open.sort_by_key(|span| (span.end, span.thread));
        open.into_iter().for_each(|span| self.inner.span(span));
        self.inner
    }

    fn part(&mut self, slice: &StateSlice<'_>, state: State, begin: u64, end: u64) {
        let thread = slice.thread;
        // If the thread does not wait, a change of the holder does not end its span.
        let holder = slice.holder.filter(|_| state == State::Waiting);
        if let Some(open) = self.open.get_mut(&thread) {
            let same_holder = match (&open.holder, holder) {
                (None, None) => true,
                (Some((mine, there)), Some((other, stack))) => *mine == other && there.same_functions(stack),
                _ => false,
            };
            if open.state == state && open.end == begin && same_holder && open.stack.same_functions(slice.stack) {
                open.end = end;
                open.stack = Arc::clone(slice.stack);
                return;
            }
        }
        let holder = holder.map(|(id, stack)| (id, Arc::clone(stack)));
        let span = Span { thread, begin, end, state, evidence: slice.evidence, stack: Arc::clone(slice.stack), holder };
        if let Some(before) = self.open.insert(thread, span) {
            self.inner.span(before);
        }
    }
}

impl<C: SpanSink> Sink for SpanBuilder<C> {
    fn thread(&mut self, info: &ThreadInfo) {
        self.inner.thread(info);
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        let (end, total) = (slice.end.as_nanos(), slice.times.total());
        // Also false for NaN.
        if !(total > 0.0 && total < super::LONGEST_SLICE) {
            return;
        }
        let mut at = end.saturating_sub(total as u64);
        let last = self.ends.get(&slice.thread).copied().unwrap_or(0);
        self.ends.insert(slice.thread, last.max(end));
        // Two slices meet within a few nanoseconds of rounding.
        if at.abs_diff(last) < 1_000 {
            at = last;
        }
        at = at.max(last);
        let parts: Vec<(State, u64)> =
            State::ALL.into_iter().map(|state| (state, slice.times.get(state) as u64)).filter(|(_, nanos)| *nanos > 0).collect();
        for (n, &(state, nanos)) in parts.iter().enumerate() {
            let until = if n + 1 == parts.len() { end } else { at.saturating_add(nanos).min(end) };
            if until > at {
                self.part(slice, state, at, until);
                at = until;
            }
        }
    }

    fn gil(&mut self, sample: &GilSample) {
        self.inner.gil(sample);
    }

    fn thread_end(&mut self, thread: ThreadId, _: ThreadTotals) {
        self.ends.remove(&thread);
        if let Some(span) = self.open.remove(&thread) {
            self.inner.span(span);
        }
    }
}

/// `function (file:line)` of the innermost frame, harmless.
pub fn leaf(stack: &Stack) -> String {
    stack.leaf().map_or_else(
        || super::collapsed::NO_PYTHON.into(),
        |frame| {
            let (name, file) =
                (super::sanitize::clean(&frame.function.name), super::sanitize::clean(super::sanitize::basename(&frame.function.file)));
            match frame.line {
                0 => format!("{name} ({file})"),
                line => format!("{name} ({file}:{line})"),
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::StateTimes;
    use crate::units::Nanos;

    #[derive(Default)]
    struct Collected(Vec<(State, u64, u64)>);

    impl SpanSink for Collected {
        fn thread(&mut self, _: &ThreadInfo) {}
        fn span(&mut self, span: Span) {
            self.0.push((span.state, span.begin, span.end));
        }
        fn gil(&mut self, _: &GilSample) {}
    }

    /// One thread's slices: end, state, length, holder.
    fn spans_of(slices: &[(u64, State, f64, u32)]) -> Vec<(State, u64, u64)> {
        let (stack, mut builder) = (Arc::new(Stack::empty()), SpanBuilder::new(Collected::default()));
        for &(end, state, nanos, holder) in slices {
            let (times, end, holder) = (StateTimes::single(state, nanos), Nanos::from_nanos(end), Some((ThreadId(holder), &stack)));
            builder.slice(&StateSlice { thread: ThreadId(0), end, times, evidence: Evidence::Syscall, stack: &stack, holder });
        }
        builder.finish().0
    }

    #[test]
    fn a_change_of_the_holder_ends_waits_and_no_other_span() {
        let slices = |state| [(1_000_000, state, 1e6, 7), (2_000_000, state, 1e6, 8), (3_000_000, state, 1e6, 8)];
        assert_eq!(spans_of(&slices(State::Io)), [(State::Io, 0, 3_000_000)]);
        assert_eq!(spans_of(&slices(State::Waiting)), [(State::Waiting, 0, 1_000_000), (State::Waiting, 1_000_000, 3_000_000)]);
    }

    #[test]
    fn invalid_times_do_not_overflow_or_overlap() {
        let slices = [(u64::MAX, State::Io, 9e16), (5, State::Lock, 9e16), (u64::MAX, State::Io, f64::NAN), (u64::MAX, State::Io, -1.0)];
        let mut mixed = spans_of(&slices.map(|(end, state, nanos)| (end, state, nanos, 1)));
        assert!(mixed.iter().all(|(_, begin, end)| begin < end), "{mixed:?}");
        mixed.sort_by_key(|span| span.1);
        assert!(mixed.windows(2).all(|pair| pair[0].2 <= pair[1].1), "{mixed:?}");
    }
}
