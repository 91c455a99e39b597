//! What gilprof keeps of each OS thread of the target from look to look: its files, its stack, its account of time.

use super::classify::{self, Classification, DropRequest, TaskState};
use super::cpu_attribution::PendingSlice;
use super::state_machine::{InterpreterView, KernelView, ThreadStateMachine};
use crate::ids::{Addr, GilId, ThreadId};
use crate::process::kernel_stack::{self, KernelStackState};
use crate::process::target::Target;
use crate::process::threads::{SchedStat, TaskFiles};
use crate::python::stack::ThreadStack;
use crate::sample::{Evidence, Sink, Stack, StackStatus, State, StateSlice, StateTimes, ThreadInfo, ThreadTotals};
use crate::units::Nanos;
use std::sync::Arc;

/// One thread.
#[derive(Debug)]
pub struct ThreadTracker {
    /// What is told of it.
    pub facts: ThreadInfo,
    /// Its thread state; null when it has none.
    pub tstate: Addr,
    /// `pthread_self()`, by which thread names are found.
    pub pthread: u64,
    /// 3.15: whether it had asked for the GIL and not got it, when its stack was last read.
    pub gil_requested: Option<bool>,
    /// Its Python stack.
    pub stack: ThreadStack,
    /// The GIL of the interpreter that it runs; null when it has no thread state.
    pub gil: Addr,
    /// Whether the kernel was asked for its name.
    pub comm_read: bool,
    /// Whether a name was found in the interpreter.
    pub named: bool,
    /// Its stack while it rests.
    idle_stack: Option<Arc<Stack>>,
    pending_wait: Option<PendingWait>,
    /// When another thread was last seen to hold its GIL.
    other_held_at: Option<Nanos>,
    files: Option<TaskFiles>,
    kernel: KernelView,
    state_machine: ThreadStateMachine,
    baseline: (Nanos, Option<SchedStat>),
}

/// Waiting behind one holder in one place, of which nothing has been told yet.
#[derive(Debug)]
struct PendingWait {
    length: Nanos,
    end: Nanos,
    stack: Arc<Stack>,
    waited_on: Option<(ThreadId, Arc<Stack>)>,
}

