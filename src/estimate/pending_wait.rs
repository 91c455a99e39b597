//! Waits that go on from sample to sample, joined before they are emitted. A waiter whose holder
//! stays in one function then costs one slice for many samples.

use crate::ids::ThreadId;
use crate::sample::{Evidence, Sink, Stack, State, StateSlice, StateTimes};
use crate::units::Nanos;
use std::sync::Arc;

/// A slice of waiting is emitted after this time at the latest.
const MAX_PENDING_WAIT: Nanos = Nanos::from_millis(20);

/// A wait behind one holder in one function.
#[derive(Debug)]
struct Wait {
    length: Nanos,
    end: Nanos,
    stack: Arc<Stack>,
    waited_on: Option<(ThreadId, Arc<Stack>)>,
}

impl Wait {
    /// Whether a wait behind this holder continues the pending one. What a holder did is reported
    /// by function, so lines may differ.
    fn is_same_holder(&self, waited_on: Option<(ThreadId, &Arc<Stack>)>) -> bool {
        match (&self.waited_on, waited_on) {
            (Some((id, stack)), Some((now, holder_stack))) => *id == now && stack.same_functions(holder_stack),
            (None, None) => true,
            _ => false,
        }
    }
}

/// The wait of one thread for which no slice has been emitted yet.
#[derive(Debug, Default)]
pub struct PendingWait(Option<Wait>);

impl PendingWait {
    /// Adds the `length` until `end` that `thread` waited, with this stack, for the holder
    /// `waited_on`.
    pub fn extend(
        &mut self,
        thread: ThreadId,
        (length, end): (Nanos, Nanos),
        stack: &Arc<Stack>,
        waited_on: Option<(ThreadId, &Arc<Stack>)>,
        sink: &mut dyn Sink,
    ) {
        if !self.0.as_ref().is_some_and(|pending| pending.is_same_holder(waited_on)) {
            self.flush(thread, sink);
        }
        let new = || Wait { length: Nanos::ZERO, end, stack: stack.clone(), waited_on: waited_on.map(|(id, stack)| (id, stack.clone())) };
        let pending = self.0.get_or_insert_with(new);
        pending.length += length;
        pending.end = end;
        if pending.length >= MAX_PENDING_WAIT {
            self.flush(thread, sink);
        }
    }

    /// Emits the slice.
    pub fn flush(&mut self, thread: ThreadId, sink: &mut dyn Sink) {
        let Some(Wait { length, end, stack, waited_on }) = self.0.take() else { return };
        let (times, evidence) = (StateTimes::single(State::Waiting, length.as_nanos() as f64), Evidence::SameHolder);
        let holder = waited_on.as_ref().map(|(id, holder_stack)| (*id, holder_stack));
        sink.slice(&StateSlice { thread, end, times, evidence, stack: &stack, holder });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Frame, Function, GilSample, StackStatus, ThreadInfo, ThreadTotals};

    /// Ends of slices in ms, their lengths, and the line of the holder that the thread waited for.
    #[derive(Default)]
    struct CollectingSink(Vec<(u64, f64, u32)>);

    impl Sink for CollectingSink {
        fn thread(&mut self, _: &ThreadInfo) {}
        fn gil(&mut self, _: &GilSample) {}
        fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
        fn slice(&mut self, slice: &StateSlice<'_>) {
            let line = slice.holder.and_then(|(_, stack)| stack.leaf()).map_or(0, |leaf| leaf.line);
            self.0.push((slice.end.as_nanos() / 1_000_000, slice.times.get(State::Waiting) / 1e6, line));
        }
    }

    #[test]
    fn a_pending_wait_ends_when_the_holder_changes_function_and_at_the_end() {
        let functions = ["f", "g"].map(|name| Arc::new(Function { name: name.into(), file: String::new(), first_line: 1 }));
        let stack = |f: usize, line| {
            Arc::new(Stack { frames: vec![Frame { function: functions[f].clone(), line }], status: StackStatus::Complete })
        };
        let (mut pending, mut collected, mut last) = (PendingWait::default(), CollectingSink::default(), 0);
        for (ms, function, line, holder) in [(1, 0, 5, 7), (2, 0, 6, 7), (3, 1, 9, 7), (4, 1, 9, 8), (50, 1, 9, 8), (51, 1, 9, 8)] {
            let (length, end) = (Nanos::from_millis(ms - last), Nanos::from_millis(ms));
            let holder_stack = stack(function, line);
            pending.extend(ThreadId(1), (length, end), &Arc::new(Stack::empty()), Some((ThreadId(holder), &holder_stack)), &mut collected);
            last = ms;
        }
        assert_eq!(collected.0, [(2, 2.0, 5), (3, 1.0, 9), (50, 47.0, 9)]);
        pending.flush(ThreadId(1), &mut collected);
        assert_eq!(collected.0[3], (51, 1.0, 9));
    }
}
