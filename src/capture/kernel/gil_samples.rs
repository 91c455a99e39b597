//! The samples of each GIL, made from the slices of its threads.
//!
//! The sampled engine reads a GIL once a period. The kernel engine knows from its slices who held
//! and who waited when, so it cuts a GIL's time wherever that changes. Each part is a sample that
//! stands for exactly its own time.

use crate::ids::{GilId, ThreadId};
use crate::sample::{GilSample, Holder, Sink, State, StateSlice};
use crate::units::Nanos;
use std::collections::BTreeMap;

/// The most times of one GIL that wait to be cut. Beyond them, the oldest are cut early.
const MAX_SPANS: usize = 1 << 16;

/// What a thread did with a GIL, from `begin` to `end`.
#[derive(Clone, Copy, Debug)]
struct GilSpan {
    begin: u64,
    end: u64,
    thread: ThreadId,
    holds: bool,
}

/// One GIL's times that have not been cut.
#[derive(Debug, Default)]
struct GilSpans {
    spans: Vec<GilSpan>,
    cut_until: u64,
    /// `switch_number`, as last read.
    switches: Option<u64>,
    collecting: Option<bool>,
}

/// Makes samples of GILs.
#[derive(Debug, Default)]
pub struct GilSampler {
    gils: BTreeMap<GilId, GilSpans>,
}

impl GilSampler {
    /// A GIL exists since `at`, if it was not known, and was read now.
    pub fn read(&mut self, gil: GilId, at: Nanos, switches: Option<u64>, collecting: Option<bool>) {
        let spans = self.gils.entry(gil).or_insert_with(|| GilSpans { cut_until: at.as_nanos(), ..GilSpans::default() });
        (spans.switches, spans.collecting) = (switches.or(spans.switches), collecting);
    }

    /// Takes a slice of a thread of this GIL.
    pub fn add(&mut self, gil: GilId, slice: &StateSlice<'_>, sink: &mut dyn Sink) {
        let Some(spans) = self.gils.get_mut(&gil) else { return };
        let (holding, waiting, end) = (slice.times.holding(), slice.times.get(State::Waiting), slice.end.as_nanos());
        let begin = end.saturating_sub(slice.times.total() as u64);
        let middle = begin + holding as u64;
        let mut add = |begin, end, holds| {
            if begin < end {
                spans.spans.push(GilSpan { begin, end, thread: slice.thread, holds });
            }
        };
        add(begin, middle.min(end), true);
        add(middle, (middle + waiting as u64).min(end), false);
        if spans.spans.len() > MAX_SPANS {
            let until = spans.spans[MAX_SPANS / 2].end;
            spans.cut(gil, until, sink);
        }
    }

    /// Emits samples up to `until`. No slice may end before that later on.
    pub fn flush(&mut self, until: Nanos, sink: &mut dyn Sink) {
        self.gils.iter_mut().for_each(|(gil, spans)| spans.cut(*gil, until.as_nanos(), sink));
    }
}

impl GilSpans {
    fn cut(&mut self, gil: GilId, until: u64, sink: &mut dyn Sink) {
        let from = self.cut_until;
        if until <= from {
            return;
        }
        // Each time that begins or ends within the part to cut.
        let mut edges: Vec<(u64, bool, GilSpan)> = Vec::new();
        for span in &self.spans {
            let (begin, end) = (span.begin.clamp(from, until), span.end.clamp(from, until));
            if begin < end {
                edges.extend([(begin, true, *span), (end, false, *span)]);
            }
        }
        edges.sort_by_key(|(at, begins, _)| (*at, *begins));
        let (mut holders, mut waiters): (Vec<ThreadId>, u32) = (Vec::new(), 0);
        let mut part_begin = from;
        let mut emit = |end: u64, holder: Option<&ThreadId>, waiters: u32| {
            if end > part_begin {
                let span = Nanos::from_nanos(end - part_begin);
                let holder = holder.map_or(Holder::Nobody, |thread| Holder::Thread(*thread));
                let (at, switches, collecting) = (Nanos::from_nanos(end), self.switches, self.collecting);
                sink.gil(&GilSample { gil, at, span, holder, switches, waiters, collecting });
                part_begin = end;
            }
        };
        for (at, begins, span) in edges {
            let before = (holders.last().copied(), waiters);
            let mut after = before;
            match (span.holds, begins) {
                (true, true) => after.0 = Some(span.thread),
                (true, false) => after.0 = holders.iter().rev().find(|thread| **thread != span.thread).copied(),
                (false, true) => after.1 += 1,
                (false, false) => after.1 = after.1.saturating_sub(1),
            }
            if after != before {
                emit(at, before.0.as_ref(), before.1);
            }
            match (span.holds, begins) {
                (true, true) => holders.push(span.thread),
                (true, false) => holders.retain(|thread| *thread != span.thread),
                (false, _) => waiters = after.1,
            }
        }
        emit(until, holders.last(), waiters);
        self.spans.retain(|span| span.end > until);
        self.cut_until = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Evidence, Stack, StateTimes, ThreadInfo, ThreadTotals};
    use proptest::prelude::*;
    use std::sync::Arc;

