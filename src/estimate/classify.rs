//! Classifies one sample of one thread: a pure decision table from an [`Observation`] to a state
//! and its evidence.
//!
//! The table does not guess. A runnable thread without the GIL may run native code, may be in the
//! run queue, or may have just been woken to take the GIL. Kernel stacks, where gilprof may read
//! them, or else counts of switches, decide most of these cases. The others become
//! [`Classification::Ambiguous`], and `cpu_attribution` divides their time by the CPU time that the
//! kernel counted.

use crate::sample::{Evidence, RunnableState, State, TaskState};

/// Whether a thread that has released the GIL can have got a drop request. In `take_gil`, a waiter
/// sends the holder a drop request after it has waited for a switch interval without a GIL switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropRequest {
    /// It cannot. If the thread has released the GIL, it did so for a blocking call, or for the
    /// last time.
    No,
    /// Unknown.
    #[default]
    Unknown,
    /// It can, and very likely did: the thread has held the GIL, and another thread has waited for
    /// it, for at least a switch interval.
    Likely,
}

/// What one sample shows of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Where the thread is in the kernel.
    pub task_state: TaskState,
    /// Whether the GIL named the thread as its holder when the sample began.
    pub held_before: bool,
    /// Whether the GIL named the thread as its holder when the sample ended.
    pub held_after: bool,
    /// 3.15: the thread state's `gil_requested` flag, set while the thread is in `take_gil`.
    pub requested: Option<bool>,
    /// The leaf frame's current instruction is a call of a C function.
    pub in_c_call: bool,
    /// If the thread has released the GIL: whether it can have got a drop request.
    pub drop_request: DropRequest,
    /// The thread held the GIL at the last sample.
    pub held_last: bool,
    /// The thread's state at the last sample, if it was off the CPU then.
    pub off_cpu_state: Option<State>,
    /// The thread waited for the GIL at the last sample, or has been runnable without the GIL at
    /// every sample since it did.
    pub near_wait: bool,
    /// The last futex sleep in which a sample found the thread was for the GIL.
    pub wants_gil: bool,
    /// The thread sleeps often for something other than the GIL where it is now: within a call of a
    /// C function.
    pub sleeps_for_other: bool,
    /// Where a runnable thread is, by its kernel stack or its counts of switches; `None` where that
    /// is unknown.
    pub runnable_state: Option<RunnableState>,
    /// Whether the thread got a CPU since the last sample; `None` where the kernel does not count.
    pub was_scheduled: Option<bool>,
}

/// The table's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classification {
    /// This sample alone decides.
    Known(State, Evidence),
    /// Holds the GIL and is runnable: on a CPU, unless the run-queue time says otherwise.
    HoldingRunnable(State),
    /// Runnable without the GIL and without wanting it: native code, unless the run-queue time says
    /// otherwise.
    OffGil,
    /// Runnable without the GIL; one sample cannot say more.
    Ambiguous {
        /// As [`Observation::near_wait`].
        near_wait: bool,
    },
}

impl Classification {
    /// The same where the GIL is off, so that nobody waits for it.
    pub fn without_gil(self) -> Classification {
        match self {
            Classification::Known(State::Waiting, Evidence::GilFutex | Evidence::SameHolder) => {
                Classification::Known(State::Lock, Evidence::Syscall)
            }
            Classification::Known(State::Waiting, _) => Classification::Known(State::Starved, Evidence::KernelStack),
            Classification::Ambiguous { .. } => Classification::OffGil,
            other => other,
        }
    }
}

/// Classifies one sample of one thread.
pub fn classify(observed: &Observation) -> Classification {
    use Classification::{HoldingRunnable, Known};
    use Evidence as E;
    let held = observed.held_before && observed.held_after;
    let holding = if observed.in_c_call { State::HoldingNative } else { State::HoldingPython };
    match observed.task_state {
        TaskState::Stopped => Known(State::Unknown, E::Stopped),
        // States describe the beginning of the sample. A holder that released the GIL and fell
        // asleep during the sample was still the holder then.
        TaskState::GilFutex | TaskState::OtherFutex | TaskState::Syscall | TaskState::OutsideSyscall
            if observed.held_before && !observed.held_after =>
        {
            HoldingRunnable(holding)
        }
        TaskState::GilFutex => Known(State::Waiting, E::GilFutex),
        TaskState::StillWaiting => Known(State::Waiting, E::SameHolder),
        TaskState::NotRunSince if held => Known(State::HoldingBlocked, E::GilHolder),
        TaskState::NotRunSince => match observed.off_cpu_state {
            Some(State::HoldingBlocked) | None => Known(State::Unknown, E::Unread),
            Some(state) => Known(state, E::NotRunSince),
        },
        TaskState::OtherFutex if held => Known(State::HoldingBlocked, E::HolderLock),
        TaskState::OutsideSyscall if held => Known(State::HoldingBlocked, E::HolderFault),
        TaskState::Syscall if held => Known(State::HoldingBlocked, E::GilHolder),
        TaskState::OtherFutex => Known(State::Lock, E::Syscall),
        TaskState::Syscall | TaskState::OutsideSyscall => Known(State::Io, E::Syscall),
        TaskState::Runnable if observed.held_before => HoldingRunnable(holding),
        TaskState::Unread if held => Known(holding, E::GilHolder),
        TaskState::Runnable if observed.requested == Some(true) && request_started(observed) => Classification::OffGil,
        TaskState::Runnable | TaskState::Unread if observed.requested == Some(true) => Known(State::Waiting, E::GilRequested),
        TaskState::Runnable => match (observed.off_cpu_state, observed.was_scheduled) {
            (Some(State::Waiting), Some(false)) => Known(State::Waiting, E::WokenNotRun),
            (Some(_), Some(false)) => Known(State::Starved, E::WokenNotRun),
            _ => runnable(observed),
        },
        TaskState::Unread => Known(State::Unknown, E::Unread),
    }
}

