//! One OS thread of the target as it is read: its `/proc` files and its Python stack.
//!
//! [`ThreadReader::poll`] reads the kernel's view of the thread. The kernel is not asked where
//! earlier samples or `switch_number` already say that nothing can have changed.

use super::task_state;
use crate::estimate::state_machine::ThreadStateMachine;
use crate::ids::{Addr, GilId};
use crate::process::affinity::{CpuSet, WorkingCpus};
use crate::process::kernel_stack;
use crate::process::runnable::SwitchHistory;
use crate::process::target::ProcessAccess;
use crate::process::threads::{self, TaskFiles};
use crate::python::gil_waits::FutexOwner;
use crate::python::stack::ThreadStack;
use crate::sample::{RawTask, RawThread, RunnableState, SchedStat, Stack, TaskState, ThreadInfo, ThreadTotals};
use crate::units::Nanos;
use std::sync::Arc;

/// One thread.
#[derive(Debug)]
pub struct ThreadReader {
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
    files: Option<TaskFiles>,
    /// In how many polls files that could not be opened are tried again.
    polls_to_open: u8,
    task: RawTask,
    switches: SwitchHistory,
    counts: KernelCounts,
}

/// The kernel's counts of a thread from when it was first seen.
#[derive(Debug)]
struct KernelCounts {
    since: Nanos,
    first: Option<SchedStat>,
    /// The last that could be read; a thread that has exited has none.
    last: Option<SchedStat>,
    cpus: Option<CpuSet>,
}

/// A new thread, and what is known of its beginning.
#[derive(Debug)]
pub struct NewThread {
    /// The thread.
    pub reader: ThreadReader,
    /// Its counts, where they could be read.
    pub stat: Option<SchedStat>,
    /// It started since the last sample.
    pub just_started: bool,
}

/// The thread has exited.
#[derive(Debug)]
pub struct Exited;

/// What is known of a thread before the kernel is asked where it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct PollHints {
    /// The thread cannot have had its GIL since the last sample. If it waited then, it still waits.
    pub cannot_have_held: bool,
    /// The GIL names the thread as its holder.
    pub holding: bool,
    /// A tracer is attached to the program.
    pub traced: bool,
    /// Read all evidence of where a runnable thread is, for a comparison.
    pub all_evidence: bool,
}

/// Time that a new thread may have had since the sample began that reads its counts.
const MAX_SAMPLE_TIME: Nanos = Nanos::from_millis(1);

/// A thread's files that could not be opened, for want of descriptors, are tried again after so
/// many polls.
const POLLS_TO_OPEN: u8 = 64;

impl ThreadReader {
    /// Starts tracking a thread. `start`: when its first slice begins. `since_last`: how long ago
    /// the last sample was; `None` for the first sample.
    pub fn open(
        target: &dyn ProcessAccess,
        info: ThreadInfo,
        start: Nanos,
        since_last: Option<Nanos>,
        empty_stack: &Arc<Stack>,
    ) -> NewThread {
        let files = target.open(info.tid).ok();
        let stat = files.as_ref().and_then(|f| f.schedstat().ok().flatten());
        // The list of threads is not read in every sample. A thread with more CPU and run-queue
        // time than this is older than the last sample.
        let just_started = since_last.zip(stat).is_some_and(|(since_last, stat)| stat.cpu + stat.run_queue <= since_last + MAX_SAMPLE_TIME);
        let first = if just_started { stat.map(|_| SchedStat::default()) } else { stat };
        let reader = ThreadReader {
            counts: KernelCounts { since: start, first, last: stat, cpus: target.cpus(info.tid) },
            info,
            tstate: Addr(0),
            pthread: 0,
            gil_requested: None,
            gil: Addr(0),
            stack: ThreadStack::new(empty_stack),
            comm_read: false,
            named: false,
            files,
            polls_to_open: 0,
            task: RawTask::default(),
            switches: SwitchHistory::default(),
        };
        NewThread { reader, stat, just_started }
    }

    /// Begins the thread's counts anew: the window begins. Returns them.
    pub fn restart(&mut self, at: Nanos) -> Option<SchedStat> {
        let stat = self.stat_now();
        (self.counts.since, self.counts.first) = (at, stat);
        stat
    }

    fn stat_now(&self) -> Option<SchedStat> {
        self.files.as_ref().and_then(|files| files.schedstat().ok().flatten())
    }

    /// Reads the thread's task state from the kernel. The read is skipped for a thread that slept
    /// at the last sample and has not run since, and for a thread that `hints` show to be waiting.
    /// `owner` says what a futex belongs to.
    pub fn poll(
        &mut self,
        target: &dyn ProcessAccess,
        history: &ThreadStateMachine,
        hints: PollHints,
        mut owner: impl FnMut(Addr) -> FutexOwner,
    ) -> Result<(), Exited> {
        if hints.cannot_have_held && history.was_waiting() {
            self.task = RawTask { task_state: TaskState::StillWaiting, ..RawTask::default() };
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
            self.task = RawTask::default();
            return Ok(());
        };
        let stat = files.schedstat().map_err(|_| Exited)?;
        self.counts.last = stat.or(self.counts.last);
        let is_still_asleep = history.is_still_asleep(stat);
        let mut read_state =
            || task_state::read(files, &mut owner).map(|state| task_state::stopped_or(files, state, hints.traced)).map_err(|_| Exited);
        let mut task_state = if is_still_asleep { TaskState::NotRunSince } else { read_state()? };
        // The state of a holder, and of a woken thread that has not run, is known without its
        // kernel stack. Stacks of holders are read only until one has shown that this kernel shows
        // no stale stacks.
        let decided = hints.holding || history.not_run_since_wakeup(stat);
        let needs_stack = task_state == TaskState::Runnable && (!decided || !kernel_stack::proven());
        let by_stack = if needs_stack { files.kernel_stack_state() } else { None }.filter(|_| !decided);
        let can_tell = matches!(task_state, TaskState::Runnable | TaskState::GilFutex);
        let by_counts = if can_tell && (hints.all_evidence || by_stack.is_none() && !kernel_stack::readable()) {
            stat.and_then(|stat| read_switches(files, &mut self.switches, task_state, stat, !decided))
        } else {
            None
        };
        let runnable_state = by_stack.or(by_counts.filter(|_| !kernel_stack::readable()));
        if runnable_state.is_some_and(RunnableState::is_woken) {
            // The thread may have gone to sleep between the two reads.
            task_state = read_state()?;
        }
        self.task = RawTask { task_state, stat, runnable_state, by_counts };
        Ok(())
    }