    #[derive(Default)]
    struct Samples(Vec<GilSample>);

    impl Sink for Samples {
        fn thread(&mut self, _: &ThreadInfo) {}
        fn slice(&mut self, _: &StateSlice<'_>) {}
        fn gil(&mut self, sample: &GilSample) {
            self.0.push(*sample);
        }
        fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
    }

    fn add(gils: &mut GilSampler, thread: u32, state: State, begin: u64, end: u64, sink: &mut Samples) {
        let (stack, times) = (Arc::new(Stack::empty()), StateTimes::single(state, (end - begin) as f64));
        let slice = StateSlice {
            thread: ThreadId(thread),
            end: Nanos::from_nanos(end),
            times,
            evidence: Evidence::GilHolder,
            stack: &stack,
            holder: None,
        };
        gils.add(GilId(0), &slice, sink);
    }

    #[test]
    fn a_sample_ends_where_the_holder_or_the_number_of_waiters_changes() {
        let (mut gils, mut sink) = (GilSampler::default(), Samples::default());
        gils.read(GilId(0), Nanos::from_nanos(10), Some(7), None);
        add(&mut gils, 1, State::HoldingPython, 20, 50, &mut sink);
        add(&mut gils, 1, State::HoldingNative, 50, 60, &mut sink);
        add(&mut gils, 2, State::Waiting, 30, 60, &mut sink);
        add(&mut gils, 2, State::HoldingPython, 60, 200, &mut sink);
        gils.flush(Nanos::from_nanos(100), &mut sink);
        let seen: Vec<_> = sink.0.iter().map(|s| (s.at.as_nanos(), s.span.as_nanos(), s.holder, s.waiters)).collect();
        let (one, two) = (Holder::Thread(ThreadId(1)), Holder::Thread(ThreadId(2)));
        let expected = [(20, 10, Holder::Nobody, 0), (30, 10, one, 0), (50, 20, one, 1), (60, 10, one, 1), (100, 40, two, 0)];
        assert_eq!(seen, expected);
        gils.flush(Nanos::from_nanos(300), &mut sink);
        assert_eq!(sink.0.iter().map(|s| s.span.as_nanos()).sum::<u64>(), 290);
    }

    proptest! {
        #[test]
        fn samples_add_up_to_the_window_and_to_the_times(
            spans in proptest::collection::vec((0..4u32, 0..1000u64, 1..200u64, any::<bool>()), 0..60),
            flushes in proptest::collection::vec(0..1500u64, 0..5)
        ) {
            let (mut gils, mut sink) = (GilSampler::default(), Samples::default());
            gils.read(GilId(0), Nanos::ZERO, None, None);
            let mut waiting = 0;
            for (thread, begin, length, holds) in spans {
                waiting += if holds { 0 } else { length };
                add(&mut gils, thread, if holds { State::HoldingPython } else { State::Waiting }, begin, begin + length, &mut sink);
            }
            let mut flushes = flushes;
            flushes.sort();
            flushes.push(2000);
            flushes.iter().for_each(|&at| gils.flush(Nanos::from_nanos(at), &mut sink));
            prop_assert_eq!(sink.0.iter().map(|s| s.span.as_nanos()).sum::<u64>(), 2000);
            prop_assert_eq!(sink.0.iter().map(|s| s.span.as_nanos() * u64::from(s.waiters)).sum::<u64>(), waiting);
            prop_assert!(sink.0.windows(2).all(|pair| pair[1].at.as_nanos() - pair[1].span.as_nanos() == pair[0].at.as_nanos()));
        }
    }
}
