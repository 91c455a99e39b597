//! One thread's history from sample to sample: the state machine between the decision table
//! (`classify`) and the division of CPU time (`cpu_attribution`).
//!
//! It supplies what the table needs from earlier samples: whether the thread has run since, which
//! state it was in off the CPU, and whether it last slept for the GIL. It is pure: it reads nothing
//! from the target.

use super::classify::{self, Classification, DropRequest, Observation};
use super::cpu_attribution::{CpuAttribution, PendingSlice};
use super::rules::{Rule, Rules};
use crate::ids::ThreadId;
use crate::sample::{Evidence, RawTask, RawThread, SchedStat, Stack, State, StateTimes, TaskState};
use crate::units::Nanos;
use std::sync::Arc;

/// A thread that has slept for some time need not be polled for this fraction of that time. Where
/// it is polled then, gilprof notices the end of the sleep late by at most as much, so the error in
/// the sum is at most 1/64, and half of that where the wakeup is equally likely at any time. Beside
/// many sleepers it waits longer for its turn (`sampler/poll_schedule.rs`).
const IDLE_FRACTION: u64 = 64;
/// Upper limit of the time after which a thread is due again.
const MAX_IDLE: Nanos = Nanos::from_millis(100);

/// Sleeps that are counted in full; older ones are halved.
const MAX_SLEEPS: u32 = 400;
/// One sleep in this many for something other than the GIL is enough to expect such a sleep.
const OTHER_SLEEPS_RATIO: u32 = 32;

/// A thread that waits for its first CPU gets its slices after this time at the latest.
const MAX_NOT_SCHEDULED: Nanos = Nanos::from_millis(200);

/// What the GIL says of the thread in the same sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct GilView {
    /// It named the thread as its holder when the sample began.
    pub held_before: bool,
    /// It named the thread as its holder when the sample ended.
    pub held_after: bool,
    /// It is off, as in a free-threaded build: nobody holds it or waits for it.
    pub is_off: bool,
    /// If the thread has released it: whether the thread can have got a drop request.
    pub drop_request: DropRequest,
}

#[derive(Clone, Copy, Debug)]
struct Previous {
    at: Nanos,
    stat: Option<SchedStat>,
    /// The thread's state, if it was off the CPU.
    off_cpu_state: Option<State>,
    /// The first sample that found the thread in its current sleep.
    asleep_since: Nanos,
    near_wait: bool,
    /// Whether the thread's last futex sleep was for the GIL. True is assumed until a sample finds
    /// the thread asleep. `None`: the thread has held the GIL since.
    wants_gil: Option<bool>,
    /// The wait is certain, not inferred: the thread was asleep on the GIL's futex, or had
    /// requested the GIL.
    wait_certain: bool,
}

/// One thread's history.
#[derive(Debug)]
pub struct ThreadStateMachine {
    previous: Previous,
    /// When the thread started, until it has left the run queue for the first time.
    started_at: Option<Nanos>,
    last_state: (State, Evidence),
    sleeps_in_c_call: SleepCounts,
    /// Some sample said where the thread was while it was runnable.
    is_resolved: bool,
    cpu: CpuAttribution,
    rules: Rules,
}

/// What samples found the thread asleep for while it was within a call of a C function and without
/// the GIL.
#[derive(Clone, Copy, Debug, Default)]
struct SleepCounts {
    gil: u32,
    lock: u32,
    elsewhere: u32,
}

impl SleepCounts {
    fn observe(&mut self, state: TaskState) {
        match state {
            TaskState::GilFutex => self.gil += 1,
            TaskState::OtherFutex => self.lock += 1,
            TaskState::Syscall => self.elsewhere += 1,
            _ => {}
        }
        if self.gil + self.lock + self.elsewhere > MAX_SLEEPS {
            (self.gil, self.lock, self.elsewhere) = (self.gil / 2, self.lock / 2, self.elsewhere / 2);
        }
    }

    /// Whether the next futex sleep is often for a lock. A sample easily misses a short sleep for a
    /// lock and finds the long sleep for the GIL behind it, so a small part of the sleeps is
    /// enough.
    fn often_for_lock(self) -> bool {
        self.lock * OTHER_SLEEPS_RATIO > self.gil
    }

