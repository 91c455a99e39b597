//! One thread's part of each sample: its state, and slices of it.

use super::classify::{Classification, DropRequest};
use super::cpu_attribution::PendingSlice;
use super::gil_history::GilHistory;
use super::rules::{Rule, Rules};
use super::state_machine::{GilView, ThreadStateMachine};
use crate::ids::{Addr, ThreadId};
use crate::sample::{
    Evidence, GilReading, RawGil, RawThread, RunnableState, SchedStat, Sink, Stack, StackStatus, State, StateSlice, StateTimes, TaskState,
};
use crate::units::Nanos;
use std::sync::Arc;

/// The history of one thread.
#[derive(Debug)]
pub struct ThreadEstimator {
    id: ThreadId,
    state_machine: ThreadStateMachine,
    /// Until when another thread has held its GIL, as far as is known: by samples, and because the
    /// thread itself slept or waited.
    other_held_at: Option<Nanos>,
    /// Its stack in samples that do not poll it.
    idle_stack: Option<Arc<Stack>>,
    rules: Rules,
}

/// What a sample says of a thread's GIL, with what earlier ones said.
pub(super) struct ThreadsGil<'a> {
    pub now: &'a RawGil,
    pub history: &'a GilHistory,
}

impl ThreadEstimator {
    /// A thread whose first slice begins at `start`. `just_started`: it started then, so that all
    /// its counts belong to the history.
    pub(super) fn new(id: ThreadId, start: Nanos, stat: Option<SchedStat>, just_started: bool, rules: Rules) -> ThreadEstimator {
        let state_machine = ThreadStateMachine::new(start, stat, just_started).with_rules(rules);
        ThreadEstimator { id, state_machine, other_held_at: None, idle_stack: None, rules }
    }

    /// Begins the thread's history anew: the window begins.
    pub(super) fn restart(&mut self, at: Nanos, stat: Option<SchedStat>) {
        self.state_machine = ThreadStateMachine::new(at, stat, false).with_rules(self.rules);
    }

    /// What earlier samples say of the thread: what need not be read now follows from it.
    pub fn history(&self) -> &ThreadStateMachine {
        &self.state_machine
    }

    /// Until when samples need not poll the thread, because it sleeps; zero when the next sample
    /// must. More samples may pass without a poll of it: sleepers are polled in turn, and while the
    /// whole program is stopped few threads are.
    pub(super) fn next_poll_at(&mut self, raw: &RawThread) -> Nanos {
        let until = self.state_machine.next_poll_at(self.id);
        if until != Nanos::ZERO || raw.task.task_state == TaskState::Stopped {
            self.idle_stack.get_or_insert_with(|| raw.stack.clone());
        }
        until
    }

    /// Attributes the time since the last sample of a thread that still waits. `waited_on` is the
    /// holder.
    pub(super) fn extend_wait(&mut self, at: Nanos, stack: &Arc<Stack>, waited_on: Option<(ThreadId, &Arc<Stack>)>, sink: &mut dyn Sink) {
        self.other_held_at = Some(at);
        let length = self.state_machine.extend_wait(at);
        let times = StateTimes::single(State::Waiting, length.as_nanos() as f64);
        sink.slice(&StateSlice { thread: self.id, end: at, times, evidence: Evidence::SameHolder, stack, holder: waited_on });
    }

    /// Classifies the thread in a sample that stands for the time until `at`.
    pub(super) fn classify(&mut self, at: Nanos, raw: &RawThread, gil: Option<&ThreadsGil<'_>>) -> Classification {
        let reading = gil.and_then(|gil| gil.now.reading);
        let holds = |holder: Option<Addr>| !raw.tstate.is_null() && holder == Some(raw.tstate);
        let drop_request = self.drop_request(at, raw, reading, gil.and_then(|gil| gil.history.uncontended_since));
        if reading.and_then(|now| now.holder).is_some_and(|holder| holder != raw.tstate) {
            self.other_held_at = Some(at);
        }
        let view = GilView {
            held_before: holds(reading.and_then(|now| now.holder)),
            held_after: holds(gil.and_then(|gil| gil.now.holder_after)),
            is_off: reading.is_some_and(|now| !now.enabled),
            drop_request,
        };
        self.state_machine.classify(raw, &view)
    }

