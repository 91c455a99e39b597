//! What a thread is doing, judged from one look: a pure decision table that returns the state and how it is known.
//!
//! What one look cannot tell it does not guess. A runnable thread that does not hold the GIL may run native code, may have no CPU, or may
//! just have been woken to take the GIL; it is handed on as [`Classification::Ambiguous`], and the `cpu_attribution` splits it by the CPU time that the
//! kernel counted.

use crate::process::kernel_stack::KernelStackState;
use crate::process::threads::SyscallState;
use crate::sample::{Evidence, State};

/// Where a thread sleeps, when it sleeps on a futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Runnable: the kernel does not say whether it has a CPU.
    Runnable,
    /// On a futex inside a GIL: it wants that GIL.
    GilFutex,
    /// On any other futex.
    OtherFutex,
    /// In another system call.
    Syscall,
    /// Off the CPU outside a system call: a page fault, a stop.
    OutsideSyscall,
    /// It slept at the last look and has not run since, so it was not looked at again.
    NotRunSince,
    /// It waited for the GIL at the last look, and only others can have had it since: it cannot have left `take_gil`.
    StillWaiting,
    /// Stopped with the whole program, so that it does nothing.
    Stopped,
    /// Could not be read.
    Unread,
}

/// Whether a thread can have been told to let go of the GIL. A waiter tells the holder to once it has waited for a switch interval in which the
/// GIL did not change hands (`take_gil`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropRequest {
    /// It cannot: if it has let go, then for work of its own, or for good.
    No,
    /// Nothing tells.
    #[default]
    Unknown,
    /// It can, and will have been: it has held, and another has waited, for as long as that takes.
    Likely,
}

/// A thread as one look saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Where the kernel says it is.
    pub task_state: TaskState,
    /// Whether the GIL named it as the holder when the look began.
    pub held_before: bool,
    /// Whether the GIL named it as the holder when the look ended.
    pub held_after: bool,
    /// 3.15: whether it has asked for the GIL and not got it.
    pub requested: Option<bool>,
    /// Its leaf instruction is a call of a C function.
    pub in_c_call: bool,
    /// If it has let go of the GIL: whether it can have been told to.
    pub drop_request: DropRequest,
    /// What it was doing at the last look, if that was off the CPU.
    pub off_cpu_state: Option<State>,
    /// It waited for the GIL at the last look, or has been runnable without the GIL ever since it did.
    pub near_wait: bool,
    /// The GIL is what it last slept for on a futex, as far as looks have met it.
    pub wants_gil: bool,
    /// Where it is in the kernel, if it is runnable and that can be told.
    pub kernel_state: Option<KernelStackState>,
    /// Whether it got a CPU since the last look; `None` where the kernel does not count.
    pub was_scheduled: Option<bool>,
}

/// The table's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classification {
    /// Told by this look alone.
    Known(State, Evidence),
    /// Owns the GIL and is runnable: on a CPU, unless the run queue says otherwise.
    HoldingRunnable(State),
    /// Runnable without the GIL and without wanting it: native code, unless the run queue says otherwise.
    OffGil,
    /// Runnable without the GIL.
    Ambiguous {
        /// As [`Observation::near_wait`].
        near_wait: bool,
    },
}

/// Judges one look at one thread.
pub fn classify(observed: &Observation) -> Classification {
    use Classification::{HoldingRunnable, Known};
    use Evidence as E;
    let held = observed.held_before && observed.held_after;
    let holding = if observed.in_c_call { State::HoldingNative } else { State::HoldingPython };
    match observed.task_state {
        TaskState::Stopped => Known(State::Unknown, E::Stopped),
        // The states of one look are those of its beginning: a holder that let go and went to sleep meanwhile was still the holder.
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
        TaskState::OtherFutex | TaskState::Syscall | TaskState::OutsideSyscall if held => Known(State::HoldingBlocked, E::GilHolder),
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

/// Whether one that asks for the GIL has begun to since this look did, on a CPU that it had for something else.
fn request_started(observed: &Observation) -> bool {
    match observed.kernel_state {
        Some(KernelStackState::InSystemCall) => true,
        Some(KernelStackState::OnCpu) => !observed.near_wait,
        _ => false,
    }
}

/// A thread that has had a CPU since the last look and is runnable without the GIL.
fn runnable(observed: &Observation) -> Classification {
    use Evidence::{KernelStack, PushedOff};
    match observed.kernel_state {
        None => Classification::Ambiguous { near_wait: observed.near_wait },
        // It has got the GIL since this look began, and then wanted it, or was about to.
        Some(KernelStackState::OnCpu) if observed.held_after => Classification::Ambiguous { near_wait: observed.near_wait },
        // In another system call it may have slept, or worked there and been pushed off its CPU, by this very look perhaps.
        Some(KernelStackState::OnCpu | KernelStackState::Preempted | KernelStackState::InSystemCall) => Classification::OffGil,
        Some(KernelStackState::LeavingSyscall) if observed.drop_request == DropRequest::No => {
            Classification::Known(State::Starved, KernelStack)
        }
        // The eval loop lets go because it was told to, and asks again; a C function does so for work of its own. But a call that has just
        // returned, at whose end the eval loop looks whether it is told to, still is the instruction that the thread is at.
        Some(KernelStackState::LeavingSyscall) if observed.in_c_call && observed.drop_request == DropRequest::Unknown => {
            Classification::Ambiguous { near_wait: observed.near_wait }
        }
        Some(KernelStackState::LeavingSyscall) => Classification::Known(State::Waiting, PushedOff),
        // Woken from a lock, in the call that acquires it: it has not come to ask for the GIL. One that was forced to let go, by the eval loop or
        // at the end of a call, has not asked yet either while it waits for its taker (`switch_cond`).
        Some(KernelStackState::WokenFromFutex)
            if observed.requested == Some(false) && observed.in_c_call && observed.drop_request == DropRequest::No =>
        {
            Classification::Known(State::Starved, KernelStack)
        }
        Some(KernelStackState::WokenFromFutex) if observed.wants_gil => Classification::Known(State::Waiting, KernelStack),
        Some(KernelStackState::WokenFromFutex) => Classification::Known(State::Starved, KernelStack),
    }
}

/// Names the place from what the kernel says. `on_gil` tells whether a futex lies in a GIL; `None` where not every GIL's place is known.
pub fn task_state(kernel: SyscallState, on_gil: impl Fn(crate::ids::Addr) -> Option<bool>) -> TaskState {
    match kernel {
        SyscallState::Runnable => TaskState::Runnable,
        SyscallState::Futex(at) => match on_gil(at) {
            Some(true) => TaskState::GilFutex,
            Some(false) => TaskState::OtherFutex,
            None => TaskState::Unread,
        },
        SyscallState::Syscall(_) => TaskState::Syscall,
        SyscallState::OutsideSyscall => TaskState::OutsideSyscall,
    }
}