    /// The same of a sleep in any system call.
    fn often_for_other(self) -> bool {
        (self.lock + self.elsewhere) * OTHER_SLEEPS_RATIO > self.gil
    }
}

impl ThreadStateMachine {
    /// Starts a history whose first slice begins at `start`. `just_started`: the thread itself
    /// started then, so all its counts belong to the history.
    pub fn new(start: Nanos, stat: Option<SchedStat>, just_started: bool) -> ThreadStateMachine {
        let mut cpu = CpuAttribution::default();
        cpu.start_at(if just_started { stat.map(|_| SchedStat::default()) } else { stat });
        // A thread that has never had a CPU is starved until its run count changes: the kernel adds
        // its run-queue time only then.
        let off_cpu_state = stat.is_some_and(|s| s.runs == 0).then_some(State::Starved);
        let previous =
            Previous { at: start, stat, off_cpu_state, asleep_since: start, near_wait: false, wants_gil: Some(true), wait_certain: false };
        let last_state = (State::Unknown, Evidence::Unread);
        ThreadStateMachine {
            previous,
            started_at: just_started.then_some(start),
            last_state,
            sleeps_in_c_call: SleepCounts::default(),
            is_resolved: false,
            cpu,
            rules: Rules::default(),
        }
    }

    /// The same, by other rules.
    pub fn with_rules(mut self, rules: Rules) -> ThreadStateMachine {
        self.rules = rules;
        self.cpu.apply(rules);
        self
    }

    /// The time of the last sample.
    pub fn last_sampled(&self) -> Nanos {
        self.previous.at
    }

    /// Whether the thread got a CPU since the last sample; `None` where the kernel does not count.
    pub fn was_scheduled(&self, stat: Option<SchedStat>) -> Option<bool> {
        Some(self.previous.stat?.runs != stat?.runs)
    }

    /// Whether the thread's task state need not be read: the thread slept at the last sample and
    /// has not run since. A GIL waiter that was woken and has no CPU yet is still waiting, so this
    /// holds for it too. It does not hold for a blocked holder: if the thread is not the holder
    /// now, the last sample was wrong about it. Nor does it hold after a stop, which may be over.
    pub fn is_still_asleep(&self, stat: Option<SchedStat>) -> bool {
        self.was_scheduled(stat) == Some(false)
            && self.previous.off_cpu_state.is_some_and(|s| !matches!(s, State::Starved | State::HoldingBlocked | State::Unknown))
    }

    /// Whether a runnable thread's state follows without its kernel stack: it was woken and has not
    /// run.
    pub fn not_run_since_wakeup(&self, stat: Option<SchedStat>) -> bool {
        self.was_scheduled(stat) == Some(false) && self.previous.off_cpu_state.is_some()
    }

    /// Whether the last sample found the thread waiting for the GIL, for certain. A thread that was
    /// preempted while it released the GIL may want something else.
    pub fn was_waiting(&self) -> bool {
        self.previous.off_cpu_state == Some(State::Waiting) && self.previous.wait_certain && self.cpu.is_resolved()
    }

    /// Attributes the time since the last sample to the wait of a thread that
    /// [`ThreadStateMachine::was_waiting`] and still waits. Returns its length; the caller emits
    /// the slice.
    pub fn extend_wait(&mut self, at: Nanos) -> Nanos {
        let length = at.saturating_since(self.previous.at);
        self.last_state = (State::Waiting, Evidence::SameHolder);
        (self.previous.at, self.previous.asleep_since) = (at, at);
        length
    }