    /// Whether the thread can have got a drop request, if it has released the GIL.
    fn drop_request(&self, at: Nanos, raw: &RawThread, reading: Option<GilReading>, uncontended_since: Option<Nanos>) -> DropRequest {
        if raw.tstate.is_null() || raw.stack.frames.is_empty() && raw.stack.status == StackStatus::Complete {
            // The thread runs no eval loop that could see a drop request.
            return DropRequest::No;
        }
        // The drop-request bit stays as it is from `drop_gil` until the thread has a CPU again, or
        // sleeps until another thread has taken the GIL (forced switch).
        let is_current = match raw.task.runnable_state.filter(|_| self.rules.has(Rule::DropRequestBit)) {
            Some(RunnableState::LeavingSyscall) => true,
            Some(RunnableState::PushedOff) => self.last_state().0.is_holding(),
            _ => false,
        };
        if let Some(requested) = raw.drop_request.filter(|_| is_current) {
            return if requested { DropRequest::Likely } else { DropRequest::No };
        }
        let since = [self.other_held_at, uncontended_since].into_iter().flatten().max();
        match reading.map_or(Nanos::ZERO, |now| Nanos::from_micros(now.interval_us)) {
            Nanos::ZERO => DropRequest::Unknown,
            interval if since.is_some_and(|since| at.saturating_since(since) < interval) => DropRequest::No,
            // Samples that are far apart miss holds and waits.
            interval if at.saturating_since(self.state_machine.last_sampled()).as_nanos() > interval.as_nanos() / 4 => DropRequest::Unknown,
            _ => DropRequest::Likely,
        }
    }

    /// Attributes the time since the last sample, which stands for the time until `last`.
    pub(super) fn attribute(
        &mut self,
        (last, at): (Nanos, Nanos),
        raw: &RawThread,
        classification: Classification,
        waited_on: Option<(ThreadId, &Arc<Stack>)>,
        sink: &mut dyn Sink,
    ) {
        let id = self.id;
        let waited_on = waited_on.map(|(id, stack)| (id, stack.clone()));
        let mut emit = |entry: &PendingSlice, times, evidence| emit(sink, id, entry, times, evidence);
        // A thread that is still asleep has slept for the whole time. If the thread does something
        // else now, it began after the last sample, even if no sample polled it for long.
        if let Some(idle_stack) = self.idle_stack.take().filter(|_| raw.task.task_state != TaskState::NotRunSince) {
            if self.state_machine.fill_idle_until(last, &idle_stack, &mut emit) {
                self.other_held_at = Some(last);
            }
        }
        self.state_machine.attribute(at, &raw.task, classification, &raw.stack, waited_on, &mut emit);
    }

    /// Attributes the time since the last sample for a thread that existed when this sample began
    /// and is gone now. `held`: it held the GIL then. A thread needs the GIL to end, and a CPU
    /// afterwards. So a thread that did not hold the GIL then was past its last hold.
    pub(super) fn attribute_last(&mut self, span: (Nanos, Nanos), held: bool, in_c_call: bool, stack: &Arc<Stack>, sink: &mut dyn Sink) {
        let view = GilView { held_before: held, held_after: held, ..GilView::default() };
        let raw = RawThread { in_c_call, ..RawThread::unread(stack.clone()) };
        let classification = if held { self.state_machine.classify(&raw, &view) } else { Classification::OffGil };
        self.attribute(span, &raw, classification, None, sink);
    }

    /// Resolves pending time at the end of the thread or of the window. `stat` is the last count,
    /// where it could be read; returns that count or else the one before it.
    pub(super) fn finish(&mut self, at: Nanos, stat: Option<SchedStat>, stack: &Arc<Stack>, sink: &mut dyn Sink) -> Option<SchedStat> {
        let id = self.id;
        let mut emit = |entry: &PendingSlice, times, evidence| emit(sink, id, entry, times, evidence);
        if let Some(idle_stack) = self.idle_stack.take() {
            self.state_machine.fill_idle_until(at, &idle_stack, &mut emit);
        }
        self.state_machine.finish(at, stat, stack, &mut emit)
    }

    /// The state and evidence of the last sample.
    pub fn last_state(&self) -> (State, Evidence) {
        self.state_machine.last_state()
    }
}

fn emit(sink: &mut dyn Sink, thread: ThreadId, entry: &PendingSlice, times: StateTimes, evidence: Evidence) {
    let holder = entry.holder.as_ref().map(|(id, stack)| (*id, stack));
    sink.slice(&StateSlice { thread, end: entry.end, times, evidence, stack: &entry.stack, holder });
}
