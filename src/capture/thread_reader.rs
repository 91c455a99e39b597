//! One OS thread of the target: its `/proc` files, its Python stack, and its history.
//!
//! [`ThreadTracker::poll`] reads the kernel's view of the thread, [`ThreadTracker::classify`]
//! combines it with the GIL's view, and [`ThreadTracker::attribute`] emits slices. The kernel is
//! not asked where earlier samples or `switch_number` already say that nothing can have changed.

use super::classify::{Classification, DropRequest, TaskState};
use super::cpu_attribution::PendingSlice;
use super::pending_wait::PendingWait;
use super::state_machine::{InterpreterView, KernelView, ThreadStateMachine};
use super::task_state;
use crate::ids::{Addr, GilId, ThreadId};
use crate::process::affinity::{CpuSet, WorkingCpus};
use crate::process::kernel_stack;
use crate::process::runnable::{self, RunnableState, SwitchHistory};
use crate::process::target::Target;
use crate::process::threads::{SchedStat, TaskFiles};
use crate::python::gil_waits::FutexOwner;
use crate::python::stack::ThreadStack;
use crate::sample::{Evidence, Sink, Stack, StackStatus, State, StateSlice, StateTimes, ThreadInfo, ThreadTotals};
use crate::units::Nanos;
use std::sync::Arc;

/// One thread.
#[derive(Debug)]
pub struct ThreadTracker {
    /// Its identity, as the sink knows it.
    pub info: ThreadInfo,
    /// Its thread state; null when it has none.
    pub tstate: Addr,
    /// `pthread_self()`, by which thread names are found.
    pub pthread: u64,
    /// 3.15: the thread state's `gil_requested` flag when the stack was last read.
    pub gil_requested: Option<bool>,
    /// Its Python stack.
    pub stack: ThreadStack,
    /// The GIL of the interpreter that it runs, or ran last; null before its first thread state.
    pub gil: Addr,
    /// Whether its `comm` was read.
    pub comm_read: bool,
    /// Whether a name was found in the interpreter.
    pub named: bool,
    /// Its stack in samples that do not poll it.
    idle_stack: Option<Arc<Stack>>,
    pending_wait: PendingWait,
    /// When a sample last found another thread holding its GIL.
    other_held_at: Option<Nanos>,
    files: Option<TaskFiles>,
    /// In how many polls files that could not be opened are tried again.
    polls_to_open: u8,
    kernel: KernelView,
    switches: SwitchHistory,
    state_machine: ThreadStateMachine,
    baseline: (Nanos, Option<SchedStat>),
    /// The last count that could be read; a thread that has exited has none.
    last_stat: Option<SchedStat>,
    cpus: Option<CpuSet>,
}

/// The thread has exited.
#[derive(Debug)]
pub struct Exited;

/// What is known of a thread before the kernel is asked where it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct PollHints {
    /// The thread cannot have had its GIL since the last sample. If it waited then, it still waits.
    pub cannot_have_held: bool,
    /// Exact mode: kernel events say that the thread waits for a GIL.
    pub waiting: bool,
    /// The GIL names the thread as its holder.
    pub holding: bool,
    /// A tracer is attached to the program.
    pub traced: bool,
}

/// How a thread relates to its GIL in one sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct GilView {
    /// The thread held the GIL when the sample began.
    pub held_before: bool,
    /// The thread held the GIL when the sample ended.
    pub held_after: bool,
    /// Another thread held the GIL when the sample began.
    pub other_holds: bool,
    /// As [`InterpreterView::may_have_held`].
    pub may_have_held: bool,
    /// The GIL is off, as in a free-threaded build.
    pub is_off: bool,
    /// When a sample last found no thread waiting for the GIL.
    pub uncontended_since: Option<Nanos>,
    /// The switch interval; 0 where it is unknown.
    pub interval: Nanos,
    /// As [`InterpreterView::locks_spin`].
    pub locks_spin: bool,
}

/// Time that a new thread may have had since the sample began that reads its counts.
const MAX_SAMPLE_TIME: Nanos = Nanos::from_millis(1);

/// A thread's files that could not be opened, for want of descriptors, are tried again after so
/// many polls.
const POLLS_TO_OPEN: u8 = 64;

const UNREAD: KernelView = KernelView { task_state: TaskState::Unread, assumed: false, stat: None, runnable_state: None };