    /// Until when the thread, whose id is `thread`, need not be polled. A thread that has slept for
    /// long most likely sleeps on, and the poll after that notices soon if it does not. Zero when
    /// the next sample must poll it.
    pub fn next_poll_at(&self, thread: ThreadId) -> Nanos {
        if !self.was_asleep() || self.previous.stat.is_none() {
            return Nanos::ZERO;
        }
        let asleep = self.previous.at.saturating_since(self.previous.asleep_since).as_nanos();
        // Between half of the time and all of it, so that threads that fell asleep together are not
        // polled together for ever.
        let hash = (self.previous.at.as_nanos() ^ u64::from(thread.0) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let fraction = 512 + (hash >> 55);
        self.previous.at + Nanos::from_nanos(asleep / IDLE_FRACTION / 1024 * fraction).min(MAX_IDLE)
    }

    /// Attributes the time until `at` in which the thread slept, or was stopped, and was not
    /// polled. Returns whether there was such a time.
    pub fn fill_idle_until(&mut self, at: Nanos, stack: &Arc<Stack>, emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence)) -> bool {
        let evidence = if self.was_asleep() { Evidence::NotRunSince } else { Evidence::Stopped };
        let is_idle = |state: &State| matches!(state, State::Io | State::Lock | State::Unknown) && at > self.previous.at;
        let Some(state) = self.previous.off_cpu_state.filter(is_idle) else { return false };
        let class = Classification::Known(state, evidence);
        let entry = PendingSlice { end: at, length: at.saturating_since(self.previous.at), class, stack: stack.clone(), holder: None };
        self.cpu.add(entry, self.previous.stat, true, emit);
        self.previous.at = at;
        true
    }

    /// Whether the last sample found the thread asleep, and not for the GIL.
    pub fn was_asleep(&self) -> bool {
        matches!(self.previous.off_cpu_state, Some(State::Io | State::Lock))
    }

    /// Whether the thread's stack may have changed since the last sample.
    pub fn stack_may_have_changed(&self, stat: Option<SchedStat>) -> bool {
        self.was_scheduled(stat) != Some(false) || self.previous.off_cpu_state.is_none()
    }

    /// The state and evidence of the last sample.
    pub fn last_state(&self) -> (State, Evidence) {
        self.last_state
    }

    /// Classifies one sample.
    pub fn classify(&mut self, raw: &RawThread, gil: &GilView) -> Classification {
        let task = &raw.task;
        self.is_resolved |= task.runnable_state.is_some();
        if !gil.held_before && raw.in_c_call {
            self.sleeps_in_c_call.observe(task.task_state);
        }
        let sleeps = if raw.in_c_call && self.rules.has(Rule::SleepsInCCall) { self.sleeps_in_c_call } else { SleepCounts::default() };
        let observation = Observation {
            task_state: task.task_state,
            held_before: gil.held_before,
            held_after: gil.held_after,
            requested: raw.requested,
            in_c_call: raw.in_c_call,
            drop_request: gil.drop_request,
            held_last: self.last_state.0.is_holding(),
            off_cpu_state: self.previous.off_cpu_state,
            near_wait: self.previous.near_wait,
            wants_gil: self.previous.wants_gil != Some(false),
            sleeps_for_lock: self.previous.wants_gil.is_none() && sleeps.often_for_lock(),
            sleeps_for_other: sleeps.often_for_other(),
            runnable_state: task.runnable_state,
            is_resolved: self.is_resolved,
            was_scheduled: self.was_scheduled(task.stat),
        };
        let classification = classify::classify(&observation, self.rules);
        match (classification, self.last_state) {
            _ if gil.is_off => classification.without_gil(),
            // The holder still sleeps in what the last sample found.
            (Classification::Known(State::HoldingBlocked, _), (State::HoldingBlocked, evidence))
                if task.task_state == TaskState::NotRunSince =>
            {
                Classification::Known(State::HoldingBlocked, evidence)
            }
            _ => classification,
        }
    }

