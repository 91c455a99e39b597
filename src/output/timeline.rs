//! The course of time, for pictures of it: slices joined into spans of one state on one path of functions.
//!
//! A slice that was split by conservation has several states, whose order nobody saw; they are laid out in the palette's order. Spans of one
//! thread follow one another and do not overlap.

use crate::ids::ThreadId;
use crate::sample::{Evidence, GilSample, Sink, Stack, State, StateSlice, ThreadInfo, ThreadTotals};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// One thread in one state for a while.
#[derive(Clone, Debug)]
pub struct Span {
    /// Whose time.
    pub thread: ThreadId,
    /// From when, nanoseconds on the monotonic clock.
    pub begin: u64,
    /// To when.
    pub end: u64,
    /// In which state.
    pub state: State,
    /// How that is known, at its beginning.
    pub evidence: Evidence,
    /// The thread's stack at its end.
    pub stack: Arc<Stack>,
    /// Who held meanwhile, where the thread waited.
    pub holder: Option<(ThreadId, Arc<Stack>)>,
}

/// Where spans go.
pub trait SpanSink {
    /// A thread was met, or its name became known.
    fn thread(&mut self, facts: &ThreadInfo);
    /// A span is over. Those of one thread come in order.
    fn span(&mut self, span: Span);
    /// A GIL was read.
    fn gil(&mut self, sample: &GilSample);
}

/// Joins what it is told of.
#[derive(Debug)]
pub struct SpanBuilder<C> {
    inner: C,
    /// The span under way, and where the thread's last one ended.
    open: FxHashMap<ThreadId, Span>,
    ends: FxHashMap<ThreadId, u64>,
}

impl<C: SpanSink> SpanBuilder<C> {
    /// On the way to `inner`.
    pub fn new(inner: C) -> SpanBuilder<C> {
        SpanBuilder { inner, open: FxHashMap::default(), ends: FxHashMap::default() }
    }

    /// All that is open ends.
    pub fn finish(mut self) -> C {
        let mut open: Vec<Span> = self.open.into_values().collect();
        open.sort_by_key(|span| (span.end, span.thread));
        open.into_iter().for_each(|span| self.inner.span(span));
        self.inner
    }

    fn part(&mut self, slice: &StateSlice<'_>, state: State, begin: u64, end: u64) {
        let thread = slice.thread;
        // For a thread that does not wait it is nothing that who holds changes.
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
    fn thread(&mut self, facts: &ThreadInfo) {
        self.inner.thread(facts);
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        let (end, total) = (slice.end.as_nanos(), slice.times.total());
        // Also false for what is no number.
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

    /// One thread's slices: end, state, length, who held.
    fn spans_of(slices: &[(u64, State, f64, u32)]) -> Vec<(State, u64, u64)> {
        let (stack, mut builder) = (Arc::new(Stack::empty()), SpanBuilder::new(Collected::default()));
        for &(end, state, nanos, holder) in slices {
            let (times, end, holder) = (StateTimes::single(state, nanos), Nanos::from_nanos(end), Some((ThreadId(holder), &stack)));
            builder.slice(&StateSlice { thread: ThreadId(0), end, times, evidence: Evidence::Syscall, stack: &stack, holder });
        }
        builder.finish().0
    }

    #[test]
    fn who_holds_cuts_waits_and_nothing_else() {
        let slices = |state| [(1_000_000, state, 1e6, 7), (2_000_000, state, 1e6, 8), (3_000_000, state, 1e6, 8)];
        assert_eq!(spans_of(&slices(State::Io)), [(State::Io, 0, 3_000_000)]);
        assert_eq!(spans_of(&slices(State::Waiting)), [(State::Waiting, 0, 1_000_000), (State::Waiting, 1_000_000, 3_000_000)]);
    }

    #[test]
    fn senseless_times_make_no_span_overlap_or_overflow() {
        let slices = [(u64::MAX, State::Io, 9e16), (5, State::Lock, 9e16), (u64::MAX, State::Io, f64::NAN), (u64::MAX, State::Io, -1.0)];
        let mut mixed = spans_of(&slices.map(|(end, state, nanos)| (end, state, nanos, 1)));
        assert!(mixed.iter().all(|(_, begin, end)| begin < end), "{mixed:?}");
        mixed.sort_by_key(|span| span.1);
        assert!(mixed.windows(2).all(|pair| pair[0].2 <= pair[1].1), "{mixed:?}");
    }
}