impl ThreadTracker {
    /// Starts tracking a thread. `start`: when its first slice begins. `since_last`: how long ago
    /// the last sample was; `None` for the first sample.
    pub fn new(target: &dyn Target, info: ThreadInfo, start: Nanos, since_last: Option<Nanos>, empty_stack: &Arc<Stack>) -> ThreadTracker {
        let files = target.open(info.tid).ok();
        let stat = files.as_ref().and_then(|f| f.schedstat().ok().flatten());
        // The list of threads is not read in every sample. A thread with more CPU and run-queue
        // time than this is older than the last sample.
        let just_started = since_last.zip(stat).is_some_and(|(since_last, stat)| stat.cpu + stat.run_queue <= since_last + MAX_SAMPLE_TIME);
        ThreadTracker {
            cpus: target.cpus(info.tid),
            info,
            tstate: Addr(0),
            pthread: 0,
            gil_requested: None,
            gil: Addr(0),
            stack: ThreadStack::new(empty_stack),
            comm_read: false,
            named: false,
            idle_stack: None,
            pending_wait: PendingWait::default(),
            other_held_at: None,
            files,
            polls_to_open: 0,
            kernel: UNREAD,
            switches: SwitchHistory::default(),
            state_machine: ThreadStateMachine::new(start, stat, just_started),
            baseline: (start, if just_started { stat.map(|_| SchedStat::default()) } else { stat }),
            last_stat: stat,
        }
    }

    /// Begins the thread's history anew: the window begins.
    pub fn restart(&mut self, at: Nanos) {
        let stat = self.files.as_ref().and_then(|f| f.schedstat().ok().flatten());
        self.state_machine = ThreadStateMachine::new(at, stat, false);
        self.baseline = (at, stat);
    }