impl PendingWait {
    /// Whether waiting behind this holder is the same still: what it did is told by function, so that its lines may differ.
    fn is_same_holder(&self, waited_on: Option<(ThreadId, &Arc<Stack>)>) -> bool {
        match (&self.waited_on, waited_on) {
            (Some((id, stack)), Some((now, holder_stack))) => *id == now && stack.same_functions(holder_stack),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Waiting is told of after so long at the latest.
const MAX_PENDING_WAIT: Nanos = Nanos::from_millis(20);

/// The thread is gone.
#[derive(Debug)]
pub struct Exited;

/// What is known of a thread before the kernel is asked where it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct PollHints {
    /// It cannot have had its GIL since the last look: if it waited then, it still waits.
    pub cannot_have_held: bool,
    /// Exact mode: kernel events say that it waits for a GIL.
    pub waiting: bool,
    /// The GIL names it as its holder.
    pub holding: bool,
}

/// What its GIL said of a thread at one look.
#[derive(Clone, Copy, Debug, Default)]
pub struct GilView {
    /// It held when the look began.
    pub held_before: bool,
    /// It held when the look ended.
    pub held_after: bool,
    /// Another thread held when the look began.
    pub other_holds: bool,
    /// As [`InterpreterView::may_have_held`].
    pub may_have_held: bool,
    /// When nobody was last seen to wait for it.
    pub uncontended_since: Option<Nanos>,
    /// The switch interval; 0 where it is not known.
    pub interval: Nanos,
    /// As [`InterpreterView::locks_spin`].
    pub locks_spin: bool,
}

/// A look may take so long.
const MAX_SAMPLE_TIME: Nanos = Nanos::from_millis(1);

const UNREAD: KernelView = KernelView { task_state: TaskState::Unread, assumed: false, stat: None, kernel_state: None };

impl ThreadTracker {
    /// Starts following a thread. `start`: when its first slice begins. `since_last`: so long ago it was not on the list; `None` when there was none.
    pub fn new(source: &dyn Target, facts: ThreadInfo, start: Nanos, since_last: Option<Nanos>, empty: &Arc<Stack>) -> ThreadTracker {
        let files = source.open(facts.tid).ok();
        let stat = files.as_ref().and_then(|f| f.schedstat().ok().flatten());
        // The list is not read at every look: who has run for longer has been there for longer.
        let just_started = since_last.zip(stat).is_some_and(|(since_last, stat)| stat.cpu + stat.run_queue <= since_last + MAX_SAMPLE_TIME);
        ThreadTracker {
            facts,
            tstate: Addr(0),
            pthread: 0,
            gil_requested: None,
            gil: Addr(0),
            stack: ThreadStack::new(empty),
            comm_read: false,
            named: false,
            idle_stack: None,
            pending_wait: None,
            other_held_at: None,
            files,
            kernel: UNREAD,
            state_machine: ThreadStateMachine::new(start, stat, just_started),
            baseline: (start, stat),
        }
    }

    /// Asks the kernel where the thread is; not where it slept at the last look and has not run since.
    /// Nor where what the `hints` say says that it waits.
    pub fn poll(&mut self, source: &dyn Target, hints: PollHints, on_gil: impl Fn(Addr) -> Option<bool>) -> Result<(), Exited> {
        if hints.cannot_have_held && self.state_machine.was_waiting() {
            self.kernel = KernelView { task_state: TaskState::StillWaiting, assumed: true, ..UNREAD };
            return Ok(());
        }
        if self.files.is_none() {
            // It was listed, but its files could not be opened: it was gone by then, most likely, and must not live on here.
            match source.open(self.facts.tid) {
                Ok(files) => self.files = Some(files),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Exited),
                Err(_) => {}
            }
        }
        let Some(files) = &self.files else {
            self.kernel = UNREAD;
            return Ok(());
        };
        let stat = files.schedstat().map_err(|_| Exited)?;
        let is_still_asleep = self.state_machine.is_still_asleep(stat);
        let assumed = hints.waiting && !is_still_asleep;
        let mut task_state = if is_still_asleep {
            TaskState::NotRunSince
        } else if assumed {
            TaskState::GilFutex
        } else {
            classify::task_state(files.syscall_state().map_err(|_| Exited)?, &on_gil)
        };
        // Of a holder, and of one that was woken and has not run, it is clear what it does. The first holders only show that the kernel tells.
        let clear = hints.holding || self.state_machine.not_run_since_wakeup(stat);
        let needs_stack = task_state == TaskState::Runnable && (!clear || !kernel_stack::proven());
        let kernel_state = if needs_stack { files.kernel_stack_state() } else { None }.filter(|_| !clear);
        if matches!(kernel_state, Some(KernelStackState::WokenFromFutex | KernelStackState::InSystemCall)) {
            // It may have gone to sleep between the two questions.
            task_state = classify::task_state(files.syscall_state().map_err(|_| Exited)?, &on_gil);
        }
        self.kernel = KernelView { task_state, assumed, stat, kernel_state };
        Ok(())
    }

    /// Whether this look did not look at it, because it cannot have stopped waiting for its GIL.
    pub fn is_still_waiting(&self) -> bool {
        self.kernel.task_state == TaskState::StillWaiting
    }

    /// Books the time since the last look of one that still waits, `waited_on` the holder.
    pub fn attribute_wait(&mut self, at: Nanos, waited_on: Option<(ThreadId, &Arc<Stack>)>, sink: &mut dyn Sink) {
        self.other_held_at = Some(at);
        let length = self.state_machine.extend_wait(at);
        if !self.pending_wait.as_ref().is_some_and(|pending| pending.is_same_holder(waited_on)) {
            self.flush_wait(sink);
        }
        let stack = self.stack.stack();
        let new = || PendingWait {
            length: Nanos::ZERO,
            end: at,
            stack: stack.clone(),
            waited_on: waited_on.map(|(id, holder_stack)| (id, holder_stack.clone())),
        };
        let pending = self.pending_wait.get_or_insert_with(new);
        pending.length += length;
        pending.end = at;
        if pending.length >= MAX_PENDING_WAIT {
            self.flush_wait(sink);
        }
    }

    fn flush_wait(&mut self, sink: &mut dyn Sink) {
        let Some(PendingWait { length, end, stack, waited_on }) = self.pending_wait.take() else { return };
        let (times, evidence) = (StateTimes::single(State::Waiting, length.as_nanos() as f64), Evidence::SameHolder);
        let holder = waited_on.as_ref().map(|(id, holder_stack)| (*id, holder_stack));
        sink.slice(&StateSlice { thread: self.facts.id, end, times, evidence, stack: &stack, holder });
    }

    /// Until when looks need not go to it, because it has slept for long; zero when the next one must.
    pub fn next_poll_at(&mut self) -> Nanos {
        let until = self.state_machine.next_poll_at(self.facts.id);
        if until > self.state_machine.last_sampled() {
            self.idle_stack.get_or_insert_with(|| self.stack.stack().clone());
        }
        until
    }

    /// The whole program stands still: what the kernel says of the thread is where it was stopped.
    pub fn mark_stopped(&mut self) {
        self.kernel.task_state = TaskState::Stopped;
    }

    /// Whether this look found it off the CPU outside of any system call.
    pub fn is_outside_syscall(&self) -> bool {
        self.kernel.task_state == TaskState::OutsideSyscall
    }

    /// Whether this look found it runnable.
    pub fn is_runnable(&self) -> bool {
        self.kernel.task_state == TaskState::Runnable
    }

    /// Whether this look found it on a CPU by its kernel stack, which is asked only of one that did not hold.
    pub fn is_on_cpu(&self) -> bool {
        self.kernel.kernel_state == Some(KernelStackState::OnCpu)
    }

    /// Puts it under one of its thread states. True when that changes what is told of it.
    pub fn bind_to(&mut self, tstate: Addr, pthread: u64, gil: (Addr, Option<GilId>)) -> bool {
        (self.tstate, self.pthread, self.gil) = (tstate, pthread, gil.0);
        let changed = !self.facts.python || self.facts.gil != gil.1;
        self.facts.python = true;
        self.facts.gil = gil.1;
        changed
    }

    /// Whether its stack may have changed since it was last read.
    pub fn stack_may_have_changed(&self) -> bool {
        self.kernel.task_state != TaskState::StillWaiting && self.state_machine.stack_may_have_changed(self.kernel.stat)
    }

    /// Whether this look found it asleep.
    pub fn is_asleep(&self) -> bool {
        !matches!(self.kernel.task_state, TaskState::Runnable | TaskState::Unread)
    }

    /// Whether the last look found it asleep, and not for the GIL.
    pub fn was_asleep(&self) -> bool {
        self.state_machine.was_asleep()
    }

    /// What the last look told of the thread.
    pub fn last_state(&self) -> (State, Evidence) {
        self.state_machine.last_state()
    }

    /// Judges the look.
    pub fn classify(&mut self, at: Nanos, gil: &GilView) -> Classification {
        let drop_request = self.drop_request(at, gil);
        if gil.other_holds {
            self.other_held_at = Some(at);
        }
        let GilView { held_before, held_after, may_have_held, locks_spin, .. } = *gil;
        let (requested, in_c_call) = (self.gil_requested, self.stack.in_c_call());
        let view = InterpreterView { held_before, held_after, requested, in_c_call, drop_request, may_have_held, locks_spin };
        self.state_machine.classify(&self.kernel, &view)
    }

    /// Whether it can have been told to let go, if it has.
    fn drop_request(&self, at: Nanos, gil: &GilView) -> DropRequest {
        let stack = self.stack.stack();
        if self.tstate.is_null() || stack.frames.is_empty() && stack.status == StackStatus::Complete {
            // No eval loop is there to be told.
            return DropRequest::No;
        }
        // The word stays as it is from the drop until the thread has a CPU again, or sleeps until another has taken the GIL (`drop_gil`).
        let is_current = self.kernel.kernel_state == Some(KernelStackState::LeavingSyscall);
        if let Some(requested) = self.stack.drop_request().filter(|_| is_current) {
            return if requested { DropRequest::Likely } else { DropRequest::No };
        }
        let since = [self.other_held_at, gil.uncontended_since].into_iter().flatten().max();
        match gil.interval.as_nanos() {
            0 => DropRequest::Unknown,
            _ if since.is_some_and(|since| at.saturating_since(since) < gil.interval) => DropRequest::No,
            // Looks that are far apart miss holds and waits.
            interval if at.saturating_since(self.state_machine.last_sampled()).as_nanos() > interval / 4 => DropRequest::Unknown,
            _ => DropRequest::Likely,
        }
    }

    /// Books the time since the `last` look, `waited_on` the holder of its GIL.
    pub fn attribute(
        &mut self,
        (last, at): (Nanos, Nanos),
        classification: Classification,
        waited_on: Option<(ThreadId, &Arc<Stack>)>,
        sink: &mut dyn Sink,
    ) {
        self.flush_wait(sink);
        let id = self.facts.id;
        let waited_on = waited_on.map(|(id, stack)| (id, stack.clone()));
        let mut emit = |entry: &PendingSlice, times, evidence| emit(sink, id, entry, times, evidence);
        // One that sleeps on has been doing so, whole; what another does now it began after the last look.
        if let Some(idle_stack) = self.idle_stack.take().filter(|_| self.kernel.task_state != TaskState::NotRunSince) {
            self.state_machine.fill_idle_until(last, &idle_stack, &mut emit);
            self.other_held_at = Some(last);
        }
        self.state_machine.attribute(at, &self.kernel, classification, self.stack.stack(), waited_on, &mut emit);
    }

    /// Books the time since the last look for a thread that was there when this one began and is gone now. If it did not hold the GIL then,
    /// it was past its last hold: a thread needs the GIL to end, and the CPU afterwards.
    pub fn attribute_last(&mut self, (last, at): (Nanos, Nanos), held: bool, sink: &mut dyn Sink) {
        self.kernel = UNREAD;
        let gil = GilView { held_before: held, held_after: held, ..GilView::default() };
        let classification = if held { self.classify(at, &gil) } else { Classification::OffGil };
        self.attribute((last, at), classification, None, sink);
    }

    /// Settles what is pending and says that the thread's time ends here.
    pub fn finish(&mut self, at: Nanos, sink: &mut dyn Sink) {
        self.flush_wait(sink);
        let id = self.facts.id;
        let last = self.files.as_ref().and_then(|f| f.schedstat().ok().flatten());
        let mut emit = |entry: &PendingSlice, times, evidence| emit(sink, id, entry, times, evidence);
        if let Some(idle_stack) = self.idle_stack.take() {
            self.state_machine.fill_idle_until(at, &idle_stack, &mut emit);
        }
        let last = self.state_machine.finish(at, last, self.stack.stack(), &mut emit);
        let (since, base) = self.baseline;
        let mut totals = ThreadTotals { seen: at.saturating_since(since), ..ThreadTotals::default() };
        if let (Some(base), Some(last)) = (base, last) {
            totals.cpu = last.cpu.saturating_since(base.cpu);
            totals.run_queue = last.run_queue.saturating_since(base.run_queue);
        }
        sink.thread_end(id, totals);
    }
}

fn emit(sink: &mut dyn Sink, thread: ThreadId, entry: &PendingSlice, times: StateTimes, evidence: Evidence) {
    let holder = entry.holder.as_ref().map(|(id, stack)| (*id, stack));
    sink.slice(&StateSlice { thread, end: entry.end, times, evidence, stack: &entry.stack, holder });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Pid, Tid};
    use crate::process::target::LiveTarget;
    use crate::sample::{Frame, Function, GilSample};