    /// Attributes the time since the last sample. Slices that can be resolved now go to `emit`.
    pub fn attribute(
        &mut self,
        at: Nanos,
        kernel: &RawTask,
        classification: Classification,
        stack: &Arc<Stack>,
        holder: Option<(ThreadId, Arc<Stack>)>,
        emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence),
    ) {
        let asleep = !matches!(kernel.task_state, TaskState::Runnable | TaskState::Unread);
        let state = match classification {
            Classification::Known(state, evidence) => (state, evidence),
            Classification::HoldingRunnable(state) => (state, Evidence::GilHolder),
            Classification::InRunQueue(evidence) => (State::Starved, evidence),
            Classification::OffGil | Classification::NearWait(_) => (State::Unknown, Evidence::Conservation),
        };
        self.last_state = state;
        if self.not_yet_scheduled(kernel.stat) && at.saturating_since(self.previous.at) < MAX_NOT_SCHEDULED {
            return;
        }
        self.attribute_first_wait(at, kernel.stat, stack, emit);
        let entry =
            PendingSlice { end: at, length: at.saturating_since(self.previous.at), class: classification, stack: stack.clone(), holder };
        self.cpu.add(entry, kernel.stat, asleep, emit);
        // A thread that was woken and has not run keeps its state until its run count changes.
        let woken = state.1.in_run_queue();
        let off_cpu_state = match (classification, kernel.task_state) {
            // The thread released the GIL and fell asleep during the sample.
            (Classification::HoldingRunnable(_), TaskState::GilFutex) => Some(State::Waiting),
            (Classification::HoldingRunnable(_), TaskState::OtherFutex) => Some(State::Lock),
            (Classification::HoldingRunnable(_), TaskState::Syscall | TaskState::OutsideSyscall) => Some(State::Io),
            _ => (asleep || woken).then_some(state.0),
        };
        let near_wait = off_cpu_state == Some(State::Waiting)
            || matches!(classification, Classification::Known(State::Waiting, _) | Classification::NearWait(_));
        let wants_gil = match state.0 {
            _ if matches!(state.1, Evidence::KernelStack | Evidence::SwitchCounts) => self.previous.wants_gil,
            State::Waiting => Some(true),
            State::Lock => Some(false),
            State::HoldingPython | State::HoldingNative | State::HoldingBlocked => None,
            _ => self.previous.wants_gil,
        };
        let wait_certain = match state.1 {
            Evidence::KernelStack | Evidence::PushedOff | Evidence::SwitchCounts => false,
            Evidence::NotRunSince | Evidence::WokenNotRun => self.previous.wait_certain,
            _ => true,
        };
        let asleep_since = if state.1 == Evidence::NotRunSince { self.previous.asleep_since } else { at };
        self.previous = Previous { at, stat: kernel.stat, off_cpu_state, asleep_since, near_wait, wants_gil, wait_certain };
    }

    /// Whether the thread has never had a CPU.
    fn not_yet_scheduled(&self, stat: Option<SchedStat>) -> bool {
        self.started_at.is_some() && stat.is_some_and(|s| s.runs == 0)
    }

    /// A thread starts in the run queue. Once it has left the run queue, the kernel has counted its
    /// time there. Until then nothing is attributed.
    fn attribute_first_wait(
        &mut self,
        at: Nanos,
        stat: Option<SchedStat>,
        stack: &Arc<Stack>,
        emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence),
    ) {
        let Some((started_at, stat)) = self.started_at.zip(stat.filter(|s| s.runs > 0)) else { return };
        self.started_at = None;
        if !self.rules.has(Rule::FirstWait) {
            return;
        }
        let queued = stat.run_queue.saturating_since(self.previous.at.saturating_since(started_at));
        self.attribute_starved(queued.min(at.saturating_since(self.previous.at)), Some(stat), stack, emit);
    }

    /// Attributes `length` in the run queue, before any other slice.
    fn attribute_starved(
        &mut self,
        length: Nanos,
        stat: Option<SchedStat>,
        stack: &Arc<Stack>,
        emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence),
    ) {
        self.previous.at += length;
        let class = Classification::Known(State::Starved, Evidence::WokenNotRun);
        self.cpu.add(PendingSlice { end: self.previous.at, length, class, stack: stack.clone(), holder: None }, stat, false, emit);
    }

    /// Resolves pending slices at the end. `stat` is the last count, where it could still be read.
    pub fn finish(
        &mut self,
        at: Nanos,
        stat: Option<SchedStat>,
        stack: &Arc<Stack>,
        emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence),
    ) -> Option<SchedStat> {
        let stat = stat.or(self.previous.stat);
        if self.not_yet_scheduled(stat) && at > self.previous.at {
            self.attribute_starved(at.saturating_since(self.previous.at), stat, stack, emit);
        }
        self.cpu.finish(stat, emit);
        stat
    }
}