    /// Reads the thread's task state from the kernel. The read is skipped for a thread that slept
    /// at the last sample and has not run since, and for a thread that `hints` show to be waiting.
    /// `owner` says what a futex belongs to.
    pub fn poll(&mut self, target: &dyn Target, hints: PollHints, mut owner: impl FnMut(Addr) -> FutexOwner) -> Result<(), Exited> {
        if hints.cannot_have_held && self.state_machine.was_waiting() {
            self.kernel = KernelView { task_state: TaskState::StillWaiting, assumed: true, ..UNREAD };
            return Ok(());
        }
        self.polls_to_open = self.polls_to_open.saturating_sub(1);
        if self.files.is_none() && self.polls_to_open == 0 {
            // The thread was listed, but its files could not be opened. It had most likely exited
            // by then and must not stay in the list.
            match target.open(self.info.tid) {
                Ok(files) => self.files = Some(files),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Exited),
                Err(_) => self.polls_to_open = POLLS_TO_OPEN,
            }
        }
        let Some(files) = &self.files else {
            self.kernel = UNREAD;
            return Ok(());
        };
        let stat = files.schedstat().map_err(|_| Exited)?;
        self.last_stat = stat.or(self.last_stat);
        let is_still_asleep = self.state_machine.is_still_asleep(stat);
        let assumed = hints.waiting && !is_still_asleep;
        let mut read_state =
            || task_state::read(files, &mut owner).map(|state| task_state::stopped_or(files, state, hints.traced)).map_err(|_| Exited);
        let mut task_state = if is_still_asleep {
            TaskState::NotRunSince
        } else if assumed {
            TaskState::GilFutex
        } else {
            read_state()?
        };
        // The state of a holder, and of a woken thread that has not run, is known without its
        // kernel stack. Stacks of holders are read only until one has shown that this kernel shows
        // no stale stacks.
        let decided = hints.holding || self.state_machine.not_run_since_wakeup(stat);
        let needs_stack = task_state == TaskState::Runnable && (!decided || !kernel_stack::proven());
        let by_stack = if needs_stack { files.kernel_stack_state() } else { None }.filter(|_| !decided);
        let runnable_state = by_stack.or_else(|| read_switches(files, &mut self.switches, task_state, stat?, !decided));
        if runnable_state.is_some_and(RunnableState::is_woken) {
            // The thread may have gone to sleep between the two reads.
            task_state = read_state()?;
        }
        self.kernel = KernelView { task_state, assumed, stat, runnable_state };
        Ok(())
    }

    /// Whether this sample did not read the thread's files, because the thread cannot have stopped
    /// waiting for its GIL.
    pub fn is_still_waiting(&self) -> bool {
        self.kernel.task_state == TaskState::StillWaiting
    }

    /// Whether this sample found that a thread which slept has run since. A stop of the program
    /// wakes every thread, which says nothing of how soon they wake by themselves.
    pub fn has_moved(&self) -> bool {
        !matches!(self.kernel.task_state, TaskState::NotRunSince | TaskState::Stopped)
    }

    /// Attributes the time since the last sample of a thread that still waits. `waited_on` is the
    /// holder.
    pub fn attribute_wait(&mut self, at: Nanos, waited_on: Option<(ThreadId, &Arc<Stack>)>, sink: &mut dyn Sink) {
        self.other_held_at = Some(at);
        let length = self.state_machine.extend_wait(at);
        self.pending_wait.extend(self.info.id, (length, at), self.stack.stack(), waited_on, sink);
    }

    /// Until when samples need not poll the thread, because it sleeps; zero when the next sample
    /// must. More samples may pass without a poll of it: sleepers are polled in turn, and while the
    /// whole program is stopped few threads are.
    pub fn next_poll_at(&mut self) -> Nanos {
        let until = self.state_machine.next_poll_at(self.info.id);
        if until != Nanos::ZERO || self.is_stopped() {
            self.idle_stack.get_or_insert_with(|| self.stack.stack().clone());
        }
        until
    }

    /// The whole program is stopped: the kernel's view shows only where the thread was stopped.
    pub fn mark_stopped(&mut self) {
        self.kernel.task_state = TaskState::Stopped;
    }

    /// Whether this sample found the thread off the CPU outside any system call.
    pub fn is_outside_syscall(&self) -> bool {
        self.kernel.task_state == TaskState::OutsideSyscall
    }

    /// Whether this sample found the thread stopped.
    pub fn is_stopped(&self) -> bool {
        self.kernel.task_state == TaskState::Stopped
    }

    /// Whether a signal or a tracer stops the thread now.
    pub fn is_stopped_now(&self) -> bool {
        self.is_stopped() || self.files.as_ref().and_then(TaskFiles::state_letter).is_some_and(task_state::is_stop)
    }

    /// Whether this sample found the thread runnable.
    pub fn is_runnable(&self) -> bool {
        self.kernel.task_state == TaskState::Runnable
    }

    /// Whether this sample found the thread on a CPU by its kernel stack, which is read only of
    /// threads that do not hold.
    pub fn is_on_cpu(&self) -> bool {
        self.kernel.runnable_state == Some(RunnableState::OnCpu)
    }

    /// Binds the thread to one of its thread states. True when that changes its [`ThreadInfo`].
    pub fn bind_to(&mut self, tstate: Addr, pthread: u64, gil: (Addr, Option<GilId>)) -> bool {
        (self.tstate, self.pthread, self.gil) = (tstate, pthread, gil.0);
        let changed = !self.info.python || self.info.gil != gil.1;
        self.info.python = true;
        self.info.gil = gil.1;
        changed
    }

    /// Whether the thread's stack may have changed since it was last read.
    pub fn stack_may_have_changed(&self) -> bool {
        self.kernel.task_state != TaskState::StillWaiting && self.state_machine.stack_may_have_changed(self.kernel.stat)
    }

    /// Whether this sample found the thread asleep.
    pub fn is_asleep(&self) -> bool {
        !matches!(self.kernel.task_state, TaskState::Runnable | TaskState::Unread)
    }

    /// Whether this sample found the thread asleep in a system call.
    pub fn sleeps_in_syscall(&self) -> bool {
        self.is_asleep() && !self.is_outside_syscall() && !self.is_stopped()
    }

    /// Whether the last sample found the thread asleep, and not for the GIL.
    pub fn was_asleep(&self) -> bool {
        self.state_machine.was_asleep()
    }

    /// The state and evidence of the last sample.
    pub fn last_state(&self) -> (State, Evidence) {
        self.state_machine.last_state()
    }

    /// Classifies this sample.
    pub fn classify(&mut self, at: Nanos, gil: &GilView) -> Classification {
        let drop_request = self.drop_request(at, gil);
        if gil.other_holds {
            self.other_held_at = Some(at);
        }
        let GilView { held_before, held_after, is_off: gil_is_off, may_have_held, locks_spin, .. } = *gil;
        let (requested, in_c_call) = (self.gil_requested, self.stack.in_c_call());
        let view = InterpreterView { held_before, held_after, requested, in_c_call, gil_is_off, drop_request, may_have_held, locks_spin };
        self.state_machine.classify(&self.kernel, &view)
    }

    /// Whether the thread can have got a drop request, if it has released the GIL.
    fn drop_request(&self, at: Nanos, gil: &GilView) -> DropRequest {
        let stack = self.stack.stack();
        if self.tstate.is_null() || stack.frames.is_empty() && stack.status == StackStatus::Complete {
            // The thread runs no eval loop that could see a drop request.
            return DropRequest::No;
        }
        // The drop-request bit stays as it is from `drop_gil` until the thread has a CPU again, or
        // sleeps until another thread has taken the GIL (forced switch).
        let is_current = self.kernel.runnable_state == Some(RunnableState::LeavingSyscall);
        if let Some(requested) = self.stack.drop_request().filter(|_| is_current) {
            return if requested { DropRequest::Likely } else { DropRequest::No };
        }
        let since = [self.other_held_at, gil.uncontended_since].into_iter().flatten().max();
        match gil.interval.as_nanos() {
            0 => DropRequest::Unknown,
            _ if since.is_some_and(|since| at.saturating_since(since) < gil.interval) => DropRequest::No,
            // Samples that are far apart miss holds and waits.
            interval if at.saturating_since(self.state_machine.last_sampled()).as_nanos() > interval / 4 => DropRequest::Unknown,
            _ => DropRequest::Likely,
        }
    }

    /// Attributes the time since the `last` sample. `waited_on` is the holder of the thread's GIL.
    pub fn attribute(
        &mut self,
        (last, at): (Nanos, Nanos),
        classification: Classification,
        waited_on: Option<(ThreadId, &Arc<Stack>)>,
        sink: &mut dyn Sink,
    ) {
        self.pending_wait.flush(self.info.id, sink);
        let id = self.info.id;
        let waited_on = waited_on.map(|(id, stack)| (id, stack.clone()));
        let mut emit = |entry: &PendingSlice, times, evidence| emit(sink, id, entry, times, evidence);
        // A thread that is still asleep has slept for the whole time. If the thread does something
        // else now, it began after the last sample, even if no sample polled it for long.
        if let Some(idle_stack) = self.idle_stack.take().filter(|_| self.kernel.task_state != TaskState::NotRunSince) {
            if self.state_machine.fill_idle_until(last, &idle_stack, &mut emit) {
                self.other_held_at = Some(last);
            }
        }
        self.state_machine.attribute(at, &self.kernel, classification, self.stack.stack(), waited_on, &mut emit);
    }

    /// Attributes the time since the last sample for a thread that existed when this sample began
    /// and is gone now. A thread needs the GIL to end, and a CPU afterwards. So a thread that did
    /// not hold the GIL then was past its last hold.
    pub fn attribute_last(&mut self, (last, at): (Nanos, Nanos), held: bool, sink: &mut dyn Sink) {
        self.kernel = UNREAD;
        let gil = GilView { held_before: held, held_after: held, ..GilView::default() };
        let classification = if held { self.classify(at, &gil) } else { Classification::OffGil };
        self.attribute((last, at), classification, None, sink);
    }

    /// Resolves pending time, emits the thread's end, and adds the thread to those that worked.
    pub fn finish(&mut self, target: &dyn Target, at: Nanos, working: &mut WorkingCpus, sink: &mut dyn Sink) {
        self.pending_wait.flush(self.info.id, sink);
        let id = self.info.id;
        // A thread that is still there may have changed its affinity since it started. Its open
        // files can be read only while it is there; its id may be another thread's by now.
        let cpus = target.cpus(self.info.tid);
        let now = self.files.as_ref().and_then(|f| f.schedstat().ok().flatten());
        let cpus = cpus.filter(|_| now.is_some()).or(self.cpus.take());
        let last = now.or(self.last_stat);
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
        if let Some(cpus) = cpus {
            working.add(&cpus, totals.cpu, totals.seen);
        }
        sink.thread_end(id, totals);
    }
}