/// Whether a thread with a GIL request made the request after this sample had begun, while it ran
/// on a CPU for something else.
fn request_started(observed: &Observation) -> bool {
    match observed.runnable_state {
        Some(RunnableState::InSystemCall) => true,
        Some(RunnableState::OnCpu) => !observed.near_wait,
        _ => false,
    }
}

/// Classifies a thread that has had a CPU since the last sample and is runnable without the GIL.
fn runnable(observed: &Observation) -> Classification {
    use Evidence::{KernelStack, PushedOff, SwitchCounts};
    match observed.runnable_state {
        None => Classification::Ambiguous { near_wait: observed.near_wait },
        // The thread took the GIL after this sample had begun, so it was waiting for the GIL or
        // about to.
        Some(RunnableState::OnCpu) if observed.held_after => Classification::Ambiguous { near_wait: observed.near_wait },
        // Within another system call the thread may have slept, or it worked there and was
        // preempted, perhaps by this sample itself.
        Some(RunnableState::OnCpu | RunnableState::Preempted | RunnableState::InSystemCall) => Classification::OffGil,
        Some(RunnableState::LeavingSyscall) if observed.drop_request == DropRequest::No => {
            Classification::Known(State::Starved, KernelStack)
        }
        // The eval loop releases the GIL because of a drop request and then requests it again; a C
        // function releases it for a blocking call. The leaf instruction does not separate the two:
        // it is still the call when the call has just returned and the eval loop checks for a drop
        // request at its end.
        Some(RunnableState::LeavingSyscall) if observed.in_c_call && observed.drop_request == DropRequest::Unknown => {
            Classification::Ambiguous { near_wait: observed.near_wait }
        }
        Some(RunnableState::LeavingSyscall) => Classification::Known(State::Waiting, PushedOff),
        // Woken from a lock inside the call that acquires it, so the thread has not requested the
        // GIL yet. A thread after a forced switch, in the eval loop or at the end of a call, has no
        // request either while it waits on `switch_cond` for another thread to take the GIL; hence
        // the drop-request test.
        Some(RunnableState::WokenFromFutex)
            if observed.requested == Some(false) && observed.in_c_call && observed.drop_request == DropRequest::No =>
        {
            Classification::Known(State::Starved, KernelStack)
        }
        // A forced release follows a hold of a switch interval, so a sample has seen the thread
        // hold. The thread that it woke has pushed it off.
        Some(RunnableState::PushedOff) if observed.held_last && observed.drop_request == DropRequest::Likely => {
            Classification::Known(State::Waiting, PushedOff)
        }
        // On its way into or out of a wait, or in native code that is no call.
        Some(RunnableState::PushedOff) if observed.near_wait && !observed.in_c_call => Classification::Ambiguous { near_wait: true },
        Some(RunnableState::PushedOff) if observed.held_last && observed.drop_request == DropRequest::Unknown => {
            Classification::Ambiguous { near_wait: false }
        }
        Some(RunnableState::PushedOff) => Classification::OffGil,
        // Woken from a sleep of a C function, in which it does not want the GIL.
        Some(RunnableState::Woken) if observed.sleeps_for_other || observed.requested == Some(false) && observed.in_c_call => {
            Classification::Known(State::Starved, SwitchCounts)
        }
        Some(RunnableState::Woken) if observed.wants_gil => Classification::Known(State::Waiting, SwitchCounts),
        Some(RunnableState::Woken) => Classification::Known(State::Starved, SwitchCounts),
        Some(RunnableState::WokenFromFutex) if observed.wants_gil => Classification::Known(State::Waiting, KernelStack),
        Some(RunnableState::WokenFromFutex) => Classification::Known(State::Starved, KernelStack),
    }
}
