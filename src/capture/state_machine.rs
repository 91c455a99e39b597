//! What a thread was doing from look to look: the state machine between the decision table and the CPU attribution. Pure: it reads nothing itself.

use super::classify::{self, Classification, DropRequest, Observation, TaskState};
use super::cpu_attribution::{Class, CpuAttribution, PendingSlice};
use crate::ids::ThreadId;
use crate::process::kernel_stack::KernelStackState;
use crate::process::threads::SchedStat;
use crate::sample::{Evidence, Stack, State, StateTimes};
use crate::units::Nanos;
use std::sync::Arc;

/// A sleeper is not looked at for this part, at most, of the time for which it has slept. What it does when it wakes is met late by as much at
/// most: so the error in the sum is a 64th of the time at worst, and half of that where it wakes at any time.
const IDLE_FRACTION: u64 = 64;
/// Nor for longer than this.
const MAX_IDLE: Nanos = Nanos::from_millis(100);

/// First sleeps that are remembered in full.
const MAX_SLEEPS: u32 = 400;
/// One in this many for something other than the GIL and more make a habit.
const OTHER_SLEEPS_RATIO: u32 = 4;

/// A thread that waits for its first CPU is booked at the latest after so long.
const MAX_NOT_SCHEDULED: Nanos = Nanos::from_millis(200);

/// One look at a thread, as far as the kernel goes.
#[derive(Clone, Copy, Debug)]
pub struct KernelView {
    /// Where it is.
    pub task_state: TaskState,
    /// The kernel was not asked for the place: it is where the thread was earlier in this look, before `stat` was read.
    pub assumed: bool,
    /// The kernel's counts; `None` where it keeps none.
    pub stat: Option<SchedStat>,
    /// Where in the kernel it is, if it is runnable and that was asked and can be told.
    pub kernel_state: Option<KernelStackState>,
}

/// What the interpreter says of the thread at the same look.
#[derive(Clone, Copy, Debug, Default)]
pub struct InterpreterView {
    /// The GIL named it as the holder when the look began.
    pub held_before: bool,
    /// The GIL named it as the holder when the look ended.
    pub held_after: bool,
    /// 3.15: whether it has asked for the GIL and not got it.
    pub requested: Option<bool>,
    /// Its leaf instruction is a call of a C function.
    pub in_c_call: bool,
    /// If it has let go of the GIL: whether it can have been told to.
    pub drop_request: DropRequest,
    /// It may have had the GIL since the last look, by CPython's own count of its changes.
    pub may_have_held: bool,
    /// Its locks spin before they sleep (3.13+), so that one that has been woken from a lock seldom sleeps for another before it asks for the GIL.
    pub locks_spin: bool,
}

#[derive(Clone, Copy, Debug)]
struct Previous {
    at: Nanos,
    stat: Option<SchedStat>,
    /// What it did, if that was off the CPU.
    off_cpu_state: Option<State>,
    /// When it was first met in the sleep that it is in.
    asleep_since: Nanos,
    near_wait: bool,
    /// Whether what it last slept for on a futex was the GIL; supposed of one that has not been met asleep yet. `None`: it has held since, or may
    /// have.
    wants_gil: Option<bool>,
    /// No look has met it asleep on a futex since one saw it hold.
    held: bool,
    /// That it waits is not only supposed: it was asleep on the GIL's futex, or had asked.
    wait_certain: bool,
}

/// One thread's account.
#[derive(Debug)]
pub struct ThreadStateMachine {
    previous: Previous,
    /// When it was born, until it has left the run queue for the first time.
    started_at: Option<Nanos>,
    last_state: (State, Evidence),
    /// Once it has let go of the GIL within a call of a C function.
    after_hold: NextSleepStats,
    /// Once it has run after a sleep for another lock.
    after_lock: NextSleepStats,
    cpu: CpuAttribution,
}

/// What a thread is found to sleep for next.
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

    /// Whether that is something other than the GIL. A short sleep for a lock is easily missed, so that the long one for the GIL behind it
    /// is often found first: a part of them is enough.
    fn mostly_other(self) -> bool {
        self.other * OTHER_SLEEPS_RATIO > self.gil
    }

    /// Whether that is the GIL, with few exceptions. A sleep for the GIL is the longer one and so is met more often than it is the next.
    fn mostly_gil(self) -> bool {
        self.gil > OTHER_SLEEPS_RATIO * self.other
    }
}

