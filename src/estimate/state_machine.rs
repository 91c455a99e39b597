//! One thread's history from sample to sample: the state machine between the decision table
//! (`classify`) and the division of CPU time (`cpu_attribution`).
//!
//! It supplies what the table needs from earlier samples: whether the thread has run since, which
//! state it was in off the CPU, and whether it last slept for the GIL. It is pure: it reads nothing
//! from the target.

use super::classify::{self, Classification, DropRequest, Observation};
use super::cpu_attribution::{Class, CpuAttribution, PendingSlice};
use super::rules::{Rule, Rules};
use crate::ids::ThreadId;
use crate::sample::{Evidence, RawTask, SchedStat, Stack, State, StateTimes, TaskState};
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
const OTHER_SLEEPS_RATIO: u32 = 4;

/// A thread that waits for its first CPU gets its slices after this time at the latest.
const MAX_NOT_SCHEDULED: Nanos = Nanos::from_millis(200);

/// What the interpreter says of the thread in the same sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct InterpreterView {
    /// The GIL named the thread as its holder when the sample began.
    pub held_before: bool,
    /// The GIL named the thread as its holder when the sample ended.
    pub held_after: bool,
    /// 3.15: the thread state's `gil_requested` flag, set while the thread is in `take_gil`.
    pub requested: Option<bool>,
    /// The leaf frame's current instruction is a call of a C function.
    pub in_c_call: bool,
    /// The GIL is off, as in a free-threaded build: nobody holds it or waits for it.
    pub gil_is_off: bool,
    /// If the thread has released the GIL: whether it can have got a drop request.
    pub drop_request: DropRequest,
    /// The thread may have had the GIL since the last sample, by CPython's `switch_number`.
    pub may_have_held: bool,
    /// The interpreter's locks spin before they sleep (3.13+). A thread that was woken from a lock
    /// then seldom sleeps for another lock before it requests the GIL.
    pub locks_spin: bool,
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
    /// the thread asleep. `None`: the thread has held the GIL since, or may have.
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
    /// What the thread sleeps for while it is within a call of a C function and without the GIL.
    in_c_call: NextSleepStats,
    /// The same, where a sleep in any system call counts: a count of switches does not tell a futex
    /// from another sleep.
    sleeps_in_c_call: NextSleepStats,
    /// What the thread sleeps for after it has run since a sleep for another lock.
    after_lock: NextSleepStats,
    cpu: CpuAttribution,
    rules: Rules,
}

/// Counts of the futex sleeps that samples found in one situation.
#[derive(Clone, Copy, Debug, Default)]
struct NextSleepStats {
    gil: u32,
    other: u32,
}

impl NextSleepStats {
    fn observe(&mut self, state: TaskState) {
        match state {
            TaskState::GilFutex => self.gil += 1,
            TaskState::OtherFutex => self.other += 1,
            _ => {}
        }
        if self.gil + self.other > MAX_SLEEPS {
            (self.gil, self.other) = (self.gil / 2, self.other / 2);
        }
    }

    /// Whether the next sleep is often for something other than the GIL. A sample easily misses a
    /// short sleep for a lock and finds the long sleep for the GIL behind it, so a part of the
    /// sleeps is enough.
    fn mostly_other(self) -> bool {
        self.other * OTHER_SLEEPS_RATIO > self.gil
    }

