//! Merges the sampler's slices with the measured waits: a sink in front of the real sink.
//!
//! The waiting of each slice is replaced by what the events show for exactly that thread and
//! interval; `correction` adjusts the slice's other states. Events are drained before each sample,
//! so that they reach as far as the slices that the sample completes. A thread that starts and
//! exits between two samples has no slice; it is reported by its waits alone.

use super::correction::WaitCorrection;
use super::waits::{unforced_begin, CompletedInterval, WaitStatus, Waits, MAX_FORCED_WAIT};
use crate::ids::{ThreadId, Tid};
use crate::sample::{
    Evidence, GilSample, IntervalKind, MeasuredInterval, Sink, Stack, State, StateSlice, StateTimes, ThreadInfo, ThreadTotals,
};
use crate::units::Nanos;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Waits of one thread that await a slice: slices arrive up to a quarter of a second late.
const MAX_SPANS: usize = 1 << 14;
/// Waits of threads that no sample has found yet.
const MAX_UNMATCHED: usize = 1 << 12;
/// Ids of threads, including exited ones, whose last waits may still arrive.
const MAX_TIDS: usize = 1 << 16;

/// A wait: its begin, its certain begin ([`CompletedInterval::certain_begin`]) and its end.
#[derive(Clone, Copy, Debug)]
struct WaitSpan {
    begin: Nanos,
    certain_begin: Nanos,
    end: Nanos,
}

/// What the merger knows about one thread.
#[derive(Debug, Default)]
struct MergedThread {
    tid: Option<Tid>,
    /// Completed waits that may still overlap a slice to come, in order of time.
    spans: VecDeque<WaitSpan>,
    correction: WaitCorrection,
    /// End of its last slice.
    until: Nanos,
    /// Its totals, if the thread exited before the window ended. The waits after its last slice are
    /// reported before its end.
    ended: Option<ThreadTotals>,
    /// Forced to release the GIL, then preempted by the thread that it woke, and not run since: it
    /// will request the GIL again, but no event shows that.
    preempted_after_release: bool,
    /// End of the slice up to which it waited after a forced switch, without having requested or
    /// taken the GIL since.
    forced_until: Option<Nanos>,
    /// The holder of the GIL when the thread was last seen waiting.
    waited_on: Option<(ThreadId, Arc<Stack>)>,
}

/// Merges completed waits into the sampler's slices.
#[derive(Debug, Default)]
pub struct WaitMerger {
    /// The state machine that turns events into waits.
    pub waits: Waits,
    threads: HashMap<ThreadId, MergedThread>,
    ids: HashMap<Tid, ThreadId>,
    unmatched: Vec<CompletedInterval>,
    /// Waits of unsampled threads that were discarded because the table was full.
    pub dropped_waits: u64,
}

/// [`WaitMerger`] together with the sink that receives the result.
pub struct MergingSink<'a> {
    /// The merger.
    pub merger: &'a mut WaitMerger,
    /// The sink that receives everything.
    pub inner: &'a mut dyn Sink,
    /// Whether the window is ending: the threads that are still alive end with it.
    pub last: bool,
}

impl WaitMerger {
    /// Records a completed interval and forwards it.
    pub fn add(&mut self, interval: CompletedInterval, inner: &mut dyn Sink) {
        match self.ids.get(&interval.tid) {
            Some(&id) => self.assign(id, interval, inner),
            None if self.unmatched.len() < MAX_UNMATCHED => self.unmatched.push(interval),
            None => self.dropped_waits += u64::from(interval.kind == IntervalKind::Wait),
        }
    }

    fn assign(&mut self, id: ThreadId, interval: CompletedInterval, inner: &mut dyn Sink) {
        if interval.kind != IntervalKind::Hold {
            if let Some(thread) = self.threads.get_mut(&id) {
                if thread.spans.len() >= MAX_SPANS {
                    thread.spans.pop_front();
                }
                thread.spans.push_back(WaitSpan { begin: interval.begin, certain_begin: interval.certain_begin, end: interval.end });
            }
        }
        let CompletedInterval { gil, kind, begin, end, .. } = interval;
        inner.interval(&MeasuredInterval { thread: id, gil, kind, begin, end });
    }