    /// Ends of slices in ms, their lengths, and the line behind which the thread waited.
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
    fn waiting_is_told_of_when_the_holder_goes_elsewhere_and_at_the_end() {
        let facts = ThreadInfo { id: ThreadId(1), tid: Tid(-1), name: String::new(), python: true, main: false, gil: None };
        let mut thread = ThreadTracker::new(&LiveTarget::new(Pid(-1)), facts, Nanos::ZERO, None, &Arc::new(Stack::empty()));
        let functions = ["f", "g"].map(|name| Arc::new(Function { name: name.into(), file: String::new(), first_line: 1 }));
        let stack = |f: usize, line| {
            Arc::new(Stack { frames: vec![Frame { function: functions[f].clone(), line }], status: StackStatus::Complete })
        };
        let mut collected = CollectingSink::default();
        for (ms, function, line, holder) in [(1, 0, 5, 7), (2, 0, 6, 7), (3, 1, 9, 7), (4, 1, 9, 8), (50, 1, 9, 8), (51, 1, 9, 8)] {
            let holder_stack = stack(function, line);
            thread.attribute_wait(Nanos::from_millis(ms), Some((ThreadId(holder), &holder_stack)), &mut collected);
        }
        assert_eq!(collected.0, [(2, 2.0, 5), (3, 1.0, 9), (50, 47.0, 9)]);
        thread.finish(Nanos::from_millis(51), &mut collected);
        assert_eq!(collected.0[3], (51, 1.0, 9));
    }
}