impl ThreadStateMachine {
    /// Opens an account whose first slice begins at `start`. `just_started`: the thread itself did, so that all its counts lie in the account.
    pub fn new(start: Nanos, stat: Option<SchedStat>, just_started: bool) -> ThreadStateMachine {
        let mut cpu = CpuAttribution::default();
        cpu.start_at(if just_started { stat.map(|_| SchedStat::default()) } else { stat });
        // A newborn that has never had a CPU is starved until its count of runs moves: the run queue's time is only counted then.
        let off_cpu_state = stat.is_some_and(|s| s.runs == 0).then_some(State::Starved);
        let previous = Previous {
            at: start,
            stat,
            off_cpu_state,
            asleep_since: start,
            near_wait: false,
            wants_gil: Some(true),
            held: false,
            wait_certain: false,
        };
        let last_state = (State::Unknown, Evidence::Unread);
        ThreadStateMachine {
            previous,
            started_at: just_started.then_some(start),
            last_state,
            after_hold: NextSleepStats::default(),
            after_lock: NextSleepStats::default(),
            cpu,
        }
    }

    /// When it was last looked at.
    pub fn last_sampled(&self) -> Nanos {
        self.previous.at
    }

    /// Whether it got a CPU since the last look; `None` where the kernel does not count.
    pub fn was_scheduled(&self, stat: Option<SchedStat>) -> Option<bool> {
        Some(self.previous.stat?.runs != stat?.runs)
    }

    /// Whether the kernel need not be asked where the thread is: it slept and has not run since. A waiter for the GIL that was woken and has
    /// no CPU yet still waits, so that holds for it too. Not for a holder: where it is not the holder any more, it never was.
    pub fn is_still_asleep(&self, stat: Option<SchedStat>) -> bool {
        self.was_scheduled(stat) == Some(false)
            && self.previous.off_cpu_state.is_some_and(|s| !matches!(s, State::Starved | State::HoldingBlocked))
    }

    /// Whether it is clear without asking the kernel what it does if it is runnable: it was woken and has not run.
    pub fn not_run_since_wakeup(&self, stat: Option<SchedStat>) -> bool {
        self.was_scheduled(stat) == Some(false) && self.previous.off_cpu_state.is_some()
    }

    /// Whether the last look found it waiting for the GIL, beyond doubt: one that was pushed off while it let go may want something else.
    pub fn was_waiting(&self) -> bool {
        self.previous.off_cpu_state == Some(State::Waiting) && self.previous.wait_certain && self.cpu.is_resolved()
    }

    /// Books the time since the last look of one that [`ThreadStateMachine::was_waiting`] and still waits; its length, which is for the caller to tell of.
    pub fn extend_wait(&mut self, at: Nanos) -> Nanos {
        let length = at.saturating_since(self.previous.at);
        self.cpu.note_known(State::Waiting, length);
        self.last_state = (State::Waiting, Evidence::SameHolder);
        (self.previous.at, self.previous.asleep_since) = (at, at);
        length
    }

    /// Until when it, thread `thread`, need not be looked at: it has slept for so long that it sleeps on, most likely, and is met soon if it does
    /// not. Zero when the next look must.
    pub fn next_poll_at(&self, thread: ThreadId) -> Nanos {
        if !self.was_asleep() || self.previous.stat.is_none() {
            return Nanos::ZERO;
        }
        let asleep = self.previous.at.saturating_since(self.previous.asleep_since).as_nanos();
        // Between half of it and all, or those that fell asleep together would all be looked at together for ever.
        let hash = (self.previous.at.as_nanos() ^ u64::from(thread.0) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let fraction = 512 + (hash >> 55);
        self.previous.at + Nanos::from_nanos(asleep / IDLE_FRACTION / 1024 * fraction).min(MAX_IDLE)
    }

    /// Books the time in which it rested.
    pub fn fill_idle_until(&mut self, at: Nanos, stack: &Arc<Stack>, emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence)) {
        let Some(state) = self.previous.off_cpu_state.filter(|_| self.was_asleep() && at > self.previous.at) else { return };
        let class = Class::Known(state, Evidence::NotRunSince);
        let entry = PendingSlice { end: at, length: at.saturating_since(self.previous.at), class, stack: stack.clone(), holder: None };
        self.cpu.add(entry, self.previous.stat, true, emit);
        self.previous.at = at;
    }

    /// Whether the last look found it asleep, and not for the GIL.
    pub fn was_asleep(&self) -> bool {
        matches!(self.previous.off_cpu_state, Some(State::Io | State::Lock))
    }

    /// Whether its stack may have changed since the last look.
    pub fn stack_may_have_changed(&self, stat: Option<SchedStat>) -> bool {
        self.was_scheduled(stat) != Some(false) || self.previous.off_cpu_state.is_none()
    }

    /// What the last look told.
    pub fn last_state(&self) -> (State, Evidence) {
        self.last_state
    }