    fn register(&mut self, info: &ThreadInfo, inner: &mut dyn Sink) {
        if self.ids.len() >= MAX_TIDS {
            let threads = &self.threads;
            self.ids.retain(|_, id| threads.contains_key(id));
        }
        self.ids.insert(info.tid, info.id);
        self.threads.entry(info.id).or_default().tid = Some(info.tid);
        let (matched, others) = std::mem::take(&mut self.unmatched).into_iter().partition(|interval| interval.tid == info.tid);
        self.unmatched = others;
        let matched: Vec<CompletedInterval> = matched;
        matched.into_iter().for_each(|interval| self.assign(info.id, interval, inner));
    }

    /// Applies what the sample knows better than the events: a thread that sleeps for something
    /// else, or holds the GIL, is not on its way to request the GIL. If the thread had been forced
    /// to release the GIL and holds it now, returns the begin of the wait; that wait ended at some
    /// point inside the slice.
    fn reconcile(&mut self, slice: &StateSlice<'_>, begin: Nanos) -> Option<Nanos> {
        // The slice of a holder may arrive late: the thread may have been forced again since then.
        let before =
            self.threads.get(&slice.thread)?.forced_until.filter(|until| *until == begin && !self.is_waiting_at(slice.thread, begin));
        let thread = self.threads.get_mut(&slice.thread)?;
        let tid = thread.tid?;
        let waits = slice.times.get(State::Waiting) > 0.0;
        let asleep = slice.evidence == Evidence::Syscall || slice.evidence == Evidence::NotRunSince && !waits;
        if asleep {
            self.waits.forget_hold(tid, slice.end);
        }
        let holds = slice.evidence == Evidence::GilHolder;
        if !asleep && !holds {
            return None;
        }
        let mut forced = self.waits.forget_forced_switch(tid, slice.end);
        for span in thread.spans.iter_mut().take_while(|span| span.begin < slice.end) {
            let before = span.begin;
            span.begin = unforced_begin((before, span.certain_begin), slice.end);
            forced = forced.or((span.begin != before).then_some(before));
        }
        forced.or(before).filter(|_| holds)
    }

    /// The waiting between two points in time, according to the events; `None` where the events do
    /// not tell. `evidence` is that of the state at `end`.
    fn waiting(&mut self, id: ThreadId, begin: Nanos, end: Nanos, evidence: Evidence) -> Option<f64> {
        let holds = evidence == Evidence::GilHolder;
        let thread = self.threads.get_mut(&id)?;
        let overlap = |(from, to): (Nanos, Nanos)| to.min(end).saturating_since(from.max(begin)).as_nanos() as f64;
        let now = match self.waits.status(thread.tid?) {
            WaitStatus::Unknown => return None,
            WaitStatus::NotWaiting => 0.0,
            WaitStatus::ForcedSince(_) if holds || evidence == Evidence::Syscall => 0.0,
            WaitStatus::ForcedSince(from) => {
                thread.forced_until = Some(end).filter(|_| from < end);
                overlap((from, end.min(from + MAX_FORCED_WAIT)))
            }
            WaitStatus::WaitingSince(from) => overlap((from, end)),
            WaitStatus::Resumed { begin: from, in_take_gil: true, .. } if !holds => overlap((from, end)),
            WaitStatus::Resumed { begin: from, since, .. } => overlap((from, since)),
        };
        let over: f64 = thread.spans.iter().take_while(|span| span.begin < end).map(|span| overlap((span.begin, span.end))).sum();
        while thread.spans.front().is_some_and(|span| span.end <= end) {
            thread.spans.pop_front();
        }
        Some(now + over)
    }

    /// Whether the events show a wait in progress at that time.
    fn is_waiting_at(&self, id: ThreadId, at: Nanos) -> bool {
        let Some((thread, tid)) = self.threads.get(&id).and_then(|t| Some((t, t.tid?))) else { return false };
        let now = match self.waits.status(tid) {
            WaitStatus::WaitingSince(begin) | WaitStatus::Resumed { begin, .. } | WaitStatus::ForcedSince(begin) => begin <= at,
            WaitStatus::NotWaiting | WaitStatus::Unknown => false,
        };
        now || thread.spans.iter().any(|span| (span.begin..=span.end).contains(&at))
    }

    /// Reports the threads that no sample has found and none will: they had a wait that ended by
    /// `then`. `number` allocates their ids.
    pub fn flush_unsampled(&mut self, then: Nanos, number: &mut dyn FnMut() -> ThreadId, inner: &mut dyn Sink) {
        let exited: HashSet<Tid> = self.unmatched.iter().filter(|interval| interval.end <= then).map(|interval| interval.tid).collect();
        if exited.is_empty() {
            return;
        }
        let (completed, others): (Vec<CompletedInterval>, Vec<CompletedInterval>) =
            std::mem::take(&mut self.unmatched).into_iter().partition(|interval| exited.contains(&interval.tid));
        self.unmatched = others;
        let mut by_tid: BTreeMap<Tid, Vec<CompletedInterval>> = BTreeMap::new();
        completed.into_iter().for_each(|interval| by_tid.entry(interval.tid).or_default().push(interval));
        for (tid, waits) in by_tid {
            self.waits.forget_exited(tid);
            emit_unsampled(number(), &waits, inner);
        }
    }