/// Where a runnable thread is by its switch counts, where kernel stacks are not to be had. The counts
/// of holders and of waiters are read when these have run: of two kinds of switches between two
/// reads, which came last is unknown.
fn read_switches(
    files: &TaskFiles,
    switches: &mut SwitchHistory,
    task_state: TaskState,
    stat: SchedStat,
    wanted: bool,
) -> Option<RunnableState> {
    let asleep = task_state == TaskState::GilFutex;
    let matters = asleep || task_state == TaskState::Runnable;
    if kernel_stack::readable() || !matters || !switches.is_stale(stat.runs) && (asleep || !wanted) || !runnable::counts_are_usable() {
        return None;
    }
    let counts = files.switch_counts()?;
    let same = files.schedstat().ok().flatten().is_some_and(|now| now.runs == stat.runs);
    match (same, asleep) {
        (false, _) => switches.observe_moving(counts),
        (true, true) => switches.observe_asleep(counts, stat.runs),
        (true, false) => return switches.observe_runnable(counts, stat.runs).filter(|_| wanted),
    }
    None
}

fn emit(sink: &mut dyn Sink, thread: ThreadId, entry: &PendingSlice, times: StateTimes, evidence: Evidence) {
    let holder = entry.holder.as_ref().map(|(id, stack)| (*id, stack));
    sink.slice(&StateSlice { thread, end: entry.end, times, evidence, stack: &entry.stack, holder });
}