    /// Judges one look.
    pub fn classify(&mut self, kernel: &KernelView, interpreter: &InterpreterView) -> Classification {
        // Who says that it does not ask for the GIL (3.15) has had it since it slept for it, and has not slept for it since it slept for a lock.
        let not_requesting = interpreter.requested == Some(false);
        // It may have got what it waited for, let go, and slept for something else since.
        if interpreter.may_have_held && self.previous.wants_gil == Some(true) && self.was_scheduled(kernel.stat) != Some(false) {
            self.previous.wants_gil = None;
        }
        let last_wants = self.previous.wants_gil.filter(|wants| !(*wants && not_requesting));
        // It has run since a look met it asleep on another lock, and may have slept for the GIL since.
        let since_lock =
            interpreter.locks_spin && self.previous.off_cpu_state == Some(State::Lock) && self.was_scheduled(kernel.stat) == Some(true);
        if !interpreter.held_before && !kernel.assumed {
            if self.previous.held && interpreter.in_c_call {
                self.after_hold.observe(kernel.task_state);
            } else if since_lock {
                self.after_lock.observe(kernel.task_state);
            }
        }
        let presumed = !interpreter.in_c_call || !self.after_hold.mostly_other();
        let wants_gil = last_wants.unwrap_or(presumed) || since_lock && !not_requesting && self.after_lock.mostly_gil();
        classify::classify(&Observation {
            task_state: kernel.task_state,
            held_before: interpreter.held_before,
            held_after: interpreter.held_after,
            requested: interpreter.requested,
            in_c_call: interpreter.in_c_call,
            drop_request: interpreter.drop_request,
            off_cpu_state: self.previous.off_cpu_state,
            near_wait: self.previous.near_wait,
            wants_gil,
            kernel_state: kernel.kernel_state,
            was_scheduled: self.was_scheduled(kernel.stat),
        })
    }

    /// Books the time since the last look. What can be settled now is handed to `emit`.
    pub fn attribute(
        &mut self,
        at: Nanos,
        kernel: &KernelView,
        classification: Classification,
        stack: &Arc<Stack>,
        holder: Option<(ThreadId, Arc<Stack>)>,
        emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence),
    ) {
        let asleep = !matches!(kernel.task_state, TaskState::Runnable | TaskState::Unread);
        let (class, state) = match classification {
            Classification::Known(State::Starved, Evidence::KernelStack) => (Class::InRunQueue, (State::Starved, Evidence::KernelStack)),
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
        // A thread that was woken and has not run keeps what it did before, until its count of runs moves.
        let woken = matches!(classification, Classification::Known(_, e) if e.in_run_queue());
        let off_cpu_state = match (classification, kernel.task_state) {
            // It let go and fell asleep within the look.
            (Classification::HoldingRunnable(_), TaskState::GilFutex) => Some(State::Waiting),
            (Classification::HoldingRunnable(_), TaskState::OtherFutex) => Some(State::Lock),
            (Classification::HoldingRunnable(_), TaskState::Syscall | TaskState::OutsideSyscall) => Some(State::Io),
            _ => (asleep || woken).then_some(state.0),
        };
        let near_wait = off_cpu_state == Some(State::Waiting)
            || matches!(classification, Classification::Known(State::Waiting, _) | Classification::Ambiguous { near_wait: true });
        let wants_gil = match state.0 {
            _ if state.1 == Evidence::KernelStack => self.previous.wants_gil,
            State::Waiting => Some(true),
            State::Lock => Some(false),
            State::HoldingPython | State::HoldingNative | State::HoldingBlocked => None,
            _ => self.previous.wants_gil,
        };
        let held = match state.0 {
            _ if state.1 == Evidence::KernelStack => self.previous.held,
            State::Waiting | State::Lock => false,
            state => state.is_holding() || self.previous.held,
        };
        let wait_certain = match state.1 {
            Evidence::KernelStack | Evidence::PushedOff => false,
            Evidence::NotRunSince | Evidence::WokenNotRun => self.previous.wait_certain,
            _ => true,
        };
        // One that ran after it was supposed to sleep may sleep for something else by now: the next look must see that it ran.
        let stat = if kernel.assumed { self.previous.stat } else { kernel.stat };
        let asleep_since = if state.1 == Evidence::NotRunSince { self.previous.asleep_since } else { at };
        self.previous = Previous { at, stat, off_cpu_state, asleep_since, near_wait, wants_gil, held, wait_certain };
    }

    /// Whether it has never had a CPU.
    fn not_yet_scheduled(&self, stat: Option<SchedStat>) -> bool {
        self.started_at.is_some() && stat.is_some_and(|s| s.runs == 0)
    }

    /// A thread begins in the run queue. Once it has left that, the kernel has counted how long it was there; until then nothing is booked.
    fn attribute_first_wait(
        &mut self,
        at: Nanos,
        stat: Option<SchedStat>,
        stack: &Arc<Stack>,
        emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence),
    ) {
        let Some((started_at, stat)) = self.started_at.zip(stat.filter(|s| s.runs > 0)) else { return };
        self.started_at = None;
        let queued = stat.run_queue.saturating_since(self.previous.at.saturating_since(started_at));
        self.attribute_starved(queued.min(at.saturating_since(self.previous.at)), Some(stat), stack, emit);
    }

    /// Books `length` in the run queue, which ends before anything else.
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

    /// Settles what is pending at the end. `stat` is the last count, where it could still be read.
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