    /// Reports the ends of exited threads whose last slice ended by `then`: all their waits are
    /// known. A thread lives on for a while after its last sample. The early begin of its first
    /// slice makes up for that time, but not for the waits in it.
    pub fn flush_exited(&mut self, then: Nanos, inner: &mut dyn Sink) {
        let mut exited: Vec<ThreadId> =
            self.threads.iter().filter(|(_, t)| t.ended.is_some() && t.until <= then).map(|(id, _)| *id).collect();
        exited.sort_unstable_by_key(|id| id.0);
        for id in exited {
            let Some(MergedThread { tid, until, spans, ended: Some(mut totals), .. }) = self.threads.remove(&id) else { continue };
            if let Some(tid) = tid.filter(|tid| self.ids.get(tid) == Some(&id)) {
                self.waits.forget_exited(tid);
            }
            let after = |span: &WaitSpan| span.end.saturating_since(span.begin.max(until));
            let (left, end) = (spans.iter().map(after).fold(Nanos::ZERO, |a, b| a + b), spans.back().map_or(until, |span| span.end));
            if left > Nanos::ZERO {
                emit_wait(id, left, end, inner);
                totals.seen += left;
            }
            inner.thread_end(id, totals);
        }
    }

    /// Ends the window: intervals in progress end at `now`.
    pub fn finish(&mut self, now: Nanos, number: &mut dyn FnMut() -> ThreadId, inner: &mut dyn Sink) {
        let mut last = Vec::new();
        self.waits.finish(now, &mut |interval| last.push(interval));
        last.into_iter().for_each(|interval| self.add(interval, inner));
        self.flush_unsampled(now, number, inner);
    }
}

/// Reports a thread of which only the waits are known. The rest of its life is covered by the
/// slices of others: over many short-lived threads, the sampled ones represent all.
fn emit_unsampled(id: ThreadId, intervals: &[CompletedInterval], inner: &mut dyn Sink) {
    let Some(first) = intervals.first() else { return };
    inner.thread(&ThreadInfo { id, tid: first.tid, name: String::new(), python: true, main: false, gil: Some(first.gil) });
    let mut totals = ThreadTotals::default();
    for &CompletedInterval { gil, kind, begin, end, .. } in intervals {
        if kind != IntervalKind::Hold {
            totals.seen += end.saturating_since(begin);
            emit_wait(id, end.saturating_since(begin), end, inner);
        }
        inner.interval(&MeasuredInterval { thread: id, gil, kind, begin, end });
    }
    inner.thread_end(id, totals);
}

/// Reports waiting that only the events know of.
fn emit_wait(thread: ThreadId, length: Nanos, end: Nanos, inner: &mut dyn Sink) {
    let (mut times, stack) = (StateTimes::default(), Arc::new(Stack::empty()));
    times.add(State::Waiting, length.as_nanos() as f64);
    inner.slice(&StateSlice { thread, end, times, evidence: Evidence::GilFutex, stack: &stack, holder: None });
}