    /// Whether this sample did not read the thread's files, because the thread cannot have stopped
    /// waiting for its GIL.
    pub fn is_still_waiting(&self) -> bool {
        self.task.task_state == TaskState::StillWaiting
    }

    /// Whether this sample found that a thread which slept has run since. A stop of the program
    /// wakes every thread, which says nothing of how soon they wake by themselves.
    pub fn has_moved(&self) -> bool {
        !matches!(self.task.task_state, TaskState::NotRunSince | TaskState::Stopped)
    }

    /// The whole program is stopped: the kernel's view shows only where the thread was stopped.
    pub fn mark_stopped(&mut self) {
        self.task.task_state = TaskState::Stopped;
    }

    /// Whether this sample found the thread off the CPU outside any system call.
    pub fn is_outside_syscall(&self) -> bool {
        self.task.task_state == TaskState::OutsideSyscall
    }

    /// Whether this sample found the thread stopped.
    pub fn is_stopped(&self) -> bool {
        self.task.task_state == TaskState::Stopped
    }

    /// Whether a signal or a tracer stops the thread now.
    pub fn is_stopped_now(&self) -> bool {
        self.is_stopped() || self.files.as_ref().and_then(TaskFiles::state_letter).is_some_and(task_state::is_stop)
    }

    /// Whether this sample found the thread runnable.
    pub fn is_runnable(&self) -> bool {
        self.task.task_state == TaskState::Runnable
    }

    /// Whether this sample found the thread on a CPU, which is read only of threads that do not
    /// hold.
    pub fn is_on_cpu(&self) -> bool {
        self.task.runnable_state == Some(RunnableState::OnCpu)
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
    pub fn stack_may_have_changed(&self, history: &ThreadStateMachine) -> bool {
        self.task.task_state != TaskState::StillWaiting && history.stack_may_have_changed(self.task.stat)
    }

    /// Whether this sample found the thread asleep.
    pub fn is_asleep(&self) -> bool {
        !matches!(self.task.task_state, TaskState::Runnable | TaskState::Unread)
    }

    /// Whether this sample found the thread asleep in a system call.
    pub fn sleeps_in_syscall(&self) -> bool {
        self.is_asleep() && !self.is_outside_syscall() && !self.is_stopped()
    }

    /// Puts what this sample read of the thread, which has this index and GIL, into `raw`.
    pub fn fill(&self, raw: &mut RawThread, index: usize, gil: Option<usize>) {
        (raw.index, raw.gil, raw.tstate, raw.task) = (index, gil, self.tstate, self.task);
        (raw.requested, raw.in_c_call, raw.drop_request) = (self.gil_requested, self.stack.in_c_call(), self.stack.drop_request());
        // Most often it is the same stack, whose count of users then stays as it is.
        if !Arc::ptr_eq(&raw.stack, self.stack.stack()) {
            raw.stack.clone_from(self.stack.stack());
        }
    }

    /// The thread's last count, and the CPUs that it may use. A thread that is still there may have
    /// changed its affinity since it started. Its open files can be read only while it is there;
    /// its id may be another thread's by now.
    pub fn last_counts(&mut self, target: &dyn ProcessAccess) -> (Option<SchedStat>, Option<CpuSet>) {
        let (cpus, now) = (target.cpus(self.info.tid), self.stat_now());
        (now.or(self.counts.last), cpus.filter(|_| now.is_some()).or(self.counts.cpus.take()))
    }

    /// The thread's totals until `at`, where its last count was `last`. Adds it to those that
    /// worked, with the CPUs that it might use.
    pub fn totals(&self, at: Nanos, last: Option<SchedStat>, cpus: Option<CpuSet>, working: &mut WorkingCpus) -> ThreadTotals {
        let mut totals = ThreadTotals { seen: at.saturating_since(self.counts.since), ..ThreadTotals::default() };
        if let (Some(first), Some(last)) = (self.counts.first, last) {
            totals.cpu = last.cpu.saturating_since(first.cpu);
            totals.run_queue = last.run_queue.saturating_since(first.run_queue);
        }
        if let Some(cpus) = cpus {
            working.add(&cpus, totals.cpu, totals.seen);
        }
        totals
    }
}

/// Where a runnable thread is by its switch counts, where kernel stacks are not to be had. The
/// counts of holders and of waiters are read when these have run: of two kinds of switches between
/// two reads, which came last is unknown.
fn read_switches(
    files: &TaskFiles,
    switches: &mut SwitchHistory,
    task_state: TaskState,
    stat: SchedStat,
    wanted: bool,
) -> Option<RunnableState> {
    let asleep = task_state == TaskState::GilFutex;
    if !switches.is_stale(stat.runs) && (asleep || !wanted) || !threads::switch_counts_are_usable() {
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