    /// Whether the next sleep is for the GIL, with few exceptions. A sleep for the GIL is longer
    /// than others, so samples find it more often than it is the next one.
    fn mostly_gil(self) -> bool {
        self.gil > OTHER_SLEEPS_RATIO * self.other
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
            in_c_call: NextSleepStats::default(),
            sleeps_in_c_call: NextSleepStats::default(),
            after_lock: NextSleepStats::default(),
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
        self.cpu.note_known(State::Waiting, length);
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
        let class = Class::Known(state, evidence);
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
    pub fn classify(&mut self, kernel: &RawTask, interpreter: &InterpreterView) -> Classification {
        // 3.15: `gil_requested` is set throughout `take_gil`. If it is clear, a thread that slept
        // for the GIL has got the GIL since; a thread that slept for another lock has not slept for
        // the GIL since.
        let not_requesting = interpreter.requested == Some(false);
        // The thread may have got the GIL, released it, and slept for something else since.
        if interpreter.may_have_held
            && self.rules.has(Rule::MayHaveHeld)
            && self.previous.wants_gil == Some(true)
            && self.was_scheduled(kernel.stat) != Some(false)
        {
            self.previous.wants_gil = None;
        }
        let last_wants = self.previous.wants_gil.filter(|wants| !(*wants && not_requesting));
        // The thread has run since a sample found it asleep on another lock, so it may have slept
        // for the GIL since.
        let since_lock =
            interpreter.locks_spin && self.previous.off_cpu_state == Some(State::Lock) && self.was_scheduled(kernel.stat) == Some(true);
        if !interpreter.held_before && !kernel.assumed {
            if interpreter.in_c_call {
                self.in_c_call.observe(kernel.task_state);
                let any = if kernel.task_state == TaskState::Syscall { TaskState::OtherFutex } else { kernel.task_state };
                self.sleeps_in_c_call.observe(any);
            }
            if since_lock {
                self.after_lock.observe(kernel.task_state);
            }
        }
        let presumed = !interpreter.in_c_call || !self.rules.has(Rule::InCCall) || !self.in_c_call.mostly_other();
        let wants_gil = last_wants.unwrap_or(presumed)
            || since_lock && !not_requesting && self.rules.has(Rule::AfterLock) && self.after_lock.mostly_gil();
        let observation = Observation {
            task_state: kernel.task_state,
            held_before: interpreter.held_before,
            held_after: interpreter.held_after,
            requested: interpreter.requested,
            in_c_call: interpreter.in_c_call,
            drop_request: interpreter.drop_request,
            held_last: self.last_state.0.is_holding(),
            off_cpu_state: self.previous.off_cpu_state,
            near_wait: self.previous.near_wait,
            wants_gil,
            sleeps_for_other: interpreter.in_c_call && self.rules.has(Rule::SleepsInCCall) && self.sleeps_in_c_call.mostly_other(),
            runnable_state: kernel.runnable_state,
            was_scheduled: self.was_scheduled(kernel.stat),
        };
        let classification = classify::classify(&observation, self.rules);
        match (classification, self.last_state) {
            _ if interpreter.gil_is_off => classification.without_gil(),
            // The holder still sleeps in what the last sample found.
            (Classification::Known(State::HoldingBlocked, _), (State::HoldingBlocked, evidence))
                if kernel.task_state == TaskState::NotRunSince =>
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
        let (class, state) = match classification {
            Classification::Known(State::Starved, evidence @ (Evidence::KernelStack | Evidence::SwitchCounts)) => {
                (Class::InRunQueue(evidence), (State::Starved, evidence))
            }
            Classification::Known(state, evidence) => (Class::Known(state, evidence), (state, evidence)),
            Classification::HoldingRunnable(state) => (Class::HoldingRunnable(state), (state, Evidence::GilHolder)),
            Classification::OffGil => (Class::OffGil, (State::Unknown, Evidence::Conservation)),
            Classification::Ambiguous { near_wait } => (Class::Ambiguous { near_wait }, (State::Unknown, Evidence::Conservation)),
        };
        self.last_state = state;
        if self.not_yet_scheduled(kernel.stat) && at.saturating_since(self.previous.at) < MAX_NOT_SCHEDULED {
            return;
        }
        self.attribute_first_wait(at, kernel.stat, stack, emit);
        let entry = PendingSlice { end: at, length: at.saturating_since(self.previous.at), class, stack: stack.clone(), holder };
        self.cpu.add(entry, kernel.stat, asleep, emit);
        // A thread that was woken and has not run keeps its state until its run count changes.
        let woken = matches!(classification, Classification::Known(_, e) if e.in_run_queue());
        let off_cpu_state = match (classification, kernel.task_state) {
            // The thread released the GIL and fell asleep during the sample.
            (Classification::HoldingRunnable(_), TaskState::GilFutex) => Some(State::Waiting),
            (Classification::HoldingRunnable(_), TaskState::OtherFutex) => Some(State::Lock),
            (Classification::HoldingRunnable(_), TaskState::Syscall | TaskState::OutsideSyscall) => Some(State::Io),
            _ => (asleep || woken).then_some(state.0),
        };
        let near_wait = off_cpu_state == Some(State::Waiting)
            || matches!(classification, Classification::Known(State::Waiting, _) | Classification::Ambiguous { near_wait: true });
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
        // A thread that ran after the time of the assumed sleep may sleep for something else by
        // now. The next sample must see that it ran.
        let stat = if kernel.assumed { self.previous.stat } else { kernel.stat };
        let asleep_since = if state.1 == Evidence::NotRunSince { self.previous.asleep_since } else { at };
        self.previous = Previous { at, stat, off_cpu_state, asleep_since, near_wait, wants_gil, wait_certain };
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
        let class = Class::Known(State::Starved, Evidence::WokenNotRun);
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