impl Sink for MergingSink<'_> {
    fn thread(&mut self, info: &ThreadInfo) {
        self.inner.thread(info);
        self.merger.register(info, self.inner);
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        if let Some(thread) = self.merger.threads.get_mut(&slice.thread) {
            thread.until = slice.end;
        }
        let begin = slice.end.saturating_since(Nanos::from_nanos(slice.times.total() as u64));
        let forced = self.merger.reconcile(slice, begin);
        // It took the GIL at some time since the previous sample, or since it released it: half of
        // that time is right on average.
        let until_regained = forced.map_or(0.0, |from| slice.end.saturating_since(from.max(begin)).as_nanos() as f64 / 2.0);
        let event_agrees = slice.evidence == Evidence::PushedOff && self.merger.is_waiting_at(slice.thread, slice.end);
        let Some(waiting) = self.merger.waiting(slice.thread, begin, slice.end, slice.evidence) else {
            return self.inner.slice(slice);
        };
        if slice.evidence == Evidence::Stopped {
            return self.inner.slice(slice);
        }
        let Some(thread) = self.merger.threads.get_mut(&slice.thread) else {
            return self.inner.slice(slice);
        };
        thread.preempted_after_release = slice.evidence == Evidence::PushedOff && !event_agrees
            || thread.preempted_after_release && slice.evidence == Evidence::NotRunSince;
        let waiting = until_regained + if thread.preempted_after_release { waiting.max(slice.times.get(State::Waiting)) } else { waiting };
        let times = thread.correction.correct(&slice.times, slice.evidence, waiting);
        if let Some((id, stack)) = slice.holder.filter(|_| slice.times.get(State::Waiting) > 0.0) {
            thread.waited_on = Some((id, stack.clone()));
        }
        // If a thread's wait ended before the sample, it waited for the holder of the previous
        // sample.
        let waited_on = thread.waited_on.take().filter(|_| waiting > 0.0);
        let holder = slice.holder.or_else(|| waited_on.as_ref().map(|(id, stack)| (*id, stack)));
        self.inner.slice(&StateSlice { times, holder, ..slice.clone() });
        thread.waited_on = waited_on;
    }

    fn gil(&mut self, sample: &GilSample) {
        self.inner.gil(sample);
    }

    fn interval(&mut self, measured: &MeasuredInterval) {
        self.inner.interval(measured);
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        match self.merger.threads.get_mut(&thread) {
            Some(known) if !self.last => known.ended = Some(totals),
            _ => {
                self.merger.threads.remove(&thread);
                self.inner.thread_end(thread, totals);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gil_futex::{FutexOp, GilFutex};
    use super::*;
    use crate::ids::GilId;

    #[derive(Default)]
    struct CollectingSink {
        names: Vec<Tid>,
        waiting: f64,
        waits: u64,
        seen: Nanos,
    }

    impl Sink for CollectingSink {
        fn thread(&mut self, info: &ThreadInfo) {
            self.names.push(info.tid);
        }
        fn slice(&mut self, slice: &StateSlice<'_>) {
            self.waiting += slice.times.get(State::Waiting);
        }
        fn gil(&mut self, _: &GilSample) {}
        fn interval(&mut self, measured: &MeasuredInterval) {
            self.waits += u64::from(measured.kind == IntervalKind::Wait);
        }
        fn thread_end(&mut self, _: ThreadId, totals: ThreadTotals) {
            self.seen += totals.seen;
        }
    }

    fn wait(tid: i32, begin: u64, end: u64) -> CompletedInterval {
        let (begin, end) = (Nanos::from_millis(begin), Nanos::from_millis(end));
        CompletedInterval { tid: Tid(tid), gil: GilId(0), kind: IntervalKind::Wait, begin, certain_begin: begin, end }
    }

    #[test]
    fn a_thread_between_two_samples_is_reported_by_its_waits() {
        let (mut merger, mut collected, mut next) = (WaitMerger::default(), CollectingSink::default(), 7);
        let mut number = || {
            next += 1;
            ThreadId(next)
        };
        [wait(5, 10, 11), wait(6, 10, 12), wait(5, 300, 303)].into_iter().for_each(|interval| merger.add(interval, &mut collected));
        merger.flush_unsampled(Nanos::from_millis(9), &mut number, &mut collected);
        assert_eq!((collected.waits, merger.unmatched.len()), (0, 3), "a sample may still find them");
        // A sample finds one of them after all: its waits are filed under its own id.
        let info = ThreadInfo { id: ThreadId(1), tid: Tid(6), name: String::new(), python: true, main: false, gil: None };
        MergingSink { merger: &mut merger, inner: &mut collected, last: false }.thread(&info);
        assert_eq!((collected.waits, collected.waiting), (1, 0.0));
        merger.flush_unsampled(Nanos::from_millis(11), &mut number, &mut collected);
        assert_eq!((collected.names.as_slice(), collected.waits, merger.unmatched.len()), ([Tid(6), Tid(5)].as_slice(), 3, 0));
        assert_eq!((collected.waiting, collected.seen), (4e6, Nanos::from_millis(4)));
    }

    #[test]
    fn a_wait_after_the_last_slice_is_reported_before_the_end() {
        let (mut merger, mut collected) = (WaitMerger::default(), CollectingSink::default());
        let (info, empty) = (
            ThreadInfo { id: ThreadId(1), tid: Tid(6), name: String::new(), python: true, main: false, gil: None },
            Arc::new(Stack::empty()),
        );
        let mut times = StateTimes::default();
        times.add(State::Starved, 1e6);
        let mut merging = MergingSink { merger: &mut merger, inner: &mut collected, last: false };
        merging.thread(&info);
        merging.slice(&StateSlice {
            thread: ThreadId(1),
            end: Nanos::from_millis(20),
            times,
            evidence: Evidence::Syscall,
            stack: &empty,
            holder: None,
        });
        merging.thread_end(ThreadId(1), ThreadTotals { seen: Nanos::from_millis(1), ..ThreadTotals::default() });
        // Known only now: it waited for 0.5 ms before its last sample, and for 2 ms after it.
        let (begin, end) = (Nanos::from_nanos(19_500_000), Nanos::from_millis(22));
        merger.add(CompletedInterval { begin, certain_begin: begin, end, ..wait(6, 0, 0) }, &mut collected);
        merger.flush_exited(Nanos::from_millis(19), &mut collected);
        assert_eq!((collected.waiting, collected.seen), (0.0, Nanos::ZERO));
        merger.flush_exited(Nanos::from_millis(20), &mut collected);
        assert_eq!((collected.waiting, collected.seen, collected.waits), (2e6, Nanos::from_millis(3), 1));
    }

    #[test]
    fn regaining_the_gil_without_an_event_counts_half_a_sampling_period_as_waiting() {
        let gil = GilId(0);
        let events = [
            (10, 8, FutexOp::Sleep(gil, GilFutex::Cond)),
            (15, 8, FutexOp::Return { timed_out: true }),
            (15, 8, FutexOp::Sleep(gil, GilFutex::Cond)),
            (16, 6, FutexOp::Wake(gil, GilFutex::Cond)),
        ];
        // A holder's slice arrives at once, or only after the thread was forced to release again.
        for again in [false, true] {
            let (mut merger, mut collected, empty) = (WaitMerger::default(), CollectingSink::default(), Arc::new(Stack::empty()));
            for tid in [6, 8] {
                let id = ThreadId(tid as u32);
                let info = ThreadInfo { id, tid: Tid(tid), name: String::new(), python: true, main: false, gil: None };
                MergingSink { merger: &mut merger, inner: &mut collected, last: false }.thread(&info);
            }
            let handle =
                |merger: &mut WaitMerger, ms, tid, op| merger.waits.handle(Nanos::from_millis(ms), Tid(tid), op, None, &mut |_| ());
            events.into_iter().for_each(|(ms, tid, op)| handle(&mut merger, ms, tid, op));
            for (end, state, evidence) in [(18, State::Waiting, Evidence::PushedOff), (20, State::HoldingPython, Evidence::GilHolder)] {
                if again && evidence == Evidence::GilHolder {
                    handle(&mut merger, 24, 6, FutexOp::Wake(gil, GilFutex::Cond));
                }
                let times = StateTimes::single(state, if end == 18 { 4e6 } else { 2e6 });
                let slice = StateSlice { thread: ThreadId(6), end: Nanos::from_millis(end), times, evidence, stack: &empty, holder: None };
                MergingSink { merger: &mut merger, inner: &mut collected, last: false }.slice(&slice);
            }
            // From 16 to 18 ms, and half of 18 to 20 ms.
            assert_eq!(collected.waiting, 3e6, "again: {again}");
        }
    }

    #[test]
    fn a_sleep_for_something_else_cancels_the_forced_switch() {
        for (evidence, waiting) in [(Evidence::Syscall, 1e6), (Evidence::NotRunSince, 1e6), (Evidence::PushedOff, 9e6)] {
            let (mut merger, mut collected, empty) = (WaitMerger::default(), CollectingSink::default(), Arc::new(Stack::empty()));
            let info = ThreadInfo { id: ThreadId(1), tid: Tid(6), name: String::new(), python: true, main: false, gil: None };
            MergingSink { merger: &mut merger, inner: &mut collected, last: false }.thread(&info);
            // Slices arrive late: the wait is already over when the sleep becomes known.
            merger.add(CompletedInterval { certain_begin: Nanos::from_millis(18), ..wait(6, 10, 19) }, &mut collected);
            for end in [15, 20].map(Nanos::from_millis) {
                let times = StateTimes::single(State::Io, 5e6);
                let slice = StateSlice { thread: ThreadId(1), end, times, evidence, stack: &empty, holder: None };
                MergingSink { merger: &mut merger, inner: &mut collected, last: false }.slice(&slice);
            }
            assert_eq!(collected.waiting, waiting, "{evidence:?}");
        }
    }
}
